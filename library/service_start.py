#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a candidate beside what serves, and prove it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_start
short_description: Start candidates of services in their free slots and wait until they are proven
version_added: "0.1.0"
description:
  - Creates the container of a release in a slot of a replica, starts it, and waits until its own health check and HTTP
    through its slot port have been well for C(update.min_healthy_time) without a break, within
    C(update.healthy_deadline). Several candidates start side by side.
  - Where the engine has not run the container's own check by then, the module does. Before Docker 25.0 an engine runs
    it for the first time an interval after the start, and since then a second after it.
  - With RV(ignore:restore) a kept container is started again as it is, with the image and configuration it has.
  - What serves is never touched. A candidate that fails is removed, and its last log lines are in the error; then the
    others of the call are removed too. A kept container that fails is stopped again, and kept.
  - A rollout number lower than the highest that this node has seen is refused.
  - A candidate that a killed run left is adopted if it is the very same, in the slot it has, else removed. So use the
    slot and the container of the result, not those you asked for.
  - Pulls nothing. The image must be in the engine, by digest.
attributes:
  check_mode:
    description: Says what it would start and remove. Does not look for the image, which a check mode did not pull.
    support: full
  diff_mode:
    description: Shows the containers that come and go.
    support: full
options:
  candidates:
    description: What to start.
    type: list
    elements: dict
    required: true
    suboptions:
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
      number:
        description: The number of the rollout, which the node remembers. The release's own where it is left out.
        type: int
      replica:
        description: The replica of this node, from 0.
        type: int
        default: 0
      slot:
        description: The free slot, as P(service_compare#module) says.
        type: str
        choices: [a, b]
        required: true
      restore:
        description: Start the kept container O(candidates[].container) again instead of making one.
        type: bool
        default: false
      container:
        description: The name of the kept container.
        type: str
      serving:
        description: The container that serves now, where that is known better than from this node's record (from the
          gateways, after a rollout that was killed). It is recorded first.
        type: str
      seen:
        description: What this node's record said when the rollout was planned. When it says another thing now, another
          rollout was here since, and the candidate is refused.
        type: dict
        suboptions:
          highest_release:
            description: The highest release number that this node had seen.
            type: int
            required: true
          recorded:
            description: The container on record for this replica.
            type: str
  node:
    description: The name of this node, told to the containers as C(QJ_NODE).
    type: str
    default: ""
  datacenter:
    description: The name of its datacenter, told to the containers as C(QJ_DATACENTER).
    type: str
    default: ""
  address:
    description: Where the slots' ports are probed.
    type: str
    default: 127.0.0.1
  log_lines:
    description: How many of a failed candidate's last log lines the error holds.
    type: int
    default: 20
extends_documentation_fragment:
  - service
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Start release 7 of the WebUI beside the old one
  service_start:
    candidates:
      - service: "{{ services_normalised.webui }}"
        reference: registry.hangzhou.lab:5000/webui
        digest: sha256:9366c851b10b362e1f2052e826b14b5f115812fc8eef660ebd1ac4531ef6d31c
        release: 7
        slot: b
  register: started

- name: Start release 6 again, which this node has kept
  service_start:
    candidates:
      - service: "{{ services_normalised.webui }}"
        reference: registry.hangzhou.lab:5000/webui
        digest: sha256:1c3f0a41c0ffee0102030405060708090a0b0c0d0e0f101112131415161718ff
        release: 6
        number: 8
        slot: b
        restore: true
        container: webui.0.r6
