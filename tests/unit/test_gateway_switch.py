"""gateway_switch: what changes at the gateway."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.haproxy import (
    Arrival,
    Departure,
    HAProxyError,
    NoBackendError,
    Probe,
    Server,
    UnprovenError,
)
from ansible.module_utils.qianjiang.lock import LockLostError

from running import ModuleFailedError, run

Loader = Callable[[str], ModuleType]
A, B, C = "node1.0.a", "node1.0.b", "node1.1.a"
NO_SERVER = "the gateway role writes it from the catalogue: run playbooks/nodes.yml --tags gateway"


def table(a: str, b: str) -> dict[str, Server]:
    return {
        name: Server(name, admin, admin != "maint", True, "L7OK", 0, 0, port=18080) for name, admin in ((A, a), (B, b))
    }


def change(name: str, before: str, after: str) -> dict[str, Any]:
    return {"name": f"webui/{name}", "before": before, "after": after}


def switch(to: str | None = B, away: list[str] | None = None, ready: bool = True, **more: Any) -> dict[str, Any]:
    away = [A] if away is None else away
    return {
        "backend": "webui",
        "to": to,
        "away": away,
        "ready": ready,
        "probe": None,
        "drain_timeout": None,
        "port": None,
        **more,
    }


@pytest.mark.parametrize(
    ("wanted", "current", "expected"),
    [
        pytest.param([switch()], table("drain", "ready"), [], id="switched already"),
        pytest.param([switch()], table("maint", "ready"), [], id="switched already by an older version"),
        pytest.param(
            [switch()],
            table("ready", "drain"),
            [change(B, "drain", "ready"), change(A, "ready", "drain")],
            id="from a to b",
        ),
        pytest.param(
            [switch()],
            table("ready", "maint"),
            [change(B, "maint", "ready"), change(A, "ready", "drain")],
            id="from a to b, where an older version left b",
        ),
        pytest.param([switch(to=None)], table("ready", "drain"), [change(A, "ready", "drain")], id="only away"),
        pytest.param([switch(away=[])], table("ready", "drain"), [change(B, "drain", "ready")], id="only in"),
        pytest.param([switch(ready=False)], table("drain", "drain"), [], id="a drained node: stays in drain"),
        pytest.param(
            [switch(ready=False)],
            table("maint", "maint"),
            [change(B, "maint", "drain")],
            id="a node that an older version drained: what is proven is in drain then",
        ),
        pytest.param(
            [switch(ready=False)],
            table("ready", "ready"),
            [change(B, "ready", "drain"), change(A, "ready", "drain")],
            id="a node that is drained now",
        ),
        pytest.param(
            [switch(to=None), switch(to=B, away=[])],
            table("ready", "drain"),
            [change(B, "drain", "ready"), change(A, "ready", "drain")],
            id="several: all that come in are first",
        ),
        pytest.param([switch(port=18080)], table("drain", "ready"), [], id="the port that it forwards to"),
        pytest.param(
            [switch(port=18181)],
            table("ready", "drain"),
            [
                {"name": f"webui/{B} port", "before": 18080, "after": 18181},
                change(B, "drain", "ready"),
                change(A, "ready", "drain"),
            ],
            id="another port",
        ),
        pytest.param([], table("ready", "drain"), [], id="nothing"),
    ],
)
def test_plan(
    load_module: Loader, wanted: list[dict[str, Any]], current: dict[str, Server], expected: list[Any]
) -> None:
    assert load_module("gateway_switch").plan(wanted, {"webui": current}) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([switch(to="x")], f"HAProxy has no server webui/x, only {A}, {B}; {NO_SERVER}"),
        ([switch(away=["y"])], f"HAProxy has no server webui/y, only {A}, {B}; {NO_SERVER}"),
        ([switch(to=A)], f"webui/{A} cannot come in and go away at once"),
        ([switch(to=A, away=[]), switch(to=B)], f"webui/{A} cannot come in and go away at once"),
    ],
)
def test_refused(load_module: Loader, wanted: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(HAProxyError) as caught:
        load_module("gateway_switch").plan(wanted, {"webui": table("ready", "drain")})
    assert str(caught.value) == message


def test_check_mode_of_a_gateway_that_is_not_there_yet(load_module: Loader) -> None:
    assert load_module("gateway_switch").plan([switch()], {"webui": {}}, missing_is_fine=True) == [
        change(B, "absent", "ready"),
        change(A, "absent", "drain"),
    ]


class FakeRuntime:
    """Notes what is asked of it."""

    def __init__(self, current: dict[str, Server] | None = None, problem: str = "") -> None:
        self.table = current or table("ready", "drain")
        self.problem = problem
        self.calls: list[Any] = []

    def servers(self, backend: str) -> dict[str, Server]:
        if backend != "webui":
            raise NoBackendError(f"HAProxy has no backend {backend}")
        return self.table

    def prove(self, arrivals: list[Arrival], confirm: Callable[[], object]) -> dict[str, int]:
        self.calls.append(("prove", arrivals))
        if self.problem:
            raise UnprovenError(self.problem)
        confirm()
        return {arrival.target: 200 for arrival in arrivals if arrival.probe}

    def admit(self, arrivals: list[Arrival]) -> None:
        self.calls.append(("admit", arrivals))

    def dismiss(self, departures: list[Departure], keep: Callable[[], object]) -> dict[str, int]:
        keep()
        self.calls.append(("dismiss", departures))
        return {f"webui/{A}": 2, f"webui/{C}": 1}


PROBE = {"port": 80, "path": "/readyz", "timeout": 5.0, "tls": False}


def test_all_come_in_before_any_goes_away(load_module: Loader) -> None:
    fake = FakeRuntime()
    wanted = [switch(probe=PROBE, port=18081), switch(to="node1.1.b", away=[C], drain_timeout=60)]
    found = load_module("gateway_switch").apply(fake, wanted, 30, 10, lambda: fake.calls.append("confirm"))
    arrivals = [Arrival("webui", B, 30, Probe(80, "/readyz", 5, False), 18081), Arrival("webui", "node1.1.b", 30)]
    assert fake.calls == [
        "confirm",
        ("prove", arrivals),
        "confirm",
        ("admit", arrivals),
        "confirm",
        ("dismiss", [Departure("webui", A, 10), Departure("webui", C, 60)]),
    ]
    assert found.pop("seconds") >= 0
    assert found == {
        "cut": 3,
        "cut_by_server": {f"webui/{A}": 2, f"webui/{C}": 1},
        "probes": {f"webui/{B}": 200},
    }


def test_a_drained_nodes_server_is_proven_and_goes_back(load_module: Loader) -> None:
    fake = FakeRuntime()
    load_module("gateway_switch").apply(fake, [switch(ready=False)], 30, 10, lambda: None)
    assert fake.calls == [
        ("prove", [Arrival("webui", B, 30)]),
        ("admit", []),
        ("dismiss", [Departure("webui", B, 10), Departure("webui", A, 10)]),
    ]


LOCK = {"path": "/run/lock", "holder_id": "me", "ttl": 60}


def called(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, fake: FakeRuntime, lost_at: int = 0
) -> tuple[ModuleType, list[Any]]:
    """The module with a fake HAProxy and a lock that is lost at its `lost_at`-th renewal."""
    module = load_module("gateway_switch")
    renewals: list[Any] = []

    def renew(*arguments: Any) -> None:
        renewals.append(arguments)
        if len(renewals) == lost_at:
            raise LockLostError("the lock of hangzhou is lost: ops@other has it", None)

    monkeypatch.setattr(module, "Runtime", lambda *_: fake)
    monkeypatch.setattr("ansible.module_utils.qianjiang.lock.renew", renew)
    return module, renewals


def options(**more: Any) -> dict[str, Any]:
    return {"switches": [{"backend": "webui", "to": B, "away": [A], "probe": {"port": 80}}], "lock": LOCK, **more}


def test_the_lock_is_renewed_before_and_between(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRuntime()
    module, renewals = called(load_module, monkeypatch, fake)
    result = run(module, capsys, options())
    assert result["changed"]
    assert result["diff"]["after"] == {f"webui/{B}": "ready", f"webui/{A}": "drain"}
    assert renewals == [("/run/lock", "me", 60)] * 3
    run(module, capsys, options(lock=None))
    assert len(renewals) == 3


@pytest.mark.parametrize(("lost_at", "calls"), [(1, []), (2, ["prove"]), (3, ["prove", "admit"])])
def test_without_the_lock_nothing_goes_on(
    load_module: Loader,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost_at: int,
    calls: list[str],
) -> None:
    fake = FakeRuntime()
    module, _ = called(load_module, monkeypatch, fake, lost_at)
    with pytest.raises(
        ModuleFailedError, match=r"^gateway_switch: the lock of hangzhou is lost: ops@other has it$"
    ) as error:
        run(module, capsys, options())
    assert error.value.result["lock_lost"]
    assert [call[0] for call in fake.calls] == calls


def test_one_that_does_not_pass_fails_the_module(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRuntime(problem="webui/node1.0.b is not UP")
    module, _ = called(load_module, monkeypatch, fake)
    with pytest.raises(ModuleFailedError, match=r"^gateway_switch: webui/node1\.0\.b is not UP$"):
        run(module, capsys, options())
    assert [call[0] for call in fake.calls] == ["prove"]


def test_check_mode_touches_nothing(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRuntime()
    module, renewals = called(load_module, monkeypatch, fake)
    result = run(module, capsys, options(), check=True)
    assert result["changed"]
    assert (fake.calls, renewals) == ([], [])


def test_what_the_gateway_does_not_have_gets_nothing_already(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRuntime()
    module, _ = called(load_module, monkeypatch, fake)
    gone = [{"backend": "webui", "away": ["node9.0.a", A]}, {"backend": "report", "away": ["node1.0.a"]}]
    assert run(module, capsys, {"switches": gone})["diff"]["after"] == {f"webui/{A}": "drain"}
    assert fake.calls[-1] == ("dismiss", [Departure("webui", A, 30)])
    with pytest.raises(ModuleFailedError, match="HAProxy has no backend report"):
        run(module, capsys, {"switches": [*gone, {"backend": "report", "to": B}]})
