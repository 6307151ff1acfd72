"""HAProxy's runtime interface: reading its tables, its errors, and moving servers in and out of rotation."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.qianjiang.haproxy import (
    HAProxyError,
    NoBackendError,
    Runtime,
    Server,
    old_workers,
    parse_servers,
)

# As HAProxy 2.6 and 3.0 answer
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 webui 1 node1.0.a 10.0.0.1 2 0 1 1 3 15 3 3 6 0 0 0 - 18080 - 0 0 - - 0
3 webui 2 node1.0.b 10.0.0.1 0 1 1 1 2 8 2 0 14 0 0 0 - 18081 - 0 0 - - 0
3 webui 3 node2.0.a 10.0.0.2 2 8 1 1 2 15 3 3 6 0 0 0 - 18080 - 0 0 - - 0
3 webui 4 node2.0.b 10.0.0.2 2 0 1 1 2 8 2 2 6 0 0 0 - 18081 - 0 0 - - 0
3 webui 5 node3.0.a 10.0.0.3 2 0 1 1 2 1 0 1 0 0 0 0 - 18080 - 0 0 - - 0

"""  # noqa: E501 — one line of HAProxy's
STAT = """# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,\
check_status
webui,node1.0.a,0,0,4,0,,0,0,0,,0,,0,0,0,0,UP,1,L7OK
webui,node1.0.b,0,0,0,0,,0,0,0,,0,,0,0,0,0,MAINT,1,
webui,node2.0.a,1,0,2,0,,0,0,0,,0,,0,0,0,0,DRAIN,1,L7OK
webui,node2.0.b,0,0,0,0,,0,0,0,,0,,0,0,0,0,UP 1/2,1,L4CON
webui,node3.0.a,0,0,0,0,,0,0,0,,0,,0,0,0,0,no check,1,

"""


def test_servers_are_read() -> None:
    assert parse_servers("webui", STATE, STAT) == {
        "node1.0.a": Server("node1.0.a", "ready", True, True, "L7OK", 4, 0),
        "node1.0.b": Server("node1.0.b", "maint", False, True, "", 0, 0),
        "node2.0.a": Server("node2.0.a", "drain", True, True, "L7OK", 2, 1),
        # what HAProxy hopes of a server that it has not asked yet
        "node2.0.b": Server("node2.0.b", "ready", False, True, "L4CON", 0, 0),
        "node3.0.a": Server("node3.0.a", "ready", True, False, "no check", 0, 0),
    }


@pytest.mark.parametrize(
    ("mask", "admin"),
    [
        (0, "ready"),
        (4, "ready"),
        (64, "ready"),
        (1, "maint"),
        (2, "maint"),
        (5, "maint"),
        (9, "maint"),
        (32, "maint"),
        (8, "drain"),
        (16, "drain"),
    ],
)
def test_the_administrative_state_is_a_mask(mask: int, admin: str) -> None:
    state = STATE.replace("10.0.0.1 2 0 ", f"10.0.0.1 2 {mask} ")
    assert parse_servers("webui", state, STAT)["node1.0.a"].admin == admin


def test_old_workers_are_those_that_a_reload_left() -> None:
    text = """#<PID>          <type>          <reloads>       <uptime>        <version>
22305           master          3 [failed: 0]   0d00h01m20s     2.6.12-1+deb12u4
# workers
4548            worker          0               0d00h00m01s     2.6.12-1+deb12u4
# old workers
747             worker          1               0d00h00m12s     2.6.12-1+deb12u4
748             worker          2               0d00h00m22s     2.6.12-1+deb12u4
# programs

"""
    assert old_workers(text) == [747, 748]


@contextmanager
def haproxy(path: Path, answers: dict[str, str]) -> Iterator[list[str]]:
    """A runtime socket that answers as told, and the commands it got."""
    seen: list[str] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    command = connection.makefile().readline().strip()
                    seen.append(command)
                    connection.sendall(answers.get(command, "\n").encode())

        threading.Thread(target=serve, daemon=True).start()
        yield seen
        listening.shutdown(socket.SHUT_RDWR)


def test_commands_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "s"
    answers = {
        "set server webui/nope state maint": "No such server.\n\n",
        "set server webui/node1.0.a state maint": "Permission denied\n\n",
        "show servers state none": "Can't find backend.\n\n",
    }
    with haproxy(path, answers) as seen:
        runtime = Runtime(str(path))
        runtime.do("set server webui/node1.0.b state ready")
        assert seen == ["set server webui/node1.0.b state ready"]
        with pytest.raises(HAProxyError, match=r"^set server webui/nope state maint: No such server\.$"):
            runtime.do("set server webui/nope state maint")
        with pytest.raises(HAProxyError, match=r"Permission denied \(the socket needs `level admin`\)$"):
            runtime.do("set server webui/node1.0.a state maint")
        with pytest.raises(NoBackendError, match=r"^HAProxy has no backend none; the gateway role writes it"):
            runtime.servers("none")


