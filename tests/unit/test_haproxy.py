"""HAProxy's runtime interface: reading its tables, its errors, and moving servers in and out of rotation."""

from __future__ import annotations

import fcntl
import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.qianjiang.bake import since
from ansible.module_utils.qianjiang.haproxy import (
    Answer,
    Arrival,
    Departure,
    HAProxyError,
    NoBackendError,
    NoMapError,
    Probe,
    Runtime,
    Server,
    UnprovenError,
    old_workers,
    parse_map,
    parse_servers,
    refused_by_probe,
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
        "node1.0.a": Server("node1.0.a", "ready", True, True, "L7OK", 4, 0, address="10.0.0.1", port=18080),
        "node1.0.b": Server("node1.0.b", "maint", False, True, "", 0, 0, address="10.0.0.1", port=18081),
        "node2.0.a": Server("node2.0.a", "drain", True, True, "L7OK", 2, 1, address="10.0.0.2", port=18080),
        # what HAProxy hopes of a server that it has not asked yet
        "node2.0.b": Server("node2.0.b", "ready", False, True, "L4CON", 0, 0, address="10.0.0.2", port=18081),
        "node3.0.a": Server("node3.0.a", "ready", True, False, "no check", 0, 0, address="10.0.0.3", port=18080),
    }


@pytest.mark.parametrize(
    ("before", "status", "up"),
    [
        pytest.param("15 3 3 6", "L7OK", True, id="it passed"),
        pytest.param("15 0 3 7", "* L7OK", True, id="the next one is under way"),
        pytest.param("15 0 3 7", "* L7STS", False, id="the next one is under way, the last one failed"),
        pytest.param("15 0 3 6", "L7OK", False, id="none yet"),
    ],
)
def test_a_check_under_way_does_not_make_a_server_unwell(before: str, status: str, up: bool) -> None:
    state = STATE.replace("1 1 3 15 3 3 6", f"1 1 3 {before}", 1)
    found = parse_servers("webui", state, STAT.replace("UP,1,L7OK", f"UP,1,{status}", 1))["node1.0.a"]
    assert (found.up, found.check_status) == (up, status)


@pytest.mark.parametrize(
    ("numbers", "requests", "errors"),
    [
        pytest.param({"req_tot": 10, "stot": 10, "hrsp_5xx": 2}, 10, 2, id="answered"),
        pytest.param({"req_tot": 10, "stot": 12, "hrsp_5xx": 2, "eresp": 1}, 11, 3, id="one left unanswered, one runs"),
        pytest.param({"req_tot": 8, "stot": 9, "eresp": 2}, 9, 1, id="3.0 counts an unanswered request twice"),
        pytest.param({"req_tot": 8, "stot": 10, "eresp": 2, "scur": 1}, 9, 1, id="twice, while another one runs"),
        pytest.param({"req_tot": 8, "stot": 8, "eresp": 1}, 8, 0, id="read in between"),
        pytest.param({}, 0, 0, id="columns that are not there"),
    ],
)
def test_requests_and_errors_are_counted(numbers: dict[str, int], requests: int, errors: int) -> None:
    server = counted(numbers)
    assert (server.requests, server.errors_5xx) == (requests, errors)
    assert (server.response_ms, server.total_ms) == (14, 15)


def counted(numbers: dict[str, int]) -> Server:
    header = ["pxname", "svname", "qcur", "scur", "check_status", "rtime", "ttime", *numbers]
    row = ["webui", "node1.0.a", "0", "0", "L7OK", "14", "15", *map(str, numbers.values())]
    return parse_servers("webui", STATE, f"# {','.join(header)}\n{','.join(row)}\n")["node1.0.a"]


