"""service_start: what it decides to do, given what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from ansible.module_utils.qianjiang.candidate import CandidateFailedError, Decision, apply, plan, port_conflict
from ansible.module_utils.qianjiang.engine import Engine
from ansible.module_utils.qianjiang.service_state import Owned

DIFFERENT = [{"name": "env.TITLE", "before": "x", "after": "y"}]


def container(release: int, slot: str, status: str = "running") -> Owned:
    return {
        "container": f"webui.0.r{release}",
        "id": f"id{release}",
        "service": "webui",
        "replica": 0,
        "release": release,
        "slot": slot,
        "digest": "sha256:x",
        "configuration": "c",
        "status": status,
        "image_id": f"image{release}",
    }


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


def test_one_started_again_must_prove_itself_like_a_new_one() -> None:
    engine = FakeEngine({})
    apply(cast(Engine, engine), DECISION._replace(action="start"), SPEC, PARAMETERS, serves=False)
    assert engine.calls == [
        ("set_restart", "webui.0.r7", "no"),
        ("start", "webui.0.r7"),
        ("set_restart", "webui.0.r7", "unless-stopped"),
    ]


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
