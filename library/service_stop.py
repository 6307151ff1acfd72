#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop what no longer serves, and keep the last releases for rollback."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_stop
short_description: Stop the other containers of replicas, keep the last ones for rollback, and say what runs
version_added: "0.1.0"
description:
  - Records that O(replicas[].keep) serves, then stops every other container of the replica with SIGTERM and, after the
    stop timeout it was made with, SIGKILL. Those of several replicas stop side by side.
  - The stopped ones stay for rollback, the newest C(keep_releases) of them. Older ones are removed, and so are those
    that a killed run left unproven, and what was rolled back before a newer release came, each with its image when
    nothing else uses that. With O(unused_images), images go that were pulled and run in no container, too.
  - Call it when the gateway no longer forwards to the others.
  - Refused when the container to keep does not run, or when the rollout's number is lower than the highest this node
    has seen and it is not the one on record.
  - Ends with a look at the whole node, as P(service_compare#module) has it, once the engine has checked what serves for
    the first time.
attributes:
  check_mode:
    description: Says what it would record, stop and remove, as if the containers to keep were running.
    support: full
  diff_mode:
    description: Shows the record, containers and images that change.
    support: full
options:
  replicas:
    description: The replicas that changed.
    type: list
    elements: dict
    required: true
    suboptions:
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
      drop:
        description: A container that is not kept for rollback, though it was healthy. It failed later.
        type: str
      number:
        description: The number of the rollout. That of the container's release where it is left out.
        type: int
  unused_images:
    description:
      - Removes the images of the replicas' repositories that no container uses, as a release that failed leaves them on
        every node. One with a tag stays.
      - Only when nothing else is to start. Where it is left out, such images stay.
    type: dict
    suboptions:
      registries:
        description: The registries that the node pulls from, C(host[:port]). Images of others stay.
        type: list
        elements: str
        required: true
      keep:
        description: Digests that stay, as those of the rollout, which may be wanted again.
        type: list
        elements: str
        required: true
  services:
    description: Every service that the catalogue places on this node, for the look at the end.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - service
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Stop the old WebUI, which the gateway no longer forwards to
  service_stop:
    replicas:
      - service: "{{ services_normalised.webui }}"
        keep: "{{ started.candidates[0].container }}"
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
services:
  description: What then runs, as P(service_compare#module) returns it. In check mode, what runs now.
  returned: success
  type: dict
orphans:
  description: Likewise.
  returned: success
  type: list
  elements: dict
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.ending import end_containers, unused_images
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.observation import observe_node
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

# Seconds between two looks at what has no verdict yet
_POLL = 0.2
# Changes of the node's record, not of its containers
RECORD = ("current", "highest_release")


def plan(
    desired: Mapping[str, Any],
    containers: list[Owned],
    other_images: list[str],
    state: State,
    is_proven: Callable[[Owned], bool],
) -> list[Change]:
    """What changes, in order: the record, containers (to stopped, or None: removed), images."""
    kept = _keeper(desired, containers, state)
    containers = [item for item in containers if item["container"] != kept["container"]]
    changes: list[Change] = []
    recorded = state["current"].get(str(desired["replica"]))
    if recorded != kept["container"]:
        changes.append({"name": "current", "before": recorded, "after": kept["container"]})
    number = _number(desired, kept)
    if number > state["highest_release"]:
        changes.append({"name": "highest_release", "before": state["highest_release"], "after": number})
    others = sorted(containers, key=lambda item: item["release"], reverse=True)
    served = [item["release"] for item in others if item["status"] in ACTIVE or item["container"] == recorded]
    # newer than what served, and older than what serves now
    rolled_back = range(max(served, default=kept["release"]) + 1, kept["release"])
    for_rollback: list[Owned] = []
    for item in others:
        # one of each release is enough: a container that was moved to another slot leaves its twin
        known = {kept["release"], *(one["release"] for one in for_rollback), *rolled_back}
        wanted = item["release"] not in known and item["container"] != desired.get("drop")
        if wanted and len(for_rollback) < desired["keep_releases"] and is_proven(item):
            for_rollback.append(item)
    gone = [item for item in others if item not in for_rollback]
    used = {*other_images, kept["image_id"], *(item["image_id"] for item in for_rollback)}
    # What runs beside the one that serves tells a run after a killed one that there is work; so it goes last
    idle, active = ([item for item in gone if (item["status"] in ACTIVE) is runs] for runs in (False, True))
    changes += _removals(idle, used | {item["image_id"] for item in active})
    changes += [_change(item, "stopped") for item in for_rollback if item["status"] in ACTIVE]
    return changes + _removals(active, used)


def _removals(containers: list[Owned], used: set[str]) -> list[Change]:
    """Of containers, and then of the images that nothing else uses."""
    unused = sorted({item["image_id"] for item in containers} - used)
    images: list[Change] = [{"name": image, "before": "present", "after": None} for image in unused]
    return [_change(item, None) for item in containers] + images


def _change(item: Owned, after: str | None) -> Change:
    return {"name": item["container"], "before": item["status"], "after": after}


def _number(desired: Mapping[str, Any], kept: Owned) -> int:
    return int(desired.get("number") or kept["release"])


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
    refusal = fence(state, kept["service"], _number(desired, kept))
    # By its own release's number, what is on record may stay, whatever candidate of a later one came and failed
    is_recorded = state["current"].get(str(desired["replica"])) == name
    if refusal and (desired.get("number") or not is_recorded):
        raise ValueError(refusal)
    return kept


class Work(NamedTuple):
    """What one replica needs."""

    desired: Mapping[str, Any]
    containers: list[Owned]
    changes: list[Change]

    @property
    def gone(self) -> set[str]:
        """The ids of the containers that it removes."""
        removed = {change["name"] for change in self.changes if change["after"] is None}
        return {item["id"] for item in self.containers if item["container"] in removed}


def look(
    engine: Engine,
    wanted: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
    gone: Iterable[str] = (),
) -> Work:
    """Read and plan one replica. `gone`: containers that others remove, which need their images no longer."""
    name, replica = wanted["service"]["name"], wanted["replica"]
    mine = [item for item in owned(entries) if (item["service"], item["replica"]) == (name, replica)]
    ids = {item["id"] for item in mine} | set(gone)
    other_images = [entry["ImageID"] for entry in entries if entry["Id"] not in ids]
    desired = {
        "replica": replica,
        "keep": wanted["keep"],
        "drop": wanted["drop"],
        "number": wanted["number"],
        "keep_releases": wanted["service"]["keep_releases"],
        "service": name,
        "assume": params["assume"],
    }
    state = read_state(params["state_path"], name)
    changes = plan(desired, mine, other_images, state, lambda item: proven(engine.inspect(item["id"])))
    return Work(desired, mine, changes)


def stop(module: AnsibleModule, params: Mapping[str, Any]) -> dict[str, Any]:
    """Read, plan, apply, look."""
    engine = Engine()
    entries = engine.containers()
    seen = dict(params) | {"assume": module.check_mode}
    alone = [look(engine, wanted, entries, seen) for wanted in params["replicas"]]
    gone = {container for item in alone for container in item.gone}
    work = [look(engine, wanted, entries, seen, gone) for wanted in params["replicas"]] if len(alone) > 1 else alone
    unused = unused_of(engine, entries, params)
    changes = [change for item in work for change in item.changes] + unused
    names = {container["container"] for item in work for container in item.containers}
    outcome: dict[str, Any] = {
        "changed": bool(changes),
        "diff": difference(changes),
        "removed": [item["name"] for item in changes if item["name"] in names and item["after"] is None],
    }
    if module.check_mode:
        return {**outcome, **observe_node(engine, params["services"], params["state_path"])}
    # First the records, then the stops: killed in between, the next run finds what serves and stops the rest
    for item in work:
        update_state(params["state_path"], item.desired["service"], partial(recorded, item.desired, item.containers))
    images = {entry["ImageID"]: entry["Image"] for entry in entries}
    with ThreadPoolExecutor(max_workers=max(len(work), 1)) as pool:
        done = list(pool.map(lambda item: end_containers(Engine(), _endings(item.changes), images), work))
    done.append(end_containers(engine, unused, {}))
    outcome |= {key: [entry for item in done for entry in item[key]] for key in ("stopped", "images_removed")}
    return {**outcome, **observe_judged(engine, params)}


def unused_of(engine: Engine, entries: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> list[Change]:
    """The removal of what no container uses of the replicas' images, where that is asked for."""
    wanted = params["unused_images"]
    if wanted is None:
        return []
    repositories = {one["service"]["repository"] for one in params["replicas"]}
    names = {f"{registry}/{repository}" for registry in wanted["registries"] for repository in repositories}
    found: list[Change] = unused_images(engine.all_images(), entries, names, wanted["keep"])
    return found


def observe_judged(engine: Engine, params: Mapping[str, Any]) -> dict[str, Any]:
    """What then runs, with the engine's verdict of what serves: it may come as late as an interval after a start."""
    health = [wanted["service"]["health"] for wanted in params["replicas"]]
    kept = {wanted["keep"] for wanted in params["replicas"]}
    end = time.monotonic() + max((item["interval"] + item["timeout"] for item in health), default=0)
    while True:
        seen: dict[str, Any] = observe_node(engine, params["services"], params["state_path"])
        replicas = [replica["current"] for service in seen["services"].values() for replica in service["replicas"]]
        starting = [item for item in replicas if item and item["container"] in kept and item["health"] == "starting"]
        if not starting or time.monotonic() >= end:
            return seen
        time.sleep(_POLL)


def _endings(changes: Sequence[Change]) -> list[Change]:
    return [change for change in changes if change["name"] not in RECORD]


def recorded(desired: Mapping[str, Any], containers: list[Owned], state: State) -> State:
    """The record with this container as the one that serves. The fence is asked again: time has passed."""
    kept = _keeper({**desired, "assume": False}, containers, state)
    return {
        "highest_release": max(state["highest_release"], _number(desired, kept)),
        "current": {**state["current"], str(desired["replica"]): desired["keep"]},
    }


def main() -> None:
    """Run the module."""
    replica = {
        "service": {"type": "dict", "required": True},
        "replica": {"type": "int", "default": 0},
        "keep": {"type": "str", "required": True},
        "drop": {"type": "str"},
        "number": {"type": "int"},
    }
    unused = {key: {"type": "list", "elements": "str", "required": True} for key in ("registries", "keep")}
    module = discreet(AnsibleModule)(
        argument_spec={
            "replicas": {"type": "list", "elements": "dict", "required": True, "options": replica},
            "unused_images": {"type": "dict", "options": unused},
            "services": {"type": "list", "elements": "dict", "default": []},
            "state_path": {"type": "path", "default": STATE_PATH},
        },
        supports_check_mode=True,
    )
    try:
        result = stop(module, module.params)
    except (EngineError, StateError, ValueError) as error:
        module.fail_json(msg=f"service_stop: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
