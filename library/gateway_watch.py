#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch how a new release does in rotation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_watch
short_description: Watch the servers of a new release at a gateway, compared with those of the old one
version_added: "0.1.0"
description:
  - Watches for O(seconds), and fails as soon as a server in O(new) is not up or not in rotation, has too many errors or
    takes too long to answer. The message says which server, what was measured and what is allowed.
  - The new servers' figures count from the beginning of the watch. The old ones' are all that HAProxy counted since it
    started or was last reloaded, as they may be out of rotation by now.
  - Errors are answers of 5xx and requests left unanswered. The new servers are judged one by one, and all together.
  - A gateway that is reloaded or started again meanwhile is no failure, if it answers again within 15 seconds.
attributes:
  check_mode:
    description: Watches nothing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  backend:
    description: The backend, named as the service.
    type: str
    required: true
  new:
    description: The servers of the new release.
    type: list
    elements: str
    required: true
  old:
    description: The servers of the old release. Without any, only errors are judged.
    type: list
    elements: str
    default: []
  seconds:
    description: How long to watch.
    type: float
    required: true
  interval:
    description: Seconds between two looks.
    type: float
    default: 1
  max_errors:
    description: How much higher the new servers' share of errors may be than the old ones', V(0.01) for 1 in 100.
    type: float
    default: 0.01
  max_latency:
    description: How many times the old servers' response time the new ones' may be. Below 50 ms it is fine anyway.
    type: float
    default: 2.0
  min_requests:
    description: Fewer requests than this say nothing. Fewer to the old servers count as no errors and no response time.
    type: int
    default: 20
extends_documentation_fragment:
  - gateway
  - gateway.lock
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Watch the canary for five minutes
  gateway_watch:
    backend: webui
    new: [hangzhou-node1.0.b]
    old: [hangzhou-node1.0.a, hangzhou-node2.0.a]
    seconds: 300
"""

RETURN = r"""
new:
  description: Requests, errors and average response time of each new server, since the watch began.
  returned: when not in check mode, also when it fails
  type: dict
  sample: {hangzhou-node1.0.b: {requests: 812, errors: 0, response_ms: 14.2}}
old:
  description: The same of each old server, since HAProxy started or was last reloaded.
  returned: when not in check mode, also when it fails
  type: dict
  sample: {hangzhou-node1.0.a: {requests: 10432, errors: 1, response_ms: 14.0}}
seconds:
  description: How long it watched.
  returned: when not in check mode, also when it fails
  type: float
  sample: 300.2
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.bake import Figures, Limits, judge, since, whole
from ansible.module_utils.qianjiang.haproxy import (
    LOCK,
    SOCKETS,
    HAProxyError,
    NoServerError,
    Runtime,
    Server,
    UnreachableError,
)
from ansible.module_utils.qianjiang.lock import LockError, paced, renew_given

PATIENCE = 15.0


def shown(figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Figures as they are returned."""
    return {
        name: {"requests": each.requests, "errors": each.errors, "response_ms": each.response_ms}
        for name, each in figures.items()
    }


class Watch:
    """One watch. `keep` is called all the time, and raises when we may not go on."""

    def __init__(
        self,
        runtime: Runtime,
        params: Mapping[str, Any],
        keep: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.runtime, self.params, self.keep, self.clock, self.sleep = runtime, params, keep, clock, sleep
        self.limits = Limits(params["max_errors"], params["max_latency"], params["min_requests"])
        self.new: dict[str, Figures] = {}
        self.old: dict[str, Figures] = {}
        self.begin = clock()

    def result(self) -> dict[str, Any]:
        """What was seen so far."""
        return {"new": shown(self.new), "old": shown(self.old), "seconds": round(self.clock() - self.begin, 1)}

    def _look(self) -> dict[str, Server]:
        end = self.clock() + PATIENCE
        while True:
            try:
                found: dict[str, Server] = self.runtime.servers(self.params["backend"])
                return found
            except UnreachableError:
                if self.clock() >= end:
                    raise
                self.sleep(self.params["interval"])

    def run(self) -> str | None:
        """Watch; the reason when the new servers are not well enough."""
        backend, names = self.params["backend"], [*self.params["new"], *self.params["old"]]
        self.keep()
        first = servers = self._look()
        while True:
            for name in names:
                if name not in servers:
                    raise NoServerError(backend, name, servers)
            for name in self.params["new"]:
                if servers[name].requests < first[name].requests:
                    # A new worker counts from 0
                    first[name] = first[name]._replace(requests=0, errors_5xx=0, response_ms=0, perhaps_unanswered=0)
            self.new = {name: since(first[name], servers[name]) for name in self.params["new"]}
            for name in self.params["old"]:
                # What was counted before a reload says more
                if servers[name].requests >= self.old.get(name, Figures()).requests:
                    self.old[name] = whole(servers[name])
            problem: str | None = judge(self.new, self.old, self.limits)
            left = self.begin + self.params["seconds"] - self.clock()
            if problem or left <= 0:
                return problem
            self.keep()
            self.sleep(min(self.params["interval"], left))
            servers = self._look()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "backend": {"type": "str", "required": True},
            "new": {"type": "list", "elements": "str", "required": True},
            "old": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "float", "required": True},
            "interval": {"type": "float", "default": 1},
            "max_errors": {"type": "float", "default": 0.01},
            "max_latency": {"type": "float", "default": 2.0},
            "min_requests": {"type": "int", "default": 20},
            **SOCKETS,
            **LOCK,
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False)

    keep = paced(lambda: renew_given(params["lock"]))
    watch = Watch(Runtime(params["socket"], params["master_socket"]), params, keep)
    try:
        problem = watch.run()
    except (HAProxyError, LockError) as error:
        module.fail_json(msg=f"gateway_watch: {error}", **watch.result())
    if problem:
        text = f"{params['backend']} is worse than before, after {watch.result()['seconds']:g} s: {problem}"
        module.fail_json(msg=f"gateway_watch: {text}", **watch.result())
    module.exit_json(changed=False, **watch.result())


if __name__ == "__main__":
    main()
