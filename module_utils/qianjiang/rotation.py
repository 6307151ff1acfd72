# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which container of a replica serves: what the node recorded, corrected by what the gateways do. Pure.

A node records who serves at the end of a rollout. A rollout that died between a switch and that record leaves the
gateways right and the record old. So where every gateway of the datacenter forwards to one and the same slot, the
proven container in it is the one that serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.module_utils.qianjiang.container import SLOTS

# Stands for a digest that only a build will bring
UNKNOWN = "(not known yet)"
# A backend is named as its service; the one with the other datacenters' gateways has this after it
ELSEWHERE = ".elsewhere"
# What one gateway says: backend → server → {"admin", "serves", …}, as gateway_inspect returns it
Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]


def is_healthy(replica: Mapping[str, Any]) -> bool:
    """It runs, and its container's check, where it has one, says healthy."""
    current = replica["current"]
    return bool(current and current["running"] and current["health"] in ("healthy", "none", None, ""))


def server_name(node: str, replica: int, slot: str) -> str:
    """The name of a slot's server in a gateway: `<node>.<replica>.<slot>`."""
    return f"{node}.{replica}.{slot}"


def serving_servers(service: str, gateways: Iterable[Tables]) -> set[str]:
    """The servers of a service that get new requests from any of the gateways."""
    return {server for tables in gateways for server, seen in tables.get(service, {}).items() if seen["serves"]}


def other_slot(slot: str) -> str:
    """The other one of the two slots of a replica."""
    return str(SLOTS[1 - SLOTS.index(slot)])


def serving_slot(service: str, node: str, replica: int, gateways: Sequence[Tables]) -> str | None:
    """The one slot that every gateway forwards to; None where they know no such server, differ, or forward to both."""
    found: list[list[str]] = []
    for tables in gateways:
        servers = tables.get(service, {})
        found.append([slot for slot in SLOTS if servers.get(server_name(node, replica, slot), {}).get("serves")])
    if found and all(slots == found[0] for slots in found) and len(found[0]) == 1:
        return found[0][0]
    return None


def admitted_slots(service: str, node: str, replica: int, gateways: Sequence[Tables]) -> list[str] | None:
    """The slots that at least one gateway may send requests to; None where no gateway says anything."""
    if not gateways:
        return None
    states = [tables.get(service, {}) for tables in gateways]
    return [
        slot
        for slot in SLOTS
        if any(servers.get(server_name(node, replica, slot), {}).get("admin") == "ready" for servers in states)
    ]


def is_drained(service: str, node: str, replica: int, gateways: Sequence[Tables]) -> bool | None:
    """Whether an operator took the replica out of rotation: a switch lets one slot in before it drains the other.

    None where no gateway knows it.
    """
    states = [
        tables[service][server_name(node, replica, slot)]["admin"]
        for tables in gateways
        for slot in SLOTS
        if server_name(node, replica, slot) in tables.get(service, {})
    ]
    return all(state != "ready" for state in states) if states else None


def drained_replicas(
    services: Mapping[str, Mapping[str, Any]], node: str, gateways: Sequence[Tables]
) -> dict[tuple[str, int], bool]:
    """Service and replica → whether an operator took it out of rotation, for all of a node.

    A replica that has never served is out of rotation too. It is drained only where all the node's others are.
    """
    replicas = {
        (name, int(replica["replica"])): replica
        for name, service in services.items()
        for replica in service["replicas"]
    }
    found = {(name, number): is_drained(name, node, number, gateways) for name, number in replicas}
    serving = [found[key] for key, replica in replicas.items() if replica["current"] and found[key] is not None]
    others = bool(serving) and all(serving)
    return {key: bool(found[key]) if replica["current"] else others for key, replica in replicas.items()}


def judge_replica(replica: Mapping[str, Any], slot: str | None, drained: bool, digest: str | None) -> dict[str, Any]:
    """A replica as service_compare returned it, seen with the gateways' eyes and with the digest that it shall run."""
    judged = dict(replica) | {"drained": drained}
    current = replica["current"]
    if slot and (current is None or current["slot"] != slot):
        serving = next((item for item in replica["extra"] if item["slot"] == slot and item["proven"]), None)
        if serving:
            passed = [current | {"proven": True, "differences": replica["differences"]}] if current else []
            judged |= {
                "current": {key: value for key, value in serving.items() if key not in ("proven", "differences")},
                "differences": serving["differences"],
                "extra": passed + [item for item in replica["extra"] if item is not serving],
                "free_slot": other_slot(slot),
            }
    now = judged["current"]
    before = now["digest"] if now else None
    if now is None or (digest is not None and before != digest):
        image = {"name": "image", "before": before, "after": digest or UNKNOWN}
        judged["differences"] = sorted([*judged["differences"], image], key=lambda item: str(item["name"]))
    return judged


def judge(
    comparisons: Mapping[str, Mapping[str, Any]],
    datacenters: Mapping[str, Mapping[str, Any]],
    gateways: Mapping[str, Iterable[Tables]],
    digests: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """The comparisons of all nodes, each replica judged.

    `datacenters` maps a name to `{"nodes"}`; `gateways` maps it to what its gateways said; `digests` maps a service to
    the digest it shall run, and lacks one that is not known.
    """
    judged = {}
    for datacenter, place in datacenters.items():
        tables = list(gateways.get(datacenter, []))
        for node in place["nodes"]:
            if node not in comparisons:
                continue
            services = {}
            drained = drained_replicas(comparisons[node]["services"], node, tables)
            for name, service in comparisons[node]["services"].items():
                replicas = [
                    judge_replica(
                        replica,
                        serving_slot(name, node, replica["replica"], tables),
                        drained[name, replica["replica"]],
                        digests.get(name),
                    )
                    | {"admitted": admitted_slots(name, node, replica["replica"], tables)}
                    for replica in service["replicas"]
                ]
                services[name] = dict(service) | {"replicas": replicas}
            judged[node] = dict(comparisons[node]) | {"services": services}
    return judged
