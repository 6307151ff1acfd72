# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of services: `normalise` fills in every key, or says everything that is wrong.

The keys are in catalogue_schema.py, the rules between them in catalogue_rules.py. Every mistake is found in one pass
and named by the path of its variable; what only follows from another mistake is not reported beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from ansible.module_utils.qianjiang.catalogue_rules import (
    RULES,
    Nodes,
    dependency_errors,
    port_errors,
    repository_errors,
)
from ansible.module_utils.qianjiang.catalogue_schema import ENTRY, IMAGE, SERVICE_NAME, Derived, Service
from ansible.module_utils.qianjiang.value_kinds import Report


class CatalogueError(ValueError):
    """Everything that is wrong in a catalogue, one line each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors

    @property
    def summary(self) -> str:
        """How many, then each."""
        return f"{len(self.errors)} error{'s' if len(self.errors) > 1 else ''} in the catalogue:\n{self}"


def _fill(entry: dict[str, Any], name: str, nodes: Nodes) -> Service:
    """Put in the defaults that depend on the rest of the entry."""
    image = entry["image"] if isinstance(entry["image"], str) else ""
    match = re.fullmatch(IMAGE, image)
    derived = {
        "name": name,
        "repository": match[1] if match else name,
        "build.context": f"services/{name}",
        "placement.datacenters": [datacenter for datacenter in nodes if nodes[datacenter]],
    }
    for path, value in derived.items():
        head, _, last = path.rpartition(".")
        section = entry[head] if head else entry
        if isinstance(section, dict) and isinstance(section.get(last), Derived):
            section[last] = value
    return cast(Service, entry)


def normalise(services: Mapping[str, Any], datacenters: Mapping[str, list[str]]) -> dict[str, Service]:
    """Every service with every key, or a CatalogueError with all that is wrong. `datacenters`: the nodes of each."""
    report = Report()
    if not isinstance(services, Mapping):
        report.unfit("services", "a mapping of service names to their keys", services, "write {} for none")
        raise CatalogueError(report.errors)
    normal: dict[str, Service] = {}
    for name, entry in services.items():
        SERVICE_NAME.read(name, f"services.{name}", report)
        read = ENTRY.read(entry, f"services.{name}", report)
        if isinstance(entry, Mapping) and isinstance(name, str):
            normal[name] = _fill(read, name, datacenters)
    for name, service in normal.items():
        where = f"services.{name}"
        if service["name"] != name and report.sound(f"{where}.name"):
            report.unfit(f"{where}.name", f'"{name}", the key of the entry', service["name"], "remove it")
        for keys, find in RULES:
            if all(report.sound(f"{where}.{key}") for key in keys):
                for path, text in find(service, datacenters):
                    report.say(f"{where}.{path}" if path else where, text)
    repository_errors(normal, report)
    port_errors(normal, report)
    dependency_errors(normal, report)
    if report.errors:
        raise CatalogueError(report.errors)
    return normal
