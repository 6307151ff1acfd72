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
  - With O(abandoned=true), the run of O(holder_id) is gone and another one gives its lock back.
  - With O(force=true), removes the lock whoever has it, also a damaged file. C(playbooks/unlock.yml) does that.
  - A lock that its own run does not give back goes on record (O(record_path)) as that of a run that was interrupted.
    Where nothing can be written, O(force=true) removes it all the same.
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
    description: The C(id) of a run, as the filter C(deployer) gives it. Either this or O(force=true) must be given.
    type: str
  abandoned:
    description: Whether O(holder_id) is another run, which is gone.
    type: bool
    default: false
  force:
    description: Remove the lock of whoever has it.
    type: bool
    default: false
  datacenter:
    description: The name of the datacenter, for the record.
    type: str
    default: ""
  record_path:
    description: The datacenter's records, where M(record_append) writes what became of a rollout.
    type: path
    default: /var/lib/qianjiang/records/rollouts.jsonl
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
  description: Why nothing was released, or that the file was damaged, or that the lock is not on record; else empty.
  returned: success
  type: str
  sample: "the lock is not ours: ops@control-2 has it since 2026-11-24T10:05:11Z"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.lock import LOCK_PATH, Lock, LockError, release
from ansible.module_utils.qianjiang.record import RECORD_PATH, RecordError, append, left_lock

ARGUMENTS = {
    "path": {"type": "path", "default": LOCK_PATH},
    "holder_id": {"type": "str"},
    "abandoned": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "datacenter": {"type": "str", "default": ""},
    "record_path": {"type": "path", "default": RECORD_PATH},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    path, holder_id, force = module.params["path"], module.params["holder_id"], module.params["force"]
    if bool(holder_id) == force:
        module.fail_json(msg="lock_release: expected either holder_id or force: true")
    unrecorded: list[str] = []

    def remember(lock: Lock, why: str) -> None:
        try:
            append(module.params["record_path"], [left_lock(lock, why, module.params["datacenter"])])
        except RecordError as error:
            if not force:
                raise
            unrecorded.append(f"it is not on record: {error}")

    try:
        result = release(
            path,
            None if force else holder_id,
            pretend=module.check_mode,
            remember=remember if force or module.params["abandoned"] else None,
        )
    except (LockError, RecordError) as error:
        module.fail_json(msg=f"lock_release: {error}")
    changed, lock = force and result["removed"], result["released"]
    module.exit_json(
        changed=changed,
        released=lock,
        note="; ".join(filter(None, [result["note"], *unrecorded])),
        diff={"before": lock if changed and lock else {}, "after": {}},
    )


if __name__ == "__main__":
    main()