@pytest.mark.parametrize("per_unanswered", [pytest.param(1, id="2.6"), pytest.param(2, id="3.0")])
@pytest.mark.parametrize(
    ("begin", "now", "requests", "errors"),
    [
        # (answered, unanswered, waiting for an answer, answers being sent)
        pytest.param((900, 9, 0, 0), (1000, 9, 0, 0), 100, 0, id="nothing under way"),
        pytest.param((900, 9, 0, 4), (1000, 9, 0, 0), 104, 0, id="answers end that were being sent"),
        pytest.param((900, 9, 4, 0), (1000, 9, 0, 0), 100, 0, id="requests end that waited"),
        pytest.param((900, 9, 0, 0), (1000, 9, 0, 4), 96, 0, id="answers begin and go on"),
        pytest.param((900, 9, 0, 0), (1000, 9, 4, 40), 91, 0, id="more answers go on than were left unanswered"),
        pytest.param((900, 9, 0, 4), (1000, 12, 0, 0), 107, 3, id="new ones, answers end"),
        pytest.param((900, 9, 0, 0), (1000, 19, 3, 4), 106, 6, id="new ones, some hidden by answers that go on"),
        pytest.param((900, 9, 0, 0), (30, 2, 0, 0), 32, 2, id="reloaded"),
    ],
)
def test_what_was_left_unanswered_before_is_no_new_error(
    begin: tuple[int, ...], now: tuple[int, ...], requests: int, errors: int, per_unanswered: int
) -> None:
    def reading(answered: int, unanswered: int, waiting: int, sending: int) -> Server:
        return counted(
            {
                "req_tot": answered,
                "stot": answered + unanswered + waiting,
                "scur": waiting + sending,
                "eresp": unanswered * per_unanswered,
            }
        )

    found = since(reading(*begin), reading(*now))
    assert (found.requests, found.errors) == (requests, errors)


def test_a_map_file() -> None:
    assert parse_map("# comment\nwebui  Back at ten\n\napi\tsoon # really\nempty\n") == {
        "webui": "Back at ten",
        "api": "soon # really",
        "empty": "",
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
                    command = connection.recv(65536).decode().removesuffix("\n")
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


def test_a_map_is_read_and_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "s"
    answers = {
        "show map /m": "0x5634 webui Back at ten; \\o/\n0x5640 api soon\n\n",
        "show map /none": "Unknown map identifier. Please use #<id> or <file>.\n\n",
        "prepare map /m": "New version created: 7\n\n",
        "prepare map /none": "Unknown map identifier. Please use #<id> or <file>.\n\n",
    }
    with haproxy(path, answers) as seen:
        runtime = Runtime(str(path))
        assert runtime.entries("/m") == {"webui": "Back at ten; \\o/", "api": "soon"}
        with pytest.raises(NoMapError, match=r"^HAProxy does not read /none; the gateway role configures that$"):
            runtime.entries("/none")
        seen.clear()
        runtime.replace("/m", {"webui": "Back at ten; <<", "api": "soon"})
        assert seen == [
            "prepare map /m",
            "add map @7 /m <<\nwebui Back at ten; <<\n",
            "add map @7 /m <<\napi soon\n",
            "commit map @7 /m",
        ]
        with pytest.raises(HAProxyError, match=r"^prepare map /none: Unknown map identifier\."):
            runtime.replace("/none", {})


@contextmanager
def frontend(status: int, served_by: str) -> Iterator[tuple[int, list[Any]]]:
    """A gateway's port that answers so, and the requests it got."""
    seen: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Host"], self.headers["X-Qianjiang-Server"]))
            self.send_response(status)
            if served_by:
                self.send_header("X-Served-By", served_by)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1], seen
        server.shutdown()


def test_a_probe_asks_the_gateway_for_one_server() -> None:
    with frontend(302, "node1.0.b") as (port, seen):
        answer = Runtime("/nowhere").through(Arrival("webui", "node1.0.b", 5, Probe(port, "/readyz")))
    assert answer == Answer(302, "node1.0.b")
    assert seen == [("/readyz", "webui", "node1.0.b")]
    # nobody listens any more
    answer = Runtime("/nowhere").through(Arrival("webui", "node1.0.b", 5, Probe(port)))
    assert answer == Answer(None, problem="got no answer (Connection refused)")


