# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node runs, as service_compare and service_stop report it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.module_utils.qianjiang.change import Change
from ansible.module_utils.qianjiang.container import LABEL, compare, container_spec, observed_spec, slot_port
from ansible.module_utils.qianjiang.engine import Engine
from ansible.module_utils.qianjiang.probe import port_holder
from ansible.module_utils.qianjiang.service_state import (
    ACTIVE,
    Owned,
    State,
    owned,
    proven,
    read_state,
    replica_view,
)

# Processes that listen for containers; those of other people's containers are told by the engine's list
ENGINE = ("dockerd", "docker-proxy")
IDENTITY_KEYS = ("container", "release", "digest", "configuration", "slot")


def observe_node(engine: Engine, services: Sequence[Mapping[str, Any]], state_path: str) -> dict[str, Any]:
    """`{"services", "orphans"}` of this node. Raises EngineError, StateError, and ValueError for a doubled service."""
    names = engine.image_names()
    states = {service["name"]: read_state(state_path, service["name"]) for service in services}
    entries = engine.containers()
    found = describe_node(engine, services, states, entries, lambda port: stranger(port, entries))
    for service in services:
        repository = f"/{service['repository']}@"
        found["services"][service["name"]]["images"] = [name for name in names if repository in name]
    return found


def stranger(port: int, entries: Iterable[Mapping[str, Any]]) -> str | None:
    """Who else has a port. What the engine itself has is for a container of ours that it has just started."""
    found = port_holder(port, strangers(entries))
    return None if found and found.startswith(tuple(f"process {name} " for name in ENGINE)) else found


def strangers(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The containers that are not ours."""
    return [entry for entry in entries if f"{LABEL}service" not in (entry.get("Labels") or {})]


def describe_node(
    engine: Engine,
    services: Sequence[Mapping[str, Any]],
    states: Mapping[str, State],
    entries: Sequence[Mapping[str, Any]],
    holder: Callable[[int], str | None],
) -> dict[str, Any]:
    """The whole result, from the engine's list and what it says of single containers.

    `holder` names who has a port; it is asked only for ports that no container of ours has.
    """
    containers = owned(entries)
    ours = {port["PublicPort"] for entry in entries for port in entry.get("Ports") or [] if "PublicPort" in port}
    ours -= {
        port["PublicPort"] for entry in strangers(entries) for port in entry.get("Ports") or [] if "PublicPort" in port
    }
    described: dict[str, Any] = {}
    named: set[str] = set()
    for service in services:
        name = service["name"]
        if name in described:
            raise ValueError(f"services: {name} is listed twice")
        replicas: list[dict[str, Any]] = []
        kept: list[dict[str, Any]] = []
        for number in range(service["replicas"]):
            mine = [item for item in containers if (item["service"], item["replica"]) == (name, number)]
            named |= {item["id"] for item in mine}
            replica, stopped = _replica(engine, service, number, mine, states[name]["current"].get(str(number)))
            port = slot_port(service, number, replica["free_slot"]) if service["port"] else None
            replica["port_holder"] = holder(port) if port and port not in ours else None
            replicas.append(replica)
            kept += stopped
        described[name] = {
            "replicas": replicas,
            "highest_release": states[name]["highest_release"],
            "kept": sorted(kept, key=lambda item: int(item["release"]), reverse=True),
        }
    orphans = [
        {
            **{key: item[key] for key in ("container", "service", "replica", "release", "slot")},
            "running": item["status"] in ACTIVE,
        }
        for item in containers
        if item["id"] not in named
    ]
    return {"services": described, "orphans": orphans}


def _replica(
    engine: Engine, service: Mapping[str, Any], number: int, containers: Sequence[Owned], recorded: str | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A replica, and its stopped containers that were healthy once."""
    view = replica_view(containers, recorded)
    inspected = {item["id"]: engine.inspect(item["id"]) for item in containers}
    specs = {
        item["id"]: observed_spec(inspect, engine.inspect_image(inspect["Image"]))
        for item in containers
        if (inspect := inspected[item["id"]]) is not None
    }
    spec = container_spec(service, "", "", release=0, replica=number, slot=view["free_slot"])

    def running(item: Owned) -> dict[str, Any]:
        state = (inspected[item["id"]] or {})["State"]
        is_running = bool(state["Running"]) and not (state.get("Restarting") or state.get("Paused"))
        differences: list[Change] = [
            difference for difference in compare(spec, specs[item["id"]]) if difference["name"] != "image"
        ]
        if not is_running:
            differences.append({"name": "running", "before": False, "after": True})
        return {
            **{key: item[key] for key in IDENTITY_KEYS},
            "running": is_running,
            "health": (state.get("Health") or {}).get("Status", "none"),
            "started_at": state["StartedAt"],
            "differences": differences,
        }

    current = view["current"] if view["current"] and inspected[view["current"]["id"]] else None
    described = running(current) if current else None
    differences = described.pop("differences") if described else []
    extra = [
        {**running(item), "proven": proven(inspected[item["id"]])} for item in view["extra"] if inspected[item["id"]]
    ]
    kept = [
        {
            **{key: item[key] for key in IDENTITY_KEYS},
            "replica": number,
            "differences": compare(specs[item["id"]], specs[current["id"]]) if current else [],
        }
        for item in containers
        if item is not current and item["status"] not in ACTIVE and proven(inspected[item["id"]])
    ]
    replica = {
        "replica": number,
        "recorded": recorded,
        "current": described,
        "free_slot": view["free_slot"],
        "differences": differences,
        "extra": extra,
    }
    return replica, kept
