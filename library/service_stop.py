#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop what no longer serves, and keep the last releases for rollback."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_stop
short_description: Stop the other containers of a replica, and keep the last ones for rollback
version_added: "0.1.0"
description:
  - Records that O(keep) serves, then stops every other container of the replica with SIGTERM and, after the stop
    timeout it was made with, SIGKILL.
  - The stopped ones stay for rollback, the newest C(keep_releases) of them. Older ones are removed, and so are those
    that a killed run left unproven, each with its image when nothing else uses that.
  - Call it when the gateway no longer forwards to the others.
  - Refused when O(keep) does not run, or when its release is lower than the highest this node has seen and it is not
    the one on record.
attributes:
  check_mode:
    description: Says what it would record, stop and remove, as if O(keep) were running.
    support: full
  diff_mode:
    description: Shows the record, containers and images that change.
    support: full
options:
  service:
    description: The service with every key, as the filter C(normalised_services) gives it.
    type: dict
    required: true
  replica:
    description: The replica of this node, from 0.
    type: int
    default: 0
  keep:
    description: The container that serves now, as P(service_start#module) returned it.
    type: str
    required: true
  state_path:
    description: The directory where this node keeps its record of each service.
    type: path
    default: /var/lib/qianjiang/services
requirements:
  - Docker SDK for Python >= 5.0.3 (python3-docker)
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Stop the old WebUI, which the gateway no longer forwards to
  service_stop:
    service: "{{ services_normalised.webui }}"
    keep: "{{ candidate.container }}"
"""

RETURN = r"""
stopped:
  description: The containers it stopped. RV(stopped.killed) is true where SIGTERM was not enough.
  returned: when not in check mode
  type: list
  elements: dict
  sample: [{"container": "webui.0.r6", "seconds": 0.6, "killed": false, "exit_code": 0}]
removed:
  description: The containers it removed.
  returned: success
  type: list
  elements: str
  sample: [webui.0.r4]
images_removed:
  description: The images it removed.
  returned: when not in check mode
  type: list
  elements: str
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.container import Difference
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.secret import discreet
from ansible.module_utils.qianjiang.service_state import (
    ACTIVE,
    STATE_PATH,
    Owned,
    State,
    StateError,
    fence,
    owned,
    proven,
    read_state,
    update_state,
)

# The engine's own status of a process that SIGKILL ended
_KILLED = 137
_DEFAULT_STOP_TIMEOUT = 10


def plan(
    desired: Mapping[str, Any],
    containers: list[Owned],
    other_images: list[str],
    state: State,
    is_proven: Callable[[Owned], bool],
) -> list[Difference]:
    """What changes, in order: the record, containers (to stopped, or None: removed), images."""
    kept = _keeper(desired, containers, state)
    containers = [item for item in containers if item["container"] != kept["container"]]
    changes: list[Difference] = []
    recorded = state["current"].get(str(desired["replica"]))
    if recorded != kept["container"]:
        changes.append({"name": "current", "before": recorded, "after": kept["container"]})
    if kept["release"] > state["highest_release"]:
        changes.append({"name": "highest_release", "before": state["highest_release"], "after": kept["release"]})
    others = sorted(containers, key=lambda item: item["release"], reverse=True)
    for_rollback = [item for item in others if is_proven(item)][: desired["keep_releases"]]
    gone = [item for item in others if item not in for_rollback]
    order: list[tuple[Owned, str | None]] = [
        *((item, "stopped") for item in for_rollback if item["status"] in ACTIVE),
        *((item, None) for item in gone),
    ]
    changes += [{"name": item["container"], "before": item["status"], "after": after} for item, after in order]
    used = {*other_images, kept["image_id"], *(item["image_id"] for item in for_rollback)}
    unused = sorted({item["image_id"] for item in gone} - used)
    return changes + [{"name": image, "before": "present", "after": None} for image in unused]


def _keeper(desired: Mapping[str, Any], containers: list[Owned], state: State) -> Owned:
    """The container to keep, or why nothing may be stopped."""
    name = desired["keep"]
    kept = next((item for item in containers if item["container"] == name), None)
    if desired.get("assume") and (kept is None or kept["status"] != "running"):
        # in check mode service_start did not start it
        release = name.rpartition(".r")[2]
        kept = Owned(
            container=name,
            id="",
            service=name.split(".")[0],
            replica=desired["replica"],
            release=int(release) if release.isdecimal() else 0,
            slot="",
            digest="",
            configuration="",
            status="running",
            image_id="",
        )
    if kept is None:
        running = ", ".join(item["container"] for item in containers if item["status"] in ACTIVE) or "none"
        raise ValueError(f"{name} is not there, so nothing is stopped; running: {running}")
    if kept["status"] != "running":
        raise ValueError(f"{name} is {kept['status']}, so nothing is stopped; start it first (service_start)")
    refusal = fence(state, kept["service"], kept["release"])
    # what is on record may stay, whatever candidate of a later release came and failed
    if refusal and state["current"].get(str(desired["replica"])) != name:
        raise ValueError(refusal)
    return kept


def apply(engine: Engine, changes: list[Difference], images: Mapping[str, str]) -> dict[str, Any]:
    """Stop and remove as planned. `images`: the reference of each image, by its id."""
    stopped: list[dict[str, Any]] = []
    images_removed: list[str] = []
    for change in changes:
        name, before, after = change["name"], change["before"], change["after"]
        if before == "present":
            reference = images.get(name, name)
            if engine.remove_image(reference):
                images_removed.append(reference)
            continue
        if before in ACTIVE:
            stopped += _stop(engine, name)
        if after is None:
            engine.remove(name)
    return {"stopped": stopped, "images_removed": images_removed}


def _stop(engine: Engine, name: str) -> list[dict[str, Any]]:
    inspect = engine.inspect(name)
    if inspect is None:
        return []
    timeout = inspect["Config"].get("StopTimeout")
    begin = time.monotonic()
    engine.stop(name, _DEFAULT_STOP_TIMEOUT if timeout is None else timeout)
    state = (engine.inspect(name) or inspect)["State"]
    return [
        {
            "container": name,
            "seconds": round(time.monotonic() - begin, 2),
            "killed": state["ExitCode"] == _KILLED and not state.get("OOMKilled"),
            "exit_code": state["ExitCode"],
        }
    ]


def main() -> None:
    """Run the module."""
    module = discreet(AnsibleModule)(
        argument_spec={
            "service": {"type": "dict", "required": True},
            "replica": {"type": "int", "default": 0},
            "keep": {"type": "str", "required": True},
            "state_path": {"type": "path", "default": STATE_PATH},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        result = stop(module, params)
    except (EngineError, StateError, ValueError) as error:
        module.fail_json(msg=f"service_stop: {error}")
    module.exit_json(**result)


def stop(module: AnsibleModule, params: Mapping[str, Any]) -> dict[str, Any]:
    """Read, plan, apply."""
    name, replica = params["service"]["name"], params["replica"]
    engine = Engine()
    entries = engine.containers()
    mine = [item for item in owned(entries) if (item["service"], item["replica"]) == (name, replica)]
    ids = {item["id"] for item in mine}
    other_images = [entry["ImageID"] for entry in entries if entry["Id"] not in ids]
    desired = {
        "replica": replica,
        "keep": params["keep"],
        "keep_releases": params["service"]["keep_releases"],
        "assume": module.check_mode,
    }
    state = read_state(params["state_path"], name)
    changes = plan(desired, mine, other_images, state, lambda item: proven(engine.inspect(item["id"])))
    names = {item["container"] for item in mine}
    outcome: dict[str, Any] = {
        "changed": bool(changes),
        "diff": {side: {item["name"]: item[side] for item in changes} for side in ("before", "after")},
        "removed": [item["name"] for item in changes if item["name"] in names and item["after"] is None],
    }
    if not module.check_mode:
        # First the record, then the stops: killed in between, the next run finds what serves and stops the rest
        update_state(params["state_path"], name, lambda found: recorded(found, replica, mine, params["keep"]))
        images = {entry["ImageID"]: entry["Image"] for entry in entries if entry["Id"] in ids}
        work = [item for item in changes if item["name"] not in ("current", "highest_release")]
        outcome |= apply(engine, work, images)
    return outcome


def recorded(state: State, replica: int, containers: list[Owned], keep: str) -> State:
    """The record with this container as the one that serves. The fence is asked again: time has passed."""
    kept = _keeper({"replica": replica, "keep": keep}, containers, state)
    return {
        "highest_release": max(state["highest_release"], kept["release"]),
        "current": {**state["current"], str(replica): keep},
    }


if __name__ == "__main__":
    main()
