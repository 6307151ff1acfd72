# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client for the part of the registry API (v2) that the image modules need; content is checked against its digest."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

try:
    import requests
except ImportError:  # said by RegistryClient, as a message instead of a traceback
    requests = None  # type: ignore[assignment]

CERTIFICATES = Path("/etc/docker/certs.d")
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

_WHO_ANSWERS = "Is it a registry that answers there?"
_READ_ONLY = "the registry is read-only, probably while docker-registry-collect runs: run this again later"


class RegistryError(Exception):
    """The registry did not do what it was asked. `transient` says whether asking again may help."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class DamagedError(RegistryError):
    """The registry answered, and what was asked for is not there, or is not what its digest says."""


class Manifest(NamedTuple):
    """A manifest as the registry holds it, byte for byte."""

    body: bytes
    media_type: str
    digest: str

    @property
    def document(self) -> dict[str, Any]:
        """The parsed manifest."""
        return _mapping(self.body)

    @property
    def config_digest(self) -> str | None:
        """The digest of the image's configuration (the engine's image id); None for an index."""
        digest = self.document.get("config", {}).get("digest")
        return str(digest) if digest else None

    @property
    def children(self) -> list[str]:
        """The digests of the manifests that an index lists; empty for an image."""
        return [str(entry["digest"]) for entry in self.document.get("manifests", [])]


class Blob(NamedTuple):
    """A piece of content that a manifest names."""

    digest: str
    size: int
    is_layer: bool = True


def digest_of(data: bytes) -> str:
    """The digest of `data` as registries write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def explained(words: str) -> str:
    """What a client said of a registry, with the reason that a read-only one does not give."""
    refused = re.search("method not allowed|operation is unsupported", words, re.IGNORECASE)
    return f"{words} ({_READ_ONLY})" if refused else words


def ca_bundle(registry: str, ca_path: str | None, folder: Path = CERTIFICATES) -> str | bool:
    """The file with the CA to trust for a registry: the one given, else the engine's own, else (True) the system's."""
    if ca_path is not None:
        if not Path(ca_path).is_file():
            raise RegistryError(f"ca_path: no such file: {ca_path}")
        return ca_path
    own = folder / registry / "ca.crt"
    return str(own) if own.is_file() else True


def credentials(logins: Mapping[str, tuple[str | None, str | None]]) -> dict[str, dict[str, dict[str, str]]]:
    """The document that Docker's config.json and skopeo's --authfile share, for {registry: (username, password)}."""
    auths = {}
    for registry, (username, password) in logins.items():
        if username is not None and password is not None:
            auths[registry] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    return {"auths": auths}


def walk(client: RegistryClient, repository: str, manifest: Manifest) -> Iterator[Manifest]:
    """A manifest and, for an index, every manifest below it."""
    yield manifest
    for child in manifest.children:
        yield from walk(client, repository, client.get_manifest(repository, child))


def blobs(client: RegistryClient, repository: str, manifest: Manifest) -> list[Blob]:
    """Every blob that an image (or each image of an index) is made of, once, in order."""
    found: dict[str, Blob] = {}
    for image in walk(client, repository, manifest):
        document = image.document
        entries = [(document["config"], False)] if "config" in document else []
        for entry, is_layer in [*entries, *((layer, True) for layer in document.get("layers", []))]:
            found.setdefault(entry["digest"], Blob(entry["digest"], int(entry["size"]), is_layer))
    return list(found.values())


def is_complete(client: RegistryClient, repository: str, reference: str) -> bool:
    """Whether every manifest and blob of an image, or of each image of an index, is there.

    A registry that does not answer, or refuses, says nothing about that: its error is raised.
    """
    try:
        content = blobs(client, repository, client.get_manifest(repository, reference))
    except DamagedError:
        return False
    return all(client.has_blob(repository, blob.digest, blob.size) for blob in content)