def test_a_probe_over_tls_is_no_plain_one() -> None:
    with frontend(200, "node1.0.b") as (port, seen):
        answer = Runtime("/nowhere").through(Arrival("webui", "node1.0.b", 5, Probe(port, tls=True)))
    assert answer.status is None
    assert answer.problem.startswith("got no answer (")
    assert seen == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(200, "b"), None),
        (Answer(399, "b"), None),
        (Answer(400, "b"), "answered 400 (X-Served-By: b)"),
        (Answer(199, "b"), "answered 199 (X-Served-By: b)"),
        (Answer(200, "a"), "answered 200 (X-Served-By: a)"),
        (Answer(503), "answered 503 (X-Served-By: none)"),
        (Answer(200), "answered 200 (X-Served-By: none)"),
        (Answer(None, problem="got no answer (timed out)"), "got no answer (timed out)"),
    ],
)
def test_what_a_probe_must_answer(answer: Answer, said: str | None) -> None:
    arrival = Arrival("webui", "b", 5, Probe(80, "/readyz"))
    message = f"webui/b: GET /readyz through the gateway's port 80 {said}, expected 200 to 399 from b"
    assert refused_by_probe(arrival, answer) == (message if said else None)
    assert refused_by_probe(arrival._replace(probe=None), answer) is None


