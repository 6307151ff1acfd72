# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters on the catalogue: what a datacenter's gateway forwards, and what normalising it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.qianjiang.catalogue import CatalogueError, normalise
from ansible.module_utils.qianjiang.hostvars import Groups, members, told
from ansible.module_utils.qianjiang.topology import (
    BACKUP_CA,
    CERTIFICATE,
    FUNCTIONS,
    HOST_KEYS,
    LOGIN,
    PORTS,
    REGISTRY,
    SHARED,
    SSH,
    USERS,
    hosts_of,
    login_errors,
    port_errors,
    registry_errors,
    shared_errors,
    tls_errors,
    topology_errors,
)
from ansible.template import accept_lazy_markers

# of a service's health, what a gateway asks for
HEALTH = ("path", "ready_path", "interval", "timeout", "retries")


def nodes_by_datacenter(
    nodes: Iterable[str], hostvars: Mapping[str, Any], datacenters: Iterable[str]
) -> dict[str, list[str]]:
    """`groups.nodes | nodes_by_datacenter(hostvars, datacenter_registries)`: the nodes of each, in order."""
    found: dict[str, list[str]] = {name: [] for name in datacenters}
    for node in nodes:
        datacenter = hostvars[node].get("datacenter")
        if datacenter not in found:
            raise AnsibleFilterError(f'{node}: datacenter: expected one of {", ".join(found)}, got "{datacenter}"')
        found[datacenter].append(node)
    return found


@accept_lazy_markers  # type: ignore[untyped-decorator]
def inventory_errors(
    groups: Mapping[str, Any], hostvars: Any, shared: Mapping[str, Any], builds: bool = False
) -> list[str]:
    """`groups | inventory_errors(hostvars, shared)`: all that is wrong with it.

    `shared` has datacenter_registries, origin_datacenter and services. `builds`: whether services are to be built.
    """
    services = shared["services"] if builds and isinstance(shared["services"], Mapping) else {}
    built = [name for name, one in services.items() if isinstance(one, Mapping) and one.get("build") is not None]
    found = members(groups)
    hosts = _variables(found, hostvars, (*HOST_KEYS, *LOGIN, *REGISTRY, USERS))
    errors = topology_errors(found, hosts, shared["datacenter_registries"], shared["origin_datacenter"], built)
    return errors or [
        *shared_errors(_shared_variables(hosts, hostvars)),
        *login_errors(found, hosts),
        *registry_errors(found, hosts, shared["datacenter_registries"]),
    ]


def _shared_variables(hosts: Mapping[str, Mapping[str, Any]], hostvars: Any) -> dict[str, dict[str, Any]]:
    """What SHARED is on one host of each datacenter, and on those where it is written otherwise.

    Templates of a whole catalogue take time on each host. Hooks are as they are written: what they send may be of a
    rollout, which there is none of yet.
    """
    written = {host: [hostvars.raw_get(host).get(name) for name in SHARED] for host in hosts}
    first = next(iter(hosts))
    of_datacenter = {str(variables.get("datacenter")): host for host, variables in reversed(list(hosts.items()))}
    looked = [host for host in hosts if host in of_datacenter.values() or written[host] != written[first]]
    return {
        host: {name: hostvars[host].get(name) for name in SHARED} | {"hooks": hostvars.raw_get(host).get("hooks")}
        for host in looked
    }


def _variables(groups: Groups, hostvars: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {host: told(hostvars[host], names) for host in hosts_of(groups, FUNCTIONS)}


def normalised_services(services: Any, datacenters: Mapping[str, list[str]]) -> dict[str, Any]:
    """`services | normalised_services(nodes of each datacenter)`: every key of every service, or all errors at once."""
    try:
        return dict(normalise(services, datacenters))
    except CatalogueError as error:
        raise AnsibleFilterError(error.summary) from error


def catalogue_errors(
    services: Any, datacenters: Mapping[str, list[str]], groups: Mapping[str, Any], hostvars: Mapping[str, Any]
) -> list[str]:
    """`services | catalogue_errors(nodes by datacenter, groups, hostvars)`: all that is wrong, each by its path."""
    try:
        normal = normalise(services, datacenters)
    except CatalogueError as error:
        return list(error.errors)
    ports = [variable for variables in PORTS.values() for variable in variables]
    found = members(groups)
    hosts = _variables(found, hostvars, ("datacenter", CERTIFICATE, BACKUP_CA, *SSH, *ports))
    return [*port_errors(normal, found, hosts), *tls_errors(normal, found, hosts)]


def gateway_backends(
    services: Mapping[str, Any],
    datacenter: str,
    nodes: Mapping[str, str],
    gateways: Mapping[str, Iterable[str]] | None = None,
) -> list[dict[str, Any]]:
    """`services | gateway_backends(datacenter, {node: address})`: what is forwarded there, a server for each slot.

    With the addresses of each datacenter's gateways, those of the others where the service is placed are its backups.
    """
    backends: list[dict[str, Any]] = []
    for name, service in sorted(services.items()):
        if "placement" not in service:
            raise AnsibleFilterError(f"{name} lacks placement: pass the catalogue as normalised_services gives it")
        if not service["gateway"] or datacenter not in service["placement"]["datacenters"]:
            continue
        servers = [
            {
                "name": f"{node}.{replica}.{slot}",
                "address": address,
                "port": service["slots_port"] + 2 * replica + offset,
            }
            for node, address in sorted(nodes.items())
            for replica in range(service["replicas"])
            for offset, slot in enumerate("ab")
        ]
        backends.append(
            {
                "name": name,
                "port": service["gateway"]["port"],
                "health": {key: service["health"][key] for key in HEALTH},
                "drain_timeout": service["update"]["drain_timeout"],
                "servers": servers,
            }
        )
        if gateways is not None:
            others = (name for name in service["placement"]["datacenters"] if name != datacenter)
            backends[-1]["backups"] = [
                {"name": f"{other}.{number}" if number > 1 else other, "address": address}
                for other in others
                for number, address in enumerate(gateways.get(other, []), start=1)
            ]
    return backends


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "catalogue_errors": catalogue_errors,
            "gateway_backends": gateway_backends,
            "inventory_errors": inventory_errors,
            "nodes_by_datacenter": nodes_by_datacenter,
            "normalised_services": normalised_services,
        }
