#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a datacenter's lock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock_acquire
short_description: Take a datacenter's lock, so that no one else rolls out there
version_added: "0.1.0"
description:
  - Takes the lock that this host keeps for its datacenter, or prolongs it when this run of ansible-playbook has it.
  - A lock of someone else is taken over when it has expired, or when its holder ran on the same controller and is gone
    from there, and goes on record (O(record_path)) as that of a run that was interrupted.
  - Otherwise the module fails, and says who has it, since when, until when, and why.
  - A file that is no lock is left as it is, and the module fails.
  - It never reports a change. A lock comes and goes with each rollout and is no part of what the platform is, so that
    a rollout with nothing to do changes nothing.
attributes:
  check_mode:
    description: Takes nothing and does not fail on a lock of someone else. RV(refused) says what a real run would meet.
    support: full
  diff_mode:
    description: There is no diff, as there is no change.
    support: none
options:
  path:
    description: The file of the lock. Missing folders are made, with mode V(0755).
    type: path
    default: /var/lib/qianjiang/deployer/lock.json
  datacenter:
    description: The name of the datacenter, for messages and records.
    type: str
    default: ""
  holder:
    description: This run, with C(id), C(controller), C(user) and C(host), as the filter C(deployer) gives it.
    type: dict
    required: true
  reason:
    description: What the lock is for, told to whoever wants it meanwhile. It must hold no secrets.
    type: str
    required: true
  ttl:
    description: After how many seconds the lock expires, unless it is taken again. At most V(86400).
    type: int
    default: 900
  alive:
    description:
      - The ids of all runs that the controller has now, as the filter C(deployer) gives them.
      - One that is not among them and had the same C(controller) is gone, unless it began after the newest of them.
    type: list
    elements: str
    required: true
  record_path:
    description: The datacenter's records, where M(record_append) writes what became of a rollout.
    type: path
    default: /var/lib/qianjiang/records/rollouts.jsonl
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Take the lock
  lock_acquire:
    datacenter: "{{ datacenter }}"
    holder: "{{ lock_deployer }}"
    alive: "{{ lock_deployer.alive }}"
    reason: rollout of webui
  vars:
    lock_deployer: "{{ {} | deployer }}"
"""

RETURN = r"""
lock:
  description: The lock as written; as found in check mode and after a failure, and null if there was none.
  returned: always
  type: dict
  sample:
    holder: {id: "…:4711:88123", controller: "control-1:…", user: ops, host: control-1}
    reason: rollout of webui
    acquired_at: "2026-11-24T10:05:11Z"
    expires_at: "2026-11-24T10:15:11Z"
taken_over:
  description: C(lock), someone else's, and C(why) it counts no more (V(expired) or V(its process is gone)); else null.
  returned: success
  type: dict
refused:
  description: Why a real run would fail; empty when it would not, and outside of check mode.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.lock import LOCK_PATH, LockError, LockHeldError, acquire, as_holder, check_ttl, look
from ansible.module_utils.qianjiang.record import RECORD_PATH, RecordError, append, left_lock

ARGUMENTS = {
    "path": {"type": "path", "default": LOCK_PATH},
    "datacenter": {"type": "str", "default": ""},
    "holder": {"type": "dict", "required": True},
    "reason": {"type": "str", "required": True},
    "ttl": {"type": "int", "default": 900},
    "alive": {"type": "list", "elements": "str", "required": True},
    "record_path": {"type": "path", "default": RECORD_PATH},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    params = module.params
    path, alive, datacenter = params["path"], params["alive"], params["datacenter"]
    try:
        holder = as_holder(params["holder"])
        check_ttl(params["ttl"])
        if module.check_mode:
            lock, refused = look(path, holder, alive, datacenter=datacenter)
            module.exit_json(changed=False, lock=lock, taken_over=None, refused=refused)
        acquired = acquire(
            path,
            holder,
            params["reason"],
            params["ttl"],
            alive,
            datacenter=datacenter,
            remember=lambda found, why: append(params["record_path"], [left_lock(found, why, datacenter)]),
        )
    except LockHeldError as error:
        module.fail_json(msg=f"lock_acquire: {error}", lock=error.lock)
    except (LockError, RecordError) as error:
        module.fail_json(msg=f"lock_acquire: {error}", lock=None)
    module.exit_json(changed=False, refused="", **acquired)


if __name__ == "__main__":
    main()
