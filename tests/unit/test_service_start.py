"""service_start: what it decides to do, given what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from unittest.mock import Mock

import pytest
from ansible.module_utils.qianjiang import candidate
from ansible.module_utils.qianjiang.candidate import (
    CandidateFailedError,
    Decision,
    apply,
    check,
    plan,
    plan_restore,
    port_conflict,
)
from ansible.module_utils.qianjiang.container import LABEL
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.service_state import Owned, read_state, write_state

from fake_engine import REFERENCE, Host
from running import ModuleFailedError, run
from support import NEW, catalogue, container

DIFFERENT = [{"name": "env.TITLE", "before": "x", "after": "y"}]


def change(name: str, before: Any, after: Any) -> dict[str, Any]:
    return {"name": name, "before": before, "after": after}


OLD = container(6, "a")
KEPT = container(5, "b", "exited")
START = change("webui.0.r7", None, "running in slot b")


@pytest.mark.parametrize(
    ("containers", "proven", "recorded", "same", "action", "slot", "changes"),
    [
        pytest.param([], set(), None, [], "create", "b", [START], id="nothing there"),
        pytest.param([KEPT, OLD], {5, 6}, "webui.0.r6", [], "create", "b", [START], id="beside the old one"),
        pytest.param(
            [OLD, container(7, "b")], {6, 7}, "webui.0.r6", [], "adopt", "b", [], id="a proven one of a killed run"
        ),
        pytest.param(
            [OLD, container(7, "b")],
            {6},
            "webui.0.r6",
            [],
            "adopt",
            "b",
            [change("webui.0.r7", "unproven", "proven")],
            id="an unproven one of a killed run",
        ),
        pytest.param(
            [OLD, container(7, "b")],
            {6},
            "webui.0.r6",
            DIFFERENT,
            "create",
            "b",
            [change("webui.0.r7", "running", "running in slot b")],
            id="one of a killed run that is something else",
        ),
        pytest.param(
            [container(7, "a")], {7}, None, [], "adopt", "a", [], id="the first rollout was killed: adopted in its slot"
        ),
        pytest.param([container(7, "a")], {7}, "webui.0.r7", [], "adopt", "a", [], id="it is the current one"),
        pytest.param(
            [OLD, container(7, "b", "exited")],
            {6, 7},
            "webui.0.r6",
            [],
            "start",
            "b",
            [change("webui.0.r7", "exited", "running in slot b")],
            id="kept for rollback: started again",
        ),
        pytest.param(
            [OLD, container(7, "b", "exited")],
            {6},
            "webui.0.r6",
            [],
            "create",
            "b",
            [change("webui.0.r7", "exited", "running in slot b")],
            id="a candidate that ended while nobody watched",
        ),
        pytest.param(
            [OLD, container(4, "b", "created"), container(5, "b", "restarting")],
            {5, 6},
            "webui.0.r6",
            [],
            "create",
            "b",
            [change("webui.0.r4", "created", None), change("webui.0.r5", "restarting", None), START],
            id="other left-overs give way",
        ),
        pytest.param(
            [container(7, "b", "exited"), container(8, "b")],
            {7, 8},
            "webui.0.r8",
            [],
            "create",
            "a",
            [change("webui.0.r7", "exited", "running in slot a")],
            id="the kept one's slot is taken: made anew in the given one",
        ),
        pytest.param(
            [container(7, "a", "restarting")],
            {7},
            "webui.0.r7",
            [],
            "create",
            "b",
            [change("webui.0.r7", "restarting", "running in slot b")],
            id="the current one is in a crash loop",
        ),
    ],
)
def test_decision(  # noqa: PLR0917 — one per column of the table
    containers: list[Owned],
    proven: set[int],
    recorded: str | None,
    same: list[Any],
    action: str,
    slot: str,
    changes: list[Any],
) -> None:
    given = "a" if any(item["release"] == 8 for item in containers) else "b"
    decision = plan(
        {"container": "webui.0.r7", "slot": given},
        containers,
        recorded,
        lambda _: same,
        lambda item: item["release"] in proven,
    )
    assert (decision.action, decision.slot, decision.changes) == (action, slot, changes)


@pytest.mark.parametrize(
    ("containers", "recorded", "same", "slot", "message"),
    [
        (
            [container(7, "a")],
            "webui.0.r7",
            DIFFERENT,
            "b",
            "webui.0.r7 serves with another content (different: env.TITLE); a release number never names two things: "
            "start the rollout again, it gets a new number",
        ),
        (
            [OLD],
            "webui.0.r6",
            [],
            "a",
            "slot a belongs to webui.0.r6, which serves; start the candidate in slot b "
            "(service_compare says which is free)",
        ),
    ],
)
def test_refused(containers: list[Owned], recorded: str, same: list[Any], slot: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 — the whole message is compared
        plan({"container": "webui.0.r7", "slot": slot}, containers, recorded, lambda _: same, lambda _: True)
    assert str(caught.value) == message


class FakeEngine:
    """A container that ends in the state it is given, with a log."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = {"Running": True, "StartedAt": "t", "ExitCode": 0} | state
        self.calls: list[tuple[Any, ...]] = []

    def inspect(self, container: str) -> dict[str, Any]:
        return {"State": self.state, "Id": container}

    def logs(self, container: str, lines: int) -> list[str]:
        return [f"{container} line {number}" for number in range(1, 30)][-lines:]

    def __getattr__(self, name: str) -> Callable[..., str]:
        return lambda *arguments: self.calls.append((name, *arguments)) or "new-id"


