"""The module prolongs what is ours, and fails where it is not ours any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.lock import Holder, acquire, read, release

from running import ModuleFailedError, run

Load = Callable[[str], ModuleType]
HOLDER: Holder = {"id": "a", "controller": "c", "user": "ops", "host": "control-1"}
OTHER: Holder = {"id": "b", "controller": "d", "user": "dev", "host": "control-2"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "d/lock.json")
    acquire(path, HOLDER, "rollout of webui", 5, ["a"], clock=lambda: 1000.0)
    return path


def renewed(load_module: Load, capsys: pytest.CaptureFixture[str], path: str, *, check: bool = False) -> dict[str, Any]:
    wanted = {"path": path, "datacenter": "hangzhou", "holder_id": "a", "ttl": 60}
    return dict(run(load_module("lock_renew"), capsys, wanted, check=check))


def test_ours_lasts_longer_also_when_it_had_expired(
    load_module: Load, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    before = read(path)
    assert before
    done = renewed(load_module, capsys, path)
    after = read(path)
    assert after == done["lock"] == before | {"expires_at": after["expires_at"]}
    assert after["expires_at"] > before["expires_at"]
    assert done["changed"] is False


def test_check_mode_renews_nothing(load_module: Load, capsys: pytest.CaptureFixture[str], path: str) -> None:
    before = read(path)
    assert renewed(load_module, capsys, path, check=True)["lock"] is None
    assert read(path) == before


def test_what_somebody_else_has_is_lost(load_module: Load, capsys: pytest.CaptureFixture[str], path: str) -> None:
    acquire(path, OTHER, "restart of webui", 600, ["b"])
    with pytest.raises(ModuleFailedError) as error:
        renewed(load_module, capsys, path)
    assert "lock_renew: the lock of hangzhou is lost: dev@control-2 has it since 20" in str(error.value)


def test_so_is_what_nobody_has(load_module: Load, capsys: pytest.CaptureFixture[str], path: str) -> None:
    release(path, None)
    with pytest.raises(ModuleFailedError, match="nobody has it any more"):
        renewed(load_module, capsys, path)
