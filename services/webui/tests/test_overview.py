# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from webui.document import Reading, Replica, Service, parse_document
from webui.gateway import Observation, Observations, Server, Servers
from webui.identity import Identity
from webui.overview import Overview, build_overview, judge

NOW = 1_795_000_000.0
EIGHT = "sha256:" + "8" * 64
NOBODY: Identity = {
    "hostname": "3fa9c1d2e4b5",
    "service": None,
    "release": None,
    "digest": None,
    "datacenter": None,
    "node": None,
    "replica": None,
    "slot": None,
}
SERVICE = Service("webui", 8000, "webui", ("hangzhou",), 7, "sha256:7", 1)
UNFORWARDED = Service("records", None, "records", ("hangzhou",), 7, "sha256:7", 1)
NEW = Service("webui", 8000, "webui", ("hangzhou",), None, None, 1)
IN_A = Replica("webui", "hangzhou", "hangzhou-node1", 0, "a", 7, "sha256:7", "webui.0.r7")
DRAINS = ("healthy", "old slot drains, 3 requests left", "b")
UP, DOWN, DRAIN, MAINT = Server("UP", 1), Server("DOWN", 0, "Layer4 timeout"), Server("DRAIN"), Server("MAINT")
EMPTY = Server("DOWN", 0, "Connection refused")


@pytest.mark.parametrize(
    ("datacenter", "service", "record", "slots", "verdict"),
    [
        # at rest: nothing listens in the other slot, which is in drain
        ("reachable", SERVICE, IN_A, {"a": UP, "b": EMPTY}, ("healthy", "", "a")),
        ("reachable", SERVICE, IN_A, {"a": UP, "b": MAINT}, ("healthy", "", "a")),
        ("reachable", SERVICE, IN_A, {"a": UP}, ("healthy", "", "a")),
        ("reachable", SERVICE, None, {"a": MAINT, "b": UP}, ("healthy", "", "b")),
        ("reachable", SERVICE, IN_A, {"a": Server("UP 1/3"), "b": MAINT}, ("healthy", "", "a")),
        ("reachable", SERVICE, IN_A, {"a": Server("no check"), "b": MAINT}, ("healthy", "", "a")),
        # a rollout on its way
        ("reachable", SERVICE, IN_A, {"a": UP, "b": UP}, ("switching", "both slots serve", "a")),
        ("reachable", SERVICE, IN_A, {"a": Server("DRAIN", 3), "b": UP}, DRAINS),
        ("reachable", SERVICE, IN_A, {"a": DRAIN, "b": UP}, ("healthy", "", "b")),
        ("reachable", SERVICE, IN_A, {"a": UP, "b": DRAIN}, ("healthy", "", "a")),
        ("reachable", SERVICE, IN_A, {"a": Server("DRAIN", 1), "b": EMPTY}, ("draining", "1 request left", "a")),
        # trouble
        ("reachable", SERVICE, IN_A, {"a": DOWN, "b": EMPTY}, ("down", "layer4 timeout", "a")),
        ("reachable", SERVICE, IN_A, {"a": DOWN, "b": DRAIN}, ("down", "layer4 timeout", "a")),
        ("reachable", SERVICE, None, {"a": DOWN, "b": DRAIN}, ("down", "layer4 timeout", None)),
        ("reachable", SERVICE, IN_A, {"a": DOWN, "b": MAINT}, ("down", "layer4 timeout", "a")),
        ("reachable", SERVICE, IN_A, {"a": Server("DOWN 1/2"), "b": MAINT}, ("down", "fails its health check", "a")),
        # an operator drained it
        ("reachable", SERVICE, IN_A, {"a": DRAIN, "b": EMPTY}, ("held", "taken out of rotation", "a")),
        ("reachable", SERVICE, IN_A, {"a": DRAIN, "b": DRAIN}, ("held", "taken out of rotation", "a")),
        ("reachable", SERVICE, None, {"a": DRAIN, "b": MAINT}, ("held", "taken out of rotation", None)),
        ("reachable", SERVICE, IN_A, {"a": MAINT, "b": MAINT}, ("held", "taken out of rotation", "a")),
        ("reachable", SERVICE, IN_A, {}, ("missing", "the gateway does not know it", "a")),
        ("reachable", SERVICE, None, {}, ("missing", "the gateway does not know it", None)),
        # not there yet: the gateway checks slots in which nothing runs
        ("reachable", NEW, None, {"a": DOWN, "b": DOWN}, ("undeployed", "no release yet", None)),
        ("reachable", NEW, None, {}, ("undeployed", "no release yet", None)),
        # nobody can tell; what was seen before does not count
        ("away", SERVICE, IN_A, {"a": UP}, ("unknown", "its gateway does not answer", "a")),
        ("checking", SERVICE, IN_A, {}, ("unknown", "asking its gateway", "a")),
        ("unwatched", SERVICE, IN_A, {}, ("unwatched", "not forwarded by the gateway", "a")),
        ("reachable", UNFORWARDED, None, {}, ("unwatched", "not forwarded by the gateway", None)),
    ],
)  # fmt: skip
def test_judge(
    datacenter: str,
    service: Service,
    record: Replica | None,
    slots: dict[str, Server],
    verdict: tuple[str, str, str | None],
) -> None:
    assert judge(datacenter, service, record, slots) == verdict


