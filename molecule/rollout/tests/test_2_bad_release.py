"""Releases that cannot work: the old one serves on, the reason is told, nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from platform_lab import ADDRESSES, NODES, build, configured, containers, digests, release, rollout, source
from visitors import Visitors

import lab


def test_a_release_that_ends_at_once_stops_at_the_first_node(tmp_path: Path) -> None:
    directory = source(tmp_path)
    (directory / "services/webui/run.sh").write_text("#!/bin/sh\necho the database is not there\nexit 3\n")
    before, number = {node: containers(node) for node in NODES}, release()
    build(directory)
    with Visitors(ADDRESSES) as visitors:
        done = rollout()
    assert done.returncode != 0
    assert visitors.failures == []
    told = " ".join(done.stdout.split())
    assert f"{NODES[0]}: service_start: webui.0.r{number + 1}" in told
    assert "exit code 3" in told
    assert "the database is not there" in told
    for node in NODES:
        assert f"{node}: webui.0: stays on r{number}" in told
        assert containers(node) == before[node]


def test_the_source_before_brings_everything_right(tmp_path: Path) -> None:
    build(source(tmp_path))
    done = rollout()
    assert done.returncode == 0, done.stdout
    assert len(digests()) == 1
    assert set(lab.changes(rollout()).values()) == {0}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"health": {"path": "/nowhere", "interval": 1, "start_period": 2}}, "GET /nowhere answered 404"),
        ({"command": ["/nowhere"]}, "/nowhere"),
    ],
)
def test_a_configuration_that_cannot_work_changes_nothing(keys: dict[str, object], reason: str) -> None:
    before = {node: containers(node) for node in NODES}
    update = {"min_healthy_time": 1, "healthy_deadline": 8}
    keys = {"health": {"interval": 1, "start_period": 2}} | keys | {"update": update}
    with Visitors(ADDRESSES) as visitors:
        done = rollout(*configured(**keys))
    assert done.returncode != 0
    assert reason in done.stdout
    assert visitors.failures == []
    assert {node: containers(node) for node in NODES} == before
