#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Close a service for maintenance, and open it again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_maintain
short_description: Let a gateway answer that a service is in maintenance
version_added: "0.1.0"
description:
  - The gateway answers every request for the service with 503, C(Retry-After) and a message, until that is ended.
    Servers and their states stay as they are, and requests that run are not touched.
  - The message is written to a file, which HAProxy reads when it starts, and set in the running HAProxy, in one step.
attributes:
  check_mode:
    description: Compares, changes nothing. A HAProxy that does not run, or whose configuration has no such file yet, is
      no failure.
    support: full
  diff_mode:
    description: Shows the message, before and after.
    support: full
options:
  backend:
    description: The backend, named as the service.
    type: str
    required: true
  message:
    description: What clients are told, as one line of text. Empty ends the maintenance.
    type: str
    required: true
  map:
    description: The file with the services in maintenance, as the gateway's configuration has it.
    type: path
    default: /etc/haproxy/maintenance.map
extends_documentation_fragment:
  - gateway
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Close the WebUI
  gateway_maintain:
    backend: webui
    message: Back at 10:00

- name: Open it again
  gateway_maintain:
    backend: webui
    message: ""
"""

RETURN = r"""
services:
  description: The services that are (in check mode, would be) in maintenance, with their messages.
  returned: always
  type: dict
  sample: {webui: "Back at 10:00"}
"""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang import durable, system_file
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.haproxy import (
    SOCKETS,
    HAProxyError,
    NoBackendError,
    NoMapError,
    Runtime,
    UnreachableError,
    parse_map,
)
from ansible.module_utils.qianjiang.system_file import SystemFile

RUNNING = "the running HAProxy"
# HAProxy takes a command of 16 KiB at most, and cuts a longer line of a file
LONGEST = 2000

Messages = Mapping[str, str]


def written(messages: Messages) -> str:
    """The map file."""
    return "".join(f"{service} {message}\n" for service, message in sorted(messages.items()))


def plan(backend: str, message: str, current: Mapping[str, Messages]) -> list[Change]:
    """Where the message changes: `current` has what each place says."""
    return [
        {"name": place, "before": messages.get(backend, ""), "after": message}
        for place, messages in current.items()
        if messages.get(backend, "") != message
    ]


def refused(message: str) -> str:
    """What is wrong with a message."""
    if found := re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", message):
        return f"message: expected one line of text, got {found[0]!r} in it"
    if (length := len(message.encode())) > LONGEST:
        return f"message: expected at most {LONGEST} bytes, got {length}"
    return ""


class Maintained(NamedTuple):
    """What changes, and the services that then are in maintenance, with their messages."""

    changes: list[Change]
    services: dict[str, str]


def maintain(runtime: Runtime, path: str, backend: str, message: str, *, check: bool) -> Maintained:
    """Compare and apply, with no other one beside it: it would write back what this one has just changed."""
    with nullcontext() if check else durable.exclusive(Path(path)):
        file = system_file.read(path) or SystemFile("")
        current: dict[str, Messages] = {path: parse_map(file.content)}
        services = {name: text for name, text in current[path].items() if name != backend}
        services |= {backend: message} if message else {}
        down = ""
        try:
            # One that is gone from the configuration can still be ended
            if message:
                runtime.servers(backend)
            current[RUNNING] = runtime.entries(path)
        except (NoBackendError, NoMapError):
            if not check:
                raise
        except UnreachableError as error:
            down = str(error)
        changes = plan(backend, message, current)
        if not check:
            if any(change["name"] == path for change in changes):
                system_file.write(path, SystemFile(written(services)))
            if any(change["name"] == RUNNING for change in changes):
                runtime.replace(path, services)
            if down:
                raise HAProxyError(f"{down}. It holds from HAProxy's next start, as {path} says so")
    return Maintained(changes, services)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "backend": {"type": "str", "required": True},
            "message": {"type": "str", "required": True},
            "map": {"type": "path", "default": "/etc/haproxy/maintenance.map"},
            **SOCKETS,
        },
        supports_check_mode=True,
    )
    params = module.params
    message = params["message"].strip()
    if problem := refused(message):
        module.fail_json(msg=f"gateway_maintain: {problem}")
    runtime = Runtime(params["socket"], params["master_socket"])
    try:
        done = maintain(runtime, params["map"], params["backend"], message, check=module.check_mode)
    except (HAProxyError, OSError) as error:
        module.fail_json(msg=f"gateway_maintain: {error}")
    module.exit_json(
        changed=bool(done.changes),
        services=done.services,
        diff=difference(done.changes),
    )


if __name__ == "__main__":
    main()
