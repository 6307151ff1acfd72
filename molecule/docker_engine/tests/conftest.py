from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")]

import engines as under_test
import lab


@pytest.fixture(scope="session")
def engines() -> list[under_test.Engine]:
    """An engine of each version."""
    return [under_test.Engine(name, lab.connect(name)) for name in under_test.NAMES]


@pytest.fixture
def restored(engines: list[under_test.Engine]) -> Iterator[list[under_test.Engine]]:
    """Engines that a test may bend: they are right again afterwards, for this and the other scenarios."""
    yield engines
    assert under_test.apply().returncode == 0
