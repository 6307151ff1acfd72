"""In which order nodes move, as tables."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from ansible.module_utils.qianjiang.policy import Policy
from ansible.module_utils.qianjiang.wave import Batches, batches, ranks, stage, waves


def services(**dependencies: list[str]) -> dict[str, Any]:
    return {name: {"depends_on": others} for name, others in dependencies.items()}


@pytest.mark.parametrize(
    ("depends_on", "order", "expected"),
    [
        pytest.param({}, [], [], id="nothing"),
        pytest.param({"a": [], "b": []}, ["a", "b"], [["a", "b"]], id="none depends on another"),
        pytest.param({"a": [], "b": ["a"], "c": ["a"]}, ["a", "b", "c"], [["a"], ["b", "c"]], id="two on one"),
        pytest.param({"a": [], "b": ["a"], "c": ["b", "a"]}, ["a", "b", "c"], [["a"], ["b"], ["c"]], id="chain"),
        pytest.param({"a": [], "b": ["a"]}, ["b"], [["b"]], id="what is not asked for is no stage"),
        pytest.param({"a": [], "b": ["a"], "c": ["b"]}, ["a", "c"], [["a", "c"]], id="nor does it order the others"),
    ],
)
def test_stages(depends_on: dict[str, list[str]], order: list[str], expected: list[list[str]]) -> None:
    assert ranks(services(**depends_on), order) == expected


@pytest.mark.parametrize(
    ("count", "canary", "max_parallel", "expected"),
    [
        pytest.param(0, 1, 1, [], id="no node"),
        pytest.param(3, 0, 1, ["1", "2", "3"], id="no canary"),
        pytest.param(5, 0, 2, ["12", "34", "5"], id="two at a time"),
        pytest.param(5, 1, 2, ["1", "23", "45"], id="one canary"),
        pytest.param(5, 3, 2, ["12", "3", "45"], id="canaries keep to max_parallel too"),
        pytest.param(5, 2, 3, ["12", "345"], id="fewer canaries than max_parallel"),
        pytest.param(2, 4, 1, ["1", "2"], id="more canaries than nodes"),
        pytest.param(2, 5, 3, ["12"], id="more canaries than nodes, side by side"),
    ],
)
def test_batches(count: int, canary: int, max_parallel: int, expected: list[str]) -> None:
    nodes = [str(number + 1) for number in range(count)]
    assert batches(nodes, canary, max_parallel) == [list(batch) for batch in expected]


@pytest.mark.parametrize(
    ("datacenters", "max_parallel", "bake", "expected"),
    [
        pytest.param("", 2, 60, [], id="none"),
        pytest.param("abc", 1, 0, ["a", "b", "c"], id="one after the other"),
        pytest.param("abc", 2, 0, ["ab", "c"], id="side by side"),
        pytest.param("abc", 2, 60, ["a", "bc"], id="the first one bakes alone"),
        pytest.param("a", 2, 60, ["a"], id="only one"),
    ],
)
def test_waves(datacenters: str, max_parallel: int, bake: float, expected: list[str]) -> None:
    assert waves(list(datacenters), max_parallel, bake) == [list(group) for group in expected]


POLICY: Policy = {"order": ["h", "s"], "max_parallel": 1, "on_failure": "stop", "unreachable": "stop"}
SIDE_BY_SIDE: Policy = {**POLICY, "max_parallel": 2}
NODES = {"s": ["s1", "s2"], "h": ["h1", "h2", "h3"]}


def update(**more: Any) -> dict[str, Any]:
    return {"update": {"max_parallel": 1, "canary": 1, "bake_time": 0} | more}


def planned(
    services: dict[str, Any], policy: Policy, nodes: dict[str, list[str]], *, proven: bool = False
) -> tuple[Any, ...]:
    """The datacenters, batches and bake of each wave, and the batches that go first | the rest."""
    found = stage(services, list(services), nodes, policy, proven_before=proven)
    assert found["services"] == list(services)
    shown = [
        (wave["datacenters"], [" ".join(batch) for batch in wave["batches"]], wave["bake"]) for wave in found["waves"]
    ]
    return shown, f"{batched(found['first'])} | {batched(found['rest'])}"


def batched(batches: Batches) -> str:
    """The nodes, with a comma between batches."""
    nodes = iter(batches["nodes"])
    return ", ".join(" ".join(islice(nodes, size)) for size in batches["serial"])


def test_nothing_changes() -> None:
    assert planned({"a": update()}, POLICY, {"h": [], "s": []}) == ([], " | ")


def test_datacenters_one_after_the_other() -> None:
    assert planned({"a": update()}, POLICY, NODES) == (
        [(["h"], ["h1", "h2", "h3"], 0), (["s"], ["s1", "s2"], 0)],
        "h1 | h2, h3, s1, s2",
    )


def test_side_by_side_a_batch_has_nodes_of_each_datacenter() -> None:
    assert planned({"a": update()}, SIDE_BY_SIDE, NODES) == (
        [(["h", "s"], ["h1 s1", "h2 s2", "h3"], 0)],
        "h1 s1 | h2 s2, h3",
    )


def test_after_the_canary_max_parallel_at_a_time_in_each_datacenter() -> None:
    assert planned({"a": update(max_parallel=2)}, SIDE_BY_SIDE, NODES) == (
        [(["h", "s"], ["h1 s1", "h2 h3 s2"], 0)],
        "h1 s1 | h2 h3 s2",
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param(update(canary=2), "h1, h2 | h3, s1, s2", id="each canary"),
        pytest.param(update(canary=3, max_parallel=2), "h1 h2, h3 | s1 s2", id="in more than one batch"),
        pytest.param(update(canary=9), "h1, h2, h3, s1, s2 | ", id="more canaries than nodes"),
        pytest.param(update(canary=0, max_parallel=2), "h1 h2 | h3, s1 s2", id="no canary: the first batch"),
    ],
)
def test_what_goes_first(policy: dict[str, Any], expected: str) -> None:
    assert planned({"a": policy}, POLICY, NODES)[1] == expected


def test_only_the_first_wave_bakes_and_alone() -> None:
    assert planned({"a": update(bake_time=60)}, SIDE_BY_SIDE, NODES) == (
        [(["h"], ["h1", "h2", "h3"], 60), (["s"], ["s1", "s2"], 0)],
        "h1, h2, h3 | s1, s2",
    )


def test_services_bake_one_after_the_other() -> None:
    services = {"a": update(bake_time=60), "b": update(bake_time=40)}
    assert planned(services, POLICY, {"h": ["h1"], "s": ["s1"]})[0] == [(["h"], ["h1"], 100), (["s"], ["s1"], 0)]


def test_a_datacenter_where_nothing_changes_is_no_canary() -> None:
    assert planned({"a": update(bake_time=60)}, POLICY, {"h": [], "s": ["s1"]})[0] == [(["s"], ["s1"], 60)]


def test_the_most_careful_service_decides() -> None:
    careful = {"a": update(max_parallel=2, canary=0), "b": update(canary=1, bake_time=5)}
    assert planned(careful, POLICY, NODES)[0] == [(["h"], ["h1", "h2", "h3"], 5), (["s"], ["s1", "s2"], 0)]
    fast = {"a": update(max_parallel=2, canary=0), "b": update(max_parallel=3, canary=0)}
    assert planned(fast, POLICY, NODES)[0] == [(["h"], ["h1 h2", "h3"], 0), (["s"], ["s1 s2"], 0)]


def test_what_has_served_before_goes_everywhere_at_once() -> None:
    services = {"a": update(max_parallel=2, canary=1, bake_time=60)}
    assert planned(services, POLICY, NODES, proven=True) == (
        [(["h", "s"], ["h1 h2 s1 s2", "h3"], 0)],
        " | h1 h2 s1 s2, h3",
    )
