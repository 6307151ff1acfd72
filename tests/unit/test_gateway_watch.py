"""gateway_watch: how long it watches, when it ends early, and that it keeps the lock."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.haproxy import HAProxyError, Server, UnreachableError
from ansible.module_utils.qianjiang.lock import LockLostError, paced

from running import ModuleFailedError, run

Loader = Callable[[str], ModuleType]
A, B = "node1.0.a", "node1.0.b"
PARAMS: dict[str, Any] = {
    "backend": "webui",
    "new": [B],
    "old": [A],
    "seconds": 60.0,
    "interval": 1.0,
    "max_errors": 0.01,
    "max_latency": 2.0,
    "min_requests": 20,
}


def server(name: str, requests: int, errors: int = 0, response_ms: int = 5, up: bool = True) -> Server:
    return Server(name, "ready", up, True, "L7OK" if up else "L4CON", 0, 0, requests, errors, response_ms, response_ms)


def fine(now: float) -> dict[str, Server]:
    """A slot with a bad past, ten requests a second."""
    return {A: server(A, 900), B: server(B, 1000 + int(now) * 10, errors=500)}


class World:
    """HAProxy, and a clock that goes on while it is waited for."""

    def __init__(self, state: Callable[[float], dict[str, Server]]) -> None:
        self.state, self.now = state, 0.0
        self.kept: list[float] = []

    def servers(self, backend: str) -> dict[str, Server]:
        assert backend == "webui"
        return self.state(self.now)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def keep(self) -> None:
        self.kept.append(self.now)

    def watch(self, module: ModuleType, **params: Any) -> Any:
        return module.Watch(self, PARAMS | params, paced(self.keep, self.clock), self.clock, self.sleep)


def test_a_good_release_is_watched_to_the_end(load_module: Loader) -> None:
    world = World(fine)
    watch = world.watch(load_module("gateway_watch"), seconds=70.5)
    assert watch.run() is None
    assert world.now == 70.5
    # From the beginning, then about every 30 s
    assert world.kept == [0, 30, 60]
    found = watch.result()
    assert found["new"][B]["requests"] == 700
    assert found["new"][B]["errors"] == 0
    assert found["old"] == {A: {"requests": 900, "errors": 0, "response_ms": 5.0}}
    assert found["seconds"] == 70.5


@pytest.mark.parametrize(
    ("later", "problem"),
    [
        (server(B, 1100, errors=520), f"{B}: 20 of 100 requests failed (20.0%), allowed are 1.0% "),
        (server(B, 1100, errors=500, response_ms=90), f"{B}: answers take "),
        (server(B, 1000, errors=500, up=False), f"{B} is not UP (last check: L4CON)"),
    ],
)
def test_a_bad_one_ends_it_at_once(load_module: Loader, later: Server, problem: str) -> None:
    world = World(lambda now: fine(now) if now < 10 else fine(now) | {B: later})
    found = world.watch(load_module("gateway_watch")).run()
    assert found.startswith(problem)
    assert world.now == 10


def test_a_server_that_is_not_there(load_module: Loader) -> None:
    with pytest.raises(HAProxyError) as error:
        World(fine).watch(load_module("gateway_watch"), new=["x"]).run()
    assert str(error.value).startswith("HAProxy has no server webui/x, only node1.0.a, node1.0.b;")
    assert str(error.value).endswith("run playbooks/nodes.yml --tags gateway")


@pytest.mark.parametrize("perhaps_unanswered", [0, 100])
def test_a_reload_counts_anew(load_module: Loader, perhaps_unanswered: int) -> None:
    def before(now: float) -> dict[str, Server]:
        found = fine(now)
        return found | {B: found[B]._replace(perhaps_unanswered=perhaps_unanswered)}

    def reloaded(now: float) -> dict[str, Server]:
        count = int(now - 30) * 10
        return {A: server(A, 0), B: server(B, count, errors=count // 5)}

    world = World(lambda now: before(now) if now < 30 else reloaded(now))
    watch = world.watch(load_module("gateway_watch"))
    assert watch.run().startswith(f"{B}: 4 of 20 requests failed (20.0%), allowed are 1.0% (the old servers have 0.0%)")
    assert world.now == 32
    # What the old ones did before
    assert watch.result()["old"][A]["requests"] == 900


def test_what_came_after_a_reload_counts_in_full(load_module: Loader) -> None:
    def state(now: float) -> dict[str, Server]:
        return {A: server(A, 900), B: server(B, 10 if now < 3 else int(now - 3) * 10)}

    watch = World(state).watch(load_module("gateway_watch"))
    assert watch.run() is None
    assert watch.result()["new"][B]["requests"] == 570


@pytest.mark.parametrize(("away", "ends"), [(14, True), (17, False)])
def test_a_restart_is_waited_for(load_module: Loader, away: float, ends: bool) -> None:
    def state(now: float) -> dict[str, Server]:
        if 5 <= now < 5 + away:
            raise UnreachableError("HAProxy does not answer")
        return fine(now)

    watch = World(state).watch(load_module("gateway_watch"))
    if ends:
        assert watch.run() is None
    else:
        with pytest.raises(UnreachableError):
            watch.run()


def options(**more: Any) -> dict[str, Any]:
    return {"backend": "webui", "new": [B], "old": [A], "seconds": 0, **more}


def module_with(load_module: Loader, monkeypatch: pytest.MonkeyPatch, state: Callable[[float], Any]) -> ModuleType:
    module = load_module("gateway_watch")
    monkeypatch.setattr(module, "Runtime", lambda *_: World(state))
    return module


def test_the_module_says_what_was_measured(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = module_with(load_module, monkeypatch, fine)
    assert run(module, capsys, options())["old"] == {A: {"requests": 900, "errors": 0, "response_ms": 5.0}}
    module = module_with(load_module, monkeypatch, lambda now: fine(now) | {B: server(B, 9, up=False)})
    with pytest.raises(
        ModuleFailedError, match=r"^gateway_watch: webui is worse than before, after 0 s: node1\.0\.b is not UP \(last"
    ) as caught:
        run(module, capsys, options())
    assert caught.value.result["new"] == {B: {"requests": 0, "errors": 0, "response_ms": 0.0}}


def test_a_lost_lock_ends_it(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def renew(*arguments: Any) -> None:
        assert arguments == ("/run/lock", "me", 60)
        raise LockLostError("the lock is lost", None)

    module = module_with(load_module, monkeypatch, fine)
    monkeypatch.setattr("ansible.module_utils.qianjiang.lock.renew", renew)
    lock = {"path": "/run/lock", "holder_id": "me", "ttl": 60}
    with pytest.raises(ModuleFailedError, match=r"^gateway_watch: the lock is lost$"):
        run(module, capsys, options(lock=lock))


def test_a_check_run_watches_nothing(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = module_with(load_module, monkeypatch, lambda _: {})
    assert run(module, capsys, options(seconds=600), check=True)["changed"] is False