def seen(*states: tuple[str, str, str]) -> Servers:
    """(node, status of slot a, status of slot b) of webui's replica 0 on each node."""
    return {("webui", node, 0): {"a": Server(a), "b": Server(b)} for node, a, b in states}


def steady(*datacenters: str) -> Observations:
    return {
        (f"http://{name}.gateway:8404/;csv",): Observation(
            NOW, seen((f"{name}-node1", "UP", "DOWN"), (f"{name}-node2", "UP", "DOWN"))
        )
        for name in datacenters
    }


@pytest.fixture
def overview(platform: dict[str, Any]) -> Callable[..., Overview]:
    def build(
        observations: Observations | None = None, identity: Identity = NOBODY, problem: str | None = None
    ) -> Overview:
        reading = Reading(parse_document(json.dumps(platform)), NOW - 60, problem)
        return build_overview(
            reading, steady("hangzhou", "shanghai") if observations is None else observations, identity, NOW
        )

    return build


def notices(overview: Overview) -> list[tuple[str, str]]:
    return [(each["level"], each["text"]) for each in overview["notices"]]


def rows(overview: Overview) -> list[tuple[str, str, int | None, str | None, int | None]]:
    return [
        (node["name"], each["state"], each["release"], each["slot"], each["target"])
        for datacenter in overview["datacenters"]
        for node in datacenter["nodes"]
        for each in node["replicas"]
    ]


def test_all_healthy(overview: Callable[..., Overview]) -> None:
    result = overview()
    assert notices(result) == [("ok", "All 4 replicas are healthy: 1 service in 2 datacenters.")]
    assert rows(result) == [
        (f"{dc}-node{n}", "healthy", 7, "a", None) for dc in ("hangzhou", "shanghai") for n in (1, 2)
    ]
    service = result["services"][0]
    assert (service["state"], service["healthy"], service["desired"], service["untold"]) == ("healthy", 4, 4, 0)
    assert [(each["datacenter"], each["healthy"], each["url"]) for each in service["datacenters"]] == [
        ("hangzhou", 2, "http://hangzhou.gateway:8000/"),
        ("shanghai", 2, "http://shanghai.gateway:8000/"),
    ]
    assert [(each["name"], each["origin"], each["state"]) for each in result["datacenters"]] == [
        ("hangzhou", True, "reachable"),
        ("shanghai", False, "reachable"),
    ]
    assert (result["generated_at"], result["recorded_at"]) == ("2026-11-18T11:06:40Z", "2026-11-18T11:05:40Z")


def test_a_datacenter_away(overview: Callable[..., Overview]) -> None:
    observations = steady("hangzhou", "shanghai")
    observations[("http://shanghai.gateway:8404/;csv",)] = Observation(
        NOW - 30, seen(("shanghai-node1", "UP", "MAINT")), NOW, "no answer within 1 s"
    )
    result = overview(observations)
    reason = "no answer within 1 s, last seen at 11:06:10 UTC"
    assert notices(result) == [("warn", f"shanghai is away: its gateway does not answer ({reason}).")]
    assert [row[1] for row in rows(result)] == ["healthy", "healthy", "unknown", "unknown"]
    service = result["services"][0]
    assert (service["state"], service["detail"]) == ("unknown", "2 of 4 replicas cannot be seen")
    assert (service["healthy"], service["desired"], service["untold"]) == (2, 4, 2)


def test_before_the_first_answer(overview: Callable[..., Overview]) -> None:
    assert notices(overview({})) == [("busy", "Asking the gateways for the first time.")]


def test_midway_through_a_rollout(overview: Callable[..., Overview], platform: dict[str, Any]) -> None:
    platform["services"][0].update(release=8, digest=EIGHT)
    platform["replicas"][0].update(release=8, digest=EIGHT, slot="b")
    observations = steady("shanghai")
    observations[("http://hangzhou.gateway:8404/;csv",)] = Observation(
        NOW, seen(("hangzhou-node1", "MAINT", "UP"), ("hangzhou-node2", "UP", "UP"))
    )
    result = overview(observations)
    assert notices(result) == [("busy", "webui: 1 of 4 on release 8, 3 on release 7.")]
    assert rows(result)[:3] == [
        ("hangzhou-node1", "healthy", 8, "b", None),
        ("hangzhou-node2", "switching", 7, "a", 8),
        ("shanghai-node1", "healthy", 7, "a", 8),
    ]
    service = result["services"][0]
    assert (service["state"], service["healthy"], service["current"]) == ("mixed", 4, 1)


def test_a_replica_that_moved_since_the_record_has_no_known_release(overview: Callable[..., Overview]) -> None:
    observations = steady("hangzhou", "shanghai")
    observations[("http://hangzhou.gateway:8404/;csv",)].servers.update(seen(("hangzhou-node1", "MAINT", "UP")))
    result = overview(observations)
    assert rows(result)[0] == ("hangzhou-node1", "healthy", None, "b", 7)
    assert result["datacenters"][0]["nodes"][0]["replicas"][0]["detail"] == "moved since the record was written"
    assert notices(result) == [("busy", "webui: 3 of 4 on release 7, 1 on one not recorded.")]


