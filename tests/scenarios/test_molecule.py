"""Every molecule scenario as one test, so that one command runs them all and says which failed.

The lab is made anew, from bare hosts; `default` owns it, and those of `rollout` and `stories` run on what it left.
After a scenario that failed the next one gets bare hosts again, so that it fails for reasons of its own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
# The site and its stories, then the roles by themselves, on hosts that are bare again
SITE = ["default", "rollout", "stories"]
ROLES = ["registry", "docker_engine", "gateway", "nfs_client"]
COLOR = re.compile(r"\x1b\[[0-9;]*m")
# What Ansible and the scenarios' own pytest begin a line with that tells a failure
FAILURE = re.compile(r"(fatal: |failed: |\[ERROR\]|FAILED |ERROR |E  )")


def run(*command: str) -> None:
    """Run a command, its output passed on as it comes. What failed in it is told again where it ends."""
    failures: list[str] = []
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            plain = COLOR.sub("", line).rstrip()
            if FAILURE.match(plain):
                failures.append(plain[:400])
    assert process.returncode == 0, "\n".join([" ".join(command), *failures[-40:]])


def molecule(*arguments: str) -> None:
    run("molecule", *arguments)


def make_hosts_anew() -> None:
    """Bare hosts, with the keys and images that are there."""
    run("ansible-playbook", "--inventory", "inventories/lab/hosts.yml", "playbooks/lab.yml", "-e", "lab_recreate=true")


@pytest.fixture(scope="module", autouse=True)
def spoilt() -> Iterator[list[str]]:
    """Nothing of an earlier lab is there, also of one whose run was killed, and nothing of this one stays.

    The scenarios whose end left the lab as it should not be.
    """
    molecule("destroy", "--scenario-name", "default", "--no-command-borders")
    yield []
    molecule("destroy", "--scenario-name", "default", "--no-command-borders")


def has_machines_of_its_own(scenario: str) -> bool:
    configuration = yaml.safe_load((PROJECT / "molecule" / scenario / "molecule.yml").read_text())
    return configuration.get("shared_state") is False


def test_every_scenario_is_listed() -> None:
    found = {file.parent.name for file in (PROJECT / "molecule").glob("*/molecule.yml")}
    assert found == {*SITE, *ROLES}


@pytest.mark.parametrize("scenario", SITE + ROLES)
def test_scenario(scenario: str, spoilt: list[str]) -> None:
    if spoilt or scenario == ROLES[0]:
        make_hosts_anew()
        spoilt.clear()
    keep = [] if has_machines_of_its_own(scenario) else ["--destroy", "never"]
    spoilt.append(scenario)
    molecule("test", "--scenario-name", scenario, *keep, "--no-command-borders")
    spoilt.remove(scenario)
