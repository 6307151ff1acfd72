"""The plan of a rollout, as tables: what runs and what is asked for → who changes what, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible.module_utils.qianjiang.plan import (
    Failure,
    Plan,
    ends_wave,
    may_go_on,
    places,
    plan_removals,
    plan_rollout,
    revert_plan,
    starts_ahead,
    steps_of,
    wave_of,
)
from ansible.module_utils.qianjiang.policy import Policy
from ansible.module_utils.qianjiang.rotation import judge
from ansible.module_utils.qianjiang.target import PlanError, Platform

from support import DATACENTERS, NEW, NODES, OLD, catalogue, gateway, kept, left_over, node, replica, running

SERVICES = catalogue()
POLICY: Policy = {"order": list(NODES), "max_parallel": 1, "on_failure": "stop", "unreachable": "stop"}
GATEWAYS = {"hangzhou": [gateway(h1="a", h2="a")], "shanghai": [gateway(s1="a")]}
IMAGE = {"name": "image", "before": OLD, "after": NEW}
FIRST = {"name": "image", "before": None, "after": NEW}

RIGHT = node(replica(running(3)), highest=3)
BEHIND = node(replica(running(2, digest=OLD)), highest=2)
BARE = node(replica(), highest=0)
LEFT_OVER = node(replica(running(3), extra=[left_over(2, digest=OLD)]), highest=3)
RUNNING = {"name": "running", "before": False, "after": True}
KEEPS = node(replica(running(3)), highest=3, kept=[kept(2)])


def platform(
    nodes: Mapping[str, Any],
    *,
    services: Mapping[str, Any] | None = None,
    gateways: Mapping[str, Any] | None = None,
    digests: Mapping[str, str] | None = None,
    away: tuple[str, ...] = (),
    origin_away: str = "",
    silent: Mapping[str, Mapping[str, str]] | None = None,
) -> Platform:
    """The sample platform, judged as the playbooks do."""
    digests = {"webui": NEW, "store": NEW} if digests is None else digests
    gateways = GATEWAYS if gateways is None else gateways
    judged = judge(nodes, DATACENTERS, gateways, digests)
    return Platform(services or SERVICES, DATACENTERS, digests, judged, gateways, away, origin_away, silent or {})


def plan(
    nodes: Mapping[str, Any],
    verb: str = "rollout",
    *,
    order: tuple[str, ...] = ("webui",),
    policy: Mapping[str, Any] | None = None,
    to: str = "",
    names: tuple[str, ...] = (),
    **more: Any,
) -> Plan:
    request: Any = {"verb": verb, "order": list(order), "names": list(names), "to": to}
    wanted: Any = {**POLICY, **(policy or {})}
    return plan_rollout(request, platform(nodes, **more), wanted)


def everywhere(seen: dict[str, Any]) -> dict[str, Any]:
    return {"h1": seen, "h2": seen, "s1": seen}


@pytest.mark.parametrize(
    ("nodes", "release", "changing"),
    [
        pytest.param(everywhere(RIGHT), 3, [], id="idempotent"),
        pytest.param(everywhere(BARE), 1, ["h1", "h2", "s1"], id="first release"),
        pytest.param(everywhere(BEHIND), 3, ["h1", "h2", "s1"], id="next release"),
        pytest.param({"h1": RIGHT, "h2": BEHIND, "s1": BEHIND}, 3, ["h2", "s1"], id="resumed under the same number"),
        pytest.param({"s1": BEHIND, "h2": BEHIND, "h1": BEHIND}, 3, ["h1", "h2", "s1"], id="order of the datacenters"),
        pytest.param({"h1": RIGHT, "h2": RIGHT, "s1": LEFT_OVER}, 3, ["s1"], id="left-overs are stopped"),
        pytest.param({"h1": BEHIND}, 3, ["h1"], id="only what was looked at"),
    ],
)
def test_number_and_nodes(nodes: dict[str, Any], release: int, changing: list[str]) -> None:
    planned = plan(nodes)
    assert (planned["services"]["webui"]["release"], planned["nodes"]) == (release, changing)
    assert planned["changed"] is planned["services"]["webui"]["changed"] is bool(changing)
    assert list(planned["steps"]) == changing


def test_an_empty_plan_says_nothing() -> None:
    planned = plan(everywhere(RIGHT))
    assert [key for key, value in planned.items() if value] == ["verb", "names", "services", "policy"]


def test_a_step_says_everything_the_node_needs() -> None:
    planned = plan({"h1": RIGHT, "h2": RIGHT, "s1": BEHIND})
    assert planned["steps"] == {
        "s1": [
            {
                "service": "webui",
                "number": 3,
                "release": 3,
                "digest": NEW,
                "repository": "webui",
                "reference": "registry.shanghai.lab:5000/webui",
                "pull": True,
                "replicas": [
                    {
                        "replica": 0,
                        "container": "webui.0.r3",
                        "slot": "b",
                        "start": True,
                        "restore": False,
                        "rotate": True,
                        "current": "webui.0.r2",
                        "current_slot": "a",
                        "from_release": 2,
                        "from_digest": OLD,
                        "seen": {"highest_release": 2, "recorded": "webui.0.r2"},
                        "differences": [IMAGE],
                    }
                ],
            }
        ]
    }
    assert planned["images"] == {"shanghai": [f"webui@{NEW}"]}
    assert planned["summary"] == ["1.1.1 s1: webui.0: r2 000000000000 → r3 111111111111 (image)"]
    assert planned["leads"] == ["s1"]


@pytest.mark.parametrize(
    ("images", "pull", "registry"),
    [
        pytest.param([f"registry.shanghai.lab:5000/webui@{NEW}"], False, "registry.shanghai.lab:5000", id="it has it"),
        pytest.param([f"registry.hangzhou.lab:5000/webui@{NEW}"], False, "registry.hangzhou.lab:5000", id="from afar"),
        pytest.param(
            [f"registry.{place}.lab:5000/webui@{NEW}" for place in ("hangzhou", "shanghai")],
            False,
            "registry.shanghai.lab:5000",
            id="its own name first",
        ),
        pytest.param(
            [f"registry.shanghai.lab:5000/webui@{OLD}"], True, "registry.shanghai.lab:5000", id="an older one"
        ),
        pytest.param(
            [f"registry.shanghai.lab:5000/my-webui@{NEW}"], True, "registry.shanghai.lab:5000", id="another's"
        ),
    ],
)
def test_what_a_node_has_is_neither_copied_nor_pulled(images: list[str], pull: bool, registry: str) -> None:
    behind = {**BEHIND, "services": {"webui": {**BEHIND["services"]["webui"], "images": images}}}
    planned = plan({"h1": RIGHT, "h2": RIGHT, "s1": behind})
    step = planned["steps"]["s1"][0]
    assert (step["pull"], step["reference"]) == (pull, f"{registry}/webui")
    assert planned["images"] == ({"shanghai": [f"webui@{NEW}"]} if pull else {})
    assert planned["copies"] == planned["pulls"] == (["s1"] if pull else [])


HAS_IT = {**BEHIND, "services": {"webui": {**BEHIND["services"]["webui"], "images": [f"origin.lab:5000/webui@{NEW}"]}}}
BARE_BUT_HAS_IT = {
    **BARE,
    "services": {"webui": {**BARE["services"]["webui"], "images": [f"origin.lab:5000/webui@{NEW}"]}},
}


@pytest.mark.parametrize(
    ("nodes", "gateways", "copies", "pulls"),
    [
        pytest.param(
            {"h1": BEHIND, "h2": BEHIND, "s1": BEHIND}, GATEWAYS, ["h1", "s1"], ["h1", "h2", "s1"], id="images"
        ),
        pytest.param({"h1": RIGHT, "h2": BEHIND, "s1": RIGHT}, GATEWAYS, ["h2"], ["h2"], id="on one node"),
        pytest.param({"h1": HAS_IT, "s1": HAS_IT}, GATEWAYS, [], [], id="they are there"),
        pytest.param({"h1": HAS_IT, "s1": HAS_IT}, {}, ["h1", "s1"], [], id="but the candidates' servers are not held"),
        pytest.param(
            {"h1": BARE_BUT_HAS_IT},
            {"hangzhou": [gateway(h1="")]},
            [],
            ["h1"],
            id="what a first container mounts is not",
        ),
        pytest.param({"h1": LEFT_OVER, "s1": RIGHT}, GATEWAYS, [], [], id="nothing to start"),
    ],
)
def test_who_has_something_to_do_before_any_switch(
    nodes: dict[str, Any], gateways: dict[str, Any], copies: list[str], pulls: list[str]
) -> None:
    planned = plan(nodes, gateways=gateways)
    assert (planned["copies"], planned["pulls"]) == (copies, pulls)


def test_left_overs_need_no_image_and_no_start() -> None:
    planned = plan({"h1": LEFT_OVER, "h2": RIGHT, "s1": RIGHT})
    step = planned["steps"]["h1"][0]
    one = step["replicas"][0]
    assert (step["pull"], one["start"], one["container"], one["slot"]) == (False, False, "webui.0.r3", "a")
    assert (planned["images"], planned["holds"]) == ({}, {})
    assert planned["summary"] == ["1.1.1 h1: webui.0: stop what an interrupted run left behind"]


def test_orphans_are_reported_and_change_nothing() -> None:
    orphan = {"container": "old.0.r1", "service": "old", "replica": 0, "release": 1, "slot": "a", "running": True}
    planned = plan({"h1": RIGHT | {"orphans": [orphan]}, "h2": RIGHT})
    assert planned["orphans"] == [{"node": "h1"} | orphan]
    assert planned["summary"] == ["orphan on h1: old.0.r1"]
    assert not planned["changed"]


def changed(admin: str, sessions: int = 0) -> dict[str, Any]:
    """A gateway that forwards to slot a, and its slot b."""
    found = gateway(h1="a")
    found["webui"]["h1.0.b"] |= {"admin": admin, "sessions": sessions}
    return found


@pytest.mark.parametrize(
    ("gateways", "seen", "held"),
    [
        pytest.param([gateway(h1="a")], BEHIND, [], id="held already"),
        pytest.param([gateway(h1="ab")], BEHIND, ["h1.0.b"], id="not held"),
        pytest.param([gateway(h1="a"), gateway(h1="ab")], BEHIND, ["h1.0.b"], id="held at one of two"),
        pytest.param([gateway(h2="a")], BEHIND, ["h1.0.b"], id="not known there yet"),
        pytest.param([], BEHIND, ["h1.0.b"], id="no gateway answered"),
        pytest.param([gateway(h1="a")], LEFT_OVER, [], id="a left-over that gets nothing"),
        pytest.param([gateway(h1="ab")], LEFT_OVER, ["h1.0.b"], id="a left-over that gets requests"),
        pytest.param([gateway(h1="")], BEHIND, [], id="drained"),
        pytest.param([changed("maint")], BEHIND, [], id="in maintenance"),
        pytest.param([changed("drain", sessions=1)], BEHIND, ["h1.0.b"], id="a killed run left it with a session"),
    ],
)
def test_the_idle_slot_is_held(gateways: list[Any], seen: dict[str, Any], held: list[str]) -> None:
    planned = plan({"h1": seen}, gateways={"hangzhou": gateways})
    expected = {"hangzhou": [{"backend": "webui", "server": server} for server in held]} if held else {}
    assert planned["holds"] == expected


def test_a_drained_replica_is_moved_and_stays_out_of_rotation() -> None:
    planned = plan({"h1": BEHIND, "h2": BEHIND}, gateways={"hangzhou": [gateway(h1="", h2="a")]})
    assert [planned["steps"][name][0]["replicas"][0]["rotate"] for name in ("h1", "h2")] == [False, True]


KILLED = node(replica(running(2, digest=OLD), extra=[left_over(3)]), highest=3)


@pytest.mark.parametrize(
    ("tables", "number", "start", "current", "slot"),
    [
        pytest.param([gateway(h1="a")], 4, True, "webui.0.r2", "b", id="before the switch: a new candidate"),
        pytest.param([gateway(h1="b")], 3, False, "webui.0.r3", "b", id="after it: only the old one is to be stopped"),
        pytest.param([gateway(h1="a"), gateway(h1="b")], 4, True, "webui.0.r2", "b", id="in it: the record decides"),
    ],
)
def test_after_a_killed_rollout(tables: list[Any], number: int, start: bool, current: str, slot: str) -> None:
    planned = plan({"h1": KILLED}, gateways={"hangzhou": tables})
    one = planned["steps"]["h1"][0]["replicas"][0]
    assert (planned["services"]["webui"]["release"], one["start"], one["current"], one["slot"]) == (
        number,
        start,
        current,
        slot,
    )
    assert one["seen"] == {"highest_release": 3, "recorded": "webui.0.r2"}


def test_of_several_replicas_only_those_that_differ() -> None:
    two = node(replica(running(2, digest=OLD)), replica(running(3, number=1), 1), replica(None, 2), highest=3)
    planned = plan({"h1": two})
    replicas = planned["steps"]["h1"][0]["replicas"]
    assert [(one["replica"], one["container"], one["differences"]) for one in replicas] == [
        (0, "webui.0.r3", [IMAGE]),
        (2, "webui.2.r3", [FIRST]),
    ]
    assert planned["summary"] == [
        "1.1.1 h1: webui.0: r2 000000000000 → r3 111111111111 (image)",
        "1.1.1 h1: webui.2: nothing → r3 111111111111 (image)",
    ]


def both(webui: dict[str, Any], *, store: int = 0) -> dict[str, Any]:
    """A node that has the store too."""
    current = running(store, service="store") if store else None
    services = node(replica(current), highest=store)["services"]["webui"]
    return {"services": webui["services"] | {"store": services}, "orphans": []}


def test_what_others_depend_on_goes_first() -> None:
    nodes = {"h1": both(BEHIND), "h2": both(RIGHT), "s1": BEHIND}
    planned = plan(nodes, order=("store", "webui"))
    assert [(one["services"], one["first"]["nodes"], one["rest"]["nodes"]) for one in planned["stages"]] == [
        (["store"], ["h1"], ["h2"]),
        (["webui"], ["h1"], ["s1"]),
    ]
    assert [[one["service"] for one in steps_of(planned, "h1", number)] for number in (0, 1)] == [["store"], ["webui"]]
    assert planned["images"]["hangzhou"] == [f"etcd@{NEW}", f"webui@{NEW}"]
    assert planned["summary"][2:] == [
        "2.1.1 h1: webui.0: r2 000000000000 → r3 111111111111 (image)",
        "2.2.1 s1: webui.0: r2 000000000000 → r3 111111111111 (image)",
    ]
    assert [hold["backend"] for hold in plan(nodes, order=("store", "webui"), gateways={})["holds"]["hangzhou"]] == [
        "webui"
    ]


def test_a_stage_without_changes_is_none() -> None:
    planned = plan({"h1": both(BEHIND, store=1)}, order=("store", "webui"))
    assert [one["services"] for one in planned["stages"]] == [["webui"]]


BAKES = catalogue(webui={"update": {"bake_time": 60, "max_parallel": 2}})


@pytest.mark.parametrize(
    ("services", "policy", "first", "rest", "serial"),
    [
        pytest.param(SERVICES, {}, "h1", "h2 s1", [1, 1], id="one after the other"),
        pytest.param(SERVICES, {"order": ["shanghai", "hangzhou"]}, "s1", "h1 h2", [1, 1], id="the other way round"),
        pytest.param(SERVICES, {"max_parallel": 2}, "h1 s1", "h2", [1], id="side by side"),
        pytest.param(BAKES, {"max_parallel": 2}, "h1 h2", "s1", [1], id="the first one bakes alone"),
    ],
)
def test_order_and_batches(
    services: dict[str, Any], policy: dict[str, Any], first: str, rest: str, serial: list[int]
) -> None:
    planned = plan(everywhere(BEHIND), policy=policy, services=services)
    stage = planned["stages"][0]
    found = " ".join(stage["first"]["nodes"]), " ".join(stage["rest"]["nodes"]), stage["rest"]["serial"]
    assert found == (first, rest, serial)
    assert planned["waves"] == planned["stages"][0]["waves"]


def test_who_stands_for_a_datacenter_and_who_ends_a_wave() -> None:
    planned = plan(everywhere(BEHIND))
    assert planned["leads"] == ["h1", "s1"]
    assert places(planned) == {"h1": "h1", "h2": "h1", "s1": "s1"}
    assert [wave_of(planned, name, 0) for name in ("h1", "h2", "s1", "other")] == [0, 0, 1, -1]
    assert [ends_wave(planned, name, 0) for name in ("h1", "h2", "s1", "other")] == [False, True, True, False]


CHAIN = {
    name: SERVICES["webui"] | {"name": name, "depends_on": others}
    for name, others in {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["d"]}.items()
}


@pytest.mark.parametrize(
    ("order", "policy", "more", "message"),
    [
        pytest.param(
            ("webui",),
            {},
            {"digests": {}},
            "the origin has no image of webui: run playbooks/build.yml first",
            id="no image",
        ),
        pytest.param(
            ("webui",),
            {},
            {"digests": {}, "origin_away": "could not be reached: timed out"},
            "the origin was not asked for the image of webui: its host could not be reached: timed out",
            id="no origin",
        ),
        pytest.param(
            ("webui",),
            {},
            {"away": ("h2", "s1")},
            "h2, s1 cannot be reached, so nothing is changed anywhere; "
            "to go on without, say datacenters.unreachable: continue, or --limit",
            id="away",
        ),
        pytest.param(
            tuple("abcde"),
            {},
            {"services": CHAIN, "digests": dict.fromkeys("abcde", NEW)},
            "services.e.depends_on: expected a chain of at most 4 services, got 5; "
            "roll out some of them by -e service=",
            id="too long a chain",
        ),
    ],
)
def test_there_is_no_plan(order: tuple[str, ...], policy: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as error:
        plan({"h1": RIGHT} if "services" not in more else {}, order=order, policy=policy, **more)
    assert str(error.value) == message


SILENT = {"hangzhou": {}, "shanghai": {"g2": "could not be reached: timed out", "g3": "was not asked"}}


@pytest.mark.parametrize(
    ("nodes", "verb", "is_refused"),
    [
        pytest.param({"s1": BEHIND}, "rollout", True, id="a node of its datacenter switches"),
        pytest.param({"s1": KEEPS}, "rollback", True, id="or goes back"),
        pytest.param({"h1": BEHIND, "s1": RIGHT}, "rollout", False, id="nothing is to do there"),
        pytest.param({"h1": BEHIND}, "rollout", False, id="its nodes take no part"),
    ],
)
def test_a_gateway_that_does_not_answer_stops_what_it_would_switch(
    nodes: dict[str, Any], verb: str, *, is_refused: bool
) -> None:
    if not is_refused:
        assert plan(nodes, verb, silent=SILENT)["changed"]
        return
    with pytest.raises(PlanError) as error:
        plan(nodes, verb, silent=SILENT)
    assert str(error.value) == (
        "the gateways of shanghai switch together, and not all of them answer: g2 could not be reached: timed out, "
        "g3 was not asked. Nothing is changed anywhere; mend it, go on without its datacenter by --limit, or, where "
        "another is left, take it out of hosts.yml"
    )


def test_a_service_without_gateway_needs_none() -> None:
    services = {"webui": SERVICES["webui"] | {"gateway": None}}
    assert plan({"s1": BEHIND}, services=services, gateways={}, silent=SILENT)["changed"]


def test_a_silent_gateway_stops_a_retirement_there() -> None:
    request: Any = {"verb": "retire", "order": ["webui"], "names": ["report"]}
    with pytest.raises(PlanError, match="the gateways of shanghai switch together"):
        plan_rollout(request, platform({"s1": REPORT}, silent=SILENT), POLICY)
    assert plan_rollout(request, platform({"h1": REPORT}, silent=SILENT), POLICY)["changed"]


def test_an_unknown_verb_is_named() -> None:
    with pytest.raises(PlanError, match=r'^verb: expected one of rollout, rollback, restart, .*, got "roll"$'):
        plan({}, "roll")


def test_a_port_that_a_stranger_has_stops_the_plan() -> None:
    taken = node(replica(running(2, digest=OLD), port_holder="process nginx (pid 7)"), highest=2)
    with pytest.raises(PlanError) as error:
        plan({"h1": taken})
    assert str(error.value) == (
        "h1: the port of slot b of webui, replica 0, is taken by process nginx (pid 7); stop that, or give the service "
        "another slots_port"
    )
    assert not plan({"h1": node(replica(running(3), port_holder="process nginx (pid 7)"), highest=3)})["changed"]


def test_clocks_that_are_far_apart_stop_the_plan() -> None:
    clocks = {"h1": RIGHT | {"clock_ahead": 0.1}, "h2": RIGHT | {"clock_ahead": 59.1}}
    assert not plan(clocks)["changed"]
    with pytest.raises(PlanError, match=r"^the clock of s1 is 300 s off; .* mend its time synchronisation$"):
        plan(clocks | {"s1": RIGHT | {"clock_ahead": 359.1}})


def test_without_what_is_away_where_the_policy_says_so() -> None:
    planned = plan({"h1": BEHIND, "s1": BEHIND}, policy={"unreachable": "continue"}, away=("h2",))
    assert (planned["nodes"], planned["away"]) == (["h1", "s1"], ["h2"])
    assert planned["summary"][-1] == "h2 cannot be reached: it stays as it is"


def changes(planned: Plan, name: str) -> tuple[Any, ...]:
    """Of the first replica: what serves afterwards, where, how it gets there, and why."""
    one = planned["steps"][name][0]["replicas"][0]
    return one["container"], one["slot"], one["start"], one["restore"], [item["name"] for item in one["differences"]]


GONE_BACK = node(replica(running(2, digest=OLD)), highest=4, kept=[kept(3)])
BACK = {"name": "image", "before": NEW, "after": OLD}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(KEEPS, ("webui.0.r2", "b", True, True, []), id="started again in its slot, the free one"),
        pytest.param(
            node(replica(running(3)), highest=3, kept=[kept(2, "a", differences=[BACK])]),
            ("webui.0.r2", "b", True, True, ["image"]),
            id="moved, as its slot is taken",
        ),
        pytest.param(
            node(replica(running(3), extra=[left_over(2, digest=OLD)]), highest=4),
            ("webui.0.r2", "b", True, True, []),
            id="a killed rollback has started it",
        ),
        pytest.param(
            node(replica(None), highest=3, kept=[kept(2, "b")]),
            ("webui.0.r2", "b", True, True, []),
            id="nothing serves: in its own slot",
        ),
        pytest.param(
            node(replica(None, extra=[left_over(3, "b")], free_slot="a"), highest=3, kept=[kept(2, "b")]),
            ("webui.0.r2", "a", True, True, []),
            id="no record: not in the slot of what may serve",
        ),
        pytest.param(
            node(replica(running(2, digest=OLD), extra=[left_over(3)]), highest=4),
            ("webui.0.r2", "a", False, False, []),
            id="there already: only left-overs are stopped",
        ),
    ],
)
def test_a_rollback_brings_back_what_was_kept(seen: dict[str, Any], expected: tuple[Any, ...]) -> None:
    planned = plan({"h1": seen}, "rollback", to="r2", digests={}, gateways={})
    assert changes(planned, "h1") == expected
    step = planned["steps"]["h1"][0]
    assert (step["number"], step["release"], step["digest"], step["pull"]) == (
        seen["services"]["webui"]["highest_release"] + 1,
        2,
        OLD,
        False,
    )
    assert planned["images"] == {}


def test_what_serves_and_has_ended_is_not_held_before_it_is_started_again() -> None:
    ended = node(replica(running(2, digest=OLD, running=False)), highest=4, kept=[kept(3)])
    planned = plan({"h1": ended}, "rollback", to="r2", digests={}, gateways={"hangzhou": [gateway(h1="a")]})
    assert changes(planned, "h1") == ("webui.0.r2", "a", True, True, [])
    assert planned["holds"] == {}


@pytest.mark.parametrize("verb", ["drain", "undrain", "retire"])
def test_who_depends_on_whom_is_for_rollouts_alone(verb: str) -> None:
    request: Any = {"verb": verb, "order": list("abcde"), "names": ["report"], "nodes": ["h1"]}
    seen = {"h1": {"services": {}, "orphans": []}}
    assert not plan_rollout(request, platform(seen, services=CHAIN), POLICY)["changed"]


def test_a_rollback_leaves_nodes_that_are_there_alone_and_goes_everywhere_at_once() -> None:
    services = catalogue(webui={"update": {"bake_time": 60, "canary": 1}})
    nodes = {"h1": GONE_BACK, "h2": KEEPS, "s1": KEEPS}
    planned = plan(nodes, "rollback", to="r2", digests={}, services=services)
    assert [(wave["batches"], wave["bake"]) for wave in planned["waves"]] == [([["h2", "s1"]], 0)]
    assert planned["summary"][0] == "1.1.1 h2: webui.0: r3 111111111111 → r2 000000000000 (kept)"
    assert not plan(everywhere(GONE_BACK), "rollback", to="r2", digests={})["changed"]


def test_a_restart_makes_new_containers_of_the_same() -> None:
    planned = plan({"h1": RIGHT, "h2": BEHIND}, "restart")
    assert changes(planned, "h1") == ("webui.0.r4", "b", True, False, ["restart"])
    assert changes(planned, "h2") == ("webui.0.r4", "b", True, False, ["image", "restart"])
    assert planned["services"]["webui"] | {"configuration": ""} == {
        "number": 4,
        "release": 4,
        "digest": NEW,
        "configuration": "",
        "changed": True,
    }


def test_scaling_adds_replicas_of_the_release_that_serves_and_changes_no_other() -> None:
    one_more = node(replica(running(2, digest=OLD)), replica(None, 1), highest=2)
    planned = plan({"h1": one_more, "h2": BEHIND}, "scale")
    assert planned["nodes"] == ["h1"]
    assert [(one["replica"], one["container"]) for one in planned["steps"]["h1"][0]["replicas"]] == [(1, "webui.1.r2")]
    assert (planned["steps"]["h1"][0]["number"], planned["steps"]["h1"][0]["digest"]) == (2, OLD)


def orphan(service: str, number: int, release: int, slot: str = "a") -> dict[str, Any]:
    """A container that the catalogue does not ask for, as service_compare returns it."""
    name = f"{service}.{number}.r{release}"
    return {"container": name, "service": service, "replica": number, "release": release, "slot": slot, "running": True}


def has(*orphans: dict[str, Any]) -> dict[str, Any]:
    return RIGHT | {"orphans": list(orphans)}


def servers(*names: str, service: str = "webui") -> dict[str, Any]:
    """One gateway's tables: both slots of each replica."""
    return {service: {f"{name}.{slot}": {"admin": "ready", "serves": True} for name in names for slot in "ab"}}


