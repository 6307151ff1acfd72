# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proving a candidate: probe its container and its port until both have been well for long enough."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

POLL = 0.1
NO_VERDICT = "its health check has not passed yet"
_LISTENING = "0A"


class Observation(NamedTuple):
    """One look at a candidate.

    `healthy`: the container's check and the port say so. `answers`: the port does, and the container's check, which the
    engine runs for the first time an interval after the start, has not said anything yet. `ended`: it will not become
    healthy any more.
    """

    healthy: bool
    ended: bool
    problem: str
    probes: dict[str, Any]
    answers: bool = False


class UnprovenError(Exception):
    """The candidate is not healthy; the message says why."""


def wait_proven(
    observe: Callable[[], Observation],
    *,
    min_healthy_time: float,
    healthy_deadline: float,
    check: Callable[[], str],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    interval: float = POLL,
) -> Observation:
    """Look again and again until `min_healthy_time` passed in unbroken health. Raises UnprovenError.

    The time begins with the first answers of the port; it cannot end before the container's own check agrees. Where the
    engine has not run that one by then, `check` does, and says what is wrong ("": nothing).
    """
    begin = clock()
    since: float | None = None
    problem, was_healthy = "", False
    while True:
        seen = observe()
        now = clock()
        if seen.ended:
            raise UnprovenError(f"{seen.problem} after {now - begin:.1f} s")
        if seen.healthy or seen.answers:
            since, was_healthy = now if since is None else since, True
            problem = seen.problem
            if now - since >= min_healthy_time:
                problem = "" if seen.healthy else check()
                if not problem:
                    return seen
                since = None
        else:
            since, problem = None, seen.problem
        if now - begin >= healthy_deadline:
            raise UnprovenError(_too_late(since, was_healthy, problem, min_healthy_time, healthy_deadline))
        sleep(interval)


def _too_late(since: float | None, was_healthy: bool, problem: str, minimum: float, deadline: float) -> str:
    if since is not None and problem:
        return f"not healthy within {deadline:g} s: {problem}"
    if since is not None:
        return f"healthy too late: {minimum:g} s of health do not fit into what is left of {deadline:g} s"
    if was_healthy:
        return f"healthy at times, but never for {minimum:g} s without a break within {deadline:g} s: {problem}"
    return f"not healthy within {deadline:g} s: {problem}"


def container_problem(inspect: Mapping[str, Any] | None, started_at: str) -> tuple[bool, str]:
    """Whether the container that started then has ended, and what is wrong with it ("": nothing)."""
    if inspect is None:
        return True, "was removed by someone else"
    state = inspect["State"]
    again = state.get("StartedAt") != started_at
    if not state.get("Running") or state.get("Restarting") or again:
        detail = "out of memory" if state.get("OOMKilled") else state.get("Error") or ""
        text = f"ended with exit code {state.get('ExitCode')}" + (f" ({detail})" if detail else "")
        running_again = state.get("Running") and not state.get("Restarting")
        return True, text + (" and was started again" if running_again else "")
    health = state.get("Health") or {}
    if health.get("Status", "none") in ("none", "healthy"):
        return False, ""
    log = health.get("Log") or []
    if health.get("Status") == "unhealthy" or (log and log[-1].get("ExitCode")):
        output = " ".join(str(log[-1].get("Output", "")).split())[-200:] if log else ""
        return False, f"its health check fails: {output}" if output else "its health check fails"
    return False, NO_VERDICT


def check_command(config: Mapping[str, Any]) -> list[str] | None:
    """What the engine executes in a container of this configuration to know its health; None: nothing.

    https://docs.docker.com/reference/api/engine: Healthcheck.Test is CMD and arguments, CMD-SHELL and a line, or NONE.
    """
    kind, *arguments = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
    if kind == "CMD-SHELL":
        return [*(config.get("Shell") or ["/bin/sh", "-c"]), *arguments]
    return arguments if kind == "CMD" else None


def probe_http(address: str, port: int, path: str, timeout: float) -> tuple[int | None, str]:
    """The status of a GET, and what is wrong with it ("": it is a 2xx)."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"User-Agent": "qianjiang-probe", "Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return None, f"GET {path}: {_reason(error)}"
    finally:
        connection.close()
    return status, "" if 200 <= status < 300 else f"GET {path} answered {status}"


def probe_tcp(address: str, port: int, timeout: float) -> tuple[str, str]:
    """Whether a port takes a connection and keeps it: the engine's proxy also accepts for nobody, and hangs up."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as connection:
            connection.settimeout(0.1)
            try:
                kept = connection.recv(1) != b""
            except TimeoutError:
                kept = True
    except OSError as error:
        return "closed", f"port {port}: {_reason(error)}"
    return ("open", "") if kept else ("closed", f"port {port} hangs up")


def port_holder(port: int, entries: Iterable[Mapping[str, Any]]) -> str | None:
    """Who has a TCP port of this host: one of the containers in the engine's list, or a process. None: it is free."""
    for entry in entries:
        if any(item.get("PublicPort") == port and item.get("Type") == "tcp" for item in entry.get("Ports") or []):
            return f"container {(entry.get('Names') or [entry['Id'][:12]])[0].lstrip('/')}"
    inodes = _listening_inodes(port)
    return f"process {_process(inodes)}" if inodes else None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _process(inodes: set[str]) -> str:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in wanted for link in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
        except OSError:
            # ended in the meantime, or not ours to look at
            continue
    return "unknown"


def _reason(error: Exception) -> str:
    return (
        os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or type(error).__name__
    )
