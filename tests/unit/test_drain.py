# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers a drain takes out of rotation, as tables: who serves and who is named → what the gateways do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible.module_utils.qianjiang.drain import plan_drain
from ansible.module_utils.qianjiang.rotation import judge
from ansible.module_utils.qianjiang.target import PlanError, Platform

from support import DATACENTERS, NEW, catalogue, node, replica, running

SERVICES = catalogue(webui={"update": {"drain_timeout": 7}})
SERVES, NOTHING = node(replica(running(3)), highest=3), node(replica(), highest=0)
STOPPED = node(replica(running(3, running=False)), highest=3)
SICK = node(replica(running(3, health="unhealthy")), highest=3)
OTHER_SLOT = node(replica(running(3, "b")), highest=3)
TWO = node(replica(running(3)), replica(running(3, number=1), 1), highest=3)
STORE = node(replica(running(1, service="store")), highest=1)["services"]["webui"]
BOTH = {"services": SERVES["services"] | {"store": STORE}, "orphans": []}
ONLY_STORE = {"services": {"store": STORE}, "orphans": []}
EVERYWHERE = {"h1": SERVES, "h2": SERVES, "s1": SERVES}
ALL = ["h1", "h2", "s1"]


def platform(
    nodes: Mapping[str, Any],
    drained: str,
    one_of_two: str = "",
    *,
    down: str = "",
    silent: str = "",
    reached: tuple[bool, bool] = (True, True),
) -> Platform:
    """`drained`: the servers that are in maintenance at every gateway, `one_of_two`: at one of two. `down`: those that
    pass no gateway's check. `silent`: the datacenter whose gateways do not answer. `reached`: whether either gateway
    reaches those of the other datacenter."""
    servers = [f"{name}.{number}.{slot}" for name in ALL for number in (0, 1) for slot in "ab"]
    tables = [
        {
            "webui": {
                server: {"admin": "maint", "serves": False}
                if server in gone
                else {"admin": "ready", "serves": server not in down.split()}
                for server in servers
            },
            "webui.elsewhere": {"datacenter": {"admin": "ready", "serves": way}},
        }
        for gone, way in zip((drained.split(), [*drained.split(), *one_of_two.split()]), reached, strict=True)
    ]
    gateways = {place: [] if place == silent else tables for place in DATACENTERS}
    judged = judge(nodes, DATACENTERS, gateways, {"webui": NEW, "store": NEW})
    return Platform(SERVICES, DATACENTERS, {}, judged, gateways)


def away(*nodes: str) -> dict[str, list[dict[str, Any]]]:
    """Both slots of the WebUI go."""
    return {name: [{"backend": "webui", "away": [f"{name}.0.a", f"{name}.0.b"], "drain_timeout": 7}] for name in nodes}


def back(name: str, slot: str, other: str) -> dict[str, list[dict[str, Any]]]:
    """The slot that serves comes back, the other one stays away."""
    switch = {"backend": "webui", "to": f"{name}.0.{slot}", "away": [f"{name}.0.{other}"], "drain_timeout": 7}
    return {name: [switch]}


H1, H2, S1 = "h1.0.a h1.0.b", "h2.0.a h2.0.b", "s1.0.a s1.0.b"


@pytest.mark.parametrize(
    ("verb", "wanted", "nodes", "drained", "expected"),
    [
        pytest.param("drain", ["h1"], EVERYWHERE, "", away("h1"), id="a node"),
        pytest.param("drain", ["h1", "h2"], EVERYWHERE, "", away("h1", "h2"), id="a datacenter"),
        pytest.param("drain", ["h1"], EVERYWHERE, H1, {}, id="drained already"),
        pytest.param("drain", ["h1", "h2"], EVERYWHERE, H1, away("h2"), id="one of them drained already"),
        pytest.param("drain", ALL, EVERYWHERE, f"{H1} {H2} {S1}", {}, id="all drained already: not refused"),
        pytest.param("drain", ["h1"], EVERYWHERE, "h1.0.a", away("h1"), id="only one slot is away"),
        pytest.param("drain", ["h1"], {"h1": TWO, "h2": SERVES}, "h1.1.a h1.1.b", away("h1"), id="one of two replicas"),
        pytest.param(
            "drain",
            ["h1"],
            {"h1": TWO, "h2": SERVES},
            f"{H1} h1.1.a h1.1.b",
            {},
            id="both of them drained already",
        ),
        pytest.param("drain", ["h1"], {"h1": BOTH, "h2": SERVES}, "", away("h1"), id="the store has no gateway"),
        pytest.param("drain", ["h1"], {"h1": ONLY_STORE, "h2": SERVES}, "", {}, id="no service with a gateway there"),
        pytest.param("drain", ["h1"], {"h1": NOTHING, "h2": SERVES}, "", away("h1"), id="nothing runs there yet"),
        pytest.param("drain", ["h1"], {"h1": NOTHING}, "", away("h1"), id="nothing runs anywhere: not refused"),
        pytest.param("undrain", ["h1"], EVERYWHERE, H1, back("h1", "a", "b"), id="back"),
        pytest.param("undrain", ["h1"], {"h1": OTHER_SLOT}, H1, back("h1", "b", "a"), id="back in the slot that runs"),
        pytest.param("undrain", ["h1"], EVERYWHERE, "", {}, id="back already"),
        pytest.param("undrain", ALL, EVERYWHERE, "", {}, id="all back already: not refused"),
        pytest.param("undrain", ["h1", "h2"], EVERYWHERE, H2, back("h2", "a", "b"), id="one of them back already"),
        pytest.param("undrain", ["h1"], {"h1": NOTHING}, H1, {}, id="nothing to bring back"),
    ],
)
def test_what_is_switched(
    verb: str, wanted: list[str], nodes: dict[str, Any], drained: str, expected: dict[str, Any]
) -> None:
    assert plan_drain(verb, wanted, platform(nodes, drained)) == expected