def removal(*containers: str, replicas: int = 0, known: tuple[str, ...] = ()) -> dict[str, Any]:
    """Of the service that the containers' names begin with; `known`: the replicas whose slots the gateways have."""
    return {
        "service": containers[0].partition(".")[0],
        "replicas": replicas,
        "containers": list(containers),
        "servers": [f"{name}.{slot}" for name in known for slot in "ab"],
    }


EXTRA = has(orphan("webui", 1, 3), orphan("webui", 1, 2, "b"), orphan("webui", 2, 3))
SECOND, THIRD = servers("h1.0", "h1.1", "h1.2"), servers("h1.0", "h1.2")
LEFT = catalogue(webui={"placement": {"datacenters": ["hangzhou"]}})
REPORT = has(orphan("report", 0, 4), orphan("paper", 0, 1))
REPORT_TABLES = servers("h1.0", "s1.0", service="report")


@pytest.mark.parametrize(
    ("verb", "names", "nodes", "more", "expected"),
    [
        pytest.param("scale", ["webui"], everywhere(RIGHT), {}, {}, id="nothing is too much"),
        pytest.param(
            "scale",
            ["webui"],
            {"h1": EXTRA, "h2": RIGHT},
            {"gateways": {"hangzhou": [SECOND, SECOND]}},
            {
                "h1": [
                    removal("webui.1.r3", "webui.1.r2", "webui.2.r3", replicas=1, known=("h1.1", "h1.2")),
                ]
            },
            id="replicas too many, with what they kept",
        ),
        pytest.param(
            "scale",
            ["webui"],
            {"h1": EXTRA},
            {"gateways": {"hangzhou": [SECOND, THIRD]}},
            {"h1": [removal("webui.1.r3", "webui.1.r2", "webui.2.r3", replicas=1, known=("h1.1", "h1.2"))]},
            id="also what one of two gateways knows",
        ),
        pytest.param(
            "scale",
            ["webui"],
            {"h1": EXTRA},
            {"gateways": {}},
            {"h1": [removal("webui.1.r3", "webui.1.r2", "webui.2.r3", replicas=1)]},
            id="no gateway",
        ),
        pytest.param(
            "scale",
            ["webui"],
            {"h1": has(orphan("webui", 2, 3))},
            {"services": catalogue(webui={"replicas": 2}), "gateways": {}},
            {"h1": [removal("webui.2.r3", replicas=2)]},
            id="as many stay as the catalogue says",
        ),
        pytest.param(
            "scale",
            ["webui"],
            {"h1": RIGHT, "s1": has(orphan("webui", 0, 3))},
            {"services": LEFT, "gateways": {"hangzhou": [servers("h1.0")], "shanghai": [servers("s1.0")]}},
            {"s1": [removal("webui.0.r3", known=("s1.0",))]},
            id="a datacenter was left: all of it goes there",
        ),
        pytest.param("scale", ["store"], {"h1": EXTRA}, {}, {}, id="not the services that were not named"),
        pytest.param(
            "retire",
            ["report"],
            {"s1": REPORT, "h1": REPORT, "h2": RIGHT},
            {"gateways": {"hangzhou": [REPORT_TABLES], "shanghai": [REPORT_TABLES]}},
            {
                "h1": [removal("report.0.r4", known=("h1.0",))],
                "s1": [removal("report.0.r4", known=("s1.0",))],
            },
            id="retired where it is, and nothing else",
        ),
        pytest.param(
            "retire",
            ["report", "paper"],
            {"h1": REPORT},
            {},
            {"h1": [removal("report.0.r4"), removal("paper.0.r1")]},
            id="two are retired; no gateway knows them",
        ),
        pytest.param("retire", ["report"], everywhere(RIGHT), {}, {}, id="retired already"),
    ],
)
def test_what_is_removed(
    verb: str, names: list[str], nodes: dict[str, Any], more: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert plan_removals(verb, names, platform(nodes, **more)) == expected


DOWN = {"webui": {f"h1.0.{slot}": {"admin": "ready", "serves": False} for slot in "ab"}}


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        pytest.param(
            {"h1": has(orphan("webui", 1, 3))},
            {"gateways": {"hangzhou": [{"webui": DOWN["webui"] | servers("h1.1")["webui"]}]}},
            id="the replica that stays is down",
        ),
        pytest.param(
            {"s1": has(orphan("webui", 0, 3))},
            {"services": LEFT, "gateways": {"hangzhou": [DOWN], "shanghai": [servers("s1.0")]}},
            id="it is not in the datacenter where it shall be",
        ),
    ],
)
def test_the_last_that_serves_is_not_scaled_away(nodes: dict[str, Any], more: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="webui: nobody would be left to answer"):
        plan_removals("scale", ["webui"], platform(nodes, **more))


