# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks do with the lab: time a playbook, build a new layer, count and shape what crosses the WAN."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import figures
from ansible.module_utils.qianjiang.registry import RegistryClient, blobs

sys.path.append(str(Path(__file__).resolve().parents[1] / "molecule/support"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "molecule/rollout/tests"))
# ansible-playbook is the one beside this Python
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import platform_lab

import lab

PROJECT = lab.PROJECT
USUAL = PROJECT / "bench/usual"
PLAYBOOKS = PROJECT / "playbooks"
README = PROJECT / "bench/README.md"
SERVICE = "webui"
ONE_SERVICE = ("--extra-vars", f"service={SERVICE}")
SIDE_BY_SIDE = ("--extra-vars", '{"datacenters": {"max_parallel": 2}}')
LAYER = 30_000_000
# Ansible as it comes, where this project's ansible.cfg makes the usual playbook quicker
STOCK = {"ANSIBLE_PIPELINING": "False", "ANSIBLE_GATHERING": "implicit", "ANSIBLE_FACTS_MODULES": "smart"}
STOCK_VARIABLES = ("--extra-vars", "usual_gather_facts=true")


class Run(NamedTuple):
    """A playbook that succeeded. `node_tasks`: how many tasks each node had, `tasks`: the most on any host."""

    seconds: float
    node_tasks: tuple[int, ...]
    tasks: int
    changed: int


class Rollout(NamedTuple):
    """A rollout, and for each datacenter but the origin: bytes that crossed the WAN ÷ bytes of the blobs it lacked."""

    run: Run
    crossed: dict[str, float]


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def run(playbook: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> Run:
    """Run a playbook and time the whole command."""
    begin = time.monotonic()
    done = lab.play(playbook, *arguments, settings=settings)
    seconds = time.monotonic() - begin
    name = playbook.relative_to(PROJECT)
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")
    executed = figures.tasks_by_host(done.stdout)
    node_tasks = tuple(executed.get(node, 0) for node in lab.group("nodes"))
    say(f"{name} {' '.join(arguments)}: {seconds:.1f} s")
    return Run(seconds, node_tasks, figures.most_tasks(done.stdout), figures.changes(done.stdout))


def run_unchanged(playbook: Path) -> Run:
    """Run a playbook that has nothing to do."""
    done = run(playbook)
    if done.changed:
        raise RuntimeError(
            f"{playbook.relative_to(PROJECT)} had something to do: {done.changed} tasks changed something"
        )
    return done


def build_new_layer(directory: Path) -> None:
    """Build the service with a layer that no host has, and that does not compress. Others' layers stay as they are."""
    (directory / "services" / SERVICE / "WebPortal/layer.bin").write_bytes(os.urandom(LAYER))
    platform_lab.build(directory)


def rollout(playbook: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> Rollout:
    """Roll out the newest image, and see what crosses the WAN meanwhile."""
    missing = missing_bytes()
    before = {datacenter: platform_lab.wan_bytes(datacenter) for datacenter in missing}
    done = run(playbook, *arguments, settings=settings)
    crossed = {datacenter: platform_lab.wan_bytes(datacenter) - before[datacenter] for datacenter in missing}
    return Rollout(done, {datacenter: crossed[datacenter] / missing[datacenter] for datacenter in missing})


def missing_bytes() -> dict[str, int]:
    """Bytes of the newest image's blobs that each datacenter's registry lacks; the origin left out."""
    clients = {lab.variable(host, "datacenter"): registry(host) for host in lab.group("registries")}
    origin = clients.pop(origin_datacenter())
    wanted = blobs(origin, SERVICE, origin.get_manifest(SERVICE, "latest"))
    return {
        datacenter: sum(blob.size for blob in wanted if not client.has_blob(SERVICE, blob.digest))
        for datacenter, client in clients.items()
    }


def origin_datacenter() -> str:
    """Where the builds push to: to its own nodes nothing crosses the WAN."""
    return str(lab.variable("localhost", "origin_datacenter"))


def other_datacenters() -> list[str]:
    """The datacenters that copy from the origin."""
    return [name for name in lab.variable("localhost", "datacenter_registries") if name != origin_datacenter()]


def registry(host: str) -> RegistryClient:
    """A host's registry, by the address that its certificate names too: the controller need not resolve lab names."""
    return RegistryClient(
        f"{lab.variable(host, 'ansible_host')}:5000",
        username=lab.variable("localhost", "registry_username"),
        password=lab.variable("localhost", "registry_password"),
        ca_path=f"{lab.variable('localhost', 'certificate_authority_directory')}/ca.crt",
    )


@contextlib.contextmanager
def shaped(rate: str) -> Iterator[None]:
    """The link to each datacenter, on the WAN router, as narrow as `rate` (as tc writes it: 50mbit)."""
    addresses = [network["router"] for network in lab.variable("localhost", "lab_networks")]
    try:
        for address in addresses:
            # The bucket holds the kernel's largest packet: a smaller one makes tc cut it up, which adds headers
            on_router(address, f"tc qdisc replace dev $device root tbf rate {rate} burst 256kb latency 1s")
        yield
    finally:
        for address in addresses:
            on_router(address, "case $(tc qdisc show dev $device) in *tbf*) tc qdisc del dev $device root;; esac")


def on_router(address: str, command: str) -> None:
    """Run a command on the WAN router. `$device` in it is the one with this address."""
    found = f"device=$(ip -o address | awk '/ {address}\\//{{print $2}}'); {command}"
    router = f"{lab.variable('localhost', 'lab_name')}-wan"
    done = subprocess.run(["docker", "exec", router, "sh", "-c", found], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{router}: {command}: {done.stderr.strip()}")


def publish(name: str, rounds: int, text: str, *, is_written: bool) -> None:
    """Print the figures, and where asked keep them in the README."""
    cores = os.cpu_count()
    spread = f"{rounds} rounds: median (smallest to largest)" if rounds > 1 else "1 round"
    text = f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, {spread}\n\n{text}"
    print(text)
    if is_written:
        figures.write(README, name, f"\n{text}\n")
