# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""plugins/callback/warm_up.py: what it keeps and forgets, as tables, and in real runs of ansible-playbook."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support import ROOT, load

WARM_UP = load("plugins/callback/warm_up.py")
DAY = 86400


def sources(folder: Path) -> Path:
    """A module and what it imports."""
    (folder / "shared").mkdir(parents=True)
    (folder / "module.py").write_text("text = 1\n")
    (folder / "shared" / "common.py").write_text("text = 2\n")
    return folder


def rewrite(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        pytest.param(lambda _folder: None, False, id="nothing"),
        pytest.param(rewrite("module.py", "text = 3\n"), True, id="a byte"),
        pytest.param(rewrite("shared/common.py", "text = 3\n"), True, id="a byte in a folder below"),
        pytest.param(rewrite("module.py", "text = 1\n"), False, id="the same bytes again"),
        pytest.param(rewrite("other.py", ""), True, id="one more file"),
        pytest.param(rewrite("notes.txt", "text"), False, id="not Python"),
        pytest.param(lambda folder: (folder / "module.py").rename(folder / "renamed.py"), True, id="another name"),
        pytest.param(lambda folder: (folder / "shared" / "common.py").unlink(), True, id="one file less"),
        pytest.param(lambda folder: (folder / ".#module.py").symlink_to("nobody@host"), False, id="an editor's lock"),
        pytest.param(
            lambda folder: [
                (folder / "module.py").write_text("text = 1\ntext = 2\n"),
                (folder / "shared" / "common.py").write_text(""),
            ],
            True,
            id="a line moved from one file to the other",
        ),
    ],
)
def test_the_hash_changes_with_the_sources(tmp_path: Path, change: Callable[[Path], object], differs: bool) -> None:
    folder = sources(tmp_path / "sources")
    before = WARM_UP.source_hash([str(folder)])
    change(folder)
    assert (WARM_UP.source_hash([str(folder)]) != before) is differs


def test_the_hash_changes_with_folders_and_versions_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = str(sources(tmp_path / "one")), str(sources(tmp_path / "two"))
    before = WARM_UP.source_hash([one, two])
    assert before == WARM_UP.source_hash([two, one, two])
    assert len({before, WARM_UP.source_hash([one]), WARM_UP.source_hash([two])}) == 3
    monkeypatch.setattr(WARM_UP, "__version__", "2.0.0")
    assert WARM_UP.source_hash([one, two]) != before


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Where packs come from, and where they go."""
    found = tmp_path / "source", tmp_path / "target"
    for folder in found:
        folder.mkdir()
    return found


@pytest.mark.parametrize(
    ("name", "copied"),
    [
        pytest.param("ansible.legacy.service_stop-ZIP_DEFLATED-none", True, id="the project's"),
        pytest.param("ansible.modules.copy-ZIP_DEFLATED-none", True, id="Ansible's own"),
        pytest.param("ansible.builtin.copy-ZIP_DEFLATED-none", True, id="Ansible's own, by its other name"),
        pytest.param(
            "ansible_collections.community.docker.plugins.modules.ping-ZIP_DEFLATED-none", False, id="others'"
        ),
        pytest.param("ansible.legacy.service_stop-ZIP_DEFLATED-none.lock", False, id="a lock"),
        pytest.param("ansible.legacy.service_stop-ZIP_DEFLATED-none-part", False, id="half a pack of Ansible"),
        pytest.param("tmpk3jw9f_2", False, id="half a pack of ours"),
    ],
)
def test_which_packs_are_copied(folders: tuple[Path, Path], name: str, copied: bool) -> None:
    source, target = folders
    (source / name).write_text("pack")
    WARM_UP.copy_new(source, target)
    assert {file.name: file.read_text() for file in target.iterdir()} == ({name: "pack"} if copied else {})


PACK = "ansible.legacy.service_stop-ZIP_DEFLATED-none"


def test_what_is_there_stays(folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / PACK).write_text("another")
    (target / PACK).write_text("pack")
    WARM_UP.copy_new(source, target)
    assert [(file.name, file.read_text()) for file in target.iterdir()] == [(PACK, "pack")]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel writes the first bytes of a larger one and refuses the rest, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_half_a_pack_is_none(folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / PACK).write_bytes(b"x" * 4096)
    with pytest.raises(OSError, match="File too large"), no_file_above(1024):
        WARM_UP.copy_new(source, target)
    assert not (target / PACK).exists()
    WARM_UP.copy_new(source, target)
    assert (target / PACK).stat().st_size == 4096


@pytest.mark.parametrize(
    ("name", "age", "stays"),
    [
        pytest.param("current", 30 * DAY, True, id="this version's"),
        pytest.param("other", 6 * DAY, True, id="used this week"),
        pytest.param("other", 8 * DAY, False, id="not used for a week"),
        pytest.param("file", 8 * DAY, True, id="not a folder"),
    ],
)
def test_what_is_forgotten(tmp_path: Path, name: str, age: int, stays: bool) -> None:
    for folder in ("current", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / PACK).write_text("pack")
    (tmp_path / "file").write_text("")
    now = 1_800_000_000
    for entry in tmp_path.iterdir():
        os.utime(entry, (now, now))
    os.utime(tmp_path / name, (now - age, now - age))
    WARM_UP.forget_old(tmp_path, tmp_path / "current", now)
    assert {entry.name for entry in tmp_path.iterdir()} == {"current", "other", "file"} - (set() if stays else {name})


def archive(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return written.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return {name: source.read(name) for name in source.namelist()}


def said(folder: Path, files: dict[str, bytes]) -> str:
    """What a fresh Python imports from an archive."""
    (folder / "packed.zip").write_bytes(archive(files))
    program = [sys.executable, "-c", "import common.word; print(common.word.text, common.word.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(folder / "packed.zip")}
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout.strip()


SOURCES = {"common/__init__.py": b"", "common/word.py": b"text = 'compiled'\n", "notes.txt": b"notes"}


def test_bytecode_is_beside_each_source() -> None:
    packed = WARM_UP.with_bytecode(archive(SOURCES))
    assert {name: content for name, content in members(packed).items() if not name.endswith("c")} == SOURCES
    assert members(packed).keys() - SOURCES.keys() == {"common/__init__.pyc", "common/word.pyc"}
    assert members(WARM_UP.with_bytecode(packed)) == members(packed)


def test_python_takes_the_bytecode_of_its_version_and_else_the_source(tmp_path: Path) -> None:
    packed = members(WARM_UP.with_bytecode(archive(SOURCES))) | {"common/word.py": b"text = 'source'\n"}
    assert said(tmp_path, packed) == f"compiled {tmp_path}/packed.zip/common/word.pyc"
    other = bytes(4) + packed["common/word.pyc"][4:]
    assert said(tmp_path, packed | {"common/word.pyc": other}) == f"source {tmp_path}/packed.zip/common/word.py"


MODULE = """
from ansible.module_utils import common
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={{}}).exit_json(word="{word}", file=common.__file__)
"""
PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - say_word:
      register: said
    - ansible.builtin.ping:
    - ansible.builtin.debug:
        msg: "it says {{ said.word }} of {{ said.file | splitext | last }}."
"""


