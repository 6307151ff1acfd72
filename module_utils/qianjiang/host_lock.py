# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One process of this host at a time, for work that two would do twice: a run may outlive its controller."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("/run/lock")
PATIENCE = 3600  # seconds to wait for work that has no limit of its own
_POLL = 0.5


class HostLockError(Exception):
    """The lock cannot be had."""


@contextmanager
def host_lock(what: str, seconds: float) -> Iterator[None]:
    """Alone with `what` on this host, after a wait of at most so many seconds; 0: any time.

    The kernel frees it when the process ends, in whatever way.
    """
    path = FOLDER / re.sub("[^A-Za-z0-9.-]", "_", f"qianjiang-{what}"[:200])
    try:
        FOLDER.mkdir(exist_ok=True)
        file = _open(path)
    except OSError as error:
        raise HostLockError(f"cannot open {path}: {error.strerror}") from error
    end = time.monotonic() + seconds
    try:
        while not _is_taken(file):
            if seconds and time.monotonic() >= end:
                hint = f"lslocks shows which process has {path}. Run this again when it has ended."
                raise HostLockError(f"{what}: another run on this host has not ended within {seconds:g} s. {hint}")
            time.sleep(_POLL)
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    """Another user's too: in a folder that all may write to, the kernel lets nobody else open one to create it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    try:
        file = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:  # by another run, at this moment
        return os.open(path, flags)
    os.fchmod(file, 0o644)  # whatever the umask
    return file


def _is_taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
