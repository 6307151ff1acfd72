# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of the system: its text, owner, group and mode, read in one go and replaced in one step."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.qianjiang import durable

# Every file that a role writes whole says so, near its beginning
MARK = "# Managed by qianjiangyuan"


@dataclass(frozen=True)
class SystemFile:
    """What a file holds and whose it is."""

    content: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644

    @property
    def access(self) -> str:
        return f"{self.owner}:{self.group} {self.mode:04o}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def read(path: str) -> SystemFile | None:
    """The file, or None where there is none."""
    try:
        with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read()
    except FileNotFoundError:
        return None
    return SystemFile(content, _user(status.st_uid), _group(status.st_gid), status.st_mode & 0o7777)


def write(path: str, file: SystemFile) -> None:
    """Replace the file in one step: a reader sees the old or the new one. Raises LookupError for an unknown owner."""
    try:
        uid, gid = pwd.getpwnam(file.owner).pw_uid, grp.getgrnam(file.group).gr_gid
    except KeyError as error:
        raise LookupError(f"{path}: no such user or group: {file.owner}:{file.group}") from error
    durable.replace(Path(path), file.content, file.mode, (uid, gid))