PARAMETERS = {
    "service": {
        "name": "webui",
        "health": {"path": None, "ready_path": None, "timeout": 1},
        "update": {"min_healthy_time": 0, "healthy_deadline": 5},
    },
    "address": "127.0.0.1",
    "log_lines": 2,
}
DECISION = Decision("create", "webui.0.r7", "b", [], [])
SPEC = {
    "name": "webui.0.r7",
    "reference": "r/webui@sha256:x",
    "labels": {},
    "host_port": None,
    "env": {},
    "identity": {},
    "command": None,
    "user": None,
    "mounts": {},
    "tmpfs": {},
    "read_only": True,
    "capabilities": [],
    "no_new_privileges": True,
    "limits": {"memory": None, "cpus": None, "pids": None},
    "health": {"command": None, "interval": 1, "timeout": 1, "retries": 1, "start_period": 0},
    "log": {"driver": "json-file", "max_size": "1m", "max_file": 1},
    "stop_timeout": 1,
    "ports": None,
    "init": True,
}


def test_a_proven_candidate_gets_its_restart_policy_last() -> None:
    engine = FakeEngine({})
    result = apply(cast(Engine, engine), DECISION._replace(remove=["webui.0.r5"]), SPEC, PARAMETERS, serves=False)
    assert [call[0] for call in engine.calls] == ["remove", "create", "start", "set_restart"]
    assert engine.calls[0] == ("remove", "webui.0.r5")
    assert engine.calls[-1] == ("set_restart", "webui.0.r7", "unless-stopped")
    assert result["probes"] == {"container": "none"}


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (0, ""),
        (1, "its health check fails with exit code 1"),
        (None, "its health check has not ended after 2 s"),
        (
            EngineError("execute check in webui.0.r7: no such file"),
            "its health check fails: execute check in webui.0.r7: no such file",
        ),
    ],
)
def test_the_check_of_a_container_is_run(told: int | Exception | None, problem: str) -> None:
    engine = Mock(inspect=Mock(return_value={"Config": {"Healthcheck": {"Test": ["CMD", "check"]}}}))
    engine.execute = Mock(side_effect=told) if isinstance(told, Exception) else Mock(return_value=told)
    assert check(engine, "webui.0.r7", 2) == problem
    engine.execute.assert_called_once_with("webui.0.r7", ["check"], 2)


