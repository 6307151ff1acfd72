"""service_compare: what runs here against the catalogue, as a table of engine lists."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from ansible.module_utils.qianjiang import observation
from ansible.module_utils.qianjiang.container import LABEL, container_spec
from ansible.module_utils.qianjiang.engine import Engine
from ansible.module_utils.qianjiang.observation import describe_node
from ansible.module_utils.qianjiang.service_state import State, write_state

from fake_engine import REFERENCE, STARTED, Host
from running import ModuleFailedError, run
from support import NEW, catalogue

SERVICE = catalogue(webui={"health": {"command": ["./check"]}})["webui"]


def look(
    engine: Host,
    recorded: str | None = "webui.0.r6",
    *,
    services: list[dict[str, Any]] | None = None,
    holder: Callable[[int], str | None] = lambda _: None,
    entries: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    services = [SERVICE] if services is None else services
    state: State = {"highest_release": 6, "current": {"0": recorded} if recorded else {}}
    states = {service["name"]: state for service in services}
    return dict(describe_node(cast(Engine, engine), services, states, entries or engine.containers(), holder))


def seen(engine: Host, recorded: str | None = "webui.0.r6", **more: Any) -> dict[str, Any]:
    """What is said of the first replica."""
    return dict(look(engine, recorded, **more)["services"]["webui"]["replicas"][0])


def at_rest() -> Host:
    return Host(service=SERVICE).add(5, "b", "exited").add(6, "a")


IDENTITY = {
    "digest": NEW,
    "configuration": container_spec(SERVICE, "", "", release=0, replica=0, slot="a")["labels"][f"{LABEL}configuration"],
}


def test_a_node_on_its_release_differs_in_nothing() -> None:
    assert look(at_rest()) == {
        "services": {
            "webui": {
                "replicas": [
                    {
                        "replica": 0,
                        "recorded": "webui.0.r6",
                        "current": IDENTITY
                        | {
                            "container": "webui.0.r6",
                            "release": 6,
                            "slot": "a",
                            "running": True,
                            "health": "healthy",
                            "started_at": STARTED,
                        },
                        "free_slot": "b",
                        "differences": [],
                        "extra": [],
                        "port_holder": None,
                    }
                ],
                "highest_release": 6,
                "kept": [
                    IDENTITY | {"container": "webui.0.r5", "release": 5, "slot": "b", "replica": 0, "differences": []}
                ],
            }
        },
        "orphans": [],
    }


RUNNING = ("running", False, True)


@pytest.mark.parametrize(
    ("service", "state", "expected"),
    [
        pytest.param({}, {}, [], id="idempotent"),
        pytest.param({"env": {}}, {}, [("env.TITLE", "(hidden)", None)], id="another configuration"),
        pytest.param(
            {"env": {"TITLE": "x", "TOKEN": "hunter2"}},
            {},
            [("env.TITLE", "(hidden)", "(hidden)"), ("env.TOKEN", None, "(hidden)")],
            id="secrets are hidden",
        ),
        pytest.param({"replicas": 2}, {}, [], id="not what is no part of a container"),
        pytest.param({}, {"Running": False, "Status": "exited"}, [RUNNING], id="it ended"),
        pytest.param({}, {"Restarting": True}, [RUNNING], id="it ends and starts again and again"),
        pytest.param({}, {"Paused": True}, [RUNNING], id="it is paused"),
        pytest.param({"env": {}}, {"Running": False}, [("env.TITLE", "(hidden)", None), RUNNING], id="both"),
    ],
)
def test_what_a_new_container_would_change(service: dict[str, Any], state: dict[str, Any], expected: list[Any]) -> None:
    found = seen(Host(service=SERVICE).add(6, "a", **state), services=[SERVICE | service])
    assert [(item["name"], item["before"], item["after"]) for item in found["differences"]] == expected
    assert "differences" not in found["current"]


def test_the_image_is_no_difference_as_only_the_origin_knows_which_is_wanted() -> None:
    engine = Host(service=SERVICE).add(6, "a")
    engine.there["webui.0.r6"]["Config"]["Image"] = f"{REFERENCE}@sha256:other"
    assert seen(engine)["differences"] == []


@pytest.mark.parametrize(
    ("engine", "recorded", "current", "free_slot", "extra"),
    [
        pytest.param(Host(service=SERVICE), None, None, "a", [], id="it never ran"),
        pytest.param(
            Host(service=SERVICE).add(5, "b", "exited"), "webui.0.r6", None, "a", [], id="what served is gone"
        ),
        pytest.param(
            at_rest().add(7, "b"),
            "webui.0.r6",
            6,
            "b",
            [(7, True)],
            id="a proven candidate was left: the record decides",
        ),
        pytest.param(
            at_rest().add(7, "b", restart="no"), "webui.0.r6", 6, "b", [(7, False)], id="one that is not proven"
        ),
        pytest.param(at_rest().add(7, "b"), "webui.0.r7", 7, "a", [(6, True)], id="the old one was left"),
        pytest.param(at_rest(), None, None, "b", [(6, True)], id="no record"),
    ],
)
def test_who_serves(
    engine: Host, recorded: str | None, current: int | None, free_slot: str, extra: list[tuple[int, bool]]
) -> None:
    found = seen(engine, recorded)
    assert (found["current"] and found["current"]["release"], found["free_slot"]) == (current, free_slot)
    assert [(item["release"], item["proven"]) for item in found["extra"]] == extra
    assert found["recorded"] == recorded


def test_what_is_left_over_is_compared_too() -> None:
    extra = seen(at_rest().add(7, "b"), services=[SERVICE | {"env": {}}])["extra"][0]
    assert extra == IDENTITY | {
        "container": "webui.0.r7",
        "release": 7,
        "slot": "b",
        "running": True,
        "health": "healthy",
        "started_at": STARTED,
        "differences": [{"name": "env.TITLE", "before": "(hidden)", "after": None}],
        "proven": True,
    }


def test_a_candidate_that_died_is_not_kept_for_rollback() -> None:
    engine = at_rest().add(7, "b", "exited", restart="no").add(8, "b", "created").add(4, "a", "exited")
    found = look(engine)["services"]["webui"]["kept"]
    assert [item["container"] for item in found] == ["webui.0.r5", "webui.0.r4"]


def test_the_current_one_is_not_kept_though_it_stopped() -> None:
    assert look(Host(service=SERVICE).add(6, "a", "exited"))["services"]["webui"]["kept"] == []


def test_what_was_kept_says_what_going_back_would_change() -> None:
    engine = at_rest()
    engine.there["webui.0.r5"]["Config"]["Env"] = ["TITLE=before"]
    engine.there["webui.0.r5"]["Config"]["Image"] = f"{REFERENCE}@sha256:before"
    assert look(engine)["services"]["webui"]["kept"][0]["differences"] == [
        {"name": "env.TITLE", "before": "(hidden)", "after": "(hidden)"},
        {"name": "image", "before": NEW, "after": "sha256:before"},
    ]
    assert look(engine, "webui.0.r9")["services"]["webui"]["kept"][0]["differences"] == []


def test_containers_that_nobody_names_are_orphans() -> None:
    engine = at_rest().add(6, "a", replica=1).stranger("nginx", 8000)
    engine.strangers.append(
        {
            "Id": "p",
            "Names": ["/portal.0.r3"],
            "ImageID": "i",
            "State": "exited",
            "Labels": {f"{LABEL}service": "portal"},
        }
    )
    assert look(engine)["orphans"] == [
        {"container": "portal.0.r3", "service": "portal", "replica": -1, "release": 0, "slot": "", "running": False},
        {"container": "webui.1.r6", "service": "webui", "replica": 1, "release": 6, "slot": "a", "running": True},
    ]
    two = look(engine, services=[SERVICE | {"replicas": 2}])
    assert [item["container"] for item in two["orphans"]] == ["portal.0.r3"]
    assert [item["replica"] for item in two["services"]["webui"]["replicas"]] == [0, 1]


def test_containers_removed_in_the_meantime_are_not_there() -> None:
    engine = at_rest().add(7, "b")
    entries = engine.containers()
    engine.there.clear()
    found = look(engine, entries=entries)["services"]["webui"]
    assert (found["replicas"][0]["current"], found["replicas"][0]["extra"], found["kept"]) == (None, [], [])


def test_a_second_entry_for_a_service_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^services: webui is listed twice$"):
        look(Host(service=SERVICE), services=[SERVICE, SERVICE])


@pytest.mark.parametrize(
    ("engine", "recorded", "expected"),
    [
        pytest.param(at_rest(), "webui.0.r6", "holder of 18081", id="the free slot's port is asked for"),
        pytest.param(at_rest().add(7, "b"), "webui.0.r6", None, id="what is left over of ours is no stranger"),
        pytest.param(Host(service=SERVICE), None, "holder of 18080", id="before the first release"),
        pytest.param(
            Host(service=SERVICE).add(6, "a").stranger("nginx", 18081),
            "webui.0.r6",
            "holder of 18081",
            id="a strange container",
        ),
    ],
)
def test_who_has_the_port_of_the_free_slot(engine: Host, recorded: str | None, expected: str | None) -> None:
    assert seen(engine, recorded, holder=lambda port: f"holder of {port}")["port_holder"] == expected


def test_a_service_without_a_port_asks_for_none() -> None:
    assert (
        seen(Host(service=SERVICE), None, services=[SERVICE | {"port": None}], holder=lambda _: "somebody")[
            "port_holder"
        ]
        is None
    )


@pytest.fixture
def module(load_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, on a host at rest."""
    found = load_module("service_compare")
    monkeypatch.setattr(found, "Engine", at_rest)
    monkeypatch.setattr(observation, "port_holder", lambda port, entries: f"{len(entries)} strangers at {port}")
    return found


