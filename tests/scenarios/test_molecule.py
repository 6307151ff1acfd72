"""Every molecule scenario as one test, so that one command runs them all and says which failed.

The lab is made anew, from bare hosts; `default` owns it, and the stories of `rollout` run on what it left.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
# The site and its stories, then the roles by themselves, on hosts that are bare again
SITE = ["default", "rollout"]
ROLES = ["registry", "docker_engine", "gateway", "nfs_client"]


def molecule(*arguments: str) -> int:
    return subprocess.run(["molecule", *arguments], cwd=PROJECT, check=False).returncode


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[None]:
    """Nothing of an earlier lab is there, also of one whose run was killed, and nothing of this one stays."""
    assert molecule("destroy", "--scenario-name", "default") == 0
    yield
    assert molecule("destroy", "--scenario-name", "default") == 0


def has_machines_of_its_own(scenario: str) -> bool:
    configuration = yaml.safe_load((PROJECT / "molecule" / scenario / "molecule.yml").read_text())
    return configuration.get("shared_state") is False


def test_every_scenario_is_listed() -> None:
    found = {file.parent.name for file in (PROJECT / "molecule").glob("*/molecule.yml")}
    assert found == {*SITE, *ROLES}


@pytest.mark.parametrize("scenario", SITE + ROLES)
def test_scenario(scenario: str) -> None:
    if scenario == ROLES[0]:
        assert molecule("destroy", "--scenario-name", "default") == 0
        assert molecule("create", "--scenario-name", "default") == 0
    if has_machines_of_its_own(scenario):
        assert molecule("test", "--scenario-name", scenario, "--no-command-borders") == 0
    else:
        assert molecule("test", "--scenario-name", scenario, "--destroy", "never", "--no-command-borders") == 0
