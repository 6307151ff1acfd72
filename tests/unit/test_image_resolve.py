from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fake_registry import PASSWORD, USER, FakeRegistry, serve, write_certificate
from running import ModuleFailedError, run

Resolve = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def registry(certificate: tuple[Path, Path]) -> Iterator[FakeRegistry]:
    with serve(*certificate) as fake:
        yield fake


@pytest.fixture
def resolve(
    load_module: Callable[[str], ModuleType],
    registry: FakeRegistry,
    certificate: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> Resolve:
    login = {"username": USER, "password": PASSWORD, "ca_path": str(certificate[0])}
    module = load_module("image_resolve")
    return lambda *images, check=False, **options: run(
        module, capsys, {"registry": registry.address, "images": list(images), **login, **options}, check=check
    )


def test_tags_digests_and_full_names(resolve: Resolve, registry: FakeRegistry) -> None:
    webui = registry.image("webui", [b"webui"], "latest")
    base = registry.image("team/base", [b"base"], "bookworm")
    images = ["webui:latest", f"webui@{webui}", f"{registry.address}/team/base:bookworm"]
    done = resolve(*images)
    assert (done["changed"], done["missing"]) == (False, [])
    assert done["digests"] == dict(zip(images, [webui, webui, base], strict=True))
    assert resolve(*images, check=True) == done


def test_all_that_is_missing_is_named(resolve: Resolve, registry: FakeRegistry) -> None:
    digest = registry.image("webui", [b"webui"], "latest")
    with pytest.raises(ModuleFailedError) as error:
        resolve("webui:latest", "webui:1", "api:latest")
    assert str(error.value) == (
        f"registry {registry.address} has no webui:1, no api:latest. "
        "Push it first (image_push), or look for a misspelt name."
    )
    done = resolve("webui:latest", "webui:1", allow_missing=True)
    assert (done["digests"], done["missing"]) == ({"webui:latest": digest}, ["webui:1"])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("elsewhere.lab/webui:1", "images[0]: elsewhere.lab/webui:1 is in another registry than {address}"),
        ("webui", "images[0]: expected a tag or a digest, got 'webui'"),
        ("Webui:1", "not an image reference: 'Webui:1' (a repository is lower case: 'Webui')"),
    ],
)
def test_bad_input(resolve: Resolve, registry: FakeRegistry, image: str, message: str) -> None:
    with pytest.raises(ModuleFailedError) as error:
        resolve(image)
    assert str(error.value) == message.format(address=registry.address)
    assert registry.requests == []


def test_a_wrong_password_is_said_and_not_shown(resolve: Resolve, registry: FakeRegistry) -> None:
    with pytest.raises(ModuleFailedError) as error:
        resolve("webui:latest", password="wrong-password")
    assert str(error.value) == (
        f"registry {registry.address}: refused user '{USER}' (401). Check username and password."
    )
    assert "wrong-password" not in str(error.value.result)
