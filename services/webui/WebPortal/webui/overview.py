# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merge what was recorded (the document) with what is seen (the gateways) into the one picture that page and API show.

States of a replica:
  healthy    the gateway sends it requests
  switching  both of its slots serve: the new release is in, the old one is about to drain
  draining   no new requests, the old ones finish
  held       taken out of rotation
  down       in rotation, but its health check fails
  missing    the gateway does not know it
  unwatched  its service is not forwarded, so no gateway can tell
  unknown    its datacenter does not answer
  undeployed its service has no release yet
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypedDict
from urllib.parse import urlsplit

from .document import Datacenter, Document, Node, Reading, Replica, Service
from .gateway import Observation, Observations, Server, Servers
from .identity import Identity

# Kept in rotation by the gateway, so someone who asks is answered
SERVING = frozenset({"healthy", "switching"})
# Nobody can tell from here, which is not the same as broken
UNTOLD = frozenset({"unknown", "unwatched"})
# A state of these is nobody's fault
BLAMELESS = SERVING | UNTOLD | {"undeployed"}

# What the document says of one node's replicas, by service and number
Recorded = dict[tuple[str, int], Replica]


class ReplicaView(TypedDict):
    service: str
    replica: int
    wanted: bool
    state: str
    detail: str
    slot: str | None
    release: int | None
    digest: str | None
    container: str | None
    target: int | None  # the release it should be on, where that is another one
    answered: bool


class NodeView(TypedDict):
    name: str
    address: str | None
    replicas: list[ReplicaView]


class DatacenterView(TypedDict):
    name: str
    origin: bool
    state: str
    detail: str
    gateway: str | None
    healthy: int
    desired: int
    nodes: list[NodeView]


class PlacementView(TypedDict):
    datacenter: str
    healthy: int
    desired: int
    untold: int
    url: str | None


class ServiceView(TypedDict):
    name: str
    repository: str | None
    port: int | None
    release: int | None
    digest: str | None
    state: str
    detail: str
    healthy: int
    desired: int
    untold: int
    current: int  # how many are on the release
    datacenters: list[PlacementView]


class Notice(TypedDict):
    level: str
    text: str


class Overview(TypedDict):
    environment: str | None
    origin: str | None
    generated_at: str
    recorded_at: str | None
    answered_by: Identity
    notices: list[Notice]
    services: list[ServiceView]
    datacenters: list[DatacenterView]


def build_overview(reading: Reading, observations: Observations, identity: Identity, now: float) -> Overview:
    """The whole picture at `now` (seconds since the epoch)."""
    document = reading.document or Document(None, None, (), (), ())
    recorded: dict[tuple[str, str], Recorded] = defaultdict(dict)
    for record in document.replicas:
        recorded[record.datacenter, record.node][record.service, record.replica] = record
    datacenters = [_datacenter(document, each, recorded, observations, now) for each in document.datacenters]
    me = (identity["node"], identity["service"], identity["replica"])
    for node, replica in _rows(datacenters):
        replica["answered"] = (node["name"], replica["service"], replica["replica"]) == me
    placed: dict[tuple[str, str], list[ReplicaView]] = defaultdict(list)
    for datacenter in datacenters:
        for _, replica in _rows([datacenter]):
            if replica["wanted"]:
                placed[replica["service"], datacenter["name"]].append(replica)
    services = [_service(each, datacenters, placed) for each in document.services]
    return {
        "environment": document.environment,
        "origin": document.origin,
        "generated_at": _time(now),
        "recorded_at": None if reading.written_at is None else _time(reading.written_at),
        "answered_by": identity,
        "notices": _notices(reading, services, datacenters),
        "services": services,
        "datacenters": datacenters,
    }


def judge(
    datacenter_state: str, service: Service | None, recorded: Replica | None, slots: dict[str, Server]
) -> tuple[str, str, str | None]:
    """State, detail and serving slot of a replica, from its slots at the gateway and its record."""
    slot = recorded.slot if recorded else None
    if datacenter_state == "unwatched" or (service and service.port is None and not slots):
        return "unwatched", "not forwarded by the gateway", slot
    if datacenter_state != "reachable":
        return "unknown", "its gateway does not answer" if datacenter_state == "away" else "asking its gateway", slot
    if service and service.release is None and not recorded and not any(map(_is_up, slots.values())):
        return "undeployed", "no release yet", None
    if not slots:
        return "missing", "the gateway does not know it", slot
    up = sorted(name for name, server in slots.items() if _is_up(server))
    if len(up) == 2:
        return "switching", "both slots serve", slot
    if up:
        draining = sum(server.sessions for server in slots.values() if server.status.startswith("DRAIN"))
        return "healthy", f"old slot drains, {_count(draining, 'request')} left" if draining else "", up[0]
    drains = sorted(name for name, server in slots.items() if server.status.startswith("DRAIN"))
    if left := sum(slots[name].sessions for name in drains):
        return "draining", f"{_count(left, 'request')} left", drains[0]
    # The slot that does not serve is in drain; the gateway calls it DOWN as well while nothing listens there
    down = sorted(name for name, server in slots.items() if not server.status.startswith(("MAINT", "DRAIN")))
    if down and slot not in drains:
        reason = slots[slot if slot in down else down[0]].check
        return "down", reason.lower() or "fails its health check", slot
    return "held", "taken out of rotation", slot