def test_what_serves_no_more_is_scaled_away_whoever_stays() -> None:
    gone = {name: dict(seen, serves=False) for name, seen in servers("h1.1")["webui"].items()}
    more = {"gateways": {"hangzhou": [{"webui": DOWN["webui"] | gone}]}}
    assert plan_removals("scale", ["webui"], platform({"h1": has(orphan("webui", 1, 3))}, **more))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param(
            [], "service: expected the service to retire, -e service=NAME; status.yml lists orphans", id="not named"
        ),
        pytest.param(["webui"], "webui is in the catalogue; take it out first, then retire it", id="in the catalogue"),
        pytest.param(
            ["report", "webui", "store"],
            "webui, store is in the catalogue; take it out first, then retire it",
            id="some are",
        ),
    ],
)
def test_a_retirement_is_refused(names: list[str], message: str) -> None:
    request: Any = {"verb": "retire", "order": ["webui"], "names": names}
    with pytest.raises(PlanError) as error:
        plan_rollout(request, platform({"h1": REPORT}), POLICY)
    assert str(error.value) == message


def test_a_retirement_removes_and_does_nothing_else() -> None:
    request: Any = {"verb": "retire", "order": ["webui"], "names": ["report"]}
    planned = plan_rollout(request, platform({"h1": BEHIND, "h2": REPORT, "s1": REPORT}), POLICY)
    assert (planned["changed"], planned["leads"], planned["steps"]) == (True, ["h2", "s1"], {})
    assert planned["summary"][:2] == ["h2: remove report.0.r4", "s1: remove report.0.r4"]


