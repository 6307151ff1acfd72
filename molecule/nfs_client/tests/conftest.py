from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from clients import Guest, guest, lab


@pytest.fixture(scope="session")
def files1() -> Guest:
    return guest("files1", "10.213.0.11")


@pytest.fixture(scope="session")
def files2() -> Guest:
    return guest("files2", "10.213.0.12")


@pytest.fixture
def dead_server() -> Iterator[None]:
    """A server that answers nothing, not even with a refusal."""
    lab("mute")
    yield
    lab("unmute")
