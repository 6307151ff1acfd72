from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.engine import EngineError, EngineNotFoundError
from ansible.module_utils.qianjiang.host_lock import host_lock
from ansible.module_utils.qianjiang.image_reference import ImageReferenceError, parse

from fake_registry import IMAGE, PASSWORD, USER, FakeRegistry, digest_of, serve, write_certificate
from running import ModuleFailedError, run

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
READ_ONLY = "the registry is read-only, probably while docker-registry-collect runs: run this again later"
CONFIG = b'{"os":"linux"}'
Push = Callable[..., dict[str, Any]]


class FakeEngine:
    """An engine whose pushes arrive in the fake registry."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry
        self.images: dict[str, str] = {}
        self.events: list[dict[str, Any]] | None = None
        self.pushes: list[tuple[str, str, Any]] = []

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.images:
            raise EngineNotFoundError(name)
        return {"Id": self.images[name]}

    def push(self, repository: str, tag: str, **settings: Any) -> Iterator[dict[str, Any]]:
        self.pushes.append((repository, tag, settings["auth_config"]))
        if self.events is not None:
            return iter(self.events)
        digest = self.registry.image(repository.partition("/")[2], [b"layer"], tag)
        return iter([{"status": "Pushed"}, {"aux": {"Tag": tag, "Digest": digest, "Size": 1}}])


@pytest.fixture
def module(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("image_push")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def registry(certificate: tuple[Path, Path]) -> Iterator[FakeRegistry]:
    with serve(*certificate) as fake:
        yield fake


@pytest.fixture
def engine(module: ModuleType, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(registry)
    monkeypatch.setattr(module, "connect", lambda: fake)
    return fake


@pytest.fixture
def push(
    module: ModuleType,
    registry: FakeRegistry,
    certificate: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> Push:
    login = {"username": USER, "password": PASSWORD, "ca_path": str(certificate[0])}

    def call(tag: str = "ctx-1", check: bool = False, **options: Any) -> dict[str, Any]:
        image = f"{registry.address}/webui:{tag}"
        return run(module, capsys, {"image": image, **login, **options}, check=check)

    return call


@pytest.mark.parametrize(
    ("current", "changes"),
    [
        ({"digest": A, "same": True, "tags": {"latest": A}}, []),
        ({"digest": A, "same": True, "tags": {"latest": B}}, [("r/webui:latest", B, A)]),
        ({"digest": A, "same": True, "tags": {"latest": None, "v1": A}}, [("r/webui:latest", None, A)]),
        ({"digest": A, "same": True, "tags": {}}, []),
        (
            {"digest": None, "same": False, "tags": {"latest": B}},
            [("r/webui:t", None, "(known after the push)"), ("r/webui:latest", B, "(known after the push)")],
        ),
        ({"digest": B, "same": False, "tags": {}}, [("r/webui:t", B, "(known after the push)")]),
        (
            {"digest": B, "complete": False, "same": False, "tags": {}},
            [("r/webui:t", "incomplete", "(known after the push)")],
        ),
    ],
)
def test_plan(module: ModuleType, current: dict[str, Any], changes: list[tuple[Any, ...]]) -> None:
    plan = module.plan(parse("localhost/webui:t"), {"complete": True, **current})
    assert [(c["name"].replace("localhost", "r"), c["before"], c["after"]) for c in plan] == changes


def test_push_then_nothing(push: Push, engine: FakeEngine, registry: FakeRegistry) -> None:
    image = f"{registry.address}/webui:ctx-1"
    engine.images[image] = digest_of(CONFIG)
    planned = push(check=True)
    assert (planned["digest"], planned["pushed"], planned["tags_moved"]) == (None, True, ["latest"])
    assert engine.pushes == []
    done = push()
    assert {**done, "digest": None} == planned
    assert engine.pushes == [(f"{registry.address}/webui", "ctx-1", {"username": USER, "password": PASSWORD})]
    assert registry.manifests["webui"]["latest"] == registry.manifests["webui"][done["digest"]]
    registry.requests.clear()
    again = push()
    assert again == {**again, "changed": False, "digest": done["digest"], "pushed": False, "tags_moved": []}
    assert registry.requests == [
        "HEAD /v2/webui/manifests/ctx-1",
        "HEAD /v2/webui/manifests/latest",
        f"GET /v2/webui/manifests/{done['digest']}",
        *(f"HEAD /v2/webui/blobs/{blob}" for blob in registry.blobs["webui"]),
    ]
    assert len(engine.pushes) == 1


def test_what_another_run_is_pushing_is_not_pushed_again(
    push: Push, engine: FakeEngine, registry: FakeRegistry
) -> None:
    engine.images[f"{registry.address}/webui:ctx-1"] = digest_of(CONFIG)
    other = ExitStack()
    other.enter_context(host_lock(f"{registry.address}/webui", 1))
    assert push(check=True)["pushed"], "a check waits for nobody"

    def end() -> None:
        registry.image("webui", [b"theirs"], "ctx-1")
        other.close()

    threading.Timer(0.5, end).start()
    done = push()
    assert (done["pushed"], done["tags_moved"], engine.pushes) == (False, ["latest"], [])


def test_what_another_builder_has_pushed_under_an_identity_is_as_good(
    push: Push, engine: FakeEngine, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.images[f"{registry.address}/webui:ctx-1"] = digest_of(CONFIG)
    pushes = engine.push

    def overtaken(repository: str, tag: str, **settings: Any) -> Iterator[dict[str, Any]]:
        events = pushes(repository, tag, **settings)
        registry.image("webui", [b"theirs"], tag)
        return events

    monkeypatch.setattr(engine, "push", overtaken)
    done = push()
    theirs = registry.manifests["webui"]["ctx-1"]
    assert registry.manifests["webui"][done["digest"]] == registry.manifests["webui"]["latest"] == theirs


def test_tags_move_when_only_the_registry_has_the_image(push: Push, engine: FakeEngine, registry: FakeRegistry) -> None:
    old = registry.image("webui", [b"old"], "latest")
    new = registry.image("webui", [b"new"], "ctx-1")
    done = push(tags=["latest", "v1"])
    assert (done["digest"], done["pushed"], done["tags_moved"]) == (new, False, ["latest", "v1"])
    assert done["diff"]["before"] == {
        f"{registry.address}/webui:latest": old,
        f"{registry.address}/webui:v1": None,
    }
    assert registry.manifests["webui"]["latest"] == registry.manifests["webui"]["ctx-1"]
    assert engine.pushes == []


@pytest.mark.parametrize(("identifier", "pushed"), [("config", False), ("manifest", False), ("other", True)])
def test_another_image_under_a_tag_of_choice_is_pushed(
    push: Push, engine: FakeEngine, registry: FakeRegistry, identifier: str, pushed: bool
) -> None:
    digest = registry.image("webui", [b"layer"], "bookworm", config=CONFIG)
    known = {"config": digest_of(CONFIG), "manifest": digest, "other": A}
    engine.images[f"{registry.address}/webui:bookworm"] = known[identifier]
    assert push("bookworm", tags=[], check=True)["pushed"] is pushed


def test_a_tag_of_choice_that_only_the_registry_has(push: Push, engine: FakeEngine, registry: FakeRegistry) -> None:
    digest = registry.image("webui", [b"layer"], "bookworm")
    assert push("bookworm", tags=[]) == {**push("bookworm", tags=[]), "changed": False, "digest": digest}


@pytest.mark.parametrize("tag", ["ctx-1", "bookworm"])
def test_a_lost_blob_is_sent_again(push: Push, engine: FakeEngine, registry: FakeRegistry, tag: str) -> None:
    engine.images[f"{registry.address}/webui:{tag}"] = digest_of(CONFIG)
    digest = push(tag)["digest"]
    del registry.blobs["webui"][digest_of(b"layer")]
    planned = push(tag, check=True)
    assert planned["pushed"]
    assert planned["diff"]["before"] == {
        f"{registry.address}/webui:{tag}": "incomplete",
        f"{registry.address}/webui:latest": digest,
    }
    done = push(tag)
    assert (done["digest"], done["pushed"], len(engine.pushes)) == (digest, True, 2)
    assert digest_of(b"layer") in registry.blobs["webui"]
    assert not push(tag)["changed"]


@pytest.mark.parametrize("tag", ["ctx-1", "bookworm"])
def test_a_lost_blob_that_the_engine_does_not_have(
    push: Push, engine: FakeEngine, registry: FakeRegistry, tag: str
) -> None:
    digest = registry.image("webui", [b"layer"], tag)
    del registry.blobs["webui"][digest_of(b"layer")]
    assert push(tag, check=True)["pushed"]  # a build in check mode does not make it either
    with pytest.raises(ModuleFailedError) as error:
        push(tag)
    assert str(error.value) == (
        f"{registry.address}/webui:{tag} ({digest}) is neither whole in its registry nor in this host's engine. "
        "Build it first (image_build), or give an archive."
    )


def test_a_blob_that_was_cut_off(push: Push, engine: FakeEngine, registry: FakeRegistry) -> None:
    engine.images[f"{registry.address}/webui:ctx-1"] = digest_of(CONFIG)
    push()
    registry.blobs["webui"][digest_of(b"layer")] = b""
    with pytest.raises(ModuleFailedError, match="has 0 bytes instead of 5, and no upload replaces it"):
        push()
    assert len(engine.pushes) == 1


def test_a_registry_that_refuses_is_no_reason_to_push(push: Push, engine: FakeEngine, registry: FakeRegistry) -> None:
    engine.images[f"{registry.address}/webui:ctx-1"] = digest_of(CONFIG)
    push()
    registry.answers = [200, 200, 403]  # both HEADs are answered, the GET is not
    with pytest.raises(ModuleFailedError, match="answered 403"):
        push()
    assert len(engine.pushes) == 1


def test_a_push_that_leaves_something_out(push: Push, engine: FakeEngine, registry: FakeRegistry) -> None:
    image = f"{registry.address}/webui:ctx-1"
    engine.images[image] = digest_of(CONFIG)
    digest = push(tags=[])["digest"]
    del registry.blobs["webui"][digest_of(b"layer")]
    engine.events = [{"aux": {"Digest": digest}}]
    with pytest.raises(ModuleFailedError) as error:
        push()
    assert str(error.value) == f"{image} ({digest}) is incomplete after the push. Look at its registry's storage."
    assert "latest" not in registry.manifests["webui"]


def test_an_image_that_is_nowhere(push: Push, engine: FakeEngine, registry: FakeRegistry) -> None:
    assert push(check=True)["pushed"]  # a build in check mode leaves none either
    with pytest.raises(ModuleFailedError) as error:
        push()
    assert str(error.value) == (
        f"{registry.address}/webui:ctx-1 is neither in its registry nor in this host's engine. "
        "Build it first (image_build), or give an archive."
    )


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"error": "denied: quota"}], "push {image}: denied: quota"),
        *(
            ([{"error": words}], f"push {{image}}: {words} ({READ_ONLY})")
            for words in (
                "error parsing HTTP 405 response body: invalid character 'M': \"Method not allowed\"",
                "unsupported: The operation is unsupported.",
            )
        ),
        ([{"status": "Pushed"}], "push {image}: the engine reported no digest"),
        (
            [{"aux": {"Digest": A}}],
            f"{{image}}: pushed {A}, but the registry has None. Does something else push there?",
        ),
    ],
)
def test_a_push_that_fails(
    push: Push, engine: FakeEngine, registry: FakeRegistry, events: list[dict[str, Any]], message: str
) -> None:
    image = f"{registry.address}/webui:ctx-1"
    engine.images[image] = A
    engine.events = events
    with pytest.raises(ModuleFailedError) as error:
        push()
    assert str(error.value) == message.format(image=image)
    assert "latest" not in registry.manifests["webui"]


def test_a_tag_that_someone_else_moved_meanwhile(push: Push, engine: FakeEngine, registry: FakeRegistry) -> None:
    engine.images[f"{registry.address}/webui:bookworm"] = A
    other = registry.image("webui", [b"other"], "bookworm")
    engine.events = [{"aux": {"Digest": B}}]
    with pytest.raises(ModuleFailedError, match=f"pushed {B}, but the registry has {other}"):
        push("bookworm")
    assert "latest" not in registry.manifests["webui"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("webui:1", "image: expected registry/repository:tag, got 'webui:1'"),
        ("r.lab/webui", "image: expected registry/repository:tag, got 'r.lab/webui'"),
        (f"r.lab/webui:1@{A}", f"image: expected registry/repository:tag, got 'r.lab/webui:1@{A}'"),
    ],
)
def test_bad_input(module: ModuleType, image: str, message: str) -> None:
    with pytest.raises(ImageReferenceError) as error:
        module.wanted_image(image, [])
    assert str(error.value) == message


def test_a_bad_tag_is_found_before_the_push(module: ModuleType) -> None:
    with pytest.raises(ImageReferenceError, match="a tag is at most 128"):
        module.wanted_image("r.lab/webui:1", ["-x"])


@pytest.fixture
def skopeo(module: ModuleType, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A skopeo that puts an image with CONFIG into the fake registry; returns the commands it got."""
    commands: list[list[str]] = []

    def run_watched(argv: list[str], stall_timeout: float) -> tuple[int, str, str]:
        assert stall_timeout == 120
        commands.append(argv[1:])
        if argv[1:3] == ["inspect", "--raw"]:
            return 0, CONFIG.decode(), ""
        if argv[1:] == ["copy", "--help"]:
            return 0, "--preserve-digests --retry-times", ""
        login = json.loads(Path(argv[argv.index("--authfile") + 1]).read_text())
        assert list(login["auths"]) == [registry.address]
        registry.image("webui", [b"layer"], argv[-1].rpartition(":")[2], config=CONFIG)
        return 0, "", ""

    monkeypatch.setattr("ansible.module_utils.qianjiang.skopeo.run_watched", run_watched)
    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule.get_bin_path", lambda *_: "/usr/bin/skopeo")
    return commands


