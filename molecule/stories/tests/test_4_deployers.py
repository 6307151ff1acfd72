"""One deployer at a time, also when one stands still for a while, and one that may die at any step."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import story

import lab

# Every how manieth boundary of a task the controller is killed at; 1 (make test-chaos): at each
SAMPLE = int(os.environ.get("CHAOS_SAMPLE", "20"))


def test_a_second_one_is_refused_and_told_who() -> None:
    with story.Running("rollout", *story.catalogue(env={"VERSION": "first"})) as first:
        assert first.until("Bring the images to every node")
        told = story.refused("rollout", *story.catalogue(env={"VERSION": "second"}))
        first.end()
    assert first.process.returncode == 0
    assert "hangzhou is locked by" in told, told
    assert "rollout of" in told
    for node in story.NODES:
        assert "VERSION=first" in lab.connect(node).check_output(f"docker inspect {story.running(node)[0]}")


def test_one_that_wakes_up_after_its_lock_was_taken_changes_nothing() -> None:
    short = ["--extra-vars", "rollout_lock_ttl=8"]
    with story.Running("rollout", *story.catalogue(env={"VERSION": "sleeper"}), *short) as sleeper:
        assert sleeper.until("Switch at the gateway")
        sleeper.signal(signal.SIGSTOP)
        time.sleep(9)
        story.done("rollout", *story.catalogue(env={"VERSION": "successor"}), *short)
        number = story.release()
        sleeper.signal(signal.SIGCONT)
        told = " ".join(sleeper.end().split())
    assert sleeper.process.returncode != 0, told
    assert story.release() == number
    for node in story.NODES:
        assert "VERSION=successor" in lab.connect(node).check_output(f"docker inspect {story.running(node)[0]}")


def test_one_that_wakes_up_stops_nothing_that_the_next_one_has_started() -> None:
    change = story.catalogue(env={"VERSION": "early sleeper"})
    with story.unnoticed(), story.Running("rollout", *change, "--extra-vars", "rollout_lock_ttl=8") as sleeper:
        assert sleeper.until("Switch at the gateway")
        sleeper.signal(signal.SIGSTOP)
        time.sleep(9)
        with story.Running("rollout", *story.catalogue(env={"VERSION": "next"})) as successor:
            assert successor.until("Switch at the gateway")
            successor.signal(signal.SIGSTOP)
            there = {node: story.containers(node) for node in story.NODES}
            sleeper.signal(signal.SIGCONT)
            told = sleeper.end()
            assert {node: story.containers(node) for node in story.NODES} == there
            successor.signal(signal.SIGCONT)
            successor_told = successor.end()
    assert sleeper.process.returncode != 0, told
    assert successor.process.returncode == 0, successor_told
    story.assert_clean()
    for node in story.NODES:
        assert "VERSION=next" in lab.connect(node).check_output(f"docker inspect {story.running(node)[0]}")


def boundaries() -> int:
    """How many tasks a rollout begins, counted on one that changes everything."""
    with story.Running("rollout", *story.catalogue(env={"VERSION": "counted"})) as rollout:
        rollout.boundary(10_000)
        rollout.process.wait()
    return sum(line.startswith(("TASK [", "RUNNING HANDLER [")) for line in rollout.lines)


def test_killed_at_any_task_the_same_command_ends_right() -> None:
    total = boundaries()
    killed = []
    for number in range(SAMPLE // 2 + 1, total + 1, SAMPLE):
        change = story.catalogue(env={"VERSION": f"killed at {number}"})
        with story.unnoticed(rate=60):
            with story.Running("rollout", *change) as rollout:
                task = rollout.boundary(number)
                if not task:
                    break
                rollout.kill()
            told = story.done("rollout", *change)
        print(f"killed at {number} of {total}: {task}")
        killed.append(number)
        for node in story.NODES:
            assert len(story.running(node)) == 1, f"{task}: {node} runs {story.containers(node)}\n{told}"
        story.assert_clean()
    # The last tasks are not in every rollout
    assert total - max(killed, default=0) < SAMPLE + 5, f"killed at {killed} of {total} tasks"


def test_killed_between_its_last_change_and_its_record_nothing_stays_locked() -> None:
    change = story.catalogue(env={"VERSION": "without a record"})
    with story.Running("rollout", *change) as rollout:
        assert rollout.until("TASK [rollout : Conclude]")
        rollout.kill()
    assert all(story.locks().values())
    told = story.done("rollout", *change, "--limit", "nodes")
    assert not any(story.locks().values()), told
    assert "interrupted" in story.done("history", "-e", "limit=1")


@pytest.mark.parametrize(
    ("task", "new_bytes"),
    [
        pytest.param("Copy what this datacenter lacks", 10_000_000, id="copy"),
        pytest.param("Pull what this node lacks", 10_000_000, id="pull"),
        pytest.param("Start the candidates", 0, id="start"),
    ],
)
def test_killed_inside_a_long_task(task: str, new_bytes: int, tmp_path: Path) -> None:
    change = story.catalogue(env={"VERSION": f"inside {task}"})
    if new_bytes:
        story.done("build", *story.catalogue(), *story.echo_image(tmp_path, new_bytes))
    with story.unnoticed(rate=60):
        with story.Running("rollout", *change) as rollout:
            assert rollout.until(task)
            time.sleep(0.7)
            rollout.kill()
        story.done("rollout", *change)
    assert len({number for found in story.releases().values() for number in found}) == 1
