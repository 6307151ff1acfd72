from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.engine import EngineError, EngineNotFoundError
from ansible.module_utils.qianjiang.image_reference import ImageReferenceError
from ansible.module_utils.qianjiang.registry import RegistryError

from fake_registry import PASSWORD, USER, FakeRegistry, digest_of, serve, write_certificate
from running import ModuleFailedError, run

A = "sha256:" + "a" * 64
OWN, FAR = f"own.lab:5000/webui@{A}", f"far.lab:5000/webui@{A}"
Pull = Callable[..., dict[str, Any]]


class FakeEngine:
    """An engine that has images by digest reference and pulls what the fake registries have."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.driver = [["Backing Filesystem", "extfs"]]
        self.names: set[str] = set()
        self.stacks: list[list[str]] = []  # of each image of other names: its layers' ids when unpacked
        self.pulls: list[tuple[str, str, Any]] = []
        self.present: set[str] = set()  # short ids of layers that are there already
        self.layers: list[bytes] = []
        self.error: str | None = None
        self.loses = False
        self.silent = 0.0  # seconds in which it says nothing

    def info(self) -> dict[str, Any]:
        return {"DockerRootDir": self.folder, "DriverStatus": self.driver}

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name.isdecimal():
            return {"RootFS": {"Type": "layers", "Layers": self.stacks[int(name)]}}
        if name not in self.names:
            raise EngineNotFoundError(name)
        return {"RepoDigests": sorted(self.names)}

    def images(self) -> list[dict[str, Any]]:
        return [{"Id": str(number)} for number in range(len(self.stacks))]

    def pull(self, repository: str, tag: str, **settings: Any) -> Iterator[dict[str, Any]]:
        self.pulls.append((repository, tag, settings["auth_config"]))
        if self.silent:
            time.sleep(self.silent)
        for layer in self.layers:
            short = digest_of(layer)[7:19]
            if short in self.present:
                yield {"status": "Already exists", "id": short}
            else:
                yield {"status": "Download complete", "id": short}
                yield {"status": "Pull complete", "id": short}
        if self.error:
            yield {"error": self.error, "errorDetail": {"message": self.error}}
        elif not self.loses:
            self.names.add(f"{repository}@{tag}")


@pytest.fixture
def module(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("image_pull")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def own(certificate: tuple[Path, Path]) -> Iterator[FakeRegistry]:
    with serve(*certificate) as fake:
        yield fake


@pytest.fixture
def far(certificate: tuple[Path, Path]) -> Iterator[FakeRegistry]:
    with serve(*certificate) as fake:
        yield fake


@pytest.fixture
def waits(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    return slept


@pytest.fixture
def engine(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(str(tmp_path))
    monkeypatch.setattr(module, "connect", lambda: fake)
    return fake


@pytest.fixture
def pull(module: ModuleType, certificate: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> Pull:
    login = {"username": USER, "password": PASSWORD, "ca_path": str(certificate[0])}

    def call(digest: str, *registries: FakeRegistry, check: bool = False, **change: Any) -> dict[str, Any]:
        options = {"repository": "webui", "digest": digest, "registries": [r.address for r in registries]}
        return run(module, capsys, {**options, **login, "min_free_bytes": 0, **change}, check=check)

    return call


@pytest.mark.parametrize(
    ("current", "changes"),
    [
        (OWN, []),
        (FAR, []),
        (None, [{"name": f"webui@{A}", "before": None, "after": "own.lab:5000"}]),
    ],
)
def test_plan(module: ModuleType, current: str | None, changes: list[dict[str, Any]]) -> None:
    names = module.references("webui", A, ["own.lab:5000", "far.lab:5000"])
    assert names == [OWN, FAR]
    assert module.plan(names, current) == changes


def test_pull_then_nothing(pull: Pull, engine: FakeEngine, own: FakeRegistry, far: FakeRegistry) -> None:
    engine.layers = [b"base", b"webui!"]
    engine.present = {digest_of(b"base")[7:19]}
    digest = own.image("webui", engine.layers)
    planned = pull(digest, own, far, check=True)
    assert (planned["changed"], planned["source"], engine.pulls) == (True, None, [])
    assert own.requests == []
    done = pull(digest, own, far)
    assert done["diff"] == planned["diff"]
    assert (done["changed"], done["source"], done["bytes"], done["attempts"]) == (True, own.address, 6, [])
    assert done["reference"] == planned["reference"] == f"{own.address}/webui@{digest}"
    assert engine.pulls == [(f"{own.address}/webui", digest, {"username": USER, "password": PASSWORD})]
    own.requests.clear()
    again = pull(digest, own, far)
    assert (again["changed"], again["source"], again["bytes"]) == (False, None, 0)
    assert again["reference"] == done["reference"]
    assert own.requests + far.requests == []


def test_the_next_registry_when_the_first_lacks_it(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, far: FakeRegistry, waits: list[float]
) -> None:
    digest = far.image("webui", [b"layer"])
    done = pull(digest, own, far)
    assert (done["source"], done["reference"]) == (far.address, f"{far.address}/webui@{digest}")
    assert done["attempts"] == [f"registry {own.address}: webui@{digest} is not there"]
    assert waits == []
    assert pull(digest, own, far)["reference"] == done["reference"], "the name that can be run must be told again"


def test_a_failure_that_may_pass_is_tried_again_with_longer_waits(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, waits: list[float]
) -> None:
    digest = own.image("webui", [b"layer"])
    own.answers = [503, 500, 503]
    done = pull(digest, own, backoff=0.5)
    assert waits == [0.5, 1.0, 2.0]
    assert (done["source"], len(done["attempts"])) == (own.address, 3)


def test_retries_are_used_up_before_the_next_registry(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, far: FakeRegistry, waits: list[float]
) -> None:
    digest = far.image("webui", [b"layer"])
    own.answers = [503] * 9
    assert pull(digest, own, far, retries=2)["source"] == far.address
    assert (len(own.requests), waits) == (3, [1.0, 2.0])


def test_all_reasons_are_told(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, far: FakeRegistry, waits: list[float]
) -> None:
    engine.error = "received unexpected HTTP status: 502"
    digest = own.image("webui", [b"layer"])
    with pytest.raises(ModuleFailedError) as error:
        pull(digest, own, far, retries=1)
    assert str(error.value) == (
        "no registry gave the image. What runs was left alone. The reasons:\n"
        f"  pull {own.address}/webui@{digest}: received unexpected HTTP status: 502\n"
        f"  registry {far.address}: webui@{digest} is not there"
    )
    assert len(engine.pulls) == 2


def test_other_content_is_never_pulled(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, far: FakeRegistry, waits: list[float]
) -> None:
    digest = own.image("webui", [b"layer"])
    far.image("webui", [b"layer"])
    media_type, body = own.manifests["webui"][digest]
    own.manifests["webui"][digest] = (media_type, body + b" ")
    done = pull(digest, own, far)
    assert (done["source"], waits) == (far.address, [])
    assert "answered with other content" in done["attempts"][0]


def test_the_digest_is_looked_at_after_the_pull(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, waits: list[float]
) -> None:
    engine.loses = True
    digest = own.image("webui", [b"layer"])
    with pytest.raises(ModuleFailedError, match="the engine has no image with this digest afterwards"):
        pull(digest, own, retries=0)


def test_space_is_looked_at_first(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, far: FakeRegistry, waits: list[float]
) -> None:
    digest = own.image("webui", [b"x" * 1000])
    far.image("webui", [b"x" * 1000])
    with pytest.raises(ModuleFailedError) as error:
        pull(digest, own, far, min_free_bytes=2**62, unpack_factor=2.5)
    assert str(error.value).startswith(f"not enough space in {engine.folder}: ")
    assert "about 2500 needed, and 4611686018427387904 are to stay free (min_free_bytes)." in str(error.value)
    assert (engine.pulls, waits, far.requests) == ([], [], [])


@pytest.mark.parametrize(
    ("stacks", "needed"),
    [
        ([["base"], ["base", "other"]], 3000),
        ([["base", "site"]], 0),
        # A layer is kept with all those below it
        ([["other", "base"], []], 3300),
    ],
)
def test_where_space_is_short_what_is_here_takes_none(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, stacks: list[list[str]], needed: int
) -> None:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["base", "site"]}}).encode()
    digest = own.image("webui", [b"x" * 100, b"y" * 1000], config=config)
    engine.stacks = stacks
    with pytest.raises(ModuleFailedError, match=f" {needed} needed, "):
        pull(digest, own, min_free_bytes=2**62)
    assert engine.pulls == []


def test_a_node_with_the_base_has_space_for_the_rest(pull: Pull, engine: FakeEngine, own: FakeRegistry) -> None:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["base", "site"]}}).encode()
    digest = own.image("webui", [b"x" * 500, b"y" * 500], config=config)
    engine.stacks = [["base"]]
    state = os.statvfs(engine.folder)
    # Three quarters of the whole image are free
    pull(digest, own, unpack_factor=state.f_bavail * state.f_frsize / 750)
    assert len(engine.pulls) == 1


def test_space_is_looked_at_where_containerd_keeps_images(
    module: ModuleType, pull: Pull, engine: FakeEngine, own: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(module, "CONTAINERD", f"{engine.folder}/containerd")
    monkeypatch.setattr(module, "check_space", lambda folder, *_: looked.append(folder))
    Path(module.CONTAINERD).mkdir()
    pull(own.image("webui", [b"one"]), own)
    assert looked == [engine.folder]
    engine.driver = [["driver-type", "io.containerd.snapshotter.v1"]]
    pull(own.image("webui", [b"two"]), own)
    assert looked == [engine.folder, engine.folder, module.CONTAINERD]


def test_a_disk_that_fills_up_is_no_reason_to_ask_others(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, far: FakeRegistry, waits: list[float]
) -> None:
    digest = own.image("webui", [b"layer"])
    engine.error = "write /var/lib/docker/tmp/GetImageBlob1: no space left on device"
    with pytest.raises(ModuleFailedError, match="no space left on device"):
        pull(digest, own, far)
    assert (len(engine.pulls), far.requests) == (1, [])


def test_the_size_of_an_index_is_that_of_its_largest_image(
    module: ModuleType, own: FakeRegistry, certificate: tuple[Path, Path]
) -> None:
    index = own.index("webui", [own.image("webui", [b"four"]), own.image("webui", [b"four", b"sixsix"])])
    client = module.RegistryClient(own.address, USER, PASSWORD, str(certificate[0]))
    size, layers = module.sizes(client, "webui", index)
    assert (size, sorted(layers.values())) == (10, [4, 6])


def test_a_wrong_password_is_not_tried_again(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, waits: list[float]
) -> None:
    digest = own.image("webui", [b"layer"])
    with pytest.raises(ModuleFailedError, match=f"registry {own.address}: refused user 'deploy' ") as error:
        pull(digest, own, password="wrong-password")
    assert (len(own.requests), waits) == (1, [])
    assert "wrong-password" not in str(error.value.result)


def test_which_failures_are_tried_again(module: ModuleType, waits: list[float]) -> None:
    def attempts(*errors: Exception | None) -> Callable[[str], int]:
        rest = iter(errors)

        def attempt(_: str) -> int:
            error = next(rest)
            if error:
                raise error
            return 7

        return attempt

    passing, final = RegistryError("x", transient=True), RegistryError("y")
    outcome = module.first_success(["a"], attempts(passing, EngineError("z"), None), 2, 1)
    assert (outcome.registry, outcome.transferred, outcome.attempts, waits) == ("a", 7, ["x", "z"], [1, 2])
    assert module.first_success(["a", "b"], attempts(final, None), 2, 1).registry == "b"
    with pytest.raises(module.PullError):
        module.first_success(["a"], attempts(passing, passing, passing), 2, 1)


def test_a_deadline_ends_the_waits_between_tries(pull: Pull, engine: FakeEngine, own: FakeRegistry) -> None:
    digest = own.image("webui", [b"layer"])
    engine.error = "connection reset by peer"
    with pytest.raises(ModuleFailedError, match=r"not here after 0.2 s \(deadline\). What runs was left alone"):
        pull(digest, own, deadline=0.2, backoff=30)
    assert len(engine.pulls) == 1


def test_a_deadline_ends_a_pull_of_which_the_engine_says_nothing(
    pull: Pull, engine: FakeEngine, own: FakeRegistry, far: FakeRegistry
) -> None:
    digest = own.image("webui", [b"layer"])
    engine.silent = 30
    with pytest.raises(ModuleFailedError, match=r"not here after 0.2 s \(deadline\)"):
        pull(digest, own, far, deadline=0.2)
    assert (len(engine.pulls), far.requests) == (1, [])


def test_a_deadline_ends_with_its_pull(pull: Pull, engine: FakeEngine, own: FakeRegistry) -> None:
    assert pull(own.image("webui", [b"layer"]), own, deadline=0.2)["changed"] is True
    time.sleep(0.3)  # a timer that was left would end this


@pytest.mark.parametrize(
    ("digest", "registries", "message"),
    [
        (A, [], "registries: expected at least one"),
        ("sha256:1", ["r.lab"], "a digest is sha256:<64 hex digits>, got 'sha256:1'"),
        (A, ["https://r.lab"], "leave out 'https://': a registry is host[:port]"),
    ],
)
def test_bad_input(module: ModuleType, digest: str, registries: list[str], message: str) -> None:
    with pytest.raises(ImageReferenceError) as error:
        module.references("webui", digest, registries)
    assert message in str(error.value)