def test_one_replica_down(overview: Callable[..., Overview]) -> None:
    observations = steady("hangzhou", "shanghai")
    observations[("http://hangzhou.gateway:8404/;csv",)].servers.update(seen(("hangzhou-node2", "DOWN", "MAINT")))
    result = overview(observations)
    assert notices(result) == [("bad", "webui: 3 of 4 replicas healthy; down on hangzhou-node2.")]
    assert (result["services"][0]["state"], result["services"][0]["detail"]) == ("degraded", "1 down")


def test_all_replicas_down_and_a_datacenter_away(overview: Callable[..., Overview]) -> None:
    observations = steady("hangzhou")
    observations[("http://hangzhou.gateway:8404/;csv",)].servers.update(
        seen(("hangzhou-node1", "DOWN", "MAINT"), ("hangzhou-node2", "DOWN", "MAINT"))
    )
    observations[("http://shanghai.gateway:8404/;csv",)] = Observation(failed_at=NOW, error="connection refused")
    assert [level for level, _ in notices(overview(observations))] == ["bad", "warn"]


def test_what_the_catalogue_no_longer_names_is_an_orphan(
    overview: Callable[..., Overview], platform: dict[str, Any]
) -> None:
    platform["replicas"].append({**platform["replicas"][0], "service": "old", "container": "old.0.r3"})
    result = overview()
    assert notices(result) == [("warn", "Recorded, but not in the catalogue: old on hangzhou-node1.")]
    first = result["datacenters"][0]
    assert [each["wanted"] for each in first["nodes"][0]["replicas"]] == [False, True]
    assert (first["healthy"], first["desired"]) == (2, 2)


def test_a_replica_beyond_the_wanted_number_is_an_orphan_and_does_not_count(
    overview: Callable[..., Overview], platform: dict[str, Any]
) -> None:
    platform["replicas"].append({**platform["replicas"][0], "replica": 1, "container": "webui.1.r7"})
    result = overview()
    assert [each["wanted"] for each in result["datacenters"][0]["nodes"][0]["replicas"]] == [True, False]
    assert (result["services"][0]["healthy"], result["services"][0]["desired"]) == (4, 4)


def test_a_service_without_a_release(overview: Callable[..., Overview], platform: dict[str, Any]) -> None:
    platform["services"][0].update(release=None, digest=None)
    platform["replicas"] = []
    result = overview({url: Observation(NOW) for url in steady("hangzhou", "shanghai")})
    assert result["services"][0]["state"] == "undeployed"
    assert {row[1] for row in rows(result)} == {"undeployed"}
    assert notices(result) == [("idle", "No service is deployed yet.")]


def test_several_replicas_per_node(overview: Callable[..., Overview], platform: dict[str, Any]) -> None:
    platform["services"][0]["replicas"] = 2
    result = overview()
    assert [(each["replica"], each["state"]) for each in result["datacenters"][0]["nodes"][0]["replicas"]] == [
        (0, "healthy"),
        (1, "missing"),
    ]
    assert (result["services"][0]["healthy"], result["services"][0]["desired"]) == (4, 8)


def test_who_answered_is_marked(overview: Callable[..., Overview]) -> None:
    identity: Identity = {**NOBODY, "service": "webui", "node": "shanghai-node2", "replica": 0}
    result = overview(identity=identity)
    marks = [each["answered"] for dc in result["datacenters"] for node in dc["nodes"] for each in node["replicas"]]
    assert marks == [False, False, False, True]


def test_nobody_is_marked_when_the_process_does_not_know_itself(overview: Callable[..., Overview]) -> None:
    result = overview()
    assert not any(
        each["answered"] for dc in result["datacenters"] for node in dc["nodes"] for each in node["replicas"]
    )


def test_a_bad_new_document_is_told_beside_the_old_picture(overview: Callable[..., Overview]) -> None:
    result = overview(problem="The platform document /p.json cannot be used: not JSON.")
    assert notices(result)[0] == (
        "warn",
        "The platform document /p.json cannot be used: not JSON. Shown is the one of 11:05:40 UTC.",
    )
    assert len(rows(result)) == 4


@pytest.mark.parametrize(
    ("gateway", "port", "url"),
    [
        ("http://172.30.1.10", 80, "http://172.30.1.10/"),
        ("http://172.30.1.10", 8000, "http://172.30.1.10:8000/"),
        ("https://hangzhou.example.org", 443, "https://hangzhou.example.org/"),
        (None, 8000, None),
        ("http://172.30.1.10", None, None),
    ],
)
def test_address_of_a_service(
    overview: Callable[..., Overview], platform: dict[str, Any], gateway: str | None, port: int | None, url: str | None
) -> None:
    platform["datacenters"][0]["gateway"] = gateway
    platform["services"][0]["port"] = port
    assert overview()["services"][0]["datacenters"][0]["url"] == url
