from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.engine import EngineNotFoundError
from ansible.module_utils.qianjiang.host_lock import host_lock

from fake_registry import PASSWORD, USER, digest_of, serve, write_certificate
from running import ModuleFailedError, run

BASE = "r.lab:5000/base@sha256:" + "b" * 64
Build = Callable[..., dict[str, Any]]
IDENTITY = "ab" * 32

# A client that does what it is told to by files next to it, and writes down what it got
CLIENT = r"""#!/usr/bin/python3
import json, os, pathlib, sys
here = pathlib.Path(sys.argv[0]).parent
if sys.argv[1] == "version":
    print('{"Client":{"Version":"20.10.24"},"Server":{"ApiVersion":"1.41"}}')
    sys.exit(0)
sent = {}
context = pathlib.Path(sys.argv[-1])
for file in sorted(context.rglob("*")):
    sent[str(file.relative_to(context))] = oct(file.stat().st_mode & 0o777)
secrets = {}
for number, word in enumerate(sys.argv):
    if word == "--secret":
        name, _, source = sys.argv[number + 1].partition(",src=")
        file = pathlib.Path(source)
        secrets[name] = [file.read_text(), oct(file.stat().st_mode & 0o777), oct(file.parent.stat().st_mode & 0o777)]
configuration = os.environ.get("DOCKER_CONFIG")
record = {"argv": sys.argv[1:], "sent": sent, "secrets": secrets, "V": os.environ.get("V"),
          "buildkit": os.environ["DOCKER_BUILDKIT"],
          "configuration": configuration and json.loads(pathlib.Path(configuration, "config.json").read_text())}
(here / "record.json").write_text(json.dumps(record))
sys.stderr.write((here / "stderr").read_text())
sys.exit(int((here / "code").read_text()))
"""


class FakeEngine:
    """An engine that has images by name, and gains what a build names if `honest`."""

    def __init__(self, record: Path) -> None:
        self.images: dict[str, dict[str, Any]] = {BASE: {"Config": {}}}
        self.record = record
        self.honest = True
        self.pulled: list[tuple[str, str, Any]] = []

    def version(self) -> dict[str, str]:
        return {"Os": "linux", "Arch": "amd64"}

    def inspect_image(self, name: str) -> dict[str, Any]:
        if self.honest and self.record.exists():
            argv = json.loads(self.record.read_text())["argv"]
            labels = dict(argv[n + 1].split("=", 1) for n, word in enumerate(argv) if word == "--label")
            self.images[argv[argv.index("--tag") + 1]] = {"Config": {"Labels": labels}}
        if name not in self.images:
            raise EngineNotFoundError(name)
        return self.images[name]

    def pull(self, repository: str, tag: str, **settings: Any) -> Iterator[dict[str, str]]:
        self.pulled.append((repository, tag, settings["auth_config"]))
        self.images[f"{repository}@{tag}"] = {"Config": {}}
        return iter([{"status": "Pull complete"}])


