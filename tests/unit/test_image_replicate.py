from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.host_lock import host_lock
from ansible.module_utils.qianjiang.image_reference import ImageReferenceError, parse
from ansible.module_utils.qianjiang.registry import Blob
from ansible.module_utils.qianjiang.skopeo import SkopeoError

from fake_registry import INDEX, PASSWORD, USER, FakeRegistry, digest_of, serve, write_certificate
from running import ModuleFailedError, run

A = "sha256:" + "a" * 64
CONFIG = 14  # the size of the fake registry's image configuration
Replicate = Callable[..., dict[str, Any]]


class FakeSkopeo:
    """Copies between the fake registries what the real one would: absent blobs, manifests after them."""

    def __init__(self, origin: FakeRegistry, copy: FakeRegistry) -> None:
        self.origin = origin
        self.target = copy
        self.calls: list[dict[str, Any]] = []
        self.sent: list[str] = []
        self.loses: str | None = None  # a blob to lose on the way
        self.cuts: str | None = None  # a blob to cut off on the way
        self.fails = False
        self.then: list[int] = []  # what the destination answers after the copy

    def __call__(self, *_: object) -> FakeSkopeo:
        return self

    def copy(self, source: str, destination: str, logins: dict[str, Any], **settings: Any) -> None:
        self.calls.append({"source": source, "destination": destination, "logins": logins, **settings})
        if self.fails:
            raise SkopeoError("skopeo copy failed: the WAN is cut")
        repository, _, digest = source.partition(f"{self.origin.address}/")[2].partition("@")
        self._manifest(repository, digest, whole=settings["whole"])
        self.target.answers = self.then

    def _manifest(self, repository: str, digest: str, *, whole: bool) -> None:
        media_type, body = self.origin.manifests[repository][digest]
        if media_type == INDEX:
            assert whole
            for child in self.origin.manifests[repository]:
                if child.encode() in body:
                    self._manifest(repository, child, whole=False)
        for blob, data in self.origin.blobs[repository].items():
            missing = blob not in self.target.blobs.get(repository, {})
            if blob.encode() in body and missing and blob != self.loses:
                self.sent.append(blob)
                self.target.blob(repository, data)
                if blob == self.cuts:
                    self.target.blobs[repository][blob] = b""
        self.target.manifests.setdefault(repository, {})[digest] = (media_type, body)


