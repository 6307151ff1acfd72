from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.qianjiang import build_context
from ansible.module_utils.qianjiang.build_context import ContextError, entries, identity, stage, staged

DIGEST = "sha256:" + "b" * 64
BASE = f"r.lab:5000/base@{DIGEST}"
Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    def make(*names: str, ignore: str | None = None, dockerfile: str = f"FROM {BASE}\n") -> Path:
        for name in names:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
        (tmp_path / "Dockerfile").write_text(dockerfile)
        if ignore is not None:
            (tmp_path / ".dockerignore").write_text(ignore)
        return tmp_path

    return make


def files(folder: Path, dockerfile: str = "Dockerfile") -> set[str]:
    return {entry.path for entry in entries(folder, dockerfile) if entry.kind != "directory"}


SEND = {"Dockerfile", ".dockerignore"}
NAMES = ("a.log", "keep.log", "src/a.log", "src/x.py", "src/deep/y.py", "tmp/one/two", "tmp/keep/z", "docs/README.md")


# Each row was compared with what Docker (the classic builder and BuildKit) puts into an image by `COPY . /`
@pytest.mark.parametrize(
    ("ignore", "left_out"),
    [
        ("", set()),
        ("# comment\n\n", set()),
        ("*.log", {"a.log", "keep.log"}),
        ("**/*.log", {"a.log", "keep.log", "src/a.log"}),
        ("*.log\n!keep.log", {"a.log"}),
        ("!keep.log\n*.log", {"a.log", "keep.log"}),
        ("*.log\n!keep.log\nkeep.log", {"a.log", "keep.log"}),
        ("/src/", {"src/a.log", "src/x.py", "src/deep/y.py"}),
        ("  src  ", {"src/a.log", "src/x.py", "src/deep/y.py"}),
        ("tmp\n!tmp/keep", {"tmp/one/two"}),
        ("src/**/y.py", {"src/deep/y.py"}),
        ("*/a.log", {"src/a.log"}),
        ("?.log", {"a.log"}),
        ("*\n!docs", set(NAMES) - {"docs/README.md"}),
        ("*", set(NAMES)),
        ("Dockerfile\n.dockerignore", set()),
        ("src/../docs", {"docs/README.md"}),
    ],
)
def test_dockerignore(tree: Tree, ignore: str, left_out: set[str]) -> None:
    assert files(tree(*NAMES, ignore=ignore)) == (set(NAMES) | SEND) - left_out


@pytest.mark.parametrize(
    ("ignore", "sent"),
    [
        ("**\n!**/*.py", {"src/x.py", "src/deep/y.py"}),
        ("*\n!*/x.py", {"src/x.py"}),
        ("*\n!s?c/deep", {"src/deep/y.py"}),
        ("*\n!**/*.py\nsrc/x.py", {"src/deep/y.py"}),
        ("**/deep\n**/keep\n!**/x.py", set(NAMES) - {"src/deep/y.py", "tmp/keep/z"}),
    ],
)
def test_an_exception_with_a_wildcard_holds_in_every_folder(tree: Tree, ignore: str, sent: set[str]) -> None:
    assert files(tree(*NAMES, ignore=ignore)) == sent | SEND


def test_a_dockerfile_with_its_own_ignore_file(tree: Tree) -> None:
    folder = tree("a", "b", ignore="a")
    (folder / "Other").write_text("FROM scratch\n")
    (folder / "Other.dockerignore").write_text("b\n")
    assert files(folder, "Other") == {"a", "Other", "Other.dockerignore", "Dockerfile", ".dockerignore"}


def test_the_ignore_file_that_counts_is_sent_though_it_leaves_itself_out(
    tree: Tree, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tree("a", "b", ignore="b")
    (folder / "sub").mkdir()
    (folder / "sub/Other").write_text("FROM scratch\n")
    (folder / "sub/Other.dockerignore").write_text("*\n!b\n")
    found = entries(folder, "sub/Other")
    staged = tmp_path_factory.mktemp("staged") / "context"

    stage(folder, staged, found)

    assert files(staged, "sub/Other") == {"b", "sub/Other", "sub/Other.dockerignore", ".dockerignore"}
    assert entries(staged, "sub/Other") == found


def test_the_identity_of_a_context_is_for_ever(tree: Tree) -> None:
    folder = tree(*NAMES, ignore="*\n!docs\n!*.log\n!src/*\n")

    assert (
        identity(entries(folder, "Dockerfile"), {})
        == "abad1bd5bd0775f9b9203f25fd9a705b043fa33de55b4c39d22b6a6bf75b635d"
    )


def test_same_content_same_identity_whatever_the_times_and_other_mode_bits(tree: Tree, tmp_path: Path) -> None:
    folder = tree("b/c", "a")
    first = identity(entries(folder, "Dockerfile"), {})
    assert first == identity(entries(folder, "Dockerfile"), {})
    os.utime(folder / "a", (1, 1))
    (folder / "a").chmod(0o600)
    assert identity(entries(folder, "Dockerfile"), {}) == first
    assert len(first) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a").write_text("other"),
        lambda folder: (folder / "a").chmod(0o755),
        lambda folder: (folder / "a").rename(folder / "a2"),
        lambda folder: (folder / "new").write_text(""),
        lambda folder: (folder / "empty").mkdir(),
        lambda folder: (folder / "b/c").unlink(),
        lambda folder: (folder / "Dockerfile").write_text(f"FROM {BASE}\nUSER 1\n"),
        lambda folder: (folder / ".dockerignore").write_text("#\n"),
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("b")),
    ],
)
def test_what_changes_the_identity(tree: Tree, change: Callable[[Path], object]) -> None:
    folder = tree("a", "b/c")
    (folder / "link").symlink_to("a")
    before = identity(entries(folder, "Dockerfile"), {})
    change(folder)
    assert identity(entries(folder, "Dockerfile"), {}) != before


