from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from ansible.module_utils.qianjiang import host_lock

sys.path.insert(0, str(Path(__file__).parent))

from support import load


@pytest.fixture(autouse=True)
def _own_locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests wait for none of this host's runs."""
    monkeypatch.setattr(host_lock, "FOLDER", tmp_path_factory.mktemp("locks"))


@pytest.fixture
def load_module() -> Callable[[str], ModuleType]:
    """`load_module("image_build")` imports library/image_build.py."""
    return lambda name: load(f"library/{name}.py")
