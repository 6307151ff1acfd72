"""The platform as the stories see it: the test service `echo` beside the WebUI, its visitors, and what is left over."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import echo_service

import lab
from load import ECHO, Load

NODES = lab.group("nodes")
GATEWAYS = lab.group("gateways")
ADDRESSES = {gateway: str(lab.variable(gateway, "ansible_host")) for gateway in GATEWAYS}
TARGETS = [f"{address}:{echo_service.PORT}" for address in ADDRESSES.values()]
PLACES = {node: str(lab.variable(node, "datacenter")) for node in NODES}
LAB = str(lab.variable("localhost", "lab_name"))
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as haproxy:
    haproxy.connect("/run/haproxy/admin.sock")
    haproxy.sendall(f"show servers state {sys.argv[1]}\\n".encode())
    print(haproxy.makefile().read())
"""
# As ever, but what takes long takes so long that a container which stops too early cuts it
LONG = [
    dataclasses.replace(kind, path=f"{kind.path.partition('?')[0]}?seconds=6")
    if kind.name in ("SLOW", "STREAM")
    else kind
    for kind in ECHO
]
# Hosts that are away are given up soon, and connections from before are not used
IMPATIENT = {"ANSIBLE_TIMEOUT": "4", "ANSIBLE_SSH_RETRIES": "0"}


def in_datacenter(name: str) -> list[str]:
    return [node for node in NODES if PLACES[node] == name]


# Stories go over both datacenters side by side, as that takes half the time; ONE_BY_ONE is the default policy
SIDE_BY_SIDE = {"datacenters": {"max_parallel": 2}}
ONE_BY_ONE = ["--extra-vars", '{"datacenters": {"max_parallel": 1}}']


