# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do once per run what Ansible would do in each of its processes, and once per version what it would do in each run."""

from __future__ import annotations

DOCUMENTATION = r"""
name: warm_up
type: notification
short_description: Load filters before Ansible forks, and keep what modules are packed into
description:
  - Ansible runs each task of each host in a process of its own. One that uses a filter loads all filter plugins. They
    are loaded here before, so that every process inherits them.
  - Ansible packs a module with all that it imports, which takes longer than most of our modules run, and throws the
    pack away at the end of the run. Packs of the project's modules and of ansible.builtin are kept, by a hash of their
    sources and of the versions of Ansible and Python.
  - A pack holds sources only, and every call on every host compiles them anew, which takes longer than most of our
    modules run. A kept pack also holds their bytecode, for hosts that run the controller's version of Python; a host
    with another version goes on with the sources.
options:
  cache_directory:
    description: Where packs are kept. Only its owner can read or write there.
    type: path
    default: ~/.cache/qianjiang/modules
    env:
      - name: QIANJIANG_MODULE_CACHE
    ini:
      - section: callback_warm_up
        key: cache_directory
requirements:
  - enabled in C(callbacks_enabled)
"""

import base64
import dataclasses
import functools
import hashlib
import importlib.util
import io
import marshal
import pickle
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, module_loader, module_utils_loader, test_loader
from ansible.release import __version__

# Packs of collections' modules depend on the collections' versions: they are not kept
KEPT = ("ansible.legacy.", "ansible.builtin.", "ansible.modules.")
# What Ansible has beside a pack while it writes it, and leaves there when it is killed
UNFINISHED = (".lock", "-part")
# What precedes the code in a .pyc that is valid whatever became of its source (PEP 552: unchecked, by hash)
UNCHECKED = importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little") + bytes(8)
# Packs of other versions go when nobody used them for so long
FORGOTTEN_AFTER = 7 * 86400


def source_hash(folders: Iterable[str]) -> str:
    """What packs depend on: every Python file below `folders`, and the versions of Ansible and Python."""
    digest = hashlib.sha256(f"{__version__} {sys.version}".encode())
    for folder in sorted(set(folders)):
        # an editor's lock is a link to nowhere
        for file in sorted(file for file in Path(folder).rglob("*.py") if file.is_file()):
            digest.update(f"{file}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def own_folders() -> list[str]:
    """Where the project's modules, what they share, and this file are; Ansible's own are covered by its version."""
    found = [
        *module_loader._get_paths(subdirs=False),
        *module_utils_loader._get_paths(subdirs=False),
        str(Path(__file__).parent),
    ]
    inside = str(Path(constants.__file__).parent)
    return [str(folder) for folder in found if not str(folder).startswith(inside) and Path(folder).is_dir()]


@functools.cache
def bytecode(name: str, source: bytes) -> bytes:
    """The .pyc of one file, for this version of Python. Modules share most of what they import: each file once."""
    return UNCHECKED + marshal.dumps(compile(source, name, "exec", dont_inherit=True))


def with_bytecode(archive: bytes) -> bytes:
    """A zip archive of Python files → the same with the bytecode of each beside it.

    Python takes the bytecode where it is of its version, and the source else."""
    compiled = io.BytesIO(archive)
    with zipfile.ZipFile(compiled, "a", zipfile.ZIP_DEFLATED) as files:
        for file in files.infolist():
            if file.filename.endswith(".py") and f"{file.filename}c" not in files.namelist():
                files.writestr(
                    zipfile.ZipInfo(f"{file.filename}c", file.date_time),
                    bytecode(file.filename, files.read(file)),
                    zipfile.ZIP_DEFLATED,
                )
    return compiled.getvalue()


def compiled_pack(pack: bytes) -> bytes:
    """What Ansible wrote of a module (`_CachedModule`) → the same with bytecode."""
    packed = pickle.loads(pack)  # noqa: S301 - Ansible wrote it in this run, in a folder of its own
    archive = base64.b64encode(with_bytecode(base64.b64decode(packed.zip_data)))
    return pickle.dumps(dataclasses.replace(packed, zip_data=archive))


def copy_new(source: Path, target: Path, change: Callable[[bytes], bytes] = bytes) -> None:
    """Copy the packs that `target` lacks, as `change` makes them. A reader sees a whole pack or none."""
    for file in source.iterdir():
        if not file.name.startswith(KEPT) or file.name.endswith(UNFINISHED) or (target / file.name).exists():
            continue
        with tempfile.NamedTemporaryFile(dir=target, delete=False) as temporary:
            temporary.write(change(file.read_bytes()))
        Path(temporary.name).replace(target / file.name)


def forget_old(root: Path, current: Path, now: float) -> None:
    """Remove the packs of versions that nobody has used for a long time."""
    for folder in root.iterdir():
        if folder != current and folder.is_dir() and now - folder.stat().st_mtime > FORGOTTEN_AFTER:
            shutil.rmtree(folder, ignore_errors=True)


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible's entry point. That a cache cannot be used costs time, and is no failure."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "warm_up"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:  # noqa: ARG002 - Ansible passes it by name
        """Before the first process."""
        list(filter_loader.all())
        list(test_loader.all())
        self.packs = Path(constants.DEFAULT_LOCAL_TMP) / "ansiballz_cache"
        self.root = Path(self.get_option("cache_directory"))
        self.kept = self.root / source_hash(own_folders())
        with suppress(OSError):
            self.kept.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.packs.mkdir(exist_ok=True)
            copy_new(self.kept, self.packs)

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002 - Ansible passes it by name
        """After the last one."""
        with suppress(OSError):
            # A source that changed during the run may be in its packs
            if self.root / source_hash(own_folders()) == self.kept:
                copy_new(self.packs, self.kept, compiled_pack)
            self.kept.touch()
            forget_old(self.root, self.kept, time.time())
