#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a datacenter's lock for another while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock_renew
short_description: Keep a datacenter's lock for another while
version_added: "0.1.0"
description:
  - Prolongs the lock that M(lock_acquire) took for this run, also when it expired and nobody came meanwhile.
  - Fails when somebody else has it or when it is gone, so that a run which stood still for too long ends.
  - M(gateway_switch) and M(gateway_watch) do the same to the lock of their own host.
attributes:
  check_mode:
    description: Looks at nothing and renews nothing, as check mode takes no lock.
    support: full
  diff_mode:
    description: There is no diff, as a lock is no change.
    support: none
options:
  path:
    description: The file of the lock.
    type: path
    default: /var/lib/qianjiang/deployer/lock.json
  datacenter:
    description: Its name, for messages.
    type: str
    default: ""
  holder_id:
    description: The C(id) of this run, as the filter C(deployer) gives it.
    type: str
    required: true
  ttl:
    description: Seconds from now until the lock expires.
    type: int
    default: 900
seealso:
  - module: lock_acquire
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Keep the lock
  lock_renew:
    datacenter: "{{ datacenter }}"
    holder_id: "{{ ({} | deployer).id }}"
"""

RETURN = r"""
lock:
  description: The lock as written; null in check mode.
  returned: success
  type: dict
  sample:
    holder: {id: "…:4711:88123", controller: "control-1:…", user: ops, host: control-1}
    reason: rollout of webui
    acquired_at: "2026-11-24T10:05:11Z"
    expires_at: "2026-11-24T10:20:11Z"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.lock import LOCK_PATH, LockError, renew

ARGUMENTS = {
    "path": {"type": "path", "default": LOCK_PATH},
    "datacenter": {"type": "str", "default": ""},
    "holder_id": {"type": "str", "required": True},
    "ttl": {"type": "int", "default": 900},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, lock=None)
    try:
        lock = renew(params["path"], params["holder_id"], params["ttl"], datacenter=params["datacenter"])
    except LockError as error:
        module.fail_json(msg=f"lock_renew: {error}")
    module.exit_json(changed=False, lock=lock)


if __name__ == "__main__":
    main()
