"""What is carried from one step of a rollout to the next, as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from support import (
    DATACENTERS,
    NEW,
    NODES,
    OLD,
    catalogue,
    gateway,
    kept,
    left_over,
    load,
    node,
    replica,
    running,
)

FILTERS = load("plugins/filter/rollout.py").FilterModule().filters()
SERVICES = catalogue()
PULLED = {"results": [{"service_step": {"service": "webui"}, "reference": f"registry.origin.lab:5000/webui@{NEW}"}]}
UNREACHABLE = {"unreachable": True, "msg": "Connection timed out"}
# Two gateways were asked, and one of them is away
LOOP = {"unreachable": True, "results": [{"answers": True, "backends": {}}, UNREACHABLE]}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("image_tags", (SERVICES,), ["etcd:3.5", "webui:latest"]),
        ("image_tags", (SERVICES, {"webui": "v2"}), ["etcd:3.5", "webui:v2"]),
        ("image_tags", (SERVICES, {"webui": NEW}), ["etcd:3.5", f"webui@{NEW}"]),
        ("wanted_digests", (SERVICES, {"h1": {"digests": {"webui:latest": NEW}}}, {}), {"webui": NEW}),
        ("wanted_digests", (SERVICES, {"h1": {"digests": {"webui:v2": OLD}}}, {"webui": "v2"}), {"webui": OLD}),
        ("wanted_digests", (SERVICES, {}, {}), {}),
        ("dependency_order", (SERVICES, ["webui", "store"]), ["store", "webui"]),
        ("dependency_order", (SERVICES, ["webui"]), ["webui"]),
        ("forwarded_backends", (SERVICES,), ["webui", "webui.elsewhere"]),
        ("lead_of", (["s1", "g1"], ["g1", "g2"], ["h1"]), "g1"),
        ("lead_of", (["h2", "h1"], ["g1", "g2"], ["h1", "h2"]), "h1"),
        ("lead_of", (["s1"], ["g1"], ["h1"]), ""),
        ("place_of", (NODES,), {"h1": "hangzhou", "h2": "hangzhou", "s1": "shanghai"}),
        ("places", ({"hangzhou": "r:5000"}, NODES), {"hangzhou": {"registry": "r:5000", "nodes": ["h1", "h2"]}}),
        ("policy_errors", (None, NODES), []),
        (
            "policy_errors",
            ({"max_parallel": 0}, NODES),
            ['datacenters.max_parallel: expected a whole number from 1, got "0"'],
        ),
        ("failure_reason", ({"msg": "no space"},), "no space"),
        (
            "failure_reason",
            ({"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "full"}]},),
            "full",
        ),
        (
            "removal_switches",
            ([{"service": "webui", "servers": ["h1.1.a"]}, {"service": "store", "servers": []}],),
            [{"backend": "webui", "away": ["h1.1.a"]}],
        ),
        (
            "with_drain_timeouts",
            (
                [{"backend": "webui", "away": ["h1.1.a"]}, {"backend": "gone"}],
                catalogue(webui={"update": {"drain_timeout": 90}}),
            ),
            [{"backend": "webui", "away": ["h1.1.a"], "drain_timeout": 90}, {"backend": "gone"}],
        ),
        (
            "removed_services",
            ([{"service": "webui", "replicas": 1, "containers": ["webui.1.r2"], "servers": []}],),
            [{"service": "webui", "replicas": 1}],
        ),
        ("unreachable_reason", ("",), ""),
        ("unreachable_reason", ({"changed": False},), ""),
        ("unreachable_reason", (UNREACHABLE,), "could not be reached: Connection timed out"),
        (
            "unreachable_reason",
            ({"results": [{"changed": True}, UNREACHABLE]},),
            "could not be reached: Connection timed out",
        ),
        ("still_serving", ("",), []),
        ("still_serving", ({"results": [{"serving": []}, {"changed": True}]},), []),
        (
            "still_serving",
            ({"results": [{"serving": [{"backend": "webui", "server": "h1.0.b"}]}]},),
            ["webui/h1.0.b serves alone, and its slot is needed; is the node well?"],
        ),
        (
            "holder",
            ({"id": 7, "controller": "c", "user": "ops", "host": "control-1", "alive": {}},),
            {"id": "7", "controller": "c", "user": "ops", "host": "control-1"},
        ),
        (
            "build_arguments",
            ({"args": {"A": "1"}, "bases": {"BASE": "base/python:3.11"}}, "o:5000", {"base/python:3.11": NEW}),
            {"A": "1", "BASE": f"o:5000/base/python@{NEW}"},
        ),
    ],
)
def test_filter(name: str, arguments: tuple[Any, ...], expected: Any) -> None:
    assert FILTERS[name](*arguments) == expected


@pytest.mark.parametrize(("datacenter", "names"), [("hangzhou", ["webui", "store"]), ("shanghai", ["webui"])])
def test_only_what_is_placed_in_the_datacenter_runs_there(datacenter: str, names: list[str]) -> None:
    assert FILTERS["placed_in"](SERVICES, datacenter) == [SERVICES[name] for name in names]


@pytest.mark.parametrize(
    ("names", "expected"), [("", ["webui", "store"]), ("webui", ["webui"]), ("webui, store", ["webui", "store"])]
)
def test_selected(names: str, expected: list[str]) -> None:
    assert list(FILTERS["selected"](SERVICES, names)) == expected


def test_an_unknown_service_is_named() -> None:
    with pytest.raises(AnsibleFilterError) as error:
        FILTERS["selected"](SERVICES, "webiu")
    assert error.value.message == 'service: expected names from the catalogue (webui, store), got "webiu"'


def test_results_that_are_none_are_left_out() -> None:
    hostvars = {
        "h1": {"found": {"services": {}}},
        "h2": {"found": {"skipped": True}},
        "s1": {"found": {"failed": True}},
        "s2": {},
        "s3": {"found": "a reason"},
        "s4": {"found": {"unreachable": True}},
        "s5": {"found": LOOP},
        "s6": {"found": {"skipped": True, "results": []}},
    }
    expected = {"h1": {"services": {}}, "s3": "a reason", "s5": LOOP}
    assert FILTERS["results_of"](hostvars, hostvars, "found") == expected


def test_a_wrong_policy_is_told_whole() -> None:
    assert FILTERS["normalised_policy"]({"max_parallel": 2}, NODES)["max_parallel"] == 2
    with pytest.raises(AnsibleFilterError) as error:
        FILTERS["normalised_policy"]({"max_parallel": 0, "x": 1}, NODES)
    assert error.value.message == (
        "datacenters.x: unknown key; allowed: order, max_parallel, on_failure, unreachable\n"
        'datacenters.max_parallel: expected a whole number from 1, got "0"'
    )


def test_the_gateways_that_answer_are_heard() -> None:
    def said(**answers: bool) -> dict[str, Any]:
        return {"results": [{"answers": answer, "backends": {name: {}}} for name, answer in answers.items()]}

    views = {"g1": said(g1=True, g2=False), "s1": said(g3=True) | {"results": [*said(g3=True)["results"], UNREACHABLE]}}
    hostvars = {"g1": {"datacenter": "hangzhou"}, "s1": {"datacenter": "shanghai"}}
    assert FILTERS["gateway_views"](views, hostvars) == {"hangzhou": [{"g1": {}}], "shanghai": [{"g3": {}}]}


def test_the_gateways_that_do_not_answer_are_named_with_the_reason() -> None:
    views = {
        "g1": {"results": [{"rollout_gateway": "g1", "answers": True}]},
        "g2": {
            "results": [
                {"rollout_gateway": "g2", "answers": False, "reason": "no socket"},
                {"rollout_gateway": "g3", **UNREACHABLE},
            ]
        },
    }
    gateways = {"hangzhou": ["g1"], "shanghai": ["g2", "g3"], "beijing": ["g4"], "bare": []}
    assert FILTERS["silent_gateways"](gateways, views) == {
        "hangzhou": {},
        "shanghai": {"g2": "no socket", "g3": "could not be reached: Connection timed out"},
        "beijing": {"g4": "was not asked"},
        "bare": {},
    }


def test_whose_lock_is_abandoned() -> None:
    here = "control-1:boot:1"

    def kept(gateway: str, holder: str | None, controller: str = here) -> dict[str, Any]:
        return {
            "rollout_gateway": gateway,
            "lock": {"holder": {"id": holder, "controller": controller}} if holder else None,
        }

    views = {
        "n1": {"results": [kept("g1", "gone:20"), kept("g2", None)]},
        "n2": {"results": [kept("g3", "alive:20"), kept("g4", "gone:20", "control-2:boot:1")]},
        "n3": {"results": [kept("g5", "began-later:40"), {"rollout_gateway": "g6", "unreachable": True}]},
        "n4": {"skipped": True},
    }
    who = {"alive": ["alive:20", "me:30"], "controller": here}
    assert FILTERS["abandoned_locks"](views, who) == {"n1": {"g1": "gone:20"}}


def test_a_build_is_given_nothing_but_what_it_needs() -> None:
    services = catalogue(webui={"env": {"PASSWORD": "hidden"}})
    (found,) = FILTERS["buildable"](services)
    assert (found["name"], found["repository"], set(found)) == ("webui", "webui", {"name", "repository", "build"})


def test_services_of_one_repository_are_built_once() -> None:
    services = catalogue()
    services["worker"] = services["webui"] | {"name": "worker", "port": 8081}
    assert [service["name"] for service in FILTERS["buildable"](services)] == ["webui"]


def test_the_origin_that_is_away_is_told() -> None:
    loop = {"results": [{"digests": {}}, UNREACHABLE]}
    hostvars = {"h1": {}, "h2": {"resolved": {"skipped": True}}, "g1": {"resolved": loop}}
    assert FILTERS["first_unreachable"](["h1", "h2", "g1", "g2"], hostvars, "resolved") == (
        "could not be reached: Connection timed out"
    )
    assert FILTERS["first_unreachable"](["h1", "h2"], hostvars, "resolved") == ""


def test_addresses() -> None:
    hostvars = {"h1": {"host_address": "10.0.0.11"}, "g1": {"host_address": "10.0.0.10", "gateway_stats_port": 9000}}
    assert FILTERS["with_addresses"]({"hangzhou": ["h1"]}, hostvars) == {"hangzhou": {"nodes": {"h1": "10.0.0.11"}}}
    assert FILTERS["addresses_by_datacenter"]({"hangzhou": ["h1"]}, hostvars) == {"hangzhou": ["10.0.0.11"]}
    assert FILTERS["gateway_statistics"]({"hangzhou": ["g1"], "shanghai": []}, hostvars) == {
        "hangzhou": {"url": "http://10.0.0.10", "statistics": ["http://10.0.0.10:9000"]}
    }
    assert FILTERS["gateway_statistics"]({"shanghai": ["s1"]}, {"s1": {"host_address": "fd00::5"}}) == {
        "shanghai": {"url": "http://[fd00::5]", "statistics": ["http://[fd00::5]:8404"]}
    }
    hostvars["g1"]["gateway_certificate"] = "/etc/qianjiang/tls/server.crt"
    urls = {"hangzhou": ["https://10.0.0.10", "http://10.0.0.11"]}
    assert FILTERS["urls_by_datacenter"]({"hangzhou": ["g1", "h1"]}, hostvars) == urls


@pytest.mark.parametrize(
    ("shared", "more", "url"),
    [
        ("", {}, "http://10.0.0.10"),
        ("10.0.0.100/24", {}, "http://10.0.0.100"),
        ("10.0.0.100/24", {"gateway_certificate": "/etc/server.crt"}, "https://10.0.0.100"),
        ("fd00::100/64", {}, "http://[fd00::100]"),
    ],
)
def test_a_datacenter_with_two_gateways(shared: str, more: dict[str, str], url: str) -> None:
    both = more | {"gateway_virtual_address": shared}
    hostvars = {"g1": {"host_address": "10.0.0.10"} | both, "g2": {"host_address": "10.0.0.11"} | both}
    assert FILTERS["gateway_statistics"]({"hangzhou": ["g1", "g2"]}, hostvars) == {
        "hangzhou": {"url": url, "statistics": ["http://10.0.0.10:8404", "http://10.0.0.11:8404"]}
    }
    urls = FILTERS["urls_by_datacenter"]({"hangzhou": ["g1", "g2"]}, hostvars)["hangzhou"]
    assert urls[0] == url
    assert [each.partition("//")[2] for each in urls[-2:]] == ["10.0.0.10", "10.0.0.11"]
    assert len(urls) == (3 if shared else 2)


POLICY = FILTERS["normalised_policy"](None, NODES)
GATEWAYS = {"hangzhou": [gateway(h1="a", h2="a")], "shanghai": [gateway(s1="a")]}
BEHIND = node(replica(running(2, digest=OLD)), highest=2)
MOVED = node(replica(running(2, digest=OLD), extra=[left_over(3)]), highest=3)
EVERYWHERE = {"h1": BEHIND, "h2": BEHIND, "s1": BEHIND}


def platform(
    nodes: Mapping[str, Any], gateways: Mapping[str, Any] | None = None, services: Mapping[str, Any] = SERVICES
) -> dict[str, Any]:
    gateways = GATEWAYS if gateways is None else gateways
    digests = {"webui": NEW, "store": NEW}
    return {
        "services": services,
        "datacenters": DATACENTERS,
        "digests": digests,
        "nodes": FILTERS["judge_nodes"](nodes, DATACENTERS, gateways, digests),
        "gateways": gateways,
        "away": [],
    }


def plan(nodes: Mapping[str, Any], verb: str = "rollout", *, to: str = "", **more: Any) -> dict[str, Any]:
    policy = POLICY | more.pop("policy", {})
    request = {"verb": verb, "order": ["webui"], "to": to}
    return dict(FILTERS["plan_rollout"](request, platform(nodes, **more), policy))


PLAN = plan(EVERYWHERE)


def test_no_plan_is_a_message() -> None:
    with pytest.raises(AnsibleFilterError) as error:
        FILTERS["plan_rollout"]({"order": ["webui"]}, platform(EVERYWHERE) | {"digests": {}}, POLICY)
    assert error.value.message == "the origin has no image of webui: run playbooks/build.yml first"


def test_a_saved_plan_that_still_holds_is_applied(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN))
    assert FILTERS["same_as_saved"](PLAN, str(file)) == PLAN
    assert FILTERS["same_as_saved"](PLAN, "") == PLAN


CHANGED = plan({**EVERYWHERE, "h1": node(replica(running(3)), highest=3)})


def test_a_plan_that_was_asked_about_must_still_hold() -> None:
    assert FILTERS["same_as_before"](PLAN, json.loads(json.dumps(PLAN))) == PLAN
    with pytest.raises(AnsibleFilterError) as error:
        FILTERS["same_as_before"](PLAN, PLAN | {"holds": {"hangzhou": []}})
    assert error.value.message == (
        "the platform has changed while pre_rollout was asked, so nothing is changed; run it again. "
        "the steps differ in details"
    )


@pytest.mark.parametrize(
    ("text", "found", "message"),
    [
        pytest.param(
            json.dumps(PLAN),
            CHANGED,
            "plan: the platform or the catalogue has changed since {file} was saved, so it is not applied; make a new "
            "one (playbooks/plan.yml). no longer: 1.1.1 h1: webui.0: r2 000000000000 → r3 111111111111 (image); "
            "no longer: 1.1.2 h2: webui.0: r2 000000000000 → r3 111111111111 (image); "
            "new: 1.1.1 h2: webui.0: r2 000000000000 → r3 111111111111 (image)",
            id="something else would happen",
        ),
        pytest.param(
            json.dumps(PLAN | {"holds": {"hangzhou": []}}),
            PLAN,
            "plan: the platform or the catalogue has changed since {file} was saved, so it is not applied; make a new "
            "one (playbooks/plan.yml). the steps differ in details",
            id="in details",
        ),
        pytest.param(
            "[]", PLAN, "plan: {file} holds no plan; make a new one (playbooks/plan.yml)", id="something else"
        ),
        pytest.param(
            "{",
            PLAN,
            "plan: cannot read {file}: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            id="no JSON",
        ),
        pytest.param(
            None, PLAN, "plan: cannot read {file}: [Errno 2] No such file or directory: '{file}'", id="no file"
        ),
    ],
)
def test_a_saved_plan_is_refused(tmp_path: Path, text: str | None, found: Any, message: str) -> None:
    file = tmp_path / "plan.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(AnsibleFilterError) as error:
        FILTERS["same_as_saved"](found, str(file))
    assert error.value.message == message.format(file=file)


def test_a_plan_is_walked_stage_by_stage() -> None:
    assert FILTERS["steps_of_stage"](PLAN, "h1", "0") == PLAN["steps"]["h1"]
    failures = {"h1": {"stage": 0, "reason": "why"}}
    assert [FILTERS["may_go_on"](PLAN, name, "0", failures) for name in ("h1", "h2", "s1")] == [False, False, False]
    assert FILTERS["may_go_on"](PLAN, "h1", "0", {}) is True
    back = FILTERS["plan_revert"](PLAN, failures, platform({"h1": MOVED}, {"hangzhou": [gateway(h1="b")]}))
    assert back["nodes"] == ["h1"]


def test_candidates() -> None:
    assert FILTERS["candidates"](PLAN["steps"]["h1"], SERVICES, PULLED) == [
        {
            "service": SERVICES["webui"],
            "reference": "registry.origin.lab:5000/webui",
            "digest": NEW,
            "release": 3,
            "number": 3,
            "replica": 0,
            "slot": "b",
            "restore": False,
            "container": "webui.0.r3",
            "serving": "webui.0.r2",
            "seen": {"highest_release": 2, "recorded": "webui.0.r2"},
        }
    ]


@pytest.mark.parametrize("pulled", [{}, {"skipped": True}, {"results": []}])
def test_without_a_fallback_the_image_is_the_datacenters(pulled: dict[str, Any]) -> None:
    found = FILTERS["candidates"](PLAN["steps"]["h1"], SERVICES, pulled)[0]
    assert found["reference"] == "registry.hangzhou.lab:5000/webui"


def test_of_a_rollback_the_kept_one_is_the_candidate() -> None:
    steps = plan({"h1": node(replica(running(3)), highest=3, kept=[kept(2)])}, "rollback")["steps"]["h1"]
    found = FILTERS["candidates"](steps, SERVICES, {})[0]
    assert [found[key] for key in ("restore", "container", "release", "number", "digest", "serving")] == [
        True,
        "webui.0.r2",
        2,
        4,
        OLD,
        "webui.0.r3",
    ]


LEFT_OVER = plan({"h1": node(replica(running(3), extra=[left_over(2)]), highest=3)})["steps"]["h1"]


def test_where_only_left_overs_stop_there_is_no_candidate() -> None:
    assert FILTERS["candidates"](LEFT_OVER, SERVICES, {}) == []


STARTED_IN_A = {"candidates": [{"service": "webui", "replica": 0, "slot": "a", "port": 18180}]}
DRAINED = plan({"h1": BEHIND}, gateways={"hangzhou": [gateway(h1="")]})["steps"]["h1"]


@pytest.mark.parametrize(
    ("steps", "started", "to_at", "away", "ready"),
    [
        pytest.param(PLAN["steps"]["h1"], {"candidates": []}, ("h1.0.b", None), "h1.0.a", True, id="as planned"),
        pytest.param(PLAN["steps"]["h1"], STARTED_IN_A, ("h1.0.a", 18180), "h1.0.b", True, id="adopted elsewhere"),
        pytest.param(PLAN["steps"]["h1"], {"skipped": True}, ("h1.0.b", None), "h1.0.a", True, id="started before"),
        pytest.param(LEFT_OVER, {}, ("h1.0.a", None), "h1.0.b", True, id="nothing to start"),
        pytest.param(DRAINED, {}, ("h1.0.b", None), "h1.0.a", False, id="drained: proven, and left out"),
    ],
)
def test_switches(steps: Any, started: dict[str, Any], to_at: tuple[str, int | None], away: str, ready: bool) -> None:
    assert FILTERS["switches"](steps, SERVICES, started, "h1") == [
        {
            "backend": "webui",
            "to": to_at[0],
            "port": to_at[1],
            "away": [away],
            "ready": ready,
            "drain_timeout": 30,
            "probe": {"port": 80, "path": SERVICES["webui"]["health"]["ready_path"], "timeout": 2, "tls": False},
        }
    ]


def test_a_gateway_with_a_certificate_is_asked_by_tls() -> None:
    hostvars = {"g1": {"gateway_certificate": "/etc/tls/g.crt"}, "g2": {"gateway_certificate": ""}, "g3": {}}
    assert FILTERS["with_certificate"](["g1", "g2", "g3"], hostvars) == ["g1"]
    (switch,) = FILTERS["switches"](PLAN["steps"]["h1"], SERVICES, {}, "h1", True)
    assert switch["probe"]["tls"] is True


STORE = [{**PLAN["steps"]["h1"][0], "service": "store"}]


def test_what_no_gateway_forwards_is_not_switched() -> None:
    assert FILTERS["switches"](STORE, SERVICES, {}, "h1") == []


def keeps(*arguments: Any) -> list[tuple[Any, ...]]:
    found = FILTERS["keepers"](*arguments)
    assert all(one["service"] == SERVICES[one["service"]["name"]] for one in found)
    return [(one["replica"], one["keep"], one["drop"], one["number"]) for one in found]


STEPS = PLAN["steps"]["h1"]
NOTHING_BACK: dict[str, Any] = {"verb": "revert", "steps": {}}
GONE_BACK = {"steps": {"h1": [{"service": "webui", "replicas": [{"replica": 0, "container": "webui.0.r2"}]}]}}


def observed(seen: dict[str, Any], *tables: dict[str, Any]) -> dict[str, Any]:
    """A node as it is judged after a failure."""
    return dict(FILTERS["judge_nodes"]({"h1": seen}, DATACENTERS, {"hangzhou": list(tables)}, {})["h1"])


def test_what_is_kept_where_all_went_well_is_the_plans() -> None:
    assert keeps(STEPS, SERVICES) == [(0, "webui.0.r3", None, 3)]
    assert keeps(STEPS, SERVICES, observed(BEHIND), {}, "h1") == [(0, "webui.0.r3", None, 3)]


@pytest.mark.parametrize(
    ("seen", "tables", "revert", "kept_then"),
    [
        pytest.param(
            BEHIND, [gateway(h1="a")], NOTHING_BACK, [(0, "webui.0.r2", "webui.0.r3", 3)], id="it never moved"
        ),
        pytest.param(MOVED, [gateway(h1="b")], NOTHING_BACK, [(0, "webui.0.r3", None, 3)], id="it moved, and stays"),
        pytest.param(MOVED, [gateway(h1="b")], GONE_BACK, [(0, "webui.0.r2", "webui.0.r3", 3)], id="it went back"),
        pytest.param(MOVED, [gateway(h1="a")], NOTHING_BACK, [(0, "webui.0.r2", "webui.0.r3", 3)], id="not switched"),
        pytest.param(MOVED, [gateway(h1="a"), gateway(h1="b")], NOTHING_BACK, [], id="switched at one of two gateways"),
        pytest.param(MOVED, [], NOTHING_BACK, [], id="no gateway says who serves"),
        pytest.param(BEHIND, [], NOTHING_BACK, [(0, "webui.0.r2", "webui.0.r3", 3)], id="but nothing else runs"),
        pytest.param(
            node(replica(running(2, running=False)), highest=3), [], NOTHING_BACK, [], id="what served does not run"
        ),
        pytest.param(node(replica(None), highest=3), [], NOTHING_BACK, [], id="nothing served"),
        pytest.param({"services": {}, "orphans": []}, [], NOTHING_BACK, [], id="nothing is known"),
    ],
)
def test_what_is_kept_after_a_failure_is_what_serves(
    seen: dict[str, Any], tables: list[Any], revert: dict[str, Any], kept_then: list[Any]
) -> None:
    assert keeps(STEPS, SERVICES, observed(seen, *tables), revert, "h1") == kept_then


def test_a_kept_one_that_a_failed_rollback_started_is_kept_again() -> None:
    steps = plan({"h1": node(replica(running(3)), highest=3, kept=[kept(2)])}, "rollback")["steps"]["h1"]
    seen = observed(node(replica(running(3), extra=[left_over(2)]), highest=4), gateway(h1="a"))
    assert keeps(steps, SERVICES, seen, NOTHING_BACK, "h1") == [(0, "webui.0.r3", None, 4)]


def test_without_a_gateway_the_record_says_who_serves() -> None:
    store = {"services": {"store": MOVED["services"]["webui"]}, "orphans": []}
    assert keeps(STORE, SERVICES, observed(store), NOTHING_BACK, "h1") == [(0, "webui.0.r2", "webui.0.r3", 3)]


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        pytest.param(STARTED_IN_A, True, id="all of them"),
        pytest.param({}, False, id="nothing yet"),
        pytest.param({"skipped": True}, False, id="skipped"),
        pytest.param({"candidates": []}, False, id="none of them"),
        pytest.param(
            {"candidates": [one | {"replica": 1} for one in STARTED_IN_A["candidates"]]}, False, id="another replica"
        ),
        pytest.param(
            {"candidates": [one | {"service": "store"} for one in STARTED_IN_A["candidates"]]},
            False,
            id="another service, of an earlier stage",
        ),
    ],
)
def test_what_has_started_ahead(started: dict[str, Any], expected: bool) -> None:
    assert FILTERS["has_started"](STEPS, started) is expected


def test_where_nothing_has_to_start_all_has() -> None:
    steps = plan({"h1": node(replica(running(3), extra=[left_over(2)]), highest=3)})["steps"]["h1"]
    assert FILTERS["has_started"](steps, {})


BAKING = catalogue(webui={"update": {"bake_time": 60, "max_errors": 0.02, "max_latency": 3}})


def baking(nodes: Mapping[str, Any], **more: Any) -> dict[str, list[Any]]:
    planned = plan(nodes, services=BAKING, **more)
    return {name: FILTERS["bakes"](planned, name, "0", BAKING) for name in nodes}


def test_the_last_batch_of_the_first_wave_watches_all_that_moved() -> None:
    assert baking(EVERYWHERE) == {
        "h1": [],
        "h2": [
            {
                "backend": "webui",
                "new": ["h1.0.b", "h2.0.b"],
                "old": ["h1.0.a", "h2.0.a"],
                "seconds": 60,
                "max_errors": 0.02,
                "max_latency": 3,
            }
        ],
        "s1": [],
    }


def test_what_was_adopted_in_another_slot_is_watched_there() -> None:
    started = {"h2": STARTED_IN_A}
    (watched,) = FILTERS["bakes"](plan(EVERYWHERE, services=BAKING), "h2", "0", BAKING, started)
    assert (watched["new"], watched["old"]) == (["h1.0.b", "h2.0.a"], ["h1.0.a", "h2.0.b"])


def test_of_a_batch_of_several_only_the_first_watches() -> None:
    services = catalogue(webui={"update": {"bake_time": 60, "max_parallel": 2, "canary": 0}})
    planned = plan(EVERYWHERE, services=services)
    assert [bool(FILTERS["bakes"](planned, name, 0, services)) for name in EVERYWHERE] == [True, False, False]


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        pytest.param({"h1": BEHIND}, {"gateways": {"hangzhou": [gateway(h1="")]}}, id="drained: it gets no requests"),
        pytest.param({"h1": node(replica(running(3), extra=[left_over(2)]), highest=3)}, {}, id="nothing was started"),
        pytest.param(
            {"h1": node(replica(running(3)), highest=3, kept=[kept(2)])}, {"verb": "rollback"}, id="served before"
        ),
    ],
)
def test_nothing_to_watch(nodes: dict[str, Any], more: dict[str, Any]) -> None:
    assert baking(nodes, **more) == {"h1": []}


@pytest.mark.parametrize(
    ("name", "service", "more"),
    [
        pytest.param("h1", "webui", False, id="start and forward, no more"),
        pytest.param("h2", "webui", True, id="it bakes"),
        pytest.param("h1", "store", True, id="nobody forwards to it"),
    ],
)
def test_who_has_more_to_do_than_to_forward(name: str, service: str, more: bool) -> None:
    planned = plan(EVERYWHERE, services=BAKING)
    steps = [one | {"service": service} for one in planned["steps"][name]]
    assert FILTERS["has_more"](steps, planned, name, "0", BAKING) is more


def test_without_bake_time_nobody_watches() -> None:
    assert [FILTERS["bakes"](PLAN, name, 0, SERVICES) for name in EVERYWHERE] == [[], [], []]


def test_records_are_of_what_runs_now() -> None:
    failures = {"s1": {"stage": 0, "reason": "why\nlog"}}
    cut = {"h1": 2, "h2": 1}
    deployer = {"id": "run", "user": "ops", "host": "control-1"}
    rollout, *nodes = FILTERS["rollout_records"](
        PLAN, {}, failures, cut, {}, deployer, "2026-11-24T10:05:11Z", FILTERS["place_of"](NODES)
    )
    assert (rollout["id"], rollout["result"], rollout["cut"], rollout["reasons"]) == (
        "run@2026-11-24T10:05:11Z",
        "failed",
        3,
        ["s1: why"],
    )
    assert [(one["node"], one["datacenter"], one["result"]) for one in nodes] == [
        ("h1", "hangzhou", "failed"),
        ("h2", "hangzhou", "failed"),
        ("s1", "shanghai", "failed"),
    ]


def report(nodes: Mapping[str, Any], found: Any = None, failures: Mapping[str, Any] | None = None) -> dict[str, Any]:
    judged = platform(nodes)["nodes"]
    gateways = {"hangzhou": ["http://10.0.0.1"], "shanghai": ["http://10.1.0.1"]}
    services, asked = {"webui": SERVICES["webui"]}, ["h2", "s1"]
    return dict(FILTERS["status_report"](services, DATACENTERS, judged, gateways, failures or {}, asked, found))


RIGHT = node(replica(running(3)), highest=3)


def test_a_report_names_who_failed_and_who_is_behind() -> None:
    assert report({"h1": RIGHT, "h2": RIGHT, "s1": RIGHT})["behind"] == []
    found = report({"h1": RIGHT, "h2": BEHIND}, PLAN, {"h2": {"stage": 0, "reason": "why"}})
    assert found["behind"] == [
        "h2: why",
        "h2: webui.0: stays on r2 000000000000, differs in image",
        "s1: webui: could not be reached",
    ]
    assert report({"s1": RIGHT}, PLAN)["behind"] == ["h2: webui: could not be reached"]
    assert found["notes"] == found["behind"]
    assert [len(row) for row in found["rows"]] == [len(found["columns"])] * 2


def test_a_status_names_who_is_out_of_rotation_and_a_plans_report_does_not() -> None:
    """Its gateways were asked before it was carried out: what came for the first time got no requests then."""
    drained = node(replica(running(3), drained=True), replica(number=1, drained=True), highest=3)
    gateways = {"hangzhou": ["http://10.0.0.1"], "shanghai": []}
    arguments = [{"webui": SERVICES["webui"]}, DATACENTERS, {"h1": RIGHT, "h2": drained}, gateways, {}, ["h1", "h2"]]
    told = FILTERS["status_report"](*arguments)
    assert told["notes"] == [
        "h2: webui.1: nothing runs",
        "h2: webui.0 out of rotation until playbooks/undrain.yml -e target=h2",
    ]
    assert told["behind"] == ["h2: webui.1: nothing runs"]
    assert FILTERS["status_report"](*arguments, PLAN)["notes"] == ["h2: webui.1: nothing runs"]


def test_what_could_not_be_compared_is_told() -> None:
    arguments = [{"webui": SERVICES["webui"]}, DATACENTERS, platform({"h1": RIGHT})["nodes"], {}, {}, ["h1"]]
    told = FILTERS["status_report"](*arguments, origin_away="could not be reached: Connection timed out")
    assert told["notes"] == [
        "whether these are the newest images is not known: the origin's host could not be reached: Connection timed out"
    ]
    assert told["behind"] == []


@pytest.mark.parametrize(
    ("verb", "failed", "told"),
    [
        pytest.param("scale", "", ["g1", "g2", "g3"], id="all well"),
        pytest.param("retire", "s1", ["g1", "g2"], id="not where it failed"),
        pytest.param("rollout", "", [], id="their configuration stays"),
    ],
)
def test_which_gateways_are_told(verb: str, failed: str, told: list[str]) -> None:
    places = {"h1": "hangzhou", "s1": "shanghai", "g1": "hangzhou", "g2": "hangzhou", "g3": "shanghai"}
    hostvars: dict[str, dict[str, Any]] = {name: {"datacenter": place} for name, place in places.items()}
    hostvars.get(failed, {})["service_failure"] = {"stage": -1, "reason": "x"}
    groups = {"nodes": ["h1", "s1"], "gateways": ["g1", "g2", "g3"]}
    assert FILTERS["gateways_to_tell"]({"verb": verb}, groups, hostvars) == told
    assert FILTERS["gateways_to_tell"]({}, groups, hostvars) == []


def test_a_node_that_was_away_keeps_what_was_to_go() -> None:
    retired = PLAN | {"verb": "retire", "services": {}, "away": ["s1"]}
    behind = report({"h1": RIGHT, "h2": RIGHT}, retired)["behind"]
    assert behind == ["s1: could not be reached; what it has stays"]


def test_after_a_rollback_the_release_asked_for_is_right_whatever_the_catalogue_says() -> None:
    nodes = {"h1": node(replica(running(3)), highest=3, kept=[kept(2)])}
    returned = plan(nodes, "rollback")
    back = {name: node(replica(running(2, digest=OLD)), highest=4) for name in EVERYWHERE}
    assert report(back, returned)["behind"] == []
    assert report({**back, "h1": RIGHT}, returned)["behind"] == [
        "h1: webui.0: stays on r3 111111111111, differs in release"
    ]
    assert len(report(back)["behind"]) == 3


def test_the_document_names_what_runs_and_holds_no_configuration() -> None:
    current = running(7, configuration="hash")
    document = FILTERS["platform_document"](
        SERVICES,
        {"hangzhou": {"nodes": {"h1": "10.0.0.11"}}, "shanghai": {"nodes": {"s1": "10.1.0.11"}}},
        {"h1": {"services": {"webui": {"replicas": [replica(current), replica(None, 1)]}}}},
        {"hangzhou": {"url": "http://10.0.0.100", "statistics": ["http://10.0.0.10:8404", "http://10.0.0.11:8404"]}},
        "hangzhou",
        environment="lab",
    )
    assert (document["environment"], document["origin"]) == ("lab", "hangzhou")
    assert document["datacenters"] == [
        {
            "name": "hangzhou",
            "gateway": "http://10.0.0.100",
            "stats": "http://10.0.0.10:8404/;csv",
            "statistics": ["http://10.0.0.10:8404/;csv", "http://10.0.0.11:8404/;csv"],
            "nodes": [{"name": "h1", "address": "10.0.0.11"}],
        }
    ]
    assert document["replicas"] == [
        {
            "service": "webui",
            "datacenter": "hangzhou",
            "node": "h1",
            "replica": 0,
            "slot": "a",
            "release": 7,
            "digest": NEW,
            "container": "webui.0.r7",
        }
    ]
    assert document["services"][0] == {
        "name": "webui",
        "port": 80,
        "repository": "webui",
        "datacenters": ["hangzhou", "shanghai"],
        "replicas": 1,
        "release": 7,
        "digest": NEW,
    }


@pytest.mark.parametrize(
    ("hook", "changed", "failed", "expected"),
    [
        pytest.param("pre_rollout", True, False, ["h1"], id="before"),
        pytest.param("post_rollout", True, False, ["h1"], id="after"),
        pytest.param("on_failure", True, False, [], id="nothing failed"),
        pytest.param("on_failure", True, True, ["h1"], id="something failed"),
        pytest.param("post_rollout", True, True, [], id="not well"),
        pytest.param("pre_rollout", False, False, [], id="idempotent: nothing changes"),
    ],
)
def test_who_calls_a_hook(hook: str, changed: bool, failed: bool, expected: list[str]) -> None:
    found = {"changed": changed, "leads": ["h1", "s1"], "nodes": ["h1", "s1"], "switches": {"h2": []}, "removals": {}}
    nodes = {"h1": {}, "h2": {"service_failure": {"stage": 0, "reason": "x"}} if failed else {}, "s1": {}}
    nodes["s1"] = {"rollout_conclusion": {"problems": []}, "rollout_recorded": {"appended": 3}}
    assert FILTERS["hook_host"](found, hook, nodes | {"h1": {"rollout_hooks": {hook: {"tasks": "a.yml"}}}}) == expected
    assert FILTERS["hook_host"](found, hook, nodes) == []


@pytest.mark.parametrize(
    "known",
    [
        pytest.param({"rollout_conclusion": {"problems": ["h1: webui.0: r3 is unhealthy"]}}, id="not well in the end"),
        pytest.param({"rollout_recorded": UNREACHABLE}, id="not on record: away"),
        pytest.param({"rollout_recorded": {"failed": True, "msg": "no space"}}, id="not on record: no space"),
    ],
)
def test_a_run_that_does_not_end_well_is_no_success_to_hooks(known: dict[str, Any]) -> None:
    """Whoever says so: the first node of a datacenter records for it, be it concerned or not."""
    found = {"changed": True, "leads": ["h1"], "nodes": ["h1"], "switches": {}, "removals": {}}
    hooks = {"rollout_hooks": {"post_rollout": {"tasks": "a.yml"}, "on_failure": {"tasks": "a.yml"}}}
    hostvars = {"h1": hooks, "h2": known}
    called = {hook: FILTERS["hook_host"](found, hook, hostvars) for hook in ("post_rollout", "on_failure")}
    assert called == {"post_rollout": [], "on_failure": ["h1"]}


@pytest.mark.parametrize(
    ("switched", "count"),
    [
        pytest.param({"results": [{"cut": 2}, {"cut": 1}]}, 3, id="two gateways"),
        pytest.param({"results": [{"cut": 2}, {"skipped": True}]}, 2, id="one said nothing"),
        pytest.param({"skipped": True}, 0, id="there was no switch"),
    ],
)
def test_how_many_sessions_a_switch_has_cut(switched: dict[str, Any], count: int) -> None:
    assert FILTERS["cut_sessions"](switched) == count


@pytest.mark.parametrize(
    ("names", "release", "got"),
    [
        pytest.param("", "", None, id="none"),
        pytest.param("webui", "r3", None, id="of one service"),
        pytest.param("", "r3", "no -e service=", id="of no service"),
        pytest.param("webui,store", "r3", '-e service="webui,store"', id="of two"),
        pytest.param("webiu", "r3", '-e service="webiu"', id="of one that there is not"),
    ],
)
def test_a_release_is_that_of_one_service(names: str, release: str, got: str | None) -> None:
    told = f"release: expected -e service= with the one service whose release it is, got {got}"
    assert FILTERS["release_errors"](SERVICES, names, release) == ([told] if got else [])


@pytest.mark.parametrize(("release", "got"), [(5, "5"), (0, "0"), (False, "false")])
def test_a_release_is_a_text(release: Any, got: str) -> None:
    told = f"release: expected a tag or a digest as a text, got {got}; quote it"
    assert FILTERS["release_errors"](SERVICES, "webui", release) == [told]
