#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop and remove what the catalogue no longer asks for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_remove
short_description: Stop and remove the containers of services, or those of too many replicas
version_added: "0.1.0"
description:
  - Stops the containers of a service with SIGTERM and, after the stop timeout they were made with, SIGKILL, and removes
    them, stopped ones that were kept for rollback too, each with its image when nothing else uses that.
  - Only containers that this project made are touched, by their label.
  - The highest release number stays on record, so that a service that comes back gets a higher one.
  - Call it when the gateway no longer forwards to them.
attributes:
  check_mode:
    description: Says what it would stop and remove.
    support: full
  diff_mode:
    description: Shows the containers and images that go.
    support: full
options:
  services:
    description: What to remove.
    type: list
    elements: dict
    required: true
    suboptions:
      service:
        description: The name of the service.
        type: str
        required: true
      replicas:
        description: How many replicas stay, those with the lowest numbers. 0 removes the service.
        type: int
        default: 0
extends_documentation_fragment:
  - service
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Retire a service
  service_remove:
    services: [{service: report}]

- name: Leave two replicas of the WebUI
  service_remove:
    services: [{service: webui, replicas: 2}]
"""

RETURN = r"""
removed:
  description: The containers it removed.
  returned: success
  type: list
  elements: str
  sample: [report.0.r4, report.0.r3]
stopped:
  description: Those that ran. RV(stopped.killed) is true where SIGTERM was not enough.
  returned: when not in check mode
  type: list
  elements: dict
  sample: [{"container": "report.0.r4", "seconds": 0.6, "killed": false, "exit_code": 0}]
images_removed:
  description: The images it removed.
  returned: when not in check mode
  type: list
  elements: str
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.ending import end_containers
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.service_state import STATE_PATH, Owned, State, StateError, owned, update_state


def plan(
    wanted: Iterable[Mapping[str, Any]], containers: Sequence[Owned], images_in_use: Iterable[str]
) -> list[Change]:
    """What goes: containers, then the images that nothing uses any more. `images_in_use`: by containers of others."""
    stay = {item["service"]: item["replicas"] for item in wanted}
    gone = [
        item
        for item in containers
        if item["service"] in stay and (item["replica"] < 0 or item["replica"] >= stay[item["service"]])
    ]
    changes: list[Change] = [{"name": item["container"], "before": item["status"], "after": None} for item in gone]
    used = {*images_in_use, *(item["image_id"] for item in containers if item not in gone)}
    unused = sorted({item["image_id"] for item in gone} - used)
    return changes + [{"name": image, "before": "present", "after": None} for image in unused]


def forgotten(state: State, replicas: int) -> State:
    """The record without what is gone."""
    return {**state, "current": {key: value for key, value in state["current"].items() if int(key) < replicas}}


def remove(module: AnsibleModule, params: Mapping[str, Any]) -> dict[str, Any]:
    """Read, plan, apply."""
    engine = Engine()
    entries = engine.containers()
    containers = owned(entries)
    ids = {item["id"] for item in containers}
    changes = plan(params["services"], containers, [entry["ImageID"] for entry in entries if entry["Id"] not in ids])
    names = {item["container"] for item in containers}
    outcome: dict[str, Any] = {
        "changed": bool(changes),
        "diff": difference(changes),
        "removed": [item["name"] for item in changes if item["name"] in names],
    }
    if module.check_mode or not changes:
        return outcome
    # before the first stop: when a run dies in between, the next one finds what is left by its labels
    for item in params["services"]:
        update_state(
            params["state_path"], item["service"], lambda state, replicas=item["replicas"]: forgotten(state, replicas)
        )
    images = {entry["ImageID"]: entry["Image"] for entry in entries}
    first = [item for item in changes if item["name"] in names]
    with ThreadPoolExecutor(max_workers=max(len(first), 1)) as pool:
        done = list(pool.map(lambda item: end_containers(Engine(), [item], images), first))
    done.append(end_containers(engine, [item for item in changes if item["name"] not in names], images))
    return outcome | {key: [entry for item in done for entry in item[key]] for key in ("stopped", "images_removed")}


def main() -> None:
    """Run the module."""
    service = {"service": {"type": "str", "required": True}, "replicas": {"type": "int", "default": 0}}
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "list", "elements": "dict", "required": True, "options": service},
            "state_path": {"type": "path", "default": STATE_PATH},
        },
        supports_check_mode=True,
    )
    try:
        result = remove(module, module.params)
    except (EngineError, StateError) as error:
        module.fail_json(msg=f"service_remove: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