def _datacenter(
    document: Document,
    datacenter: Datacenter,
    recorded: Mapping[tuple[str, str], Recorded],
    observations: Observations,
    now: float,
) -> DatacenterView:
    observation = observations.get(datacenter.statistics, Observation())
    state = observation.state(now) if datacenter.statistics else "unwatched"
    services = {each.name: each for each in document.services}
    desired = {
        (each.name, replica)
        for each in document.services
        if datacenter.name in each.datacenters
        for replica in range(each.replicas)
    }
    nodes = []
    for node in datacenter.nodes:
        records = recorded.get((datacenter.name, node.name), {})
        nodes.append(_node(node, services, desired, records, state=state, servers=observation.servers))
    wanted = [replica for node in nodes for replica in node["replicas"] if replica["wanted"]]
    return {
        "name": datacenter.name,
        "origin": datacenter.name == document.origin,
        "state": state,
        "detail": _datacenter_detail(state, observation),
        "gateway": datacenter.gateway,
        "healthy": _serving(wanted),
        "desired": len(wanted),
        "nodes": nodes,
    }


def _datacenter_detail(state: str, observation: Observation) -> str:
    if state != "away":
        return "no statistics address in the platform document" if state == "unwatched" else ""
    since = "" if observation.answered_at is None else f", last seen at {_clock(observation.answered_at)}"
    return f"{observation.error or 'no answer'}{since}"


def _node(
    node: Node,
    services: Mapping[str, Service],
    wanted: set[tuple[str, int]],
    recorded: Recorded,
    *,
    state: str,
    servers: Servers,
) -> NodeView:
    replicas: list[ReplicaView] = []
    for key in sorted(wanted | recorded.keys()):
        name, number = key
        service, record = services.get(name), recorded.get(key)
        slots = servers.get((name, node.name, number), {})
        verdict, detail, slot = judge(state, service, record, slots)
        # A slot the record does not know serves: the release there is newer than the record
        moved = record is not None and record.slot is not None and slot != record.slot
        known = record if record and not moved else None
        replicas.append(
            {
                "service": name,
                "replica": number,
                "wanted": key in wanted,
                "state": verdict,
                "detail": "moved since the record was written" if moved and not detail else detail,
                "slot": slot,
                "release": known.release if known else None,
                "digest": known.digest if known else None,
                "container": known.container if known else None,
                "target": _target(known, service),
                "answered": False,
            }
        )
    return {"name": node.name, "address": node.address, "replicas": replicas}


def _target(known: Replica | None, service: Service | None) -> int | None:
    return service.release if service and (known is None or known.release != service.release) else None


def _service(
    service: Service, datacenters: list[DatacenterView], placed: Mapping[tuple[str, str], list[ReplicaView]]
) -> ServiceView:
    placements: list[PlacementView] = []
    everywhere: list[ReplicaView] = []
    for datacenter in datacenters:
        if datacenter["name"] not in service.datacenters:
            continue
        replicas = placed.get((service.name, datacenter["name"]), [])
        everywhere += replicas
        placements.append(
            {
                "datacenter": datacenter["name"],
                "healthy": _serving(replicas),
                "desired": len(replicas),
                "untold": _untold(replicas),
                "url": _url(datacenter["gateway"], service.port),
            }
        )
    healthy, untold = _serving(everywhere), _untold(everywhere)
    state, detail = _service_state(service, everywhere)
    return {
        "name": service.name,
        "repository": service.repository,
        "port": service.port,
        "release": service.release,
        "digest": service.digest,
        "state": state,
        "detail": detail,
        "healthy": healthy,
        "desired": len(everywhere),
        "untold": untold,
        "current": sum(each["target"] is None for each in everywhere),
        "datacenters": placements,
    }


