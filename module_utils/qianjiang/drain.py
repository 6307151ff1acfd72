# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers go out of rotation, or come back, when nodes are drained. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.qianjiang.container import SLOTS
from ansible.module_utils.qianjiang.rotation import (
    ELSEWHERE,
    Tables,
    is_drained,
    is_healthy,
    other_slot,
    server_name,
    serving_servers,
)
from ansible.module_utils.qianjiang.target import PlanError, Platform


def plan_drain(verb: str, nodes: Iterable[str], platform: Platform) -> dict[str, list[dict[str, Any]]]:
    """What gateway_switch does for each of `nodes`: of `drain` both slots go away, of `undrain` who serves comes back.

    Raises PlanError where no node of any datacenter would be left to serve a service, or a gateway none that it can
    reach, for a node that runs nothing or is not known, and where none is named.
    """
    wanted = list(nodes)
    unknown = [node for node in wanted if node not in platform.nodes]
    if not wanted or unknown:
        there = ", ".join(platform.nodes)
        raise PlanError(f"target: expected nodes or a datacenter ({there}), got {', '.join(unknown) or 'nothing'}")
    switches: dict[str, list[dict[str, Any]]] = {}
    for name, service in platform.services.items():
        if not service["gateway"]:
            continue
        serving = [node for node in platform.nodes if _serves(name, node, platform)]
        if verb == "drain" and serving and not set(serving) - set(wanted):
            raise PlanError(
                f"{name} is well and in rotation nowhere but on {', '.join(serving)}; nobody would be left to answer"
            )
        if verb == "drain":
            _assert_reached(name, serving, wanted, platform)
        for node in wanted:
            for replica in platform.nodes[node]["services"].get(name, {"replicas": []})["replicas"]:
                switch = _switch(verb, name, node, replica)
                if switch and _is_due(verb, name, node, replica, platform):
                    drain_timeout = service["update"]["drain_timeout"]
                    switches.setdefault(node, []).append(switch | {"drain_timeout": drain_timeout})
    return switches


def _assert_reached(name: str, serving: Iterable[str], wanted: Iterable[str], platform: Platform) -> None:
    """Where a datacenter has nobody left, each of its gateways reaches another one's."""
    gone = {*serving} & {*wanted}
    for place, found in platform.datacenters.items():
        if not gone & {*found["nodes"]} or {*serving} & {*found["nodes"]} - gone:
            continue
        told = f"{name} would be answered in {place} by other datacenters alone, and a gateway of {place}"
        for tables in platform.gateways.get(place, ()):
            elsewhere = tables.get(f"{name}{ELSEWHERE}")
            if elsewhere is None:
                raise PlanError(f"{told} does not know theirs yet: run playbooks/nodes.yml --tags gateway")
            if not any(server["serves"] for server in elsewhere.values()):
                raise PlanError(
                    f"{told} reaches none of their gateways (backend {name}{ELSEWHERE}): see the way there, and its "
                    "certificates"
                )


def _is_due(verb: str, name: str, node: str, replica: Mapping[str, Any], platform: Platform) -> bool:
    """A replica is drained when every gateway has it so, and is back when none has: a run may end between two."""
    if verb == "drain":
        return not replica.get("drained")
    return any(is_drained(name, node, int(replica["replica"]), [tables]) for tables in _gateways_of(node, platform))


def _gateways_of(node: str, platform: Platform) -> list[Tables]:
    """What those of its datacenter said. One that is silent said nothing."""
    places = (place for place, found in platform.datacenters.items() if node in found["nodes"])
    return [tables for place in places for tables in platform.gateways.get(place, ())]


def _serves(name: str, node: str, platform: Platform) -> bool:
    """Whether the engine holds one of its replicas for healthy, and a gateway sends it requests."""
    forwarded = serving_servers(name, _gateways_of(node, platform))
    return any(
        is_healthy(replica)
        and not replica["drained"]
        and any(server_name(node, int(replica["replica"]), slot) in forwarded for slot in SLOTS)
        for replica in platform.nodes[node]["services"].get(name, {"replicas": []})["replicas"]
    )


def _switch(verb: str, name: str, node: str, replica: Mapping[str, Any]) -> dict[str, Any] | None:
    number, current = int(replica["replica"]), replica["current"]
    if verb == "drain":
        return {"backend": name, "away": [server_name(node, number, slot) for slot in SLOTS]}
    if current is None:
        return None
    slot = str(current["slot"])
    return {
        "backend": name,
        "to": server_name(node, number, slot),
        "away": [server_name(node, number, other_slot(slot))],
    }
