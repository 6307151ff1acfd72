# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an inventory is a platform: each host in one datacenter, each datacenter with what it needs, one catalogue
for all of them, and ports that nothing else on the host has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.qianjiang.catalogue_rules import slots
from ansible.module_utils.qianjiang.image_reference import is_registry

# The groups that say what a host does
FUNCTIONS = ("nodes", "registries", "gateways", "builders")
# What is asked of a host's variables
HOST_KEYS = ("datacenter", "ansible_host", "ansible_port")
# What is one for the whole platform, whichever host it is asked of
SHARED = ("datacenter_registries", "origin_datacenter", "services", "datacenters", "hooks", "rollout_lock_ttl")
# bcrypt reads no more of a password
LONGEST_PASSWORD = 72
# What a host has to know to use a registry
LOGIN = ("registry_username", "registry_password")
USERS = "registry_users"
# What a registry's host has beside them: where it listens, its certificate, and the names in the platform's one
REGISTRY = ("registry_port", "registry_certificate", "certificate_authority_server_names")
# Where Docker looks for a registry without a port
HTTPS_PORT = 443
# With it a gateway speaks TLS
CERTIFICATE = "gateway_certificate"
# What it verifies the other datacenters' gateways with then
BACKUP_CA = "gateway_backup_ca"
# Variables that move a port, and the port where they are not set
PORTS = {
    "registries": {"registry_port": 5000, "registry_debug_port": 5001},
    "gateways": {"gateway_stats_port": 8404},
}
# Where the controller finds SSH; with the second, other hosts come another way, past what forwards that port
SSH = ("ansible_port", "node_address")
SSH_PORT = 22
# In each datacenter, and what for
NEEDED = {
    "registries": "its nodes pull from it",
    "gateways": "its lock and its records are there, too; the registry's host can be one",
}


def hosts_of(groups: Mapping[str, Sequence[str]], functions: Iterable[str]) -> list[str]:
    """The hosts of these groups, each once."""
    return list(dict.fromkeys(host for name in functions for host in groups.get(name, [])))


