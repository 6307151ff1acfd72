#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a datacenter's lock back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock_release
short_description: Give a datacenter's lock back, or take it from whoever has it
version_added: "0.1.0"
description:
  - With O(holder_id), releases the lock that M(lock_acquire) took for that run. A lock of someone else stays, and
    RV(note) says whose it is. This is no change, like taking it.
  - With O(force=true), removes the lock whoever has it, also a damaged file. C(playbooks/unlock.yml) does that.
attributes:
  check_mode:
    description: Says what it would release.
    support: full
  diff_mode:
    description: Shows the lock that O(force=true) removes.
    support: full
options:
  path:
    description: The file of the lock.
    type: path
    default: /var/lib/qianjiang/deployer/lock.json
  holder_id:
    description: The C(id) of this run, as the filter C(deployer) gives it. Either this or O(force=true) must be given.
    type: str
  force:
    description: Remove the lock of whoever has it.
    type: bool
    default: false
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Give the lock back
  lock_release:
    holder_id: "{{ ({} | deployer).id }}"

- name: Take the lock from whoever has it
  lock_release:
    force: true
"""

RETURN = r"""
released:
  description: What was released, with C(holder), C(reason), C(acquired_at) and C(expires_at); null if there was none.
  returned: success
  type: dict
note:
  description: Why nothing was released, or that the file was damaged; empty when a lock was released.
  returned: success
  type: str
  sample: "the lock is not ours: ops@control-2 has it since 2026-11-24T10:05:11Z"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.lock import LOCK_PATH, LockError, release

ARGUMENTS = {
    "path": {"type": "path", "default": LOCK_PATH},
    "holder_id": {"type": "str"},
    "force": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    path, holder_id, force = module.params["path"], module.params["holder_id"], module.params["force"]
    if bool(holder_id) == force:
        module.fail_json(msg="lock_release: expected either holder_id or force: true")
    try:
        result = release(path, None if force else holder_id, pretend=module.check_mode)
    except LockError as error:
        module.fail_json(msg=f"lock_release: {error}")
    changed, lock = force and result["removed"], result["released"]
    module.exit_json(
        changed=changed,
        released=lock,
        note=result["note"],
        diff={"before": lock if changed and lock else {}, "after": {}},
    )


if __name__ == "__main__":
    main()
