from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.qianjiang.registry import (
    Blob,
    RegistryClient,
    RegistryError,
    blobs,
    ca_bundle,
    credentials,
    is_complete,
)

from fake_registry import IMAGE, INDEX, PASSWORD, USER, FakeRegistry, digest_of, serve, write_certificate

READ_ONLY = "the registry is read-only, probably while docker-registry-collect runs: run this again later"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def registry(certificate: tuple[Path, Path]) -> Iterator[FakeRegistry]:
    with serve(*certificate) as fake:
        yield fake


@pytest.fixture
def client(registry: FakeRegistry, certificate: tuple[Path, Path]) -> RegistryClient:
    return RegistryClient(registry.address, USER, PASSWORD, str(certificate[0]))


def test_head_gives_the_digest_or_none(registry: FakeRegistry, client: RegistryClient) -> None:
    digest = registry.image("team/webui", [b"layer"], "ctx-1")
    assert client.head_manifest("team/webui", "ctx-1") == digest
    assert client.head_manifest("team/webui", digest) == digest
    assert client.head_manifest("team/webui", "ctx-2") is None
    assert registry.requests[0] == "HEAD /v2/team/webui/manifests/ctx-1"


def test_get_gives_bytes_media_type_and_digest(registry: FakeRegistry, client: RegistryClient) -> None:
    digest = registry.image("webui", [b"layer"], "latest")
    body, media_type, got = client.get_manifest("webui", "latest")
    assert (digest_of(body), media_type, got) == (digest, IMAGE, digest)


def test_put_moves_a_tag_with_the_same_bytes(registry: FakeRegistry, client: RegistryClient) -> None:
    digest = registry.image("webui", [b"layer"], "ctx-1")
    body, media_type, _ = client.get_manifest("webui", digest)
    assert client.put_manifest("webui", "latest", body, media_type) == digest
    assert registry.manifests["webui"]["latest"] == (IMAGE, body)


def test_content_that_is_not_its_digest_is_refused(registry: FakeRegistry, client: RegistryClient) -> None:
    digest = registry.image("webui", [b"layer"], "latest")
    media_type, body = registry.manifests["webui"][digest]
    registry.manifests["webui"][digest] = (media_type, body + b" ")
    with pytest.raises(RegistryError, match="answered with other content") as error:
        client.get_manifest("webui", digest)
    assert str(error.value) == (
        f"registry {registry.address}: webui@{digest} answered with other content (its digest is "
        f"{digest_of(body + b' ')}). Do not use it; look at the registry's storage and what lies between."
    )
    with pytest.raises(RegistryError, match="answered with other content"):
        client.head_manifest("webui", digest)


