# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node knows of a service, so that a rollout may die at any step and the same command ends right.

A node keeps one file per service, `{"highest_release": 7, "current": {"0": "webui.0.r7"}}`:

- `highest_release` is the fence. `service_start` writes it before it touches a container; a lower release is refused.
- `current` names, per replica, the container that serves. Labels cannot tell: a killed run may leave its candidate
  running beside the old one. So the record decides, and `service_stop` writes it as its first act, after the gateway
  switched and before the old container gets its SIGTERM.

Where a run may die, and what the same command then finds:

- before or while the candidate starts: `current` is the old one, the candidate is extra. Adopted if it is the wanted
  one, else removed.
- before, in or after the switch: the same, and the gateway forwards to either. `gateway_hold` brings the old one back
  into rotation and drains the candidate's slot; then as above.
- after the record, before the stop: `current` is the new one, the old one is extra: `service_stop` stops it.
- in the first rollout of a service: no `current`, the candidate is extra and may serve already. Adopted in its slot.

A candidate's restart policy is `no` until it is proven, then `unless-stopped`. So a stopped container with `no` is what
a killed run left behind, and one with `unless-stopped` was healthy once and is kept for rollback.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from ansible.module_utils.qianjiang import durable
from ansible.module_utils.qianjiang.container import LABEL, SLOTS

STATE_PATH = "/var/lib/qianjiang/services"
# What the engine calls a container that has a process, or will have one again by itself
ACTIVE = ("running", "restarting", "paused")


class StateError(Exception):
    """The node's file of a service cannot be read or written."""


class State(TypedDict):
    """The file of one service."""

    highest_release: int
    current: dict[str, str]


class Owned(TypedDict):
    """A container with our labels."""

    container: str
    id: str
    service: str
    replica: int
    release: int
    slot: str
    digest: str
    configuration: str
    status: str
    image_id: str


class View(TypedDict):
    """A replica: the container that serves, others that run, and the slot for the next one."""

    current: Owned | None
    extra: list[Owned]
    free_slot: str


def _file(directory: str, service: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", service):
        raise StateError(f'not a service name: "{service}"')
    return Path(directory) / f"{service}.json"


def read_state(directory: str, service: str) -> State:
    """The file of a service; a node that never saw it has release 0."""
    file = _file(directory, service)
    try:
        data = json.loads(file.read_text())
        highest, current = data["highest_release"], data.get("current", {})
        if not isinstance(highest, int) or not isinstance(current, dict):
            raise TypeError("wrong types")
        return {"highest_release": highest, "current": {str(key): str(value) for key, value in current.items()}}
    except FileNotFoundError:
        return {"highest_release": 0, "current": {}}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(
            f"{file} is damaged ({error}); move it away and roll the service out again: "
            "what runs keeps running until the new release is proven"
        ) from error
    except OSError as error:
        raise StateError(f"cannot read {file}: {error.strerror}; the modules run as root") from error


def write_state(directory: str, service: str, state: State) -> None:
    """Replace the file of a service: after a crash at any moment it is the old one or the new one."""
    file = _file(directory, service)
    try:
        durable.replace(file, json.dumps(state, sort_keys=True) + "\n")
    except OSError as error:
        raise StateError(
            f"cannot write {file}: {error.strerror}; is there space, and does the module run as root?"
        ) from error


def update_state(directory: str, service: str, change: Callable[[State], State]) -> State:
    """Read, change and write the file as one step among the modules of this node. Returns what is now in it."""
    folder = _file(directory, service).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # the kernel frees the lock of a module that was killed
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StateError(f"cannot use {folder}: {error.strerror}; the modules run as root") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_state(directory, service)
        after = change({"highest_release": before["highest_release"], "current": dict(before["current"])})
        if after != before:
            write_state(directory, service, after)
        return after
    finally:
        os.close(lock)


def fence(state: State, service: str, release: int) -> str | None:
    """Why this release is refused; None when it is not."""
    highest = state["highest_release"]
    if release >= highest:
        return None
    return (
        f"release {release} of {service} is refused: this node has seen release {highest}. "
        "Another rollout took over, or the release number was not taken from the lock; "
        "start the rollout again, it gets a new number"
    )


def claim(directory: str, service: str, release: int) -> None:
    """Raise the fence to this release, or find that someone else raised it further."""

    def raised(state: State) -> State:
        refusal = fence(state, service, release)
        if refusal:
            raise StateError(refusal)
        return {**state, "highest_release": release}

    update_state(directory, service, raised)


def record_serving(directory: str, service: str, replica: int, container: str) -> None:
    """Record the container that serves, as the gateways know it."""

    def recorded(state: State) -> State:
        return {**state, "current": {**state["current"], str(replica): container}}

    update_state(directory, service, recorded)


def owned(entries: Iterable[Mapping[str, Any]]) -> list[Owned]:
    """Our containers out of the engine's list. One whose labels make no sense is in no replica: replica -1."""
    found = [_owned(entry) for entry in entries if f"{LABEL}service" in (entry.get("Labels") or {})]
    return sorted(found, key=lambda item: (item["service"], item["replica"], item["release"], item["container"]))


def _owned(entry: Mapping[str, Any]) -> Owned:
    labels = {key.removeprefix(LABEL): str(value) for key, value in entry["Labels"].items() if key.startswith(LABEL)}
    replica, release, slot = labels.get("replica", ""), labels.get("release", ""), labels.get("slot", "")
    sensible = replica.isdecimal() and release.isdecimal() and slot in SLOTS
    return {
        "container": entry["Names"][0].lstrip("/") if entry.get("Names") else entry["Id"][:12],
        "id": entry["Id"],
        "service": labels["service"],
        "replica": int(replica) if sensible else -1,
        "release": int(release) if release.isdecimal() else 0,
        "slot": slot,
        "digest": labels.get("digest", ""),
        "configuration": labels.get("configuration", ""),
        "status": str(entry.get("State", "")),
        "image_id": str(entry.get("ImageID", "")),
    }


def proven(inspect: Mapping[str, Any] | None) -> bool:
    """Whether a container that ended was healthy once: else it is what a killed run left behind."""
    if inspect is None or inspect["State"].get("Status") in ("created", "dead"):
        return False
    return (inspect["HostConfig"].get("RestartPolicy") or {}).get("Name", "no") not in ("", "no")


def replica_view(containers: Iterable[Owned], recorded: str | None) -> View:
    """What a replica's containers mean, given the name on record."""
    all_of_them = list(containers)
    current = next((item for item in all_of_them if item["container"] == recorded), None)
    extra = sorted(
        (item for item in all_of_them if item is not current and item["status"] in ACTIVE),
        key=lambda item: item["release"],
    )
    return {"current": current, "extra": extra, "free_slot": _free_slot(current, extra)}


def _free_slot(current: Owned | None, extra: list[Owned]) -> str:
    """The slot a candidate may take. Without a record whoever runs may be serving: it keeps its slot while it can."""
    if current is not None:
        return str(SLOTS[1 - SLOTS.index(current["slot"])])
    taken = {item["slot"] for item in extra}
    free = [slot for slot in SLOTS if slot not in taken]
    return free[0] if free else extra[-1]["slot"]
