# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was done to the platform, by whom, and how it ended: one line of JSON for each record, never changed again.

Every datacenter keeps them on the host of its lock, and the controller has its own, so that none is lost with a
datacenter. `merge` makes one history of them. A record must hold no secrets: that is the duty of who writes it, as its
texts are shown as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ansible.module_utils.qianjiang import durable
from ansible.module_utils.qianjiang.lock import Lock

RECORD_PATH = "/var/lib/qianjiang/records/rollouts.jsonl"
COLUMNS = ["started", "who", "what", "where", "seconds", "result"]
KINDS = ("rollout", "node", "lock")
# Two records that are alike in these are one
KEY = ("id", "kind", "datacenter", "node", "service", "replica")
NEEDED = ("id", "started_at")


class RecordError(Exception):
    """The file cannot be read or written, or a record is none."""


# What became of a service: the numbers of the releases that ran before, and the one that runs ("from" is Python's word)
ServiceChange = TypedDict("ServiceChange", {"from": "list[int]", "to": "int | None", "digest": "str | None"})


class Rollout(TypedDict):
    """What a run did, and how many sessions were `cut`. Times are ISO 8601 in UTC, with Z.

    `kind` is "rollout", `verb` "rollout", "rollback", "restart" …, and `controller` the name of the controller's host.
    `result` is "succeeded", "failed", or "reverted": it failed, and each replica runs as before.
    """

    kind: str
    id: str
    verb: str
    user: str
    controller: str
    started_at: str
    finished_at: str
    seconds: float
    result: str
    services: dict[str, ServiceChange]
    datacenters: list[str]
    reasons: list[str]
    cut: int


class Node(TypedDict):
    """What a run did to one replica on one node: `kind` is "node", and `id` that of the run."""

    kind: str
    id: str
    datacenter: str
    node: str
    service: str
    replica: int
    from_release: int | None
    from_digest: str | None
    to_release: int | None
    to_digest: str | None
    started_at: str
    seconds: float
    result: str
    reason: str


class LeftLock(TypedDict):
    """What a run that did not come to its end has left in a datacenter.

    `kind` is "lock", `id` the holder's, `reason` what the lock was for, `VERB of SERVICE, …`, and `why` it counts no
    more. If the run has records of its own after all, their `id` begins with that of the holder and "@".
    """

    kind: str
    id: str
    datacenter: str
    user: str
    controller: str
    started_at: str
    reason: str
    why: str


class Found(TypedDict):
    """What a file holds, oldest first, and how many of its lines are no records."""

    records: list[dict[str, Any]]
    damaged: int


def append(path: str, records: Sequence[Mapping[str, Any]]) -> int:
    """Add what is not there yet, durably, all or nothing. Returns how many were added."""
    check(records)
    file = Path(path)
    try:
        with durable.exclusive(file):
            there = {key_of(record) for record in _with_ids(file, {str(record["id"]) for record in records})}
            new: dict[Any, str] = {}
            for record in records:
                if key_of(record) not in there:
                    new.setdefault(key_of(record), json.dumps(record, ensure_ascii=False, sort_keys=True))
            if new:
                durable.append_lines(file, list(new.values()))
            return len(new)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror}; is there space, and is its folder writable?"
        ) from error


def read(path: str, limit: int = 0) -> Found:
    """The records of the newest `limit` runs, or of all for 0. A line that is no record is counted, and no error."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return {"records": [], "damaged": 0}
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    records = [_parse(line) for line in lines if line.strip()]
    sound = [record for record in records if record is not None]
    return {"records": newest(sound, limit), "damaged": len(records) - len(sound)}


def newest(records: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """All records of the `limit` runs that were written last; 0 for all."""
    ids = list(dict.fromkeys(record["id"] for record in reversed(records)))
    kept = set(ids[:limit] if limit else ids)
    return [record for record in records if record["id"] in kept]


def merge(lists: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One history of those of several hosts: each record once, the run before its nodes, by time."""
    found: dict[Any, dict[str, Any]] = {}
    for records in lists:
        for record in records:
            found.setdefault(key_of(record), record)
    return sorted(found.values(), key=lambda record: (record["started_at"], record["kind"] != "rollout"))


