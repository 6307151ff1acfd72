#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan a rollout."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_plan
short_description: Plan a rollout from what the nodes run and what the catalogue asks for
description:
  - Decides which node changes what, in which order, and which number the release has.
  - Reads only its parameters and touches nothing; run it on the controller.
options:
  services:
    description: The catalogue as RV(ignore:services) of M(catalogue_validate).
    type: dict
    required: true
  order:
    description: The services to plan, in the order in which they change.
    type: list
    elements: str
    required: true
  datacenters:
    description: The datacenters in rollout order. A dict of C(registry) (host:port) and C(nodes) (names) by datacenter.
    type: dict
    required: true
  digests:
    description: The digest of each service at the origin.
    type: dict
    required: true
  comparisons:
    description: What M(service_compare) returned on each node, by node. A node without one is left out.
    type: dict
    required: true
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: The plan is the difference; it is returned, not shown as a diff.
    support: none
author: Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Plan the rollout
  rollout_plan:
    services: "{{ catalogue.services }}"
    order: "{{ catalogue.order }}"
    datacenters:
      hangzhou: {registry: "registry.hangzhou.example.com:5000", nodes: [hangzhou-node1, hangzhou-node2]}
    digests:
      webui: sha256:5b1e0c2f7a4d9e3680c1d2b7f4a69e85d30c1f2a7b6e4d5c8f9a0b1c2d3e4f56
    comparisons:
      hangzhou-node1: "{{ hostvars['hangzhou-node1']['comparison'] }}"
  register: plan
"""

RETURN = r"""
plan:
  description:
    - RV(ignore:changed) tells whether anything changes; RV(ignore:services) has number, digest and configuration of
      each release.
    - RV(ignore:nodes) are the nodes that change, in order; RV(ignore:steps) says what changes on each.
    - RV(ignore:images) are the images each datacenter needs; RV(ignore:holds) the gateway servers to keep out of
      rotation.
    - RV(ignore:orphans) are containers that the catalogue no longer names; RV(ignore:summary) says all of it in words.
  returned: success
  type: dict
  sample:
    changed: true
    nodes: [hangzhou-node1]
    summary: ["hangzhou: hangzhou-node1: webui.0: r6 1f2a7b6e4d5c → r7 5b1e0c2f7a4d (image)"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.plan import PlanError, plan_rollout

UNSHOWN = {"module_args": "not shown, the catalogue may hold passwords"}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "dict", "required": True},
            "order": {"type": "list", "elements": "str", "required": True},
            "datacenters": {"type": "dict", "required": True},
            "digests": {"type": "dict", "required": True},
            "comparisons": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
        no_log=True,
    )
    try:
        plan = plan_rollout(**module.params)
    except PlanError as error:
        module.fail_json(msg=str(error), invocation=UNSHOWN)
    module.exit_json(changed=False, plan=plan, invocation=UNSHOWN)


if __name__ == "__main__":
    main()
