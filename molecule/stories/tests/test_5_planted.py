"""The stories are tried on themselves: with a guarantee taken out of the code, they must go red.

Each patch in ../planted takes one out. It is applied to a copy of the project, and a story runs from there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import story

import lab

PLANTED = Path(__file__).parents[1] / "planted"
STORIES = {
    "drain_skipped": "test_1_unnoticed.py::test_one_that_drops_what_is_open_when_it_is_told_to_stop",
    "health_gate_skipped": "test_2_bad_release.py::test_it_stops_at_the_first_node[exits later]",
    "fence_skipped": "test_4_deployers.py::test_one_that_wakes_up_after_its_lock_was_taken_changes_nothing",
    "digest_not_verified": "test_1_unnoticed.py::test_a_new_image",
}


def copy_of_the_project(directory: Path) -> Path:
    """What git knows, with this lab's keys."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=lab.PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.splitlines()):
        if (lab.PROJECT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(lab.PROJECT / name, directory / name)
    for name in (".lab", ".venv"):
        (directory / name).symlink_to(lab.PROJECT / name)
    return directory


def test_each_patch_has_its_story() -> None:
    assert {file.stem for file in PLANTED.glob("*.patch")} == set(STORIES)


@pytest.mark.parametrize("planted", STORIES)
def test_the_story_goes_red(planted: str, tmp_path: Path) -> None:
    project = copy_of_the_project(tmp_path)
    subprocess.run(["patch", "--strip=1", "--input", str(PLANTED / f"{planted}.patch")], cwd=project, check=True)
    options = ["--override-ini", "addopts=", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"molecule/stories/tests/{STORIES[planted]}"],
        cwd=project,
        env={**os.environ, "STORIES_SITE": "as it is"},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        story.assert_clean()
        story.release()
    except AssertionError:
        story.restore()
    assert done.returncode == 1, done.stdout[-3000:]
    assert re.search(r"\b1 (failed|error)", done.stdout), done.stdout[-3000:]
    print(next((line for line in done.stdout.splitlines() if line.startswith("E ")), ""))