@pytest.fixture
def module(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("image_build")


@pytest.fixture
def engine(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text(CLIENT)
    (tools / "docker").chmod(0o755)
    (tools / "stderr").write_text("")
    (tools / "code").write_text("0")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    fake = FakeEngine(tools / "record.json")
    monkeypatch.setattr(module, "connect", lambda: fake)
    return fake


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nARG V\nCOPY . /srv\nRUN make it\n")
    (folder / "page.html").write_text("hello")
    return {"name": "webui", "path": str(folder)}


@pytest.fixture
def build(module: ModuleType, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Build:
    return lambda check=False, **change: run(module, capsys, {**options, **change}, check=check)


def record(engine: FakeEngine) -> dict[str, Any]:
    return dict(json.loads(engine.record.read_text()))


@pytest.mark.parametrize(
    ("current", "changes"),
    [
        ({"engine": True, "registry": False, "digest": None}, []),
        ({"engine": False, "registry": True, "digest": "sha256:1"}, []),
        (
            {"engine": False, "registry": False, "digest": None},
            [{"name": "webui:ctx-1", "before": None, "after": f"io.qianjiang.context={IDENTITY}"}],
        ),
    ],
)
def test_plan(module: ModuleType, current: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    assert module.plan({"image": "webui:ctx-1", "context": IDENTITY}, current) == changes


def test_build_then_nothing(build: Build, engine: FakeEngine) -> None:
    planned = build(check=True)
    assert not engine.record.exists()
    done = build()
    assert planned == done
    assert (done["changed"], done["built"], done["digest"]) == (True, True, None)
    assert done["image"] == f"webui:ctx-{done['identity'][:16]}"
    assert done["diff"]["after"] == {done["image"]: f"io.qianjiang.context={done['identity']}"}
    assert record(engine)["sent"] == {"Dockerfile": "0o644", "page.html": "0o644"}
    assert record(engine)["argv"][:3] == ["build", "--tag", done["image"]]
    assert "--network none" in " ".join(record(engine)["argv"])
    engine.record.unlink()
    again = build()
    assert (again["changed"], again["built"], again["image"]) == (False, False, done["image"])
    assert not engine.record.exists()


def test_an_image_of_that_name_with_another_label_is_built_over(build: Build, engine: FakeEngine) -> None:
    image = build(check=True)["image"]
    engine.images[image] = {"Config": {"Labels": None}}
    assert build()["built"]


def test_what_another_run_is_building_is_not_built_again(build: Build, engine: FakeEngine) -> None:
    other = ExitStack()
    other.enter_context(host_lock("webui", 1))
    planned = build(check=True)
    assert planned["built"], "a check waits for nobody"

    def end() -> None:
        engine.images[planned["image"]] = {"Config": {"Labels": {"io.qianjiang.context": planned["identity"]}}}
        other.close()

    threading.Timer(0.5, end).start()
    assert not build()["built"]
    assert not engine.record.exists()


def test_the_registry_is_enough(build: Build, engine: FakeEngine, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    with serve(certificate, key) as registry:
        login = {"registry": registry.address, "username": USER, "password": PASSWORD, "ca_path": str(certificate)}
        image = build(check=True, **login)["image"]
        digest = registry.image("webui", [b"layer"], image.rpartition(":")[2])
        found = build(**login)
        assert (found["changed"], found["digest"], found["image"]) == (False, digest, image)
        assert not engine.record.exists()
        del registry.blobs["webui"][digest_of(b"layer")]
        planned = build(check=True, **login)
    assert (planned["built"], planned["digest"]) == (True, None), "what lacks a blob has to be built to be pushed again"


def test_a_registry_that_refuses_is_no_reason_to_build(build: Build, engine: FakeEngine, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    with serve(certificate, key) as registry:
        login = {"registry": registry.address, "username": USER, "password": PASSWORD, "ca_path": str(certificate)}
        registry.image("webui", [b"layer"], build(check=True, **login)["image"].rpartition(":")[2])
        registry.answers = [200, 403]  # the HEAD is answered, the GET is not
        with pytest.raises(ModuleFailedError, match="answered 403"):
            build(**login)
    assert not engine.record.exists()


def test_the_digest_of_a_pushed_image_is_known(build: Build, engine: FakeEngine) -> None:
    done = build()
    engine.honest = False
    engine.images[done["image"]]["RepoDigests"] = ["other@sha256:1", "webui@sha256:2"]
    assert build()["digest"] == "sha256:2"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"revision": "abc", "source": "https://git.lab/x"}, True),
        ({"secrets": {"token": "very-secret"}}, True),
        ({"network": "default"}, True),
        ({"labels": {"org.opencontainers.image.version": "1"}}, True),
        ({"build_args": {"HTTP_PROXY": "http://p"}}, True),
        ({"platform": "linux/amd64"}, True),
        ({"platform": "linux/arm64"}, False),
        ({"labels": {"team": "a"}}, False),
        ({"build_args": {"V": "1"}}, False),
        ({"target": "stage-0"}, False),
    ],
)
def test_what_counts_for_the_identity(build: Build, engine: FakeEngine, change: dict[str, Any], same: bool) -> None:
    before = build(check=True)["identity"]
    assert (build(check=True, **change)["identity"] == before) is same


def test_secrets_logins_and_build_arguments_stay_out_of_the_command_line(
    build: Build, engine: FakeEngine, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    (tmp_path / "company.crt").write_text("CA")
    with serve(certificate, key) as registry:
        login = {"registry": registry.address, "username": USER, "password": PASSWORD, "ca_path": str(certificate)}
        secrets = {"secrets": {"token": "very-secret"}, "extra_ca": str(tmp_path / "company.crt")}
        build(**login, **secrets, build_args={"V": "value-of-v"})
    seen = record(engine)
    text = " ".join(seen["argv"])
    assert [word for word in ("very-secret", PASSWORD, "value-of-v") if word in text] == []
    assert seen["secrets"]["id=token"] == ["very-secret", "0o600", "0o700"]
    assert seen["secrets"]["id=extra-ca"][0] == "CA"
    assert seen["V"] == "value-of-v"
    assert list(seen["configuration"]["auths"]) == [registry.address]
    context = Path(seen["argv"][-1])
    assert context.parent.parent == tmp_path, "the disk of the context is where there is space"
    assert not context.parent.exists(), "the staged folder is still there"


def test_labels_and_build_arguments_arrive_as_they_are_written(
    build: Build, engine: FakeEngine, options: dict[str, Any]
) -> None:
    Path(options["path"], "Dockerfile").write_text(f"FROM {BASE}\nARG PATH\nARG V\n")
    build(labels={"x": "$HOME"}, build_args={"PATH": "/opt/bin:$PATH", "V": "${HOME}"})
    assert {"x=$HOME", "PATH=/opt/bin:$PATH"} <= set(record(engine)["argv"])
    assert record(engine)["V"] == "${HOME}"


def test_base_images_are_there_before_the_build(build: Build, engine: FakeEngine) -> None:
    del engine.images[BASE]
    build()
    assert engine.pulled == [("r.lab:5000/base", BASE.partition("@")[2], None)]


def test_labels(module: ModuleType) -> None:
    params = {"labels": {"a": "b"}, "revision": "abc", "source": "https://me:token@git.lab/x.git"}
    assert module.all_labels(params, IDENTITY, datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)) == {
        "a": "b",
        "io.qianjiang.context": IDENTITY,
        "org.opencontainers.image.created": "2026-11-24T01:02:03Z",
        "org.opencontainers.image.revision": "abc",
        "org.opencontainers.image.source": "https://git.lab/x.git",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "/nonexistent"}, "path: no such folder: /nonexistent"),
        ({"build_args": {"V": True}}, "build_args.V: quote it to say which spelling you mean, got bool"),
        ({"build_args": {"V": ["a"]}}, "build_args.V: expected a text, got list"),
        ({"build_args": {"W": "1"}}, "build_args.W: Dockerfile declares no ARG W (it declares V)"),
        (
            {"build_args": {"BUILDKIT_X": "https://me:very-secret@x.lab"}},
            "build_args.BUILDKIT_X: expected no user:password@ in it, as it would stand on the command line, which "
            "every user of this host can read; give it as a secret, or under another name",
        ),
        (
            {"labels": {"docs": "see https://me:very-secret@x.lab/docs"}},
            "labels.docs: expected no user:password@ in it, as it would stand on the command line",
        ),
        ({"name": "WebUI"}, "not an image reference: 'WebUI:ctx-"),
        ({"username": "u"}, "parameters are required together: username, password"),
        ({"extra_ca": "/nonexistent.crt"}, "extra_ca: no such file: /nonexistent.crt"),
    ],
)
def test_bad_input(build: Build, engine: FakeEngine, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModuleFailedError) as error:
        build(**change)
    assert str(error.value).startswith(message)
    assert "very-secret" not in str(error.value)
    assert not engine.record.exists()


