#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move a replica's requests from one slot to the other."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_switch
short_description: Put a server of a gateway into rotation and take others out, without losing a request
version_added: "0.1.0"
description:
  - Lets HAProxy check O(to) while it gets no request, puts it into rotation when HAProxy's own check finds it up, then
    drains the servers in O(away), waits until their sessions have ended, and puts them into maintenance.
  - A server that does not come up within O(up_timeout) is put back as it was, and the others are not touched.
  - Sessions that outlast O(drain_timeout) are cut, and counted in RV(cut).
  - Sessions of older HAProxy workers, which a reload left, count too.
attributes:
  check_mode:
    description: Says which servers it would change. A backend or server that is not configured yet counts as absent.
    support: full
  diff_mode:
    description: Shows the administrative states that change.
    support: full
options:
  backend:
    description: The backend, named as the service.
    type: str
    required: true
  to:
    description: The server that comes into rotation. Leave it out to only take servers away.
    type: str
  away:
    description: The servers that go out of rotation.
    type: list
    elements: str
    default: []
  up_timeout:
    description: How many seconds O(to) has to pass HAProxy's check.
    type: float
    default: 30
  drain_timeout:
    description: How many seconds the sessions of those in O(away) have to end.
    type: float
    default: 30
  socket:
    description: HAProxy's runtime socket, of level admin.
    type: path
    default: /run/haproxy/admin.sock
  master_socket:
    description: The socket of HAProxy's master process, which knows the sessions of workers from before a reload.
      Not used when it does not exist.
    type: path
    default: /run/haproxy-master.sock
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Switch a node of the WebUI to its candidate
  gateway_switch:
    backend: webui
    to: hangzhou-node1.0.b
    away: [hangzhou-node1.0.a]
    drain_timeout: 30
"""

RETURN = r"""
cut:
  description: How many sessions were cut after the drain timeout.
  returned: when not in check mode
  type: int
  sample: 0
seconds:
  description: How long it took.
  returned: when not in check mode
  type: float
  sample: 1.4
"""

import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.container import Difference
from ansible.module_utils.qianjiang.haproxy import MASTER_SOCKET, SOCKET, HAProxyError, Runtime, Server, tables


def plan(desired: Mapping[str, Any], current: Mapping[str, Server], missing_is_fine: bool = False) -> list[Difference]:
    """The administrative states that change, in order."""
    backend, to, away = desired["backend"], desired["to"], desired["away"]
    if to in away:
        raise HAProxyError(f"{to} cannot come in and go away at once")
    changes: list[Difference] = []
    for name, after in ([(to, "ready")] if to else []) + [(name, "maint") for name in away]:
        if name not in current and not missing_is_fine:
            raise HAProxyError(f"HAProxy has no server {backend}/{name}; it has {', '.join(current) or 'none'}")
        before = current[name].admin if name in current else "absent"
        if before != after:
            changes.append({"name": f"{backend}/{name}", "before": before, "after": after})
    return changes


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "backend": {"type": "str", "required": True},
            "to": {"type": "str"},
            "away": {"type": "list", "elements": "str", "default": []},
            "up_timeout": {"type": "float", "default": 30},
            "drain_timeout": {"type": "float", "default": 30},
            "socket": {"type": "path", "default": SOCKET},
            "master_socket": {"type": "path", "default": MASTER_SOCKET},
        },
        supports_check_mode=True,
    )
    params = module.params
    runtime = Runtime(params["socket"], params["master_socket"])
    try:
        current = tables(runtime, [params["backend"]], missing_is_fine=module.check_mode)[params["backend"]]
        changes = plan(params, current, missing_is_fine=module.check_mode)
        result: dict[str, Any] = {
            "changed": bool(changes),
            "diff": {side: {item["name"]: item[side] for item in changes} for side in ("before", "after")},
        }
        if not module.check_mode:
            begin = time.monotonic()
            # also where `to` is ready already: it may be down
            if params["to"]:
                runtime.bring_up(params["backend"], params["to"], params["up_timeout"])
            result["cut"] = runtime.take_away(params["backend"], params["away"], params["drain_timeout"])
            result["seconds"] = round(time.monotonic() - begin, 2)
    except HAProxyError as error:
        module.fail_json(msg=f"gateway_switch: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
