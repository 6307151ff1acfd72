"""Every molecule scenario as one test, so that one command runs them all and says which failed.

The lab is made anew, from bare hosts; `default` owns it, and those of `rollout` and `stories` run on what it left.
After a scenario that failed the next one gets bare hosts again, so that it fails for reasons of its own. One that has
machines of its own runs beside those before it, and its output is passed on when they have ended.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
# The site and its stories, then the roles by themselves, on hosts that are bare again
SITE = ["default", "rollout", "stories"]
ROLES = ["registry", "docker_engine", "nfs_client", "gateway"]
# Starts with the first of the roles: it waits for servers that are away and for reboots, and counts no lost requests
BESIDE = "nfs_client"
COLOR = re.compile(r"\x1b\[[0-9;]*m")
# What Ansible and the scenarios' own pytest begin a line with that tells a failure
FAILURE = re.compile(r"(fatal: |failed: |\[ERROR\]|FAILED |ERROR |E  )")


def pass_on(lines: Iterable[str]) -> list[str]:
    """Print output as it comes; its lines that tell a failure."""
    failures: list[str] = []
    for line in lines:
        print(line, end="", flush=True)
        plain = COLOR.sub("", line).rstrip()
        if FAILURE.match(plain):
            failures.append(plain[:400])
    return failures


def assert_succeeded(command: Sequence[str], code: int, failures: Sequence[str]) -> None:
    """What failed in it is told again where it ends."""
    assert code == 0, "\n".join([" ".join(command), *failures[-40:]])


def run(*command: str) -> None:
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        failures = pass_on(process.stdout)
    assert_succeeded(command, process.returncode, failures)


class Beside(NamedTuple):
    """A scenario that runs while others do."""

    scenario: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, scenario: str, log: Path) -> Beside:
        command = molecule_test(scenario)
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT)
        print(f"{scenario} runs beside the next ones, and is told about after them", flush=True)
        return cls(scenario, command, log, process)

    def end(self) -> None:
        code = self.process.wait()
        with self.log.open() as lines:
            assert_succeeded(self.command, code, pass_on(lines))

    def stop(self) -> None:
        """Where nobody waited for its end."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
            run("molecule", "destroy", "--scenario-name", self.scenario, "--no-command-borders")


def molecule_test(scenario: str) -> list[str]:
    keep = [] if has_machines_of_its_own(scenario) else ["--destroy", "never"]
    return ["molecule", "test", "--scenario-name", scenario, *keep, "--no-command-borders"]


def has_machines_of_its_own(scenario: str) -> bool:
    configuration = yaml.safe_load((PROJECT / "molecule" / scenario / "molecule.yml").read_text())
    return configuration.get("shared_state") is False


def make_hosts_anew() -> None:
    """Bare hosts, with the keys and images that are there."""
    run("ansible-playbook", "--inventory", "inventories/lab/hosts.yml", "playbooks/lab.yml", "-e", "lab_recreate=true")


def destroy_lab() -> None:
    run("molecule", "destroy", "--scenario-name", "default", "--no-command-borders")


@pytest.fixture(scope="module", autouse=True)
def spoilt() -> Iterator[list[str]]:
    """Nothing of an earlier lab is there, also of one whose run was killed, and nothing of this one stays.

    The scenarios whose end left the lab as it should not be.
    """
    destroy_lab()
    yield []
    destroy_lab()


@pytest.fixture(scope="module")
def beside() -> Iterator[list[Beside]]:
    """What runs beside. Nothing of it outlives this."""
    started: list[Beside] = []
    yield started
    for each in started:
        each.stop()


def test_every_scenario_is_listed() -> None:
    found = {file.parent.name for file in (PROJECT / "molecule").glob("*/molecule.yml")}
    assert found == {*SITE, *ROLES}


@pytest.mark.parametrize("scenario", SITE + ROLES)
def test_scenario(scenario: str, spoilt: list[str], beside: list[Beside], tmp_path: Path) -> None:
    if spoilt or scenario == ROLES[0]:
        make_hosts_anew()
        spoilt.clear()
    if scenario == ROLES[0]:
        beside.append(Beside.start(BESIDE, tmp_path / f"{BESIDE}.log"))
    if beside and scenario == BESIDE:
        beside[0].end()
        return
    spoilt.append(scenario)
    run(*molecule_test(scenario))
    spoilt.remove(scenario)