def test_sessions_of_old_workers_count_and_those_of_other_backends_do_not(tmp_path: Path) -> None:
    # a frontend may have the backend's name, and another backend servers of the same names
    foreign = "webui,FRONTEND,,,9,0,,0,0,0,,0,,0,0,0,0,OPEN,,\nportal,node1.0.a,0,0,7,0,,0,0,0,,0,,0,0,0,0,UP,1,L7OK\n"
    stat = STAT.replace("webui,node1.0.a", f"{foreign}webui,node1.0.a")
    answers = {
        "show servers state webui": STATE,
        "show stat 3 4 -1": stat,
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


def test_a_reload_between_two_answers_numbers_the_backends_anew(tmp_path: Path) -> None:
    answers = {
        "show servers state webui": STATE,
        "show stat 3 4 -1": STAT.replace("webui,", "portal,"),
        "show stat -1 4 -1": STAT,
    }
    with haproxy(tmp_path / "s", answers):
        assert len(Runtime(str(tmp_path / "s")).servers("webui")) == 5


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(
        HAProxyError, match=rf"^HAProxy does not answer at {tmp_path}/none \(No such file or directory\); "
    ):
        Runtime(str(tmp_path / "none")).do("show info")


def test_what_changes_something_waits_for_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(str(tmp_path / "admin.sock"))
    asked: list[str] = []
    monkeypatch.setattr(runtime, "ask", lambda command: asked.append(command) or "")
    with (tmp_path / "reload.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        change = threading.Thread(target=runtime.do, args=("set server webui/a state drain",), daemon=True)
        change.start()
        change.join(0.2)
        assert (change.is_alive(), asked) == (True, [])
    change.join(10)
    assert asked == ["set server webui/a state drain"]


class FakeRuntime(Runtime):
    """HAProxy as a state machine that lives on the calls it gets: one look is one tick."""

    def __init__(self, servers: list[Server], **behaviour: Any) -> None:
        super().__init__("/nowhere/admin.sock")
        self.table = {server.name: server for server in servers}
        self.behaviour = {"comes_up": True, "drains": True} | behaviour
        self.commands: list[str] = []
        # Ports that are answered for, but not yet in use
        self.ports: list[tuple[str, int, float]] = []
        self.now = 0.0

    def through(self, arrival: Arrival) -> Answer:
        """A probe: it reaches a server that is checked, in rotation or not."""
        assert self.table[arrival.name].up
        self.commands.append(f"probe {arrival.target}")
        answer: Answer = self.behaviour.get("answers", {}).get(arrival.name, Answer(200, arrival.name))
        return answer

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def servers(self, backend: str) -> dict[str, Server]:
        """One tick, then the table."""
        assert backend == "webui"
        for name, port, in_use_at in self.ports:
            if self.now >= in_use_at:
                self.table[name] = self.table[name]._replace(port=port)
        for name, server in self.table.items():
            comes_up = self.behaviour["comes_up"]
            comes_up = comes_up if isinstance(comes_up, bool) else name in comes_up
            up = server.up or (server.admin != "maint" and server.checked and comes_up)
            leaves = self.behaviour["drains"] and server.admin == "drain"
            self.table[name] = server._replace(
                up=up and server.admin != "maint", sessions=0 if leaves else server.sessions
            )
        return dict(self.table)

    def ask(self, command: str, _path: str | None = None) -> str:
        """Another port, answered and carried out as HAProxy 3.0 does."""
        self.commands.append(command)
        words = command.split()
        assert (words[:2], words[3], words[5]) == (["set", "server"], "addr", "port")
        if int(words[6]) > 65535:
            return "Invalid port, must be a number between 1 and 65535.\n\n"
        name = words[2].partition("/")[2]
        self.ports.append((name, int(words[6]), self.now + 0.2))
        return f"port changed to {words[6]}, no need to change the addr by 'stats socket command'\n\n"

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
    return Server(name, admin, up and admin != "maint", True, "L7OK", sessions, 0, address="10.0.0.1", port=18080)


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


LEAVES = [Departure("webui", "a", 5)]


@pytest.mark.parametrize(
    ("drains", "sessions", "cut", "commands"),
    [
        (True, 3, 0, ["set server webui/a state drain"]),
        (True, 0, 0, ["set server webui/a state drain"]),
        (False, 3, 3, ["set server webui/a state drain", "shutdown sessions server webui/a"]),
    ],
)
def test_out_of_rotation(drains: bool, sessions: int, cut: int, commands: list[str]) -> None:
    fake = FakeRuntime([server("a", "ready", sessions=sessions)], drains=drains)
    assert sum(fake.dismiss(LEAVES, clock=fake.clock, sleep=fake.sleep).values()) == cut
    assert fake.commands == commands
    assert fake.table["a"].admin == "drain"


def test_one_in_maintenance_is_left_there() -> None:
    fake = FakeRuntime([server("a", "maint", sessions=3)])
    assert fake.dismiss(LEAVES, clock=fake.clock, sleep=fake.sleep) == {}
    assert fake.commands == []


def test_one_that_drains_already_may_still_have_sessions() -> None:
    fake = FakeRuntime([server("a", "drain", sessions=3)], drains=False)
    assert fake.dismiss(LEAVES, clock=fake.clock, sleep=fake.sleep) == {"webui/a": 3}
    assert 5 <= fake.now < 5.5


PROBE = Probe(80, "/readyz")


def states(fake: FakeRuntime) -> dict[str, str]:
    return {name: server.admin for name, server in fake.table.items()}


def test_a_probe_comes_after_the_check_and_before_the_rotation() -> None:
    fake = FakeRuntime([server("b", "maint")])
    fake.bring_up("webui", "b", 5, PROBE, clock=fake.clock, sleep=fake.sleep)
    assert fake.commands == [
        "set server webui/b state drain",
        "set server webui/b health down",
        "probe webui/b",
        "set server webui/b state ready",
    ]


def test_one_that_rests_is_up_already_and_only_probed() -> None:
    fake = FakeRuntime([server("b", "drain")])
    fake.bring_up("webui", "b", 5, PROBE, clock=fake.clock, sleep=fake.sleep)
    assert fake.commands == ["probe webui/b", "set server webui/b state ready"]
    assert fake.now == 0


def test_one_that_rests_and_is_not_up_yet_is_waited_for() -> None:
    fake = FakeRuntime([server("b", "drain", up=False)], comes_up=False)
    with pytest.raises(UnprovenError, match=r"^webui/b is not UP after 5 s .*; it is in drain as before"):
        fake.bring_up("webui", "b", 5, PROBE, clock=fake.clock, sleep=fake.sleep)
    assert states(fake) == {"b": "drain"}
    assert "probe webui/b" not in fake.commands


def test_without_a_probe_what_was_found_before_does_not_count() -> None:
    fake = FakeRuntime([server("b", "drain")])
    fake.bring_up("webui", "b", 5, clock=fake.clock, sleep=fake.sleep)
    assert fake.commands == [
        "set server webui/b state drain",
        "set server webui/b health down",
        "set server webui/b state ready",
    ]


def test_a_server_that_fails_its_probe_is_put_back() -> None:
    fake = FakeRuntime([server("b", "drain")], answers={"b": Answer(502, "b")})
    with pytest.raises(
        UnprovenError,
        match=r"answered 502 \(X-Served-By: b\), expected 200 to 399 from b; it is in drain as before, the others",
    ):
        fake.bring_up("webui", "b", 5, PROBE, clock=fake.clock, sleep=fake.sleep)
    assert states(fake) == {"b": "drain"}
    assert "set server webui/b state ready" not in fake.commands


def test_one_in_rotation_is_probed_as_well() -> None:
    fake = FakeRuntime([server("b", "ready")])
    statuses = fake.prove([Arrival("webui", "b", 5, PROBE)], clock=fake.clock, sleep=fake.sleep)
    assert statuses == {"webui/b": 200}
    assert fake.commands == ["probe webui/b"]


@pytest.mark.parametrize("admin", ["ready", "drain", "maint"])
def test_one_that_forwards_to_another_port_is_told_and_checked_anew(admin: str) -> None:
    fake = FakeRuntime([server("b", admin)])
    fake.prove([Arrival("webui", "b", 5, PROBE, 18181)], clock=fake.clock, sleep=fake.sleep)
    assert fake.commands == [
        "set server webui/b state drain",
        "set server webui/b addr 10.0.0.1 port 18181",
        "set server webui/b state drain",
        "set server webui/b health down",
        "probe webui/b",
    ]


def test_one_that_listens_where_it_is_asked_is_not_touched() -> None:
    fake = FakeRuntime([server("b", "drain")])
    fake.prove([Arrival("webui", "b", 5, PROBE, 18080)], clock=fake.clock, sleep=fake.sleep)
    assert fake.commands == ["probe webui/b"]


@pytest.mark.parametrize("admin", ["ready", "drain"])
def test_what_fails_at_another_port_is_put_back(admin: str) -> None:
    fake = FakeRuntime([server("b", admin)], answers={"b": Answer(502, "b")})
    with pytest.raises(UnprovenError, match=rf"it is in {admin} as before"):
        fake.prove([Arrival("webui", "b", 5, PROBE, 18181)], clock=fake.clock, sleep=fake.sleep)
    assert (fake.table["b"].admin, fake.table["b"].port) == (admin, 18080)


def test_a_port_that_haproxy_refuses() -> None:
    fake = FakeRuntime([server("b", "drain")])
    with pytest.raises(HAProxyError, match=r"^set server webui/b addr 10\.0\.0\.1 port 70000: Invalid port, must be a"):
        fake.prove([Arrival("webui", "b", 5, PROBE, 70000)], clock=fake.clock, sleep=fake.sleep)
    assert states(fake) == {"b": "drain"}


BOTH = [Arrival("webui", "b", 5, PROBE), Arrival("webui", "d", 7)]


def test_several_are_proven_before_any_is_in_rotation() -> None:
    fake = FakeRuntime([server("b", "maint"), server("d", "maint")])
    assert fake.prove(BOTH, clock=fake.clock, sleep=fake.sleep) == {"webui/b": 200}
    assert states(fake) == {"b": "drain", "d": "drain"}
    fake.admit(BOTH)
    assert states(fake) == {"b": "ready", "d": "ready"}
    assert fake.commands[-3:] == ["probe webui/b", "set server webui/b state ready", "set server webui/d state ready"]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"comes_up": ["b"]}, r"^webui/d is not UP after 7 s \(last check: L7OK\); webui/b, webui/d are in maint as"),
        ({"comes_up": ["d"]}, r"^webui/b is not UP after 5 s"),
        ({"answers": {"b": Answer(500, "b")}}, r"^webui/b: GET /readyz .* answered 500"),
    ],
)
def test_if_one_fails_all_are_put_back(behaviour: dict[str, Any], message: str) -> None:
    fake = FakeRuntime([server("b", "maint"), server("d", "maint")], **behaviour)
    with pytest.raises(UnprovenError, match=message):
        fake.prove(BOTH, clock=fake.clock, sleep=fake.sleep)
    assert states(fake) == {"b": "maint", "d": "maint"}