def test_a_digest_header_that_lies_is_refused(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.image("webui", [b"layer"], "latest")
    registry.header_digest = "sha256:" + "0" * 64
    with pytest.raises(RegistryError, match="answered with other content"):
        client.get_manifest("webui", "latest")


def test_blobs_of_an_index_are_those_of_its_images_once(registry: FakeRegistry, client: RegistryClient) -> None:
    one = registry.image("webui", [b"shared", b"amd64"])
    two = registry.image("webui", [b"shared", b"arm64!"])
    index = registry.index("webui", [one, two], "latest")
    manifest = client.get_manifest("webui", "latest")
    assert (manifest.media_type, manifest.digest) == (INDEX, index)
    assert blobs(client, "webui", manifest) == [
        Blob(digest_of(b'{"os":"linux"}'), 14, is_layer=False),
        Blob(digest_of(b"shared"), 6),
        Blob(digest_of(b"amd64"), 5),
        Blob(digest_of(b"arm64!"), 6),
    ]


def test_blobs_are_asked_for_and_mounted(registry: FakeRegistry, client: RegistryClient) -> None:
    digest = str(registry.blob("base", b"layer")["digest"])
    assert client.has_blob("base", digest)
    assert not client.has_blob("webui", digest)
    assert client.repositories() == ["base"]
    assert client.mount_blob("webui", digest, "base")
    assert client.has_blob("webui", digest)


def test_a_blob_of_another_size(registry: FakeRegistry, client: RegistryClient) -> None:
    digest = str(registry.blob("webui", b"layer")["digest"])
    assert client.has_blob("webui", digest, 5)
    registry.blobs["webui"][digest] = b""
    assert client.has_blob("webui", digest)
    with pytest.raises(RegistryError) as error:
        client.has_blob("webui", digest, 5)
    assert str(error.value) == (
        f"registry {registry.address}: webui@{digest} has 0 bytes instead of 5, and no upload replaces it. On the "
        f"registry's host delete docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]} in its storage folder and "
        "restart the registry, then run this again."
    )
    assert not error.value.transient


def test_what_is_complete(registry: FakeRegistry, client: RegistryClient) -> None:
    one, two = registry.image("webui", [b"shared", b"amd64"]), registry.image("webui", [b"shared", b"arm64"])
    index = registry.index("webui", [one, two], "latest")
    assert [is_complete(client, "webui", digest) for digest in (one, two, index, "latest")] == [True] * 4
    del registry.blobs["webui"][digest_of(b"arm64")]
    assert [is_complete(client, "webui", digest) for digest in (one, two, index)] == [True, False, False]
    registry.blob("webui", b"arm64")
    del registry.manifests["webui"][two]
    assert [is_complete(client, "webui", digest) for digest in (one, two, index)] == [True, False, False]


@pytest.mark.parametrize("status", [401, 403, 405, 503])
def test_what_is_refused_is_not_taken_for_damaged(registry: FakeRegistry, client: RegistryClient, status: int) -> None:
    digest = registry.image("webui", [b"layer"])
    registry.answers = [status]
    with pytest.raises(RegistryError, match=str(status)):
        is_complete(client, "webui", digest)


def test_deleting_a_manifest(registry: FakeRegistry, client: RegistryClient) -> None:
    digest = registry.image("webui", [b"layer"], "latest")
    assert client.delete_manifest("webui", digest)
    assert client.head_manifest("webui", "latest") is None
    registry.refuse_delete = True
    assert not client.delete_manifest("webui", registry.image("webui", [b"layer"]))


@pytest.mark.parametrize(
    ("status", "transient", "message"),
    [
        (500, True, "HEAD webui:latest answered 500"),
        (503, True, "HEAD webui:latest answered 503"),
        (429, True, "HEAD webui:latest answered 429"),
        (400, False, "HEAD webui:latest answered 400"),
        (403, False, "HEAD webui:latest answered 403: user 'deploy' may not do this"),
        (405, False, f"HEAD webui:latest answered 405: {READ_ONLY}"),
    ],
)
def test_refusals(registry: FakeRegistry, client: RegistryClient, status: int, transient: bool, message: str) -> None:
    registry.answers = [status]
    with pytest.raises(RegistryError) as error:
        client.head_manifest("webui", "latest")
    assert error.value.transient is transient
    assert str(error.value).startswith(f"registry {registry.address}: {message}")


def test_what_the_registry_says_is_in_the_message(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.answers = [500]
    with pytest.raises(RegistryError, match="answered 500: X: made up"):
        client.get_manifest("webui", "latest")


def test_wrong_password(registry: FakeRegistry, certificate: tuple[Path, Path]) -> None:
    client = RegistryClient(registry.address, USER, "wrong", str(certificate[0]))
    with pytest.raises(RegistryError) as error:
        client.head_manifest("webui", "latest")
    assert str(error.value) == (
        f"registry {registry.address}: refused user 'deploy' (401). Check username and password."
    )
    assert not error.value.transient
    with pytest.raises(RegistryError, match=r"wants a login \(401\). Set username and password."):
        RegistryClient(registry.address, None, None, str(certificate[0])).head_manifest("webui", "latest")


def test_a_password_beyond_ascii(registry: FakeRegistry, certificate: tuple[Path, Path]) -> None:
    registry.password = "s3crét-密"
    client = RegistryClient(registry.address, USER, registry.password, str(certificate[0]))
    assert client.head_manifest("webui", "latest") is None


def test_untrusted_certificate(registry: FakeRegistry, tmp_path: Path) -> None:
    other, _ = write_certificate(tmp_path)
    with pytest.raises(RegistryError) as error:
        RegistryClient(registry.address, USER, PASSWORD, str(other)).head_manifest("webui", "latest")
    assert str(error.value).startswith(
        f"registry {registry.address}: its TLS certificate is not trusted with the CA in {other} ("
    )
    assert not error.value.transient


def test_an_expired_certificate_is_no_question_of_trust(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, days=-0.5)
    with serve(certificate, key) as registry, pytest.raises(RegistryError) as error:
        RegistryClient(registry.address, USER, PASSWORD, str(certificate)).head_manifest("webui", "latest")
    assert str(error.value).startswith(f"registry {registry.address}: its TLS certificate has expired (")
    assert str(error.value).endswith("Run playbooks/nodes.yml --tags certificate_authority,registry.")


def test_nobody_listens(certificate: tuple[Path, Path]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RegistryError) as error:
        RegistryClient(address, USER, PASSWORD, str(certificate[0])).head_manifest("webui", "latest")
    assert str(error.value).startswith(f"registry {address}: no answer (")
    assert error.value.transient


def test_a_handshake_that_is_cut_off_is_no_question_of_trust(certificate: tuple[Path, Path]) -> None:
    """A load balancer accepts for a registry that restarts, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(RegistryError) as error:
            RegistryClient(address, USER, PASSWORD, str(certificate[0])).head_manifest("webui", "latest")
    assert str(error.value).startswith(f"registry {address}: no answer (")
    assert error.value.transient


@pytest.mark.parametrize("address", ["a..b:5000", "r.lab:99999", "r lab", "x" * 64 + ".lab"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(RegistryError) as error:
        RegistryClient(address).head_manifest("webui", "latest")
    assert str(error.value).startswith(f"registry {address}: is not a registry host[:port] (")
    assert not error.value.transient


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b"[]", b"5", b"{}", b'{"schemaVersion": 1}'])
def test_an_answer_that_is_no_manifest(registry: FakeRegistry, client: RegistryClient, body: bytes) -> None:
    registry.manifests["webui"] = {"latest": ("text/html", body)}
    with pytest.raises(RegistryError) as error:
        client.get_manifest("webui", "latest")
    assert str(error.value) == (
        f"registry {registry.address}: webui:latest is no manifest. Is it a registry that answers there?"
    )


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
def test_an_answer_that_is_no_catalogue(registry: FakeRegistry, client: RegistryClient, body: bytes) -> None:
    registry.catalogue = body
    with pytest.raises(RegistryError) as error:
        client.repositories()
    assert str(error.value) == (
        f"registry {registry.address}: the catalogue is no list of repositories. Is it a registry that answers there?"
    )


def test_environment_changes_nothing(
    registry: FakeRegistry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests prefers REQUESTS_CA_BUNDLE and proxies of the environment to what a session was told."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert client.head_manifest("webui", "latest") is None


def test_ca_bundle(tmp_path: Path) -> None:
    own = tmp_path / "r.lab:5000" / "ca.crt"
    own.parent.mkdir()
    own.write_text("PEM")
    assert ca_bundle("r.lab:5000", None, tmp_path) == str(own)
    assert ca_bundle("elsewhere", None, tmp_path) is True
    assert ca_bundle("elsewhere", str(own), tmp_path) == str(own)
    with pytest.raises(RegistryError, match="ca_path: no such file: /nonexistent/ca"):
        ca_bundle("r.lab:5000", "/nonexistent/ca.crt", tmp_path)


def test_credentials_document() -> None:
    assert credentials({"r.lab:5000": ("u", "p")}) == {"auths": {"r.lab:5000": {"auth": "dTpw"}}}
    assert credentials({"r.lab:5000": (None, None)}) == {"auths": {}}