def test_where_there_is_no_check_none_is_run() -> None:
    engine = Mock(inspect=Mock(return_value={"Config": {}}))
    assert check(engine, "webui.0.r7", 2) == ""
    engine.execute.assert_not_called()


def test_the_engine_has_no_verdict_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine({"Health": {"Status": "starting", "Log": []}})
    monkeypatch.setattr(candidate, "probe_tcp", lambda *_: ("open", ""))
    result = apply(cast(Engine, engine), DECISION, SPEC | {"host_port": 18080}, PARAMETERS, serves=False)
    assert result["probes"] == {"container": "healthy", "port": "open"}


def test_one_started_again_stays_proven_though_the_run_is_killed() -> None:
    engine = FakeEngine({})
    apply(cast(Engine, engine), DECISION._replace(action="start"), SPEC, PARAMETERS, serves=False)
    assert engine.calls == [("start", "webui.0.r7"), ("set_restart", "webui.0.r7", "unless-stopped")]


def test_a_failed_candidate_is_removed_and_its_last_words_are_told() -> None:
    engine = FakeEngine({"Running": False, "ExitCode": 3})
    with pytest.raises(CandidateFailedError) as caught:
        apply(cast(Engine, engine), DECISION, SPEC, PARAMETERS, serves=False)
    assert engine.calls[-1] == ("remove", "webui.0.r7")
    assert str(caught.value) == (
        "webui.0.r7 ended with exit code 3 after 0.0 s; it was removed, what serves was not touched. "
        "Its last log lines:\nwebui.0.r7 line 28\nwebui.0.r7 line 29"
    )
    assert caught.value.facts == {
        "reason": "ended with exit code 3 after 0.0 s",
        "exit_code": 3,
        "log": ["webui.0.r7 line 28", "webui.0.r7 line 29"],
        "removed": True,
    }


def test_what_serves_is_left_alone_when_it_fails() -> None:
    engine = FakeEngine({"Running": False, "ExitCode": 3})
    with pytest.raises(CandidateFailedError, match="it serves, so it was left alone"):
        apply(cast(Engine, engine), DECISION._replace(action="adopt"), SPEC, PARAMETERS, serves=True)
    assert engine.calls == []


@pytest.mark.parametrize(
    ("remove", "frees_port", "holder"),
    [
        ([], False, "container stranger"),
        (["stranger"], True, None),
        (["stranger"], False, None),
    ],
)
def test_who_has_the_slots_port(remove: list[str], frees_port: bool, holder: str | None) -> None:
    entries = [{"Names": ["/stranger"], "Id": "1", "Ports": [{"PublicPort": 9, "Type": "tcp"}]}, {"Names": None}]
    decision = DECISION._replace(remove=remove, frees_port=frees_port)
    assert port_conflict(decision, 9, entries) == holder


