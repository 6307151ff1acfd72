"""The lab's gateways and the service behind them."""

from __future__ import annotations

import csv
import functools
import http.client
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import lab
from load import Kind, Load

SCENARIO = Path(__file__).resolve().parents[1]
NAMES = lab.group("gateways")
PORT, STATISTICS = 8090, 8404
SLOTS = {"a": 18990, "b": 18991}
# What files/probe.py answers
KINDS = (
    Kind("GET", 14, "/x"),
    Kind("POST", 4, "/x", "POST", "x" * 100),
    Kind("SLOW", 1, "/slow"),
    Kind("STREAM", 1, "/stream", expect="hello" * 20),
)
ASK = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect('/run/haproxy/admin.sock')
connection.sendall((sys.argv[1] + chr(10)).encode())
print(b''.join(iter(lambda: connection.recv(65536), b'')).decode().strip())
"""


def apply(*arguments: str) -> CompletedProcess[str]:
    """Run the scenario's roles."""
    return lab.play(SCENARIO / "converge.yml", *arguments)


@dataclass(frozen=True)
class Answer:
    status: int
    body: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Gateway:
    """A gateway, and the nodes that it forwards to by their place: `first`, `second`."""

    name: str
    address: str
    host: Any
    nodes: dict[str, Any]
    addresses: dict[str, str]

    def request(
        self, path: str, port: int = PORT, method: str = "GET", body: str = "", headers: dict[str, str] | None = None
    ) -> Answer:
        return ask(self.address, port, method, path, body=body, headers=headers)

    def load(self, seconds: float) -> Load:
        return Load([f"{self.address}:{PORT}"], seconds=seconds, kinds=KINDS)

    def states(self, backend: str = "probe") -> dict[str, str]:
        """Each server's state in the statistics: UP, DOWN (in drain as well), DRAIN (and up), MAINT."""
        text = self.request("/;csv", STATISTICS).body.removeprefix("# ")
        rows = [row for row in csv.DictReader(io.StringIO(text)) if row["pxname"] == backend]
        return {row["svname"]: row["status"].split()[0] for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")}

    def set(self, **servers: str) -> None:
        """`first_a="maint"` at the runtime socket."""
        commands = []
        for name, state in servers.items():
            place, slot = name.split("_")
            commands.append(f"set server probe/{place}.0.{slot} state {state}")
        self.host.check_output("python3 -c %s %s", ASK, "; ".join(commands))

    def ports(self) -> dict[str, int]:
        """Where each server forwards to."""
        lines = self.host.check_output("python3 -c %s %s", ASK, "show servers state probe").splitlines()[2:]
        return {line.split()[3]: int(line.split()[18]) for line in lines}

    def start(self, place: str, slot: str, port: int | None = None) -> None:
        """Start the service in a slot, and wait until it listens: on the slot's port, if on no other."""
        port = port or SLOTS[slot]
        self.stop(place, slot)
        self.nodes[place].check_output(
            f"systemd-run --quiet --collect --unit gateway-probe-{slot}"
            f" python3 /usr/local/lib/gateway-probe.py {port} {place}.0.{slot}"
        )
        end = time.monotonic() + 10
        while True:
            try:
                ask(self.addresses[place], port, "GET", "/readyz")
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def stop(self, place: str, slot: str, signal: str = "KILL") -> None:
        self.nodes[place].run(f"systemctl kill --signal {signal} gateway-probe-{slot}.service")
        if signal == "KILL":
            self.nodes[place].run(f"systemctl stop gateway-probe-{slot}.service")

    def count(self, what: str, place: str, slot: str = "a") -> int:
        """How often a server saw something since it started."""
        return int(json.loads(ask(self.addresses[place], SLOTS[slot], "GET", "/counts").body).get(what, 0))

    def wait(self, **expected: str) -> None:
        """Until the servers are as expected: `first_a="UP"`."""
        wanted = {name.replace("_", ".0."): state for name, state in expected.items()}
        end = time.monotonic() + 15
        while time.monotonic() < end:
            try:
                if wanted.items() <= self.states().items():
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise TimeoutError(f"expected {wanted}, found {self.states()}")

    def rest(self) -> None:
        """Slot a of both nodes serves, slot b is empty and in drain."""
        for place in self.nodes:
            self.start(place, "a")
            self.stop(place, "b")
        self.host.check_output("systemctl start haproxy.service")
        self.set(first_a="ready", second_a="ready", first_b="drain", second_b="drain")
        self.wait(first_a="UP", second_a="UP", first_b="DOWN", second_b="DOWN")


def ask(
    host: str, port: int, method: str, path: str, *, body: str = "", headers: dict[str, str] | None = None
) -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, answer.read().decode(), fields)
    finally:
        connection.close()


@functools.cache
def gateway(name: str) -> Gateway:
    address, nodes, addresses = lab.variable(
        name,
        "[node_address | default(ansible_host), groups[datacenter] | select('in', groups.nodes),"
        " groups[datacenter] | select('in', groups.nodes) | map('extract', hostvars)"
        " | map(attribute='node_address' if node_address is defined else 'ansible_host') | list]",
    )
    places = ("first", "second")
    hosts = {place: lab.connect(node) for place, node in zip(places, nodes, strict=False)}
    return Gateway(name, address, lab.connect(name), hosts, dict(zip(places, addresses, strict=False)))


@contextmanager
def changed_configuration(host: Any, expression: str) -> Iterator[None]:
    """Edit the installed configuration as an operator might, and put it back afterwards. Reloads both times."""
    path = "/etc/haproxy/haproxy.cfg"
    host.check_output(f"cp --preserve {path} /root/haproxy.cfg.kept && sed --in-place '{expression}' {path}")
    try:
        host.check_output("systemctl reload haproxy.service")
        yield
    finally:
        host.check_output(f"mv /root/haproxy.cfg.kept {path} && systemctl reload haproxy.service")
