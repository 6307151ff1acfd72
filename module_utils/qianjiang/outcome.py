# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a plan: for the report, and as records. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.qianjiang.plan import Failure, Plan, Replica, Step

Nodes = Mapping[str, Mapping[str, Any]]


def asked_for(plan: Plan, nodes: Nodes, failures: Mapping[str, Failure]) -> dict[str, dict[str, Any]]:
    """The observed nodes, compared with what the plan asks for where that is not what the catalogue asks for.

    What the plan removed is no orphan any more. After a failure the nodes were looked at again, and say so themselves.
    """
    gone = {
        (node, name)
        for node, removals in plan["removals"].items()
        if not failures
        for removal in removals
        for name in removal["containers"]
    }
    there: dict[str, dict[str, Any]] = {
        node: dict(seen) | {"orphans": [item for item in seen["orphans"] if (node, item["container"]) not in gone]}
        for node, seen in nodes.items()
    }
    if plan["verb"] not in ("rollback", "scale"):
        return there
    compared = {}
    for node, seen in there.items():
        services = dict(seen["services"])
        for name, target in plan["services"].items():
            if name in services:
                # Scaling is by number alone: where that is several images, each stays
                digest = target["digest"] if plan["verb"] == "rollback" else None
                replicas = [_on_release(item, target["release"], digest) for item in services[name]["replicas"]]
                services[name] = dict(services[name]) | {"replicas": replicas}
        compared[node] = dict(seen) | {"services": services}
    return compared


def _on_release(replica: Mapping[str, Any], release: int, digest: str | None) -> dict[str, Any]:
    current = replica["current"] or {"release": None, "digest": None}
    wrong: list[dict[str, Any]] = []
    if current["release"] != release:
        wrong = [{"name": "release", "before": current["release"], "after": release}]
    elif digest and current["digest"] != digest:
        wrong = [{"name": "image", "before": current["digest"], "after": digest}]
    return dict(replica) | {"differences": wrong}


def result_of(
    step: Step, replica: Replica, seen: Mapping[str, Any] | None, failure: Failure | None, *, went_back: bool = False
) -> tuple[str, str]:
    """`succeeded`, `reverted`, `failed` or `untouched` for a planned replica, and why.

    `went_back`: it had moved, and what it came from serves again.
    """
    reason = failure["reason"] if failure else ""
    if seen is None:
        return "failed", reason or "could not be reached"
    current = _running(step, replica, seen)
    if current is not None and current["container"] == replica["container"]:
        return "succeeded", reason
    if failure:
        return "failed", reason
    return ("reverted", "its wave went back") if went_back else ("untouched", "the rollout ended before its turn")


def as_before(step: Step, replica: Replica, seen: Mapping[str, Any] | None) -> bool:
    """Whether a planned replica is known to run on the release that it came from, or, if there was none, not at all."""
    current = _running(step, replica, seen) if seen is not None else None
    return seen is not None and (current["release"] if current else None) == replica["from_release"]


def _running(step: Step, replica: Replica, seen: Mapping[str, Any]) -> Mapping[str, Any] | None:
    replicas = seen["services"].get(step["service"], {"replicas": []})["replicas"]
    current = next((item["current"] for item in replicas if item["replica"] == replica["replica"]), None)
    return current if current and current["running"] else None


def taken_back(revert: Plan | None, node: str, service: str) -> set[int]:
    """The replicas of a service that a revert takes back on a node."""
    steps = revert["steps"].get(node, []) if revert else []
    return {replica["replica"] for step in steps if step["service"] == service for replica in step["replicas"]}


def records(
    plan: Plan,
    nodes: Nodes,
    failures: Mapping[str, Failure],
    *,
    revert: Plan | None = None,
    cut: Mapping[str, int],
    deployer: Mapping[str, Any],
    started_at: str,
    places: Mapping[str, str],
    problems: Sequence[str] = (),
    now: datetime | None = None,
) -> list[dict[str, Any]]:
    """The rollout's record and one for each replica that it was to change (module_utils/qianjiang/record.py).

    `nodes`: what runs now. `revert`: the plan that took back what had moved, if there was one. `cut`: sessions cut by
    node. `places`: the datacenter of each node. `started_at`: ISO 8601. `problems`: why the run does not end well,
    failures among them; what the report says.
    """
    finished = now or datetime.now(timezone.utc)
    seconds = round((finished - datetime.fromisoformat(started_at)).total_seconds(), 1)
    shared = {"id": f"{deployer['id']}@{started_at}", "started_at": started_at, "seconds": seconds}
    lines: list[dict[str, Any]] = []
    all_as_before = True
    before: dict[str, set[int]] = {}
    for node in plan["nodes"]:
        for step in plan["steps"][node]:
            back = taken_back(revert, node, step["service"])
            for replica in step["replicas"]:
                went_back = replica["replica"] in back
                result, reason = result_of(step, replica, nodes.get(node), failures.get(node), went_back=went_back)
                all_as_before = all_as_before and as_before(step, replica, nodes.get(node))
                if replica["from_release"] is not None:
                    before.setdefault(step["service"], set()).add(replica["from_release"])
                lines.append(
                    shared
                    | {
                        "kind": "node",
                        "datacenter": places.get(node, ""),
                        "node": node,
                        "service": step["service"],
                        "replica": replica["replica"],
                        "from_release": replica["from_release"],
                        "from_digest": replica["from_digest"],
                        "to_release": step["release"],
                        "to_digest": step["digest"],
                        "result": result,
                        "reason": first_line(reason),
                    }
                )
    succeeded = not failures and not problems and all(line["result"] == "succeeded" for line in lines)
    rollout = shared | {
        "kind": "rollout",
        "verb": plan["verb"],
        "user": deployer["user"],
        "controller": deployer["host"],
        "finished_at": finished.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "result": "succeeded" if succeeded else "reverted" if lines and all_as_before else "failed",
        "services": {
            name: {"from": sorted(before.get(name, set())), "to": target["release"], "digest": target["digest"]}
            for name, target in plan["services"].items()
            if target["changed"]
        }
        | _without_release(plan),
        "datacenters": list(dict.fromkeys(places.get(node, "") for node in concerned(plan))),
        "reasons": [f"{node}: {first_line(failure['reason'])}" for node, failure in failures.items()]
        or [first_line(problem) for problem in problems],
        "cut": sum(cut.values()),
    }
    return [rollout, *lines]


def concerned(plan: Plan) -> list[str]:
    """The nodes on which anything changes."""
    return list(dict.fromkeys([*plan["nodes"], *plan["removals"], *plan["switches"]]))


def _without_release(plan: Plan) -> dict[str, Any]:
    """What is removed, drained or brought back: it goes to no release."""
    removed = [item["service"] for removals in plan["removals"].values() for item in removals]
    switched = [switch["backend"] for switches in plan["switches"].values() for switch in switches]
    changed = {name for name, target in plan["services"].items() if target["changed"]}
    return {name: {"from": [], "to": None, "digest": None} for name in [*removed, *switched] if name not in changed}


def first_line(text: str) -> str:
    """A reason without the log lines that follow it: what a container wrote is not for the record."""
    return text.splitlines()[0] if text else ""