def test_a_rollout_removes_nothing() -> None:
    assert plan({"h1": EXTRA})["removals"] == {}


def failure(stage: int, reason: str = "why") -> Failure:
    return {"stage": stage, "reason": reason}


BIG = {"h1": both(BEHIND), "h2": both(BEHIND), "s1": BEHIND}


@pytest.mark.parametrize(
    ("on_failure", "failures", "stage", "expected"),
    [
        pytest.param("stop", {}, 1, "h1 h2 s1", id="nothing failed"),
        pytest.param("stop", {"h1": failure(1)}, 1, "", id="stop"),
        pytest.param("stop", {"s1": failure(1)}, 1, "h1 h2", id="a later wave: what comes before it goes on"),
        pytest.param("stop", {"s1": failure(0)}, 1, "", id="a later wave of an earlier stage"),
        pytest.param("revert_all", {"h1": failure(1)}, 1, "", id="revert all"),
        pytest.param("revert_all", {"s1": failure(1)}, 1, "", id="revert all: why go on"),
        pytest.param("stop", {"s1": failure(-1)}, -1, "", id="stop before any switch"),
        pytest.param("continue", {"h1": failure(1)}, 1, "s1", id="continue with the next wave"),
        pytest.param("continue", {"s1": failure(1)}, 1, "h1 h2", id="whichever it was"),
        pytest.param(
            "continue", {"h1": failure(0)}, 1, "h2 s1", id="a failure in an earlier stage: not the node itself"
        ),
        pytest.param("continue", {"h1": failure(-1)}, 0, "s1", id="before any switch: not its datacenter"),
        pytest.param("continue", {"h2": failure(-1)}, -1, "s1", id="nor are its images pulled"),
        pytest.param("continue", {"h1": failure(-1), "s1": failure(1)}, 1, "", id="two failures"),
        pytest.param("continue", {"elsewhere": failure(-1)}, 1, "h1 h2 s1", id="a node that has no part in it"),
    ],
)
def test_who_may_go_on(on_failure: str, failures: dict[str, Failure], stage: int, expected: str) -> None:
    planned = plan(BIG, order=("store", "webui"), policy={"on_failure": on_failure})
    assert " ".join(name for name in ("h1", "h2", "s1") if may_go_on(planned, name, stage, failures)) == expected


