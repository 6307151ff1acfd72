# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout: from what the nodes run and what is asked for, who changes what, in which order.

Pure: no clock, no network, no files. What is shown is what is applied, and the plan after it is empty. A rollout, a
rollback and a restart are the same plan with other targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypedDict

from ansible.module_utils.qianjiang.change import Change
from ansible.module_utils.qianjiang.container import SLOTS, container_name
from ansible.module_utils.qianjiang.drain import plan_drain
from ansible.module_utils.qianjiang.policy import Policy
from ansible.module_utils.qianjiang.rotation import Tables, other_slot, server_name, serving_servers
from ansible.module_utils.qianjiang.target import TARGETS, PlanError, Platform, Target, short
from ansible.module_utils.qianjiang.wave import MAX_STAGES, Stage, ranks, stage

DRAINING = ("drain", "undrain")
VERBS = (*TARGETS, *DRAINING, "retire")
# Verbs that take away what the catalogue does not ask for
REMOVING = ("scale", "retire")
# Seconds that the clocks of two nodes may differ, with the time that looking at them takes
CLOCK_TOLERANCE = 60


class Seen(TypedDict):
    """What the node's record said when the plan was made. One that says another thing later is another rollout's."""

    highest_release: int
    recorded: str | None


class Replica(TypedDict):
    """What changes in one replica on one node."""

    replica: int
    container: str  # serves afterwards
    slot: str  # where it runs
    start: bool  # False: it runs already, only left-overs are stopped
    restore: bool  # it is a kept one, started again as it is
    rotate: bool  # False: an operator drained the replica, and it stays out of rotation
    current: str | None  # serves now
    current_slot: str | None
    from_release: int | None
    from_digest: str | None
    seen: Seen | None
    differences: list[Change]


class Step(TypedDict):
    """A service on a node."""

    service: str
    number: int  # of the rollout; nodes refuse a lower one than they have seen
    release: int
    digest: str
    repository: str
    reference: str  # registry and repository by which the node knows the image, or will
    pull: bool  # a container is made from the image, and the node lacks it, or may when it comes to that
    replicas: list[Replica]


class Removal(TypedDict):
    """What goes from a node. `replicas`: how many stay. `servers`: those of its slots that its gateways know."""

    service: str
    replicas: int
    containers: list[str]
    servers: list[str]


class Plan(TypedDict):
    """Lists of nodes are in rollout order; `steps`, `images`, `holds` lack a key where there is nothing to do."""

    verb: str
    names: list[str]
    changed: bool
    services: dict[str, Target]
    stages: list[Stage]
    waves: list[Any]
    nodes: list[str]
    leads: list[str]  # the first node of each datacenter: does what is done once in it
    copies: list[str]  # leads of datacenters that lack an image, or have servers to take out of rotation
    pulls: list[str]  # nodes that lack an image, or what a first container needs
    steps: dict[str, list[Step]]
    images: dict[str, list[str]]  # datacenter → repository@digest its registry must have
    holds: dict[str, list[dict[str, str]]]  # datacenter → servers to take out of rotation before their candidate starts
    switches: dict[str, list[dict[str, Any]]]  # node → what its gateways do, for a drain
    removals: dict[str, list[Removal]]  # node → what is too much there
    orphans: list[dict[str, Any]]
    away: list[str]  # nodes that could not be reached
    policy: Policy
    summary: list[str]


class Request(TypedDict, total=False):
    """What is asked for: a verb of VERBS, the services in dependency order, for a rollback the release to go `to`.

    `names`: the services as they were named on the command line, which may be ones that the catalogue lacks.
    `nodes`: those to drain or undrain.
    """

    verb: str
    order: list[str]
    names: list[str]
    nodes: list[str]
    to: str


class Place(NamedTuple):
    """A node, and what it belongs to."""

    datacenter: str
    registry: str
    node: str


