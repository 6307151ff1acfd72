"""Datacenters, registries and links that are away, before a rollout or in the middle of one."""

from __future__ import annotations

import threading
from pathlib import Path

import story

import lab

CONTINUE = ["--extra-vars", '{"datacenters": {"unreachable": "continue", "on_failure": "continue"}}']
HANGZHOU, SHANGHAI = story.in_datacenter("hangzhou"), story.in_datacenter("shanghai")
EDGE = next(gateway for gateway in story.GATEWAYS if lab.variable(gateway, "datacenter") == "shanghai")


def test_a_datacenter_that_is_away_stops_what_the_policy_says() -> None:
    number, change = story.release(), story.catalogue(env={"VERSION": "away"})
    with story.away("shanghai"), story.impatient() as soon:
        told = story.refused("rollout", *change, **soon)
        for node in SHANGHAI:
            assert f"{node}" in told
        assert "cannot be reached, so nothing is changed anywhere" in told
        assert {len(story.running(node)) for node in HANGZHOU} == {1}
        told = story.refused("rollout", *change, *CONTINUE, **soon)
        for node in SHANGHAI:
            assert f"{node}: echo: could not be reached" in told
    found = story.releases()
    (newer,) = {max(found[node]) for node in HANGZHOU}
    assert newer > number
    assert {max(found[node]) for node in SHANGHAI} == {number}
    # It catches up, and nothing else is touched
    started = {node: story.started(node) for node in HANGZHOU}
    story.done("rollout", *change)
    assert story.release() == newer
    assert {node: story.started(node) for node in HANGZHOU} == started


def test_a_datacenter_that_is_lost_on_the_way_catches_up() -> None:
    number, change = story.release(), story.catalogue(env={"VERSION": "lost"})
    with story.impatient() as soon:
        with story.Running("rollout", *change, *CONTINUE, **soon) as rollout:
            assert rollout.until("Switch at the gateway")
            with story.away("shanghai"):
                told = " ".join(rollout.end().split())
        assert rollout.process.returncode != 0
    assert "could not be reached" in told
    found = story.releases()
    (newer,) = {max(found[node]) for node in HANGZHOU}
    assert newer > number
    assert {max(found[node]) for node in SHANGHAI} == {number}
    story.done("rollout", *change)
    assert story.release() >= newer


def test_a_registry_that_is_down_is_told_before_any_switch(tmp_path: Path) -> None:
    before = {node: story.containers(node) for node in story.NODES}
    story.done("build", *story.catalogue(), *story.echo_image(tmp_path, 1_000_000))
    lab.connect(EDGE).check_output("systemctl stop docker-registry")
    try:
        told = story.refused("rollout", *story.catalogue(), "--extra-vars", "service=echo")
    finally:
        lab.connect(EDGE).check_output("systemctl start docker-registry")
    assert f"{SHANGHAI[0]}: " in told
    assert {node: story.containers(node) for node in story.NODES} == before
    story.done("rollout", *story.catalogue(), "--extra-vars", "service=echo")


def test_a_disk_that_is_full_leaves_no_half_copy(tmp_path: Path) -> None:
    before = {node: story.containers(node) for node in story.NODES}
    folder = str(lab.variable(EDGE, "registry_storage_path | default('/var/lib/docker-registry')"))
    story.done("build", *story.catalogue(), *story.echo_image(tmp_path, 30_000_000))
    host = lab.connect(EDGE)
    # The registry has a view of the files of its own
    inside = (
        f"nsenter --target {host.check_output('systemctl show --value --property MainPID docker-registry')} --mount"
    )
    host.check_output(f"{inside} mount -t tmpfs -o size=12m,mode=0777 tmpfs {folder}")
    try:
        told = story.refused("rollout", *story.catalogue(), "--extra-vars", "service=echo")
    finally:
        host.check_output(f"{inside} umount --lazy {folder}")
    assert f"{SHANGHAI[0]}: " in told
    assert {node: story.containers(node) for node in story.NODES} == before
    story.done("rollout", *story.catalogue(), "--extra-vars", "service=echo")


def test_a_link_that_is_cut_while_it_copies(tmp_path: Path) -> None:
    before = {node: story.containers(node) for node in story.NODES}
    story.done("build", *story.catalogue(), *story.echo_image(tmp_path, 30_000_000))
    router = f"{story.LAB}-wan"
    link = story.docker("exec", router, "sh", "-c", "ip -o address | awk '/172.30.2.2\\// {print $2}'").strip()
    rate = ["tbf", "rate", "20mbit", "burst", "256kb", "latency", "400ms"]
    story.docker("exec", router, "tc", "qdisc", "replace", "dev", link, "root", *rate)
    drop = ["FORWARD", "--out-interface", link, "--jump", "DROP"]
    cut = threading.Timer(3, story.docker, ["exec", router, "iptables", "--insert", *drop])
    try:
        with story.Running("rollout", *story.catalogue(), "-e", "service=echo service_stall_timeout=5") as rollout:
            assert rollout.until("Copy what this datacenter lacks")
            cut.start()
            told = " ".join(rollout.end().split())
        assert rollout.process.returncode != 0
    finally:
        cut.cancel()
        cut.join()
        story.docker("exec", router, "iptables", "--delete", *drop)
        story.docker("exec", router, "tc", "qdisc", "del", "dev", link, "root")
    assert f"{SHANGHAI[0]}: " in told
    assert {node: story.containers(node) for node in story.NODES} == before
    story.done("rollout", *story.catalogue(), "--extra-vars", "service=echo")


def test_a_node_that_reboots_in_the_middle() -> None:
    node, change = story.NODES[1], [*story.catalogue(env={"VERSION": "rebooted"}), *story.ONE_BY_ONE]
    with story.impatient() as soon, story.Running("rollout", *change, **soon) as rollout:
        for _ in range(2):
            assert rollout.until("Start the candidates and prove them")
        story.docker("restart", "--time", "1", f"{story.LAB}-{node}")
        rollout.end()
    story.wait_for(lambda: lab.connect(node).run("systemctl is-active docker").stdout.strip() == "active", what=node)
    story.done("rollout", *change)
    assert len({release for found in story.releases().values() for release in found}) == 1