class Run(NamedTuple):
    """A run's exit code, what it wrote, and the modules it packed or found packed."""

    code: int
    output: str
    packed: int
    reused: int


class Project:
    """A playbook with a module of its own, run with the callback and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache" / "modules"
        (folder / "library").mkdir()
        (folder / "play.yml").write_text(PLAYBOOK)
        (folder / "ansible.cfg").write_text("")
        self.write("one")

    def write(self, word: str) -> None:
        (self.folder / "library" / "say_word.py").write_text(MODULE.format(word=word))

    def run(self, cache: Path | None = None) -> Run:
        """Ansible says in its debug output what it packs."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment = inherited | {
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_LIBRARY": str(self.folder / "library"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "plugins" / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "warm_up",
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_DEBUG": "1",
            "QIANJIANG_MODULE_CACHE": str(cache or self.cache),
            "LC_ALL": "C.UTF-8",
        }
        program = Path(sys.executable).with_name("ansible-playbook")
        inventory = ["-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
        done = subprocess.run(
            [str(program), *inventory, str(self.folder / "play.yml")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        counts = [done.stdout.count(f"ANSIBALLZ: {what}") for what in ("Creating module\n", "using cached module")]
        return Run(done.returncode, done.stdout, *counts)

    def packs(self) -> dict[str, Any]:
        """Each pack, and what changes when it is written again."""
        found = {file: file.stat() for file in self.cache.glob("*/*")}
        return {str(file.relative_to(self.cache)): (stat.st_ino, stat.st_mtime_ns) for file, stat in found.items()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def succeeded(run: Run, word: str = "one of .pyc") -> bool:
    assert run.code == 0, run.output[-2000:]
    # Ansible survives a callback that fails, and warns
    assert "Callback dispatch" not in run.output
    return f"it says {word}." in run.output


def test_a_run_leaves_its_packs_to_the_next_one_until_a_source_changes(project: Project) -> None:
    first = project.run()
    kept = project.packs()
    assert succeeded(first, "one of .py")
    assert (first.packed, first.reused) == (2, 0)
    assert sorted(name.partition("/")[2].partition("-")[0] for name in kept) == [
        "ansible.legacy.say_word",
        "ansible.modules.ping",
    ]
    folder = next(project.cache.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700

    second = project.run()
    assert succeeded(second)
    assert (second.packed, second.reused, project.packs()) == (0, 2, kept)

    project.write("two")
    third = project.run()
    assert succeeded(third, "two of .py")
    assert (third.packed, len(project.packs()), len(list(project.cache.iterdir()))) == (2, 4, 2)
    assert kept.items() <= project.packs().items()


def test_what_changed_during_a_run_is_not_kept_as_what_was_there_before(project: Project) -> None:
    module = project.folder / "library" / "say_word.py"
    edit = f"- ansible.builtin.command: sed -i s/one/edited/ {module}\n"
    playbook = (project.folder / "play.yml").read_text()
    (project.folder / "play.yml").write_text(playbook.replace("tasks:\n", f"tasks:\n    {edit}"))
    assert succeeded(project.run(), "edited of .py")

    (project.folder / "play.yml").write_text(playbook)
    project.write("one")
    assert succeeded(project.run(), "one of .py")


def test_a_cache_that_cannot_be_written_is_no_failure(project: Project) -> None:
    # Root may write everywhere but below a file
    (project.folder / "file").write_text("")
    run = project.run(project.folder / "file" / "modules")
    assert succeeded(run, "one of .py")
    assert (run.packed, run.reused) == (2, 0)