@pytest.mark.parametrize(
    ("nodes", "stage", "failures", "expected"),
    [
        pytest.param(BIG, 1, {}, "h1 h2 s1", id="forwarded"),
        pytest.param(BIG, 1, {"h1": failure(1)}, "", id="after a failure"),
        pytest.param(BIG, 1, {"h1": failure(0)}, "", id="be it of an earlier stage"),
        pytest.param(BIG, 0, {}, "", id="without a gateway the switch is the start"),
        pytest.param(BIG | {"s1": LEFT_OVER}, 1, {}, "h1 h2", id="nothing to start"),
    ],
)
def test_who_starts_ahead(nodes: dict[str, Any], stage: int, failures: dict[str, Failure], expected: str) -> None:
    planned = plan(nodes, order=("store", "webui"), policy={"on_failure": "continue"})
    found = (name for name in nodes if starts_ahead(planned, name, stage, failures, SERVICES))
    assert " ".join(found) == expected


MOVED = node(replica(running(2, digest=OLD), extra=[left_over(3)]), highest=3)
FORWARDED = {"hangzhou": [gateway(h1="b", h2="b")], "shanghai": [gateway(s1="b")]}


def reverted(
    failures: dict[str, Failure],
    *,
    policy: Mapping[str, Any] | None = None,
    services: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    now: Mapping[str, Any] | None = None,
    gateways: Mapping[str, Any] | None = None,
) -> Plan:
    """The way back from a rollout of release 3 that moved every node, unless `now` says something else."""
    planned = plan(before or everywhere(BEHIND), policy=policy, services=services)
    seen = platform(now or everywhere(MOVED), gateways=gateways or FORWARDED).nodes
    return revert_plan(planned, failures, seen, services or SERVICES)


