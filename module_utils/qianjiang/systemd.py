# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units, never waiting longer than told."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

TIMED_OUT = 124
# Properties that name units which are stopped with the unit
STOPPED_WITH = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf")


@dataclass(frozen=True)
class Answer:
    """How a command ended. `status` is TIMED_OUT where it did not."""

    status: int
    output: str

    @property
    def succeeded(self) -> bool:
        return self.status == 0


def run(command: list[str], timeout: float = 30) -> Answer:
    """Run a command, standard output and error together, for at most `timeout` seconds.

    subprocess.run would wait for a killed child, and a child that sits in the kernel on a dead file server never ends.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            status = TIMED_OUT
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.5)
        output.seek(0)
        return Answer(status, output.read().decode(errors="replace").strip())


def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit, from the manager's memory."""
    answer = run(["systemctl", "show", unit, f"--property={','.join(properties)}"])
    return dict(line.split("=", 1) for line in answer.output.splitlines() if "=" in line)


def stopped_with(*units: str) -> list[str]:
    """Active units that systemd stops with these, as they require them.

    Without targets, which run nothing, and mounts without a unit file, as the kernel makes them below an NFS export.
    """
    found = []
    seen = list(units)
    for unit in seen:  # it grows
        state = show(unit, "ActiveState", "FragmentPath", *STOPPED_WITH)
        runs = state.get("ActiveState") not in {"inactive", "failed"} and not unit.endswith(".target")
        if unit not in units and runs and state.get("FragmentPath"):
            found.append(unit)
        for name in STOPPED_WITH:
            seen += [other for other in shlex.split(state.get(name, "")) if other not in seen]
    return found


def journal(unit: str, since: float) -> list[str]:
    """What the unit's own processes have logged since then, oldest first."""
    run(["journalctl", "--sync"])
    # A match, not --unit: that would mix in what systemd says about the unit
    match = f"_SYSTEMD_UNIT={unit}"
    return run(
        ["journalctl", match, f"--since=@{int(since)}", "--output=cat", "--no-pager", "--lines=200"]
    ).output.splitlines()


def wait_until(check: Callable[[], bool], deadline: float, pause: float = 0.1) -> bool:
    """Call `check` until it is true; false when `deadline` (of time.monotonic) has passed."""
    while True:
        if check():
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
