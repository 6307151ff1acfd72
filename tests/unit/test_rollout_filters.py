"""What is carried from one step of a rollout to the next, as tables."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.qianjiang.catalogue import normalise

from support import load

FILTERS = load("plugins/filter/rollout.py").FilterModule().filters()
DIGEST = "sha256:" + "1" * 64
NODES = {"hangzhou": ["h1"], "shanghai": ["s1"]}
SERVICES = normalise(
    {
        "webui": {"build": {}, "port": 8080, "slots_port": 18080, "gateway": {"port": 80}, "depends_on": ["store"]},
        "store": {
            "image": "etcd:3.5",
            "port": 2379,
            "slots_port": 18090,
            "placement": {"datacenters": ["hangzhou"]},
        },
    },
    NODES,
)
STEP = {"service": "webui", "reference": "registry.shanghai.lab:5000/webui"}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("image_tags", (SERVICES,), ["etcd:3.5", "webui:latest"]),
        ("service_digests", (SERVICES, {"webui:latest": DIGEST}), {"webui": DIGEST}),
        ("dependency_order", (SERVICES, ["webui", "store"]), ["store", "webui"]),
        ("dependency_order", (SERVICES, ["webui"]), ["webui"]),
        ("first_of_datacenter", (["h2", "s2", "s1"], ["s1", "s2"]), "s2"),
        ("first_of_datacenter", (["h2"], ["s1", "s2"]), ""),
        ("candidate_slot", ("b", "h1.0", []), "b"),
        ("candidate_slot", ("b", "h1.0", [{"serving": [{"backend": "webui", "server": "h1.0.b"}]}]), "a"),
        ("candidate_slot", ("b", "h1.0", [{"serving": [{"backend": "webui", "server": "h2.0.b"}]}]), "b"),
        ("hold_results", ({"h1": {"results": [{"serving": []}]}, "s1": {}},), [{"serving": []}]),
        ("pulled_as", ({}, STEP), "registry.shanghai.lab:5000/webui"),
        (
            "pulled_as",
            ({"results": [{"service_step": STEP, "reference": f"registry.hangzhou.lab:5000/webui@{DIGEST}"}]}, STEP),
            "registry.hangzhou.lab:5000/webui",
        ),
        ("failure_reason", ({"msg": "no space"},), "no space"),
        (
            "failure_reason",
            ({"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "full"}]},),
            "full",
        ),
        (
            "build_arguments",
            ({"args": {"A": "1"}, "bases": {"BASE": "base/python:3.11"}}, "o:5000", {"base/python:3.11": DIGEST}),
            {"A": "1", "BASE": f"o:5000/base/python@{DIGEST}"},
        ),
    ],
)
def test_filter(name: str, arguments: tuple[Any, ...], expected: Any) -> None:
    assert FILTERS[name](*arguments) == expected


def test_only_what_is_placed_in_the_datacenter_is_asked_of_its_nodes() -> None:
    asked = FILTERS["asked_of_node"](SERVICES, "shanghai", "registry.shanghai.lab:5000", {"webui": DIGEST})
    assert asked == [{"service": SERVICES["webui"], "reference": "registry.shanghai.lab:5000/webui", "digest": DIGEST}]


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
    }
    hostvars |= {"s2": {}, "s3": {"found": "a reason"}}
    assert FILTERS["results_of"](hostvars, hostvars, "found") == {"h1": {"services": {}}, "s3": "a reason"}


def test_the_document_names_what_runs_and_holds_no_configuration() -> None:
    current = {"slot": "a", "release": 7, "digest": DIGEST, "container": "webui.0.r7", "configuration": "hash"}
    replicas = [{"replica": 0, "current": current}, {"replica": 1, "current": None}]
    document = FILTERS["platform_document"](
        SERVICES,
        {"hangzhou": {"nodes": {"h1": "10.0.0.11"}}, "shanghai": {"nodes": {"s1": "10.1.0.11"}}},
        {"h1": {"services": {"webui": {"replicas": replicas}}}},
        {"hangzhou": {"address": "10.0.0.10", "stats_port": 8404}},
        "hangzhou",
        environment="lab",
    )
    assert (document["environment"], document["origin"]) == ("lab", "hangzhou")
    assert document["datacenters"] == [
        {
            "name": "hangzhou",
            "gateway": "http://10.0.0.10",
            "stats": "http://10.0.0.10:8404/;csv",
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
            "digest": DIGEST,
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
        "digest": DIGEST,
    }