def test_sessions_of_old_workers_count_and_those_of_other_backends_do_not(tmp_path: Path) -> None:
    # a frontend may have the backend's name, and another backend servers of the same names
    foreign = "webui,FRONTEND,,,9,0,,0,0,0,,0,,0,0,0,0,OPEN,,\nportal,node1.0.a,0,0,7,0,,0,0,0,,0,,0,0,0,0,UP,1,L7OK\n"
    stat = STAT.replace("webui,node1.0.a", f"{foreign}webui,node1.0.a")
    answers = {
        "show servers state webui": STATE,
        "show stat -1 4 -1": stat,
        "show proc": "# workers\n5 worker\n# old workers\n747 worker\n748 worker\n# programs\n",
        "@!747 show stat -1 4 -1": stat,
        "@!748 show stat -1 4 -1": "Can't find the target PID matching the prefix '@!748'\n",
    }
    with haproxy(tmp_path / "s", answers), haproxy(tmp_path / "m", answers):
        servers = Runtime(str(tmp_path / "s"), str(tmp_path / "m")).servers("webui")
    assert {name: server.sessions for name, server in servers.items() if server.sessions} == {
        "node1.0.a": 8,
        "node2.0.a": 4,
    }


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(
        HAProxyError, match=rf"^HAProxy does not answer at {tmp_path}/none \(No such file or directory\); "
    ):
        Runtime(str(tmp_path / "none")).do("show info")


class FakeRuntime(Runtime):
    """HAProxy as a state machine that lives on the calls it gets: one look is one tick."""

    def __init__(self, servers: list[Server], **behaviour: Any) -> None:
        super().__init__("/nowhere")
        self.table = {server.name: server for server in servers}
        self.behaviour = {"comes_up": True, "drains": True} | behaviour
        self.commands: list[str] = []
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def servers(self, backend: str) -> dict[str, Server]:
        """One tick, then the table."""
        assert backend == "webui"
        for name, server in self.table.items():
            up = server.up or (server.admin != "maint" and server.checked and self.behaviour["comes_up"])
            leaves = self.behaviour["drains"] and server.admin == "drain"
            self.table[name] = server._replace(
                up=up and server.admin != "maint", sessions=0 if leaves else server.sessions
            )
        return dict(self.table)

    def do(self, command: str) -> None:
        """Carry the command out."""
        for single in command.split("; "):
            self.commands.append(single)
            words = single.split()
            name = words[-3].partition("/")[2] if words[0] == "set" else words[-1].partition("/")[2]
            server = self.table[name]
            if words[:2] == ["shutdown", "sessions"]:
                server = server._replace(sessions=0)
            elif words[-2] == "state":
                server = server._replace(admin=words[-1], up=server.up and words[-1] != "maint")
            else:
                server = server._replace(up=False)
            self.table[name] = server


def server(name: str, admin: str, up: bool = True, sessions: int = 0) -> Server:
    return Server(name, admin, up and admin != "maint", True, "L7OK", sessions, 0)


def test_into_rotation_only_after_a_check_of_its_own() -> None:
    fake = FakeRuntime([server("b", "maint")])
    fake.bring_up("webui", "b", timeout=5, clock=fake.clock, sleep=fake.sleep)
    assert fake.commands == [
        "set server webui/b state drain",
        "set server webui/b health down",
        "set server webui/b state ready",
    ]


def test_one_in_rotation_is_left_alone() -> None:
    fake = FakeRuntime([server("b", "ready")])
    fake.bring_up("webui", "b", timeout=5, clock=fake.clock, sleep=fake.sleep)
    assert fake.commands == []


def test_a_server_that_does_not_come_up_is_put_back() -> None:
    fake = FakeRuntime([server("b", "maint")], comes_up=False)
    with pytest.raises(
        HAProxyError, match=r"^webui/b is not UP after 5 s \(last check: L7OK\); it is in maint as before, the others"
    ):
        fake.bring_up("webui", "b", timeout=5, clock=fake.clock, sleep=fake.sleep)
    assert fake.commands[-1] == "set server webui/b state maint"


@pytest.mark.parametrize(
    ("drains", "sessions", "cut", "commands"),
    [
        (True, 3, 0, ["set server webui/a state drain", "set server webui/a state maint"]),
        (True, 0, 0, ["set server webui/a state drain", "set server webui/a state maint"]),
        (
            False,
            3,
            3,
            [
                "set server webui/a state drain",
                "set server webui/a state maint",
                "shutdown sessions server webui/a",
            ],
        ),
    ],
)
def test_out_of_rotation(drains: bool, sessions: int, cut: int, commands: list[str]) -> None:
    fake = FakeRuntime([server("a", "ready", sessions=sessions)], drains=drains)
    assert fake.take_away("webui", ["a"], timeout=5, clock=fake.clock, sleep=fake.sleep) == cut
    assert fake.commands == commands


def test_one_that_is_away_already() -> None:
    fake = FakeRuntime([server("a", "maint", sessions=3)])
    assert fake.take_away("webui", ["a"], timeout=5, clock=fake.clock, sleep=fake.sleep) == 0
    assert fake.commands == []