def test_each_has_its_own_time_to_come_up() -> None:
    fake = FakeRuntime([server("b", "maint"), server("d", "maint")], comes_up=["b"])
    with pytest.raises(UnprovenError):
        fake.prove(BOTH, clock=fake.clock, sleep=fake.sleep)
    assert 7 <= fake.now < 7.5


def test_if_we_may_not_go_on_all_are_put_back() -> None:
    def refuse() -> None:
        assert states(fake) == {"b": "drain", "d": "drain"}
        raise PermissionError("lost")

    fake = FakeRuntime([server("b", "maint"), server("d", "maint")])
    with pytest.raises(PermissionError, match=r"^lost$"):
        fake.prove(BOTH, refuse, clock=fake.clock, sleep=fake.sleep)
    assert states(fake) == {"b": "maint", "d": "maint"}


def test_several_go_away_together_each_in_its_own_time() -> None:
    fake = FakeRuntime([server("a", "ready", sessions=3), server("c", "ready", sessions=2)], drains=False)
    departures = [Departure("webui", "a", 1), Departure("webui", "c", 4)]
    assert fake.dismiss(departures, clock=fake.clock, sleep=fake.sleep) == {"webui/a": 3, "webui/c": 2}
    assert fake.commands[:2] == ["set server webui/a state drain", "set server webui/c state drain"]
    assert 4 <= fake.now < 4.5
    assert states(fake) == {"a": "drain", "c": "drain"}


