#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the catalogue, or say everything that is wrong in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: catalogue_validate
short_description: Check the catalogue of services, and say everything that is wrong in it
description:
  - Checks every service of the catalogue against its schema and against the others, and fills in the defaults.
  - Reads only its parameters, so it belongs on the controller, before anything is touched.
  - All mistakes are found in one run, each named by the path of its variable.
  - The keys of a service are in docs/reference/catalogue.md.
options:
  services:
    description:
      - The catalogue, a service's keys by its name.
      - Its type is checked by this module, which names the path of what is wrong.
    type: raw
    required: true
  datacenters:
    description: The names of the nodes in each datacenter, by its name. A datacenter without nodes is an empty list.
    type: dict
    required: true
notes:
  - The environment of a service may hold passwords. Nothing of it is logged, returned, or repeated in the invocation.
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: There is never a difference to show.
    support: none
author: Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Read the catalogue
  catalogue_validate:
    services: "{{ services }}"
    datacenters: "{{ groups['nodes'] | nodes_by_datacenter(hostvars, datacenter_registries) }}"
  register: catalogue
  delegate_to: localhost
  run_once: true

- name: Say what is rolled out, in this order
  ansible.builtin.debug:
    msg: "{{ catalogue.order }}"
"""

RETURN = r"""
order:
  description: The services' names, each after those it depends on.
  returned: success
  type: list
  elements: str
  sample: [state, restfulapi, webui]
errors:
  description: What is wrong, one line each. RV(ignore:msg) has their number and all of them.
  returned: failure
  type: list
  elements: str
  sample: ['services.webui.health.interval: expected seconds as a number, got "fast"']
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.catalogue import CatalogueError, normalise, order_by_dependency

# There may be passwords in `env`: no parameter is logged (no_log) or returned (invocation). Marking `services` itself
# no_log would also blank every name and number in the result and in the errors.
UNSHOWN = {"module_args": "not shown, the catalogue may hold passwords"}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "raw", "required": True},
            "datacenters": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
        no_log=True,
    )
    try:
        services = normalise(module.params["services"], module.params["datacenters"])
    except CatalogueError as error:
        module.fail_json(msg=error.summary, errors=error.errors, invocation=UNSHOWN)
    module.exit_json(changed=False, order=order_by_dependency(services), invocation=UNSHOWN)


if __name__ == "__main__":
    main()
