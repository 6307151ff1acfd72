"""gateway_maintain: the file and the running HAProxy say the same, and say what was asked for."""

from __future__ import annotations

import fcntl
import getpass
import grp
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.haproxy import HAProxyError, NoBackendError, NoMapError, UnreachableError
from ansible.module_utils.qianjiang.system_file import SystemFile

from running import ModuleFailedError, run

Loader = Callable[[str], ModuleType]
FILE, RUNNING = "/etc/haproxy/maintenance.map", "the running HAProxy"


@pytest.mark.parametrize(
    ("message", "file", "running", "expected"),
    [
        pytest.param("soon", {"webui": "soon"}, {"webui": "soon", "api": "x"}, [], id="closed already"),
        pytest.param("", {"api": "x"}, {}, [], id="open already"),
        pytest.param("soon", {}, {}, [(FILE, "", "soon"), (RUNNING, "", "soon")], id="closed"),
        pytest.param("", {"webui": "a"}, {"webui": "a"}, [(FILE, "a", ""), (RUNNING, "a", "")], id="opened"),
        pytest.param(
            "b", {"webui": "a"}, {"webui": "a"}, [(FILE, "a", "b"), (RUNNING, "a", "b")], id="another message"
        ),
        pytest.param("soon", {"webui": "soon"}, {}, [(RUNNING, "", "soon")], id="killed between the two"),
        pytest.param("soon", {}, None, [(FILE, "", "soon")], id="no HAProxy"),
    ],
)
def test_plan(
    load_module: Loader,
    message: str,
    file: dict[str, str],
    running: dict[str, str] | None,
    expected: list[tuple[str, str, str]],
) -> None:
    current = {FILE: file} | ({} if running is None else {RUNNING: running})
    changes = [{"name": name, "before": before, "after": after} for name, before, after in expected]
    assert load_module("gateway_maintain").plan("webui", message, current) == changes


class FakeRuntime:
    """A HAProxy with a map, or with a problem."""

    def __init__(self, problem: HAProxyError | None = None, **entries: str) -> None:
        self.problem, self.map = problem, dict(entries)

    def servers(self, backend: str) -> dict[str, Any]:
        if isinstance(self.problem, UnreachableError):
            raise self.problem
        if backend != "webui":
            raise NoBackendError(f"HAProxy has no backend {backend}")
        return {}

    def entries(self, path: str) -> dict[str, str]:
        assert path.endswith("/maintenance.map")
        if self.problem:
            raise self.problem
        return dict(self.map)

    def replace(self, path: str, entries: dict[str, str]) -> None:
        assert path.endswith("/maintenance.map")
        self.map = dict(entries)


class Place:
    """The module with a fake HAProxy and a file of ours."""

    def __init__(self, module: ModuleType, capsys: pytest.CaptureFixture[str], path: Path, fake: FakeRuntime) -> None:
        self.module, self.capsys, self.path, self.fake = module, capsys, path, fake

    def run(self, message: str, backend: str = "webui", check: bool = False) -> dict[str, Any]:
        return run(
            self.module, self.capsys, {"backend": backend, "message": message, "map": str(self.path)}, check=check
        )


@pytest.fixture
def place(
    load_module: Loader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[FakeRuntime], Place]:
    def make(fake: FakeRuntime) -> Place:
        module = load_module("gateway_maintain")
        monkeypatch.setattr(module, "Runtime", lambda *_: fake)
        # Tests need not run as root
        owner, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
        monkeypatch.setattr(module, "SystemFile", lambda content: SystemFile(content, owner, group))
        path = tmp_path / "maintenance.map"
        path.write_text("api closed\n")
        return Place(module, capsys, path, fake)

    return make


def test_closed_and_opened_again(place: Callable[[FakeRuntime], Place]) -> None:
    here = place(FakeRuntime(api="closed"))
    result = here.run(" 维护中; back at ten ")
    assert result["changed"]
    assert result["services"] == {"api": "closed", "webui": "维护中; back at ten"}
    assert result["diff"]["after"] == {str(here.path): "维护中; back at ten", RUNNING: "维护中; back at ten"}
    assert here.path.read_text(encoding="utf-8") == "api closed\nwebui 维护中; back at ten\n"
    assert here.fake.map == {"api": "closed", "webui": "维护中; back at ten"}
    assert not here.run("维护中; back at ten")["changed"]
    assert here.run("")["changed"]
    assert here.path.read_text() == "api closed\n"
    assert here.fake.map == {"api": "closed"}
    assert not here.run("")["changed"]


def test_two_at_once_do_not_undo_each_other(
    place: Callable[[FakeRuntime], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place(FakeRuntime(api="closed"))
    alone: list[bool] = []

    def entries(_: str) -> dict[str, str]:
        folder = os.open(here.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone.append(True)
        finally:
            os.close(folder)
        return dict(here.fake.map)

    monkeypatch.setattr(here.fake, "entries", entries)
    here.run("soon")
    assert alone == [True]


def test_check_mode_changes_nothing(place: Callable[[FakeRuntime], Place]) -> None:
    here = place(FakeRuntime(api="closed"))
    result = here.run("soon", check=True)
    assert result["changed"]
    assert result["services"] == {"api": "closed", "webui": "soon"}
    assert (here.path.read_text(), here.fake.map) == ("api closed\n", {"api": "closed"})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("two\nlines", r"message: expected one line of text, got '\\n' in it"),
        ("two\u2028lines", r"message: expected one line of text, got '\\u2028' in it"),
        ("two\x85lines", r"message: expected one line of text, got '\\x85' in it"),
        ("x" * 2001, "message: expected at most 2000 bytes, got 2001"),
        ("维" * 667, "message: expected at most 2000 bytes, got 2001"),
    ],
)
def test_what_haproxy_cannot_say_is_refused(place: Callable[[FakeRuntime], Place], message: str, said: str) -> None:
    here = place(FakeRuntime())
    with pytest.raises(ModuleFailedError, match=f"^gateway_maintain: {said}$"):
        here.run(message)
    assert (here.path.read_text(), here.fake.map) == ("api closed\n", {})


def test_a_service_that_is_not_forwarded(place: Callable[[FakeRuntime], Place]) -> None:
    here = place(FakeRuntime(api="closed"))
    with pytest.raises(ModuleFailedError, match=r"^gateway_maintain: HAProxy has no backend api$"):
        here.run("still closed", backend="api")
    assert here.path.read_text() == "api closed\n"
    # It can still be opened
    assert here.run("", backend="api")["changed"]
    assert (here.path.read_text(), here.fake.map) == ("", {})


@pytest.mark.parametrize("check", [False, True])
def test_a_configuration_of_before(place: Callable[[FakeRuntime], Place], check: bool) -> None:
    here = place(FakeRuntime(NoMapError("HAProxy does not read the map")))
    if check:
        assert here.run("soon", check=True)["changed"]
    else:
        with pytest.raises(ModuleFailedError, match=r"^gateway_maintain: HAProxy does not read the map$"):
            here.run("soon")
    assert here.path.read_text() == "api closed\n"


def test_a_haproxy_that_does_not_run_begins_with_it(place: Callable[[FakeRuntime], Place]) -> None:
    here = place(FakeRuntime(UnreachableError("HAProxy does not answer")))
    with pytest.raises(
        ModuleFailedError, match=r"does not answer\. It holds from HAProxy's next start, as /.* says so$"
    ):
        here.run("soon")
    assert here.path.read_text() == "api closed\nwebui soon\n"
