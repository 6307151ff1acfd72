# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the steps of a plan to the arguments of the modules that carry them out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.qianjiang import plan, rotation

Services = Mapping[str, Mapping[str, Any]]


def candidates(steps: Iterable[Mapping[str, Any]], services: Services, pulled: Mapping[str, Any]) -> list[Any]:
    """What to start, as service_start takes it."""
    return [
        {
            "service": services[step["service"]],
            "reference": pulled_as(pulled, step),
            "digest": step["digest"],
            "release": step["release"],
            "number": step["number"],
            "replica": replica["replica"],
            "slot": replica["slot"],
            "restore": replica["restore"],
            "container": replica["container"],
            "serving": replica["current"],
            "seen": replica["seen"],
        }
        for step in steps
        for replica in step["replicas"]
        if replica["start"]
    ]


def has_started(steps: Iterable[Mapping[str, Any]], started: Mapping[str, Any]) -> bool:
    """Whether service_start, whose result is `started`, has proven every candidate of these steps."""
    places = _places(started)
    wanted = [(step["service"], item["replica"]) for step in steps for item in step["replicas"] if item["start"]]
    return all(candidate in places for candidate in wanted)


def pulled_as(pulled: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    """Registry and repository by which the engine knows a step's image: not its own one after a fallback."""
    references = {
        item["service_step"]["service"]: item["reference"] for item in pulled.get("results", []) if "reference" in item
    }
    return str(references.get(step["service"], step["reference"])).split("@", maxsplit=1)[0]


def switches(
    steps: Iterable[Mapping[str, Any]],
    services: Services,
    started: Mapping[str, Any],
    node: str,
    tls: bool = False,
) -> list[dict[str, Any]]:
    """What to forward to, as gateway_switch takes it: the slots and ports where the candidates really are.

    `tls`: whether that gateway's ports speak TLS.
    """
    places = _places(started)
    found = []
    for step in steps:
        service = services[step["service"]]
        for replica in step["replicas"] if service["gateway"] else []:
            slot, port = places.get((step["service"], replica["replica"]), (replica["slot"], None))
            found.append(
                {
                    "backend": step["service"],
                    "to": rotation.server_name(node, replica["replica"], slot),
                    "port": port,
                    "away": [rotation.server_name(node, replica["replica"], rotation.other_slot(slot))],
                    "ready": replica["rotate"],
                    "drain_timeout": service["update"]["drain_timeout"],
                    "probe": {
                        "port": service["gateway"]["port"],
                        "path": service["health"]["ready_path"],
                        "timeout": service["health"]["timeout"],
                        "tls": tls,
                    },
                }
            )
    return found


def _places(started: Mapping[str, Any]) -> dict[tuple[str, int], tuple[str, int | None]]:
    """The slots and ports where candidates really run.

    One that was adopted may be in another slot than was planned, and a kept one has the port that it was made with.
    """
    return {(item["service"], item["replica"]): (item["slot"], item["port"]) for item in started.get("candidates", [])}


def removal_switches(removals: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What to take out of rotation before it is removed, as gateway_switch takes it."""
    return [{"backend": item["service"], "away": item["servers"]} for item in removals if item["servers"]]


def with_drain_timeouts(entries: Iterable[Mapping[str, Any]], services: Services) -> list[dict[str, Any]]:
    """Each entry with its backend's `drain_timeout`, where the catalogue has that service."""
    return [
        {**entry, "drain_timeout": services[entry["backend"]]["update"]["drain_timeout"]}
        if entry["backend"] in services
        else dict(entry)
        for entry in entries
    ]


def removed_services(removals: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What to remove, as service_remove takes it."""
    return [{"service": item["service"], "replicas": item["replicas"]} for item in removals]


def keepers(
    steps: Iterable[Mapping[str, Any]],
    services: Services,
    observed: Mapping[str, Any] | None = None,
    revert: Mapping[str, Any] | None = None,
    node: str = "",
) -> list[dict[str, Any]]:
    """The containers that serve, as service_stop takes them: the plan's, or after a failure those that do serve.

    Where a gateway may still forward to another one that runs, nothing is stopped.
    """
    failed = bool(revert)
    back = {
        (step["service"], replica["replica"]): replica["container"]
        for step in ((revert or {}).get("steps") or {}).get(node, [])
        for replica in step["replicas"]
    }
    found = []
    for step in steps:
        seen = ((observed or {}).get("services") or {}).get(step["service"], {"replicas": []})["replicas"]
        now = {item["replica"]: item for item in seen}
        for replica in step["replicas"]:
            keep = replica["container"]
            if failed:
                keep = back.get((step["service"], replica["replica"])) or _serving(
                    now.get(replica["replica"]), is_forwarded=bool(services[step["service"]]["gateway"])
                )
            if keep:
                failed_one = replica["start"] and not replica["restore"] and keep != replica["container"]
                found.append(
                    {
                        "service": services[step["service"]],
                        "replica": replica["replica"],
                        "keep": keep,
                        "drop": replica["container"] if failed_one else None,
                        "number": step["number"],
                    }
                )
    return found


def _serving(replica: Mapping[str, Any] | None, *, is_forwarded: bool) -> str | None:
    """The container that serves; None where there is none, or where it may not be the only one."""
    if not replica or not replica["current"] or not replica["current"]["running"]:
        return None
    admitted = replica.get("admitted")
    others = {item["slot"] for item in replica["extra"]}
    if is_forwarded and others and (admitted is None or others & set(admitted)):
        return None
    return str(replica["current"]["container"])


def bakes(
    found: Any, node: str, stage: int | str, services: Services, started: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """What this node watches at its gateways: at the end of a wave that bakes, the first node of a datacenter does.

    `started`: what service_start said on each node in this stage.
    """
    number = int(stage)
    index = plan.wave_of(found, node, number)
    if index < 0 or not plan.ends_wave(found, node, number):
        return []
    wave = found["stages"][number]["waves"][index]
    places = plan.places(found)
    last = [other for other in wave["batches"][-1] if places[other] == places[node]]
    if not wave["bake"] or last[0] != node:
        return []
    nodes = [other for batch in wave["batches"] for other in batch if places[other] == places[node]]
    watched = []
    for name in found["stages"][number]["services"]:
        moved = [
            (other, replica["replica"], started_at.get((name, replica["replica"]), (replica["slot"],))[0])
            for other, started_at in ((other, _places((started or {}).get(other, {}))) for other in nodes)
            for step in plan.steps_of(found, other, number)
            if step["service"] == name
            for replica in step["replicas"]
            if replica["start"] and replica["rotate"]
        ]
        update = services[name]["update"]
        if moved and services[name]["gateway"] and update["bake_time"]:
            watched.append(
                {
                    "backend": name,
                    "new": [rotation.server_name(other, replica, slot) for other, replica, slot in moved],
                    "old": [
                        rotation.server_name(other, replica, rotation.other_slot(slot))
                        for other, replica, slot in moved
                    ],
                    "seconds": update["bake_time"],
                    "max_errors": update["max_errors"],
                    "max_latency": update["max_latency"],
                }
            )
    return watched


def has_more(steps: Iterable[Mapping[str, Any]], found: Any, node: str, stage: int | str, services: Services) -> bool:
    """Whether a node has more to do of `steps` than to start and to forward: to stop the unforwarded, or to bake."""
    unforwarded = [step for step in steps if not services[step["service"]]["gateway"]]
    return bool(unforwarded or bakes(found, node, stage, services))
