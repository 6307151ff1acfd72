"""The module takes the lock, or says who has it, and never reports a change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.lock import read
from ansible.module_utils.qianjiang.record import read as read_records

from running import ModuleFailedError, run

Load = Callable[[str], ModuleType]


def options(tmp_path: Path, name: str, alive: list[str]) -> dict[str, Any]:
    holder = {"id": name, "controller": "c", "user": "ops", "host": "control-1", "alive": alive}
    return {
        "path": str(tmp_path / "d/lock.json"),
        "datacenter": "hangzhou",
        "holder": holder,
        "alive": alive,
        "reason": "rollout of webui",
        "record_path": str(tmp_path / "rollouts.jsonl"),
    }


def test_it_is_taken_and_kept(load_module: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wanted = options(tmp_path, "a:20", ["a:20"])
    found = run(load_module("lock_acquire"), capsys, wanted, check=True)
    assert (found["changed"], found["lock"], found["taken_over"], found["refused"]) == (False, None, None, "")
    assert list(tmp_path.iterdir()) == []
    first = run(load_module("lock_acquire"), capsys, wanted)
    assert (first["changed"], first["lock"], first["taken_over"]) == (False, read(wanted["path"]), None)
    assert "alive" not in first["lock"]["holder"]
    again = run(load_module("lock_acquire"), capsys, {**wanted, "ttl": 1800})
    assert again["lock"]["acquired_at"] == first["lock"]["acquired_at"]
    assert again["lock"]["expires_at"] > first["lock"]["expires_at"]


def test_another_one_is_refused(load_module: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    module = load_module("lock_acquire")
    lock = run(module, capsys, options(tmp_path, "a:20", ["a:20"]))["lock"]
    wanted = options(tmp_path, "b:30", ["a:20", "b:30"])
    found = run(module, capsys, wanted, check=True)
    assert found["lock"] == lock
    with pytest.raises(ModuleFailedError) as error:
        run(module, capsys, wanted)
    assert str(error.value) == f"lock_acquire: {found['refused']}"
    assert str(error.value).startswith("lock_acquire: hangzhou is locked by ops@control-1 since 20")
    assert error.value.result["lock"] == lock == read(wanted["path"])


def test_a_dead_ones_lock_is_taken_over(load_module: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    module = load_module("lock_acquire")
    lock = run(module, capsys, options(tmp_path, "a:20", ["a:20"]))["lock"]
    wanted = options(tmp_path, "b:30", ["b:30"])
    found = run(module, capsys, wanted, check=True)
    assert (found["lock"], found["refused"], found["taken_over"]) == (lock, "", None)
    taken = run(module, capsys, wanted)
    assert (taken["changed"], taken["lock"]["holder"]["id"]) == (False, "b:30")
    assert taken["taken_over"] == {"lock": lock, "why": "its process is gone"}
    left = [(one["id"], one["datacenter"], one["why"]) for one in read_records(wanted["record_path"])["records"]]
    assert left == [("a:20", "hangzhou", "its process is gone")]


def test_a_lock_that_cannot_go_on_record_is_not_taken_over(
    load_module: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = load_module("lock_acquire")
    lock = run(module, capsys, options(tmp_path, "a:20", ["a:20"]))["lock"]
    wanted = options(tmp_path, "b:30", ["b:30"]) | {"record_path": str(tmp_path / "d/lock.json/records")}
    with pytest.raises(ModuleFailedError, match=r"^lock_acquire: cannot write .*; is there space"):
        run(module, capsys, wanted)
    assert read(wanted["path"]) == lock


@pytest.mark.parametrize("check", [True, False])
def test_what_is_wrong_is_told(
    load_module: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path, check: bool
) -> None:
    wanted = options(tmp_path, "a:20", ["a:20"])
    with pytest.raises(ModuleFailedError, match=r"^lock_acquire: holder: expected id, .*; user, host missing$"):
        run(load_module("lock_acquire"), capsys, {**wanted, "holder": {"id": "a:20", "controller": "c"}}, check=check)
    with pytest.raises(ModuleFailedError, match=r"^lock_acquire: ttl: expected 1 to 86400 seconds, got 0$"):
        run(load_module("lock_acquire"), capsys, {**wanted, "ttl": 0}, check=check)
    Path(wanted["path"]).parent.mkdir()
    Path(wanted["path"]).write_text("{")
    with pytest.raises(ModuleFailedError, match=r"^lock_acquire: .* is damaged .* playbooks/unlock\.yml$"):
        run(load_module("lock_acquire"), capsys, wanted, check=check)
    assert Path(wanted["path"]).read_text() == "{"
