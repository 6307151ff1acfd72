"""Which container of a replica serves: what the node recorded, and what the gateways do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.qianjiang.rotation import (
    UNKNOWN,
    admitted_slots,
    drained_replicas,
    is_drained,
    judge,
    judge_replica,
    other_slot,
    server_name,
    serving_slot,
)

from support import DATACENTERS, NEW, OLD, gateway, left_over, node, replica, running

Gateways = list[dict[str, Any]]
A, B, BOTH, NONE = gateway(h1="a"), gateway(h1="b"), gateway(h1="ab"), gateway(h1="")


def test_names() -> None:
    assert server_name("h1", 2, "b") == "h1.2.b"
    assert (other_slot("a"), other_slot("b")) == ("b", "a")


@pytest.mark.parametrize(
    ("gateways", "slot", "admitted", "drained"),
    [
        pytest.param([], None, None, None, id="no gateway answers"),
        pytest.param([{}], None, [], None, id="it knows no such service"),
        pytest.param([gateway(h2="a")], None, [], None, id="it knows no such server"),
        pytest.param([A], "a", ["a"], False, id="slot a"),
        pytest.param([B, B], "b", ["b"], False, id="slot b at both"),
        pytest.param([A, B], None, ["a", "b"], False, id="they differ: a switch was cut short"),
        pytest.param([A, NONE], None, ["a"], False, id="one forwards, one does not"),
        pytest.param([A, {}], None, ["a"], False, id="one has yet to learn of the service"),
        pytest.param([BOTH, BOTH], None, ["a", "b"], False, id="both slots: in the middle of a switch"),
        pytest.param([NONE, NONE], None, [], True, id="drained"),
        pytest.param([NONE, {}], None, [], True, id="drained at the one that knows it"),
    ],
)
def test_what_the_gateways_say(
    gateways: Gateways, slot: str | None, admitted: list[str] | None, drained: bool | None
) -> None:
    assert serving_slot("webui", "h1", 0, gateways) == slot
    assert admitted_slots("webui", "h1", 0, gateways) == admitted
    assert is_drained("webui", "h1", 0, gateways) is drained


@pytest.mark.parametrize(
    ("a", "b", "drained"),
    [
        ("drain", "drain", True),
        ("maint", "maint", True),
        ("drain", "maint", True),
        ("ready", "drain", False),
        ("maint", "ready", False),
    ],
)
def test_an_operator_drained_what_has_no_slot_in_rotation(a: str, b: str, drained: bool) -> None:
    found = gateway(h1="")
    found["webui"]["h1.0.a"]["admin"], found["webui"]["h1.0.b"]["admin"] = a, b
    assert is_drained("webui", "h1", 0, [found]) is drained


def test_a_slot_that_is_admitted_but_down_does_not_serve() -> None:
    down = gateway(h1="a")
    down["webui"]["h1.0.a"]["serves"] = False
    assert serving_slot("webui", "h1", 0, [down]) is None
    assert admitted_slots("webui", "h1", 0, [down]) == ["a"]


IMAGE = {"name": "image", "before": OLD, "after": NEW}
TITLE = {"name": "env.TITLE", "before": "x", "after": "Qianjiangyuan"}
R2, R3 = running(2, "a", digest=OLD), running(3, "b")


def judged(seen: dict[str, Any], slot: str | None, digest: str | None = NEW) -> dict[str, Any]:
    return judge_replica(seen, slot, drained=False, digest=digest)


def test_a_replica_on_its_release_stays_as_it_was_seen() -> None:
    seen = replica(running(3, "a"))
    assert judged(seen, "a") == seen | {"drained": False}
    assert judge_replica(seen, None, drained=True, digest=NEW) == seen | {"drained": True}


@pytest.mark.parametrize(
    ("seen", "digest", "differences"),
    [
        pytest.param(replica(running(3)), NEW, [], id="idempotent"),
        pytest.param(replica(R2), NEW, [IMAGE], id="another image"),
        pytest.param(replica(R2, differences=[TITLE]), NEW, [TITLE, IMAGE], id="sorted by name"),
        pytest.param(replica(R2), None, [], id="a digest that is not known says nothing of what runs"),
        pytest.param(replica(), NEW, [IMAGE | {"before": None}], id="nothing runs"),
        pytest.param(replica(), None, [{"name": "image", "before": None, "after": UNKNOWN}], id="nor is it known"),
    ],
)
def test_the_image_is_compared_here(seen: dict[str, Any], digest: str | None, differences: list[Any]) -> None:
    found = judged(seen, None, digest)["differences"]
    assert found == sorted(differences, key=lambda item: str(item["name"]))


def test_after_a_killed_switch_the_candidate_is_the_current_one() -> None:
    candidate = left_over(3, "b") | {"differences": [TITLE]}
    found = judged(
        replica(R2, differences=[{"name": "read_only", "before": False, "after": True}], extra=[candidate]), "b"
    )
    assert found["current"] == R3
    assert found["differences"] == [TITLE]
    assert found["free_slot"] == "a"
    assert found["extra"] == [
        R2 | {"proven": True, "differences": [{"name": "read_only", "before": False, "after": True}]}
    ]
    assert found["recorded"] == "webui.0.r2"


@pytest.mark.parametrize(
    ("seen", "slot", "current", "extra"),
    [
        pytest.param(replica(R2, extra=[left_over(3, "b")]), "a", 2, [3], id="killed before the switch"),
        pytest.param(
            replica(R2, extra=[left_over(3, "b")]), None, 2, [3], id="the gateways differ: the record decides"
        ),
        pytest.param(
            replica(R2, extra=[left_over(3, "b", proven=False)]), "b", 2, [3], id="never proven: not believed"
        ),
        pytest.param(replica(R2), "b", 2, [], id="nothing runs in the slot"),
        pytest.param(replica(None, extra=[left_over(1, "a")]), "a", 1, [], id="the first rollout was killed"),
        pytest.param(replica(None, extra=[left_over(1, "a")]), None, None, [1], id="before its switch"),
        pytest.param(
            replica(R2, extra=[left_over(3, "b"), left_over(1, "b", proven=False)]),
            "b",
            3,
            [2, 1],
            id="others stay left over",
        ),
    ],
)
def test_who_serves(seen: dict[str, Any], slot: str | None, current: int | None, extra: list[int]) -> None:
    found = judged(seen, slot)
    assert (found["current"] and found["current"]["release"], [item["release"] for item in found["extra"]]) == (
        current,
        extra,
    )


def test_each_node_is_seen_by_the_gateways_of_its_datacenter() -> None:
    killed = node(replica(R2, extra=[left_over(3, "b")]), highest=3)
    gateways = {"hangzhou": [gateway(h1="b", h2="a")], "shanghai": [gateway(h1="a", s1="")]}
    found = judge({"h1": killed, "h2": killed, "s1": killed, "unknown": killed}, DATACENTERS, gateways, {"webui": NEW})
    shown = {
        name: (one["current"]["release"], one["drained"], one["admitted"])
        for name, seen in found.items()
        for one in seen["services"]["webui"]["replicas"]
    }
    assert shown == {"h1": (3, False, ["b"]), "h2": (2, False, ["a"]), "s1": (2, True, [])}
    assert found["h1"]["services"]["webui"]["highest_release"] == 3


def test_without_gateways_the_record_decides() -> None:
    killed = node(replica(R2, extra=[left_over(3, "b")]), highest=3)
    found = judge({"h1": killed}, DATACENTERS, {}, {})["h1"]["services"]["webui"]["replicas"][0]
    assert (found["current"]["release"], found["admitted"]) == (2, None)


def tables(**states: str) -> dict[str, Any]:
    """`webui_0="drain"`: both slots of this replica on h1 are in this state."""
    found: dict[str, Any] = {}
    for replica_of, state in states.items():
        name, _, number = replica_of.partition("_")
        found.setdefault(name, {}).update({f"h1.{number}.{slot}": {"admin": state} for slot in "ab"})
    return found


NEVER, SERVES = replica(), replica(running(3))


@pytest.mark.parametrize(
    ("services", "states", "drained"),
    [
        pytest.param(
            {"webui": [NEVER]}, {"webui_0": "drain"}, False, id="a first rollout that failed holds both slots"
        ),
        pytest.param({"webui": [SERVES]}, {"webui_0": "drain"}, True, id="what has served was drained"),
        pytest.param(
            {"webui": [SERVES, replica(number=1)]}, {"webui_0": "drain", "webui_1": "ready"}, True, id="one more of it"
        ),
        pytest.param(
            {"webui": [SERVES, replica(number=1)]}, {"webui_0": "drain"}, True, id="one that is not known yet"
        ),
        pytest.param(
            {"webui": [SERVES, replica(number=1)]}, {"webui_0": "ready", "webui_1": "drain"}, False, id="in rotation"
        ),
        pytest.param({"webui": [SERVES], "store": [NEVER]}, {"webui_0": "drain"}, True, id="another service comes"),
        pytest.param(
            {"webui": [SERVES], "api": [SERVES], "store": [NEVER]},
            {"webui_0": "drain", "api_0": "ready"},
            False,
            id="only one of two was drained",
        ),
    ],
)
def test_what_has_never_served_is_drained_with_its_node(
    services: dict[str, list[Any]], states: dict[str, str], drained: bool
) -> None:
    seen = {name: {"replicas": replicas} for name, replicas in services.items()}
    last = list(services)[-1], len(list(services.values())[-1]) - 1
    assert drained_replicas(seen, "h1", [tables(**states)])[last] is drained
