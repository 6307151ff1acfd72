"""Who runs what where, healthy or not, as tables."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.qianjiang.status import COLUMNS, service_url, status

from support import DATACENTERS, OLD, catalogue, node, rendered, replica, running

SERVICES = {"webui": catalogue()["webui"]}
GATEWAYS = {"hangzhou": ["http://10.0.0.1", "http://10.0.0.2"], "shanghai": []}
IMAGE = {"name": "image", "before": OLD, "after": "sha256:new"}
TITLE = {"name": "env.TITLE", "before": "x", "after": "y"}

RIGHT = node(replica(running(3)), highest=3)
SICK = node(replica(running(3, health="unhealthy")), highest=3)
STOPPED = node(replica(running(3, running=False, health="none")), highest=3)
UNCHECKED = node(replica(running(3, health="none")), highest=3)
BEHIND = node(replica(running(2, digest=OLD), differences=[TITLE, IMAGE]), highest=2)
BARE = node(replica(), highest=0)
ALL = {"h1": RIGHT, "h2": RIGHT, "s1": RIGHT}


@pytest.mark.parametrize(
    ("comparisons", "healthy", "behind"),
    [
        pytest.param(ALL, ["2/2", "1/1"], [], id="all well"),
        pytest.param(ALL | {"h1": UNCHECKED}, ["2/2", "1/1"], [], id="without a check running is healthy"),
        pytest.param(
            {"h1": RIGHT, "h2": RIGHT}, ["2/2", "0/1"], ["s1: webui: could not be reached"], id="a node is away"
        ),
        pytest.param(ALL | {"h1": SICK}, ["1/2", "1/1"], ["h1: webui.0: r3 is unhealthy"], id="sick"),
        pytest.param(ALL | {"h1": BARE}, ["1/2", "1/1"], ["h1: webui.0: nothing runs"], id="bare"),
        pytest.param(ALL | {"h1": STOPPED}, ["1/2", "1/1"], ["h1: webui.0: r3 does not run"], id="stopped"),
        pytest.param(
            ALL | {"h1": BEHIND},
            ["2/2", "1/1"],
            ["h1: webui.0: stays on r2 000000000000, differs in env.TITLE, image"],
            id="behind",
        ),
    ],
)
def test_health(comparisons: dict[str, Any], healthy: list[str], behind: list[str]) -> None:
    found = status(SERVICES, DATACENTERS, comparisons, GATEWAYS)
    assert [row[COLUMNS.index("healthy")] for row in found["rows"]] == healthy
    assert found["behind"] == behind


def test_rows() -> None:
    nodes = {"h1": RIGHT, "h2": BEHIND, "s1": BARE}
    assert status(SERVICES, DATACENTERS, nodes, GATEWAYS)["rows"] == [
        ["webui", "hangzhou", "r2, r3", "000000000000, 111111111111", "2/2", "http://10.0.0.1/"],
        ["webui", "shanghai", "-", "-", "0/1", "-"],
    ]


def test_a_service_has_a_row_only_where_it_is_placed_and_a_url_only_behind_a_gateway() -> None:
    store = {"store": catalogue()["store"]}
    seen = {"services": {"store": RIGHT["services"]["webui"]}, "orphans": []}
    assert status(store, DATACENTERS, {"h1": seen, "h2": seen}, GATEWAYS)["rows"] == [
        ["store", "hangzhou", "r3", "111111111111", "2/2", "-"]
    ]


def test_nothing_is_said_of_who_was_not_asked() -> None:
    rows = status(SERVICES, DATACENTERS, {"h1": RIGHT}, GATEWAYS, asked=["h1"])["rows"]
    assert [(row[1], row[4]) for row in rows if row[0] == "webui"] == [("hangzhou", "1/1")]


@pytest.mark.parametrize(
    ("asked", "requested", "behind"),
    [
        pytest.param(None, None, ["h2: webui: could not be reached", "s1: webui.0: nothing runs"], id="everything"),
        pytest.param(["h1", "s1"], None, ["s1: webui.0: nothing runs"], id="who was not asked is not away"),
        pytest.param(None, [], [], id="what was not asked for is not behind"),
        pytest.param(["h2"], ["webui"], ["h2: webui: could not be reached", "s1: webui.0: nothing runs"], id="both"),
    ],
)
def test_only_what_was_asked_for_is_behind(asked: Any, requested: Any, behind: list[str]) -> None:
    nodes = {"h1": RIGHT, "s1": BARE}
    assert status(SERVICES, DATACENTERS, nodes, GATEWAYS, asked=asked, requested=requested)["behind"] == behind


def test_orphans_are_noted() -> None:
    orphan = {"container": "old.0.r1", "service": "old"}
    assert status(SERVICES, DATACENTERS, ALL | {"h1": RIGHT | {"orphans": [orphan]}}, GATEWAYS)["notes"] == [
        "orphan on h1: old.0.r1 (service old is not in the catalogue there)"
    ]


def test_urls() -> None:
    assert service_url("http://10.0.0.1", 80) == "http://10.0.0.1/"
    assert service_url("http://10.0.0.1", 8080) == "http://10.0.0.1:8080/"
    assert service_url("https://10.0.0.1", 443) == "https://10.0.0.1/"
    assert service_url("https://10.0.0.1", 80) == "https://10.0.0.1:80/"


@pytest.mark.parametrize(
    ("check", "planned", "problems"),
    [
        pytest.param(False, {}, ["h1: why", "h1: behind"], id="a status"),
        pytest.param(True, {}, ["h1: why", "h1: behind"], id="a status changes nothing, so its check is the same"),
        pytest.param(False, {"rollout_plan": {}}, ["h1: why", "h1: behind"], id="after a plan"),
        pytest.param(True, {"rollout_plan": {}}, ["why"], id="before a plan nobody is where it goes to"),
    ],
)
def test_what_a_report_fails_with(check: bool, planned: dict[str, Any], problems: list[str]) -> None:
    found = rendered(
        "rollout",
        "{{ __rollout_problems }}",
        {},
        ansible_check_mode=check,
        hostvars={"localhost": planned},
        rollout_failures={"h1": {"reason": "why"}},
        __rollout_status={"behind": ["h1: why", "h1: behind"]},
    )
    assert list(found) == problems
