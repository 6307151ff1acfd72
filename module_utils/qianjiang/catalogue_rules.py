# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules between the keys of a service, and between services."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, cast

from ansible.module_utils.qianjiang.catalogue_schema import (
    HOST_CONTROL,
    IMAGE,
    IMAGE_RULE,
    PORT_MAXIMUM,
    REPOSITORY,
    Gateway,
    Service,
)
from ansible.module_utils.qianjiang.value_kinds import Report, near, shown

# --- rules between keys: what each reads (it is skipped when one of these is wrong already), and what it finds

Nodes = Mapping[str, list[str]]
Findings = Iterator[tuple[str, str]]  # a key's path and what is wrong with it


def slots(service: Service) -> tuple[int, int]:
    """The first and the last host port of a service on each of its nodes."""
    return service["slots_port"], service["slots_port"] + 2 * service["replicas"] - 1


def _at(service: Service, path: str) -> Any:
    value: Any = service
    for part in path.split("."):
        value = value[part]
    return value


def _origin(service: Service, _: Nodes) -> Findings:
    if service["build"] is not None and service["image"] is not None:
        yield "", "expected exactly one of build and image, got both; remove one"
    if service["build"] is None and service["image"] is None:
        yield (
            "",
            "expected exactly one of build and image, got neither; "
            "add build: {} (a folder with a Dockerfile) or image (a repository at the origin)",
        )


def _misnamed(image: str) -> str:
    """What is wrong with the name of an image at the origin."""
    first, slash, rest = image.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return f'expected no registry, got {shown(image)}; each datacenter pulls from its own: write "{rest}"'
    if not re.fullmatch(IMAGE, image):
        hint = "; add a digest, or a tag" if re.fullmatch(REPOSITORY, image) else ""
        return f"expected {IMAGE_RULE}, got {shown(image)}{hint}"
    return ""


def _image(service: Service, _: Nodes) -> Findings:
    if service["image"] is None:
        return
    match = re.fullmatch(IMAGE, service["image"])
    if text := _misnamed(service["image"]):
        yield "image", text
    elif match and match[1] != service["repository"]:
        yield "repository", f'expected "{match[1]}", as in image, got {shown(service["repository"])}; remove it'


def _bases(service: Service, _: Nodes) -> Findings:
    build = service["build"]
    if build is None:
        return
    for name, image in build["bases"].items():
        if name in build["args"]:
            hint = "keep it there, where it is passed on by digest"
            yield f"build.args.{name}", f"expected an argument once, got it in build.bases too; {hint}"
        elif text := _misnamed(image):
            yield f"build.bases.{name}", text


def _datacenters(service: Service, nodes: Nodes) -> Findings:
    for index, name in enumerate(service["placement"]["datacenters"]):
        path = f"placement.datacenters[{index}]"
        if name not in nodes:
            hint = near(name, nodes)
            yield path, f"expected one of {', '.join(sorted(nodes))}, got {shown(name)}{hint and '; ' + hint}"
        elif not nodes[name]:
            hint = "add a host of it to the group nodes, or take it out"
            yield path, f"expected a datacenter with nodes, got {shown(name)}; {hint}"
    if not service["placement"]["datacenters"]:  # an empty list that was written is found before
        text = "expected a datacenter with nodes, but no datacenter has any; add hosts to the group nodes"
        yield "placement.datacenters", text


def _room(service: Service, _: Nodes) -> Findings:
    first, last = slots(service)
    if last > PORT_MAXIMUM:
        highest = PORT_MAXIMUM + 1 - 2 * service["replicas"]
        yield (
            "slots_port",
            f"expected room for 2 ports per replica up to {PORT_MAXIMUM}, got {first}-{last}; "
            f"the highest that fits is {highest}",
        )


def _targets(service: Service, _: Nodes) -> Findings:
    taken: set[str] = set()
    for index, mount in enumerate(service["mounts"]):
        path, target = f"mounts[{index}].target", mount["target"]
        if target == "/":
            yield path, f"expected a path below /, got {shown(target)}"
        elif target in taken:
            yield path, f"expected a target of its own, got {shown(target)} again"
        elif target in service["tmpfs"]:
            yield path, f"expected a target of its own, got {shown(target)}, also in tmpfs"
        taken.add(target)


def _is_root(user: str) -> bool:
    """The engine takes 00 for the number 0."""
    return user.partition(":")[0].lstrip("0") in ("", "root")


def _weakened(service: Service, _: Nodes) -> Findings:
    hardening, user = service["hardening"], service["user"]
    weak = {
        "hardening.read_only": None if hardening["read_only"] else False,
        "hardening.capabilities": hardening["capabilities"] or None,
        "hardening.no_new_privileges": None if hardening["no_new_privileges"] else False,
        "user": user if user and _is_root(user) else None,
        "mounts": ", ".join(
            mount["source"] for mount in service["mounts"] if re.fullmatch(HOST_CONTROL, mount["source"])
        )
        or None,
    }
    found = ", ".join(f"{path}: {shown(value)}" for path, value in weak.items() if value is not None)
    if found and hardening["reason"] is None:
        yield "hardening.reason", f"missing; expected why, because of {found}"


def _provable(service: Service, _: Nodes) -> Findings:
    update, interval = service["update"], service["health"]["interval"]
    needed = update["min_healthy_time"] + interval
    if needed >= update["healthy_deadline"]:
        yield (
            "update.healthy_deadline",
            f"expected more than update.min_healthy_time + health.interval ({needed:g}), "
            f"got {update['healthy_deadline']}",
        )


