"""The plan of a rollout, as tables: what runs and what is asked for → who changes what."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.qianjiang.catalogue import normalise
from ansible.module_utils.qianjiang.plan import Plan, PlanError, plan_rollout
from ansible.module_utils.qianjiang.release import configuration_hash
from ansible.module_utils.qianjiang.status import status

OLD = "sha256:" + "0" * 64
NEW = "sha256:" + "1" * 64
NODES = {"hangzhou": ["h1", "h2"], "shanghai": ["s1"]}
SERVICES = normalise({"webui": {"build": {}, "port": 8080, "slots_port": 18080, "gateway": {"port": 80}}}, NODES)
CONFIGURATION = configuration_hash(SERVICES["webui"])
DATACENTERS = {name: {"registry": f"registry.{name}.lab:5000", "nodes": nodes} for name, nodes in NODES.items()}
IMAGE = {"name": "image", "before": OLD, "after": NEW}


def replica(release: int | None = None, digest: str = NEW, **more: Any) -> dict[str, Any]:
    """A replica as service_compare returns it."""
    current = release and {
        "container": f"webui.0.r{release}",
        "release": release,
        "digest": digest,
        "configuration": CONFIGURATION,
        "slot": "a",
        "running": True,
        "health": "healthy",
    }
    found = {"replica": 0, "current": current or None, "free_slot": "b", "differences": [], "extra": []}
    return found | more


def node(*replicas: dict[str, Any], highest: int = 0, orphans: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """What service_compare returned on a node."""
    return {"services": {"webui": {"replicas": list(replicas), "highest_release": highest}}, "orphans": list(orphans)}


def plan(**comparisons: dict[str, Any]) -> Plan:
    return plan_rollout(SERVICES, ["webui"], DATACENTERS, {"webui": NEW}, comparisons)


RIGHT = node(replica(3), highest=3)
BEHIND = node(replica(2, OLD, differences=[IMAGE]), highest=2)
BARE = node(replica())
KILLED = node(replica(2, OLD, differences=[IMAGE]), highest=3)
LEFTOVER = node(replica(3, extra=["webui.0.r2"]), highest=3)


@pytest.mark.parametrize(
    ("comparisons", "release", "nodes"),
    [
        pytest.param({"h1": RIGHT, "h2": RIGHT, "s1": RIGHT}, 3, [], id="idempotent"),
        pytest.param({"h1": BARE, "h2": BARE, "s1": BARE}, 1, ["h1", "h2", "s1"], id="first release"),
        pytest.param({"h1": BEHIND, "h2": BEHIND, "s1": BEHIND}, 3, ["h1", "h2", "s1"], id="next release"),
        pytest.param({"h1": RIGHT, "h2": BEHIND, "s1": BEHIND}, 3, ["h2", "s1"], id="resumed under the same number"),
        pytest.param(
            {"h1": KILLED, "h2": BEHIND, "s1": BEHIND}, 4, ["h1", "h2", "s1"], id="a used number is not reused"
        ),
        pytest.param({"h1": RIGHT, "h2": RIGHT}, 3, [], id="a node that is away is left out"),
        pytest.param({"s1": BEHIND, "h2": BEHIND, "h1": BEHIND}, 3, ["h1", "h2", "s1"], id="order of the datacenters"),
        pytest.param({"h1": LEFTOVER, "h2": RIGHT, "s1": RIGHT}, 3, ["h1"], id="left-overs are stopped"),
    ],
)
def test_number_and_nodes(comparisons: dict[str, Any], release: int, nodes: list[str]) -> None:
    planned = plan(**comparisons)
    assert (planned["services"]["webui"]["release"], planned["nodes"]) == (release, nodes)
    assert planned["changed"] is bool(nodes)


def test_a_step_says_everything_the_node_needs() -> None:
    planned = plan(h1=RIGHT, h2=RIGHT, s1=BEHIND)
    assert planned["steps"] == {
        "s1": [
            {
                "service": "webui",
                "release": 3,
                "digest": NEW,
                "repository": "webui",
                "reference": "registry.shanghai.lab:5000/webui",
                "pull": True,
                "replicas": [
                    {
                        "replica": 0,
                        "slot": "b",
                        "start": True,
                        "current": "webui.0.r2",
                        "from_release": 2,
                        "from_digest": OLD,
                        "differences": [IMAGE],
                    }
                ],
            }
        ]
    }
    assert planned["images"] == {"shanghai": [f"webui@{NEW}"]}
    assert planned["holds"] == {"shanghai": [{"backend": "webui", "server": "s1.0.b"}]}
    assert planned["summary"] == ["shanghai: s1: webui.0: r2 000000000000 → r3 111111111111 (image)"]


def test_left_overs_need_no_image_and_no_start() -> None:
    planned = plan(h1=LEFTOVER, h2=RIGHT, s1=RIGHT)
    assert planned["steps"]["h1"][0]["pull"] is False
    assert planned["steps"]["h1"][0]["replicas"][0] | {"start": None} == {
        "replica": 0,
        "slot": "a",
        "start": None,
        "current": "webui.0.r3",
        "from_release": 3,
        "from_digest": NEW,
        "differences": [],
    }
    assert planned["images"] == {}
    assert planned["summary"] == ["hangzhou: h1: webui.0: stop what an interrupted run left behind"]


def test_orphans_are_reported_and_change_nothing() -> None:
    orphan = {"container": "old.0.r1", "service": "old"}
    planned = plan(h1=node(replica(3), highest=3, orphans=(orphan,)), h2=RIGHT, s1=RIGHT)
    assert planned["orphans"] == [{"node": "h1"} | orphan]
    assert planned["summary"] == ["orphan on h1: old.0.r1"]
    assert not planned["changed"]


def test_without_an_image_there_is_no_plan() -> None:
    with pytest.raises(PlanError) as error:
        plan_rollout(SERVICES, ["webui"], DATACENTERS, {}, {"h1": BARE})
    assert str(error.value) == "the origin has no image of webui: run playbooks/build.yml first"


SICK = node(replica(3), highest=3)
SICK["services"]["webui"]["replicas"][0]["current"]["health"] = "unhealthy"


@pytest.mark.parametrize(
    ("comparisons", "healthy", "behind"),
    [
        pytest.param({"h1": RIGHT, "h2": RIGHT, "s1": RIGHT}, ["2/2", "1/1"], [], id="all well"),
        pytest.param({"h1": RIGHT, "h2": RIGHT}, ["2/2", "0/1"], ["s1: could not be reached"], id="away"),
        pytest.param(
            {"h1": SICK, "h2": RIGHT, "s1": RIGHT}, ["1/2", "1/1"], ["h1: webui.0: r3 is unhealthy"], id="sick"
        ),
        pytest.param({"h1": BARE, "h2": RIGHT, "s1": RIGHT}, ["1/2", "1/1"], ["h1: webui.0: nothing runs"], id="bare"),
        pytest.param(
            {"h1": BEHIND, "h2": RIGHT, "s1": RIGHT},
            ["2/2", "1/1"],
            ["h1: webui.0: stays on r2 000000000000, differs in image"],
            id="behind",
        ),
    ],
)
def test_status(comparisons: dict[str, Any], healthy: list[str], behind: list[str]) -> None:
    found = status(SERVICES, DATACENTERS, comparisons, {"hangzhou": ["10.0.0.1"], "shanghai": ["10.0.1.1"]})
    assert [row[4] for row in found["rows"]] == healthy
    assert found["behind"] == behind
    assert found["rows"][0][:2] + found["rows"][0][5:] == ["webui", "hangzhou", "http://10.0.0.1/"]