def plan_replica(
    replica: Mapping[str, Any], name: str, target: Target, verb: str, kept: Iterable[Any]
) -> Replica | None:
    """What changes in a replica, or None. `kept`: the stopped containers of the service on this node."""
    current = replica["current"]
    differences = list(replica["differences"])
    restored = None
    if verb == "scale":
        differences, start = [], current is None
    elif verb == "rollback":
        at_target = current is not None and current["release"] == target["release"] and current["running"]
        # a rollback that was killed has started it already
        running = [item for item in replica["extra"] if item["release"] == target["release"]]
        mine = [item for item in kept if (item["replica"], item["release"]) == (replica["replica"], target["release"])]
        if current is not None and current["release"] == target["release"]:
            # it serves, but has ended
            mine = [current | {"differences": differences}]
        restored = next(iter([*running, *mine]), None) if not at_target else None
        differences = list(restored["differences"]) if restored and not running else []
        start = restored is not None
    elif verb == "restart":
        differences = [*differences, Change(name="restart", before=None, after=f"r{target['release']}")]
        start = True
    else:
        start = current is None or bool(differences)
    if not start and not replica["extra"]:
        return None
    serves = container_name(name, replica["replica"], target["release"]) if start else str(current["container"])
    slot = replica["free_slot"] if start else current["slot"]
    back = restored["container"] if restored else None
    others = {item["slot"] for item in (current, *replica["extra"]) if item and item["container"] != back}
    if restored and restored["slot"] not in others:
        slot = restored["slot"]
    return {
        "replica": replica["replica"],
        "container": str(restored["container"]) if restored else serves,
        "slot": slot,
        "start": start,
        "restore": restored is not None,
        "rotate": not replica.get("drained", False),
        "current": current["container"] if current else None,
        "current_slot": current["slot"] if current else None,
        "from_release": current["release"] if current else None,
        "from_digest": current["digest"] if current else None,
        "seen": None,
        "differences": differences,
    }


def plan_rollout(request: Request, platform: Platform, policy: Policy) -> Plan:
    """Compare what is asked for with what runs.

    Raises PlanError where a service has no digest at the origin, a release to go back to is not there, a node is away
    and the policy says `stop`, a gateway that would have to switch does not answer, or services depend on each other in
    more than MAX_STAGES steps.
    """
    verb, order = request.get("verb", "rollout"), list(request["order"])
    if verb not in VERBS:
        raise PlanError(f'verb: expected one of {", ".join(VERBS)}, got "{verb}"')
    names = list(request.get("names", [])) or (order if verb != "retire" else [])
    _assert_possible(verb, order, platform, policy)
    plan: Plan = {
        "verb": verb,
        "names": names,
        "changed": False,
        "services": {},
        "stages": [],
        "waves": [],
        "nodes": [],
        "leads": [],
        "copies": [],
        "pulls": [],
        "steps": {},
        "images": {},
        "holds": {},
        "switches": {},
        "removals": {},
        "orphans": [],
        "away": list(platform.away),
        "policy": policy,
        "summary": [],
    }
    for name in order if verb in TARGETS else ():
        plan["services"][name] = TARGETS[verb](name, platform, request.get("to", ""))
    if verb in REMOVING:
        plan["removals"] = plan_removals(verb, names, platform)
    for datacenter in policy["order"]:
        place = platform.datacenters[datacenter]
        for node in (node for node in place["nodes"] if node in platform.nodes):
            plan["orphans"] += [{"node": node, **orphan} for orphan in platform.nodes[node]["orphans"]]
            for name in plan["services"]:
                if datacenter in platform.services[name]["placement"]["datacenters"]:
                    _plan_service(plan, name, platform, Place(datacenter, place["registry"], node))
    if verb in DRAINING:
        plan["switches"] = plan_drain(verb, request.get("nodes", []), platform)
    _assert_gateways_answer(plan, platform)
    _order(plan, list(plan["services"]), platform)
    plan["changed"] = bool(plan["steps"] or plan["removals"] or plan["switches"])
    plan["summary"] = _summarise(plan)
    return plan