def _canary(service: Service, nodes: Nodes) -> Findings:
    smallest = min(service["placement"]["datacenters"], key=lambda name: len(nodes[name]))
    if service["update"]["canary"] > len(nodes[smallest]):
        yield (
            "update.canary",
            f"expected at most {len(nodes[smallest])}, the nodes of {smallest}, got {service['update']['canary']}",
        )


def _revert(service: Service, _: Nodes) -> Findings:
    if service["update"]["auto_revert"] and service["keep_releases"] < 1:
        text = "expected 1 or more with update.auto_revert, got 0; a revert needs the release before"
        yield "keep_releases", text


def _less(lower: str, upper: str) -> tuple[tuple[str, ...], Callable[[Service, Nodes], Findings]]:
    def find(service: Service, _: Nodes) -> Findings:
        low, high = _at(service, lower), _at(service, upper)
        if low >= high:
            yield lower, f"expected less than {upper} ({high}), got {low}"

    return (lower, upper), find


RULES: tuple[tuple[tuple[str, ...], Callable[[Service, Nodes], Findings]], ...] = (
    (("build", "image"), _origin),
    (("image", "repository"), _image),
    (("build.args", "build.bases"), _bases),
    (("placement.datacenters",), _datacenters),
    (("slots_port", "replicas"), _room),
    (("mounts", "tmpfs"), _targets),
    (("hardening", "user", "mounts"), _weakened),
    # as in Nomad's update block
    _less("update.min_healthy_time", "update.healthy_deadline"),
    _less("update.healthy_deadline", "update.progress_deadline"),
    _less("health.start_period", "update.healthy_deadline"),
    (("update.min_healthy_time", "update.healthy_deadline", "health.interval"), _provable),
    (("update.canary", "placement.datacenters"), _canary),
    (("update.auto_revert", "keep_releases"), _revert),
)


# --- rules between services


def repository_errors(services: Mapping[str, Service], report: Report) -> None:
    """A build moves the tag `latest` of its repository: of two builds there, each service could get the other's image.

    Two services of one build, as a page and its worker, have one image.
    """
    builders: dict[str, str] = {}
    for name, service in services.items():
        if service["build"] is None or not all(
            report.sound(f"services.{name}.{key}") for key in ("build", "repository")
        ):
            continue
        other = builders.setdefault(service["repository"], name)
        if service["build"] != services[other]["build"]:
            report.unfit(
                f"services.{name}.repository",
                f"another one than services.{other}.repository, or the same build",
                service["repository"],
                f"remove it, for {shown(name)}" if name not in builders else "",
            )


def _shared(one: Service, other: Service) -> list[str]:
    return [name for name in one["placement"]["datacenters"] if name in other["placement"]["datacenters"]]


def _free_slots(service: Service, others: Iterable[Service]) -> int:
    """The first host port from which the slots of `service` fit among those of the others."""
    first, size = service["slots_port"], 2 * service["replicas"]
    for low, high in sorted(slots(other) for other in others if _shared(service, other)):
        if first <= high and first + size > low:
            first = high + 1
    return int(first)


def port_errors(services: Mapping[str, Service], report: Report) -> None:
    """No host port twice on a node, no port twice on a gateway. A gateway's port and a slot are on different hosts."""

    def sound(*keys: str) -> list[Service]:
        return [s for n, s in services.items() if all(report.sound(f"services.{n}.{key}") for key in keys)]

    # computed before anything is said: an error about one pair must not hide another
    slotted = sound("slots_port", "replicas", "placement.datacenters")
    forwarded = [service for service in sound("gateway", "placement.datacenters") if service["gateway"]]
    for one, other in combinations(slotted, 2):
        (first, last), (low, high) = slots(one), slots(other)
        if first <= high and low <= last and (shared := _shared(one, other)):
            free = _free_slots(other, (service for service in slotted if service is not other))
            report.say(
                f"services.{other['name']}.slots_port",
                f"expected host ports of its own, got {low}-{high}, and services.{one['name']} has {first}-{last} "
                f"on the nodes of {', '.join(shared)}; {free} is free",
            )
    for one, other in combinations(forwarded, 2):
        port, shared = cast(Gateway, other["gateway"])["port"], _shared(one, other)
        if shared and one["gateway"] == other["gateway"]:
            report.say(
                f"services.{other['name']}.gateway.port",
                f"expected a port of its own, got {port}, and services.{one['name']} has it "
                f"on the gateway of {', '.join(shared)}",
            )


def _walk(services: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The names, each after what it depends on and else by name; and the circles that stand in the way."""
    order: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            circles.append([*way[way.index(name) :], name])
        elif name not in order:
            for dependency in sorted(set(services[name]["depends_on"]) & set(services)):
                visit(dependency, [*way, name])
            order.append(name)

    for name in sorted(services):
        visit(name, [])
    return order, circles


def order_by_dependency(services: Mapping[str, Any]) -> list[str]:
    """The services' names, each after those it depends on; else by name."""
    return _walk(services)[0]


def dependency_errors(services: Mapping[str, Service], report: Report) -> None:
    sound = {name: one for name, one in services.items() if report.sound(f"services.{name}.depends_on")}
    for name, service in sound.items():
        others = sorted(set(services) - {name})
        for index, dependency in enumerate(service["depends_on"]):
            if dependency not in services:
                expected = f"one of {', '.join(others)}" if others else "another service of the catalogue"
                report.unfit(f"services.{name}.depends_on[{index}]", expected, dependency, near(dependency, others))
    for circle in _walk(sound)[1]:
        where = f"services.{circle[0]}.depends_on"
        report.say(where, f"expected no circle, got {' -> '.join(circle)}; remove one of them")
