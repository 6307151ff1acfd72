# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a candidate comes to run: what to adopt, start, create or remove, and how it is proven."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ansible.module_utils.qianjiang.change import Change
from ansible.module_utils.qianjiang.container import SLOTS, create_body, moved_body
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.probe import (
    NO_VERDICT,
    Observation,
    UnprovenError,
    check_command,
    container_problem,
    port_holder,
    probe_http,
    probe_tcp,
    wait_proven,
)
from ansible.module_utils.qianjiang.service_state import ACTIVE, Owned

# What becomes of a candidate that failed
SERVES = "it serves, so it was left alone"
STOPPED = "it was stopped again, and is kept; what serves was not touched"
REMOVED = "it was removed, what serves was not touched"
_STOP_TIMEOUT = 10


class CandidateFailedError(Exception):
    """The candidate is not proven; `facts` go into the result."""

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.facts = facts


class Decision(NamedTuple):
    """What to do: `create`, `start` (a stopped one), `move` (it, to the other slot) or `adopt` (one that runs)."""

    action: str
    container: str
    slot: str
    remove: list[str]
    changes: list[Change]
    frees_port: bool = False


def plan(
    wanted: Mapping[str, str],
    containers: list[Owned],
    recorded: str | None,
    differences: Callable[[Owned], list[Change]],
    is_proven: Callable[[Owned], bool],
) -> Decision:
    """Decide how `wanted` (container, slot) comes to run, given the replica's containers."""
    name = wanted["container"]
    same = next((item for item in containers if item["container"] == name), None)
    current = next((item for item in containers if item["container"] == recorded), None)
    action, slot = "create", wanted["slot"]
    if same is not None:
        unlike = differences(same)
        if unlike and same is current:
            names = ", ".join(item["name"] for item in unlike)
            raise ValueError(
                f"{name} serves with another content (different: {names}); a release number never names two things: "
                "start the rollout again, it gets a new number"
            )
        slot_is_free = current is None or current is same or current["slot"] != same["slot"]
        if not unlike and same["status"] == "running":
            action, slot = "adopt", same["slot"]
        elif not unlike and same["status"] not in ACTIVE and slot_is_free and is_proven(same):
            action, slot = "start", same["slot"]
    if current and current is not same and current["status"] in ACTIVE and current["slot"] == slot:
        other = SLOTS[1 - SLOTS.index(slot)]
        raise ValueError(
            f"slot {slot} belongs to {recorded}, which serves; start the candidate in slot {other} "
            "(service_compare says which is free)"
        )
    left_over = [
        item
        for item in containers
        if item is not current
        and item is not same
        and (item["slot"] == slot if item["status"] in ACTIVE else not is_proven(item))
    ]
    changes: list[Change] = [{"name": item["container"], "before": item["status"], "after": None} for item in left_over]
    remove = [item["container"] for item in left_over]
    if action == "create" and same is not None:
        remove.append(name)
    if action != "adopt":
        before = same["status"] if same else None
        changes.append({"name": name, "before": before, "after": f"running in slot {slot}"})
    elif same is not None and not is_proven(same):
        changes.append({"name": name, "before": "unproven", "after": "proven"})
    # a left-over has this slot's port until it is removed
    freed = [item for item in containers if item["container"] in remove and item["status"] in ACTIVE]
    return Decision(action, name, slot, remove, changes, any(item["slot"] == slot for item in freed))


def plan_restore(
    wanted: Mapping[str, str],
    containers: list[Owned],
    recorded: str | None,
    is_proven: Callable[[Owned], bool],
) -> Decision:
    """Decide how a kept container comes to run again, as it is, in the slot that is free."""
    name, slot = wanted["container"], wanted["slot"]
    kept = next((item for item in containers if item["container"] == name), None)
    if kept is None:
        there = ", ".join(item["container"] for item in containers) or "none"
        raise ValueError(f"{name} was not kept on this node; there are {there}")
    if kept["status"] == "running":
        return Decision("adopt", name, kept["slot"], [], [])
    left_over = [
        item
        for item in containers
        if item is not kept
        and item["container"] != recorded
        and (item["slot"] == slot if item["status"] in ACTIVE else not is_proven(item))
    ]
    changes: list[Change] = [
        *({"name": item["container"], "before": item["status"], "after": None} for item in left_over),
        {"name": name, "before": kept["status"], "after": f"running in slot {slot}"},
    ]
    freed = any(item["slot"] == slot and item["status"] in ACTIVE for item in left_over)
    action = "start" if kept["slot"] == slot else "move"
    return Decision(action, name, slot, [item["container"] for item in left_over], changes, freed)


