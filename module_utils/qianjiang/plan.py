# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout: from what the nodes run and what the catalogue asks for, who changes what, in which order.

Pure: no clock, no network, no files. What is shown is what is applied, and the plan after it is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypedDict

from ansible.module_utils.qianjiang.release import configuration_hash


class PlanError(Exception):
    """Nothing can be planned; the message says what to do."""


class Replica(TypedDict):
    """What changes in one replica on one node."""

    replica: int
    slot: str  # where the release runs afterwards
    start: bool  # False: the release runs already, only left-overs are stopped
    current: str | None  # the container that serves now
    from_release: int | None
    from_digest: str | None
    differences: list[dict[str, Any]]


class Step(TypedDict):
    """A service on a node."""

    service: str
    release: int
    digest: str
    repository: str
    reference: str  # the datacenter's registry and the repository
    pull: bool  # a container is made from the image
    replicas: list[Replica]


class Release(TypedDict):
    """A service at one digest and one configuration, and the number it has."""

    release: int
    digest: str
    configuration: str
    changed: bool


class Plan(TypedDict):
    """`nodes` is in rollout order; `steps`, `images` and `holds` have no key where there is nothing to do."""

    changed: bool
    services: dict[str, Release]
    nodes: list[str]
    steps: dict[str, list[Step]]
    images: dict[str, list[str]]  # datacenter → repository@digest its registry must have
    holds: dict[str, list[dict[str, str]]]  # datacenter → servers kept out of rotation until their candidate is proven
    orphans: list[dict[str, Any]]
    summary: list[str]


def short(digest: str | None) -> str:
    """The first twelve hex digits of a digest, as people compare them."""
    return digest.removeprefix("sha256:")[:12] if digest else "nothing"


def release_number(name: str, digest: str, configuration: str, comparisons: Mapping[str, Any]) -> int:
    """The highest number that any node has seen, where a node runs just this under it; else one more."""
    found = [comparison["services"][name] for comparison in comparisons.values() if name in comparison["services"]]
    highest = max((service["highest_release"] for service in found), default=0)
    for service in found:
        for replica in service["replicas"]:
            current = replica["current"]
            if current and (current["release"], current["digest"], current["configuration"]) == (
                highest,
                digest,
                configuration,
            ):
                return highest
    return highest + 1


def plan_replica(replica: Mapping[str, Any]) -> Replica | None:
    """What changes in a replica, or None."""
    current = replica["current"]
    start = current is None or bool(replica["differences"])
    if not start and not replica["extra"]:
        return None
    return {
        "replica": replica["replica"],
        "slot": replica["free_slot"] if start else current["slot"],
        "start": start,
        "current": current["container"] if current else None,
        "from_release": current["release"] if current else None,
        "from_digest": current["digest"] if current else None,
        "differences": list(replica["differences"]),
    }


def plan_rollout(
    services: Mapping[str, Mapping[str, Any]],
    order: Iterable[str],
    datacenters: Mapping[str, Mapping[str, Any]],
    digests: Mapping[str, str],
    comparisons: Mapping[str, Mapping[str, Any]],
) -> Plan:
    """Compare what is asked for with what runs.

    `services` and `order` are the normalised catalogue; `datacenters` maps a name, in rollout order, to
    `{"registry", "nodes"}`; `digests` maps a service to the digest its tag has at the origin; `comparisons` maps a node
    to what service_compare returned there. A node without a comparison is left out.

    Raises PlanError where a service of `order` has no digest.
    """
    order = list(order)
    missing = [name for name in order if name not in digests]
    if missing:
        raise PlanError(f"the origin has no image of {', '.join(missing)}: run playbooks/build.yml first")
    plan: Plan = {
        "changed": False,
        "services": {},
        "nodes": [],
        "steps": {},
        "images": {},
        "holds": {},
        "orphans": [],
        "summary": [],
    }
    for name in order:
        configuration = configuration_hash(services[name])
        plan["services"][name] = {
            "release": release_number(name, digests[name], configuration, comparisons),
            "digest": digests[name],
            "configuration": configuration,
            "changed": False,
        }
    for datacenter, place in datacenters.items():
        for node in place["nodes"]:
            if node not in comparisons:
                continue
            plan["orphans"] += [{"node": node, **orphan} for orphan in comparisons[node]["orphans"]]
            for name in order:
                if datacenter in services[name]["placement"]["datacenters"]:
                    replicas = comparisons[node]["services"][name]["replicas"]
                    _plan_service(plan, services[name], Place(datacenter, place["registry"], node), replicas)
    plan["changed"] = bool(plan["steps"])
    plan["summary"] = _summarise(plan, datacenters)
    return plan


def idle_slot(replica: Replica) -> str:
    """The slot that must not get requests: the candidate's, or that of what is left over."""
    return replica["slot"] if replica["start"] else other_slot(replica["slot"])


def other_slot(slot: str) -> str:
    """The other one of the two slots of a replica."""
    return {"a": "b", "b": "a"}[slot]


class Place(NamedTuple):
    """A node, and what it belongs to."""

    datacenter: str
    registry: str
    node: str


def _plan_service(plan: Plan, service: Mapping[str, Any], place: Place, found: Iterable[Mapping[str, Any]]) -> None:
    name = service["name"]
    release = plan["services"][name]
    datacenter, registry, node = place
    planned = [plan_replica(replica) for replica in found]
    replicas = [replica for replica in planned if replica is not None]
    if not replicas:
        return
    release["changed"] = True
    if node not in plan["steps"]:
        plan["nodes"].append(node)
        plan["steps"][node] = []
    plan["steps"][node].append(
        {
            "service": name,
            "release": release["release"],
            "digest": release["digest"],
            "repository": service["repository"],
            "reference": f"{registry}/{service['repository']}",
            "pull": any(replica["start"] for replica in replicas),
            "replicas": replicas,
        }
    )
    started = [replica for replica in replicas if replica["start"]]
    image = f"{service['repository']}@{release['digest']}"
    if started and image not in plan["images"].setdefault(datacenter, []):
        plan["images"][datacenter].append(image)
    if service["gateway"]:
        plan["holds"].setdefault(datacenter, []).extend(
            {"backend": name, "server": f"{node}.{replica['replica']}.{idle_slot(replica)}"} for replica in replicas
        )


def _summarise(plan: Plan, datacenters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for datacenter, place in datacenters.items():
        for node in place["nodes"]:
            for step in plan["steps"].get(node, []):
                for replica in step["replicas"]:
                    what = f"{datacenter}: {node}: {step['service']}.{replica['replica']}"
                    if replica["start"]:
                        names = ", ".join(difference["name"] for difference in replica["differences"]) or "new"
                        before = (
                            f"r{replica['from_release']} {short(replica['from_digest'])}"
                            if replica["current"]
                            else "nothing"
                        )
                        lines.append(f"{what}: {before} → r{step['release']} {short(step['digest'])} ({names})")
                    else:
                        lines.append(f"{what}: stop what an interrupted run left behind")
    lines += [f"orphan on {orphan['node']}: {orphan['container']}" for orphan in plan["orphans"]]
    return lines
