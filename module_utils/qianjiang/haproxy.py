# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy's runtime interface: its servers, and how they get into and out of rotation without a lost request.

What HAProxy 2.6 to 3.0 do, and this module works around:

- `state ready` after `state maint` makes a server UP at once, before any check, and its last check status is that of
  before. A dead one gets requests for up to a check interval (from 3.1 on `init-state down` prevents that). And checks
  pause in MAINT, so its first one is up to an interval away. So a server out of rotation rests in DRAIN, where it is
  checked but gets nothing. One that is in MAINT goes to DRAIN with its health forced down, and to READY only when
  HAProxy's own checks have brought it up again.
- A reload leaves the old worker running until its connections end. Its sessions are not in the new worker's numbers,
  but the master's socket shows them.
- An error is a text in the answer; a command that worked answers nothing.
- A reload takes a server's port from the state that is carried over, not from the configuration. `set server … addr …
  port …` answers a text also when it worked, and 3.0 answers before it has done it.
- A server's `req_tot` counts its answers. A request that it left unanswered is in `eresp` alone, and from 3.0 on there
  once per attempt and once more; `stot` bounds that, which counts attempts. Those under way (`scur`) are not over yet,
  but may be answered already, while the answer is still being sent: without them it bounds from below.
"""

from __future__ import annotations

import csv
import fcntl
import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

SOCKET = "/run/haproxy/admin.sock"
MASTER_SOCKET = "/run/haproxy-master.sock"
# Beside the socket
RELOAD_LOCK = "reload.lock"
# The gateway's configuration forwards a request of its own host that has this header to the server it names
SERVER_HEADER = "X-Qianjiang-Server"

# Options of the gateway modules, documented in plugins/doc_fragments/gateway.py
SOCKETS: dict[str, dict[str, Any]] = {
    "socket": {"type": "path", "default": SOCKET},
    "master_socket": {"type": "path", "default": MASTER_SOCKET},
}
TIMEOUTS: dict[str, dict[str, Any]] = {
    "up_timeout": {"type": "float", "default": 30},
    "drain_timeout": {"type": "float", "default": 30},
}
LOCK: dict[str, dict[str, Any]] = {
    "lock": {
        "type": "dict",
        "options": {
            "path": {"type": "path", "required": True},
            "holder_id": {"type": "str", "required": True},
            "ttl": {"type": "int", "required": True},
        },
    },
}

_POLL = 0.1
# Seconds in which another port of a server is in use
_PORT_TIMEOUT = 5
# srv_admin_state: forced, inherited and resolution maintenance; forced and inherited drain
_MAINT, _DRAIN = 0x23, 0x18
_UP_STATES = ("1", "2")
_PASSED = ("3", "4")
_CHECK_CONFIGURED = 0x02
_CHECK_UNDER_WAY = 0x01
_OK_STATUS = ("L4OK", "L6OK", "L7OK", "L7OKC")


class HAProxyError(Exception):
    """HAProxy does not answer, or refuses."""


class UnreachableError(HAProxyError):
    """Nothing answers at the socket."""


class UnprovenError(HAProxyError):
    """A server did not pass its check or its probe; `hint` is what to look at."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.reason, self.hint = message, hint


class NoBackendError(HAProxyError):
    """The running configuration has no such backend."""


class NoServerError(HAProxyError):
    """The running configuration has no such server in the backend."""

    def __init__(self, backend: str, name: str, there: Iterable[str]) -> None:
        super().__init__(
            f"HAProxy has no server {backend}/{name}, only {', '.join(there) or 'none'}; "
            "the gateway role writes it from the catalogue: run playbooks/nodes.yml --tags gateway"
        )


class NoMapError(HAProxyError):
    """The running configuration does not read the map file."""


class Server(NamedTuple):
    """A server of a backend. `up` is what its checks found, not what HAProxy hopes of one that it has yet to ask."""

    name: str
    admin: str
    up: bool
    checked: bool
    check_status: str
    sessions: int
    queued: int
    # Since HAProxy started or was last reloaded: answers and requests left unanswered, and the 5xx and unanswered ones
    # among them, without those that requests under way hide; of the last 512 answers, the average until they began and
    # until they were over
    requests: int = 0
    errors_5xx: int = 0
    response_ms: int = 0
    total_ms: int = 0
    # How many more may have been left unanswered
    perhaps_unanswered: int = 0
    # Where it forwards to
    address: str = ""
    port: int = 0

    @property
    def serves(self) -> bool:
        """Whether it gets new requests."""
        return self.admin == "ready" and self.up


class Probe(NamedTuple):
    """A GET through the gateway's own frontend, to one server."""

    port: int
    path: str = "/"
    timeout: float = 5
    tls: bool = False


class Arrival(NamedTuple):
    """A server that has `timeout` seconds to pass HAProxy's check, and then the probe.

    `port`: where its replica listens, where that is known.
    """

    backend: str
    name: str
    timeout: float
    probe: Probe | None = None
    port: int | None = None

    @property
    def target(self) -> str:
        return f"{self.backend}/{self.name}"


class Departure(NamedTuple):
    """A server whose sessions have `timeout` seconds to end."""

    backend: str
    name: str
    timeout: float

    @property
    def target(self) -> str:
        return f"{self.backend}/{self.name}"


class Answer(NamedTuple):
    """What a probe got: no status where nothing came, and then why."""

    status: int | None
    served_by: str = ""
    problem: str = ""


def _count(row: Mapping[str, str | None], column: str) -> int:
    """A number of `show stat`; an older HAProxy may lack the column."""
    return int(row.get(column) or 0)


def _counters(row: Mapping[str, str | None]) -> dict[str, int]:
    answered = _count(row, "req_tot")
    not_answered = _count(row, "stot") - answered
    at_most = min(_count(row, "eresp"), max(0, not_answered))
    unanswered = min(at_most, max(0, not_answered - _count(row, "scur")))
    return {
        "requests": answered + unanswered,
        "errors_5xx": _count(row, "hrsp_5xx") + unanswered,
        "response_ms": _count(row, "rtime"),
        "total_ms": _count(row, "ttime"),
        "perhaps_unanswered": at_most - unanswered,
    }


def _backend_id(state: str) -> str:
    """The number of the backend in `show servers state`; -1, which stands for all, where it has no server."""
    rows = state.strip().splitlines()[2:]
    return rows[0].split()[0] if rows else "-1"


def parse_servers(backend: str, state: str, stat: str) -> dict[str, Server]:
    """The answers to `show servers state` and `show stat` as one table, by server name."""
    statistics = {
        row["svname"]: row
        for row in csv.DictReader(stat.strip().removeprefix("# ").splitlines())
        if row["pxname"] == backend
    }
    lines = state.strip().splitlines()[1:]
    if not lines:
        return {}
    header = lines[0].removeprefix("# ").split()
    servers: dict[str, Server] = {}
    for line in lines[1:]:
        row = dict(zip(header, line.split()))
        numbers = statistics.get(row["srv_name"])
        if row["be_name"] != backend or numbers is None:
            continue
        mask = int(row["srv_admin_state"])
        admin = "maint" if mask & _MAINT else "drain" if mask & _DRAIN else "ready"
        checked = bool(int(row["srv_check_state"]) & _CHECK_CONFIGURED)
        passed = row["srv_op_state"] in _UP_STATES and (not checked or _check_passed(row, numbers["check_status"]))
        servers[row["srv_name"]] = Server(
            row["srv_name"],
            admin,
            passed and admin != "maint",
            checked,
            numbers["check_status"] if checked else "no check",
            int(numbers["scur"] or 0),
            int(numbers["qcur"] or 0),
            **_counters(numbers),
            address=row["srv_addr"],
            port=int(row["srv_port"]),
        )
    return servers


def _check_passed(row: Mapping[str, str], status: str) -> bool:
    """What the last check found. While the next one is under way its result is unknown, and the status tells."""
    if int(row["srv_check_state"]) & _CHECK_UNDER_WAY:
        return status.removeprefix("* ") in _OK_STATUS
    return row["srv_check_result"] in _PASSED


def parse_map(text: str) -> dict[str, str]:
    """The lines of a map file: a key, white space, the value."""
    lines = (line.strip().split(maxsplit=1) for line in text.splitlines())
    return {words[0]: "".join(words[1:]) for words in lines if words and not words[0].startswith("#")}


def old_workers(text: str) -> list[int]:
    """The processes that reloads left, out of the master's `show proc`."""
    _, _, rest = text.partition("# old workers")
    lines = rest.partition("# programs")[0].splitlines()
    return [int(line.split()[0]) for line in lines if line[:1].isdigit()]


def refused_by_probe(arrival: Arrival, answer: Answer) -> str | None:
    """What is wrong with a probe's answer."""
    if arrival.probe is None or (
        answer.status is not None and 200 <= answer.status < 400 and answer.served_by == arrival.name
    ):
        return None
    said = answer.problem or f"answered {answer.status} (X-Served-By: {answer.served_by or 'none'})"
    return (
        f"{arrival.target}: GET {arrival.probe.path} through the gateway's port {arrival.probe.port} {said}, "
        f"expected 200 to 399 from {arrival.name}"
    )


class Runtime:
    """A client of the runtime socket (`stats socket … level admin`), and of the master's where there is one."""

    def __init__(self, path: str = SOCKET, master_path: str | None = None, timeout: float = 10) -> None:
        self._path = path
        # an HAProxy that was started without -S has none
        self._master_path = master_path if master_path and Path(master_path).exists() else None
        self._timeout = timeout

    def ask(self, command: str, path: str | None = None) -> str:
        """Send one line, return the whole answer."""
        target = path or self._path
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                connection.connect(target)
                connection.sendall(f"{command}\n".encode())
                if path:
                    # the master waits for more commands until it is told that none come
                    connection.shutdown(socket.SHUT_WR)
                answer = b""
                while part := connection.recv(65536):
                    answer += part
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UnreachableError(
                f"HAProxy does not answer at {target} ({reason}); is it running, and does its configuration have "
                f"`stats socket {target} level admin`? See systemctl status haproxy"
            ) from error
        return answer.decode(errors="replace")

    @contextmanager
    def no_reload(self) -> Iterator[None]:
        """Where something is set: while a reload is on its way, the next process begins with the state of before.

        haproxy_state.py of the gateway role holds the same lock, until that process answers.
        """
        with ExitStack() as stack:
            with suppress(FileNotFoundError):  # no HAProxy: `ask` says so
                lock = stack.enter_context(Path(self._path).with_name(RELOAD_LOCK).open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def do(self, command: str) -> None:
        """Send a command that answers nothing when it worked (several with `; ` between them)."""
        with self.no_reload():
            self._do(command)

    def _do(self, command: str) -> None:
        answer = " ".join(self.ask(command).split())
        if answer == "Permission denied":
            answer += " (the socket needs `level admin`)"
        if answer:
            raise HAProxyError(f"{command}: {answer}")

    def servers(self, backend: str) -> dict[str, Server]:
        """The servers of a backend, with the sessions that older workers still hold."""
        state = self.ask(f"show servers state {backend}")
        if "find backend" in state:
            raise NoBackendError(
                f"HAProxy has no backend {backend}; "
                "the gateway role writes it from the catalogue: run playbooks/nodes.yml --tags gateway"
            )
        # By name, `show stat` finds a frontend of the same name first, which has no servers
        # Its own rows alone: of fifty services all rows are fifty times as many. A reload in between numbers them anew.
        numbers = (_backend_id(state), "-1")
        tables = (parse_servers(backend, state, self.ask(f"show stat {number} 4 -1")) for number in numbers)
        servers = next((table for table in tables if table), {})
        for name, sessions in self._old_sessions(backend).items():
            if name in servers:
                servers[name] = servers[name]._replace(sessions=servers[name].sessions + sessions)
        return servers

    def entries(self, path: str) -> dict[str, str]:
        """The entries of a map, as the running process has them: each line has an address before the key."""
        answer = self.ask(f"show map {path}")
        if answer.startswith("Unknown map"):
            raise NoMapError(f"HAProxy does not read {path}; the gateway role configures that")
        return parse_map("\n".join(line.partition(" ")[2] for line in answer.splitlines()))

    def replace(self, path: str, entries: Mapping[str, str]) -> None:
        """Replace all entries of a map in one step, which no request sees half of."""
        with self.no_reload():
            answer = self.ask(f"prepare map {path}")
            version = answer.strip().rpartition(" ")[2]
            if not version.isdecimal():
                raise HAProxyError(f"prepare map {path}: {' '.join(answer.split())}")
            for key, value in entries.items():
                # As a payload: it needs no escapes, and ends with an empty line
                self._do(f"add map @{version} {path} <<\n{key} {value}\n")
            self._do(f"commit map @{version} {path}")

    def _old_sessions(self, backend: str) -> dict[str, int]:
        path = self._master_path
        sessions: dict[str, int] = {}
        if path is None:
            return sessions
        for pid in old_workers(self.ask("show proc", path)):
            # one that has ended meanwhile answers an error, which has no rows
            answer = self.ask(f"@!{pid} show stat -1 4 -1", path)
            if not answer.lstrip().startswith("# pxname"):
                continue
            for row in csv.DictReader(answer.strip().removeprefix("# ").splitlines()):
                if row["pxname"] == backend:
                    sessions[row["svname"]] = sessions.get(row["svname"], 0) + int(row["scur"] or 0)
        return sessions

    def server(self, backend: str, name: str) -> Server:
        """One server; an error names those there are."""
        return _of(self.servers(backend), backend, name)

    def through(self, arrival: Arrival) -> Answer:
        """A probe's answer."""
        probe = arrival.probe or Probe(0)
        if probe.tls:
            # The certificate is for the gateway's name, and this is its own host
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", probe.port, timeout=probe.timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", probe.port, timeout=probe.timeout)
        headers = {"Host": arrival.backend, SERVER_HEADER: arrival.name, "User-Agent": "qianjiang-probe"}
        try:
            connection.request("GET", probe.path, headers=headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheader("X-Served-By", ""))
        except (OSError, http.client.HTTPException) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            return Answer(None, problem=f"got no answer ({reason or type(error).__name__})")
        finally:
            connection.close()

    def prove(
        self,
        arrivals: Sequence[Arrival],
        confirm: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> dict[str, int]:
        """Have servers checked and probed while they get no other requests; the status that each probe got.

        They are left in DRAIN, or as they are where they serve already. If one fails, or at last `confirm` raises, all
        are put back as they were. One that forwards to another port than its replica's goes to DRAIN, too.
        """
        before = {arrival.target: self.server(arrival.backend, arrival.name) for arrival in arrivals}
        touched: dict[str, Server] = {}
        statuses: dict[str, int] = {}
        try:
            for arrival in arrivals:
                server = before[arrival.target]
                elsewhere = arrival.port not in (None, server.port)
                # In drain the last check may be of what ran in the slot before, an interval ago. A probe asks what runs
                # there now, through the gateway, so no dead server passes. Without one only a check from now on does.
                if not (elsewhere or server.admin == "maint" or (server.admin == "drain" and arrival.probe is None)):
                    continue
                touched[arrival.target] = server
                if elsewhere:
                    self.do(f"set server {arrival.target} state drain")
                    self._forward(arrival.backend, arrival.name, arrival.port, clock, sleep)
                force = f"; set server {arrival.target} health down" if server.checked else ""
                self.do(f"set server {arrival.target} state drain{force}")
            self._wait_up(arrivals, clock, sleep)
            for arrival in (arrival for arrival in arrivals if arrival.probe):
                answer = self.through(arrival)
                if problem := refused_by_probe(arrival, answer):
                    raise UnprovenError(problem)
                statuses[arrival.target] = answer.status or 0
            confirm()
        except BaseException as error:
            for target, server in touched.items():
                with suppress(HAProxyError):
                    self._forward(target.partition("/")[0], server.name, server.port, clock, sleep)
                with suppress(HAProxyError):
                    self.do(f"set server {target} state {server.admin}")
            if not isinstance(error, UnprovenError):
                raise
            is_as = "it is" if len(before) == 1 else f"{', '.join(before)} are"
            states = ", ".join(dict.fromkeys(server.admin for server in before.values()))
            raise UnprovenError(
                f"{error.reason}; {is_as} in {states} as before, the others were not touched", error.hint
            ) from error
        return statuses

    def _forward(
        self, backend: str, name: str, port: int | None, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        """Have a server forward to a port of its host."""
        server = self.server(backend, name)
        if port == server.port:
            return
        command = f"set server {backend}/{name} addr {server.address} port {port}"
        with self.no_reload():
            answer = self.ask(command)
        begin = clock()
        while self.server(backend, name).port != port:
            if clock() - begin >= _PORT_TIMEOUT:
                raise HAProxyError(f"{command}: {' '.join(answer.split())}")
            sleep(_POLL)

    def _wait_up(self, arrivals: Sequence[Arrival], clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        begin = clock()
        waiting = list(arrivals)
        while waiting:
            found = {backend: self.servers(backend) for backend in {arrival.backend for arrival in waiting}}
            waiting = [item for item in waiting if not _of(found[item.backend], item.backend, item.name).up]
            late = [item for item in waiting if clock() - begin >= item.timeout]
            if late:
                reasons = [
                    f"{item.target} is not UP after {item.timeout:g} s "
                    f"(last check: {found[item.backend][item.name].check_status or 'none yet'})"
                    for item in late
                ]
                raise UnprovenError("; ".join(reasons), "Does the gateway reach the node's slot port?")
            if waiting:
                sleep(_POLL)

    def admit(self, arrivals: Iterable[Arrival]) -> None:
        """Put proven servers into rotation."""
        for arrival in arrivals:
            if self.server(arrival.backend, arrival.name).admin != "ready":
                self.do(f"set server {arrival.target} state ready")

    def bring_up(
        self,
        backend: str,
        name: str,
        timeout: float,
        probe: Probe | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Put a server into rotation once it is proven. If it is not, it is put back as it was."""
        arrival = Arrival(backend, name, timeout, probe)
        self.prove([arrival], clock=clock, sleep=sleep)
        self.admit([arrival])

    def dismiss(
        self,
        departures: Iterable[Departure],
        keep: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> dict[str, int]:
        """Put servers into drain together until the sessions of each have ended; how many were cut, by server.

        They stay in drain. One in maintenance is out of rotation as well, and is left there. One that somebody brings
        back into rotation meanwhile keeps its sessions. `keep` is called all the time, and raises when we may not go
        on.
        """
        leaving = [one for one in dict.fromkeys(departures) if self.server(one.backend, one.name).admin != "maint"]
        for one in leaving:
            self.do(f"set server {one.target} state drain")
        begin = clock()
        empty = dict.fromkeys(leaving, 0)
        away: set[Departure] = set()
        cut: dict[str, int] = {}
        while leaving:
            found = {backend: self.servers(backend) for backend in {one.backend for one in leaving}}
            for one in list(leaving):
                server = found[one.backend].get(one.name)
                if server and server.admin != "ready":
                    away.add(one)
                elif server and one in away:
                    leaving.remove(one)
                    continue
                left = server.sessions + server.queued if server else 0
                empty[one] = empty[one] + 1 if left == 0 else 0
                # Twice: between choosing a server and counting the session lies a moment
                if empty[one] < 2 and not (left and clock() - begin >= one.timeout):
                    continue
                leaving.remove(one)
                if left:
                    self.do(f"shutdown sessions server {one.target}")
                    cut[one.target] = left
            if leaving:
                keep()
                sleep(_POLL)
        return cut


def _of(servers: Mapping[str, Server], backend: str, name: str) -> Server:
    if name not in servers:
        raise NoServerError(backend, name, servers)
    return servers[name]


def tables(
    runtime: Runtime, backends: Iterable[str], missing_is_fine: bool, optional: Iterable[str] = ()
) -> dict[str, dict[str, Server]]:
    """The servers of each backend; one of `optional` that is not there has none.

    With `missing_is_fine` (check mode) a gateway that is not set up yet has none at all.
    """
    may_be_missing = set(optional)
    found: dict[str, dict[str, Server]] = {}
    for backend in dict.fromkeys(backends):
        try:
            found[backend] = runtime.servers(backend)
        except (NoBackendError, UnreachableError) as error:
            if not (missing_is_fine or (isinstance(error, NoBackendError) and backend in may_be_missing)):
                raise
            found[backend] = {}
    return found
