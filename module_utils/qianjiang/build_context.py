# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build sends to the engine, and the hash that names it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ansible.module_utils.qianjiang import durable

try:
    from docker.utils.build import PatternMatcher, exclude_paths
except ImportError:  # said by entries(), as a message instead of a traceback
    exclude_paths = None  # type: ignore[assignment]

STAGED = ".image-build-"
# An exception that may hold for files of any folder, left out or not
_ANY_FOLDER = re.compile(r"!.*(?:\*\*.|[*?\[].*/.)")
Kind = Literal["file", "executable", "link", "directory"]


class ContextError(Exception):
    """A folder that cannot be a build context; the message names the file."""


class Entry(NamedTuple):
    """One path of a build context. `content` is a file's sha256 or a link's target."""

    path: str
    kind: Kind
    content: str


def entries(folder: Path, dockerfile: str) -> list[Entry]:
    """What Docker would send of `folder`, in order. Dockerfile and ignore file are always sent, so they count."""
    if exclude_paths is None:
        raise ContextError("the Python Docker SDK is missing on this host. On Debian: python3-docker")
    if not folder.is_dir():
        raise ContextError(f"path: no such folder: {folder}")
    dockerfile = os.path.normpath(dockerfile)
    if dockerfile.startswith(("/", "../")):
        raise ContextError(f"dockerfile: {dockerfile!r} is outside of the build context {folder}")
    if not (folder / dockerfile).is_file():
        raise ContextError(f"dockerfile: no such file: {folder / dockerfile}")
    try:
        patterns = [*ignore_patterns(folder, dockerfile), f"!{ignore_file(folder, dockerfile).relative_to(folder)}"]
        if any_folder(patterns):
            found = set(_sent(folder, PatternMatcher([*patterns, f"!{dockerfile}"]).patterns))
        else:
            found = exclude_paths(str(folder), patterns, dockerfile=dockerfile)
        read = [_entry(folder, path) for path in sorted(found)]
    except OSError as error:
        raise ContextError(f"{error.filename}: {error.strerror}: the build cannot read it") from error
    return [entry for entry in read if entry is not None]


def ignore_file(folder: Path, dockerfile: str) -> Path:
    """The ignore file that counts: the Dockerfile's own, where there is one (BuildKit's rule), else .dockerignore."""
    own = folder / f"{dockerfile}.dockerignore"
    return own if own.is_file() else folder / ".dockerignore"


def ignore_patterns(folder: Path, dockerfile: str) -> list[str]:
    """The patterns of the ignore file, without comments and empty lines."""
    file = ignore_file(folder, dockerfile)
    if not file.is_file():
        return []
    patterns = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        if line.strip() == "!":
            raise ContextError(f"{file} line {number}: '!' without a pattern")
        patterns.append(line.strip())
    return patterns


def any_folder(patterns: Iterable[str]) -> bool:
    """Do exceptions name files in folders that only BuildKit looks into? The SDK and the classic builder do not."""
    return any(map(_ANY_FOLDER.match, patterns))


def _sent(folder: Path, patterns: Sequence[Any], inside: str = "", outer: Sequence[bool] = ()) -> Iterator[str]:
    """The paths that BuildKit sends: a pattern that holds for a folder holds for what is in it; the last one decides.

    `outer`: which of the patterns hold for the folder `inside`. A pattern that would change nothing is not asked.
    """
    for entry in os.scandir(folder / inside):
        path = f"{inside}{entry.name}"
        left_out = False
        hold: list[bool] = []
        for pattern, held in zip(patterns, outer or [False] * len(patterns)):
            hold.append(held or (pattern.exclusion == left_out and pattern.match(path)))
            if hold[-1]:
                left_out = not pattern.exclusion
        if not left_out:
            yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _sent(folder, patterns, f"{path}/", hold)


def identity(found: Sequence[Entry], inputs: Mapping[str, object]) -> str:
    """The sha256 (hex) of a context and of everything else that decides what is built. Times do not count."""
    document = {"version": 1, "context": found, "inputs": inputs}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tag(context: str) -> str:
    """The tag that names an image by its context hash."""
    return f"ctx-{context[:16]}"


@contextlib.contextmanager
def staged(folder: Path, found: Sequence[Entry]) -> Iterator[Path]:
    """A copy of a context for as long as it is built, beside its folder: /tmp may be memory."""
    try:
        with durable.exclusive(folder):
            _remove_left(folder.parent)
            top = tempfile.mkdtemp(prefix=STAGED, dir=folder.parent)
            lock = os.open(top, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise ContextError(f"cannot copy {folder} to a folder beside it: {error.strerror}") from error
    try:
        target = Path(top, "context")
        stage(folder, target, found)
        yield target
    finally:
        shutil.rmtree(top)
        os.close(lock)


def _remove_left(folder: Path) -> None:
    """Remove the copies of builds that were killed: nobody has their lock."""
    for left in folder.glob(f"{STAGED}*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(lock)


def stage(folder: Path, target: Path, found: Sequence[Entry]) -> None:
    """Copy a context to `target`, so that exactly what was counted is sent.

    Modes become 0644 and 0755: like git, the identity knows only the executable bit, so the umask of a checkout must
    not reach the image either.
    """
    _folder(target)
    for entry in found:
        source, copy = folder / entry.path, target / entry.path
        try:
            _copy(entry, source, copy, target)
        except OSError as error:
            raise ContextError(f"cannot copy {source} to {copy}: {error.strerror}") from error
        if entry.kind in {"file", "executable"} and _sha256(copy) != entry.content:
            raise ContextError(f"{source} changed while it was read: run again when nothing writes there")


def _copy(entry: Entry, source: Path, copy: Path, top: Path) -> None:
    _folder(copy if entry.kind == "directory" else copy.parent, top)
    if entry.kind == "link":
        copy.symlink_to(entry.content)
    elif entry.kind != "directory":
        shutil.copyfile(source, copy)
        times = source.stat()
        copy.chmod(0o755 if entry.kind == "executable" else 0o644)
        os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))


def _folder(path: Path, top: Path | None = None) -> None:
    if path.is_dir():
        return
    if top is not None and path != top:
        _folder(path.parent, top)
    path.mkdir()
    path.chmod(0o755)


def _entry(folder: Path, path: str) -> Entry | None:
    file = folder / path
    mode = file.lstat().st_mode
    if stat.S_ISLNK(mode):
        return Entry(path, "link", str(file.readlink()))
    if stat.S_ISDIR(mode):
        return Entry(path, "directory", "")
    if stat.S_ISREG(mode):
        return Entry(path, "executable" if mode & stat.S_IXUSR else "file", _sha256(file))
    if stat.S_ISSOCK(mode):
        return None  # Docker leaves sockets out too
    raise ContextError(f"{file} is neither a file, a folder nor a symbolic link: leave it out with .dockerignore")


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()
