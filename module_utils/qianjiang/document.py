# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform document: what the WebUI shows, as every node gets it. Pure.

It names datacenters, nodes, services and, from the last look at the nodes, which replica runs what. It holds no
configuration, and so no secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def platform_document(
    services: Mapping[str, Mapping[str, Any]],
    datacenters: Mapping[str, Mapping[str, Any]],
    comparisons: Mapping[str, Mapping[str, Any]],
    gateways: Mapping[str, Mapping[str, Any]],
    origin: str,
    *,
    environment: str,
) -> dict[str, Any]:
    """Describe the platform.

    `datacenters` maps a name, in order, to `{"nodes": {name: address}}`; `comparisons` maps a node to service_compare's
    result; `environment` is the inventory's name; `gateways` maps a datacenter to `{"url", "statistics"}`, where
    browsers find it, without port and path, and a list of where each gateway's statistics are, without path.
    """
    replicas = [
        {
            "service": name,
            "datacenter": datacenter,
            "node": node,
            "replica": replica["replica"],
            **{key: replica["current"][key] for key in ("slot", "release", "digest", "container")},
        }
        for datacenter, place in datacenters.items()
        for node in place["nodes"]
        if node in comparisons
        for name, found in sorted(comparisons[node]["services"].items())
        for replica in found["replicas"]
        if replica["current"]
    ]
    return {
        "environment": environment,
        "origin": origin,
        "datacenters": [
            {
                "name": name,
                "gateway": gateways[name]["url"],
                # For releases of the WebUI that ask one gateway; the next key is for those that know of several
                "stats": f"{gateways[name]['statistics'][0]}/;csv",
                "statistics": [f"{address}/;csv" for address in gateways[name]["statistics"]],
                "nodes": [{"name": node, "address": address} for node, address in place["nodes"].items()],
            }
            for name, place in datacenters.items()
            if name in gateways
        ],
        "services": [
            {
                "name": name,
                "port": service["gateway"]["port"] if service["gateway"] else None,
                "repository": service["repository"],
                "datacenters": service["placement"]["datacenters"],
                "replicas": service["replicas"],
                **_newest(replicas, name),
            }
            for name, service in services.items()
        ],
        "replicas": replicas,
    }


def _newest(replicas: list[dict[str, Any]], service: str) -> dict[str, Any]:
    """The highest release of a service that any replica runs."""
    mine = [replica for replica in replicas if replica["service"] == service]
    newest = max(mine, key=lambda replica: int(replica["release"]), default={"release": None, "digest": None})
    return {"release": newest["release"], "digest": newest["digest"]}