"""

RETURN = r"""
candidates:
  description: >-
    The proven containers, in the order asked for, each with V(service), V(replica), V(container), V(slot) (another one
    than was asked for when it was adopted), V(port) (on this host; of a kept container the one that it was made with;
    null for a service without one) and, when not in check mode, V(seconds) from the start until it was proven, and
    V(probes), the last result of each probe.
  returned: success
  type: list
  elements: dict
  sample:
    - service: webui
      replica: 0
      container: webui.0.r7
      slot: b
      port: 18081
      seconds: 12.4
      probes: {"container": "healthy", "/healthz": 200, "/readyz": 200}
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
  description: Whether the failed candidate was removed. One that serves is left alone, a kept one is kept.
  returned: when it failed
  type: bool
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.candidate import (
    CandidateFailedError,
    Decision,
    apply,
    plan,
    plan_restore,
    port_conflict,
)
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.container import (
    compare,
    container_spec,
    observed_spec,
    published_port,
    slot_port,
)
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.secret import discreet
from ansible.module_utils.qianjiang.service_state import (
    STATE_PATH,
    Owned,
    State,
    StateError,
    claim,
    fence,
    owned,
    proven,
    read_state,
    record_serving,
)

CANDIDATE = {
    "service": {"type": "dict", "required": True},
    "reference": {"type": "str", "required": True},
    "digest": {"type": "str", "required": True},
    "release": {"type": "int", "required": True},
    "number": {"type": "int"},
    "replica": {"type": "int", "default": 0},
    "slot": {"type": "str", "choices": ["a", "b"], "required": True},
    "restore": {"type": "bool", "default": False},
    "container": {"type": "str"},
    "serving": {"type": "str"},
    "seen": {
        "type": "dict",
        "options": {"highest_release": {"type": "int", "required": True}, "recorded": {"type": "str"}},
    },
}


class Candidate(NamedTuple):
    """A candidate, what it takes to bring it up, and what is known of it."""

    wanted: Mapping[str, Any]
    decision: Decision
    spec: Mapping[str, Any]
    serves: bool

    @property
    def number(self) -> int:
        """Of the rollout."""
        return int(self.wanted["number"] or self.wanted["release"])

    def result(self) -> dict[str, Any]:
        """What the module says of it."""
        return {
            "service": self.wanted["service"]["name"],
            "replica": self.wanted["replica"],
            "container": self.decision.container,
            "slot": self.decision.slot,
            "port": self.spec["host_port"],
        }


def look(engine: Engine, wanted: Mapping[str, Any], params: Mapping[str, Any]) -> Candidate:
    """Read and plan one candidate."""
    service, replica = wanted["service"], wanted["replica"]
    name = service["name"]
    state = read_state(params["state_path"], name)
    refusal = fence(state, name, wanted["number"] or wanted["release"])
    if refusal:
        raise StateError(refusal)
    if wanted["seen"]:
        assert_as_seen(state, wanted, name, replica)
    entries = engine.containers()
    mine = [item for item in owned(entries) if (item["service"], item["replica"]) == (name, replica)]
    recorded = wanted["serving"] or state["current"].get(str(replica))
    described = partial(
        container_spec,
        service,
        wanted["reference"],
        wanted["digest"],
        release=wanted["release"],
        replica=replica,
        place={"node": params["node"], "datacenter": params["datacenter"]},
    )

    def is_proven(item: Owned) -> bool:
        return bool(proven(engine.inspect(item["id"])))

    spec: dict[str, Any]
    if wanted["restore"]:
        target = {"container": wanted["container"] or "", "slot": wanted["slot"]}
        decision = plan_restore(target, mine, recorded, is_proven)
        port = slot_port(service, replica, decision.slot) if service["port"] else None
        if decision.action != "move":
            port = published_port(engine.inspect(decision.container) or {"HostConfig": {}})
        spec = {"host_port": port}
    else:
        target = {"container": described(slot=wanted["slot"])["name"], "slot": wanted["slot"]}
        decision = plan(target, mine, recorded, _differences(engine, described), is_proven)
        spec = described(slot=decision.slot)
    if decision.action != "adopt" and spec["host_port"]:
        holder = port_conflict(decision, spec["host_port"], entries)
        if holder:
            raise EngineError(
                f"port {spec['host_port']} (slot {decision.slot} of {name}, replica {replica}) is taken by {holder}; "
                "stop that, or give the service another slots_port"
            )
    return Candidate(wanted, decision, spec, serves=decision.action == "adopt" and decision.container == recorded)


