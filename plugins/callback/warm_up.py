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
    sources and of Ansible's version.
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

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
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
    """Where the project's modules and what they share are; Ansible's own are covered by its version."""
    found = [*module_loader._get_paths(subdirs=False), *module_utils_loader._get_paths(subdirs=False)]
    inside = str(Path(constants.__file__).parent)
    return [str(folder) for folder in found if not str(folder).startswith(inside) and Path(folder).is_dir()]


def copy_new(source: Path, target: Path) -> None:
    """Copy the packs that `target` lacks. A reader sees a whole pack or none."""
    for file in source.iterdir():
        if not file.name.startswith(KEPT) or file.name.endswith(UNFINISHED) or (target / file.name).exists():
            continue
        with tempfile.NamedTemporaryFile(dir=target, delete=False) as temporary:
            temporary.write(file.read_bytes())
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
            copy_new(self.packs, self.kept)
            self.kept.touch()
            forget_old(self.root, self.kept, time.time())
