# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build needs on the controller: a folder with a Dockerfile, and the wheels that its lock file names."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

Service = Mapping[str, Any]
HINTS = {"wheelhouse.requirements": "; write it with pip-compile --generate-hashes"}
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
COMMENT = re.compile(r"(?:^|\s)#.*", re.MULTILINE)
# What markers are about, but for Python's version
IMAGE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}


class LockError(Exception):
    """A lock file that is none; the message has the line."""


class Locked(NamedTuple):
    """A line of a lock file, as pip is given it. One of options, such as --index-url, has no requirement."""

    text: str
    requirement: Requirement | None


def source_errors(services: Mapping[str, Service], source: str) -> list[str]:
    """`catalogue | source_errors(folder)`: what is to be built and is not there, each by its variable's path."""
    errors = []
    for name, service in services.items():
        build = service["build"]
        if build is None:
            continue
        context, path = Path(source) / build["context"], f"services.{name}.build"
        if not context.is_dir():
            errors.append(f'{path}.context: expected a folder in {source}, got "{build["context"]}"')
            continue
        files = {"dockerfile": build["dockerfile"]}
        if build["wheelhouse"]:
            files["wheelhouse.requirements"] = build["wheelhouse"]["requirements"]
        errors += [
            f'{path}.{key}: expected a file in {context}, got "{file}"{HINTS.get(key, "")}'
            for key, file in files.items()
            if not (context / file).is_file()
        ]
        if build["wheelhouse"] and (context / build["wheelhouse"]["requirements"]).is_file():
            try:
                _locked(service, context)
            except LockError as error:
                errors.append(f"{path}.wheelhouse.requirements: {error}{HINTS['wheelhouse.requirements']}")
    return errors


def lacking_wheels(services: Iterable[Service], source: str) -> list[Service]:
    """Those of the services whose wheels have to be downloaded: one is missing, or not of this lock or Python."""
    return [service for service in services if not _complete(service, Path(source) / service["build"]["context"])]


def wheel_requirements(service: Service, source: str) -> str:
    """`service | wheel_requirements(folder)`: what pip is to download, by the lock and for the image."""
    return "".join(f"{line.text}\n" for line in _locked(service, Path(source) / service["build"]["context"]))


def _complete(service: Service, context: Path) -> bool:
    locked = _locked(service, context)
    hashes = {found for line in locked for found in HASH.findall(line.text)}
    wheels = list((context / "wheelhouse").glob("*.whl"))
    if any(hashlib.sha256(wheel.read_bytes()).hexdigest() not in hashes for wheel in wheels):
        return False
    named = [parse_wheel_filename(wheel.name) for wheel in wheels]
    return all(_runs_on(tags, service["build"]["wheelhouse"]["python"]) for *_, tags in named) and all(
        any(
            canonicalize_name(wanted.name) == name and wanted.specifier.contains(version, prereleases=True)
            for name, version, *_ in named
        )
        for _, wanted in locked
        if wanted
    )


def _locked(service: Service, context: Path) -> list[Locked]:
    """The lines of the lock that hold for the image, without their markers: pip goes by the controller's Python."""
    wheelhouse = service["build"]["wheelhouse"]
    python = wheelhouse["python"]
    environment = IMAGE | {
        "implementation_version": python,
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
    }
    lock = context / wheelhouse["requirements"]
    lines = COMMENT.sub("", lock.read_text(encoding="utf-8-sig")).replace("\\\n", " ").splitlines()
    found = []
    for line in filter(None, map(str.strip, lines)):
        text, *options = re.split(r"\s+(?=--)", line)
        if text.startswith(("--", "-i ")):
            found.append(Locked(line, None))
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise LockError(f'expected locked requirements in {lock}, got "{text}"') from error
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            found.append(Locked(" ".join([str(requirement), *options]), requirement))
    return found


def checkout(source: str) -> str:
    """`folder | checkout`: a short name for this controller's folder that no other one has, the same each time."""
    return hashlib.sha256(f"{socket.gethostname()}:{source}".encode()).hexdigest()[:12]


def _runs_on(tags: Iterable[Tag], python: str) -> bool:
    ours = f"cp{''.join(python.split('.')[:2])}"
    return any(not tag.interpreter.startswith("cp") or tag.abi == "abi3" or tag.interpreter == ours for tag in tags)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "checkout": checkout,
            "lacking_wheels": lacking_wheels,
            "source_errors": source_errors,
            "wheel_requirements": wheel_requirements,
        }
