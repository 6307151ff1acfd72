# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that carry data from one step of a rollout to the next. Decisions are in module_utils/qianjiang."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.qianjiang import outcome, plan, rotation, step_arguments
from ansible.module_utils.qianjiang.catalogue_rules import order_by_dependency
from ansible.module_utils.qianjiang.document import platform_document
from ansible.module_utils.qianjiang.image_reference import parse
from ansible.module_utils.qianjiang.lock import is_gone
from ansible.module_utils.qianjiang.policy import PolicyError, hook_errors, lock_errors, normalise_policy
from ansible.module_utils.qianjiang.rotation import ELSEWHERE
from ansible.module_utils.qianjiang.status import COLUMNS, drained_notes, status
from ansible.template import accept_lazy_markers

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


def image_tag(service: Mapping[str, Any], release: str = "") -> str:
    """The reference at the origin that stands for a service: of the release asked for, else of the newest image."""
    if release:
        return f"{service['repository']}{'@' if release.startswith('sha256:') else ':'}{release}"
    return str(service["image"]) if service["image"] else f"{service['repository']}:latest"


def image_tags(services: Services, releases: Mapping[str, str] | None = None) -> list[str]:
    """Each service's reference at the origin. `releases`: what is asked for, by service, where it is not the newest."""
    return sorted({image_tag(service, (releases or {}).get(name, "")) for name, service in services.items()})


def wanted_digests(
    services: Services, resolved: Mapping[str, Mapping[str, Any]], releases: Mapping[str, str]
) -> dict[str, str]:
    """Digest by service, from image_resolve's result on whichever host asked. What the origin lacks is left out."""
    digests = {tag: digest for result in resolved.values() for tag, digest in result["digests"].items()}
    tags = {name: image_tag(service, releases.get(name, "")) for name, service in services.items()}
    return {name: digests[tag] for name, tag in tags.items() if tag in digests}


def buildable(services: Services) -> list[dict[str, Any]]:
    """What there is to build, once for each repository, as services that share one share the build.

    Without all else of the services: a build that fails prints what it was given.
    """
    keys = ("name", "repository", "build")
    found: dict[str, dict[str, Any]] = {}
    for service in services.values():
        if service["build"]:
            found.setdefault(service["repository"], {key: service[key] for key in keys})
    return list(found.values())


def forwarded_backends(services: Services) -> list[str]:
    """What gateways forward: each service to its replicas, and to the other datacenters' gateways."""
    names = [name for name, service in services.items() if service["gateway"]]
    return [*names, *(f"{name}{ELSEWHERE}" for name in names)]


def placed_in(services: Services, datacenter: str) -> list[Mapping[str, Any]]:
    """What a node of `datacenter` shall run, as service_compare takes it."""
    return [service for service in services.values() if datacenter in service["placement"]["datacenters"]]


