#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move replicas' requests from one slot to the other."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_switch
short_description: Put servers of a gateway into rotation and take others out, without losing a request
version_added: "0.1.0"
description:
  - Lets HAProxy check every O(switches[].to) while they get no requests, and sends each its O(switches[].probe) through
    the gateway. Only when all have passed they come into rotation. Then the servers in every O(switches[].away) are
    drained together, until their sessions have ended, and stay in drain.
  - A server in drain is checked all the time. With a O(switches[].probe) one that HAProxy found up is taken as such;
    without, and from maintenance, it has to pass a check from now on.
  - When one of O(switches[].to) does not pass, all are put back as they were, and nothing is drained.
  - Sessions that outlast a drain timeout are cut, and counted in RV(cut).
    Those of a server that is brought back into rotation meanwhile are left alone.
  - Sessions of older HAProxy workers, which a reload left, count too.
  - O(lock) is renewed before anything is touched, and again when all have passed. When it is lost, all are put back.
attributes:
  check_mode:
    description: Says which servers it would change, and probes nothing. A backend or server that is not configured yet
      counts as absent.
    support: full
  diff_mode:
    description: Shows the administrative states that change.
    support: full
options:
  switches:
    description: What to switch, as one step.
    type: list
    elements: dict
    required: true
    suboptions:
      backend:
        description: The backend, named as the service.
        type: str
        required: true
      to:
        description: The server that comes into rotation. Leave it out to only take servers away.
        type: str
      port:
        description: Where O(switches[].to) listens. One that forwards to another port of its host, as an earlier
          configuration said, is told so before it is checked.
        type: int
      ready:
        description: Put O(switches[].to) into rotation. V(false) is for a node that an operator drained. The server is
          checked and probed, and stays in drain.
        type: bool
        default: true
      away:
        description: The servers that go out of rotation. One in maintenance is left there. One that the gateway does
          not have gets nothing already.
        type: list
        elements: str
        default: []
      probe:
        description: A GET that O(switches[].to) must answer with 200 to 399, through the gateway's own port. Without it
          HAProxy's next check is enough.
        type: dict
        suboptions:
          port:
            description: The service's port at the gateway.
            type: int
            required: true
          path:
            description: What to ask for.
            type: str
            default: /
          timeout:
            description: How many seconds the answer may take.
            type: float
            default: 5
          tls:
            description: Whether that port speaks TLS. The certificate is not checked, as the gateway asks itself.
            type: bool
            default: false
      drain_timeout:
        description: As O(drain_timeout), for the servers of this entry. Without it, that one.
        type: float
extends_documentation_fragment:
  - gateway
  - gateway.timeouts
  - gateway.lock
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Switch a node with two replicas of the WebUI to its candidates
  gateway_switch:
    switches:
      - backend: webui
        to: hangzhou-node1.0.b
        port: 18081
        away: [hangzhou-node1.0.a]
        probe: {port: 80, path: /readyz}
      - backend: webui
        to: hangzhou-node1.1.b
        port: 18083
        away: [hangzhou-node1.1.a]
        probe: {port: 80, path: /readyz}
    drain_timeout: 60
"""

RETURN = r"""
cut:
  description: How many sessions were cut after a drain timeout.
  returned: when not in check mode
  type: int
  sample: 2
cut_by_server:
  description: How many of each server, where there were any.
  returned: when not in check mode
  type: dict
  sample: {webui/hangzhou-node1.0.a: 2}
probes:
  description: The status that each probe got.
  returned: when not in check mode
  type: dict
  sample: {webui/hangzhou-node1.0.b: 200, webui/hangzhou-node1.1.b: 200}
seconds:
  description: How long it took.
  returned: when not in check mode
  type: float
  sample: 1.4
lock_lost:
  description: Whether it failed because the lock may be another one's now. Then no other gateway may be changed.
  returned: when the lock could not be renewed
  type: bool
  sample: true
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.haproxy import (
    LOCK,
    SOCKETS,
    TIMEOUTS,
    Arrival,
    Departure,
    HAProxyError,
    NoServerError,
    Probe,
    Runtime,
    Server,
    tables,
)
from ansible.module_utils.qianjiang.lock import LockError, paced, renew_given

