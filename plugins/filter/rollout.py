# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that carry data from one step of a rollout to the next. Decisions are in module_utils/qianjiang."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.qianjiang.catalogue import order_by_dependency
from ansible.module_utils.qianjiang.document import platform_document
from ansible.module_utils.qianjiang.image_reference import parse
from ansible.module_utils.qianjiang.plan import PlanError, other_slot, plan_rollout
from ansible.module_utils.qianjiang.status import COLUMNS, status

Services = Mapping[str, Mapping[str, Any]]


def selected(services: Services, names: str) -> dict[str, Any]:
    """The services named in `names` ("webui" or "webui,api"), or all where it is empty."""
    wanted = [name.strip() for name in str(names).split(",") if name.strip()]
    unknown = [name for name in wanted if name not in services]
    if unknown:
        raise AnsibleFilterError(
            f'service: expected names from the catalogue ({", ".join(services)}), got "{", ".join(unknown)}"'
        )
    return {name: service for name, service in services.items() if not wanted or name in wanted}


def dependency_order(services: Services, names: Iterable[str]) -> list[str]:
    """Those of `names`, each after the services it depends on."""
    wanted = set(names)
    return [name for name in order_by_dependency(services) if name in wanted]


def image_tag(service: Mapping[str, Any]) -> str:
    """The reference at the origin that stands for the newest image of a service."""
    return str(service["image"]) if service["image"] else f"{service['repository']}:latest"


def image_tags(services: Services) -> list[str]:
    """Each service's reference at the origin."""
    return sorted({image_tag(service) for service in services.values()})


def service_digests(services: Services, resolved: Mapping[str, str]) -> dict[str, str]:
    """Digest by service; a service that the origin does not have is left out."""
    tags = {name: image_tag(service) for name, service in services.items()}
    return {name: resolved[tag] for name, tag in tags.items() if tag in resolved}


def asked_of_node(
    services: Services, datacenter: str, registry: str, digests: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What a node of `datacenter` shall run, as service_compare takes it."""
    return [
        {"service": service, "reference": f"{registry}/{service['repository']}", "digest": digests.get(name)}
        for name, service in services.items()
        if datacenter in service["placement"]["datacenters"]
    ]


def results_of(hosts: Iterable[str], hostvars: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`ansible_play_hosts | results_of(hostvars, "comparison")`: the result, or fact, of each host that has one."""
    found = {host: hostvars[host][name] for host in hosts if name in hostvars[host]}
    return {host: value for host, value in found.items() if not isinstance(value, Mapping) or _is_result(value)}


def _is_result(value: Mapping[str, Any]) -> bool:
    return not value.get("failed") and not value.get("skipped") and not value.get("unreachable")


def places(registries: Mapping[str, str], nodes: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Registry and nodes of each datacenter, in rollout order."""
    return {name: {"registry": registry, "nodes": nodes[name]} for name, registry in registries.items()}


def addresses(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """The address of each host."""
    return {host: str(hostvars[host]["node_address"]) for host in hosts}


def addresses_by_datacenter(hosts: Mapping[str, list[str]], hostvars: Mapping[str, Any]) -> dict[str, list[str]]:
    """The addresses of the hosts of each datacenter."""
    return {datacenter: list(addresses(names, hostvars).values()) for datacenter, names in hosts.items()}


def with_addresses(hosts: Mapping[str, list[str]], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`{"nodes": {name: address}}` by datacenter."""
    return {datacenter: {"nodes": addresses(names, hostvars)} for datacenter, names in hosts.items()}


def gateway_statistics(hosts: Mapping[str, list[str]], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Address and statistics port of the first gateway of each datacenter."""
    return {
        datacenter: {
            "address": hostvars[names[0]]["node_address"],
            "stats_port": hostvars[names[0]].get("gateway_stats_port", 8404),
        }
        for datacenter, names in hosts.items()
        if names
    }


def plan(
    services: Services,
    order: list[str],
    datacenters: Mapping[str, Any],
    digests: Mapping[str, str],
    comparisons: Mapping[str, Any],
) -> Any:
    """module_utils/qianjiang/plan.py: who changes what, in which order."""
    try:
        return plan_rollout(services, order, datacenters, digests, comparisons)
    except PlanError as error:
        raise AnsibleFilterError(str(error)) from None


def build_arguments(build: Mapping[str, Any], origin: str, digests: Mapping[str, str]) -> dict[str, str]:
    """`args` and `bases` of a build; a base image is named by its digest at the origin."""
    bases = {}
    for argument, base in build["bases"].items():
        # In check mode a base image may not be there yet
        digest = digests.get(base, "sha256:" + "0" * 64)
        bases[argument] = f"{origin}/{parse(base).repository}@{digest}"
    return dict(build["args"]) | bases


def first_of_datacenter(nodes: Iterable[str], datacenter_nodes: Iterable[str]) -> str:
    """The first of `nodes` that is in the datacenter, or ""."""
    wanted = set(datacenter_nodes)
    return next((node for node in nodes if node in wanted), "")


def status_report(
    services: Services,
    datacenters: Mapping[str, Any],
    comparisons: Mapping[str, Any],
    gateways: Mapping[str, list[str]],
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """The status for the report callback; `behind` says why nodes failed and what is not on its release."""
    found = status(services, datacenters, comparisons, gateways)
    behind = [f"{node}: {reason}" for node, reason in failures.items()] + found["behind"]
    return {"columns": COLUMNS, "rows": found["rows"], "notes": found["notes"] + behind, "behind": behind}


def pulled_as(pulled: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    """Registry and repository by which the engine knows a step's image: not its own one after a fallback."""
    references = {
        item["service_step"]["service"]: item["reference"] for item in pulled.get("results", []) if "reference" in item
    }
    return str(references.get(step["service"], step["reference"])).split("@", maxsplit=1)[0]


def candidate_slot(slot: str, server: str, held: Iterable[Mapping[str, Any]]) -> str:
    """The planned slot, or the other one where a killed run left the planned one in rotation (gateway_hold says so)."""
    serving = [f"{item['server']}" for result in held for item in result.get("serving", [])]
    return other_slot(slot) if f"{server}.{slot}" in serving else slot


def hold_results(held: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The results of gateway_hold, out of the loops over the gateways of each datacenter."""
    return [result for loop in held.values() for result in loop.get("results", [])]


def failure_reason(result: Mapping[str, Any]) -> str:
    """Why a task failed; of a loop, why its first failed item did."""
    failed = [item for item in result.get("results", []) if item.get("failed")]
    return str((failed[0] if failed else result)["msg"])


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "addresses": addresses,
            "addresses_by_datacenter": addresses_by_datacenter,
            "asked_of_node": asked_of_node,
            "build_arguments": build_arguments,
            "candidate_slot": candidate_slot,
            "dependency_order": dependency_order,
            "failure_reason": failure_reason,
            "first_of_datacenter": first_of_datacenter,
            "gateway_statistics": gateway_statistics,
            "hold_results": hold_results,
            "image_tags": image_tags,
            "other_slot": other_slot,
            "places": places,
            "plan_rollout": plan,
            "platform_document": platform_document,
            "pulled_as": pulled_as,
            "results_of": results_of,
            "selected": selected,
            "service_digests": service_digests,
            "status_report": status_report,
            "with_addresses": with_addresses,
        }
