"""gateway_inspect: what is returned of a gateway, also of one that does not answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from ansible.module_utils.qianjiang.haproxy import HAProxyError, NoBackendError, Server, UnreachableError
from ansible.module_utils.qianjiang.lock import Holder, acquire

from running import ModuleFailedError, run

Loader = Callable[[str], ModuleType]
SERVER = Server("node1.0.a", "ready", True, True, "L7OK", 3, 1, 10432, 1, 14, 15, "10.0.0.1", 18080)


class FakeRuntime:
    """Has one backend, or a problem."""

    def __init__(self, problem: HAProxyError | None = None) -> None:
        self.problem = problem

    def servers(self, backend: str) -> dict[str, Server]:
        if self.problem:
            raise self.problem
        if backend != "webui":
            raise NoBackendError(f"HAProxy has no backend {backend}")
        return {SERVER.name: SERVER}


@pytest.mark.parametrize("check", [False, True])
def test_what_is_returned(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], check: bool
) -> None:
    module = load_module("gateway_inspect")
    monkeypatch.setattr(module, "Runtime", lambda *_: FakeRuntime())
    result = run(module, capsys, {"backends": ["api", "webui", "api"]}, check=check)
    result.pop("invocation", None)
    assert result == {
        "changed": False,
        "answers": True,
        "reason": "",
        "missing": ["api"],
        "lock": None,
        "backends": {
            "webui": {
                "node1.0.a": {
                    "admin": "ready",
                    "up": True,
                    "serves": True,
                    "sessions": 3,
                    "check_status": "L7OK",
                    "requests": 10432,
                    "errors_5xx": 1,
                    "response_ms": 14,
                    "total_ms": 15,
                }
            }
        },
    }


def test_one_that_does_not_answer_is_no_failure(load_module: Loader) -> None:
    fake = FakeRuntime(UnreachableError("HAProxy does not answer at /s"))
    assert load_module("gateway_inspect").inspect(fake, ["webui"]) == {
        "answers": False,
        "reason": "HAProxy does not answer at /s",
        "backends": {},
        "missing": [],
    }


def test_one_that_refuses_is_a_failure(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load_module("gateway_inspect")
    monkeypatch.setattr(module, "Runtime", lambda *_: FakeRuntime(HAProxyError("Permission denied")))
    with pytest.raises(ModuleFailedError, match=r"^gateway_inspect: Permission denied$"):
        run(module, capsys, {"backends": ["webui"]})


@pytest.mark.parametrize("content", [None, "", "{}"], ids=["none", "empty", "damaged"])
def test_the_lock_that_a_gateway_keeps(
    load_module: Loader,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: str | None,
) -> None:
    module, path = load_module("gateway_inspect"), tmp_path / "lock.json"
    monkeypatch.setattr(module, "Runtime", lambda *_: FakeRuntime(UnreachableError("HAProxy does not answer")))
    if content is not None:
        path.write_text(content)
    assert run(module, capsys, {"backends": [], "lock_path": str(path)})["lock"] is None
    holder: Holder = {"id": "a:20", "controller": "control-1:boot:1", "user": "ops", "host": "control-1"}
    path.unlink(missing_ok=True)
    taken = acquire(str(path), holder, "rollout of webui", 600, [])["lock"]
    assert run(module, capsys, {"backends": ["webui"], "lock_path": str(path)})["lock"] == taken