def _assert_possible(verb: str, order: Sequence[str], platform: Platform, policy: Policy) -> None:
    missing = [name for name in order if name not in platform.digests] if verb in ("rollout", "restart") else []
    if missing and platform.origin_away:
        raise PlanError(
            f"the origin was not asked for the image of {', '.join(missing)}: its host {platform.origin_away}"
        )
    if missing:
        raise PlanError(f"the origin has no image of {', '.join(missing)}: run playbooks/build.yml first")
    if platform.away and policy["unreachable"] == "stop":
        raise PlanError(
            f"{', '.join(platform.away)} cannot be reached, so nothing is changed anywhere; "
            "to go on without, say datacenters.unreachable: continue, or --limit"
        )
    clocks = {node: float(seen["clock_ahead"]) for node, seen in platform.nodes.items() if "clock_ahead" in seen}
    if clocks and max(clocks.values()) - min(clocks.values()) > CLOCK_TOLERANCE:
        middle = sorted(clocks.values())[len(clocks) // 2]
        wrong = max(clocks, key=lambda node: abs(clocks[node] - middle))
        raise PlanError(
            f"the clock of {wrong} is {abs(clocks[wrong] - middle):.0f} s off; locks and certificates need right ones: "
            "mend its time synchronisation"
        )
    levels = ranks(platform.services, order) if verb in TARGETS else []
    if len(levels) > MAX_STAGES:
        deep = levels[-1][0]
        raise PlanError(
            f"services.{deep}.depends_on: expected a chain of at most {MAX_STAGES} services, got {len(levels)}; "
            "roll out some of them by -e service="
        )


def _assert_gateways_answer(plan: Plan, platform: Platform) -> None:
    """All gateways of a datacenter switch, or none: one that is left behind would send requests to what stops."""
    forwarded = {name for name, service in platform.services.items() if service["gateway"]}
    nodes = {node for node, steps in plan["steps"].items() if forwarded & {step["service"] for step in steps}}
    nodes |= {*plan["removals"], *plan["switches"]}
    for datacenter, gateways in platform.silent.items():
        if gateways and nodes & set(platform.datacenters[datacenter]["nodes"]):
            told = ", ".join(f"{gateway} {reason}" for gateway, reason in gateways.items())
            raise PlanError(
                f"the gateways of {datacenter} switch together, and not all of them answer: {told}. "
                "Nothing is changed anywhere; mend it, go on without its datacenter by --limit, or, where another is "
                "left, take it out of hosts.yml"
            )


def _plan_service(plan: Plan, name: str, platform: Platform, place: Place) -> None:
    service, seen, target = (
        platform.services[name],
        platform.nodes[place.node]["services"][name],
        plan["services"][name],
    )
    planned = [plan_replica(replica, name, target, plan["verb"], seen["kept"]) for replica in seen["replicas"]]
    replicas = [replica for replica in planned if replica is not None]
    if not replicas:
        return
    for replica in replicas:
        observed = seen["replicas"][replica["replica"]]
        replica["seen"] = {"highest_release": seen["highest_release"], "recorded": observed.get("recorded")}
        if replica["start"] and observed.get("port_holder"):
            raise PlanError(
                f"{place.node}: the port of slot {replica['slot']} of {name}, replica {replica['replica']}, is taken "
                f"by {observed['port_holder']}; stop that, or give the service another slots_port"
            )
    target["changed"] = True
    image = f"{service['repository']}@{target['digest']}"
    there = [str(found) for found in seen.get("images", []) if str(found).endswith(f"/{image}")]
    own = f"{place.registry}/{image}"
    makes = any(replica["start"] and not replica["restore"] for replica in replicas)
    # What is removed before takes its image along, and another service's may be this one
    pull = makes and (not there or place.node in plan["removals"])
    plan["steps"].setdefault(place.node, []).append(
        {
            "service": name,
            "number": target["number"],
            "release": target["release"],
            "digest": target["digest"],
            "repository": service["repository"],
            "reference": (own if own in there or not there else there[0]).partition("@")[0],
            "pull": pull,
            "replicas": replicas,
        }
    )
    if pull and image not in plan["images"].setdefault(place.datacenter, []):
        plan["images"][place.datacenter].append(image)
    if service["gateway"]:
        # What serves and has ended is started where it is: held, it would count as drained if it did not come back
        for replica in (one for one in replicas if not (one["start"] and one["container"] == one["current"])):
            server = server_name(place.node, replica["replica"], idle_slot(replica))
            if not _is_held(name, server, platform.gateways.get(place.datacenter, ())):
                plan["holds"].setdefault(place.datacenter, []).append({"backend": name, "server": server})


def idle_slot(replica: Replica) -> str:
    """The slot that must not get requests: the candidate's, or that of what is left over."""
    return replica["slot"] if replica["start"] else other_slot(replica["slot"])


def plan_removals(verb: str, names: Sequence[str], platform: Platform) -> dict[str, list[Removal]]:
    """What is too much: of `scale` replicas and places that the catalogue no longer has, of `retire` whole services.

    Raises PlanError for the retirement of a service that is in the catalogue, or that is not named, and where what
    goes of a scaled service serves, and nothing that stays does.
    """
    still = [name for name in names if name in platform.services]
    if verb == "retire" and still:
        raise PlanError(f"{', '.join(still)} is in the catalogue; take it out first, then retire it")
    if verb == "retire" and not names:
        raise PlanError("service: expected the service to retire, -e service=NAME; status.yml lists orphans")
    removals: dict[str, list[Removal]] = {}
    for datacenter, place in platform.datacenters.items():
        for node in (node for node in place["nodes"] if node in platform.nodes):
            for name in names:
                orphans = [item for item in platform.nodes[node]["orphans"] if item["service"] == name]
                if not orphans:
                    continue
                service = platform.services.get(name)
                placed = service is not None and datacenter in service["placement"]["datacenters"]
                tables = [seen.get(name, {}) for seen in platform.gateways.get(datacenter, ())]
                wanted = [
                    server_name(node, replica, slot)
                    for replica in sorted({int(item["replica"]) for item in orphans})
                    for slot in SLOTS
                ]
                # A gateway that does not know one, as its role ran since, forwards nothing to it
                known = [one for one in wanted if any(one in table for table in tables)]
                removals.setdefault(node, []).append(
                    {
                        "service": name,
                        "replicas": int(service["replicas"]) if service and placed else 0,
                        "containers": [str(item["container"]) for item in orphans],
                        "servers": known,
                    }
                )
    for name in still:
        gone = {
            server
            for found in removals.values()
            for item in found
            if item["service"] == name
            for server in item["servers"]
        }
        _assert_something_stays(name, gone, platform)
    return removals


def _assert_something_stays(service: str, gone: set[str], platform: Platform) -> None:
    serving = serving_servers(service, chain.from_iterable(platform.gateways.values()))
    if serving & gone and not serving - gone:
        raise PlanError(
            f"{service}: nobody would be left to answer: of what stays, nothing is in rotation and well (status.yml). "
            "Bring that back first (rollout.yml, undrain.yml); a service that moves must be in both places meanwhile"
        )


def _is_held(service: str, server: str, gateways: Sequence[Tables]) -> bool:
    found = [tables.get(service, {}).get(server) for tables in gateways]
    # Sessions are of a run that was killed while it drained: gateway_hold waits for them
    return bool(found) and all(one and one["admin"] != "ready" and not one["sessions"] for one in found)


def _order(plan: Plan, order: Sequence[str], platform: Platform) -> None:
    for names in ranks(platform.services, order):
        changing = [name for name in names if plan["services"][name]["changed"]]
        nodes = {
            datacenter: [
                node
                for node in platform.datacenters[datacenter]["nodes"]
                if any(step["service"] in changing for step in plan["steps"].get(node, []))
            ]
            for datacenter in plan["policy"]["order"]
        }
        if changing:
            proven_before = plan["verb"] == "rollback"
            found = stage(platform.services, changing, nodes, plan["policy"], proven_before=proven_before)
            plan["stages"].append(found)
            plan["waves"] += found["waves"]
    for datacenter in plan["policy"]["order"]:
        nodes = platform.datacenters[datacenter]["nodes"]
        concerned = plan["steps"].keys() | plan["removals"].keys() | plan["switches"].keys()
        # of those that start something, where there are such: images and slots are theirs
        changing = [node for node in nodes if node in plan["steps"]]
        plan["nodes"] += changing
        plan["leads"] += (changing or [node for node in nodes if node in concerned])[:1]
        plan["copies"] += changing[:1] if plan["images"].get(datacenter) or plan["holds"].get(datacenter) else []
        plan["pulls"] += [node for node in changing if any(_needs_pull(step) for step in plan["steps"][node])]


def _needs_pull(step: Step) -> bool:
    return step["pull"] or any(replica["current"] is None for replica in step["replicas"])


def steps_of(plan: Plan, node: str, stage_number: int) -> list[Step]:
    """What a node does in a stage."""
    names = plan["stages"][stage_number]["services"]
    return [step for step in plan["steps"].get(node, []) if step["service"] in names]


def wave_of(plan: Plan, node: str, stage_number: int) -> int:
    """The index of a node's wave within a stage, -1 where it has none."""
    for index, wave in enumerate(plan["stages"][stage_number]["waves"]):
        if any(node in batch for batch in wave["batches"]):
            return index
    return -1


def ends_wave(plan: Plan, node: str, stage_number: int) -> bool:
    """Whether a node is in the last batch of its wave."""
    wave = wave_of(plan, node, stage_number)
    return wave >= 0 and node in plan["stages"][stage_number]["waves"][wave]["batches"][-1]


class Failure(TypedDict):
    """Why a node is not on its release. `stage`: -1 before any switch."""

    stage: int
    reason: str


def may_go_on(plan: Plan, node: str, stage_number: int, failures: Mapping[str, Failure]) -> bool:
    """Whether a node may still change, after what happened to others.

    After a failure in its wave it may not. After one before that, only where `datacenters.on_failure` is `continue`;
    then a failure before any switch (an image that could not be copied or pulled) stops its own datacenter. One in a
    later wave, where candidates start ahead, stops it only where everything will go back.
    """
    if node in failures:
        return False
    on_failure = plan["policy"]["on_failure"]
    lead = places(plan)
    for other, failure in failures.items():
        concerns, is_later = failure["stage"] < 0 and lead.get(other) == lead.get(node), False
        if failure["stage"] == stage_number >= 0:
            its_wave, wave = (wave_of(plan, one, stage_number) for one in (other, node))
            concerns, is_later = its_wave == wave, its_wave > wave
        if concerns or on_failure == "revert_all" or (on_failure == "stop" and not is_later):
            return False
    return True


def starts_ahead(
    plan: Plan,
    node: str,
    stage_number: int,
    failures: Mapping[str, Failure],
    services: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Whether a node starts its candidates before its batch has its turn, once others have proven them.

    Not after a failure, and not where one of them does its work unasked, without a gateway: it would do it beside the
    old one all the while.
    """
    steps = steps_of(plan, node, stage_number)
    starting = any(replica["start"] for step in steps for replica in step["replicas"])
    return starting and not failures and all(services[step["service"]]["gateway"] for step in steps)


def places(plan: Plan) -> dict[str, str]:
    """The datacenter's lead of each node, which stands for it."""
    found, lead = {}, ""
    for node in plan["nodes"]:
        lead = node if node in plan["leads"] else lead
        found[node] = lead
    return found


def revert_plan(
    plan: Plan,
    failures: Mapping[str, Failure],
    nodes: Mapping[str, Mapping[str, Any]],
    services: Mapping[str, Mapping[str, Any]],
) -> Plan:
    """The plan that takes back what a failed rollout moved, as the policy says; empty where it says nothing.

    `nodes`: what they run now, judged. The wave that failed goes back where its services say `auto_revert`; with
    `revert_all` every wave does. What a rollback has moved stays: it left a release that nobody wants back.
    """
    back: Plan = plan | {"verb": "revert", "stages": [], "steps": {}, "images": {}, "holds": {}, "summary": []}
    if plan["verb"] == "rollback":
        return back | {"nodes": [], "changed": False}
    everything = plan["policy"]["on_failure"] == "revert_all"
    for number, found in enumerate(plan["stages"]):
        failed = {wave_of(plan, node, number) for node, failure in failures.items() if failure["stage"] == number}
        for index, wave in enumerate(found["waves"]):
            if not (everything or index in failed):
                continue
            for node in (node for batch in wave["batches"] for node in batch if node in nodes):
                for step in steps_of(plan, node, number):
                    if everything or services[step["service"]]["update"]["auto_revert"]:
                        _revert_step(back, step, node, nodes[node]["services"][step["service"]])
    moved = [node for node in plan["nodes"] if node in back["steps"]]
    back["nodes"], back["changed"] = moved, bool(moved)
    return back


def _has_moved(replica: Replica, observed: Mapping[str, Any]) -> bool:
    """Whether the candidate serves, be it at one of several gateways."""
    candidates = [item for item in (observed["current"], *observed["extra"]) if item]
    slots = [item["slot"] for item in candidates if item["container"] == replica["container"]]
    serves = observed["current"] is not None and observed["current"]["container"] == replica["container"]
    return replica["start"] and (serves or next(iter(slots), replica["slot"]) in (observed.get("admitted") or ()))


def _revert_step(back: Plan, step: Step, node: str, seen: Mapping[str, Any]) -> None:
    observed = {replica["replica"]: replica for replica in seen["replicas"]}
    replicas: list[Replica] = []
    for replica in step["replicas"]:
        now = observed.get(replica["replica"])
        moved = now is not None and now["current"] is not None and _has_moved(replica, now)
        if now and moved and replica["current"] is not None and replica["current_slot"] is not None:
            replicas.append(
                replica
                | {
                    "container": replica["current"],
                    "slot": replica["current_slot"],
                    "current": now["current"]["container"],
                    "current_slot": now["current"]["slot"],
                    "restore": True,
                    "seen": None,
                    "differences": [],
                }
            )
    if replicas:
        release = replicas[0]["from_release"] or 0
        digest = replicas[0]["from_digest"] or ""
        moved_step = step | {"replicas": replicas, "pull": False, "release": release, "digest": digest}
        back["steps"].setdefault(node, []).append(moved_step)


def _summarise(plan: Plan) -> list[str]:
    lines = []
    for stage_number, found in enumerate(plan["stages"]):
        for wave_number, wave in enumerate(found["waves"]):
            for batch_number, batch in enumerate(wave["batches"]):
                where = f"{stage_number + 1}.{wave_number + 1}.{batch_number + 1}"
                for node in batch:
                    for step in steps_of(plan, node, stage_number):
                        lines += [f"{where} {node}: {line}" for line in _describe(step)]
    for node, switches in plan["switches"].items():
        lines += [f"{node}: {plan['verb']} {', '.join(str(switch['backend']) for switch in switches)}"]
    for node, removals in plan["removals"].items():
        lines += [f"{node}: remove {', '.join(removal['containers'])}" for removal in removals]
    lines += [f"orphan on {orphan['node']}: {orphan['container']}" for orphan in plan["orphans"]]
    lines += [f"{node} cannot be reached: it stays as it is" for node in plan["away"]]
    return lines


def _describe(step: Step) -> list[str]:
    lines = []
    for replica in step["replicas"]:
        what = f"{step['service']}.{replica['replica']}"
        if replica["start"]:
            names = [difference["name"] for difference in replica["differences"]] + ["kept"] * replica["restore"]
            why = ", ".join(names) or "new"
            before = f"r{replica['from_release']} {short(replica['from_digest'])}" if replica["current"] else "nothing"
            lines.append(f"{what}: {before} → r{step['release']} {short(step['digest'])} ({why})")
        else:
            lines.append(f"{what}: stop what an interrupted run left behind")
    return lines