def test_the_module_reads_the_record_and_the_clock(
    module: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_state(str(tmp_path), "webui", {"highest_release": 6, "current": {"0": "webui.0.r6"}})
    options = {"services": [SERVICE], "state_path": str(tmp_path), "asked_at": time.time() - 100}
    found = run(module, capsys, options, check=True)
    one = found["services"]["webui"]["replicas"][0]
    assert (found["changed"], one["current"]["container"], one["port_holder"]) == (
        False,
        "webui.0.r6",
        "0 strangers at 18081",
    )
    assert 100 <= found["clock_ahead"] < 160


def test_a_slow_engine_is_no_wrong_clock(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]

    def observe_slowly(*_: Any) -> dict[str, Any]:
        now[0] += 100
        return {}

    monkeypatch.setattr(module, "observe_node", observe_slowly)
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    assert run(module, capsys, {"services": [], "asked_at": 999.5})["clock_ahead"] == 0.5


def test_the_module_says_what_is_wrong(module: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ModuleFailedError, match=r"^service_compare: services: webui is listed twice$"):
        run(module, capsys, {"services": [SERVICE, SERVICE], "state_path": str(tmp_path)})
    (tmp_path / "webui.json").write_text("{")
    with pytest.raises(ModuleFailedError, match=rf"^service_compare: {tmp_path}/webui\.json is damaged"):
        run(module, capsys, {"services": [SERVICE], "state_path": str(tmp_path)})


@pytest.mark.parametrize(
    ("holder", "told"),
    [
        pytest.param("process dockerd (pid 7)", None, id="a container that is being started"),
        pytest.param("process docker-proxy (pid 8)", None, id="the same with the engine's proxy"),
        pytest.param("process python3 (pid 9)", "process python3 (pid 9)", id="a stranger"),
        pytest.param("container theirs", "container theirs", id="a stranger's container"),
        pytest.param(None, None, id="nobody"),
    ],
)
def test_who_else_has_a_port(monkeypatch: pytest.MonkeyPatch, holder: str | None, told: str | None) -> None:
    monkeypatch.setattr(observation, "port_holder", lambda _port, _entries: holder)
    assert observation.stranger(18080, []) == told