def test_an_unpinned_base_is_refused_before_anything_is_sent(
    build: Build, engine: FakeEngine, options: dict[str, Any]
) -> None:
    (Path(options["path"]) / "Dockerfile").write_text("FROM debian:12\n")
    with pytest.raises(ModuleFailedError) as error:
        build()
    assert str(error.value) == (
        "Dockerfile line 1: FROM debian:12 is not pinned: name it by digest, <repository>@sha256:<64 hex digits>; "
        "image_resolve gives the digest of a tag"
    )
    assert not engine.record.exists()


def test_a_carriage_return_ends_no_line(build: Build, engine: FakeEngine, options: dict[str, Any]) -> None:
    Path(options["path"], "Dockerfile").write_bytes(f"FROM {BASE}\nRUN\r--mount=from=alpine:3 x\n".encode())
    with pytest.raises(ModuleFailedError, match="line 2: --mount from=alpine:3 is not pinned"):
        build(check=True)


def test_a_failing_build_shows_line_and_output(build: Build, engine: FakeEngine) -> None:
    (engine.record.parent / "stderr").write_text(
        "#5 [3/3] RUN make it\n#5 0.1 gcc: not found\n#5 ERROR: executor failed running: exit code: 127\n"
    )
    (engine.record.parent / "code").write_text("1")
    with pytest.raises(ModuleFailedError) as error:
        build()
    assert str(error.value).partition(" failed")[2] == (
        " at Dockerfile line 4: RUN make it\nexecutor failed running: exit code: 127\n"
        "The last lines of that step:\n  gcc: not found"
    )


def test_a_client_that_only_says_it_built(build: Build, engine: FakeEngine) -> None:
    engine.honest = False
    with pytest.raises(
        ModuleFailedError, match=r"said it built webui:ctx-[0-9a-f]{16}, but the engine has no such image"
    ):
        build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"secrets": {"token": "very-secret"}}, "secrets: they need BuildKit"),
        ({}, ".dockerignore: an exception with a wildcard for folders needs BuildKit"),
    ],
)
def test_what_the_classic_builder_would_leave_out(
    build: Build, engine: FakeEngine, options: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    Path(options["path"], ".dockerignore").write_text("**\n!**/*.py\n")
    client = engine.record.parent / "docker"
    client.write_text(client.read_text().replace("20.10.24", "17.03.2-ce"))
    assert stat.S_IMODE(client.stat().st_mode) == 0o755
    with pytest.raises(ModuleFailedError) as error:
        build(**change)
    assert str(error.value) == (
        f"{message}, and this host's Docker client builds without it. "
        "Install the buildx plugin (docker-buildx on Debian 13)."
    )
    assert not engine.record.exists()
