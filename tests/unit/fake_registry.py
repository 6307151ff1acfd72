"""A registry that speaks enough of the v2 API over real TLS, in this process, for what talks to one."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import ipaddress
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
USER, PASSWORD = "deploy", "s3cret-word"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclasses.dataclass
class FakeRegistry:
    """What the registry holds, and what it was asked. Tests read and change both."""

    address: str = ""
    blobs: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    manifests: dict[str, dict[str, tuple[str, bytes]]] = dataclasses.field(default_factory=dict)
    requests: list[str] = dataclasses.field(default_factory=list)
    answers: list[int] = dataclasses.field(default_factory=list)  # statuses to give first; 200 is the truth
    header_digest: str | None = None  # a digest to claim, whatever the content
    refuse_delete: bool = False
    password: str = PASSWORD
    catalogue: bytes | None = None  # what to say instead of the repositories

    def blob(self, repository: str, data: bytes) -> dict[str, object]:
        self.blobs.setdefault(repository, {})[digest_of(data)] = data
        return {"mediaType": "application/octet-stream", "size": len(data), "digest": digest_of(data)}

    def manifest(self, repository: str, document: dict[str, object], *tags: str) -> str:
        body = json.dumps(document).encode()
        entries = self.manifests.setdefault(repository, {})
        for name in (digest_of(body), *tags):
            entries[name] = (str(document["mediaType"]), body)
        return digest_of(body)

    def image(self, repository: str, layers: list[bytes], *tags: str, config: bytes = b'{"os":"linux"}') -> str:
        document: dict[str, object] = {"schemaVersion": 2, "mediaType": IMAGE}
        document["config"] = self.blob(repository, config)
        document["layers"] = [self.blob(repository, layer) for layer in layers]
        return self.manifest(repository, document, *tags)

    def index(self, repository: str, children: list[str], *tags: str) -> str:
        entries = [
            {"mediaType": IMAGE, "digest": child, "size": len(self.manifests[repository][child][1])}
            for child in children
        ]
        return self.manifest(repository, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, *tags)


def _handler(registry: FakeRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing on the test's output."""

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def handle_any(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            registry.requests.append(f"{self.command} {self.path}")
            authorization = "Basic " + base64.b64encode(f"{USER}:{registry.password}".encode()).decode()
            if self.headers.get("Authorization") != authorization:
                self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate='Basic realm="lab"')
            elif registry.answers and (status := registry.answers.pop(0)) != 200:
                self.answer(status, b'{"errors":[{"code":"X","message":"made up"}]}')
            elif self.path.startswith("/v2/_catalog"):
                self.answer(200, registry.catalogue or json.dumps({"repositories": sorted(registry.blobs)}).encode())
            elif match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", self.path):
                self.manifests(match[1], match[2], sent)
            elif match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", self.path):
                data = registry.blobs.get(match[1], {}).get(match[2])
                self.answer(404) if data is None else self.answer(200, data, Docker_Content_Digest=match[2])
            elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/\?mount=(.+)&from=(.+)", self.path):
                data = registry.blobs[match[3].replace("%2F", "/")][match[2].replace("%3A", ":")]
                registry.blob(match[1], data)
                self.answer(201)
            else:
                self.answer(404)

        def manifests(self, repository: str, reference: str, sent: bytes) -> None:
            entries = registry.manifests.setdefault(repository, {})
            if self.command == "PUT":
                entries[digest_of(sent)] = entries[reference] = (self.headers["Content-Type"], sent)
                self.answer(201, Docker_Content_Digest=digest_of(sent))
            elif self.command == "DELETE":
                if registry.refuse_delete:
                    self.answer(405)
                    return
                body = entries.pop(reference)[1]
                for name in [name for name, entry in entries.items() if entry[1] == body]:
                    del entries[name]
                self.answer(202)
            elif reference not in entries:
                self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            else:
                media_type, body = entries[reference]
                claimed = registry.header_digest or digest_of(body)
                self.answer(200, body, Content_Type=media_type, Docker_Content_Digest=claimed)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    return Handler


def write_certificate(folder: Path, days: float = 1) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, from yesterday and for so many days; returns (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "ca.crt", folder / "ca.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, secret


@contextmanager
def serve(certificate: Path, key: Path) -> Iterator[FakeRegistry]:
    """Run a registry on a free port of 127.0.0.1 until the block ends."""
    registry = FakeRegistry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(registry))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    registry.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
