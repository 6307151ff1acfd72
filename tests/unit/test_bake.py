"""Whether a new release does as well as the old one, out of HAProxy's counters."""

from __future__ import annotations

import pytest
from ansible.module_utils.qianjiang.bake import Figures, Limits, judge, problem_of, since, together, whole
from ansible.module_utils.qianjiang.haproxy import Server

LIMITS = Limits(max_errors=0.01, max_latency=2.0, min_requests=20)
A, B, D = "node1.0.a", "node1.0.b", "node1.1.b"


def server(requests: int, errors: int = 0, response_ms: int = 0, admin: str = "ready", up: bool = True) -> Server:
    check = "L7OK" if up else "L4CON"
    return Server(B, admin, up, True, check, 0, 0, requests, errors, response_ms, response_ms)


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        pytest.param({B: Figures(500, 0, 60)}, {A: Figures(900, 0, 55)}, None, id="fine"),
        pytest.param({B: Figures(0)}, {A: Figures(0)}, None, id="nothing came"),
        pytest.param({B: Figures(19, 19, 9000)}, {A: Figures(900, 0, 5)}, None, id="too few to say anything"),
        pytest.param(
            {B: Figures(20, 1, 5)},
            {A: Figures(900, 0, 5)},
            f"{B}: 1 of 20 requests failed (5.0%), allowed are 1.0% (the old servers have 0.0%)",
            id="just enough",
        ),
        pytest.param({B: Figures(100, 1)}, {A: Figures(900)}, None, id="as many errors as are allowed"),
        pytest.param({B: Figures(100, 10)}, {A: Figures(900, 90)}, None, id="the old release is no better"),
        pytest.param(
            {B: Figures(100, 12)},
            {A: Figures(900, 90)},
            f"{B}: 12 of 100 requests failed (12.0%), allowed are 11.0% (the old servers have 10.0%)",
            id="more than the old release",
        ),
        pytest.param(
            {B: Figures(100, 2)},
            {},
            f"{B}: 2 of 100 requests failed (2.0%), allowed are 1.0% (the old servers had no requests)",
            id="a first release",
        ),
        pytest.param(
            {B: Figures(100, 2)},
            {A: Figures(19, 19)},
            f"{B}: 2 of 100 requests failed (2.0%), allowed are 1.0% (the old servers had no requests)",
            id="too few of the old ones to excuse anything",
        ),
        pytest.param(
            {B: Figures(300, 0, 121, 1)},
            {A: Figures(900, 0, 55)},
            f"{B}: answers take 121 ms on average (of 300), allowed are 110 ms (the old servers take 55 ms)",
            id="slow",
        ),
        pytest.param({B: Figures(300, 0, 121, 12)}, {A: Figures(900, 0, 55)}, None, id="perhaps not slow"),
        pytest.param({B: Figures(300, 0, 50, 0)}, {A: Figures(900, 0, 2)}, None, id="nobody notices"),
        pytest.param(
            {B: Figures(300, 0, 51.1, 1)},
            {A: Figures(900, 0, 2)},
            f"{B}: answers take 51 ms on average (of 300), allowed are 50 ms (the old servers take 2 ms)",
            id="above the floor",
        ),
        pytest.param({B: Figures(300, 0, 900)}, {A: Figures(19, 0, 2)}, None, id="nothing to compare with"),
        pytest.param(
            {B: Figures(300, 0, 5), D: Figures(problem="is not UP (last check: L4CON)")},
            {A: Figures(900, 0, 5)},
            f"{D} is not UP (last check: L4CON)",
            id="not up counts without requests",
        ),
        pytest.param(
            {B: Figures(15, 1), D: Figures(15, 1)},
            {A: Figures(900)},
            f"{B}, {D}: 2 of 30 requests failed (6.7%), allowed are 1.0% (the old servers have 0.0%)",
            id="each too few, together enough",
        ),
        pytest.param(
            {B: Figures(1000, 0), D: Figures(20, 1)},
            {A: Figures(900)},
            f"{D}: 1 of 20 requests failed (5.0%), allowed are 1.0% (the old servers have 0.0%)",
            id="one of several, lost in the crowd",
        ),
        pytest.param(
            {B: Figures(100, 0)},
            {A: Figures(900, problem="is in maint")},
            None,
            id="the old ones may be away",
        ),
    ],
)
def test_judge(new: dict[str, Figures], old: dict[str, Figures], expected: str | None) -> None:
    assert judge(new, old, LIMITS) == expected


@pytest.mark.parametrize(
    ("begin", "now", "expected"),
    [
        pytest.param(server(0), server(20, 2, 300), Figures(20, 2, 300.0, 1.0), id="a slot without a past"),
        pytest.param(server(40, 1, 9), server(40, 1, 9), Figures(0, 0, 0.0, 0.0), id="nothing since"),
        # 180 answers of 135 ms and 20 of 305 ms are 152 ms on average
        pytest.param(server(180, 0, 135), server(200, 0, 152), Figures(20, 0, 305.0, 10.0), id="a plain average"),
        # As HAProxy 2.6 and 3.0 counted answers of 300 ms
        pytest.param(server(1540, 3, 20), server(1560, 3, 31), Figures(20, 0, 306.9, 26.1), id="a sliding average"),
        pytest.param(
            server(1540, 0, 20), server(1620, 0, 61), Figures(80, 0, 303.2, 6.9), id="the longer, the sharper"
        ),
        pytest.param(server(500, 0, 10), server(520, 0, 21), Figures(20, 0, 295.0, 25.9), id="over the edge"),
        pytest.param(server(900, 5, 99), server(30, 1, 8), Figures(30, 1, 8.0, 1.0), id="reloaded meanwhile"),
        pytest.param(server(900, 0, 99), server(30, 0, 8), Figures(30, 0, 8.0, 1.0), id="reloaded, without errors"),
        pytest.param(server(600, 5), server(640, 2), Figures(40, 0, 0.0, 13.3), id="answers under way hide old errors"),
        pytest.param(
            server(600, 1)._replace(perhaps_unanswered=4),
            server(640, 5),
            Figures(40, 0, 0.0, 13.3),
            id="old errors come out of hiding",
        ),
        pytest.param(
            server(600, 1)._replace(perhaps_unanswered=4),
            server(640, 8),
            Figures(40, 3, 0.0, 13.3),
            id="old errors come out of hiding, and there are new ones",
        ),
        pytest.param(server(1540, 0, 20), server(1541, 0, 19), Figures(1, 0, 0.0, 512.0), id="rounding, never below 0"),
    ],
)
def test_since(begin: Server, now: Server, expected: Figures) -> None:
    assert since(begin, now) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (server(0), ""),
        (server(0, up=False), "is not UP (last check: L4CON)"),
        (server(0, admin="maint", up=False), "is in maint"),
        (server(0, admin="drain"), "is in drain"),
        (server(0, up=False)._replace(check_status="INI"), ""),
    ],
)
def test_a_server_that_gets_no_requests(found: Server, expected: str) -> None:
    assert problem_of(found) == expected
    assert whole(found).problem == expected
    assert since(server(0), found).problem == expected


def test_several_as_one() -> None:
    assert together({A: Figures(30, 1, 10, 1), B: Figures(10, 2, 50, 3)}) == Figures(40, 3, 20.0, 1.5)
    assert together({}) == Figures()