STAYS = catalogue(webui={"update": {"auto_revert": False}})


@pytest.mark.parametrize(
    ("failures", "more", "nodes"),
    [
        pytest.param({"s1": failure(0)}, {}, ["s1"], id="only the wave that failed"),
        pytest.param({"h2": failure(0)}, {}, ["h1", "h2"], id="all of it"),
        pytest.param({"h2": failure(0)}, {"services": STAYS}, [], id="auto_revert: false"),
        pytest.param({"s1": failure(0)}, {"policy": {"on_failure": "revert_all"}}, ["h1", "h2", "s1"], id="revert_all"),
        pytest.param(
            {"s1": failure(0)},
            {"policy": {"on_failure": "revert_all"}, "services": STAYS},
            ["h1", "h2", "s1"],
            id="revert_all is asked for by hand",
        ),
        pytest.param({"s1": failure(0)}, {"policy": {"on_failure": "continue"}}, ["s1"], id="continue"),
        pytest.param({"s1": failure(-1)}, {}, [], id="before any switch: nothing has moved"),
        pytest.param({}, {}, [], id="nothing failed"),
        pytest.param(
            {"h2": failure(0)},
            {"now": {"h1": MOVED, "h2": BEHIND}, "gateways": {"hangzhou": [gateway(h1="b", h2="a")]}},
            ["h1"],
            id="who never moved stays",
        ),
        pytest.param({"h2": failure(0)}, {"now": {"h2": MOVED}}, ["h2"], id="who is away cannot"),
        pytest.param({"h2": failure(0)}, {"before": everywhere(BARE)}, [], id="nothing to go back to"),
        pytest.param(
            {"h1": failure(0)},
            {"now": {"h1": MOVED}, "gateways": {"hangzhou": [gateway(h1="b"), gateway(h1="a")]}},
            ["h1"],
            id="the switch came through at one of two gateways",
        ),
        pytest.param(
            {"h1": failure(0)},
            {"now": {"h1": BEHIND}, "gateways": {"hangzhou": [gateway(h1="b"), gateway(h1="a")]}},
            ["h1"],
            id="and the candidate has died since",
        ),
        pytest.param(
            {"h1": failure(0)}, {"now": {"h1": MOVED}, "gateways": {"hangzhou": [gateway(h1="a")]}}, [], id="at none"
        ),
        pytest.param(
            {"h1": failure(0)},
            {"before": {"h1": LEFT_OVER}, "now": {"h1": RIGHT}, "gateways": {"hangzhou": [gateway(h1="a")]}},
            [],
            id="where nothing was started nothing goes back",
        ),
    ],
)
def test_what_goes_back(failures: dict[str, Failure], more: dict[str, Any], nodes: list[str]) -> None:
    back = reverted(failures, **more)
    assert (back["nodes"], list(back["steps"]), back["changed"]) == (nodes, nodes, bool(nodes))
    assert (back["verb"], back["stages"], back["images"], back["holds"], back["summary"]) == ("revert", [], {}, {}, [])


