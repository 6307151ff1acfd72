"""What an operator does in a year, while visitors ask 300 times a second: not one of them may notice.

At least 30,000 requests in all: quick GETs, GETs of 2 s, POSTs that count once, streams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import story

import lab

sent: list[int] = []


@contextmanager
def unnoticed(**options: Any) -> Iterator[None]:
    with story.unnoticed(**options) as load:
        yield
    sent.append(load.total)


def test_deploy_redeploy_and_roll_back() -> None:
    """The second one also moves to other ports, and its gateways are not reloaded for that."""
    number = story.release()
    second = story.catalogue(env={"VERSION": "3"}, slots_port=18110)
    with unnoticed():
        story.done("rollout", *story.catalogue(env={"VERSION": "2"}), *story.ONE_BY_ONE)
        story.done("rollout", *second)
        assert story.release() == number + 2
        told = story.done("rollback", *second, "--extra-vars", "service=echo")
    assert story.release() == number + 1
    assert f"echo.0: r{number + 2} " in told
    for node in story.NODES:
        name = story.running(node)[0]
        assert "VERSION=2" in lab.connect(node).check_output(f"docker inspect {name}")


def test_a_new_image(tmp_path: Path) -> None:
    before = {node: story.digest(node) for node in story.NODES}
    with unnoticed():
        story.done("build", *story.catalogue(), *story.echo_image(tmp_path, 1_000_000))
        story.done("rollout", *story.catalogue(env={"ECHO_BEHAVIOUR": "drops-at-term"}))
    after = {node: story.digest(node) for node in story.NODES}
    assert len(set(after.values())) == 1
    assert set(after.values()).isdisjoint(before.values())


def test_one_that_drops_what_is_open_when_it_is_told_to_stop() -> None:
    """Only a gateway that waits loses nothing. It is the release before this, or one made for it."""
    dropping = story.catalogue(env={"ECHO_BEHAVIOUR": "drops-at-term"})
    story.done("rollout", *dropping, "--extra-vars", "service=echo")
    with unnoticed(kinds=story.LONG):
        story.done("rollout", *story.catalogue())


def test_restart() -> None:
    number = story.release()
    with unnoticed():
        story.done("restart", *story.catalogue(), "--extra-vars", "service=echo")
    assert story.release() > number


@pytest.mark.usefixtures("restored")
def test_scale_out_and_in() -> None:
    more = story.catalogue(replicas=2)
    with unnoticed():
        story.done("scale", *more, "--extra-vars", "service=echo")
        assert {node: len(story.running(node)) for node in story.NODES} == dict.fromkeys(story.NODES, 2)
        assert all(len(servers) == 4 for servers in story.in_rotation().values())
        story.done("scale", *story.catalogue(), "--extra-vars", "service=echo")
    assert {node: len(story.running(node)) for node in story.NODES} == dict.fromkeys(story.NODES, 1)
    assert not any(lab.changes(story.run("scale", *story.catalogue(), "--extra-vars", "service=echo")).values())


@pytest.mark.parametrize("target", [story.NODES[0], "hangzhou"])
def test_drain_and_undrain(target: str) -> None:
    drained = story.in_datacenter(target) or [target]
    before, change = story.in_rotation(), story.catalogue(env={"VERSION": f"drained {target}"})
    with unnoticed():
        story.done("drain", *story.catalogue(), "--extra-vars", f"target={target}")
        serving = {server.split(".")[0] for servers in story.in_rotation().values() for server in servers}
        assert serving == set(story.NODES) - set(drained)
        # A rollout reaches a drained node too, and leaves it out of rotation
        story.done("rollout", *change)
        serving = {server.split(".")[0] for servers in story.in_rotation().values() for server in servers}
        assert serving == set(story.NODES) - set(drained)
        story.done("undrain", *change, "--extra-vars", f"target={target}")
    assert {gateway: len(servers) for gateway, servers in story.in_rotation().items()} == {
        gateway: len(servers) for gateway, servers in before.items()
    }


def test_the_last_that_serves_is_not_drained() -> None:
    told = story.refused("drain", *story.catalogue(), "--extra-vars", "target=nodes")
    assert "nobody would be left to answer" in told


def test_the_roles_run_again_gateways_reload_and_engines_restart() -> None:
    with unnoticed():
        assert not any(lab.changes(story.run("nodes", *story.catalogue())).values())
        for gateway in story.GATEWAYS:
            lab.connect(gateway).check_output("systemctl reload haproxy")
        for node in story.NODES:
            lab.connect(node).check_output("systemctl restart docker")


SPARE: dict[str, Any] = story.echo_service.entry(slots_port=18200, gateway={"port": 8082})


def test_another_service_comes_and_retires() -> None:
    with unnoticed():
        story.done("site", *story.catalogue({"spare": SPARE}), "--tags", "gateway,build,rollout")
        assert all(story.running(node, "spare") for node in story.NODES)
        told = story.done("status", *story.catalogue())
        assert "orphan on" in told
        story.done("retire", *story.catalogue(), "--extra-vars", "service=spare")
    for node in story.NODES:
        assert story.containers(node, "spare") == {}
    assert "orphan" not in story.done("status", *story.catalogue())
    told = story.refused("retire", *story.catalogue(), "--extra-vars", "service=echo")
    assert "echo is in the catalogue; take it out first" in told


def test_what_outlasts_the_drain_is_cut_and_on_record() -> None:
    """Not one of those that nobody may notice: requests of 6 s, and a drain that waits for 1 s."""
    more = [dataclasses.replace(kind, share=max(kind.share, 10)) for kind in story.LONG]
    with story.Load(story.TARGETS, rate=60, warm_up=1, kinds=more) as load:
        story.done("rollout", *story.catalogue(env={"VERSION": "cut"}, update={"drain_timeout": 1}))
    # A GET whose answer has not begun may be asked again of another replica
    assert {problem.split(" ")[0] for problem in load.failures} - {"SLOW"} == {"STREAM"}, str(load)
    # One that ends by itself in that moment is counted, too
    assert story.last_rollout()[0]["cut"] >= sum(load.failures.values()), str(load)


def test_enough_visitors_were_there() -> None:
    assert sum(sent) >= 30_000, f"only {sum(sent)} requests"
