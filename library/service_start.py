#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a candidate beside what serves, and prove it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_start
short_description: Start a candidate of a service in its free slot and wait until it is proven
version_added: "0.1.0"
description:
  - Creates the container of a release in a slot of a replica, starts it, and waits until its own health check and HTTP
    through its slot port have been well for C(update.min_healthy_time) without a break, within
    C(update.healthy_deadline).
  - What serves is never touched. A candidate that fails is removed, and its last log lines are in the error.
  - A release number lower than the highest that this node has seen is refused.
  - A candidate that a killed run left is adopted if it is the very same, in the slot it has, else removed. So use the
    RV(slot) and RV(container) of the result, not those you asked for.
  - Pulls nothing. The image must be in the engine, by digest.
attributes:
  check_mode:
    description: Says what it would start and remove. Does not look for the image, which a check mode did not pull.
    support: full
  diff_mode:
    description: Shows the containers that come and go.
    support: full
options:
  service:
    description: The service with every key, as the filter C(normalised_services) gives it.
    type: dict
    required: true
  reference:
    description: Registry and repository of the image, without tag and digest.
    type: str
    required: true
  digest:
    description: The digest to run.
    type: str
    required: true
  release:
    description: The number of the release.
    type: int
    required: true
  replica:
    description: The replica of this node, from 0.
    type: int
    default: 0
  slot:
    description: The free slot, as P(service_compare#module) says.
    type: str
    choices: [a, b]
    required: true
  node:
    description: The name of this node, told to the container as C(QJ_NODE).
    type: str
    default: ""
  datacenter:
    description: The name of its datacenter, told to the container as C(QJ_DATACENTER).
    type: str
    default: ""
  address:
    description: Where the slot's port is probed.
    type: str
    default: 127.0.0.1
  log_lines:
    description: How many of a failed candidate's last log lines the error holds.
    type: int
    default: 20
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
- name: Start release 7 of the WebUI beside the old one
  service_start:
    service: "{{ services_normalised.webui }}"
    reference: registry.hangzhou.lab:5000/webui
    digest: sha256:9366c851b10b362e1f2052e826b14b5f115812fc8eef660ebd1ac4531ef6d31c
    release: 7
    slot: b
  register: candidate
"""

RETURN = r"""
container:
  description: The proven container.
  returned: success
  type: str
  sample: webui.0.r7
slot:
  description: The slot it has; another one than was asked for when it was adopted.
  returned: success
  type: str
  sample: b
port:
  description: The host port of that slot; null for a service without a port.
  returned: success
  type: int
  sample: 18081
seconds:
  description: How long it took from the start until it was proven.
  returned: when not in check mode
  type: float
  sample: 12.4
probes:
  description: The last result of each probe.
  returned: when not in check mode
  type: dict
  sample: {"container": "healthy", "/healthz": 200, "/readyz": 200}
reason:
  description: Why the candidate is not proven.
  returned: when it failed
  type: str
  sample: ended with exit code 3 after 0.4 s
exit_code:
  description: The exit code of a candidate that ended; null while it runs.
  returned: when it failed
  type: int
  sample: 3
log:
  description: Its last log lines.
  returned: when it failed
  type: list
  elements: str
removed:
  description: Whether the failed candidate was removed. One that serves is left alone.
  returned: when it failed
  type: bool
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.candidate import CandidateFailedError, apply, plan, port_conflict
from ansible.module_utils.qianjiang.container import Difference, compare, container_spec, observed_spec
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.secret import discreet
from ansible.module_utils.qianjiang.service_state import (
    STATE_PATH,
    Owned,
    StateError,
    claim,
    fence,
    owned,
    proven,
    read_state,
)


def main() -> None:
    """Run the module."""
    module = discreet(AnsibleModule)(
        argument_spec={
            "service": {"type": "dict", "required": True},
            "reference": {"type": "str", "required": True},
            "digest": {"type": "str", "required": True},
            "release": {"type": "int", "required": True},
            "replica": {"type": "int", "default": 0},
            "slot": {"type": "str", "choices": ["a", "b"], "required": True},
            "node": {"type": "str", "default": ""},
            "datacenter": {"type": "str", "default": ""},
            "address": {"type": "str", "default": "127.0.0.1"},
            "log_lines": {"type": "int", "default": 20},
            "state_path": {"type": "path", "default": STATE_PATH},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        result = start(module, params)
    except CandidateFailedError as error:
        module.fail_json(msg=f"service_start: {error}", **error.facts)
    except (EngineError, StateError, ValueError) as error:
        module.fail_json(msg=f"service_start: {error}")
    module.exit_json(**result)


def start(module: AnsibleModule, params: Mapping[str, Any]) -> dict[str, Any]:
    """Read, plan, apply."""
    name, replica, release = params["service"]["name"], params["replica"], params["release"]
    engine = Engine()
    state = read_state(params["state_path"], name)
    refusal = fence(state, name, release)
    if refusal:
        raise StateError(refusal)
    entries = engine.containers()
    mine = [item for item in owned(entries) if (item["service"], item["replica"]) == (name, replica)]

    def specification(slot: str) -> dict[str, Any]:
        spec: dict[str, Any] = container_spec(
            params["service"],
            params["reference"],
            params["digest"],
            release=release,
            replica=replica,
            slot=slot,
            place={"node": params["node"], "datacenter": params["datacenter"]},
        )
        return spec

    def differences(item: Owned) -> list[Difference]:
        inspect = engine.inspect(item["id"])
        if inspect is None:
            raise EngineError(f"{item['container']} was removed by someone else just now; run this again")
        observed = observed_spec(inspect, engine.inspect_image(inspect["Image"]))
        found: list[Difference] = compare(specification(item["slot"]), observed)
        return found

    recorded = state["current"].get(str(replica))
    wanted = {"container": specification(params["slot"])["name"], "slot": params["slot"]}
    decision = plan(wanted, mine, recorded, differences, lambda item: proven(engine.inspect(item["id"])))
    spec = specification(decision.slot)
    if decision.action != "adopt" and spec["host_port"]:
        holder = port_conflict(decision, spec["host_port"], entries)
        if holder:
            raise EngineError(
                f"port {spec['host_port']} (slot {decision.slot} of {name}, replica {replica}) is taken by {holder}; "
                "stop that, or give the service another slots_port"
            )
    outcome: dict[str, Any] = {
        "changed": bool(decision.changes),
        "diff": {side: {item["name"]: item[side] for item in decision.changes} for side in ("before", "after")},
        "container": decision.container,
        "slot": decision.slot,
        "port": spec["host_port"],
    }
    if not module.check_mode:
        if decision.action == "create" and engine.inspect_image(spec["reference"]) is None:
            raise EngineError(f"image {spec['reference']} is not on this node; pull it first (image_pull)")
        claim(params["state_path"], name, release)
        outcome |= apply(
            engine, decision, spec, params, serves=decision.container == recorded and decision.action == "adopt"
        )
    return outcome


if __name__ == "__main__":
    main()