@pytest.mark.parametrize(
    ("containers", "proven", "recorded", "action", "slot", "remove", "changes", "frees_port"),
    [
        pytest.param(
            [KEPT, OLD],
            {5, 6},
            "webui.0.r6",
            "start",
            "b",
            [],
            [change("webui.0.r5", "exited", "running in slot b")],
            False,
            id="in its slot, which is free",
        ),
        pytest.param(
            [container(5, "a", "exited"), OLD],
            {5, 6},
            "webui.0.r6",
            "move",
            "b",
            [],
            [change("webui.0.r5", "exited", "running in slot b")],
            False,
            id="its slot is taken: in the other one",
        ),
        pytest.param(
            [container(5, "b"), OLD], {5, 6}, "webui.0.r6", "adopt", "b", [], [], False, id="idempotent: it runs"
        ),
        pytest.param(
            [container(5, "a"), container(6, "b")],
            {5, 6},
            "webui.0.r6",
            "adopt",
            "a",
            [],
            [],
            False,
            id="where it runs it stays",
        ),
        pytest.param(
            [KEPT, OLD, container(7, "b"), container(4, "a", "exited"), container(8, "b", "created")],
            {5, 6, 7, 4},
            "webui.0.r6",
            "start",
            "b",
            ["webui.0.r7", "webui.0.r8"],
            [
                change("webui.0.r7", "running", None),
                change("webui.0.r8", "created", None),
                change("webui.0.r5", "exited", "running in slot b"),
            ],
            True,
            id="left-overs give way, other kept ones stay",
        ),
        pytest.param(
            [KEPT, container(6, "b")],
            {5, 6},
            "webui.0.r6",
            "start",
            "b",
            [],
            [change("webui.0.r5", "exited", "running in slot b")],
            False,
            id="what is on record is never removed",
        ),
    ],
)
def test_a_kept_one_comes_back(  # noqa: PLR0917 — one per column of the table
    containers: list[Owned],
    proven: set[int],
    recorded: str | None,
    action: str,
    slot: str,
    remove: list[str],
    changes: list[Any],
    frees_port: bool,
) -> None:
    wanted = {"container": "webui.0.r5", "slot": "b"}
    found = plan_restore(wanted, containers, recorded, lambda item: item["release"] in proven)
    assert found == Decision(action, "webui.0.r5", slot, remove, changes, frees_port)


def test_one_that_was_not_kept_cannot_come_back() -> None:
    wanted = {"container": "webui.0.r5", "slot": "b"}
    with pytest.raises(ValueError, match=r"^webui\.0\.r5 was not kept on this node; there are webui\.0\.r6$"):
        plan_restore(wanted, [OLD], "webui.0.r6", lambda _: True)
    with pytest.raises(ValueError, match=r"^webui\.0\.r5 was not kept on this node; there are none$"):
        plan_restore(wanted, [], None, lambda _: True)


class Movable(FakeEngine):
    """One that can be made again in the other slot."""

    def inspect(self, _container: str) -> dict[str, Any]:
        host = {"PortBindings": {"8080/tcp": [{"HostPort": "18080"}]}}
        config = {"Env": ["QJ_SLOT=a"], "Labels": {f"{LABEL}slot": "a"}}
        return {"State": self.state, "Id": "0123456789abcdef", "Config": config, "HostConfig": host}


def test_a_moved_one_is_made_again_in_the_other_slot_and_the_old_one_stays() -> None:
    engine = Movable({})
    spec = {"host_port": None}
    apply(cast(Engine, engine), DECISION._replace(action="move"), spec, PARAMETERS | {"restore": True}, serves=False)
    assert [call[0] for call in engine.calls] == ["rename", "create", "start", "set_restart"]
    assert engine.calls[0] == ("rename", "webui.0.r7", "webui.0.r7.0123456789ab")
    body, name = engine.calls[1][1:]
    assert (name, body["Labels"], body["Env"]) == ("webui.0.r7", {f"{LABEL}slot": "b"}, ["QJ_SLOT=b"])


@pytest.mark.parametrize(
    ("action", "calls", "fate"),
    [
        pytest.param(
            "start",
            ["start", "set_restart unless-stopped", "stop 10"],
            "it was stopped again, and is kept; what serves was not touched",
            id="a kept one is kept",
        ),
        pytest.param(
            "adopt",
            ["set_restart unless-stopped", "stop 10"],
            "it was stopped again, and is kept; what serves was not touched",
            id="also one that ran already",
        ),
        pytest.param(
            "move",
            ["rename webui.0.r7.0123456789ab", "create webui.0.r7", "start", "remove"],
            "it was removed, what serves was not touched",
            id="its twin in the other slot goes",
        ),
    ],
)
def test_a_kept_one_that_fails(action: str, calls: list[str], fate: str) -> None:
    engine = Movable({"Running": False, "ExitCode": 3})
    wanted = PARAMETERS | {"restore": True}
    with pytest.raises(CandidateFailedError, match=fate) as caught:
        apply(cast(Engine, engine), DECISION._replace(action=action), {"host_port": None}, wanted, serves=False)
    assert [f"{call[0]} {call[-1] if len(call) > 2 else ''}".strip() for call in engine.calls] == calls
    assert caught.value.facts["removed"] is (action == "move")


