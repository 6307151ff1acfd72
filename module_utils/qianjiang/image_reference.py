# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and writing image references: `[registry/]repository[:tag][@digest]`."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_REGISTRY = re.compile(r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_HOST_PORT = re.compile(rf"{_LABEL}(\.{_LABEL})*(:(?P<port>[1-9][0-9]{{0,4}}))?", re.IGNORECASE)
_FORM = "expected [registry/]repository[:tag][@sha256:<64 hex digits>]"


class ImageReferenceError(ValueError):
    """A text that is no image reference; the message says which part, and what is allowed."""


@dataclasses.dataclass(frozen=True)
class ImageReference:
    """The parts of an image reference. `registry` is None where the text names none."""

    registry: str | None
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    @property
    def version(self) -> str | None:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag

    def at(self, registry: str) -> ImageReference:
        """The same image in another registry."""
        return dataclasses.replace(self, registry=registry)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def names_registry(first: str) -> bool:
    """Whether Docker takes the first part of a reference for a registry, and not for a repository of Docker Hub."""
    return first == "localhost" or any(mark in first for mark in ".:")


def is_registry(value: Any) -> bool:
    """Whether a value is `host[:port]`, and one that Docker takes for a registry."""
    found = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    return found is not None and names_registry(found[0]) and int(found["port"] or 1) <= 65535


def check_registry(option: str, value: str) -> None:
    """Refuse an option that is no registry: Docker Hub would get the login of the one that was meant."""
    if not is_registry(value):
        hint = "as Docker takes other names for repositories of Docker Hub"
        raise ImageReferenceError(f"{option}: expected host[:port] with a dot or a port in it, {hint}, got {value!r}")


def parse(text: str) -> ImageReference:
    """Take an image reference apart."""

    def reject(reason: str) -> ImageReferenceError:
        return ImageReferenceError(f"not an image reference: {text!r} ({reason})")

    if "://" in text:
        raise reject(f"leave out {text.split('://', 1)[0] + '://'!r}: a registry is host[:port]")
    rest, at, digest = text.partition("@")
    if at and not DIGEST.fullmatch(digest):
        raise reject(f"a digest is sha256:<64 hex digits>, got {digest!r}")
    registry = None
    first, slash, remainder = rest.partition("/")
    if slash and names_registry(first):
        if not _REGISTRY.fullmatch(first):
            raise reject(f"a registry is host[:port], got {first!r}")
        registry, rest = first, remainder
    repository, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise reject(f"a tag is at most 128 letters, digits, '_', '.', '-', got {tag!r}")
    if not _REPOSITORY.fullmatch(repository):
        raise reject(f"a repository is lower case: {repository!r}" if re.search("[A-Z]", repository) else _FORM)
    return ImageReference(registry, repository, tag or None, digest or None)