Switches = Iterable[Mapping[str, Any]]
PROBE: dict[str, dict[str, Any]] = {
    "port": {"type": "int", "required": True},
    "path": {"type": "str", "default": "/"},
    "timeout": {"type": "float", "default": 5},
    "tls": {"type": "bool", "default": False},
}
SWITCH: dict[str, dict[str, Any]] = {
    "backend": {"type": "str", "required": True},
    "to": {"type": "str"},
    "port": {"type": "int"},
    "ready": {"type": "bool", "default": True},
    "away": {"type": "list", "elements": "str", "default": []},
    "probe": {"type": "dict", "options": PROBE},
    "drain_timeout": {"type": "float"},
}


def plan(
    switches: Switches, current: Mapping[str, Mapping[str, Server]], missing_is_fine: bool = False
) -> list[Change]:
    """The ports and administrative states that change, in order: all that come in, then all that go away."""
    switches = list(switches)
    ports = {(one["backend"], one["to"]): one["port"] for one in switches if one["to"]}
    after = [(one["backend"], one["to"], "ready" if one["ready"] else "drain") for one in switches if one["to"]]
    coming = {(backend, name) for backend, name, _ in after}
    after += [(one["backend"], name, "drain") for one in switches for name in one["away"]]
    changes: list[Change] = []
    for index, (backend, name, state) in enumerate(after):
        if index >= len(coming) and (backend, name) in coming:
            raise HAProxyError(f"{backend}/{name} cannot come in and go away at once")
        servers = current[backend]
        if name not in servers and not missing_is_fine:
            raise NoServerError(backend, name, servers)
        before = servers[name].admin if name in servers else "absent"
        port = ports.get((backend, name))
        if port and name in servers and servers[name].port != port:
            changes.append({"name": f"{backend}/{name} port", "before": servers[name].port, "after": port})
        is_away = index >= len(coming) and before == "maint"
        if before != state and not is_away:
            changes.append({"name": f"{backend}/{name}", "before": before, "after": state})
    return changes


def forwarded(switches: Switches, current: Mapping[str, Mapping[str, Server]]) -> list[dict[str, Any]]:
    """The switches, without servers to take away that this gateway does not have: it sends them nothing."""
    return [{**one, "away": [name for name in one["away"] if name in current[one["backend"]]]} for one in switches]


def apply(
    runtime: Runtime, switches: Switches, up_timeout: float, drain_timeout: float, confirm: Callable[[], object]
) -> dict[str, Any]:
    """Do it. `confirm` raises when we may not go on."""
    begin = time.monotonic()
    arrivals: list[Arrival] = []
    departures: list[Departure] = []
    admitted: list[Arrival] = []
    for one in switches:
        patience = drain_timeout if one["drain_timeout"] is None else one["drain_timeout"]
        if one["to"]:
            probe = Probe(**one["probe"]) if one["probe"] else None
            arrivals.append(Arrival(one["backend"], one["to"], up_timeout, probe, one["port"]))
            if one["ready"]:
                admitted.append(arrivals[-1])
            else:
                departures.append(Departure(one["backend"], one["to"], patience))
        departures += [Departure(one["backend"], name, patience) for name in one["away"]]
    confirm()
    # also where one is ready already: it may be down
    probes = runtime.prove(arrivals, confirm)
    runtime.admit(admitted)
    cut = runtime.dismiss(departures, paced(confirm))
    return {
        "cut": sum(cut.values()),
        "cut_by_server": cut,
        "probes": probes,
        "seconds": round(time.monotonic() - begin, 2),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "switches": {"type": "list", "elements": "dict", "required": True, "options": SWITCH},
            **TIMEOUTS,
            **SOCKETS,
            **LOCK,
        },
        supports_check_mode=True,
    )
    params = module.params
    switches = params["switches"]
    runtime = Runtime(params["socket"], params["master_socket"])

    def confirm() -> None:
        renew_given(params["lock"])

    try:
        optional = {one["backend"] for one in switches} - {one["backend"] for one in switches if one["to"]}
        current = tables(runtime, [one["backend"] for one in switches], module.check_mode, optional)
        switches = forwarded(switches, current)
        changes = plan(switches, current, missing_is_fine=module.check_mode)
        result: dict[str, Any] = {
            "changed": bool(changes),
            "diff": difference(changes),
        }
        if not module.check_mode:
            result |= apply(runtime, switches, params["up_timeout"], params["drain_timeout"], confirm)
    except LockError as error:
        module.fail_json(msg=f"gateway_switch: {error}", lock_lost=True)
    except HAProxyError as error:
        module.fail_json(msg=f"gateway_switch: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
