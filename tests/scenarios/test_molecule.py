"""Every molecule scenario as one test, so that one command runs them all and says which failed.

The lab is made anew, from bare hosts; `default` owns it, and those of `rollout` and `stories` run on what it left.
After a scenario that failed the next one gets bare hosts again, so that it fails for reasons of its own. The roles'
scenarios run two by two where their hosts are others, and the output of the one beside is passed on at the end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
# The site and its stories, then the roles by themselves, on hosts that are bare again
SITE = ["default", "rollout", "stories"]
ROLES = ["registry", "gateway", "nfs_client", "docker_engine"]
# What starts with a scenario of the edges, as its own hosts are others: machines of its own, and the nodes
BESIDE = {"registry": "nfs_client", "gateway": "docker_engine"}
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
            process = subprocess.Popen(
                command, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        print(f"{scenario} runs beside, and is told about later", flush=True)
        return cls(scenario, command, log, process)

    def end(self) -> None:
        code = self.process.wait()
        with self.log.open() as lines:
            assert_succeeded(self.command, code, pass_on(lines))

    def stop(self) -> None:
        """Where nobody waited for its end."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()
            if has_machines_of_its_own(self.scenario):
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
def beside() -> Iterator[dict[str, Beside]]:
    """What runs beside. Nothing of it outlives this."""
    started: dict[str, Beside] = {}
    yield started
    for each in started.values():
        each.stop()


def test_every_scenario_is_listed() -> None:
    found = {file.parent.name for file in (PROJECT / "molecule").glob("*/molecule.yml")}
    assert found == {*SITE, *ROLES}


@pytest.mark.parametrize("scenario", SITE + ROLES)
def test_scenario(scenario: str, spoilt: list[str], beside: dict[str, Beside], tmp_path: Path) -> None:
    if scenario in beside:
        beside[scenario].end()
        return
    if spoilt or scenario == ROLES[0]:
        for each in beside.values():
            each.process.wait()
        make_hosts_anew()
        spoilt.clear()
    if other := BESIDE.get(scenario):
        beside[other] = Beside.start(other, tmp_path / f"{other}.log")
    spoilt.append(scenario)
    run(*molecule_test(scenario))
    spoilt.remove(scenario)
