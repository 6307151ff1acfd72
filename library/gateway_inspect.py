#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway forwards to, and how its servers do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_inspect
short_description: Read the servers of a gateway, and the lock that it keeps
version_added: "0.1.0"
description:
  - Returns each server of the backends asked for, with its state and what HAProxy counted of it.
  - Changes nothing, and does not fail because HAProxy does not run or lacks a backend.
attributes:
  check_mode:
    description: Reads as ever.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  backends:
    description: The backends, named as the services.
    type: list
    elements: str
    required: true
  lock_path:
    description: The file of the datacenter's lock, where this host keeps it. Not read where it is left out.
    type: path
extends_documentation_fragment:
  - gateway
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Look at the gateway
  gateway_inspect:
    backends: [webui]
  register: gateway_servers
"""

RETURN = r"""
answers:
  description: Whether HAProxy answers.
  returned: always
  type: bool
  sample: true
reason:
  description: Why it does not answer; empty where it does.
  returned: always
  type: str
  sample: ""
backends:
  description:
    - "The servers by name, by backend: V(admin) is V(ready), V(drain) or V(maint); V(up) what HAProxy's checks found;
      V(serves) whether it gets new requests; V(sessions) those it has, with older workers'; V(check_status) the last
      check's."
    - V(requests) and V(errors_5xx), answers of 5xx and requests left unanswered, count since HAProxy started or was
      last reloaded. V(response_ms) and V(total_ms) are averages over the last 512 answers.
  returned: always
  type: dict
  sample:
    webui:
      hangzhou-node1.0.a:
        admin: ready
        up: true
        serves: true
        sessions: 3
        check_status: L7OK
        requests: 10432
        errors_5xx: 1
        response_ms: 14
        total_ms: 15
lock:
  description: The lock as P(lock_acquire#module) wrote it; null where there is none, or a damaged one.
  returned: always
  type: dict
missing:
  description: Backends that the running HAProxy does not have. Empty where it does not answer.
  returned: always
  type: list
  elements: str
  sample: []
"""

from contextlib import suppress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.haproxy import (
    SOCKETS,
    HAProxyError,
    NoBackendError,
    Runtime,
    Server,
    UnreachableError,
)
from ansible.module_utils.qianjiang.lock import Lock, LockError, read

# Fields of a server that are not returned
HIDDEN = ("name", "checked", "queued", "perhaps_unanswered", "address", "port")


def shown(server: Server) -> dict[str, Any]:
    """A server as it is returned."""
    fields = server._asdict() | {"serves": server.serves}
    return {name: value for name, value in fields.items() if name not in HIDDEN}


def inspect(runtime: Runtime, backends: list[str]) -> dict[str, Any]:
    """What the module returns."""
    found: dict[str, dict[str, Any]] = {}
    missing = []
    for backend in dict.fromkeys(backends):
        try:
            found[backend] = {name: shown(server) for name, server in runtime.servers(backend).items()}
        except NoBackendError:
            missing.append(backend)
        except UnreachableError as error:
            return {"answers": False, "reason": str(error), "backends": {}, "missing": []}
    return {"answers": True, "reason": "", "backends": found, "missing": missing}


def lock_at(path: str | None) -> Lock | None:
    """The lock; who wants to take it is told what is wrong with it."""
    with suppress(LockError):
        return read(path) if path else None
    return None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "backends": {"type": "list", "elements": "str", "required": True},
            "lock_path": {"type": "path"},
            **SOCKETS,
        },
        supports_check_mode=True,
    )
    runtime = Runtime(module.params["socket"], module.params["master_socket"])
    try:
        seen = inspect(runtime, module.params["backends"])
        module.exit_json(changed=False, lock=lock_at(module.params["lock_path"]), **seen)
    except HAProxyError as error:
        module.fail_json(msg=f"gateway_inspect: {error}")


if __name__ == "__main__":
    main()
