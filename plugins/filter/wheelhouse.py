# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the wheels that lie beside a service's Dockerfile are the ones that its lock file names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

Service = Mapping[str, Any]
# A locked requirement that no environment marker may leave out
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*\\?$", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def lacking_wheels(services: Iterable[Service], source: str) -> list[Service]:
    """Those of the services whose wheels have to be downloaded: one is missing, or not of this lock or Python."""
    return [service for service in services if not _complete(service, Path(source) / service["build"]["context"])]


def _complete(service: Service, context: Path) -> bool:
    wanted = service["build"]["wheelhouse"]
    try:
        lock = (context / wanted["requirements"]).read_text()
    except OSError as error:
        raise AnsibleFilterError(
            f"services.{service['name']}.build.wheelhouse.requirements: expected a file in {context}, got "
            f'"{wanted["requirements"]}" ({error.strerror}); write it with pip-compile --generate-hashes'
        ) from None
    hashes = set(HASH.findall(lock))
    wheels = list((context / "wheelhouse").glob("*.whl"))
    named = {(_canonical(name), version) for name, version in (wheel.name.split("-")[:2] for wheel in wheels)}
    return (
        {(_canonical(name), version) for name, version in REQUIREMENT.findall(lock)} <= named
        and all(hashlib.sha256(wheel.read_bytes()).hexdigest() in hashes for wheel in wheels)
        and all(_runs_on(wheel.name, wanted["python"]) for wheel in wheels)
    )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _runs_on(wheel: str, python: str) -> bool:
    interpreter, abi = wheel.removesuffix(".whl").split("-")[-3:-1]
    return not interpreter.startswith("cp") or abi == "abi3" or interpreter == f"cp{python.replace('.', '')}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"lacking_wheels": lacking_wheels}