def assert_as_seen(state: State, wanted: Mapping[str, Any], name: str, replica: int) -> None:
    """Refuse a plan that another rollout has overtaken. Our own number and record are none of another's."""
    number, seen = wanted["number"] or wanted["release"], wanted["seen"]
    recorded = state["current"].get(str(replica))
    if state["highest_release"] in (seen["highest_release"], number) and recorded in (
        seen["recorded"],
        wanted["serving"],
    ):
        return
    raise StateError(
        f"{name}, replica {replica} has changed since the rollout was planned: {seen['recorded']} served and "
        f"{seen['highest_release']} was the highest release, now {recorded} and {state['highest_release']}. "
        "Another rollout was here; run this again"
    )


def _differences(engine: Engine, described: Callable[..., dict[str, Any]]) -> Callable[[Owned], list[Change]]:
    def differences(item: Owned) -> list[Change]:
        inspect = engine.inspect(item["id"])
        if inspect is None:
            raise EngineError(f"{item['container']} was removed by someone else just now; run this again")
        observed = observed_spec(inspect, engine.inspect_image(inspect["Image"]))
        return list(compare(described(slot=item["slot"]), observed))

    return differences


def bring_up(candidate: Candidate, params: Mapping[str, Any]) -> dict[str, Any] | CandidateFailedError:
    """Start one and prove it. The error is returned, so that the others come to their end too."""
    try:
        everything = {**params, **candidate.wanted}
        done = apply(Engine(), candidate.decision, candidate.spec, everything, serves=candidate.serves)
    except CandidateFailedError as error:
        return error
    return candidate.result() | done


def start(module: AnsibleModule, params: Mapping[str, Any]) -> dict[str, Any]:
    """Read, plan, apply."""
    engine = Engine()
    candidates = [look(engine, wanted, params) for wanted in params["candidates"]]
    changes = [change for candidate in candidates for change in candidate.decision.changes]
    outcome: dict[str, Any] = {
        "changed": bool(changes),
        "diff": difference(changes),
        "candidates": [candidate.result() for candidate in candidates],
    }
    if module.check_mode or not candidates:
        return outcome
    for candidate in candidates:
        reference = candidate.spec.get("reference")
        if candidate.decision.action == "create" and engine.inspect_image(str(reference)) is None:
            raise EngineError(f"image {reference} is not on this node; pull it first (image_pull)")
    for candidate in candidates:
        wanted = candidate.wanted
        claim(params["state_path"], wanted["service"]["name"], candidate.number)
        if wanted["serving"]:
            record_serving(params["state_path"], wanted["service"]["name"], wanted["replica"], wanted["serving"])
    with ThreadPoolExecutor(max_workers=len(candidates)) as pool:
        done = list(pool.map(partial(bring_up, params=params), candidates))
    failed = [item for item in done if isinstance(item, CandidateFailedError)]
    if failed:
        for candidate, item in zip(candidates, done):
            if not isinstance(item, CandidateFailedError) and candidate.decision.action in ("create", "move"):
                engine.remove(candidate.decision.container)
        raise failed[0]
    outcome["candidates"] = done
    return outcome


def main() -> None:
    """Run the module."""
    module = discreet(AnsibleModule)(
        argument_spec={
            "candidates": {"type": "list", "elements": "dict", "required": True, "options": CANDIDATE},
            "node": {"type": "str", "default": ""},
            "datacenter": {"type": "str", "default": ""},
            "address": {"type": "str", "default": "127.0.0.1"},
            "log_lines": {"type": "int", "default": 20},
            "state_path": {"type": "path", "default": STATE_PATH},
        },
        supports_check_mode=True,
    )
    try:
        result = start(module, module.params)
    except CandidateFailedError as error:
        module.fail_json(msg=f"service_start: {error}", **error.facts)
    except (EngineError, StateError, ValueError) as error:
        module.fail_json(msg=f"service_start: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
