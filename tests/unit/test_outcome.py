"""What became of a plan, as tables: for the report, and as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from ansible.module_utils.qianjiang import record
from ansible.module_utils.qianjiang.outcome import asked_for, first_line, records, result_of
from ansible.module_utils.qianjiang.plan import Failure, Plan, plan_rollout, revert_plan
from ansible.module_utils.qianjiang.policy import Policy
from ansible.module_utils.qianjiang.rotation import judge
from ansible.module_utils.qianjiang.target import Platform

from support import DATACENTERS, NEW, OLD, catalogue, kept, node, replica, running

SERVICES = catalogue()
POLICY: Policy = {"order": list(DATACENTERS), "max_parallel": 1, "on_failure": "stop", "unreachable": "stop"}
PLACES = {"h1": "hangzhou", "h2": "hangzhou", "s1": "shanghai"}
BEFORE = node(replica(running(2, digest=OLD)), highest=2, kept=[kept(1)])
AFTER = node(replica(running(3, "b")), highest=3)
DEAD = node(replica(running(3, "b", running=False)), highest=3)
TITLE = {"name": "env.TITLE", "before": "x", "after": "y"}


def plan(nodes: Mapping[str, Any], verb: str = "rollout", to: str = "") -> Plan:
    judged = judge(nodes, DATACENTERS, {}, {"webui": NEW})
    platform = Platform(SERVICES, DATACENTERS, {"webui": NEW}, judged, {})
    return plan_rollout({"verb": verb, "order": ["webui"], "to": to}, platform, POLICY)


PLAN = plan({"h1": BEFORE, "s1": BEFORE})
STEP = PLAN["steps"]["h1"][0]
ONE = STEP["replicas"][0]


@pytest.mark.parametrize(
    ("seen", "failed", "expected"),
    [
        pytest.param(AFTER, False, ("succeeded", ""), id="on its release"),
        pytest.param(AFTER, True, ("succeeded", "why"), id="it is, though something failed"),
        pytest.param(BEFORE, True, ("failed", "why"), id="failed"),
        pytest.param(DEAD, True, ("failed", "why"), id="it does not run"),
        pytest.param(node(replica(None), highest=3), True, ("failed", "why"), id="nothing runs"),
        pytest.param(node(highest=3), True, ("failed", "why"), id="nothing is known of the replica"),
        pytest.param({"services": {}, "orphans": []}, True, ("failed", "why"), id="nor of the service"),
        pytest.param(None, False, ("failed", "could not be reached"), id="away"),
        pytest.param(None, True, ("failed", "why"), id="away since"),
        pytest.param(
            BEFORE,
            False,
            ("untouched", "the rollout ended before its turn"),
            id="another one failed",
        ),
    ],
)
def test_what_became_of_a_replica(seen: Any, failed: bool, expected: tuple[str, str]) -> None:
    assert result_of(STEP, ONE, seen, {"stage": 0, "reason": "why"} if failed else None) == expected


def test_what_had_moved_and_what_its_failure_took_back() -> None:
    failure = {"stage": 0, "reason": "it baked badly"}
    assert result_of(STEP, ONE, BEFORE, None, went_back=True) == ("reverted", "its wave went back")
    assert result_of(STEP, ONE, BEFORE, failure, went_back=True) == ("failed", "it baked badly")


DEPLOYER = {"id": "run-1", "user": "ops", "host": "control-1", "controller": "c", "alive": "x"}
START, END = "2026-11-24T10:05:11Z", datetime(2026, 11, 24, 10, 5, 45, 40000, tzinfo=UTC)


def recorded(
    nodes: Mapping[str, Any],
    failures: Mapping[str, Any] | None = None,
    planned: Plan = PLAN,
    revert: Plan | None = None,
    problems: Sequence[str] = (),
) -> list[dict[str, Any]]:
    found = records(
        planned,
        nodes,
        failures or {},
        revert=revert,
        cut={"h1": 2, "s1": 1},
        deployer=DEPLOYER,
        started_at=START,
        places=PLACES,
        problems=problems,
        now=END,
    )
    record.check(found)
    return list(found)


def test_a_rollout_on_record() -> None:
    rollout, h1, s1 = recorded({"h1": AFTER, "s1": AFTER})
    assert rollout == {
        "kind": "rollout",
        "id": f"run-1@{START}",
        "verb": "rollout",
        "user": "ops",
        "controller": "control-1",
        "started_at": START,
        "finished_at": "2026-11-24T10:05:45Z",
        "seconds": 34.0,
        "result": "succeeded",
        "services": {"webui": {"from": [2], "to": 3, "digest": NEW}},
        "datacenters": ["hangzhou", "shanghai"],
        "reasons": [],
        "cut": 3,
    }
    assert h1 == {
        "kind": "node",
        "id": f"run-1@{START}",
        "datacenter": "hangzhou",
        "node": "h1",
        "service": "webui",
        "replica": 0,
        "from_release": 2,
        "from_digest": OLD,
        "to_release": 3,
        "to_digest": NEW,
        "started_at": START,
        "seconds": 34.0,
        "result": "succeeded",
        "reason": "",
    }
    assert s1 == h1 | {"datacenter": "shanghai", "node": "s1"}


LOG = "webui.0.r3 ended with exit code 3; it was removed. Its last log lines:\npassword=hunter2"
WHY = {"stage": 0, "reason": LOG}


@pytest.mark.parametrize(
    ("nodes", "failures", "result", "results"),
    [
        pytest.param({"h1": AFTER, "s1": AFTER}, {}, "succeeded", ["succeeded", "succeeded"], id="all well"),
        pytest.param({"h1": AFTER, "s1": BEFORE}, {"s1": WHY}, "failed", ["succeeded", "failed"], id="half of it"),
        pytest.param(
            {"h1": BEFORE, "s1": BEFORE}, {"h1": WHY}, "reverted", ["failed", "untouched"], id="all is as before"
        ),
        pytest.param({"h1": AFTER}, {}, "failed", ["succeeded", "failed"], id="one cannot be reached"),
        pytest.param({"h1": BEFORE}, {"h1": WHY}, "failed", ["failed", "failed"], id="of one it is not known"),
        pytest.param({"h1": BEFORE, "s1": DEAD}, {"s1": WHY}, "failed", ["untouched", "failed"], id="one is down"),
        pytest.param(
            {"h1": AFTER, "s1": AFTER}, {"s1": WHY}, "failed", ["succeeded", "succeeded"], id="it baked badly"
        ),
    ],
)
def test_results(nodes: dict[str, Any], failures: dict[str, Any], result: str, results: list[str]) -> None:
    rollout, *lines = recorded(nodes, failures)
    assert (rollout["result"], [line["result"] for line in lines]) == (result, results)


def test_a_wave_that_went_back_is_told_from_what_had_no_turn() -> None:
    both = {"h1": BEFORE, "s1": BEFORE}
    found = PLAN | {"policy": POLICY | {"on_failure": "revert_all"}}
    revert = revert_plan(found, {"s1": WHY}, judge({"h1": AFTER, "s1": BEFORE}, DATACENTERS, {}, {}), SERVICES)
    assert [line["result"] for line in recorded(both, {"s1": WHY}, revert=revert)[1:]] == ["reverted", "failed"]
    assert [line["result"] for line in recorded(both, {"s1": WHY})[1:]] == ["untouched", "failed"]


def test_what_a_container_wrote_is_not_on_record() -> None:
    rollout, h1, _ = recorded({"h1": BEFORE, "s1": BEFORE}, {"h1": WHY})
    reason = "webui.0.r3 ended with exit code 3; it was removed. Its last log lines:"
    assert (rollout["reasons"], h1["reason"]) == ([f"h1: {reason}"], reason)
    assert "hunter2" not in str([rollout, h1])
    assert first_line("") == ""


def test_the_releases_from_before_are_named_once_and_none_for_what_is_new() -> None:
    two = node(replica(running(1, digest=OLD)), replica(None, 1), highest=2)
    rollout, *lines = recorded({}, planned=plan({"h1": two, "h2": BEFORE, "s1": BEFORE}))
    assert rollout["services"]["webui"]["from"] == [1, 2]
    assert [line["from_release"] for line in lines] == [1, None, 2, 2]


def test_a_service_that_does_not_change_is_not_on_record() -> None:
    nothing = plan({"h1": node(replica(running(3)), highest=3)})
    assert [(one["kind"], one["services"], one["result"]) for one in recorded({}, planned=nothing)] == [
        ("rollout", {}, "succeeded")
    ]


RETURNED = plan({"h1": node(replica(running(2)), highest=2, kept=[kept(1)])}, "rollback", "r1")


@pytest.mark.parametrize(
    ("current", "differences"),
    [
        pytest.param(running(1, digest=OLD), [], id="on the release asked for, whatever the catalogue says"),
        pytest.param(
            running(1), [{"name": "image", "before": NEW, "after": OLD}], id="another image under the same number"
        ),
        pytest.param(running(2), [{"name": "release", "before": 2, "after": 1}], id="not on it"),
        pytest.param(None, [{"name": "release", "before": None, "after": 1}], id="nothing runs"),
    ],
)
def test_a_rollback_is_compared_with_what_it_asks_for(current: dict[str, Any] | None, differences: list[Any]) -> None:
    seen = {"h1": node(replica(current, differences=[TITLE]), highest=3)}
    assert asked_for(RETURNED, seen, {})["h1"]["services"]["webui"]["replicas"][0]["differences"] == differences
    assert seen["h1"]["services"]["webui"]["replicas"][0]["differences"] == [TITLE]


def test_scaling_leaves_each_of_the_images_of_one_number() -> None:
    scaled = cast(Plan, RETURNED | {"verb": "scale"})
    seen = {"h1": node(replica(running(1, digest=NEW)), highest=1)}
    assert asked_for(scaled, seen, {})["h1"]["services"]["webui"]["replicas"][0]["differences"] == []


def test_a_rollout_is_compared_with_the_catalogue_and_so_are_other_services() -> None:
    seen = {"h1": node(replica(running(3), differences=[TITLE]), highest=3)}
    assert asked_for(PLAN, seen, {}) == seen
    other = {"h1": {"services": {"store": seen["h1"]["services"]["webui"]}, "orphans": []}}
    assert asked_for(RETURNED, other, {}) == other


def test_what_was_to_go_is_no_orphan_unless_a_look_after_a_failure_finds_it() -> None:
    orphan = {"service": "report", "container": "report.0.r1", "replica": 0, "running": True}
    seen = {"h1": AFTER, "s1": AFTER | {"orphans": [orphan]}}
    retired = cast(Plan, PLAN | {"verb": "retire", "removals": {name: [removal("report")] for name in seen}})
    for failures, left in (({}, []), ({"h1": {"stage": -1, "reason": "the node is away"}}, [orphan])):
        found = asked_for(retired, seen, cast(dict[str, Failure], failures))
        assert (found["h1"]["orphans"], found["s1"]["orphans"]) == ([], left)


def test_what_does_not_end_well_is_not_on_record_as_a_success() -> None:
    sick = ["s1: webui.0: r3 is unhealthy\nits log"]
    rollout, *_ = recorded({"h1": AFTER, "s1": AFTER}, problems=sick)
    assert (rollout["result"], rollout["reasons"]) == ("failed", ["s1: webui.0: r3 is unhealthy"])
    rollout, *_ = recorded({"h1": AFTER, "s1": AFTER}, {"s1": WHY}, problems=["s1: why", *sick])
    assert [reason[:9] for reason in rollout["reasons"]] == ["s1: webui"]


def test_what_is_drained_or_retired_is_on_record_without_a_release() -> None:
    orphan = {"service": "report", "container": "report.0.r1", "replica": 0, "running": True}
    nodes = {"h1": AFTER, "s1": AFTER | {"orphans": [orphan]}}
    retired = plan(nodes) | {"verb": "retire", "removals": {"s1": [removal("report")]}}
    rollout, *replicas = recorded(nodes, planned=cast(Plan, retired))
    assert rollout["services"] == {"report": {"from": [], "to": None, "digest": None}}
    assert (rollout["datacenters"], rollout["result"], replicas) == (["shanghai"], "succeeded", [])
    drained = plan(nodes) | {"verb": "drain", "switches": {"h1": [{"backend": "webui", "away": []}]}}
    rollout, *_ = recorded(nodes, {"h1": WHY}, planned=cast(Plan, drained))
    assert (list(rollout["services"]), rollout["datacenters"]) == (["webui"], ["hangzhou"])
    assert rollout["result"] == "failed"


def removal(service: str) -> dict[str, Any]:
    return {"service": service, "replicas": 0, "containers": [f"{service}.0.r1"], "servers": []}