class RegistryClient:
    """One registry, over TLS, with a password if it wants one."""

    def __init__(
        self,
        registry: str,
        username: str | None = None,
        password: str | None = None,
        ca_path: str | None = None,
        timeout: float = 30,
    ) -> None:
        if requests is None:
            raise RegistryError("the Python library 'requests' is missing on this host. On Debian: python3-docker")
        self.registry = registry
        self._username = username
        self._ca = ca_bundle(registry, ca_path)
        self._timeout = timeout
        self._session = requests.Session()
        # The inventory names the registry and it is reached directly: a proxy variable, a CA variable or a .netrc of
        # whoever runs this must not change where the password goes.
        self._session.trust_env = False
        # Lengths are compared: nothing on the way may compress
        self._session.headers["Accept-Encoding"] = "identity"
        if username is not None and password is not None:
            # As text they would be sent as Latin-1; htpasswd, the engine and skopeo speak UTF-8
            self._session.auth = requests.auth.HTTPBasicAuth(username.encode(), password.encode())

    def head_manifest(self, repository: str, reference: str) -> str | None:
        """The digest of the manifest under a tag or digest; None when it is not there."""
        what = _name(repository, reference)
        response = self._call("HEAD", f"{repository}/manifests/{reference}", what, missing=True, accept=True)
        if response is None:
            return None
        digest = response.headers.get("Docker-Content-Digest")
        if digest is None:
            return self.get_manifest(repository, reference).digest
        if _is_digest(reference) and digest != reference:
            raise self._altered(what, digest)
        return digest

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest under a tag or digest. Content that is not what its digest says is an error."""
        what = _name(repository, reference)
        response = self._call("GET", f"{repository}/manifests/{reference}", what, accept=True)
        if response is None:
            raise self._damaged(f"{what} is not there")
        digest = digest_of(response.content)
        expected = reference if _is_digest(reference) else response.headers.get("Docker-Content-Digest", digest)
        if digest != expected:
            raise self._altered(what, digest)
        if _mapping(response.content).get("schemaVersion") != 2:
            raise self._error(f"{what} is no manifest. {_WHO_ANSWERS}")
        media_type = response.headers.get("Content-Type", "").partition(";")[0]
        return Manifest(response.content, media_type, digest)

    def get_blob(self, repository: str, digest: str) -> bytes:
        """A small blob, such as an image's configuration. Content that is not what its digest says is an error."""
        what = _name(repository, digest)
        response = self._call("GET", f"{repository}/blobs/{digest}", what)
        if response is None:
            raise self._damaged(f"{what} is not there")
        if digest_of(response.content) != digest:
            raise self._altered(what, digest_of(response.content))
        return response.content

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        """Store a manifest's exact bytes under a tag (or its digest); returns its digest."""
        what = _name(repository, reference)
        self._call("PUT", f"{repository}/manifests/{reference}", what, data=body, media_type=media_type)
        return digest_of(body)

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Remove a manifest and its tags. False where the registry does not allow deletion."""
        try:
            self._call("DELETE", f"{repository}/manifests/{digest}", _name(repository, digest), missing=True)
        except RegistryError:
            return False
        return True

    def has_blob(self, repository: str, digest: str, size: int | None = None) -> bool:
        """Whether the repository holds a blob. One that is not of this size is an error.

        Docker's registry (2.8) keeps such a file at an upload, and also at a deletion, which removes only the
        repository's link to it; it is its own host that has to mend it.
        """
        what = _name(repository, digest)
        response = self._call("HEAD", f"{repository}/blobs/{digest}", what, missing=True)
        if response is None:
            return False
        found = response.headers.get("Content-Length")
        if size is not None and found not in (None, str(size)):
            value = digest.partition(":")[2]
            raise self._damaged(
                f"{what} has {found} bytes instead of {size}, and no upload replaces it. On the registry's host delete "
                f"docker/registry/v2/blobs/sha256/{value[:2]}/{value} in its storage folder and restart the registry, "
                "then run this again."
            )
        return True

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Have a blob of the repository `source` in `repository` too, without sending it."""
        query = urlencode({"mount": digest, "from": source})
        response = self._call("POST", f"{repository}/blobs/uploads/?{query}", _name(repository, digest))
        return response is not None and response.status_code == 201

    def repositories(self) -> list[str]:
        """The names of the registry's repositories (the first thousand)."""
        response = self._call("GET", "_catalog?n=1000", "the catalogue")
        if response is None:
            return []
        answer = _mapping(response.content)
        if "repositories" not in answer:
            raise self._error(f"the catalogue is no list of repositories. {_WHO_ANSWERS}")
        return [str(name) for name in answer["repositories"] or []]

    def _call(
        self,
        method: str,
        path: str,
        what: str,
        *,
        missing: bool = False,
        accept: bool = False,
        data: bytes | None = None,
        media_type: str | None = None,
    ) -> requests.Response | None:
        headers = {"Accept": ", ".join((*MANIFESTS, *INDEXES))} if accept else {}
        if media_type:
            headers["Content-Type"] = media_type
        url = f"https://{self.registry}/v2/{path}"
        try:
            response = self._session.request(
                method, url, headers=headers, data=data, timeout=self._timeout, verify=self._ca
            )
        except requests.exceptions.SSLError as error:
            # As what stands before a registry that restarts does: it accepts, and has nobody to pass it on to
            if isinstance(_innermost(error), (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                raise self._unanswered(error) from error
            if "expired" in _cause(error):
                mend = "Run playbooks/nodes.yml --tags certificate_authority,registry."
                raise self._error(f"its TLS certificate has expired ({_cause(error)}). {mend}") from error
            trust = f"the CA in {self._ca}" if isinstance(self._ca, str) else "the system's CAs"
            hint = f"Put its CA in {CERTIFICATES}/{self.registry}/ca.crt, or set ca_path."
            raise self._error(f"its TLS certificate is not trusted with {trust} ({_cause(error)}). {hint}") from error
        except ValueError as error:  # of requests or of urllib3, whose own is no RequestException
            raise self._error(f"is not a registry host[:port] ({_cause(error)})") from error
        except requests.exceptions.RequestException as error:
            raise self._unanswered(error) from error
        if response.status_code == 404 and (missing or method == "GET"):
            return None
        if response.status_code == 401:
            if self._username is None:
                raise self._error("wants a login (401). Set username and password.")
            raise self._error(f"refused user {self._username!r} (401). Check username and password.")
        if not response.ok:
            raise self._refusal(method, what, response)
        return response

    def _refusal(self, method: str, what: str, response: requests.Response) -> RegistryError:
        status = response.status_code
        try:
            errors = response.json()["errors"]
            said = "; ".join(": ".join(filter(None, (e.get("code"), e.get("message")))) for e in errors)
        except (ValueError, KeyError, TypeError, AttributeError):
            said = response.text.strip()[:200]
        if status == 403:
            said = f"user {self._username!r} may not do this" + (f" ({said})" if said else "")
        elif status == 405:
            said = _READ_ONLY + (f" ({said})" if said else "")
        transient = status == 429 or status >= 500
        return self._error(f"{method} {what} answered {status}" + (f": {said}" if said else ""), transient=transient)

    def _altered(self, what: str, digest: str) -> DamagedError:
        hint = "Do not use it; look at the registry's storage and what lies between."
        return self._damaged(f"{what} answered with other content (its digest is {digest}). {hint}")

    def _damaged(self, message: str) -> DamagedError:
        return DamagedError(f"registry {self.registry}: {message}")

    def _unanswered(self, error: Exception) -> RegistryError:
        message = f"no answer ({_cause(error)}). Is it running, and reachable from this host?"
        return self._error(message, transient=True)

    def _error(self, message: str, *, transient: bool = False) -> RegistryError:
        return RegistryError(f"registry {self.registry}: {message}", transient=transient)


def _mapping(body: bytes) -> dict[str, Any]:
    """A JSON mapping; empty for whatever else was answered, such as a proxy's page."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_digest(reference: str) -> bool:
    return reference.startswith("sha256:")


def _name(repository: str, reference: str) -> str:
    return f"{repository}{'@' if _is_digest(reference) else ':'}{reference}"


def _cause(error: BaseException) -> str:
    """The innermost reason of a nest of exceptions, which is the one that says something."""
    found = _innermost(error)
    return str(found) or type(found).__name__


def _innermost(error: BaseException) -> BaseException:
    inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
    return _innermost(inner) if isinstance(inner, BaseException) else error