def _service_state(service: Service, replicas: list[ReplicaView]) -> tuple[str, str]:
    if service.release is None:
        return "undeployed", "no release yet"
    if not replicas:
        return "unplaced", "no node runs it"
    broken = Counter(each["state"] for each in replicas if each["state"] not in BLAMELESS)
    if broken:
        which = ", ".join(f"{count} {state}" for state, count in sorted(broken.items()))
        return ("degraded" if _serving(replicas) or _untold(replicas) else "down"), which
    behind = sum(each["target"] is not None for each in replicas)
    if behind:
        return "mixed", f"{len(replicas) - behind} of {len(replicas)} on release {service.release}"
    if untold := _untold(replicas):
        return "unknown", f"{untold} of {_count(len(replicas), 'replica')} cannot be seen"
    return "healthy", ""


def _notices(reading: Reading, services: list[ServiceView], datacenters: list[DatacenterView]) -> list[Notice]:
    """What a person should know first, most urgent first; a single `ok` when there is nothing."""
    notices: list[Notice] = []
    if reading.problem:
        if reading.document and reading.written_at is not None:
            notices.append(
                {"level": "warn", "text": f"{reading.problem} Shown is the one of {_clock(reading.written_at)}."}
            )
        else:
            notices.append(
                {
                    "level": "bad",
                    "text": f"{reading.problem} Mount it there, or name its place in PLATFORM_FILE.",
                }
            )
            return notices
    for service in services:
        if service["state"] in {"degraded", "down"}:
            where = ", ".join(
                f"{replica['state']} on {node['name']}"
                for node, replica in _rows(datacenters)
                if replica["service"] == service["name"] and replica["wanted"]
                if replica["state"] not in BLAMELESS
            )
            text = (
                f"{service['name']}: {service['healthy']} of {_count(service['desired'], 'replica')} healthy; {where}."
            )
            notices.append({"level": "bad", "text": text})
    for datacenter in datacenters:
        if datacenter["state"] == "away":
            text = f"{datacenter['name']} is away: its gateway does not answer ({datacenter['detail']})."
            notices.append({"level": "warn", "text": text})
    extra = [f"{each['service']} on {node['name']}" for node, each in _rows(datacenters) if not each["wanted"]]
    if extra:
        notices.append({"level": "warn", "text": f"Recorded, but not in the catalogue: {', '.join(extra)}."})
    for service in services:
        if service["release"] is not None and service["current"] < service["desired"]:
            text = f"{service['name']}: {service['current']} of {service['desired']} on release {service['release']}"
            notices.append({"level": "busy", "text": f"{text}, {_others(service['name'], datacenters)}."})
    if any(datacenter["state"] == "checking" for datacenter in datacenters):
        notices.append({"level": "busy", "text": "Asking the gateways for the first time."})
    return sorted(notices, key=lambda each: ("bad", "warn", "busy").index(each["level"])) or [_all_well(services)]


def _others(service: str, datacenters: list[DatacenterView]) -> str:
    """The replicas that are not on the service's release, counted by the one they are on."""
    behind = [
        each
        for _, each in _rows(datacenters)
        if each["service"] == service and each["wanted"] and each["target"] is not None
    ]
    releases = Counter(each["release"] for each in behind)
    return ", ".join(
        f"{count} on {'one not recorded' if release is None else f'release {release}'}"
        for release, count in sorted(releases.items(), key=lambda item: -(item[0] or 0))
    )


def _rows(datacenters: list[DatacenterView]) -> Iterator[tuple[NodeView, ReplicaView]]:
    for datacenter in datacenters:
        for node in datacenter["nodes"]:
            for replica in node["replicas"]:
                yield node, replica


def _all_well(services: list[ServiceView]) -> Notice:
    deployed = [each for each in services if each["state"] == "healthy"]
    if not deployed:
        return {"level": "idle", "text": "No service is deployed yet."}
    desired = sum(each["desired"] for each in deployed)
    where = len({placement["datacenter"] for each in deployed for placement in each["datacenters"]})
    subject = f"All {desired} replicas are healthy" if desired > 1 else "The only replica is healthy"
    return {"level": "ok", "text": f"{subject}: {_count(len(deployed), 'service')} in {_count(where, 'datacenter')}."}


def _serving(replicas: Iterable[ReplicaView]) -> int:
    return sum(each["state"] in SERVING for each in replicas)


def _untold(replicas: Iterable[ReplicaView]) -> int:
    return sum(each["state"] in UNTOLD for each in replicas)


def _is_up(server: Server) -> bool:
    # "UP 1/3" is up and going down, "no check" is never checked: both get requests
    return server.status.startswith(("UP", "no check"))


def _url(gateway: str | None, port: int | None) -> str | None:
    if not gateway or port is None:
        return None
    parts = urlsplit(gateway)
    default = 443 if parts.scheme == "https" else 80
    return f"{parts.scheme}://{parts.netloc}{'' if port == default else f':{port}'}/"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S UTC")
