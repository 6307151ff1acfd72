from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import load


@pytest.fixture
def load_module() -> Callable[[str], ModuleType]:
    """`load_module("image_build")` imports library/image_build.py."""
    return lambda name: load(f"library/{name}.py")
