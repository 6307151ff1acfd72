# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a crash leaves whole, changed by one process of this host at a time. Everything raises OSError."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Alone with the files of this file's folder, which is made where it is missing.

    The kernel frees the folder of a process that was killed.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def read_text(path: Path) -> str | None:
    """The file, or None where there is none; what is not UTF-8 in it is written back unchanged by `replace`."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def replace(path: Path, text: str, mode: int | None = None, owner: tuple[int, int] | None = None) -> None:
    """Put a new file in the place of the old one: after a crash at any moment it is either of them, whole.

    `mode`, and `owner` (the numbers of user and group): left out, the old file's; without one, 0644 and the process's.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        old = path.stat()
        mode = stat.S_IMODE(old.st_mode) if mode is None else mode
        owner = owner or (old.st_uid, old.st_gid)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            if owner:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), 0o644 if mode is None else mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path)


def remove(path: Path) -> None:
    """Remove the file; it does not come back after a crash."""
    path.unlink(missing_ok=True)
    _sync_folder(path)


def append_lines(path: Path, lines: list[str]) -> None:
    """Add all lines, or none. What a crash left without its end becomes a line of its own first."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        data = memoryview((("\n" if torn else "") + "".join(f"{line}\n" for line in lines)).encode())
        try:
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    if not size:
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
