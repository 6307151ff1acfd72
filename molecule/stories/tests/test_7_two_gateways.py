"""A datacenter with a second gateway, which is a node as well, and an address that the two share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import story
import yaml

import lab

FIRST = "shanghai-edge"
SECOND = "shanghai-node1"
BOTH = (FIRST, SECOND)
ADDRESS = "172.30.2.100"
SHARED = {
    "gateway_virtual_address": f"{ADDRESS}/24",
    "gateway_virtual_interface": "eth0",
    "gateway_virtual_peers": (
        "{{ groups['gateways'] | intersect(groups[datacenter]) | difference([inventory_hostname])"
        " | map('extract', hostvars, 'ansible_host') }}"
    ),
    "gateway_virtual_password": "shared01",
}


def inventory(folder: Path) -> Path:
    """The lab's, with the second gateway in it."""
    environment = folder / "inventories/lab"
    shutil.copytree(lab.PROJECT / "inventories/lab", environment)
    (folder / ".lab").symlink_to(lab.PROJECT / ".lab")
    hosts = yaml.safe_load((environment / "hosts.yml").read_text())
    hosts["all"]["children"]["gateways"]["hosts"][SECOND] = None
    (environment / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
    with (environment / "group_vars/shanghai.yml").open("a") as variables:
        variables.write(yaml.safe_dump(SHARED))
    return environment / "hosts.yml"


@pytest.fixture
def two_gateways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setattr(lab, "INVENTORY", str(inventory(tmp_path)))
        story.done("nodes", *story.catalogue(), "--tags", "gateway")
        try:
            yield
        finally:
            for gateway in BOTH:
                lab.connect(gateway).run("systemctl disable --now keepalived")
            lab.connect(SECOND).run("systemctl disable --now haproxy")
    story.done("nodes", *story.catalogue(), "--tags", "gateway")


def holders() -> list[str]:
    """Who has the shared address."""
    return [gateway for gateway in BOTH if lab.connect(gateway).run(f"ip -o address | grep -qw {ADDRESS}").rc == 0]


@pytest.mark.usefixtures("two_gateways")
def test_both_are_switched_and_when_one_stops_the_other_has_the_address() -> None:
    hangzhou, port = story.TARGETS[0], story.TARGETS[0].rpartition(":")[2]
    visited = [hangzhou, f"{ADDRESS}:{port}", f"{lab.variable(SECOND, 'ansible_host')}:{port}"]
    story.wait_for(lambda: len(holders()) == 1, 20, "one gateway has the address")
    number = story.release()
    with story.unnoticed(targets=visited):
        story.done("rollout", *story.catalogue(env={"VERSION": "pair"}))
    assert story.release() > number
    first, second = story.in_rotation(gateways=BOTH).values()
    assert first == second
    assert len(first) == 2

    (holder,) = holders()
    (other,) = set(BOTH) - {holder}
    lab.connect(holder).check_output("systemctl stop haproxy")
    story.wait_for(lambda: holders() == [other], 10, f"{other} has the address")
    before = {node: story.containers(node) for node in story.NODES}
    with story.unnoticed(targets=[hangzhou, f"{ADDRESS}:{port}"], rate=100):
        told = story.refused("rollout", *story.catalogue(env={"VERSION": "one gateway is away"}))
    assert f"the gateways of shanghai switch together, and not all of them answer: {holder} " in told
    assert {node: story.containers(node) for node in story.NODES} == before

    # It comes back with what it knew when it stopped, and takes nothing away
    lab.connect(holder).check_output("systemctl start haproxy")
    with story.unnoticed(targets=visited, rate=100):
        story.done("rollout", *story.catalogue(env={"VERSION": "pair again"}))
        time.sleep(2)
    assert holders() == [other]

    # Another port of the statistics takes it from nobody, while old connections keep the reload waiting
    begin = lab.connect(other).check_output("date +%s")
    with story.unnoticed(targets=visited, rate=100):
        story.done("nodes", *story.catalogue(), "--tags", "gateway", "--extra-vars", "gateway_stats_port=8405")
    for gateway in BOTH:
        assert "FAULT STATE" not in lab.connect(gateway).check_output(f"journalctl --unit keepalived --since @{begin}")
    assert holders() == [other]