def archive(folder: Path, name: str) -> str:
    file = folder / "image.tar"
    with tarfile.open(file, "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return str(file)


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_an_archive_is_pushed_once(
    push: Push, registry: FakeRegistry, skopeo: list[list[str]], tmp_path: Path, kind: str
) -> None:
    file = archive(tmp_path, {"docker-archive": "manifest.json", "oci-archive": "./oci-layout"}[kind])
    done = push("bookworm", tags=[], archive=file)
    assert done["pushed"]
    assert done["digest"] in registry.manifests["webui"]
    assert skopeo[-1][-2:] == [f"{kind}:{file}", f"docker://{registry.address}/webui:bookworm"]
    assert PASSWORD not in json.dumps(skopeo)
    again = push("bookworm", tags=[], archive=file)
    assert (again["changed"], again["digest"]) == (False, done["digest"])
    del registry.blobs["webui"][digest_of(b"layer")]
    assert push("bookworm", tags=[], archive=file)["pushed"]
    assert not push("bookworm", tags=[], archive=file)["changed"]


def test_an_archive_with_another_image_replaces_the_tag(
    push: Push, registry: FakeRegistry, skopeo: list[list[str]], tmp_path: Path
) -> None:
    old = registry.image("webui", [b"layer"], "bookworm", config=b"old")
    done = push("bookworm", tags=[], archive=archive(tmp_path, "manifest.json"))
    assert done["pushed"]
    assert done["digest"] != old
    assert registry.manifests["webui"]["bookworm"][0] == IMAGE


def test_an_archive_that_a_check_run_did_not_bring_would_be_pushed(
    push: Push, registry: FakeRegistry, skopeo: list[list[str]]
) -> None:
    planned = push("bookworm", check=True, tags=[], archive="/nonexistent.tar")
    assert (planned["changed"], planned["pushed"], planned["digest"]) == (True, True, None)
    old = registry.image("webui", [b"old"], "bookworm")
    planned = push("bookworm", check=True, tags=[], archive="/nonexistent.tar")
    assert (planned["pushed"], planned["diff"]["before"]) == (True, {f"{registry.address}/webui:bookworm": old})
    assert skopeo == []


def test_what_is_no_archive(push: Push, skopeo: list[list[str]], tmp_path: Path) -> None:
    file = archive(tmp_path, "etc/passwd")
    with pytest.raises(ModuleFailedError) as error:
        push("bookworm", archive=file)
    assert str(error.value) == f"archive: {file} is no image: neither `docker save` nor an OCI archive wrote it"
    with pytest.raises(ModuleFailedError, match="archive: cannot read /nonexistent"):
        push("bookworm", archive="/nonexistent.tar")


def test_the_last_digest_counts(module: ModuleType) -> None:
    events = [{"aux": {"Digest": A}}, {"status": "x"}, {"aux": {"Digest": B}}, {"aux": None}]
    assert module.pushed_digest("x", events) == B
    with pytest.raises(EngineError):
        module.pushed_digest("x", [])
