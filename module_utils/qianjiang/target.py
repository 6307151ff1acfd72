# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which release a service goes to: the newest, one that was kept, the same again, or the one that runs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from ansible.module_utils.qianjiang.release import configuration_hash
from ansible.module_utils.qianjiang.rotation import Tables


class PlanError(Exception):
    """Nothing can be planned; the message says what to do."""


class Target(TypedDict):
    """What a service goes to. `release` is the number of the rollout that made it, also where a rollback goes back."""

    number: int
    release: int
    digest: str
    configuration: str
    changed: bool


class Platform(NamedTuple):
    """What the platform is, and what was seen of it.

    `services`: the normalised catalogue. `datacenters`: name → `{"registry", "nodes"}`. `digests`: service → the digest
    its tag has at the origin. `nodes`: node → what service_compare said, judged (module_utils/qianjiang/rotation.py).
    `gateways`: datacenter → what its gateways said. `away`: nodes that were asked and did not answer.
    `origin_away`: why the origin could not be asked, or "". `silent`: datacenter → gateway that did not answer → why.
    """

    services: Mapping[str, Mapping[str, Any]]
    datacenters: Mapping[str, Mapping[str, Any]]
    digests: Mapping[str, str]
    nodes: Mapping[str, Mapping[str, Any]]
    gateways: Mapping[str, Sequence[Tables]]
    away: Sequence[str] = ()
    origin_away: str = ""
    silent: Mapping[str, Mapping[str, str]] = {}


def short(digest: str | None) -> str:
    """The first twelve hex digits of a digest, as people compare them."""
    return digest.removeprefix("sha256:")[:12] if digest else "nothing"


