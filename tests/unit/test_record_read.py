"""The module reads what is there, also where something is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from ansible.module_utils.qianjiang.record import append

from running import ModuleFailedError, run

Load = Callable[[str], ModuleType]


@pytest.mark.parametrize("check", [True, False])
def test_it_reads(load_module: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path, check: bool) -> None:
    path = tmp_path / "r.jsonl"
    module = load_module("record_read")
    empty = run(module, capsys, {"path": str(path)}, check=check)
    assert (empty["changed"], empty["records"], empty["damaged"]) == (False, [], 0)
    records = [{"kind": "rollout", "id": name, "started_at": "2026-11-24T10:05:11Z"} for name in ("1", "2")]
    append(str(path), records)
    with path.open("a") as stream:
        stream.write("{")
    found = run(module, capsys, {"path": str(path)}, check=check)
    assert (found["changed"], found["records"], found["damaged"]) == (False, records, 1)
    assert run(module, capsys, {"path": str(path), "limit": 1}, check=check)["records"] == records[1:]


def test_what_is_wrong_is_told(load_module: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    module = load_module("record_read")
    with pytest.raises(ModuleFailedError, match=r"^record_read: limit: expected 0 or more, got -1$"):
        run(module, capsys, {"limit": -1})
    with pytest.raises(ModuleFailedError, match=r"^record_read: cannot read .*: Is a directory$"):
        run(module, capsys, {"path": str(tmp_path)})
