"""gateway_hold: which servers go out of rotation before a candidate starts in their slot, and which first give over."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.haproxy import Departure, HAProxyError, Server
from ansible.module_utils.qianjiang.lock import LockLostError

from running import ModuleFailedError, run

Loader = Callable[[str], ModuleType]


def server(name: str, admin: str, up: bool, sessions: int = 0) -> Server:
    return Server(name, admin, up, True, "L7OK", sessions, 0)


def change(name: str, before: str, after: str) -> dict[str, Any]:
    return {"name": f"webui/{name}", "before": before, "after": after}


A, B = "node1.0.a", "node1.0.b"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param([server(A, "ready", True), server(B, "drain", False)], [], id="at rest: held already"),
        pytest.param([server(A, "ready", True), server(B, "maint", False)], [], id="in maintenance: held as well"),
        pytest.param(
            [server(A, "ready", True), server(B, "ready", False)],
            [change(B, "ready", "drain")],
            id="nothing listens there: no need to drain",
        ),
        pytest.param(
            [server(A, "ready", True), server(B, "ready", True)],
            [change(B, "ready", "drain")],
            id="killed while switching: the other slot serves too",
        ),
        pytest.param(
            [server(A, "maint", False), server(B, "ready", True)],
            [change(A, "maint", "ready"), change(B, "ready", "drain")],
            id="killed after the switch of an older version: the other slot is brought back first",
        ),
        pytest.param(
            [server(A, "drain", True), server(B, "ready", True)],
            [change(A, "drain", "ready"), change(B, "ready", "drain")],
            id="killed after the switch: the other slot is brought back first",
        ),
        pytest.param(
            [server(A, "ready", True), server(B, "drain", True)],
            [],
            id="a candidate is in it: held already",
        ),
        pytest.param([server(B, "ready", True)], [], id="the only slot: it serves, so it stays"),
    ],
)
def test_plan(load_module: Loader, table: list[Server], expected: list[Any]) -> None:
    current = {"webui": {item.name: item for item in table}}
    assert load_module("gateway_hold").plan([("webui", B, 7)], current) == expected


def test_a_server_that_is_not_there(load_module: Loader) -> None:
    module = load_module("gateway_hold")
    table = {"webui": {A: server(A, "ready", True)}}
    with pytest.raises(HAProxyError, match=r"^HAProxy has no server webui/node1\.0\.b, only node1\.0\.a; "):
        module.plan([("webui", B, 7)], table)
    assert module.plan([("webui", B, 7)], table, missing_is_fine=True) == [change(B, "absent", "drain")]


class FakeRuntime:
    """Notes what is asked of it."""

    def __init__(self, table: list[Server], comes_up: bool = True) -> None:
        self.table = {item.name: item for item in table}
        self.comes_up = comes_up
        self.calls: list[tuple[Any, ...]] = []

    def servers(self, backend: str) -> dict[str, Server]:
        assert backend == "webui"
        return self.table

    def do(self, command: str) -> None:
        self.calls.append((command,))

    def bring_up(self, backend: str, name: str, timeout: float) -> None:
        self.calls.append(("up", backend, name, timeout))
        if not self.comes_up:
            raise HAProxyError("not UP")

    def dismiss(self, departures: list[Departure], _keep: object) -> dict[str, int]:
        self.calls += [("away", *one) for one in departures]
        return dict.fromkeys((one.target for one in departures), 1)


@pytest.mark.parametrize(
    ("table", "comes_up", "calls", "serving", "cut"),
    [
        ([server(A, "ready", True), server(B, "drain", True)], True, [], [], 0),
        ([server(A, "ready", True), server(B, "maint", False)], True, [], [], 0),
        # a run that was killed while it drained
        ([server(A, "ready", True), server(B, "drain", True, 3)], True, [("away", "webui", B, 7)], [], 1),
        (
            [server(A, "ready", True), server(B, "ready", False)],
            True,
            [("set server webui/node1.0.b state drain",)],
            [],
            0,
        ),
        (
            [server(A, "drain", True), server(B, "ready", True)],
            True,
            [("up", "webui", A, 5), ("away", "webui", B, 7)],
            [],
            1,
        ),
        (
            [server(A, "drain", False), server(B, "ready", True)],
            False,
            [("up", "webui", A, 5)],
            [{"backend": "webui", "server": B}],
            0,
        ),
        ([server(B, "ready", True)], True, [], [{"backend": "webui", "server": B}], 0),
    ],
)
def test_apply(  # noqa: PLR0917 — one per column of the table
    load_module: Loader, table: list[Server], comes_up: bool, calls: list[Any], serving: list[Any], cut: int
) -> None:
    fake = FakeRuntime(table, comes_up)
    done = load_module("gateway_hold").apply(fake, [("webui", B, 7)], 5, lambda: None)
    assert done == {"serving": serving, "cut": cut}
    assert fake.calls == calls


@pytest.mark.parametrize(("own", "patience"), [({"drain_timeout": 300}, 300), ({}, 30)])
def test_a_service_has_its_own_time(
    load_module: Loader,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own: dict[str, Any],
    patience: float,
) -> None:
    fake, module = FakeRuntime([server(A, "ready", True), server(B, "drain", True, 3)]), load_module("gateway_hold")
    monkeypatch.setattr(module, "Runtime", lambda *_: fake)
    run(module, capsys, {"servers": [{"backend": "webui", "server": B} | own]})
    assert fake.calls == [("away", "webui", B, patience)]


def test_between_servers_it_may_be_ended(load_module: Loader) -> None:
    def keep() -> None:
        if fake.calls:
            raise LockLostError("lost", None)

    fake = FakeRuntime([server(A, "ready", False), server(B, "ready", False)])
    with pytest.raises(LockLostError):
        load_module("gateway_hold").apply(fake, [("webui", A, 7), ("webui", B, 7)], 5, keep)
    assert fake.calls == [("set server webui/node1.0.a state drain",)]


def test_without_the_lock_nothing_is_held(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, module = FakeRuntime([server(A, "ready", True), server(B, "ready", False)]), load_module("gateway_hold")
    options = {
        "servers": [{"backend": "webui", "server": B}],
        "lock": {"path": "/run/lock", "holder_id": "me", "ttl": 60},
    }

    def renew(*arguments: Any) -> None:
        assert arguments == ("/run/lock", "me", 60)
        raise LockLostError("the lock of hangzhou is lost: ops@other has it", None)

    monkeypatch.setattr(module, "Runtime", lambda *_: fake)
    assert run(module, capsys, options, check=True)["changed"]
    monkeypatch.setattr("ansible.module_utils.qianjiang.lock.renew", renew)
    with pytest.raises(ModuleFailedError, match=r"^gateway_hold: the lock of hangzhou is lost") as error:
        run(module, capsys, options)
    assert error.value.result["lock_lost"]
    assert fake.calls == []
