from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[2] / "support")]

import story


@pytest.fixture(scope="session", autouse=True)
def site() -> None:
    """The lab's platform with the test service beside the WebUI."""
    if not os.environ.get("STORIES_SITE"):
        story.site()


@pytest.fixture
def restored() -> None:
    """For a story that does not begin with a change of its own: echo as it is in the catalogue."""
    story.restore()


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    """Whatever a story did: one container for each replica, each in rotation, no lock, nothing half done."""
    yield
    try:
        story.assert_clean()
    except AssertionError:
        story.restore()
        raise
