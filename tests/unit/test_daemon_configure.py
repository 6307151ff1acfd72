from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from ansible.module_utils.qianjiang import system_file
from ansible.module_utils.qianjiang.system_file import SystemFile
from ansible.module_utils.testing import patch_module_args

Load = Callable[[str], ModuleType]
OLD, NEW = SystemFile("old"), SystemFile("new")
ME = {"owner": system_file._user(os.getuid()), "group": system_file._group(os.getgid())}


@pytest.mark.parametrize(
    ("desired", "current", "expected"),
    [
        pytest.param({"/a": OLD}, {"/a": OLD}, [], id="idempotent"),
        pytest.param({"/a": NEW}, {"/a": OLD}, ["/a"], id="text"),
        pytest.param({"/a": SystemFile("old", mode=0o600)}, {"/a": OLD}, ["/a"], id="mode"),
        pytest.param({"/a": SystemFile("old", group="haproxy")}, {"/a": OLD}, ["/a"], id="group"),
        pytest.param({"/a": OLD, "/b": OLD}, {"/a": OLD, "/b": None}, ["/b"], id="missing"),
    ],
)
def test_plan(load_module: Load, desired: Any, current: Any, expected: list[str]) -> None:
    changes = load_module("daemon_configure").plan(desired, current)
    assert [change["name"] for change in changes] == expected
    assert all(change["before"] == current[change["name"]] for change in changes)


@pytest.mark.parametrize(
    ("modified", "read_at", "expected"),
    [
        pytest.param({"/a": 90}, {"restart": 100, "reload": 100}, [], id="read since"),
        pytest.param({"/a": 110}, {"restart": 100, "reload": 100}, ["/a"], id="a killed run left it unread"),
        pytest.param({"/a": 110}, {"restart": 100, "reload": 120}, ["/a"], id="a reload is not enough for this file"),
        pytest.param({"/b": 110}, {"restart": 100, "reload": 120}, [], id="a reload is enough for that one"),
        pytest.param({"/a": 999}, {"restart": 100, "reload": 100}, [], id="a time in the future proves nothing"),
        pytest.param({"/a": 110}, {}, [], id="unit is down"),
        pytest.param({}, {"restart": 100, "reload": 100}, [], id="no such file"),
        pytest.param({"/c": 110}, {"restart": 100, "reload": 100}, [], id="nothing reads this one"),
    ],
)
def test_stale_files(load_module: Load, modified: Any, read_at: Any, expected: list[str]) -> None:
    applies = {"/a": "restart", "/b": "reload", "/c": "nothing"}
    assert load_module("daemon_configure").stale_files(applies, modified, read_at, now=200) == expected


