"""Every molecule scenario as one test, so that one command runs them all and says which failed.

The lab is made anew, from bare hosts; `default` owns it, and those of `rollout` and `stories` run on what it left.
After a scenario that failed the next one gets bare hosts again, so that it fails for reasons of its own. One that has
machines of its own runs beside the one that mostly waits, and tells what it has to tell when that has ended.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
# The site and its stories, then the roles by themselves, on hosts that are bare again
SITE = ["default", "rollout", "stories"]
ROLES = ["registry", "docker_engine", "gateway", "nfs_client"]
# Half of its time is waiting for health checks and for slow requests
WAITS = "gateway"
COLOR = re.compile(r"\x1b\[[0-9;]*m")
# What Ansible and the scenarios' own pytest begin a line with that tells a failure
FAILURE = re.compile(r"(fatal: |failed: |\[ERROR\]|FAILED |ERROR |E  )")


def passed_on(lines: Iterable[str]) -> list[str]:
    """Print output as it comes; the lines of it that tell a failure."""
    failures = []
    for line in lines:
        print(line, end="", flush=True)
        plain = COLOR.sub("", line).rstrip()
        if FAILURE.match(plain):
            failures.append(plain[:400])
    return failures


def start(command: Sequence[str], output: int | IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT, text=True)


def assert_succeeded(process: subprocess.Popen[str], failures: Sequence[str]) -> None:
    """What failed in it is told again where it ends."""
    assert process.wait() == 0, "\n".join([str(process.args), *failures[-40:]])


def run(*command: str) -> None:
    with start(command, subprocess.PIPE) as process:
        assert process.stdout
        failures = passed_on(process.stdout)
    assert_succeeded(process, failures)


def molecule_test(scenario: str) -> list[str]:
    keep = [] if has_machines_of_its_own(scenario) else ["--destroy", "never"]
    return ["molecule", "test", "--scenario-name", scenario, *keep, "--no-command-borders"]


class Beside(NamedTuple):
    """A scenario that runs while another one does, and where its output goes."""

    process: subprocess.Popen[str]
    log: Path

    def end(self) -> None:
        self.process.wait()
        with self.log.open() as lines:
            assert_succeeded(self.process, passed_on(lines))


def run_beside(scenario: str, log: Path) -> Beside:
    print(f"{scenario} runs beside {WAITS}, and tells about itself after it", flush=True)
    with log.open("w") as output:
        return Beside(start(molecule_test(scenario), output), log)


def make_hosts_anew() -> None:
    """Bare hosts, with the keys and images that are there."""
    run("ansible-playbook", "--inventory", "inventories/lab/hosts.yml", "playbooks/lab.yml", "-e", "lab_recreate=true")


def destroy() -> None:
    run("molecule", "destroy", "--scenario-name", "default", "--no-command-borders")


@pytest.fixture(scope="module", autouse=True)
def spoilt() -> Iterator[list[str]]:
    """Nothing of an earlier lab is there, also of one whose run was killed, and nothing of this one stays.

    The scenarios whose end left the lab as it should not be.
    """
    destroy()
    yield []
    destroy()


@pytest.fixture(scope="module")
def beside() -> Iterator[dict[str, Beside]]:
    """What runs beside, by scenario. Nothing of it outlives this."""
    found: dict[str, Beside] = {}
    yield found
    for each in found.values():
        each.process.terminate()
        each.process.wait()


def has_machines_of_its_own(scenario: str) -> bool:
    configuration = yaml.safe_load((PROJECT / "molecule" / scenario / "molecule.yml").read_text())
    return configuration.get("shared_state") is False


def test_every_scenario_is_listed() -> None:
    found = {file.parent.name for file in (PROJECT / "molecule").glob("*/molecule.yml")}
    assert found == {*SITE, *ROLES}


@pytest.mark.parametrize("scenario", SITE + ROLES)
def test_scenario(scenario: str, spoilt: list[str], beside: dict[str, Beside], tmp_path: Path) -> None:
    if scenario in beside:
        return beside[scenario].end()
    if spoilt or scenario == ROLES[0]:
        make_hosts_anew()
        spoilt.clear()
    if scenario == WAITS:
        beside.update({name: run_beside(name, tmp_path / name) for name in ROLES if has_machines_of_its_own(name)})
    spoilt.append(scenario)
    run(*molecule_test(scenario))
    spoilt.remove(scenario)
    return None
