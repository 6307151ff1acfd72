# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform document: what the platform wrote down about itself (desired state and the last record of releases)."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO


class DocumentError(Exception):
    """The document cannot be used; the message says where and why."""


@dataclass(frozen=True)
class Node:
    name: str
    address: str | None


@dataclass(frozen=True)
class Datacenter:
    name: str
    gateway: str | None
    statistics: tuple[str, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Service:
    name: str
    port: int | None
    repository: str | None
    datacenters: tuple[str, ...]
    release: int | None
    digest: str | None
    replicas: int


@dataclass(frozen=True)
class Replica:
    service: str
    datacenter: str
    node: str
    replica: int
    slot: str | None
    release: int | None
    digest: str | None
    container: str | None


@dataclass(frozen=True)
class Document:
    environment: str | None
    origin: str | None
    datacenters: tuple[Datacenter, ...]
    services: tuple[Service, ...]
    replicas: tuple[Replica, ...]


class _Entry:
    """An object of the document, with its path for messages. Unknown keys are left alone: the platform may be newer."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise DocumentError(f"{path or 'the document'}: expected an object, got {_shown(value)}")
        self._value: dict[str, Any] = value
        self._path = path

    def text(self, key: str) -> str:
        value = self.optional_text(key)
        if not value:
            raise DocumentError(f"{self._at(key)}: expected text, got {_shown(self._value.get(key))}")
        return value

    def optional_text(self, key: str) -> str | None:
        value = self._value.get(key)
        if value is not None and not isinstance(value, str):
            raise DocumentError(f"{self._at(key)}: expected text, got {_shown(value)}")
        return value

    def number(self, key: str) -> int:
        value = self.optional_number(key)
        if value is None:
            raise DocumentError(f"{self._at(key)}: expected a whole number, got nothing")
        return value

    def optional_number(self, key: str) -> int | None:
        value = self._value.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise DocumentError(f"{self._at(key)}: expected a whole number, got {_shown(value)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._list(key)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise DocumentError(f"{self._at(key)}[{index}]: expected text, got {_shown(value)}")
        return tuple(values)

    def entries(self, key: str) -> list[_Entry]:
        return [_Entry(value, f"{self._at(key)}[{index}]") for index, value in enumerate(self._list(key))]

    def _list(self, key: str) -> list[Any]:
        value = self._value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise DocumentError(f"{self._at(key)}: expected a list, got {_shown(value)}")
        return value

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key


def parse_document(text: str | bytes) -> Document:
    """Check the document and give it its types."""
    try:
        entry = _Entry(json.loads(text), "")
    except ValueError as error:  # also text that is not UTF-8
        raise DocumentError(f"not JSON: {error}") from error
    return Document(
        environment=entry.optional_text("environment"),
        origin=entry.optional_text("origin"),
        datacenters=tuple(_datacenter(each) for each in entry.entries("datacenters")),
        services=tuple(_service(each) for each in entry.entries("services")),
        replicas=tuple(_replica(each) for each in entry.entries("replicas")),
    )


def _datacenter(entry: _Entry) -> Datacenter:
    return Datacenter(
        name=entry.text("name"),
        gateway=entry.optional_text("gateway"),
        statistics=_statistics(entry),
        nodes=tuple(Node(each.text("name"), each.optional_text("address")) for each in entry.entries("nodes")),
    )


def _statistics(entry: _Entry) -> tuple[str, ...]:
    """The addresses of the statistics of all gateways; documents of before there were several have that of one."""
    one = entry.optional_text("stats")
    return entry.texts("statistics") or ((one,) if one else ())


def _service(entry: _Entry) -> Service:
    return Service(
        name=entry.text("name"),
        port=entry.optional_number("port"),
        repository=entry.optional_text("repository"),
        datacenters=entry.texts("datacenters"),
        release=entry.optional_number("release"),
        digest=entry.optional_text("digest"),
        replicas=entry.number("replicas"),
    )


def _replica(entry: _Entry) -> Replica:
    return Replica(
        service=entry.text("service"),
        datacenter=entry.text("datacenter"),
        node=entry.text("node"),
        replica=entry.number("replica"),
        slot=entry.optional_text("slot"),
        release=entry.optional_number("release"),
        digest=entry.optional_text("digest"),
        container=entry.optional_text("container"),
    )


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


@dataclass(frozen=True)
class Reading:
    """What is known of the document now. With a problem, the document is the last good one, or None."""

    document: Document | None
    written_at: float | None
    problem: str | None


class PlatformFile:
    """The document on disk, parsed again only when the file changed. A bad version never replaces a good one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._reading = Reading(None, None, None)

    def read(self) -> Reading:
        """Never raises: whatever is wrong is in `problem`."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    self._refresh(file)
            except FileNotFoundError:
                self._lose(f"There is no platform document at {self._path}.")
            except OSError as error:
                self._lose(f"The platform document {self._path} cannot be read: {error.strerror}.")
            except DocumentError as error:
                self._keep(f"The platform document {self._path} cannot be used: {error}.")
            return self._reading

    def _refresh(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        version = (status.st_mtime_ns, status.st_ino, status.st_size)
        if version != self._version:
            self._version = version
            self._reading = Reading(parse_document(file.read()), status.st_mtime, None)

    def _lose(self, problem: str) -> None:
        self._version = None  # the same file may come back
        self._keep(problem)

    def _keep(self, problem: str) -> None:
        self._reading = Reading(self._reading.document, self._reading.written_at, problem)
