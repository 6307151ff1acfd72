# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs what where, healthy or not, from what service_compare returned on each node. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from ansible.module_utils.qianjiang.plan import short
from ansible.module_utils.qianjiang.rotation import is_healthy


class Status(TypedDict):
    """`rows` fit `COLUMNS`; `behind` names each replica that is not on the release, and how; `notes` are orphans."""

    rows: list[list[str]]
    behind: list[str]
    notes: list[str]


COLUMNS = ["service", "datacenter", "release", "digest", "healthy", "url"]


def replica_behind(name: str, node: str, replica: Mapping[str, Any]) -> str | None:
    """Why a replica is not where the catalogue wants it, or None."""
    what = f"{node}: {name}.{replica['replica']}"
    current = replica["current"]
    if current is None:
        return f"{what}: nothing runs"
    if replica["differences"]:
        names = ", ".join(difference["name"] for difference in replica["differences"])
        return f"{what}: stays on r{current['release']} {short(current['digest'])}, differs in {names}"
    if not current["running"]:
        return f"{what}: r{current['release']} does not run"
    if not is_healthy(replica):
        return f"{what}: r{current['release']} is {current['health'] or 'unhealthy'}"
    return None


def drained_notes(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Who runs and gets no requests, node by node, from what `rotation.judge` says of them."""
    drained = {
        node: [
            f"{name}.{replica['replica']}"
            for name, service in found["services"].items()
            for replica in service["replicas"]
            if replica["current"] and replica.get("drained")
        ]
        for node, found in nodes.items()
    }
    return [
        f"{node}: {', '.join(names)} out of rotation until playbooks/undrain.yml -e target={node}"
        for node, names in drained.items()
        if names
    ]


def status(
    services: Mapping[str, Mapping[str, Any]],
    datacenters: Mapping[str, Mapping[str, Any]],
    comparisons: Mapping[str, Mapping[str, Any]],
    gateways: Mapping[str, Iterable[str]],
    *,
    asked: Iterable[str] | None = None,
    requested: Iterable[str] | None = None,
) -> Status:
    """A row for each service in each datacenter that it is placed in.

    `datacenters` maps a name, in order, to `{"nodes"}`; `comparisons` maps a node to service_compare's result;
    `gateways` maps a datacenter to the URLs of its gateways, of which the first is shown. A node that was `asked`
    (default: all) and has no comparison could not be reached: its replicas are not healthy. Of one that was not asked
    nothing is said. Only `requested` services (default: all) can be behind.
    """
    everyone = (node for place in datacenters.values() for node in place["nodes"])
    concerned = {*(everyone if asked is None else asked), *comparisons}
    requested = None if requested is None else list(requested)
    result: Status = {"rows": [], "behind": [], "notes": []}
    for name, service in services.items():
        for datacenter in (place for place in datacenters if place in service["placement"]["datacenters"]):
            nodes = [node for node in datacenters[datacenter]["nodes"] if node in concerned]
            if not nodes and datacenters[datacenter]["nodes"]:
                continue
            replicas = []
            for node in nodes:
                if node not in comparisons:
                    if requested is None or name in requested:
                        result["behind"].append(f"{node}: {name}: could not be reached")
                    continue
                found = comparisons[node]["services"][name]["replicas"]
                replicas += found
                if requested is None or name in requested:
                    result["behind"] += filter(None, (replica_behind(name, node, replica) for replica in found))
            serving = [replica["current"] for replica in replicas if replica["current"]]
            releases = sorted({current["release"] for current in serving})
            digests = sorted({short(current["digest"]) for current in serving})
            healthy = sum(is_healthy(replica) for replica in replicas)
            gateway = next(iter(gateways.get(datacenter, [])), None) if service["gateway"] else None
            result["rows"].append(
                [
                    name,
                    datacenter,
                    ", ".join(f"r{release}" for release in releases) or "-",
                    ", ".join(digests) or "-",
                    f"{healthy}/{service['replicas'] * len(nodes)}",
                    service_url(gateway, service["gateway"]["port"]) if gateway else "-",
                ]
            )
    for node, comparison in comparisons.items():
        result["notes"] += [
            f"orphan on {node}: {orphan['container']} (service {orphan['service']} is not in the catalogue there)"
            for orphan in comparison["orphans"]
        ]
    return result


def service_url(gateway: str, port: int) -> str:
    """What a browser takes: of a service at `gateway`, a URL without port and path."""
    is_default = port == (443 if gateway.startswith("https:") else 80)
    return f"{gateway}/" if is_default else f"{gateway}:{port}/"