@pytest.fixture
def module(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("image_replicate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def origin(certificate: tuple[Path, Path]) -> Iterator[FakeRegistry]:
    with serve(*certificate) as fake:
        yield fake


@pytest.fixture
def copy(certificate: tuple[Path, Path]) -> Iterator[FakeRegistry]:
    with serve(*certificate) as fake:
        yield fake


@pytest.fixture
def skopeo(module: ModuleType, origin: FakeRegistry, copy: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> FakeSkopeo:
    fake = FakeSkopeo(origin, copy)
    monkeypatch.setattr("ansible.module_utils.qianjiang.skopeo.Skopeo", fake)
    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule.get_bin_path", lambda *_: "/usr/bin/skopeo")
    return fake


@pytest.fixture
def replicate(
    module: ModuleType,
    skopeo: FakeSkopeo,
    certificate: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> Replicate:
    options = {
        "source": skopeo.origin.address,
        "destination": skopeo.target.address,
        "username": USER,
        "password": PASSWORD,
        "ca_path": str(certificate[0]),
    }
    return lambda *images, check=False, **change: run(
        module, capsys, {**options, "images": list(images), **change}, check=check
    )


def test_plan(module: ModuleType) -> None:
    missing = module.Present(complete=False, manifest=False, missing=(Blob(A, 10), Blob(A, 5)))
    rows = [
        ({"w": f"w@{A}"}, module.Present(), []),
        ({"w": f"w@{A}"}, missing, [("d/w", None, "2 blobs, 15 bytes")]),
        ({"w": f"w@{A}"}, missing._replace(manifest=True), [("d/w", "incomplete", "2 blobs, 15 bytes")]),
        ({"w": f"w:t@{A}"}, module.Present(tag=A), []),
        ({"w": f"w:t@{A}"}, module.Present(tag="sha256:b"), [("d/w:t", "sha256:b", A)]),
    ]
    for desired, present, changes in rows:
        references = {name: parse(text) for name, text in desired.items()}
        plan = module.plan("d", references, dict.fromkeys(references, present))
        assert [(c["name"], c["before"], c["after"]) for c in plan] == changes


def test_copy_then_nothing(replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry) -> None:
    digest = origin.image("webui", [b"layer", b"more"], "latest")
    planned = replicate(f"webui@{digest}", check=True)
    assert skopeo.calls == []
    assert copy.manifests.get("webui", {}) == {}
    done = replicate(f"webui@{digest}")
    assert planned == done
    assert (done["blobs"], done["bytes"]) == (3, 9 + CONFIG)
    assert done["images"] == [{"image": f"webui@{digest}", "copied": True, "blobs": 3, "bytes": 9 + CONFIG}]
    assert copy.manifests["webui"][digest] == origin.manifests["webui"][digest]
    call = skopeo.calls[0]
    assert call["source"] == f"docker://{origin.address}/webui@{digest}"
    assert call["destination"] == f"docker://{copy.address}/webui@{digest}"
    assert call["logins"] == {origin.address: (USER, PASSWORD), copy.address: (USER, PASSWORD)}
    origin.requests.clear()
    again = replicate(f"webui@{digest}")
    assert (again["changed"], again["bytes"], len(skopeo.calls)) == (False, 0, 1)
    assert origin.requests == [], "the WAN was used although everything is there"


def test_what_another_run_is_copying_is_waited_for(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    digest = origin.image("webui", [b"layer"])
    other = ExitStack()

    def arrive() -> None:
        copy.image("webui", [b"layer"])
        other.close()

    other.enter_context(host_lock(f"copies to {copy.address}", 1))
    assert replicate(f"webui@{digest}", check=True)["changed"], "a check waits for nobody"
    with pytest.raises(ModuleFailedError, match=f"copies to {copy.address}: another run .* not ended within 1 s"):
        replicate(f"webui@{digest}", copy_timeout=1)
    threading.Timer(0.5, arrive).start()
    assert not replicate(f"webui@{digest}")["changed"]
    assert skopeo.calls == []


def test_only_missing_blobs_count_and_cross(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    """What the repository has, what another one has, and what comes with an image before it."""
    one = origin.image("webui", [b"base", b"webui", b"shared"], config=b"1")
    two = origin.image("api", [b"base", b"shared", b"api"], config=b"2")
    copy.image("tools", [b"base"])
    copy.blob("webui", b"webui")
    done = replicate(f"webui@{one}", f"api@{two}")
    assert [(image["blobs"], image["bytes"]) for image in done["images"]] == [(2, 7), (2, 4)]
    assert len(skopeo.sent) == 4
    assert (done["blobs"], done["bytes"]) == (4, 11)


def test_what_is_new_is_looked_for_once_in_each_repository(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    others = [f"service-{number}" for number in range(10)]
    for other in others:
        copy.image(other, [b"another base", other.encode()])
    copy.image("tools", [b"base", b"python"])
    on_tools = origin.image(
        "webui", [b"base", b"python", *(f"layer {number}".encode() for number in range(5))], config=b"1"
    )
    on_nothing = origin.image("api", [b"new base", *(f"api {number}".encode() for number in range(5))], config=b"2")
    copy.requests.clear()
    done = replicate(f"webui@{on_tools}", f"api@{on_nothing}", check=True)
    assert [image["blobs"] for image in done["images"]] == [6, 7]
    asked = [request for request in copy.requests if "/blobs/" in request]
    elsewhere = [request for request in asked if "/webui/" not in request and "/api/" not in request]
    assert len(elsewhere) <= 2 * 11 + 2
    assert sum("_catalog" in request for request in copy.requests) == 1


def test_each_layer_is_looked_for_in_all_that_have_those_before(
    replicate: Replicate, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    copy.image("api", [b"debian", b"api"])
    copy.image("tools", [b"debian", b"python"])
    digest = origin.image("webui", [b"debian", b"python", b"app"], config=b"1")
    # The configuration and the last layer
    assert replicate(f"webui@{digest}", check=True)["blobs"] == 2


def test_an_index_comes_with_its_images(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    images = [origin.image("webui", [b"shared", b"amd64"]), origin.image("webui", [b"shared", b"arm64!"])]
    index = origin.index("webui", images)
    done = replicate(f"webui@{index}")
    assert (done["blobs"], done["bytes"]) == (4, CONFIG + 17)
    assert set(copy.manifests["webui"]) == {index, *images}
    del copy.manifests["webui"][images[1]]
    assert replicate(f"webui@{index}")["diff"]["before"] == {f"{copy.address}/webui@{index}": "incomplete"}
    assert set(copy.manifests["webui"]) == {index, *images}


def test_a_damaged_copy_is_mended(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    digest = origin.image("webui", [b"layer", b"more"])
    replicate(f"webui@{digest}")
    lost = next(blob for blob, data in copy.blobs["webui"].items() if data == b"more")
    del copy.blobs["webui"][lost]
    done = replicate(f"webui@{digest}")
    assert (done["changed"], done["blobs"], done["bytes"]) == (True, 1, 4)
    assert not replicate(f"webui@{digest}")["changed"]


def test_an_incomplete_copy_does_not_stay_visible(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    digest = origin.image("webui", [b"layer"])
    skopeo.loses = next(blob for blob, data in origin.blobs["webui"].items() if data == b"layer")
    with pytest.raises(ModuleFailedError) as error:
        replicate(f"webui@{digest}")
    assert str(error.value) == (
        f"{copy.address}/webui@{digest} is incomplete after the copy; its manifest was removed again. "
        "Look at its storage."
    )
    assert copy.manifests["webui"] == {}


def test_a_blob_that_was_cut_off_is_not_taken_for_one(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    digest = origin.image("webui", [b"layer"])
    layer = digest_of(b"layer")
    reason = f"registry {copy.address}: webui@{layer} has 0 bytes instead of 5, and no upload replaces it. "
    skopeo.cuts = layer
    with pytest.raises(ModuleFailedError) as error:
        replicate(f"webui@{digest}")
    assert str(error.value).startswith(
        f"{copy.address}/webui@{digest} is incomplete after the copy; its manifest was removed again. {reason}"
    )
    assert copy.manifests["webui"] == {}
    skopeo.cuts = None
    with pytest.raises(ModuleFailedError) as error:
        replicate(f"webui@{digest}")
    assert str(error.value).startswith(reason)
    del copy.blobs["webui"][layer]
    replicate(f"webui@{digest}")
    copy.blobs["webui"][layer] = b""
    with pytest.raises(ModuleFailedError) as error:
        replicate(f"webui@{digest}")
    assert str(error.value).startswith(reason)


def test_a_copy_that_cannot_be_looked_at_stays(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    digest = origin.image("webui", [b"layer"])
    skopeo.then = [403]
    with pytest.raises(ModuleFailedError, match="answered 403"):
        replicate(f"webui@{digest}")
    assert digest in copy.manifests["webui"]
    assert not replicate(f"webui@{digest}")["changed"]


def test_a_cut_wan_leaves_nothing_visible(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    digest = origin.image("webui", [b"layer"])
    skopeo.fails = True
    with pytest.raises(ModuleFailedError, match="the WAN is cut"):
        replicate(f"webui:latest@{digest}")
    assert copy.manifests.get("webui", {}) == {}


def test_a_tag_is_set_after_the_copy(
    replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry, copy: FakeRegistry
) -> None:
    digest = origin.image("webui", [b"layer"])
    done = replicate(f"webui:latest@{digest}")
    assert done["diff"]["after"][f"{copy.address}/webui:latest"] == digest
    assert copy.manifests["webui"]["latest"] == origin.manifests["webui"][digest]
    assert not replicate(f"webui:latest@{digest}")["changed"]


def test_the_origin_itself_only_has_to_have_it(replicate: Replicate, skopeo: FakeSkopeo, origin: FakeRegistry) -> None:
    digest = origin.image("webui", [b"layer"])
    assert not replicate(f"webui@{digest}", destination=origin.address)["changed"]
    with pytest.raises(ModuleFailedError) as error:
        replicate(f"webui@{A}", destination=origin.address)
    assert str(error.value) == f"{origin.address}/webui@{A} is not there: push it first (image_push)"


def test_an_image_that_the_origin_lacks(replicate: Replicate, origin: FakeRegistry) -> None:
    with pytest.raises(ModuleFailedError) as error:
        replicate(f"webui@{A}")
    assert str(error.value) == f"registry {origin.address}: webui@{A} is not there"


@pytest.mark.parametrize("text", ["webui:latest", f"r.lab/webui@{A}", "webui"])
def test_bad_input(module: ModuleType, text: str) -> None:
    with pytest.raises(ImageReferenceError) as error:
        module.wanted([f"webui@{A}", text])
    assert str(error.value) == f"images[1]: expected repository@sha256:<64 hex digits>, got {text!r}"