def topology_errors(
    groups: Mapping[str, Sequence[str]],
    hosts: Mapping[str, Mapping[str, Any]],
    registries: Any,
    origin: Any,
    builds: Sequence[str] = (),
) -> list[str]:
    """All that is wrong, each with what was found, what is allowed and what to do.

    `groups` maps a group to its hosts, `hosts` a host to its variables `datacenter`, `ansible_host` and `ansible_port`
    where it has them, `registries` a datacenter to `host:port`; `origin` is one of those. `builds`: the services that
    are built.
    """
    if not isinstance(registries, Mapping) or not registries:
        return [f"datacenter_registries: expected a mapping of each datacenter to host:port, got {_shown(registries)}"]
    errors = [
        f"datacenter_registries.{name}: expected host:port, got {_shown(registry)}"
        for name, registry in registries.items()
        if not is_registry(registry)
    ]
    errors += [
        f"datacenter_registries.{name}: expected a registry of its own, got that of {other}, {registry}"
        for name, registry in registries.items()
        if (other := next(one for one in registries if registries[one] == registry)) != name
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
    if builds and not groups.get("builders"):
        errors.append(f"hosts.yml: builders: expected a host that builds {', '.join(builds)}, got none")
    for name in names:
        there = [host for host in groups.get("registries", []) if datacenter_of[host] == name]
        errors += [
            f"hosts.yml: registries: expected one host of {name}, got {there[0]} and {host}; only the first is filled"
            for host in there[1:]
        ]
    for function, reason in NEEDED.items():
        places = [datacenter_of.get(host) for host in groups.get(function, [])]
        errors += [
            f"hosts.yml: {function}: expected a host of {name}, got none; {reason}"
            for name in names
            if name not in places
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


def shared_errors(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is one for the whole platform, and another one on some host. Of a mapping the keys are named, no value.

    `hosts` maps a host to its variables of SHARED.
    """
    first = next(iter(hosts), "")
    found: dict[tuple[str, ...], list[str]] = {}
    for host, variables in hosts.items():
        paths = [path for name in SHARED for path in _differing(name, hosts[first].get(name), variables.get(name))]
        if paths:
            found.setdefault(tuple(paths), []).append(host)
    return [
        f"{', '.join(paths)}: expected one for all hosts, got another one on {', '.join(there)} than on {first}; "
        "say it in group_vars/all"
        for paths, there in found.items()
    ]


def _differing(path: str, one: Any, other: Any) -> list[str]:
    """The paths at which two mappings differ, each as deep as both are mappings."""
    if one == other:
        return []
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return [path]
    keys = dict.fromkeys([*one, *other])
    return [found for key in keys for found in _differing(f"{path}.{key}", one.get(key), other.get(key))]


def login_errors(groups: Mapping[str, Sequence[str]], hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Whether each host that uses a registry has an account, and each registry knows it. No password is told."""
    users = hosts_of(groups, ("nodes", "registries", "builders"))
    errors = []
    for key in LOGIN:
        without = [host for host in users if hosts[host].get(key) is None or not str(hosts[host][key]).strip()]
        others = [host for host in users if host not in without and not isinstance(hosts[host][key], str)]
        if without:
            hint = (
                "is its vault there, with a value for it?" if key == "registry_password" else "set it in group_vars/all"
            )
            errors.append(f"{key}: expected a text, got nothing on {', '.join(without)}; {hint}")
        if others:
            errors.append(f"{key}: expected a text, got something else on {', '.join(others)}; quote it")
    long = [host for host in users if len(str(hosts[host].get("registry_password", "")).encode()) > LONGEST_PASSWORD]
    if long:
        errors.append(f"registry_password: expected at most {LONGEST_PASSWORD} bytes, got more on {', '.join(long)}")
    if errors:
        return errors
    for host in groups.get("registries", []):
        accounts = hosts[host].get(USERS)
        known = [one for one in accounts if isinstance(one, Mapping)] if isinstance(accounts, list) else []
        name, password = (hosts[host][key] for key in LOGIN)
        if not any((one.get("name"), one.get("password")) == (name, password) for one in known):
            errors.append(
                f"{host}: {USERS}: expected an entry with registry_username ({name}) and registry_password among them, "
                "got none; playbooks push and pull as this account"
            )
    return errors


def registry_errors(
    groups: Mapping[str, Sequence[str]], hosts: Mapping[str, Mapping[str, Any]], registries: Mapping[str, str]
) -> list[str]:
    """Whether each registry listens where the others ask it, and its certificate has the name they ask for.

    A port that the inventory says is believed: what forwards to it is not looked at.

    `hosts` maps a host to its variables `datacenter` and REGISTRY, `registries` a datacenter to `host[:port]`.
    """
    errors = []
    for host in groups.get("registries", []):
        datacenter = str(hosts[host].get("datacenter"))
        name, _, port = registries[datacenter].partition(":")
        listens, certificate, names = (hosts[host].get(key) for key in REGISTRY)
        expected = PORTS["registries"]["registry_port"]
        if listens is None and int(port or HTTPS_PORT) != expected:
            errors.append(
                f"datacenter_registries.{datacenter}: expected port {expected}, where {host} listens without "
                f'registry_port, got "{registries[datacenter]}"; set registry_port, to {expected} if something '
                "forwards to it"
            )
        # One that depends on the host's facts cannot be told yet
        known = [str(one).lower() for one in names] if isinstance(names, Sequence) and None not in names else []
        fitting = (name.lower(), f"*.{name.lower().partition('.')[2]}")
        if known and not certificate and not any(one in fitting for one in known):
            errors.append(
                f"{host}: certificate_authority_server_names: expected {name} among them, the registry's name in "
                f"datacenter_registries, got {', '.join(known)}; everybody would refuse its certificate"
            )
    return errors


def tls_errors(
    services: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    hosts: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Gateways forward to each other as they are asked themselves, with TLS or without. `services`: normalised."""
    found: dict[tuple[str, ...], list[str]] = {}
    unverified: dict[str, None] = {}
    for name, service in services.items():
        if service["gateway"]:
            places = service["placement"]["datacenters"]
            gateways = [host for host in groups.get("gateways", []) if hosts[host].get("datacenter") in places]
            without = tuple(host for host in gateways if not hosts[host].get(CERTIFICATE))
            if 0 < len(without) < len(gateways):
                found.setdefault(without, []).append(name)
            elif not without and len(places) > 1:
                unverified |= dict.fromkeys(host for host in gateways if not hosts[host].get(BACKUP_CA))
    errors = [
        f"{CERTIFICATE}: expected on all gateways that forward {', '.join(names)} or on none, got nothing on "
        f"{', '.join(without)}; they forward to each other, so set it in group_vars/gateways.yml"
        for without, names in found.items()
    ]
    if unverified:
        errors.append(
            f"{BACKUP_CA}: expected the path of a CA's certificate on gateways that speak TLS, got nothing on "
            f"{', '.join(unverified)}; they verify each other with it"
        )
    return errors


def port_errors(
    services: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    hosts: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Ports of services that something else of the platform has on the same host. `services`: normalised."""
    found: dict[str, str] = {}
    for host in hosts_of(groups, ("nodes", "gateways")):
        taken = {
            _port(hosts[host].get(variable), port): variable
            for function, variables in PORTS.items()
            if host in groups.get(function, [])
            for variable, port in variables.items()
        } | {_ssh_port(hosts[host]): "SSH"}
        for path, ports in _ports_on(host, services, groups, hosts[host].get("datacenter")):
            for port in ports:
                if port in taken:
                    found.setdefault(
                        path,
                        f"{path}: expected a port that is free on {host}, got {port}, which {taken[port]} has there",
                    )
                taken[port] = path
    return list(found.values())


def _ssh_port(variables: Mapping[str, Any]) -> int:
    port, other_way = (variables.get(name) for name in SSH)
    return SSH_PORT if other_way else _port(port, SSH_PORT)


def _port(value: Any, default: int) -> int:
    """What is none is for its role, or for ssh, to tell."""
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else default


def _ports_on(
    host: str, services: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], datacenter: Any
) -> Iterator[tuple[str, range]]:
    for name, service in services.items():
        if datacenter in service["placement"]["datacenters"]:
            if host in groups.get("gateways", []) and service["gateway"]:
                yield f"services.{name}.gateway.port", range(service["gateway"]["port"], service["gateway"]["port"] + 1)
            if host in groups.get("nodes", []):
                first, last = slots(service)
                yield f"services.{name}.slots_port", range(first, last + 1)


def _shown(value: Any) -> str:
    return "nothing" if value is None else f'"{value}"'