def catalogue(others: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    """Arguments for a playbook: the lab's catalogue with echo, changed so, and `others` beside it (None: without)."""
    services = echo_service.services(**changes) | (others or {})
    found = {name: service for name, service in services.items() if service is not None}
    return ["--extra-vars", json.dumps({"services": found} | SIDE_BY_SIDE)]


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(lab.PROJECT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        # Otherwise the name of a task is told with its first result, and not when it begins
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true",
        **more,
    }


def command(playbook: str, arguments: Sequence[str]) -> list[str]:
    return ["ansible-playbook", "--inventory", lab.INVENTORY, f"playbooks/{playbook}.yml", *arguments]


def run(playbook: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A playbook to its end."""
    return subprocess.run(
        command(playbook, arguments),
        cwd=lab.PROJECT,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def done(playbook: str, *arguments: str, **more: str) -> str:
    """A playbook that must succeed."""
    found = run(playbook, *arguments, **more)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def refused(playbook: str, *arguments: str, **more: str) -> str:
    """A playbook that must not succeed: all that it said, in one line."""
    found = run(playbook, *arguments, **more)
    assert found.returncode != 0, found.stdout
    return " ".join((found.stdout + found.stderr).split())


class Running:
    """A playbook that runs, with all that it starts, in a process group of its own."""

    def __init__(self, playbook: str, *arguments: str, **more: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command(playbook, arguments),
            cwd=lab.PROJECT,
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def until(self, text: str) -> bool:
        """Read on until a line has `text`; False where none had."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return True
        return False

    def boundary(self, number: int) -> str:
        """Read on until the `number`-th beginning of a task; "" where there are not so many."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                number -= 1
                if number == 0:
                    return line.strip(" *\n")
        return ""

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> str:
        """To its end; all that it said."""
        rest, _ = self.process.communicate(timeout=600)
        return "".join(self.lines) + rest

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


@contextlib.contextmanager
def unnoticed(rate: float = 300, targets: Sequence[str] = TARGETS, **options: Any) -> Iterator[Load]:
    """Visitors who must not notice: every answer right, every POST counted once."""
    with Load(targets, rate=rate, warm_up=1, **options) as load:
        yield load
    print(f"\n{load}")
    assert not load.failures, str(load)
    assert not load.miscounted(echo_service.posts(NODES)), "POSTs were lost or counted twice"


def containers(node: str, service: str = "echo") -> dict[str, str]:
    """Every container of a service on a node → running, exited …"""
    listed = lab.connect(node).check_output(
        f"docker ps --all --filter label=io.qianjiang.service={service} --format '{{{{.Names}}}} {{{{.State}}}}'"
    )
    return dict(line.split() for line in listed.splitlines())


def running(node: str, service: str = "echo") -> list[str]:
    return sorted(name for name, state in containers(node, service).items() if state == "running")


def releases(service: str = "echo") -> dict[str, set[int]]:
    """The releases that each node runs."""
    return {node: {int(name.rpartition(".r")[2]) for name in running(node, service)} for node in NODES}


def digest(node: str, service: str = "echo") -> str:
    """What the one container of a service on a node was made of."""
    (name,) = running(node, service)
    image = lab.connect(node).check_output(f"docker inspect --format '{{{{.Config.Image}}}}' {name}")
    return str(image).partition("@")[2]


def started(node: str, service: str = "echo") -> str:
    """Which container of a service runs on a node, and since when."""
    (name,) = running(node, service)
    return str(lab.connect(node).check_output(f"docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {name}"))


def release(service: str = "echo") -> int:
    """The one that all nodes run."""
    found = set().union(*releases(service).values())
    assert len(found) == 1, f"the nodes are on {releases(service)}"
    return int(found.pop())


def locks() -> dict[str, str]:
    return {
        gateway: lab.connect(gateway).run("cat /var/lib/qianjiang/deployer/lock.json").stdout.strip()
        for gateway in GATEWAYS
    }


def last_rollout() -> list[dict[str, Any]]:
    """What is on record of the last rollout: first the rollout itself, then a record for each replica."""
    text = lab.connect(GATEWAYS[0]).check_output("tail --lines=50 /var/lib/qianjiang/records/rollouts.jsonl")
    found = [json.loads(line) for line in text.splitlines()]
    return [record for record in found if record["id"] == found[-1]["id"]]


def in_rotation(service: str = "echo", gateways: Sequence[str] = GATEWAYS) -> dict[str, list[str]]:
    """The servers that each gateway forwards to: neither in maintenance nor in drain."""
    found: dict[str, list[str]] = {}
    for gateway in gateways:
        text = lab.connect(gateway).check_output(f"python3 -c {shlex.quote(ASK)} {shlex.quote(service)}")
        rows = [line.split() for line in text.splitlines()[2:] if line.strip()]
        found[gateway] = sorted(row[3] for row in rows if not int(row[6]) & 0x3B)
    return found


def site() -> None:
    """The lab's platform with echo. Its folder for what is posted is there before its first container."""
    echo_service.prepare(NODES)
    done("site", *catalogue())


def restore() -> None:
    """Back to echo as it is in the catalogue, whatever a story left."""
    done("rollout", *catalogue(), "--extra-vars", "service=echo")


def assert_clean() -> None:
    """What the catalogue asks for runs, at most two releases are kept, each replica has one slot in rotation."""
    for node in NODES:
        states = list(containers(node).values())
        assert states.count("running") == 1, f"{node}: {containers(node)}"
        assert len(states) <= 3, f"{node} keeps {containers(node)}"
        assert set(states) <= {"running", "exited"}, f"{node}: {containers(node)}"
    for gateway, servers in in_rotation().items():
        nodes = {node for node in NODES if PLACES[node] == str(lab.variable(gateway, "datacenter"))}
        assert {server.split(".")[0] for server in servers} == nodes, f"{gateway} forwards to {servers}"
        assert len(servers) == len(nodes), f"{gateway} forwards to {servers}"
    assert not any(locks().values()), f"locked: {locks()}"


def docker(*arguments: str) -> str:
    """The engine of this machine, where the lab's hosts are containers."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def away(datacenter: str) -> Iterator[None]:
    """A datacenter that nobody reaches: its hosts stand still."""
    hosts = [f"{LAB}-{host}" for host in lab.group(datacenter)]
    docker("pause", *hosts)
    try:
        yield
    finally:
        docker("unpause", *hosts)


@contextlib.contextmanager
def impatient() -> Iterator[dict[str, str]]:
    """Environment of a playbook that soon gives up hosts that do not answer."""
    with tempfile.TemporaryDirectory(prefix="cp-") as folder:
        yield {**IMPATIENT, "ANSIBLE_SSH_CONTROL_PATH_DIR": folder}


def wait_for(condition: Any, seconds: float = 60, what: str = "") -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)


def echo_image(directory: Path, size: int) -> list[str]:
    """Arguments for build.yml: echo with a layer of `size` bytes that is new and does not compress."""
    context = echo_service.source(directory)
    (context / "large.bin").write_bytes(os.urandom(size))
    with (context / ".dockerignore").open("a") as ignored:
        ignored.write("!large.bin\n")
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "\nCOPY large.bin /large.bin\n")
    return ["--extra-vars", f"image_source_directory={directory}", "--extra-vars", "service=echo"]
