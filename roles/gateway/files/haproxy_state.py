#!/usr/bin/python3
# Managed by qianjiangyuan (role gateway): changes made here are overwritten
"""Reload HAProxy without forgetting what was set at its runtime socket.

haproxy-state check FILE         refuse a configuration that HAProxy refuses, or whose ports another program has
haproxy-state save               write the servers' state where the configuration reads it (server-state-file)
haproxy-state reload PID IDLE    save, reload the master process PID, wait until the new worker answers, and at most
                                 IDLE seconds for the old one to end
haproxy-state healthy            fail unless HAProxy answers at its runtime socket
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOCKET = "/run/haproxy/admin.sock"
CONFIGURATION = Path("/etc/haproxy/haproxy.cfg")
STATE = Path("/run/haproxy/server-state")
# module_utils/qianjiang/haproxy.py takes the same one
LOCK = Path("/run/haproxy/reload.lock")
# A slot's server is <node>.<replica>.<a or b>; others are datacenters
SLOT = re.compile(r"\.\d+\.[ab]$")
# SRV_ADMF_FDRAIN, and all of SRV_ADMF_MAINT and SRV_ADMF_DRAIN, in HAProxy's include/haproxy/server-t.h
DRAIN = 0x08
OUT_OF_ROTATION = 0x3B
# Seconds for the new worker to come up
PATIENCE = 30.0


def ask(command: str, path: str = SOCKET) -> str:
    """HAProxy's answer at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


def worker() -> int:
    """The process that answers at the runtime socket; 0 where none does."""
    try:
        found = re.search(r"^Pid: (\d+)$", ask("show info"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def configured_servers(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    """The servers' addresses and ports in a configuration, by (backend, server)."""
    servers, backend = {}, ""
    for line in text.splitlines():
        match line.split():
            case ["backend", name, *_]:
                backend = name
            case ["server", name, address, *_]:
                host, _, port = address.rpartition(":")
                servers[backend, name] = (host.strip("[]"), port)
    return servers


def carry_over(state: str, servers: dict[tuple[str, str], tuple[str, str]]) -> str:
    """The state for the next process: HAProxy takes a port from there, not from its configuration.

    A slot in rotation keeps its port: what runs there has it until a rollout has brought another. All else gets the
    configured one.

    A slot that is new in a backend which serves begins in drain: HAProxy takes a server for up until checks say
    otherwise, and nothing listens there yet.

    Version 1 of the format: column 1 is the backend, 2 the server's id, 3 its name, 4 its address, 6 its administrative
    state, 18 its port.
    """
    version, *lines = state.splitlines()
    if version != "1":
        raise ValueError(f"unexpected answer to 'show servers state': {state[:200]!r}")
    kept = [version]
    known: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        columns = line.split(" ")
        if len(columns) > 18 and (columns[1], columns[3]) in servers:
            if int(columns[6]) & OUT_OF_ROTATION or not SLOT.search(columns[3]):
                columns[18] = servers[columns[1], columns[3]][1]
            known[columns[1], columns[3]] = columns
            kept.append(" ".join(columns))
        elif line.startswith("#"):
            kept.append(line)
    for (backend, name), (host, port) in servers.items():
        others = [columns for (where, _), columns in known.items() if where == backend]
        if (backend, name) not in known and others and SLOT.search(name):
            like = next((columns for columns in others if int(columns[6]) & DRAIN), others[0])
            columns = [*like]
            columns[2] = str(max(int(other[2]) for other in others) + len(kept))
            columns[3], columns[4], columns[6], columns[18] = name, host, str(DRAIN), port
            kept.append(" ".join(columns))
    return "\n".join(kept) + "\n"


def endpoints(text: str) -> list[tuple[str, int]]:
    """The addresses and ports that a configuration listens on."""
    found = []
    for line in text.splitlines():
        match line.split():
            case ["bind", address, *_]:
                host, _, port = address.rpartition(":")
                found.append(("" if host == "*" else host.strip("[]"), int(port)))
    return found


def check_endpoints(text: str) -> None:
    """Bind each in passing. HAProxy shares its own with us (SO_REUSEPORT, both root's), other programs do not.

    HAProxy itself finds out too late: to get the port it pauses the old process, which refuses connections for 3 s.
    """
    for host, port in endpoints(text):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                attempt.bind((host, port))
            except OSError as error:
                raise OSError(f"cannot listen on {host or '*'}:{port}: {error.strerror}") from error


def without_missing_maps(text: str) -> str:
    """The configuration with an empty file for each map that is not there: a check run does not make it."""
    return re.sub(r"(?<=,map\()[^),]+", lambda found: found[0] if Path(found[0]).exists() else os.devnull, text)


def check(path: str) -> int:
    text = Path(path).read_text(encoding="utf-8")
    code = 0
    # Not there: a check run on a bare host
    if shutil.which("haproxy"):
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as candidate:
            candidate.write(without_missing_maps(text))
            candidate.flush()
            argv = ["haproxy", "-c", "-f", candidate.name]
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
        print((done.stdout + done.stderr).replace(candidate.name, path), end="", file=sys.stderr)
        code = done.returncode
    if code == 0:
        check_endpoints(text)
    return code


def save() -> None:
    servers = configured_servers(CONFIGURATION.read_text(encoding="utf-8"))
    state = carry_over(ask("show servers state"), servers)
    temporary = STATE.with_suffix(".new")
    temporary.write_text(state, encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(STATE)


def alive(process: int) -> bool:
    return process > 0 and Path(f"/proc/{process}").exists()


def wait_for_another(worker_before: int) -> None:
    end = time.monotonic() + PATIENCE
    while worker() in (0, worker_before):
        if time.monotonic() > end:
            raise TimeoutError(f"no new worker after {PATIENCE:.0f} s, see journalctl -u haproxy; the old one goes on")
        time.sleep(0.05)


def reload(master: int, idle: float) -> None:
    """Come back when the new worker serves, and the old one has ended, or has nothing but running requests left."""
    check_endpoints(CONFIGURATION.read_text(encoding="utf-8"))
    # Whoever sets something at the socket (gateway_switch and the like) waits meanwhile: the old worker would forget it
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = worker()
        if before:
            save()
        try:
            os.kill(master, signal.SIGUSR2)
            wait_for_another(before)
        finally:
            STATE.unlink(missing_ok=True)
    end = time.monotonic() + idle
    while alive(before) and time.monotonic() < end:
        time.sleep(0.05)


def main() -> int:
    try:
        match sys.argv[1:]:
            case ["check", path]:
                return check(path)
            # A keepalived that was not reloaded yet names the address of the statistics
            case ["healthy", *_]:
                ask("show info")
            case ["save"]:
                save()
            case ["reload", master, idle]:
                reload(int(master), float(idle))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (OSError, ValueError) as error:
        print(f"haproxy-state: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
