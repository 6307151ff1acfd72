# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy's runtime interface: its servers, and how they get into and out of rotation without a lost request.

What HAProxy 2.6 to 3.0 do, and this module works around:

- `state ready` after `state maint` makes a server UP at once, before any check, and its last check status is that of
  before. A dead one gets requests for up to a check interval (from 3.1 on `init-state down` prevents that). So a server
  goes from MAINT to DRAIN, where it is checked but gets nothing, with its health forced down, and to READY only when
  HAProxy's own checks have brought it up again.
- A reload leaves the old worker running until its connections end. Its sessions are not in the new worker's numbers,
  but the master's socket shows them.
- An error is a text in the answer; a command that worked answers nothing.
"""

from __future__ import annotations

import csv
import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

SOCKET = "/run/haproxy/admin.sock"
MASTER_SOCKET = "/run/haproxy-master.sock"
_POLL = 0.1
# srv_admin_state: forced, inherited and resolution maintenance; forced and inherited drain
_MAINT, _DRAIN = 0x23, 0x18
_UP_STATES = ("1", "2")
_PASSED = ("3", "4")
_CHECK_CONFIGURED = 0x02


class HAProxyError(Exception):
    """HAProxy does not answer, or refuses."""


class UnreachableError(HAProxyError):
    """Nothing answers at the socket."""


class NoBackendError(HAProxyError):
    """The running configuration has no such backend."""


class Server(NamedTuple):
    """A server of a backend. `up` is what its checks found, not what HAProxy hopes of one that it has yet to ask."""

    name: str
    admin: str
    up: bool
    checked: bool
    check_status: str
    sessions: int
    queued: int

    @property
    def serves(self) -> bool:
        """Whether it gets new requests."""
        return self.admin == "ready" and self.up


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
        row = dict(zip(header, line.split(), strict=False))
        numbers = statistics.get(row["srv_name"])
        if row["be_name"] != backend or numbers is None:
            continue
        mask = int(row["srv_admin_state"])
        admin = "maint" if mask & _MAINT else "drain" if mask & _DRAIN else "ready"
        checked = bool(int(row["srv_check_state"]) & _CHECK_CONFIGURED)
        passed = row["srv_op_state"] in _UP_STATES and (not checked or row["srv_check_result"] in _PASSED)
        servers[row["srv_name"]] = Server(
            row["srv_name"],
            admin,
            passed and admin != "maint",
            checked,
            numbers["check_status"] if checked else "no check",
            int(numbers["scur"] or 0),
            int(numbers["qcur"] or 0),
        )
    return servers


def old_workers(text: str) -> list[int]:
    """The processes that reloads left, out of the master's `show proc`."""
    _, _, rest = text.partition("# old workers")
    lines = rest.partition("# programs")[0].splitlines()
    return [int(line.split()[0]) for line in lines if line[:1].isdigit()]


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

    def do(self, command: str) -> None:
        """Send a command that answers nothing when it worked (several with `; ` between them)."""
        answer = " ".join(self.ask(command).split())
        if answer == "Permission denied":
            answer += " (the socket needs `level admin`)"
        if answer:
            raise HAProxyError(f"{command}: {answer}")

    def servers(self, backend: str) -> dict[str, Server]:
        """The servers of a backend, with the sessions that older workers still hold."""
        state = self.ask(f"show servers state {backend}")
        if "find backend" in state:
            raise NoBackendError(f"HAProxy has no backend {backend}; the gateway role writes it from the catalogue")
        # By name, `show stat` finds a frontend of the same name first, which has no servers
        servers = parse_servers(backend, state, self.ask("show stat -1 4 -1"))
        for name, sessions in self._old_sessions(backend).items():
            if name in servers:
                servers[name] = servers[name]._replace(sessions=servers[name].sessions + sessions)
        return servers

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
        servers = self.servers(backend)
        if name not in servers:
            raise HAProxyError(f"HAProxy has no server {backend}/{name}; it has {', '.join(servers) or 'none'}")
        return servers[name]

    def bring_up(
        self,
        backend: str,
        name: str,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Put a server into rotation once HAProxy's own checks passed. If they do not, it is put back as it was."""
        target = f"{backend}/{name}"
        before = self.server(backend, name)
        if before.serves:
            return
        if before.admin != "ready":
            force = f"; set server {target} health down" if before.checked else ""
            self.do(f"set server {target} state drain{force}")
        begin = clock()
        while not (now := self.server(backend, name)).up:
            if clock() - begin >= timeout:
                if before.admin != "ready":
                    self.do(f"set server {target} state {before.admin}")
                raise HAProxyError(
                    f"{target} is not UP after {timeout:g} s (last check: {now.check_status}); "
                    f"it is in {before.admin} as before, the others were not touched. "
                    "Does the gateway reach the node's slot port?"
                )
            sleep(_POLL)
        if before.admin != "ready":
            self.do(f"set server {target} state ready")

    def take_away(
        self,
        backend: str,
        names: Iterable[str],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> int:
        """Take servers out of rotation when their sessions have ended; returns how many had to be cut."""
        away = [name for name in names if self.server(backend, name).admin != "maint"]
        for name in away:
            self.do(f"set server {backend}/{name} state drain")
        begin, empty, left = clock(), 0, 0
        # Twice: between choosing a server and counting the session lies a moment
        while away and empty < 2:
            servers = self.servers(backend)
            left = sum(servers[name].sessions + servers[name].queued for name in away if name in servers)
            empty = empty + 1 if left == 0 else 0
            if left and clock() - begin >= timeout:
                break
            sleep(_POLL)
        for name in away:
            self.do(f"set server {backend}/{name} state maint")
            if left:
                self.do(f"shutdown sessions server {backend}/{name}")
        return left


def tables(runtime: Runtime, backends: Iterable[str], missing_is_fine: bool) -> dict[str, dict[str, Server]]:
    """The servers of each backend. With `missing_is_fine` (check mode) a gateway that is not set up yet has none."""
    found: dict[str, dict[str, Server]] = {}
    for backend in dict.fromkeys(backends):
        try:
            found[backend] = runtime.servers(backend)
        except (NoBackendError, UnreachableError):
            if not missing_is_fine:
                raise
            found[backend] = {}
    return found
