"""The controller is killed in the middle of a rollout: a release serves throughout, and the same command converges."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from platform_lab import ADDRESSES, NODES, ROLLOUT, configured, containers, release, rollout
from visitors import Visitors

import lab

TASKS = [
    "Bring the images to every node, before any switch",
    "Start the candidate and prove it",
    "Switch at the gateway",
    "Stop what it replaces",
]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    assert rollout().returncode == 0


def killed_at(task: str, *arguments: str) -> None:
    """Run a rollout and kill it, with all that it started here, as soon as it begins `task`."""
    run = subprocess.Popen(
        ["ansible-playbook", "--inventory", lab.INVENTORY, str(ROLLOUT), *arguments],
        cwd=lab.PROJECT,
        env={**os.environ, "ANSIBLE_CONFIG": str(lab.PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    seen = any(task in line for line in run.stdout)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert seen, f"the rollout never came to {task}"


@pytest.mark.parametrize("task", TASKS)
def test_the_same_command_again_converges(task: str) -> None:
    number = release()
    change = configured(env={"KILLED_AT": task})
    with Visitors(ADDRESSES) as visitors:
        killed_at(task, *change)
        done = rollout(*change)
    assert done.returncode == 0, done.stdout
    assert visitors.failures == []
    assert release() > number
    assert set(lab.changes(rollout(*change)).values()) == {0}
    for node in NODES:
        states = list(containers(node).values())
        assert states.count("running") == 1
        assert len(states) <= 3, f"{node} keeps {containers(node)}"