def test_one_whose_time_is_over_does_not_wait_for_the_others() -> None:
    class Slow(FakeRuntime):
        def do(self, command: str) -> None:
            self.commands.append(f"{self.now:.0f} s")
            super().do(command)

    fake = Slow([server("a", "ready", sessions=3), server("c", "ready", sessions=1)], drains=False)
    fake.dismiss([Departure("webui", "a", 9), Departure("webui", "c", 2)], clock=fake.clock, sleep=fake.sleep)
    assert fake.commands[fake.commands.index("shutdown sessions server webui/c") - 1] == "2 s"
    assert fake.commands[fake.commands.index("shutdown sessions server webui/a") - 1] == "9 s"


def test_one_that_is_brought_back_meanwhile_keeps_its_sessions() -> None:
    class BroughtBack(FakeRuntime):
        def servers(self, backend: str) -> dict[str, Server]:
            if self.now >= 5:
                self.table["a"] = self.table["a"]._replace(admin="ready", sessions=40)
            return super().servers(backend)

    fake = BroughtBack([server("a", "ready", sessions=3), server("c", "ready", sessions=1)], drains=False)
    departures = [Departure("webui", "a", 30), Departure("webui", "c", 30)]
    assert fake.dismiss(departures, clock=fake.clock, sleep=fake.sleep) == {"webui/c": 1}
    assert "shutdown sessions server webui/a" not in fake.commands
    assert states(fake) == {"a": "ready", "c": "drain"}


def test_while_a_long_drain_is_waited_for_it_may_be_ended() -> None:
    def lost() -> None:
        if fake.now >= 5:
            raise PermissionError("lost")

    fake = FakeRuntime([server("a", "ready", sessions=40)], drains=False)
    with pytest.raises(PermissionError, match=r"^lost$"):
        fake.dismiss([Departure("webui", "a", 30)], lost, clock=fake.clock, sleep=fake.sleep)
    assert fake.commands == ["set server webui/a state drain"]
    assert 5 <= fake.now < 5.5


def test_one_that_is_brought_back_is_not_waited_for() -> None:
    class BroughtBack(FakeRuntime):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now >= 5:
                self.table["a"] = self.table["a"]._replace(admin="ready")

    fake = BroughtBack([server("a", "ready", sessions=40)], drains=False)
    assert fake.dismiss([Departure("webui", "a", 30)], clock=fake.clock, sleep=fake.sleep) == {}
    assert fake.commands == ["set server webui/a state drain"]
    assert 5 <= fake.now < 5.5


def test_one_that_is_not_away_at_once_is_not_taken_for_brought_back() -> None:
    class Late(FakeRuntime):
        def servers(self, backend: str) -> dict[str, Server]:
            found = super().servers(backend)
            return found if self.now >= 0.3 else {name: one._replace(admin="ready") for name, one in found.items()}

    fake = Late([server("a", "ready", sessions=3)], drains=False)
    assert fake.dismiss([Departure("webui", "a", 2)], clock=fake.clock, sleep=fake.sleep) == {"webui/a": 3}
