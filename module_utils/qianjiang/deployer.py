# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run of ansible-playbook this is, and which other processes of this controller may hold a lock.

A run is named by its outermost process, as it works in forked ones: boot, pid namespace, pid and start time, so that no
other run ever has its name. Two runs with the same `controller` number their processes alike and see each other's: the
one can tell whether the other is gone. Runs that cannot see each other must not have the same `controller`; then only
time frees a lock whose holder died. So `controller` also holds the user where /proc hides the processes of others
(`hidepid`), and is of this run alone where /proc does not tell (macOS, or a pid namespace with the /proc of another).
"""

from __future__ import annotations

import getpass
import multiprocessing
import os
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

PLAYBOOK = "ansible-playbook"
PROC = Path("/proc")
# A process that ended and that its parent has not asked for yet
ENDED = ("Z", "X", "x")


class Identity(TypedDict):
    """`id` is of one run; those with the same `controller` can judge each other's `id` by `alive`."""

    id: str
    controller: str
    user: str
    host: str


@dataclass(frozen=True)
class Process:
    """What /proc tells of a process; `started` counts the kernel's ticks since boot."""

    pid: int
    parent: int
    started: int
    arguments: tuple[str, ...]

    @property
    def is_playbook(self) -> bool:
        """Whether it is ansible-playbook itself, and not sudo, xargs or an editor with it among their arguments."""
        names = [Path(argument).name for argument in self.arguments]
        if not names or not names[0].startswith("python"):
            return names[:1] == [PLAYBOOK]
        return next((name for name in names[1:] if not name.startswith("-")), "") == PLAYBOOK

    @property
    def may_deploy(self) -> bool:
        """Whether it could be a run, in the widest sense: one too many does no harm, one too few loses its lock."""
        return bool(self.arguments) and (
            Path(self.arguments[0]).name.startswith("python")
            or any("ansible" in argument for argument in self.arguments)
        )


def identity() -> Identity:
    """Who this run is: the same in each of its processes."""
    host, space = socket.gethostname(), _space(PROC)
    if space is None:
        name = _name_without_proc(host)
        return {"id": name, "controller": name, "user": _user(), "host": host}
    name = _name(space, run_of(_start(), PROC))
    hidden = f":user{os.geteuid()}" if hides_processes((PROC / "mounts").read_text(errors="replace")) else ""
    return {"id": name, "controller": f"{host}:{space}{hidden}", "user": _user(), "host": host}


def alive() -> list[str]:
    """The ids of all runs that this controller may have now, this one among them.

    The one with pid 0 is none: it says when the list was made, for `may_be_newer`.
    """
    own, space = identity()["id"], _space(PROC)
    if space is None:
        return [own]
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    found = (read_process(int(entry.name), PROC) for entry in PROC.iterdir() if entry.name.isdecimal())
    return sorted(
        {own, f"{space}:0:{now}", *(_name(space, process) for process in found if process and process.may_deploy)}
    )


def may_be_newer(run: str, runs: Iterable[str]) -> bool:
    """Whether a run may have begun after `runs` were listed, so that its absence says nothing."""
    return _started(run) >= max(map(_started, runs), default=0)


def _started(run: str) -> int:
    ticks = run.rpartition(":")[2]
    return int(ticks) if ticks.isdecimal() else 0


def run_of(pid: int, proc: Path) -> Process:
    """The outermost of the ansible-playbook processes that this one comes from without a gap; itself if it has none."""
    process = read_process(pid, proc)
    if process is None:
        raise ProcessLookupError(f"process {pid} is not in {proc}")
    while True:
        parent = read_process(process.parent, proc)
        if parent is None or not parent.is_playbook:
            return process
        process = parent


def read_process(pid: int, proc: Path) -> Process | None:
    """A process that runs, or None: it ended, or is not ours to see."""
    try:
        # The name, in parentheses, may hold spaces and parentheses
        state, parent, *rest = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        arguments = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    if state in ENDED or len(rest) < 18:
        return None
    return Process(pid, int(parent), int(rest[17]), tuple(arguments[:-1]))


def _start() -> int:
    """Where to look from: of a process that multiprocessing forked, the one that forked it, whatever its name is."""
    parent = multiprocessing.parent_process()
    return (parent.pid if parent else None) or os.getpid()


def _name(space: str, process: Process) -> str:
    return f"{space}:{process.pid}:{process.started}"


def _space(proc: Path) -> str | None:
    """The boot and the pid namespace, in which pid and start time name a process; None where /proc cannot tell."""
    try:
        if (proc / "self").readlink().name != str(os.getpid()):
            return None
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{re.sub(r'[^0-9]', '', (proc / 'self/ns/pid').readlink().name)}"
    except OSError:
        return None


def hides_processes(mounts: str) -> bool:
    """Whether /proc is mounted so that users do not see each other's processes."""
    entries = [line.split() for line in mounts.splitlines()]
    return any(
        option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off")
        for entry in entries
        if len(entry) > 3 and entry[1:3] == ["/proc", "proc"]
        for option in entry[3].split(",")
    )


def _name_without_proc(host: str) -> str:
    """Host, pid and an UUID of what is the same in each process of a run: machine, pid and start time."""
    pid = _start()
    try:
        shown = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        shown = ""
    return f"{host}:{pid}:{uuid.uuid5(uuid.NAMESPACE_OID, f'{uuid.getnode()}/{pid}/{shown.strip()}')}"


def _user() -> str:
    """Who typed the command."""
    if os.environ.get("SUDO_USER"):
        return os.environ["SUDO_USER"]
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