class Asked:
    """A module that gets this answer from systemctl."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        (properties,) = [part for part in command if part.startswith("--property=")]
        asked = properties[len("--property=") :].split(",")
        lines = [line for line in self.answer.splitlines() if line.split("=")[0] in asked]
        return 0, "\n".join(lines), ""


TIMES = "ActiveEnterTimestampMonotonic=100000000\nStateChangeTimestampMonotonic=200000000\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("ActiveState=active\nReloadResult=success\n", {"restart": 100, "reload": 200}, id="reloaded"),
        pytest.param("ActiveState=reloading\nReloadResult=success\n", {"restart": 100, "reload": 200}, id="reloads"),
        pytest.param("ActiveState=active\n", {"restart": 100, "reload": 200}, id="no service"),
        pytest.param("ActiveState=active\nReloadResult=exit-code\n", {"restart": 100, "reload": 100}, id="failed"),
        pytest.param("ActiveState=active\nReloadResult=timeout\n", {"restart": 100, "reload": 100}, id="gave up"),
        pytest.param("ActiveState=inactive\nReloadResult=success\n", {}, id="down"),
    ],
)
def test_unit_times(
    load_module: Load, monkeypatch: pytest.MonkeyPatch, answer: str, expected: dict[str, float]
) -> None:
    module = load_module("daemon_configure")
    # Booted at 0
    monkeypatch.setattr(module.time, "time", lambda: 1000.0)
    monkeypatch.setattr(module.time, "clock_gettime", lambda _: 1000.0)
    assert module.unit_times(Asked(answer + TIMES), "haproxy.service") == expected


@pytest.mark.parametrize(
    ("paths", "active", "expected"),
    [
        ([], True, "nothing"),
        (["/b"], True, "reload"),
        (["/b", "/a", "/c"], True, "restart"),
        (["/c"], True, "nothing"),
        (["/a"], False, "nothing"),
    ],
)
def test_action(load_module: Load, paths: list[str], active: bool, expected: str) -> None:
    applies = {"/a": "restart", "/b": "reload", "/c": "nothing"}
    assert load_module("daemon_configure").action(paths, applies, active) == expected


def run(
    module: ModuleType, *, check: bool = False, files: list[dict[str, Any]], read_at: dict[str, float] | None = None
) -> dict[str, Any]:
    """Run the module with a unit that does not run, or that read its files at that time."""
    arguments = {"unit": "qianjiang-no-such-unit.service", "files": files, "_ansible_check_mode": check}
    output = io.StringIO()
    with (
        patch_module_args(arguments),
        patch.object(module, "unit_times", return_value=read_at or {}),
        redirect_stdout(output),
        pytest.raises(SystemExit),
    ):
        module.main()
    result: dict[str, Any] = json.loads(output.getvalue())
    return result


def test_check_do_check_do(load_module: Load, tmp_path: Path) -> None:
    module = load_module("daemon_configure")
    path = tmp_path / "sub" / "a.conf"
    files = [{"path": str(path), "content": "x = 1\n", "mode": "0640", "validate": ["grep", "-q", "=", "%s"], **ME}]
    predicted = run(module, check=True, files=files)
    assert predicted["changed"]
    assert not path.exists()
    done = run(module, files=files)
    assert (done["files"], done["diff"]) == (predicted["files"], predicted["diff"])
    assert path.read_text() == "x = 1\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert not run(module, check=True, files=files)["changed"]
    assert not run(module, files=files)["changed"]
    assert [entry.name for entry in path.parent.iterdir()] == ["a.conf"]


def test_a_secret_is_in_no_difference(load_module: Load, tmp_path: Path) -> None:
    path = tmp_path / "keepalived.conf"
    for text, before in (("auth_pass first1", ""), ("auth_pass second2", "secret\n")):
        result = run(load_module("daemon_configure"), files=[{"path": str(path), "secret_content": text, **ME}])
        assert path.read_text() == text
        assert (result["diff"][0]["before"], result["diff"][0]["after"]) == (before, "another secret\n")
        assert "auth_pass" not in str(result)


def test_a_refused_text_changes_no_file(load_module: Load, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    files = [
        {"path": str(good), "content": "x", **ME},
        {"path": str(bad), "content": "wrong\n", "validate": ["sh", "-c", "cat $1; exit 3", "check", "%s"], **ME},
    ]
    for check in (True, False):
        result = run(load_module("daemon_configure"), check=check, files=files)
        assert result["msg"] == f"{bad}: refused (exit code 3), nothing was changed:\nwrong"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "age", "checked"),
    [
        pytest.param("old", 100, False, id="nothing changed"),
        pytest.param("new", 100, True, id="another file of the unit"),
        pytest.param("old", -100, True, id="a certificate that the unit has not read"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_whatever_the_unit_would_read_anew_is_checked_before(
    load_module: Load, tmp_path: Path, text: str, age: int, *, checked: bool, check: bool
) -> None:
    names = ("haproxy.cfg", "drop-in.conf", "server.crt")
    configuration, drop_in, certificate = paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_text("old")
        path.chmod(0o644)
    # Its text is as it was, but something that it names is not: it is refused by now
    refusing = {"path": str(configuration), "content": "old", "validate": ["sh", "-c", "cat $1; exit 3", "check", "%s"]}
    files = [refusing | ME, {"path": str(drop_in), "content": text, **ME}, {"path": str(certificate)}]
    read_at = certificate.stat().st_ctime + age

    result = run(
        load_module("daemon_configure"), check=check, files=files, read_at={"restart": read_at, "reload": read_at}
    )

    assert result.get("failed", False) is checked
    if checked:
        assert result["msg"] == f"{configuration}: refused (exit code 3), nothing was changed:\nold"
    assert drop_in.read_text() == "old"


def test_a_file_of_somebody_elses_is_checked_where_it_is(load_module: Load, tmp_path: Path) -> None:
    certificate, drop_in = tmp_path / "server.crt", tmp_path / "drop-in.conf"
    certificate.write_text("no certificate")
    files = [
        {"path": str(certificate), "validate": ["sh", "-c", "cat $1; exit 3", "check", "%s"]},
        {"path": str(drop_in), "content": "x", **ME},
    ]
    result = run(load_module("daemon_configure"), files=files)
    assert result["msg"] == f"{certificate}: refused (exit code 3), nothing was changed:\nno certificate"
    assert not drop_in.exists()


@pytest.mark.parametrize(
    ("before", "runs", "refused"),
    [
        pytest.param("frontend portal", True, True, id="somebody's load balancer"),
        pytest.param("frontend default", False, False, id="the package's, which nothing runs with"),
        pytest.param("frontend default", True, False, id="the package's, which runs since a boot"),
        pytest.param("global\n# Managed by qianjiangyuan (role gateway)\nold", True, False, id="ours"),
        pytest.param(None, True, False, id="none"),
    ],
)
def test_what_somebody_else_runs_is_not_overwritten(
    load_module: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
    *,
    runs: bool,
    refused: bool,
) -> None:
    path = tmp_path / "haproxy.cfg"
    if before is not None:
        path.write_text(before)
    files = [{"path": str(path), "content": "# Managed by qianjiangyuan (role gateway)\nnew", **ME}]
    module = load_module("daemon_configure")
    monkeypatch.setattr(
        module, "packages_files", lambda _: f"\n {path} 08c46ab2b73e849ef8a209db0a361a62\n /etc/a b obsolete\n"
    )

    for check in (True, False):
        read_at = {"restart": 9e9} if runs else {}
        result = run(module, check=check, files=files, read_at=read_at)

        assert result.get("failed", False) is refused
        if refused:
            assert "haproxy.cfg: somebody else's, and qianjiang-no-such-unit.service runs with it" in result["msg"]
            assert path.read_text() == before


def test_what_is_missing_stops_the_run_but_not_the_check(load_module: Load, tmp_path: Path) -> None:
    module, ours, theirs = load_module("daemon_configure"), tmp_path / "ours", tmp_path / "theirs"
    files = [{"path": str(ours), "content": "x", "validate": ["no-such-program", "%s"], **ME}, {"path": str(theirs)}]
    assert run(module, check=True, files=files)["changed"]
    expected = f"missing on this host: {theirs}, no-such-program; provide it first; nothing was changed"
    assert run(module, files=files)["msg"] == expected
    assert not ours.exists()


def test_unknown_owner_is_named(load_module: Load, tmp_path: Path) -> None:
    path = tmp_path / "a"
    result = run(load_module("daemon_configure"), files=[{"path": str(path), "content": "x", "group": "nobody-here"}])
    assert result["msg"] == f"cannot install {path}: no such user or group: root:nobody-here"


def test_a_file_with_a_preserved_time_is_new_all_the_same(load_module: Load, tmp_path: Path) -> None:
    certificate = tmp_path / "server.crt"
    certificate.write_text("renewed")
    os.utime(certificate, (1_000_000, 1_000_000))
    files = [{"path": str(certificate), "apply": "reload"}]
    written = certificate.stat().st_ctime
    for read_at, expected in ((written - 10, [str(certificate)]), (written, [])):
        result = run(load_module("daemon_configure"), files=files, read_at={"restart": read_at, "reload": read_at})
        assert (result["stale"], result["action"]) == (expected, "reload" if expected else "nothing")


def test_mode_is_octal(load_module: Load, tmp_path: Path) -> None:
    files = [{"path": str(tmp_path / "a"), "content": "x", "mode": "rw-r--r--"}]
    result = run(load_module("daemon_configure"), files=files)
    assert result["msg"] == 'files: each "mode" must be an octal number in quotes, such as "0644"'
