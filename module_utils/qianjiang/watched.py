# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command that copies, and end it when it stands still: a cut link closes no connection."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

STALLED = 124  # the exit code of one that stood still, as timeout(1) has it
_POLL = 0.5


def moved_bytes(pid: int) -> int | None:
    """How much a process has read and written so far, sockets included; None where the kernel does not tell."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        counters = dict(line.split(": ") for line in lines)
        return int(counters["rchar"]) + int(counters["wchar"])
    except (OSError, ValueError, KeyError):
        return None


def run_watched(
    argv: Sequence[str],
    stall_timeout: float,
    moved: Callable[[int], int | None] = moved_bytes,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, str, str]:
    """Exit code, output and errors, as AnsibleModule.run_command. One that moves nothing for so long is killed.

    It gets no proxy of this host's environment: registries are reached directly, as RegistryClient does.
    """
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ) as process:
            last, since, stalled = moved(process.pid), clock(), False
            while process.poll() is None:
                try:
                    process.wait(_POLL)
                except subprocess.TimeoutExpired:
                    now = moved(process.pid)
                    if now is None or now != last:
                        last, since = now, clock()
                    elif clock() - since >= stall_timeout:
                        stalled = True
                        process.kill()
            code = process.returncode
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    if stalled:
        code = STALLED
        texts[1] += f"\nnot a byte moved for {stall_timeout:g} s: is the link cut?"
    return code, texts[0], texts[1]