def test_the_other_inputs_count(tree: Tree) -> None:
    found = entries(tree("a"), "Dockerfile")
    facts = [{}, {"target": "x"}, {"build_args": {"A": "1"}}, {"build_args": {"A": "2"}}, {"platform": "linux/amd64"}]
    assert len({identity(found, inputs) for inputs in facts}) == len(facts)


def test_an_ignored_file_does_not_count(tree: Tree) -> None:
    folder = tree("a", "a.log", ignore="*.log")
    before = identity(entries(folder, "Dockerfile"), {})
    (folder / "a.log").write_text("other")
    assert identity(entries(folder, "Dockerfile"), {}) == before


def test_names_cannot_be_shifted_into_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, names in ((one, {"a": "b", "c": ""}), (two, {"a": "", "bc": ""})):
        folder.mkdir()
        (folder / "Dockerfile").write_text("FROM scratch\n")
        for name, content in names.items():
            (folder / name).write_text(content)
    assert identity(entries(one, "Dockerfile"), {}) != identity(entries(two, "Dockerfile"), {})


@pytest.mark.parametrize(
    ("arrange", "dockerfile", "message"),
    [
        (lambda f: f.rmdir(), "Dockerfile", "path: no such folder: {f}"),
        (Path.exists, "Dockerfile", "dockerfile: no such file: {f}/Dockerfile"),
        (Path.exists, "../Dockerfile", "dockerfile: '../Dockerfile' is outside of the build context {f}"),
        (
            lambda f: ((f / "Dockerfile").touch(), os.mkfifo(f / "pipe")),
            "Dockerfile",
            "{f}/pipe is neither a file, a folder nor a symbolic link: leave it out with .dockerignore",
        ),
        (
            lambda f: ((f / "Dockerfile").touch(), (f / ".dockerignore").write_text("a\n!\n")),
            "Dockerfile",
            "{f}/.dockerignore line 2: '!' without a pattern",
        ),
    ],
)
def test_what_cannot_be_sent(tmp_path: Path, arrange: Callable[[Path], object], dockerfile: str, message: str) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    arrange(folder)
    with pytest.raises(ContextError) as error:
        entries(folder, dockerfile)
    assert str(error.value) == message.format(f=folder)


def test_sockets_are_left_out_as_docker_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind("s")
        assert files(tmp_path) == {"Dockerfile"}


def test_stage_copies_what_was_counted_and_nothing_else(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tree("b/c", "run.sh", "secret.log", ignore="*.log")
    (folder / "run.sh").chmod(0o700)
    (folder / "b/c").chmod(0o600)
    (folder / "link").symlink_to("/nonexistent")
    (folder / "empty").mkdir(mode=0o700)
    os.utime(folder / "b/c", (1_000_000, 1_000_000))
    found = entries(folder, "Dockerfile")
    staged = tmp_path_factory.mktemp("staged") / "context"
    stage(folder, staged, found)
    assert files(staged) == {"b/c", "run.sh", "link", *SEND}
    assert identity(entries(staged, "Dockerfile"), {}) == identity(found, {})
    assert (staged / "b/c").stat().st_mode & 0o777 == 0o644
    assert (staged / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (staged / "empty").stat().st_mode & 0o777 == 0o755
    assert (staged / "b/c").stat().st_mtime == 1_000_000


def test_a_context_that_changes_while_it_is_read_is_refused(
    tree: Tree, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tree("a")
    found = entries(folder, "Dockerfile")
    (folder / "a").write_text("changed meanwhile")
    with pytest.raises(ContextError) as error:
        stage(folder, tmp_path_factory.mktemp("staged") / "context", found)
    assert str(error.value) == f"{folder}/a changed while it was read: run again when nothing writes there"


def test_the_copy_is_beside_the_context_and_goes_with_what_a_killed_build_left(tree: Tree, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    tree("context/a")
    (folder / "Dockerfile").write_text("FROM scratch\n")
    found = entries(folder, "Dockerfile")
    left = tmp_path / ".image-build-left"
    (left / "context").mkdir(parents=True)
    with staged(folder, found) as first:
        assert not left.exists()
        with staged(folder, found) as second:
            assert first.parent.parent == second.parent.parent == tmp_path
            assert files(first) == files(second) == {"a", "Dockerfile"}
        assert first.exists()
    assert list(tmp_path.glob(".image-build-*")) == []


def test_a_full_disk_is_not_blamed_on_the_context(
    tree: Tree, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: Path, _copy: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, copy = tree("a"), tmp_path_factory.mktemp("staged") / "context"
    monkeypatch.setattr(build_context.shutil, "copyfile", full)
    with pytest.raises(ContextError) as error:
        stage(folder, copy, entries(folder, "Dockerfile"))
    assert str(error.value) == f"cannot copy {folder}/Dockerfile to {copy}/Dockerfile: No space left on device"


def test_tag() -> None:
    assert build_context.tag("0123456789abcdef" * 4) == "ctx-0123456789abcdef"