@pytest.mark.parametrize("on_failure", ["stop", "continue", "revert_all"])
def test_what_a_rollback_has_moved_stays(on_failure: str) -> None:
    nodes = everywhere(KEEPS)
    planned = plan(nodes, "rollback", to="r2", digests={}, policy={"on_failure": on_failure})
    judged = platform(everywhere(GONE_BACK), digests={}).nodes
    back = revert_plan(planned, {"s1": failure(0)}, judged, SERVICES)
    assert (back["nodes"], back["steps"], back["changed"]) == ([], {}, False)


def test_the_way_back_is_the_old_container_in_its_slot() -> None:
    step = reverted({"s1": failure(0)})["steps"]["s1"][0]
    assert (step["number"], step["release"], step["digest"], step["pull"]) == (3, 2, OLD, False)
    assert step["replicas"] == [
        {
            "replica": 0,
            "container": "webui.0.r2",
            "slot": "a",
            "start": True,
            "restore": True,
            "rotate": True,
            "current": "webui.0.r3",
            "current_slot": "b",
            "from_release": 2,
            "from_digest": OLD,
            "seen": None,
            "differences": [],
        }
    ]


def test_after_half_a_switch_the_record_is_left_as_it_is() -> None:
    half = {"hangzhou": [gateway(h1="b"), gateway(h1="a")]}
    one = reverted({"h1": failure(0)}, now={"h1": MOVED}, gateways=half)["steps"]["h1"][0]["replicas"][0]
    assert (one["container"], one["slot"], one["current"], one["current_slot"]) == (
        "webui.0.r2",
        "a",
        "webui.0.r2",
        "a",
    )