def _found(name: str, nodes: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [node["services"][name] for node in nodes.values() if name in node["services"]]


def _currents(name: str, nodes: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    replicas = [replica for service in _found(name, nodes) for replica in service["replicas"]]
    return [replica["current"] for replica in replicas if replica["current"]]


def newest_target(name: str, platform: Platform, _to: str = "") -> Target:
    """The digest at the origin with the catalogue's configuration.

    It has the highest number that any node has seen, where a node runs just this under it and none another thing; else
    one more. Another thing is also a container that is not as it was made (its ports, its restart policy): a container
    of this number has its name already.
    """
    digest, configuration = platform.digests[name], configuration_hash(platform.services[name])
    number = _highest(name, platform)
    replicas = [replica for service in _found(name, platform.nodes) for replica in service["replicas"]]
    there = [replica for replica in replicas if replica["current"] and replica["current"]["release"] == number]
    same = [
        (replica["current"]["digest"], replica["current"]["configuration"]) == (digest, configuration)
        and all(change["name"] == "running" for change in replica["differences"])
        for replica in there
    ]
    if not there or not all(same):
        number += 1
    return Target(number=number, release=number, digest=digest, configuration=configuration, changed=False)


def _ready_made(service: Mapping[str, Any], replica: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The containers that a replica can go to as they are: it serves, runs beside what serves, or was kept."""
    running = [item for item in (replica["current"], *replica["extra"]) if item]
    return [*running, *(item for item in service["kept"] if item["replica"] == replica["replica"])]


def kept_releases(name: str, nodes: Mapping[str, Mapping[str, Any]]) -> dict[int, list[str]]:
    """Release → the nodes that can go to it, with all replicas, without an image or a registry."""
    found: dict[int, set[str]] = {}
    for node, seen in nodes.items():
        service = seen["services"].get(name)
        if service:
            releases = [{item["release"] for item in _ready_made(service, one)} for one in service["replicas"]]
            for release in set[int]().union(*releases).intersection(*releases):
                found.setdefault(release, set()).add(node)
    return {release: sorted(found[release]) for release in sorted(found)}


def kept_images(name: str, nodes: Mapping[str, Mapping[str, Any]]) -> dict[int, dict[str, list[str]]]:
    """Release → its digest → its nodes. Of several digests, where --limit gave one number to two images.

    Configurations are not compared: with an environment of each node's own they differ in one release.
    """
    found: dict[int, dict[str, list[str]]] = {}
    for node in sorted(nodes):
        service = nodes[node]["services"].get(name, {"replicas": []})
        items = [item for replica in service["replicas"] for item in _ready_made(service, replica)]
        for release, digest in dict.fromkeys((item["release"], item["digest"]) for item in items):
            found.setdefault(release, {}).setdefault(digest, []).append(node)
    return found


def _listed(kept: Mapping[int, Sequence[str]], images: Mapping[int, Mapping[str, Sequence[str]]]) -> str:
    lines = []
    for release, nodes in kept.items():
        if len(images[release]) == 1:
            lines.append(f"r{release} on {', '.join(nodes)}")
        else:
            lines += [f"r{release} ({short(digest)}) on {', '.join(its)}" for digest, its in images[release].items()]
    return "; ".join(lines) or "none"


def rollback_target(name: str, platform: Platform, to: str) -> Target:
    """The release `to` ("r3" or "3"), or the one before the newest that every node has, with the same image.

    So the same command again, after one that was killed too, goes no further back. Raises PlanError.
    """
    kept = kept_releases(name, platform.nodes)
    images = kept_images(name, platform.nodes)
    there = _listed(kept, images)
    text = str(to).removeprefix("r")
    if text and not text.isdecimal():
        raise PlanError(f'to: expected a release such as r3, got "{to}"; {name} has {there}')
    serving = [current["release"] for current in _currents(name, platform.nodes)]
    concerned = sorted(node for node, seen in platform.nodes.items() if name in seen["services"])
    if not concerned:
        raise PlanError(f"{name}: it is placed on none of these nodes")
    everywhere = [release for release, nodes in kept.items() if nodes == concerned]
    newest = max([*everywhere, *serving], default=0)
    before = [release for release in everywhere if release < newest and len(images[release]) == 1]
    if not text and not before:
        raise PlanError(f"{name}: no earlier release was kept on every node; there are {there}")
    release = int(text) if text else min(before[-1], max(serving, default=before[-1]))
    lacking = [node for node in concerned if node not in kept.get(release, [])]
    if lacking:
        raise PlanError(f"{name}: {', '.join(lacking)} did not keep r{release}; there are {there}")
    if len(images[release]) > 1:
        which = "; ".join(f"{short(digest)} on {', '.join(nodes)}" for digest, nodes in images[release].items())
        raise PlanError(
            f"{name}: r{release} is not one image: {which}; "
            "name another release, or --limit to the nodes of one of them"
        )
    sample = next(
        item
        for service in _found(name, platform.nodes)
        for replica in service["replicas"]
        for item in _ready_made(service, replica)
        if item["release"] == release
    )
    return Target(
        number=_highest(name, platform) + 1,
        release=release,
        digest=sample["digest"],
        configuration=sample["configuration"],
        changed=False,
    )


def restart_target(name: str, platform: Platform, _to: str = "") -> Target:
    """What the catalogue asks for, under a number of its own."""
    number = _highest(name, platform) + 1
    newest = newest_target(name, platform)
    return newest | {"number": number, "release": number}


def scale_target(name: str, platform: Platform, _to: str = "") -> Target:
    """The oldest release that serves.

    Raises PlanError where none does, a new replica could be of one of several, or the catalogue has changed since.
    """
    wanted = [one for service in _found(name, platform.nodes) for one in service["replicas"]]
    replicas = [one for one in wanted if one["current"]]
    if not replicas:
        raise PlanError(f"{name}: nothing runs that could be scaled; roll it out first (playbooks/rollout.yml)")
    releases = sorted({int(one["current"]["release"]) for one in replicas})
    if len(releases) > 1 and len(replicas) < len(wanted):
        raise PlanError(
            f"{name}: {' and '.join(f'r{release}' for release in releases)} serve, so that it is open which one a new "
            "replica is of; roll it out everywhere first (playbooks/rollout.yml), or back"
        )
    first = min(replicas, key=lambda one: int(one["current"]["release"]))
    oldest = first["current"]
    # What the catalogue names as the image has it already is another hash, and no difference that a rollout would mend
    other = {change["name"] for change in first["differences"]} - {"image", "running"}
    if other and oldest["configuration"] != configuration_hash(platform.services[name]):
        raise PlanError(
            f"{name}: the catalogue has another configuration than r{oldest['release']}, which serves; "
            "roll it out first (playbooks/rollout.yml --check --diff says what differs)"
        )
    return Target(
        number=_highest(name, platform),
        release=oldest["release"],
        digest=oldest["digest"],
        configuration=oldest["configuration"],
        changed=False,
    )


def _highest(name: str, platform: Platform) -> int:
    return max((service["highest_release"] for service in _found(name, platform.nodes)), default=0)


TARGETS: Mapping[str, Callable[[str, Platform, str], Target]] = {
    "rollout": newest_target,
    "rollback": rollback_target,
    "restart": restart_target,
    "scale": scale_target,
}
