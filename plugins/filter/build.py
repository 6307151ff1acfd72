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
from typing import Any

Service = Mapping[str, Any]
# A locked requirement that no environment marker may leave out
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*\\?$", re.MULTILINE)
HINTS = {"wheelhouse.requirements": "; write it with pip-compile --generate-hashes"}
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


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
    return errors


def lacking_wheels(services: Iterable[Service], source: str) -> list[Service]:
    """Those of the services whose wheels have to be downloaded: one is missing, or not of this lock or Python."""
    return [service for service in services if not _complete(service, Path(source) / service["build"]["context"])]


def _complete(service: Service, context: Path) -> bool:
    wanted = service["build"]["wheelhouse"]
    lock = (context / wanted["requirements"]).read_text()
    hashes = set(HASH.findall(lock))
    wheels = list((context / "wheelhouse").glob("*.whl"))
    named = {(_canonical(name), version) for name, version in (wheel.name.split("-")[:2] for wheel in wheels)}
    return (
        {(_canonical(name), version) for name, version in REQUIREMENT.findall(lock)} <= named
        and all(hashlib.sha256(wheel.read_bytes()).hexdigest() in hashes for wheel in wheels)
        and all(_runs_on(wheel.name, wanted["python"]) for wheel in wheels)
    )


def checkout(source: str) -> str:
    """`folder | checkout`: a short name for this controller's folder that no other one has, the same each time."""
    return hashlib.sha256(f"{socket.gethostname()}:{source}".encode()).hexdigest()[:12]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _runs_on(wheel: str, python: str) -> bool:
    interpreter, abi = wheel.removesuffix(".whl").split("-")[-3:-1]
    return not interpreter.startswith("cp") or abi == "abi3" or interpreter == f"cp{python.replace('.', '')}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"checkout": checkout, "lacking_wheels": lacking_wheels, "source_errors": source_errors}