def test_a_replica_that_is_new_stays_where_the_others_go_back() -> None:
    before = node(replica(None), replica(running(2, number=1, digest=OLD), 1), highest=2)
    now = node(replica(running(3)), replica(running(3, "b", number=1), 1), highest=3)
    back = reverted({"h1": failure(0)}, before={"h1": before}, now={"h1": now}, gateways={"hangzhou": [{}]})
    step = back["steps"]["h1"][0]
    assert ([one["replica"] for one in step["replicas"]], step["release"], step["digest"]) == ([1], 2, OLD)


def test_of_two_stages_the_one_that_failed_goes_back() -> None:
    planned = plan({"h1": both(BEHIND), "h2": both(BEHIND)}, order=("store", "webui"))
    moved = {name: both(node(replica(running(3)), highest=3), store=1) for name in ("h1", "h2")}
    seen = platform(moved, gateways={}).nodes
    back = revert_plan(planned, {"h1": failure(1)}, seen, SERVICES)
    assert {name: [one["service"] for one in steps] for name, steps in back["steps"].items()} == {
        "h1": ["webui"],
        "h2": ["webui"],
    }


def test_who_only_loses_a_replica_does_not_stand_for_its_datacenter() -> None:
    """Images are copied and slots are held for those that start something."""
    planned = plan({"h1": EXTRA, "h2": BARE}, "scale")
    assert (planned["nodes"], list(planned["removals"]), planned["leads"]) == (["h2"], ["h1"], ["h2"])
    assert planned["holds"] == {"hangzhou": [{"backend": "webui", "server": "h2.0.a"}]}


def test_what_goes_may_take_the_image_of_what_comes() -> None:
    """Two services share a repository; one leaves the node, the other comes."""
    leaves = BARE_BUT_HAS_IT | {"orphans": [orphan("report", 0, 4)]}
    planned = plan({"h1": leaves, "h2": RIGHT}, "scale", order=("webui",), names=("webui", "report"))
    assert list(planned["removals"]) == ["h1"]
    assert (planned["steps"]["h1"][0]["pull"], planned["pulls"], planned["copies"]) == (True, ["h1"], ["h1"])
    assert planned["images"] == {"hangzhou": [f"webui@{NEW}"]}
    stays = plan({"h1": BARE_BUT_HAS_IT, "h2": RIGHT}, "scale")
    assert not stays["steps"]["h1"][0]["pull"]


def test_what_has_ended_on_the_release_asked_for_is_started_again() -> None:
    ended = node(replica(running(2, running=False, digest=OLD), differences=[RUNNING]), highest=3)
    planned = plan({"h1": ended, "h2": KEEPS}, "rollback", to="r2", digests={})
    (step,) = planned["steps"]["h1"]
    (one,) = step["replicas"]
    assert (one["container"], one["slot"], one["start"], one["restore"]) == ("webui.0.r2", "a", True, True)
