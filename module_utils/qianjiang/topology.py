# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an inventory is a platform: each host in one datacenter, each datacenter with what it needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# The groups that say what a host does
FUNCTIONS = ("nodes", "registries", "gateways", "builders")
# What is asked of a host's variables
HOST_KEYS = ("datacenter", "ansible_host", "ansible_port")
# In each datacenter, and what for
NEEDED = {
    "registries": "its nodes pull from it",
    "gateways": "its lock and its records are there, too; the registry's host can be one",
}
_REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", re.IGNORECASE)


def topology_errors(
    groups: Mapping[str, Sequence[str]],
    hosts: Mapping[str, Mapping[str, Any]],
    registries: Any,
    origin: Any,
) -> list[str]:
    """All that is wrong, each with what was found, what is allowed and what to do.

    `groups` maps a group to its hosts, `hosts` a host to its variables `datacenter`, `ansible_host` and `ansible_port`
    where it has them, `registries` a datacenter to `host:port`; `origin` is one of those.
    """
    if not isinstance(registries, Mapping) or not registries:
        return [f"datacenter_registries: expected a mapping of each datacenter to host:port, got {_shown(registries)}"]
    errors = [
        f"datacenter_registries.{name}: expected host:port, got {_shown(registry)}"
        for name, registry in registries.items()
        if not (isinstance(registry, str) and _REGISTRY.fullmatch(registry))
    ]
    # A list: what is no text cannot be looked up in a mapping
    names = list(registries)
    if origin not in names:
        errors.append(f"origin_datacenter: expected one of {', '.join(names)}, got {_shown(origin)}")
    datacenter_of = {host: variables.get("datacenter") for host, variables in hosts.items()}
    for host, datacenter in datacenter_of.items():
        errors += _host_errors(host, datacenter, groups, names)
    errors += _address_errors(hosts)
    if not groups.get("nodes"):
        errors.append("hosts.yml: nodes: expected the hosts that run services, got none")
    for function, reason in NEEDED.items():
        there = [datacenter_of.get(host) for host in groups.get(function, [])]
        errors += [
            f"hosts.yml: {function}: expected a host of {name}, got none; {reason}"
            for name in names
            if name not in there
        ]
    return errors


def _host_errors(
    host: str, datacenter: Any, groups: Mapping[str, Sequence[str]], datacenters: Sequence[str]
) -> list[str]:
    """A host is in the group of one datacenter; where groups have other names, the variable alone says which."""
    named = [name for name in datacenters if host in groups.get(name, [])]
    if len(named) > 1:
        return [
            f"hosts.yml: {host}: expected in one datacenter's group, got {', '.join(named)}; take it out of the others"
        ]
    if datacenter not in datacenters:
        return [
            f"{host}: datacenter: expected one of {', '.join(datacenters)}, got {_shown(datacenter)}; put the host "
            "into its datacenter's group, or the datacenter into datacenter_registries"
        ]
    if named and named != [datacenter]:
        return [f"{host}: datacenter: expected {named[0]}, the group it is in, got {_shown(datacenter)}"]
    if host not in groups.get("datacenters", []):
        return [f"hosts.yml: {host}: expected in a child group of datacenters, got none; nodes.yml would leave it out"]
    return []


def _address_errors(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Two names of one machine would be rolled out side by side. In two datacenters private addresses may be alike."""
    known: dict[str, str] = {}
    errors = []
    for host, variables in hosts.items():
        address = variables.get("ansible_host", host)
        where = str((variables.get("datacenter"), address, variables.get("ansible_port")))
        other = known.setdefault(where, host)
        if other != host:
            errors.append(f"hosts.yml: {host}: ansible_host: expected an address of its own, got {other}'s, {address}")
    return errors


def _shown(value: Any) -> str:
    return "nothing" if value is None else f'"{value}"'