def key_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a record the same as another one."""
    return tuple(record.get(name) for name in KEY)


def history_rows(records: Sequence[Mapping[str, Any]], services: Iterable[str] = (), limit: int = 0) -> dict[str, Any]:
    """For the report callback: a row for each run that touched one of `services` (none for all), newest last.

    A run without a record of its own, but with records of nodes, has one too: its result is unknown. One of which there
    is nothing but its lock was interrupted.
    """
    wanted = set(services)
    nodes: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["kind"] == "node":
            nodes.setdefault(record["id"], []).append(record)
    runs = [record for record in records if record["kind"] == "rollout"]
    known = {record["id"] for record in runs}
    runs += [_unknown(run, lines) for run, lines in nodes.items() if run not in known]
    ended = {run["id"].rpartition("@")[0] for run in runs}
    locks: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["kind"] == "lock" and record["id"] not in ended:
            locks.setdefault(record["id"], []).append(record)
    runs += [_interrupted(left) for left in locks.values()]
    runs = sorted(
        (run for run in runs if not wanted or wanted & set(run.get("services") or {})),
        key=lambda run: run["started_at"],
    )
    runs = runs[-limit:] if limit else runs
    notes = [f"{run['started_at']} {note}" for run in runs for note in _notes(run, nodes.get(run["id"], []))]
    return {"columns": COLUMNS, "rows": [_row(run) for run in runs], "notes": notes}


def _row(run: Mapping[str, Any]) -> list[str]:
    changes = [_change(name, change) for name, change in (run.get("services") or {}).items()]
    seconds = run.get("seconds")
    return [
        run["started_at"],
        f"{run['user']}@{run['controller']}" if run.get("user") else "-",
        " ".join([run.get("verb") or "-", ", ".join(changes)]).strip(),
        ", ".join(run.get("datacenters") or []) or "-",
        f"{seconds:.1f}" if isinstance(seconds, (int, float)) else "-",
        run.get("result") or "unknown",
    ]


def _change(name: str, change: Mapping[str, Any]) -> str:
    before = ",".join(f"r{release}" for release in change.get("from") or [])
    after = f"r{change['to']}" if change.get("to") is not None else ""
    arrow = "→" if before and after and before != after else ""
    return f"{name} {before if arrow or not after else ''}{arrow}{after}".strip()


def _notes(run: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why it ended as it did. What a node says is left out where the run says it too."""
    reasons = [str(reason) for reason in run.get("reasons") or []]
    for node in nodes:
        reason = node.get("reason")
        if reason and not any(str(reason) in known for known in reasons):
            reasons.append(f"{node.get('node')}: {reason}")
    cut = run.get("cut") or 0
    return reasons + ([f"{cut} session{'s were' if cut > 1 else ' was'} cut"] if cut else [])


def _unknown(run: str, nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    changes: dict[str, dict[str, Any]] = {}
    for node in nodes:
        change = changes.setdefault(str(node.get("service")), {"from": [], "to": node.get("to_release")})
        if node.get("from_release") is not None and node["from_release"] not in change["from"]:
            change["from"].append(node["from_release"])
    return {
        "kind": "rollout",
        "id": run,
        "started_at": min(node["started_at"] for node in nodes),
        "services": changes,
        "datacenters": list(dict.fromkeys(str(node.get("datacenter")) for node in nodes)),
    }


def left_lock(lock: Lock, why: str, datacenter: str) -> LeftLock:
    """The record of a lock that its run has left behind."""
    holder = lock["holder"]
    return {
        "kind": "lock",
        "id": holder["id"],
        "datacenter": datacenter,
        "user": holder["user"],
        "controller": holder["host"],
        "started_at": lock["acquired_at"],
        "reason": lock["reason"],
        "why": why,
    }


def _interrupted(locks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = min(locks, key=lambda lock: str(lock["started_at"]))
    verb, _, services = str(first.get("reason", "")).partition(" of ")
    return {
        **{key: first.get(key) for key in ("id", "user", "controller", "started_at")},
        "kind": "rollout",
        "verb": verb,
        "services": {name: {} for name in services.split(", ") if name},
        "datacenters": list(dict.fromkeys(str(lock.get("datacenter")) for lock in locks)),
        "result": "interrupted",
        "reasons": list(dict.fromkeys(str(lock.get("why")) for lock in locks)),
    }


def check(records: Sequence[Any]) -> None:
    """Raise RecordError for what is no record, by its path."""
    for index, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise RecordError(f"records[{index}]: expected a dictionary, got {record!r}")
        if record.get("kind") not in KINDS:
            raise RecordError(f"records[{index}].kind: expected {', '.join(KINDS)}, got {record.get('kind')!r}")
        for name in NEEDED:
            if not isinstance(record.get(name), str) or not record[name]:
                raise RecordError(f"records[{index}].{name}: expected a text, got {record.get(name)!r}")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        check([record])
    except (ValueError, RecordError):
        return None
    return dict(record)


def _with_ids(path: Path, ids: set[str]) -> list[dict[str, Any]]:
    """The records of these runs. Lines of others are not even parsed, as a file grows for years."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    marks = [json.dumps(name, ensure_ascii=False).encode() for name in ids]
    found = [_parse(line) for line in lines if any(mark in line for mark in marks)]
    return [record for record in found if record is not None]
