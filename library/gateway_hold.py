#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take servers out of rotation before a candidate starts in their slots."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_hold
short_description: Keep servers of a gateway out of rotation before candidates start in their slots
version_added: "0.1.0"
description:
  - Puts HAProxy servers into drain, so that a candidate gets no request before it is proven, and is checked all the
    time. One that an operator put into maintenance is held as well, and is left there.
  - No request is lost. When the server serves, because a run was killed after its switch, and the other slot of its
    replica is out of rotation, that one is brought back first, as P(gateway_switch#module) does. Sessions that it has
    are waited for, also those of a run that was killed while it drained.
  - When the other slot does not come up, the one that serves stays as it is, and is listed in RV(serving). Start no
    candidate of another release in that slot.
attributes:
  check_mode:
    description: Says which servers it would change. A backend or server that is not configured yet counts as absent.
    support: full
  diff_mode:
    description: Shows the administrative states that change.
    support: full
options:
  servers:
    description: The servers of the slots where candidates will start.
    type: list
    elements: dict
    required: true
    suboptions:
      backend:
        description: The backend, named as the service.
        type: str
        required: true
      server:
        description: The server, C(<node>.<replica>.<slot>).
        type: str
        required: true
      drain_timeout:
        description: As O(drain_timeout), for this server. Without it, that one.
        type: float
extends_documentation_fragment:
  - gateway
  - gateway.timeouts
  - gateway.lock
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Keep the free slots out of rotation
  gateway_hold:
    servers:
      - backend: webui
        server: hangzhou-node1.0.b
"""

RETURN = r"""
serving:
  description: Servers that still serve, since nothing else of their replica does; each with backend and server.
  returned: when not in check mode
  type: list
  elements: dict
  sample: []
cut:
  description: How many sessions were cut after the drain timeout.
  returned: when not in check mode
  type: int
  sample: 0
lock_lost:
  description: Whether it failed because the lock may be another one's now. Then no other gateway may be changed.
  returned: when the lock could not be renewed
  type: bool
  sample: true
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.haproxy import (
    LOCK,
    SOCKETS,
    TIMEOUTS,
    Departure,
    HAProxyError,
    NoServerError,
    Runtime,
    Server,
    tables,
)
from ansible.module_utils.qianjiang.lock import LockError, paced, renew_given


class Wanted(NamedTuple):
    """A server of a backend, and how many seconds its sessions have to end."""

    backend: str
    name: str
    drain_timeout: float


def others(name: str, table: Mapping[str, Server]) -> list[Server]:
    """The other slots of the same replica: `<node>.<replica>.` and another slot."""
    replica = name.rpartition(".")[0]
    return [server for server in table.values() if server.name != name and server.name.rpartition(".")[0] == replica]


def plan(
    wanted: Iterable[Wanted], current: Mapping[str, Mapping[str, Server]], missing_is_fine: bool = False
) -> list[Change]:
    """The administrative states that change, in order."""
    changes: list[Change] = []
    for backend, name, _ in wanted:
        table = current.get(backend, {})
        server = table.get(name)
        if server is None:
            if not missing_is_fine:
                raise NoServerError(backend, name, table)
            changes.append({"name": f"{backend}/{name}", "before": "absent", "after": "drain"})
        elif server.admin == "ready":
            siblings = others(name, table)
            if server.serves and not siblings:
                continue
            if server.serves and not any(sibling.serves for sibling in siblings):
                back = siblings[0]
                changes.append({"name": f"{backend}/{back.name}", "before": back.admin, "after": "ready"})
            changes.append({"name": f"{backend}/{name}", "before": server.admin, "after": "drain"})
    return changes


def apply(runtime: Runtime, wanted: Iterable[Wanted], up_timeout: float, keep: Callable[[], object]) -> dict[str, Any]:
    """Do it, one server after the other, each seen fresh. `keep` raises when we may not go on."""
    serving: list[dict[str, str]] = []
    cut = 0
    for backend, name, drain_timeout in wanted:
        leaving = [Departure(backend, name, drain_timeout)]
        keep()
        table = runtime.servers(backend)
        server = table[name]
        if server.admin != "ready":
            if server.sessions:
                cut += sum(runtime.dismiss(leaving, keep).values())
            continue
        if not server.up:
            runtime.do(f"set server {backend}/{name} state drain")
            continue
        siblings = others(name, table)
        if server.serves and not any(sibling.serves for sibling in siblings):
            try:
                if not siblings:
                    raise HAProxyError("there is no other slot")
                runtime.bring_up(backend, siblings[0].name, up_timeout)
            except HAProxyError:
                serving.append({"backend": backend, "server": name})
                continue
        cut += sum(runtime.dismiss(leaving, keep).values())
    return {"serving": serving, "cut": cut}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "servers": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "backend": {"type": "str", "required": True},
                    "server": {"type": "str", "required": True},
                    "drain_timeout": {"type": "float"},
                },
            },
            **TIMEOUTS,
            **SOCKETS,
            **LOCK,
        },
        supports_check_mode=True,
    )
    params = module.params
    wanted = [
        Wanted(
            item["backend"],
            item["server"],
            params["drain_timeout"] if item["drain_timeout"] is None else item["drain_timeout"],
        )
        for item in params["servers"]
    ]
    runtime = Runtime(params["socket"], params["master_socket"])
    try:
        current = tables(runtime, [item.backend for item in wanted], missing_is_fine=module.check_mode)
        changes = plan(wanted, current, missing_is_fine=module.check_mode)
        outcome: dict[str, Any] = {}
        if not module.check_mode:
            keep = paced(lambda: renew_given(params["lock"]))
            outcome = apply(runtime, wanted, params["up_timeout"], keep)
            stay = {f"{item['backend']}/{item['server'].rpartition('.')[0]}" for item in outcome["serving"]}
            changes = [item for item in changes if item["name"].rpartition(".")[0] not in stay]
        result: dict[str, Any] = {
            "changed": bool(changes),
            "diff": difference(changes),
            **outcome,
        }
    except LockError as error:
        module.fail_json(msg=f"gateway_hold: {error}", lock_lost=True)
    except HAProxyError as error:
        module.fail_json(msg=f"gateway_hold: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