def results_of(hosts: Iterable[str], hostvars: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`ansible_play_hosts | results_of(hostvars, "comparison")`: the result, or fact, of each host that has one."""
    found = {host: hostvars[host][name] for host in hosts if host in hostvars and name in hostvars[host]}
    return {host: value for host, value in found.items() if not isinstance(value, Mapping) or _is_result(value)}


def _is_result(value: Mapping[str, Any]) -> bool:
    """Of a loop each item is for itself: that one could not be reached says nothing of the others."""
    if value.get("skipped"):
        return False
    return "results" in value or not _went_wrong(value)


def places(registries: Mapping[str, str], nodes: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Registry and nodes of each datacenter, in rollout order."""
    return {name: {"registry": registry, "nodes": nodes[name]} for name, registry in registries.items()}


def addresses(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """The address of each host."""
    return {host: str(hostvars[host]["host_address"]) for host in hosts}


def addresses_by_datacenter(hosts: Mapping[str, list[str]], hostvars: Mapping[str, Any]) -> dict[str, list[str]]:
    """The addresses of the hosts of each datacenter."""
    return {datacenter: list(addresses(names, hostvars).values()) for datacenter, names in hosts.items()}


def with_addresses(hosts: Mapping[str, list[str]], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`{"nodes": {name: address}}` by datacenter."""
    return {datacenter: {"nodes": addresses(names, hostvars)} for datacenter, names in hosts.items()}


def gateway_url(host: str, hostvars: Mapping[str, Any], address: str = "") -> str:
    """Where browsers find a gateway, at its own address or another one that it has, without port and path."""
    scheme = "https" if hostvars[host].get("gateway_certificate") else "http"
    return _url(scheme, address or str(hostvars[host]["host_address"]))


def _url(scheme: str, address: str) -> str:
    """An IPv6 address stands in brackets (RFC 3986), as a port may follow."""
    return f"{scheme}://[{address}]" if ":" in address else f"{scheme}://{address}"


def urls_by_datacenter(hosts: Mapping[str, list[str]], hostvars: Mapping[str, Any]) -> dict[str, list[str]]:
    """Where browsers find each datacenter: the address that its gateways share, if they do, then each gateway's own."""
    return {
        datacenter: [*_shared_urls(names, hostvars), *(gateway_url(host, hostvars) for host in names)]
        for datacenter, names in hosts.items()
    }


def _shared_urls(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Of `gateway_virtual_address`, which has its prefix length; once, as it is the same on all that share it."""
    shared = {host: str(hostvars[host].get("gateway_virtual_address") or "").partition("/")[0] for host in hosts}
    return list(dict.fromkeys(gateway_url(host, hostvars, address) for host, address in shared.items() if address))


def gateway_statistics(hosts: Mapping[str, list[str]], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each datacenter: where browsers find it, and the statistics of each of its gateways."""
    urls = urls_by_datacenter(hosts, hostvars)
    return {
        datacenter: {"url": urls[datacenter][0], "statistics": [_statistics_url(name, hostvars) for name in names]}
        for datacenter, names in hosts.items()
        if names
    }


def _statistics_url(host: str, hostvars: Mapping[str, Any]) -> str:
    """A gateway's own, without path: the address that several share would ask any of them."""
    return f"{_url('http', str(hostvars[host]['host_address']))}:{hostvars[host].get('gateway_stats_port', 8404)}"


def gateway_views(views: Mapping[str, Mapping[str, Any]], hostvars: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What the gateways of each datacenter said, from gateway_inspect's results in the loop of one of its hosts."""
    found: dict[str, list[Any]] = {}
    for host, loop in views.items():
        answers = [item["backends"] for item in loop.get("results", []) if item.get("answers")]
        found.setdefault(str(hostvars[host]["datacenter"]), []).extend(answers)
    return found


def gateway_items(views: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What gateway_inspect said of each gateway, by its results in the loops over rollout_gateway."""
    return [item for loop in views.values() for item in loop.get("results", [])]


def silent_gateways(
    hosts: Mapping[str, Iterable[str]], views: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """Datacenter → gateway that did not answer → why."""
    said = {str(item["rollout_gateway"]): item for item in gateway_items(views) if "rollout_gateway" in item}
    return {
        datacenter: {
            name: unreachable_reason(said.get(name)) or said.get(name, {}).get("reason") or "was not asked"
            for name in names
            if not said.get(name, {}).get("answers")
        }
        for datacenter, names in hosts.items()
    }


def abandoned_locks(views: Mapping[str, Mapping[str, Any]], who: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Whose holder ran on this controller (of `who`, this run) and is gone.

    Host that asked → gateway → the holder's `id`: with `--limit` that host takes part, and the gateway may not.
    """
    found = {
        host: {
            str(item["rollout_gateway"]): str(item["lock"]["holder"]["id"])
            for item in gateway_items({host: loop})
            if item.get("lock") and is_gone(item["lock"]["holder"], who["alive"], who["controller"])
        }
        for host, loop in views.items()
    }
    return {host: locks for host, locks in found.items() if locks}


def judge_nodes(
    comparisons: Mapping[str, Any],
    datacenters: Mapping[str, Any],
    gateways: Mapping[str, Any],
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """module_utils/qianjiang/rotation.py: what every node runs, and how that differs from what it shall run."""
    return dict(rotation.judge(comparisons, datacenters, gateways, digests))


def lead_of(hosts: Iterable[str], preferred: Iterable[str], others: Iterable[str]) -> str:
    """Who of `hosts` does what is done once in a datacenter: one of `preferred` where it is there, else of `others`."""
    there = set(hosts)
    return next((host for host in [*preferred, *others] if host in there), "")


def place_of(nodes: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The datacenter of each node."""
    return {node: datacenter for datacenter, names in nodes.items() for node in names}


def normalised_policy(value: Any, known: Iterable[str]) -> dict[str, Any]:
    """The variable `datacenters` with its defaults, or all that is wrong with it."""
    try:
        return dict(normalise_policy(value, known))
    except PolicyError as error:
        raise AnsibleFilterError("\n".join(error.errors)) from None


def policy_errors(value: Any, known: Iterable[str]) -> list[str]:
    """All that is wrong with the variable `datacenters`."""
    try:
        normalise_policy(value, known)
    except PolicyError as error:
        return list(error.errors)
    return []


def release_errors(services: Any, names: Any, release: Any) -> list[str]:
    """What is wrong with `-e release=`: it is a tag or digest of one service."""
    if release is not None and not isinstance(release, str):
        return [f"release: expected a tag or a digest as a text, got {json.dumps(release, default=str)}; quote it"]
    if not release or (isinstance(services, Mapping) and str(names).strip() in services):
        return []
    got = f'-e service="{names}"' if names else "no -e service="
    return [f"release: expected -e service= with the one service whose release it is, got {got}"]


@accept_lazy_markers  # type: ignore[untyped-decorator]
def hook_problems(hooks: Any) -> list[str]:
    """All that is wrong with the variable `hooks`; its task files have to be there."""
    return hook_errors(hooks) or [
        f'hooks.{name}.tasks: expected a file on the controller, "{hook["tasks"]}" is none'
        for name, hook in hooks.items()
        if "tasks" in hook and not Path(hook["tasks"]).is_file()
    ]


def hook_host(found: Mapping[str, Any], hook: str, hostvars: Mapping[str, Any]) -> list[str]:
    """Who calls a hook: the first lead of a plan that changes something, if there is one and its moment has come."""
    leads = list(found["leads"][:1]) if found.get("changed") else []
    if not any(hook in (hostvars[lead].get("rollout_hooks") or {}) for lead in leads):
        return []
    failed = any(
        "service_failure" in known
        or (known.get("rollout_conclusion") or {}).get("problems")
        or _went_wrong(known.get("rollout_recorded"))
        for known in (hostvars[host] for host in hostvars)
    )
    due = {"pre_rollout": True, "post_rollout": not failed, "on_failure": failed}
    return leads if due[hook] else []


def _went_wrong(result: Any) -> bool:
    return isinstance(result, Mapping) and bool(result.get("failed") or result.get("unreachable"))


def gateways_to_tell(
    found: Mapping[str, Any], groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Any]
) -> list[str]:
    """The gateways whose configuration a plan changes. Not those of a datacenter where it has failed: its lock may be
    another one's, and what they forward to is still there."""
    if found.get("verb") not in plan.REMOVING:
        return []
    failed = {hostvars[node]["datacenter"] for node in groups["nodes"] if "service_failure" in hostvars[node]}
    return [gateway for gateway in groups["gateways"] if hostvars[gateway]["datacenter"] not in failed]


def plan_rollout(request: Any, platform: Mapping[str, Any], policy: Any) -> Any:
    """module_utils/qianjiang/plan.py: who changes what, in which order."""
    try:
        return plan.plan_rollout(request, plan.Platform(**platform), policy)
    except plan.PlanError as error:
        raise AnsibleFilterError(str(error)) from None


def same_as_saved(found: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    """The plan, when it is the one that was saved in `file` (or none was)."""
    if not file:
        return found
    try:
        saved = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise AnsibleFilterError(f"plan: cannot read {file}: {error}") from None
    if not isinstance(saved, dict):
        raise AnsibleFilterError(f"plan: {file} holds no plan; make a new one (playbooks/plan.yml)")
    told = _differences(saved, found)
    if told:
        raise AnsibleFilterError(
            f"plan: the platform or the catalogue has changed since {file} was saved, so it is not applied; "
            f"make a new one (playbooks/plan.yml). {told}"
        )
    return found


def same_as_before(found: Mapping[str, Any], before: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plan, when it is still the one that the pre_rollout hook was asked about."""
    told = _differences(before, found)
    if told:
        raise AnsibleFilterError(
            f"the platform has changed while pre_rollout was asked, so nothing is changed; run it again. {told}"
        )
    return found


def _differences(before: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """How a plan is another one, in words; "" when it is the same."""
    if json.loads(json.dumps(before)) == json.loads(json.dumps(found)):
        return ""
    then, now = set(before.get("summary", [])), set(found["summary"])
    told = [f"no longer: {line}" for line in sorted(then - now)] + [f"new: {line}" for line in sorted(now - then)]
    return "; ".join(told or ["the steps differ in details"])


def plan_revert(found: Any, failures: Mapping[str, Any], platform: Mapping[str, Any]) -> Any:
    """module_utils/qianjiang/plan.py: what goes back after these failures."""
    return plan.revert_plan(found, failures, platform["nodes"], platform["services"])


def also_failed(before: Mapping[str, Any], stage: int | str, reason: str) -> dict[str, Any]:
    """A node's failure, with one from before: the first stage and every reason."""
    return {"stage": before.get("stage", int(stage)), "reason": "; ".join(filter(None, [before.get("reason"), reason]))}


def may_go_on(found: Any, node: str, stage: int | str, failures: Mapping[str, Any]) -> bool:
    """module_utils/qianjiang/plan.py: whether a node may still change."""
    return bool(plan.may_go_on(found, node, int(stage), failures))


def starts_ahead(found: Any, node: str, stage: int | str, failures: Mapping[str, Any], services: Services) -> bool:
    """module_utils/qianjiang/plan.py: whether a node's candidates start before its batch has its turn."""
    return bool(plan.starts_ahead(found, node, int(stage), failures, services))


def steps_of_stage(found: Any, node: str, stage: int | str) -> list[Any]:
    """What a node does in a stage."""
    return list(plan.steps_of(found, node, int(stage)))


def with_certificate(gateways: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """The gateways whose services' ports speak TLS."""
    return [host for host in gateways if hostvars[host].get("gateway_certificate")]


def holder(deployer: Mapping[str, Any]) -> dict[str, str]:
    """Who deploys, as lock_acquire takes it."""
    return {key: str(deployer[key]) for key in ("id", "controller", "user", "host")}


def unreachable_reason(result: Any) -> str:
    """Why a host could not be reached, or "". Of a loop, the first that could not."""
    if not isinstance(result, Mapping):
        return ""
    items = [result, *result.get("results", [])]
    return next(
        (f"could not be reached: {item.get('msg', '')}".strip() for item in items if item.get("unreachable")), ""
    )


def first_unreachable(hosts: Iterable[str], hostvars: Mapping[str, Any], name: str) -> str:
    """Why a host could not be reached, from what was registered as `name` on whichever of `hosts` asked it, or ""."""
    return next(filter(None, (unreachable_reason(hostvars[host].get(name)) for host in hosts if host in hostvars)), "")


def still_serving(held: Any) -> list[str]:
    """Slots that candidates need and that still serve, as nothing else of their replica does (gateway_hold)."""
    items = held.get("results", []) if isinstance(held, Mapping) else []
    servers = [server for item in items for server in item.get("serving") or []]
    return [
        f"{item['backend']}/{item['server']} serves alone, and its slot is needed; is the node well?"
        for item in servers
    ]


def rollout_records(
    found: Any,
    observed: Mapping[str, Any],
    failures: Mapping[str, Any],
    cut: Mapping[str, int],
    revert: Any,
    deployer: Mapping[str, Any],
    started_at: str,
    places: Mapping[str, str],
    problems: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """module_utils/qianjiang/outcome.py: what goes on record."""
    return list(
        outcome.records(
            found,
            observed,
            failures,
            revert=revert or None,
            cut=cut,
            deployer=deployer,
            started_at=started_at,
            places=places,
            problems=problems,
        )
    )


def cut_sessions(switched: Mapping[str, Any]) -> int:
    """How many sessions a loop of gateway_switch or gateway_hold over the gateways has cut."""
    return sum(int(item.get("cut", 0)) for item in switched.get("results", []))


def build_arguments(build: Mapping[str, Any], origin: str, digests: Mapping[str, str]) -> dict[str, str]:
    """`args` and `bases` of a build; a base image is named by its digest at the origin."""
    bases = {}
    for argument, base in build["bases"].items():
        # In check mode a base image may not be there yet
        digest = digests.get(base, "sha256:" + "0" * 64)
        bases[argument] = f"{origin}/{parse(base).repository}@{digest}"
    return dict(build["args"]) | bases


def status_report(
    services: Services,
    datacenters: Mapping[str, Any],
    observed: Mapping[str, Any],
    gateways: Mapping[str, list[str]],
    failures: Mapping[str, Any],
    asked: Iterable[str],
    found: Any = None,
    origin_away: str = "",
) -> dict[str, Any]:
    """The status for the report callback; `behind` says why nodes failed and what is not on its release.

    `found`: the plan, where the report is of one: then only the services that it is about can be behind.
    `origin_away`: why the origin's host was not asked for the newest images.
    """
    if found:
        observed = outcome.asked_for(found, observed, failures)
    requested = list(found["services"]) if found else None
    seen = status(services, datacenters, observed, gateways, asked=asked, requested=requested)
    behind = [f"{node}: {failure['reason']}" for node, failure in failures.items()] + seen["behind"]
    if found and found["verb"] in plan.REMOVING:
        told = {line.partition(":")[0] for line in behind}
        behind += [f"{node}: could not be reached; what it has stays" for node in found["away"] if node not in told]
    notes = seen["notes"] + behind
    if not found:
        # A plan's gateways were asked before it was carried out
        notes += drained_notes(observed)
    if origin_away and not found:
        notes.append(f"whether these are the newest images is not known: the origin's host {origin_away}")
    return {"columns": COLUMNS, "rows": seen["rows"], "notes": notes, "behind": behind}


def failure_reason(result: Mapping[str, Any]) -> str:
    """Why a task failed; of a loop, why its first failed item did."""
    failed = [item for item in result.get("results", []) if item.get("failed")]
    return str((failed[0] if failed else result)["msg"])


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "abandoned_locks": abandoned_locks,
            "addresses": addresses,
            "addresses_by_datacenter": addresses_by_datacenter,
            "urls_by_datacenter": urls_by_datacenter,
            "first_unreachable": first_unreachable,
            "buildable": buildable,
            "also_failed": also_failed,
            "bakes": step_arguments.bakes,
            "build_arguments": build_arguments,
            "candidates": step_arguments.candidates,
            "cut_sessions": cut_sessions,
            "dependency_order": dependency_order,
            "failure_reason": failure_reason,
            "forwarded_backends": forwarded_backends,
            "gateway_statistics": gateway_statistics,
            "gateways_to_tell": gateways_to_tell,
            "gateway_views": gateway_views,
            "has_more": step_arguments.has_more,
            "has_started": step_arguments.has_started,
            "holder": holder,
            "hook_errors": hook_problems,
            "hook_host": hook_host,
            "image_tags": image_tags,
            "judge_nodes": judge_nodes,
            "keepers": step_arguments.keepers,
            "lead_of": lead_of,
            "lock_errors": lock_errors,
            "may_go_on": may_go_on,
            "normalised_policy": normalised_policy,
            "place_of": place_of,
            "placed_in": placed_in,
            "places": places,
            "plan_revert": plan_revert,
            "plan_rollout": plan_rollout,
            "platform_document": platform_document,
            "policy_errors": policy_errors,
            "release_errors": release_errors,
            "removal_switches": step_arguments.removal_switches,
            "removed_services": step_arguments.removed_services,
            "results_of": results_of,
            "rollout_records": rollout_records,
            "same_as_before": same_as_before,
            "same_as_saved": same_as_saved,
            "selected": selected,
            "silent_gateways": silent_gateways,
            "starts_ahead": starts_ahead,
            "status_report": status_report,
            "steps_of_stage": steps_of_stage,
            "still_serving": still_serving,
            "switches": step_arguments.switches,
            "unreachable_reason": unreachable_reason,
            "wanted_digests": wanted_digests,
            "with_addresses": with_addresses,
            "with_drain_timeouts": step_arguments.with_drain_timeouts,
            "with_certificate": with_certificate,
        }