SERVICE = catalogue(webui={"update": {"min_healthy_time": 0}})["webui"]
SERVICE |= {"port": None}


class Running:
    """The module on a host where release 6 serves and 5 was kept."""

    def __init__(self, module: ModuleType, capsys: pytest.CaptureFixture[str], path: Path) -> None:
        self.module, self.capsys, self.path = module, capsys, str(path)
        self.host = Host({f"{REFERENCE}@{NEW}"}, SERVICE)
        self.host.add(6, "a").add(5, "b", "exited")
        self.record("webui.0.r6", 6)

    def record(self, name: str | None, highest: int) -> None:
        write_state(self.path, "webui", {"highest_release": highest, "current": {"0": name} if name else {}})

    def recorded(self) -> tuple[int, dict[str, str]]:
        state = read_state(self.path, "webui")
        return state["highest_release"], state["current"]

    def start(self, *candidates: dict[str, Any], check: bool = False) -> dict[str, Any]:
        common = {"service": SERVICE, "reference": REFERENCE, "digest": NEW, "release": 7, "slot": "b"}
        options = {"candidates": [common | one for one in candidates], "state_path": self.path, "log_lines": 1}
        return run(self.module, self.capsys, options, check=check)


@pytest.fixture
def node(
    load_module: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Running:
    module = load_module("service_start")
    found = Running(module, capsys, tmp_path)
    monkeypatch.setattr(module, "Engine", lambda: found.host)
    return found


SECOND = {"replica": 1, "slot": "a"}


def test_candidates_start_side_by_side_and_the_fence_is_raised_first(node: Running) -> None:
    found = node.start({}, SECOND)
    assert [(one["container"], one["slot"], one["port"], one["probes"]) for one in found["candidates"]] == [
        ("webui.0.r7", "b", None, {"container": "none"}),
        ("webui.1.r7", "a", None, {"container": "none"}),
    ]
    assert found["diff"]["after"] == {"webui.0.r7": "running in slot b", "webui.1.r7": "running in slot a"}
    assert node.recorded() == (7, {"0": "webui.0.r6"})
    assert node.host.restart_of("webui.0.r7") == "unless-stopped"


def test_check_mode_says_the_same_and_does_nothing(node: Running) -> None:
    node.host.images.clear()
    found = node.start({}, check=True)
    assert (found["changed"], [one["container"] for one in found["candidates"]]) == (True, ["webui.0.r7"])
    assert (node.host.calls, node.recorded()) == ([], (6, {"0": "webui.0.r6"}))


def test_no_candidate_no_change(node: Running) -> None:
    found = node.start()
    assert (found["changed"], found["candidates"], node.recorded()) == (False, [], (6, {"0": "webui.0.r6"}))


def test_a_kept_one_is_started_under_the_rollouts_number(node: Running) -> None:
    back = {"release": 5, "number": 8, "restore": True, "container": "webui.0.r5"}
    assert node.start(back)["candidates"][0]["container"] == "webui.0.r5"
    assert (node.host.calls, node.recorded()[0]) == (["start webui.0.r5"], 8)
    assert node.start(back)["changed"] is False


@pytest.mark.parametrize(
    ("slot", "port"),
    [pytest.param("b", 18081, id="the one that it was made with"), pytest.param("a", 18180, id="in the other slot")],
)
def test_the_port_of_a_kept_one_after_another_slots_port(node: Running, slot: str, port: int) -> None:
    listens = SERVICE | {"port": 8080, "slots_port": 18080}
    node.host.service = listens
    node.host.there.clear()
    node.host.add(6, "a").add(5, "b", "exited")
    moved = listens | {"slots_port": 18180}
    back = {"service": moved, "release": 5, "number": 8, "slot": slot, "restore": True, "container": "webui.0.r5"}
    assert node.start(back, check=True)["candidates"][0]["port"] == port


def test_what_the_gateways_say_is_recorded_first(node: Running) -> None:
    node.host.add(7, "b")
    node.start({"release": 8, "slot": "a", "serving": "webui.0.r7"})
    assert node.recorded() == (8, {"0": "webui.0.r7"})
    assert node.host.calls[0] == "remove webui.0.r6"


def test_when_one_fails_the_others_of_the_call_go_too(node: Running) -> None:
    node.host.sick = {"webui.1.r7"}
    with pytest.raises(ModuleFailedError) as caught:
        node.start({}, SECOND)
    assert str(caught.value) == (
        "service_start: webui.1.r7 ended with exit code 3 after 0.0 s; it was removed, what serves was not touched. "
        "Its last log lines:\nwebui.1.r7 said line 29"
    )
    assert (caught.value.result["log"], caught.value.result["removed"]) == (["webui.1.r7 said line 29"], True)
    assert sorted(node.host.there) == ["webui.0.r5", "webui.0.r6"]


def test_a_kept_one_that_was_well_stays_when_another_fails(node: Running) -> None:
    node.host.sick = {"webui.1.r7"}
    back = {"release": 5, "number": 8, "restore": True, "container": "webui.0.r5"}
    with pytest.raises(ModuleFailedError, match=r"webui\.1\.r7 ended"):
        node.start(back, SECOND | {"number": 8})
    assert node.host.restart_of("webui.0.r5") == "unless-stopped"


SEEN = {"highest_release": 6, "recorded": "webui.0.r6"}
OVERTAKEN = (
    "service_start: webui, replica 0 has changed since the rollout was planned: webui.0.r6 served and 6 was the "
    "highest release, now {recorded} and {highest}. Another rollout was here; run this again"
)


@pytest.mark.parametrize(
    ("recorded", "highest", "wanted", "message"),
    [
        pytest.param("webui.0.r6", 6, {"seen": SEEN}, None, id="as it was seen"),
        pytest.param("webui.0.r6", 8, {"seen": SEEN, "number": 8}, None, id="our own number"),
        pytest.param("webui.0.r7", 6, {"seen": SEEN, "serving": "webui.0.r7"}, None, id="our own record"),
        pytest.param(
            "webui.0.r6",
            7,
            {"seen": SEEN, "number": 8},
            OVERTAKEN.format(recorded="webui.0.r6", highest=7),
            id="a candidate came in between",
        ),
        pytest.param(
            "webui.0.r5",
            6,
            {"seen": SEEN},
            OVERTAKEN.format(recorded="webui.0.r5", highest=6),
            id="another one serves",
        ),
        pytest.param(
            "webui.0.r6",
            9,
            {},
            "service_start: release 7 of webui is refused: this node has seen release 9. Another rollout took over, or "
            "the release number was not taken from the lock; start the rollout again, it gets a new number",
            id="a lower number",
        ),
    ],
)
def test_a_plan_that_was_overtaken_is_refused(
    node: Running, recorded: str, highest: int, wanted: dict[str, Any], message: str | None
) -> None:
    node.record(recorded, highest)
    if message is None:
        node.start(wanted, check=True)
        return
    with pytest.raises(ModuleFailedError) as caught:
        node.start(wanted)
    assert str(caught.value) == message
    assert node.host.calls == []


def test_without_its_image_nothing_begins(node: Running) -> None:
    node.host.images.clear()
    with pytest.raises(ModuleFailedError) as caught:
        node.start({})
    assert (
        str(caught.value) == f"service_start: image {REFERENCE}@{NEW} is not on this node; pull it first (image_pull)"
    )
    assert (node.host.calls, node.recorded()[0]) == ([], 6)
