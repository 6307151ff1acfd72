#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what runs on this node with what the catalogue says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_compare
short_description: Compare the containers of this node with the catalogue
version_added: "0.1.0"
description:
  - Says for each replica of each given service which container serves, in which slot, and what a new one would change,
    by name. Changes nothing.
  - The list of differences is the one that a rollout removes. Release number, slot and container name are no
    differences, nor is what the image itself brings.
  - Which container serves is what the node recorded when the gateway last switched. Others of the replica that run are
    left over from a run that was killed, and listed in RV(services.extra).
attributes:
  check_mode:
    description: The module only reads, also without check mode.
    support: full
  diff_mode:
    description: The differences are the result itself.
    support: none
options:
  services:
    description: Every service that the catalogue places on this node. A container of any other one is an orphan.
    type: list
    elements: dict
    required: true
    suboptions:
      service:
        description: The service with every key, as the filter C(normalised_services) gives it.
        type: dict
        required: true
      reference:
        description: Registry and repository of its image, without tag and digest.
        type: str
        required: true
      digest:
        description: The digest it shall run. Leave it out where it is not known yet, in check mode before a build.
        type: str
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
- name: Compare this node with the catalogue
  service_compare:
    services:
      - service: "{{ services_normalised.webui }}"
        reference: registry.hangzhou.lab:5000/webui
        digest: "{{ service_digests.webui }}"
  register: comparison
"""

RETURN = r"""
services:
  description: What was found, by service.
  returned: success
  type: dict
  contains:
    replicas:
      description: >-
        One item per replica: RV(services.replicas) has V(replica), V(current) (null, or container, release, digest,
        configuration, slot, running, health, started_at), V(free_slot), V(differences) (each name, before, after) and
        V(extra), the names of other running containers of the replica.
      type: list
      elements: dict
    highest_release:
      description: The highest release number this node has seen; it takes no lower one.
      type: int
    kept:
      description: Stopped containers kept for rollback, newest first, each with replica, release, digest,
        configuration and container.
      type: list
      elements: dict
  sample:
    webui:
      highest_release: 6
      kept: []
      replicas:
        - replica: 0
          current:
            container: webui.0.r6
            release: 6
            digest: sha256:9366c851b10b362e1f2052e826b14b5f115812fc8eef660ebd1ac4531ef6d31c
            configuration: 0b0ee6b3
            slot: a
            running: true
            health: healthy
            started_at: "2026-11-24T08:00:00Z"
          free_slot: b
          differences:
            - name: env.TITLE
              before: Qianjiangyuan
              after: null
          extra: []
orphans:
  description: Containers of ours that the given services do not name, each with container, service, replica, release
    and running.
  returned: success
  type: list
  elements: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.container import (
    LABEL,
    Difference,
    compare,
    container_spec,
    observed_spec,
)
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.secret import discreet
from ansible.module_utils.qianjiang.service_state import (
    ACTIVE,
    STATE_PATH,
    Owned,
    State,
    StateError,
    owned,
    proven,
    read_state,
    replica_view,
)


def report(
    wanted: list[Mapping[str, Any]],
    containers: list[Owned],
    states: Mapping[str, State],
    engine: Engine,
) -> dict[str, Any]:
    """The whole result, from the engine's list and what it says of single containers."""
    services: dict[str, Any] = {}
    named: set[str] = set()
    for entry in wanted:
        service = entry["service"]
        name = service["name"]
        if name in services:
            raise ValueError(f"services: {name} is listed twice")
        replicas = []
        kept: list[Owned] = []
        for replica in range(service["replicas"]):
            mine = [item for item in containers if (item["service"], item["replica"]) == (name, replica)]
            named |= {item["id"] for item in mine}
            recorded = states[name]["current"].get(str(replica))
            replicas.append(_replica(entry, replica, mine, recorded, engine))
            kept += [
                item
                for item in mine
                if item["container"] != recorded and item["status"] not in ACTIVE and proven(engine.inspect(item["id"]))
            ]
        services[name] = {
            "replicas": replicas,
            "highest_release": states[name]["highest_release"],
            "kept": [
                {key: item[key] for key in ("replica", "release", "digest", "configuration", "container")}
                for item in sorted(kept, key=lambda item: item["release"], reverse=True)
            ],
        }
    orphans = [
        {
            **{key: item[key] for key in ("container", "service", "replica", "release")},
            "running": item["status"] in ACTIVE,
        }
        for item in containers
        if item["id"] not in named
    ]
    return {"services": services, "orphans": orphans}


def _replica(
    entry: Mapping[str, Any],
    replica: int,
    containers: list[Owned],
    recorded: str | None,
    engine: Engine,
) -> dict[str, Any]:
    view = replica_view(containers, recorded)
    digest = entry["digest"] or "(not known yet)"
    inspected = engine.inspect(view["current"]["id"]) if view["current"] else None
    differences: list[Difference] = [{"name": "image", "before": None, "after": digest}]
    current = None
    if view["current"] and inspected:
        state = inspected["State"]
        running = bool(state["Running"]) and not (state.get("Restarting") or state.get("Paused"))
        observed = observed_spec(inspected, engine.inspect_image(inspected["Image"]))
        spec = container_spec(
            entry["service"], entry["reference"], digest, release=0, replica=replica, slot=view["free_slot"]
        )
        differences = compare(spec, observed)
        if not running:
            differences.append({"name": "running", "before": False, "after": True})
        current = {
            **{key: view["current"][key] for key in ("container", "release", "digest", "configuration", "slot")},
            "running": running,
            "health": (state.get("Health") or {}).get("Status", "none"),
            "started_at": state["StartedAt"],
        }
    return {
        "replica": replica,
        "current": current,
        "free_slot": view["free_slot"],
        "differences": differences,
        "extra": [item["container"] for item in view["extra"]],
    }


def main() -> None:
    """Run the module."""
    module = discreet(AnsibleModule)(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "service": {"type": "dict", "required": True},
                    "reference": {"type": "str", "required": True},
                    "digest": {"type": "str"},
                },
            },
            "state_path": {"type": "path", "default": STATE_PATH},
        },
        supports_check_mode=True,
    )
    try:
        engine = Engine()
        names = [entry["service"]["name"] for entry in module.params["services"]]
        states = {name: read_state(module.params["state_path"], name) for name in names}
        containers = owned(engine.containers(f"{LABEL}service"))
        result = report(module.params["services"], containers, states, engine)
    except (EngineError, StateError, ValueError) as error:
        module.fail_json(msg=f"service_compare: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