def apply(
    engine: Engine, decision: Decision, spec: Mapping[str, Any], params: Mapping[str, Any], *, serves: bool
) -> dict[str, Any]:
    """Do it and wait. `serves`: it is the current container, which is left alone even when it fails."""
    name, update = decision.container, params["service"]["update"]
    begin = time.monotonic()
    for other in decision.remove:
        engine.remove(other)
    try:
        if decision.action == "create":
            engine.create(create_body(spec), name)
        elif decision.action == "move":
            _move(engine, name, decision.slot, spec["host_port"])
        # A stopped one keeps its restart policy, by which it is known as proven, whatever happens to this run. When it
        # ends and the engine starts it again, `observe` sees that
        if decision.action != "adopt":
            engine.start(name)
        started_at = ((engine.inspect(name) or {}).get("State") or {}).get("StartedAt", "")
        seen = wait_proven(
            lambda: observe(engine, name, started_at, spec, params),
            min_healthy_time=0 if serves else update["min_healthy_time"],
            healthy_deadline=update["healthy_deadline"],
            check=partial(check, engine, name, params["service"]["health"]["timeout"]),
        )
        if not serves:
            engine.set_restart(name, "unless-stopped")
    except (EngineError, UnprovenError) as error:
        is_kept = params.get("restore") and decision.action != "move"
        fate = SERVES if serves else STOPPED if is_kept else REMOVED
        raise _failed(engine, name, error, params["log_lines"], fate) from error
    probes = seen.probes if seen.healthy else seen.probes | {"container": "healthy"}
    return {"probes": probes, "seconds": round(time.monotonic() - begin, 2)}


def _move(engine: Engine, name: str, slot: str, host_port: int | None) -> None:
    """The same container in another slot. The old one stays, under another name, until a rollout has ended well."""
    inspect = engine.inspect(name)
    if inspect is None:
        raise EngineError(f"{name} was removed by someone else just now; run this again")
    engine.rename(name, f"{name}.{inspect['Id'][:12]}")
    engine.create(moved_body(inspect, slot, host_port), name)


def _failed(engine: Engine, name: str, error: Exception, lines: int, fate: str) -> CandidateFailedError:
    state = (engine.inspect(name) or {}).get("State") or {}
    log = engine.logs(name, lines) if state else []
    if fate == REMOVED:
        engine.remove(name)
    elif fate == STOPPED and state:
        # kept for rollback as before
        engine.set_restart(name, "unless-stopped")
        engine.stop(name, _STOP_TIMEOUT)
    reason = str(error)
    words = f". Its last log lines:\n{chr(10).join(log)}" if log else ". It logged nothing"
    message = f"{name} {reason}" if isinstance(error, UnprovenError) else reason
    facts = {
        "reason": reason,
        "exit_code": None if state.get("Running") else state.get("ExitCode"),
        "log": log,
        "removed": fate == REMOVED,
    }
    return CandidateFailedError(f"{message}; {fate}{words}", facts)


def observe(
    engine: Engine, name: str, started_at: str, spec: Mapping[str, Any], params: Mapping[str, Any]
) -> Observation:
    """One look at the container and at its port."""
    inspect = engine.inspect(name)
    ended, problem = container_problem(inspect, started_at)
    health = params["service"]["health"]
    probes: dict[str, Any] = {
        "container": (((inspect or {}).get("State") or {}).get("Health") or {}).get("Status", "none")
    }
    problems = [problem] if problem else []
    port, address = spec["host_port"], params["address"]
    if port and not ended:
        paths = dict.fromkeys(path for path in (health["path"], health["ready_path"]) if path)
        for path in paths:
            probes[path], problem = probe_http(address, port, path, health["timeout"])
            problems += [problem] if problem else []
        if not paths:
            probes["port"], problem = probe_tcp(address, port, health["timeout"])
            problems += [problem] if problem else []
    return Observation(not problems, ended, "; ".join(problems), probes, bool(port) and problems == [NO_VERDICT])


def check(engine: Engine, name: str, timeout: float) -> str:
    """Run the container's own check now: what is wrong with it ("": nothing).

    An engine runs it for the first time an interval after the start (from 25.0 on, sooner), and a rollout would wait
    for that at each node.
    """
    command = check_command((engine.inspect(name) or {}).get("Config") or {})
    try:
        code = engine.execute(name, command, timeout) if command else 0
    except EngineError as error:
        return f"its health check fails: {error}"
    if code is None:
        return f"its health check has not ended after {timeout:g} s"
    return f"its health check fails with exit code {code}" if code else ""


def port_conflict(decision: Decision, port: int, entries: Iterable[Mapping[str, Any]]) -> str | None:
    """Who else has the port of the candidate's slot; None when it is free, or will be."""
    ours = (*decision.remove, decision.container)
    others = [entry for entry in entries if not any(name.lstrip("/") in ours for name in entry.get("Names") or [])]
    holder = port_holder(port, others)
    # the engine's proxy process of the left-over, not a stranger
    return None if holder and holder.startswith("process") and decision.frees_port else holder