@pytest.mark.parametrize(
    ("wanted", "more"),
    [
        pytest.param(["h1", "h2"], {"silent": "shanghai"}, id="nobody forwards to the other datacenter's"),
        pytest.param(["h1"], {"down": f"{H2} {S1}"}, id="the others do not pass a gateway's check"),
    ],
)
def test_who_gets_no_requests_does_not_serve(wanted: list[str], more: dict[str, str]) -> None:
    with pytest.raises(PlanError, match=f"^webui is well and in rotation nowhere but on {', '.join(wanted)}; nobody"):
        plan_drain("drain", wanted, platform(EVERYWHERE, "", **more))


@pytest.mark.parametrize("reached", [(False, False), (True, False)], ids=["no gateway", "one of two"])
def test_a_datacenter_is_not_drained_where_its_gateways_reach_no_other_one(reached: tuple[bool, bool]) -> None:
    cut = platform(EVERYWHERE, "", reached=reached)
    with pytest.raises(
        PlanError, match=r"^webui would be answered in hangzhou by other datacenters alone, and a gatew"
    ):
        plan_drain("drain", ["h1", "h2"], cut)
    for tables in cut.gateways["hangzhou"]:
        del tables["webui.elsewhere"]
    with pytest.raises(PlanError, match=r"a gateway of hangzhou does not know theirs yet: run playbooks/nodes\.yml"):
        plan_drain("drain", ["h1", "h2"], cut)
    assert plan_drain("drain", ["h1"], cut) == away("h1")
    assert plan_drain("drain", ["h1", "h2"], platform(EVERYWHERE, f"{H1} {H2}", reached=reached)) == {}
    assert plan_drain("undrain", ["h1"], platform(EVERYWHERE, H1, reached=reached)) == back("h1", "a", "b")


def test_what_one_of_two_gateways_still_sends_to_is_not_drained() -> None:
    half = platform(EVERYWHERE, "", one_of_two=H1)
    assert plan_drain("drain", ["h1"], half) == away("h1")


def test_one_that_only_one_of_two_gateways_has_back_comes_back() -> None:
    half = platform(EVERYWHERE, "", one_of_two=H1)
    assert plan_drain("undrain", ["h1", "h2"], half) == back("h1", "a", "b")


@pytest.mark.parametrize(
    ("verb", "wanted", "nodes", "drained", "message"),
    [
        pytest.param(
            "drain",
            ALL,
            EVERYWHERE,
            "",
            "webui is well and in rotation nowhere but on h1, h2, s1; nobody would be left to answer",
            id="all that serve",
        ),
        pytest.param(
            "drain",
            ["h1"],
            EVERYWHERE,
            f"{H2} {S1}",
            "webui is well and in rotation nowhere but on h1; nobody would be left to answer",
            id="the others are drained",
        ),
        pytest.param(
            "drain",
            ["h1"],
            {"h1": SERVES, "h2": SICK},
            "",
            "webui is well and in rotation nowhere but on h1; nobody would be left to answer",
            id="the other one is sick",
        ),
        pytest.param(
            "drain",
            ["s1", "h1"],
            {"h1": SERVES, "h2": STOPPED, "s1": NOTHING},
            "",
            "webui is well and in rotation nowhere but on h1; nobody would be left to answer",
            id="the others do not run",
        ),
        pytest.param(
            "drain",
            ["suzhou"],
            EVERYWHERE,
            "",
            "target: expected nodes or a datacenter (h1, h2, s1), got suzhou",
            id="unknown",
        ),
        pytest.param(
            "undrain",
            ["h1", "h3", "h4"],
            EVERYWHERE,
            H1,
            "target: expected nodes or a datacenter (h1, h2, s1), got h3, h4",
            id="some are unknown",
        ),
        pytest.param(
            "drain",
            [],
            EVERYWHERE,
            "",
            "target: expected nodes or a datacenter (h1, h2, s1), got nothing",
            id="none is named",
        ),
    ],
)
def test_refused(verb: str, wanted: list[str], nodes: dict[str, Any], drained: str, message: str) -> None:
    with pytest.raises(PlanError) as error:
        plan_drain(verb, wanted, platform(nodes, drained))
    assert str(error.value) == message
