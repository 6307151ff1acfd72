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
    differences, nor is what the image itself brings. Nor is the image, as only the origin knows which digest is wanted.
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
    description: >-
      Every service that the catalogue places on this node, each with every key, as the filter C(normalised_services)
      gives it. A container of any other one is an orphan.
    type: list
    elements: dict
    required: true
  asked_at:
    description: The controller's time as it asks, in seconds since 1970. A play asks its hosts at different times.
    type: float
extends_documentation_fragment:
  - service
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Compare this node with the catalogue
  service_compare:
    services: ["{{ services_normalised.webui }}"]
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
        V(extra), other containers of the replica that run, each as V(current) with V(proven) and its own
        V(differences); and V(port_holder), what else has the port of the free slot, or null.
      type: list
      elements: dict
    highest_release:
      description: The highest release number this node has seen; it takes no lower one.
      type: int
    images:
      description: The images of the service's repository in the engine, C(registry/repository@digest).
      type: list
      elements: str
    kept:
      description: Stopped containers kept for rollback, newest first, each with replica, release, digest,
        configuration, slot, container, and the differences that going back to it would make.
      type: list
      elements: dict
  sample:
    webui:
      highest_release: 6
      images: [registry.hangzhou.lab:5000/webui@sha256:9366c851b10b362e1f2052e826b14b5f115812fc8eef660ebd1ac4531ef6d31c]
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
              before: (hidden)
              after: null
          extra: []
          port_holder: null
orphans:
  description: Containers of ours that the given services do not name, each with container, service, replica, release,
    slot and running.
  returned: success
  type: list
  elements: dict
clock_ahead:
  description: How many seconds this node's clock was ahead of O(asked_at).
  returned: with O(asked_at)
  type: float
  sample: 0.25
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.engine import Engine, EngineError
from ansible.module_utils.qianjiang.observation import observe_node
from ansible.module_utils.qianjiang.secret import discreet
from ansible.module_utils.qianjiang.service_state import STATE_PATH, StateError


def main() -> None:
    """Run the module."""
    module = discreet(AnsibleModule)(
        argument_spec={
            "services": {"type": "list", "elements": "dict", "required": True},
            "asked_at": {"type": "float"},
            "state_path": {"type": "path", "default": STATE_PATH},
        },
        supports_check_mode=True,
    )
    # Before the engine is asked: that may take a minute
    now, asked_at = time.time(), module.params["asked_at"]
    try:
        result = observe_node(Engine(), module.params["services"], module.params["state_path"])
    except (EngineError, StateError, ValueError) as error:
        module.fail_json(msg=f"service_compare: {error}")
    clock = {} if asked_at is None else {"clock_ahead": now - asked_at}
    module.exit_json(changed=False, **clock, **result)


if __name__ == "__main__":
    main()
