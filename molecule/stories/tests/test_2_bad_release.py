"""Releases that must not come to serve: the old one serves on, all is as before, and the reason is told."""

from __future__ import annotations

from typing import Any

import pytest
import story

import lab

QUICK = {"min_healthy_time": 1, "healthy_deadline": 8}


def behaving(behaviour: str, **update: Any) -> list[str]:
    return story.catalogue(
        env={"ECHO_BEHAVIOUR": behaviour}, health={"start_period": 2}, update=QUICK | update, stop_timeout=3
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param(behaving("exits"), "exit code 3", id="exits at once"),
        pytest.param(
            behaving("exits-later:3", min_healthy_time=6, healthy_deadline=20), "exit code 3", id="exits later"
        ),
        pytest.param(behaving("never-healthy"), "not healthy within 8 s", id="never healthy"),
        pytest.param([*story.catalogue(), "-e", "service=echo release=nope"], "no image of echo", id="image missing"),
        pytest.param(
            [*story.catalogue(), "-e", f"service=echo release=sha256:{'0' * 64}"], "no image of echo", id="wrong digest"
        ),
    ],
)
def test_it_stops_at_the_first_node(arguments: list[str], reason: str) -> None:
    before = {node: story.containers(node) for node in story.NODES}
    with story.unnoticed(rate=60):
        told = story.refused("rollout", *arguments)
    assert reason in told
    assert {node: story.containers(node) for node in story.NODES} == before


def test_one_that_is_sick_while_it_bakes_goes_back() -> None:
    before = {node: story.running(node) for node in story.NODES}
    with story.unnoticed(rate=60):
        told = story.refused("rollout", *behaving("sick-after:9", bake_time=25))
    assert "gateway_watch" in told
    for node in story.NODES:
        assert f"{node}: echo.0: stays on" in told
    assert {node: story.running(node) for node in story.NODES} == before


def test_one_that_answers_errors_while_it_bakes_goes_back() -> None:
    before = {node: story.running(node) for node in story.NODES}
    with story.Load(story.TARGETS, rate=100, warm_up=1) as load:
        told = story.refused("rollout", *behaving("errors:0.5", bake_time=15))
    assert "gateway_watch" in told
    assert {node: story.running(node) for node in story.NODES} == before
    assert {problem.split(" ")[0] for problem in load.failures} <= {"GET"}, str(load)


def test_one_that_is_slow_to_start_is_waited_for() -> None:
    number = story.release()
    with story.unnoticed(rate=60):
        story.done("rollout", *behaving("slow-start:4", healthy_deadline=20))
    assert story.release() > number


def test_one_that_ignores_sigterm_is_killed_when_it_serves_no_more() -> None:
    with story.unnoticed(rate=60):
        story.done("rollout", *behaving("ignores-term"))
        story.done("rollout", *story.catalogue())
    assert all(len(story.running(node)) == 1 for node in story.NODES)


def test_a_port_that_is_taken_is_told_before_anything_moves() -> None:
    node = story.NODES[-1]
    host = lab.connect(node)
    taken = next(
        port for port in (18100, 18101) if f":{port} " not in host.check_output("ss --listening --tcp --numeric") + " "
    )
    host.check_output(f"systemd-run --unit=squatter --collect python3 -m http.server {taken}")
    before = {other: story.containers(other) for other in story.NODES}
    try:
        told = story.refused("rollout", *story.catalogue(env={"VERSION": "squatted"}))
    finally:
        host.check_output("systemctl stop squatter")
    assert f"{node}: the port of slot" in told
    assert "taken by process python3" in told
    assert {other: story.containers(other) for other in story.NODES} == before


def test_a_wave_that_fails_half_way_goes_back_whole() -> None:
    """The second node of the datacenter lacks what it mounts; the first one has switched already."""
    source = "/var/lib/qianjiang/story/mounted"
    for node in (story.NODES[0], *story.NODES[2:]):
        lab.connect(node).check_output(f"mkdir -p {source}")
    mounts = [*story.echo_service.ENTRY["mounts"], {"source": source, "target": "/srv/mounted"}]
    before = {node: story.running(node) for node in story.NODES}
    with story.unnoticed(rate=60):
        told = story.refused("rollout", *story.catalogue(mounts=mounts), *story.ONE_BY_ONE)
    assert f"{story.NODES[1]}: service_start" in told
    assert {node: story.running(node) for node in story.NODES} == before
    rollout, *replicas = story.last_rollout()
    assert rollout["result"] == "reverted"
    results = {record["node"]: record["result"] for record in replicas}
    assert results == dict(zip(story.NODES, ["reverted", "failed", "untouched", "untouched"], strict=True))
    assert f"{rollout['started_at']} {story.NODES[0]}: its wave went back" in story.done("history")
