"""One round trip ends a rollout: the records are written, and then the lock is ours no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang import durable, lock, record

from running import ModuleFailedError, run

Load = Callable[[str], ModuleType]
HOLDER: lock.Holder = {"id": "a", "controller": "c", "user": "ops", "host": "control-1"}
RECORDS = [{"kind": "rollout", "id": "a", "started_at": "2026-11-24T10:05:11Z"}]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    lock_path = str(tmp_path / "d/lock.json")
    lock.acquire(lock_path, HOLDER, "rollout of webui", 600, ["a"])
    return {"records": RECORDS, "path": str(tmp_path / "r/r.jsonl"), "lock_path": lock_path, "holder_id": "a"}


def test_recorded_and_released(load_module: Load, capsys: pytest.CaptureFixture[str], options: dict[str, Any]) -> None:
    module, held = load_module("record_append"), lock.read(options["lock_path"])
    found = run(module, capsys, options, check=True)
    assert (found["changed"], found["appended"], found["released"]) == (False, 0, None)
    assert (lock.read(options["lock_path"]), record.read(options["path"])["records"]) == (held, [])
    done = run(module, capsys, options)
    assert (done["changed"], done["appended"], done["released"], done["note"]) == (False, 1, held, "")
    assert (lock.read(options["lock_path"]), record.read(options["path"])["records"]) == (None, RECORDS)
    again = run(module, capsys, options)
    assert (again["appended"], again["released"], again["note"]) == (0, None, "there is no lock")


def test_without_a_lock(load_module: Load, capsys: pytest.CaptureFixture[str], options: dict[str, Any]) -> None:
    wanted = {"records": RECORDS, "path": options["path"]}
    done = run(load_module("record_append"), capsys, wanted)
    assert (done["appended"], done["released"], done["note"]) == (1, None, "")
    assert lock.read(options["lock_path"]) is not None
    with pytest.raises(ModuleFailedError, match=r"^parameters are required together: lock_path, holder_id$"):
        run(load_module("record_append"), capsys, {**wanted, "holder_id": "a"})


def test_someone_elses_lock_stays(
    load_module: Load, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    done = run(load_module("record_append"), capsys, {**options, "holder_id": "b"})
    assert (done["appended"], done["released"]) == (1, None)
    assert done["note"].startswith("the lock is not ours: ops@control-1 has it since ")
    assert lock.read(options["lock_path"]) is not None


def test_the_lock_stays_until_the_records_are_on_the_disk(
    load_module: Load, capsys: pytest.CaptureFixture[str], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        assert lock.read(options["lock_path"]) is not None
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(ModuleFailedError, match=r"^record_append: cannot write .*/r\.jsonl: No space left on device; "):
        run(load_module("record_append"), capsys, options)
    assert lock.read(options["lock_path"]) is not None
    assert record.read(options["path"])["records"] == []


def test_a_damaged_lock_is_told_after_the_records_are_written(
    load_module: Load, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    Path(options["lock_path"]).write_text("{")
    with pytest.raises(ModuleFailedError) as error:
        run(load_module("record_append"), capsys, options)
    assert str(error.value).startswith("record_append: the records are written, but the lock is not released: ")
    assert record.read(options["path"])["records"] == RECORDS


@pytest.mark.parametrize("check", [True, False])
def test_bad_input_changes_nothing(
    load_module: Load, capsys: pytest.CaptureFixture[str], options: dict[str, Any], check: bool
) -> None:
    with pytest.raises(
        ModuleFailedError, match=r"^record_append: records\[0\]\.kind: expected rollout, node, lock, got "
    ):
        run(load_module("record_append"), capsys, {**options, "records": [{"kind": "x"}]}, check=check)
    assert lock.read(options["lock_path"]) is not None
    assert not Path(options["path"]).exists()
