"""The module gives back what is ours, and with force what is whoever's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.lock import Holder, acquire, read
from ansible.module_utils.qianjiang.record import read as read_records

from running import ModuleFailedError, run

Load = Callable[[str], ModuleType]
HOLDER: Holder = {"id": "a", "controller": "c", "user": "ops", "host": "control-1"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "d/lock.json")
    acquire(path, HOLDER, "rollout of webui", 600, ["a"])
    return path


def test_ours_is_no_change(load_module: Load, capsys: pytest.CaptureFixture[str], path: str) -> None:
    module, lock = load_module("lock_release"), read(path)
    wanted = {"path": path, "holder_id": "a"}
    assert run(module, capsys, wanted, check=True)["released"] == lock == read(path)
    done = run(module, capsys, wanted)
    assert (done["changed"], done["released"], done["note"], read(path)) == (False, lock, "", None)
    again = run(module, capsys, wanted)
    assert (again["changed"], again["released"], again["note"]) == (False, None, "there is no lock")


def test_someone_elses_stays(load_module: Load, capsys: pytest.CaptureFixture[str], path: str) -> None:
    done = run(load_module("lock_release"), capsys, {"path": path, "holder_id": "b"})
    assert (done["changed"], done["released"]) == (False, None)
    assert done["note"].startswith("the lock is not ours: ops@control-1 has it since 20")
    assert read(path) is not None


@pytest.mark.parametrize("damaged", [False, True])
def test_force(load_module: Load, capsys: pytest.CaptureFixture[str], path: str, damaged: bool) -> None:
    lock = None if damaged else read(path)
    if damaged:
        Path(path).write_text("{")
    records = f"{path}.d/rollouts.jsonl"
    module, wanted = load_module("lock_release"), {"path": path, "force": True, "record_path": records}
    found = run(module, capsys, wanted, check=True)
    assert (found["changed"], found["released"], Path(path).exists()) == (True, lock, True)
    done = run(module, capsys, wanted)
    assert (done["changed"], done["released"], Path(path).exists()) == (True, lock, False)
    assert ("is damaged" in done["note"]) == damaged
    assert done["diff"] == {"before": lock or {}, "after": {}} == found["diff"]
    assert run(module, capsys, wanted)["changed"] is False
    why = [record["why"] for record in read_records(records)["records"]]
    assert why == ([] if damaged else ["removed by unlock.yml"])


def test_the_lock_of_a_run_that_is_gone_is_on_record(
    load_module: Load, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    module, lock, records = load_module("lock_release"), read(path), f"{path}.d/rollouts.jsonl"
    wanted = {"path": path, "holder_id": "a", "abandoned": True, "datacenter": "hangzhou", "record_path": records}
    run(module, capsys, wanted, check=True)
    assert read_records(records)["records"] == []
    for _ in range(2):
        run(module, capsys, wanted)
    assert (read(path), lock) != (None, None)
    assert read_records(records)["records"] == [
        {
            "kind": "lock",
            "id": "a",
            "datacenter": "hangzhou",
            "user": "ops",
            "controller": "control-1",
            "started_at": lock["acquired_at"] if lock else "",
            "reason": "rollout of webui",
            "why": "its process is gone",
        }
    ]


def test_a_full_disk_keeps_a_lock_on_record_but_not_from_who_forces_it(
    load_module: Load, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    module, nowhere = load_module("lock_release"), f"{path}/rollouts.jsonl"
    with pytest.raises(ModuleFailedError, match=r"^lock_release: cannot write .*; is there space"):
        run(module, capsys, {"path": path, "holder_id": "a", "abandoned": True, "record_path": nowhere})
    assert read(path) is not None
    done = run(module, capsys, {"path": path, "force": True, "record_path": nowhere})
    assert (read(path), done["note"].startswith("it is not on record: cannot write ")) == (None, True)


@pytest.mark.parametrize("wanted", [{}, {"holder_id": ""}, {"holder_id": "a", "force": True}])
def test_whose_lock_must_be_said(
    load_module: Load, capsys: pytest.CaptureFixture[str], path: str, wanted: dict[str, Any]
) -> None:
    with pytest.raises(ModuleFailedError, match=r"^lock_release: expected either holder_id or force: true$"):
        run(load_module("lock_release"), capsys, {"path": path, **wanted})
    assert read(path) is not None


def test_a_damaged_one_is_not_taken_for_ours(load_module: Load, capsys: pytest.CaptureFixture[str], path: str) -> None:
    Path(path).write_text("{")
    with pytest.raises(ModuleFailedError, match=r"^lock_release: .* is damaged .*"):
        run(load_module("lock_release"), capsys, {"path": path, "holder_id": "a"})
