#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what a rollout did."""

from __future__ import annotations

DOCUMENTATION = r"""
module: record_append
short_description: Record what a rollout did, and give the datacenter's lock back
version_added: "0.1.0"
description:
  - Adds records to a file with one line of JSON for each. They are on the disk when the module returns, all or none.
  - A record that is there already, by C(id), C(kind), C(datacenter), C(node), C(service) and C(replica), is not added
    again, so that the module may be run again.
  - What a crash left half written becomes a line of its own, which M(record_read) counts as damaged.
  - With O(holder_id), the lock of that run is released then, in the same round trip. A lock of someone else stays.
  - It never reports a change. A record tells of a rollout and is no part of what the platform is.
attributes:
  check_mode:
    description: Looks at the records and adds none. The lock stays.
    support: full
  diff_mode:
    description: There is no diff, as there is no change.
    support: none
options:
  records:
    description:
      - What to record. C(kind) is V(rollout) or V(node), and C(id) the run; these and C(started_at) must be there.
      - The shapes are in C(module_utils/qianjiang/record.py). They must hold no secrets.
    type: list
    elements: dict
    required: true
  path:
    description: The file. Missing folders are made, with mode V(0755).
    type: path
    default: /var/lib/qianjiang/records/rollouts.jsonl
  lock_path:
    description: The file of the lock to give back.
    type: path
  holder_id:
    description: Whose lock it is, as the filter C(deployer) gives it.
    type: str
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Record the rollout and give the lock back
  record_append:
    records: "{{ rollout_records }}"
    lock_path: /var/lib/qianjiang/deployer/lock.json
    holder_id: "{{ ({} | deployer).id }}"
"""

RETURN = r"""
appended:
  description: How many records were added.
  returned: success
  type: int
  sample: 5
released:
  description: The lock that was released; null if none was.
  returned: success
  type: dict
note:
  description: Why the lock was not released; empty when it was, or when there was none to release.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.lock import LockError, Released, release
from ansible.module_utils.qianjiang.record import RECORD_PATH, RecordError, append, check

ARGUMENTS = {
    "records": {"type": "list", "elements": "dict", "required": True},
    "path": {"type": "path", "default": RECORD_PATH},
    "lock_path": {"type": "path"},
    "holder_id": {"type": "str"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, required_together=[("lock_path", "holder_id")], supports_check_mode=True)
    params, appended = module.params, 0
    result: Released = {"released": None, "removed": False, "note": ""}
    try:
        check(params["records"])
        if not module.check_mode:
            appended = append(params["path"], params["records"])
            if params["holder_id"]:
                result = release(params["lock_path"], params["holder_id"])
    except RecordError as error:
        module.fail_json(msg=f"record_append: {error}")
    except LockError as error:
        module.fail_json(msg=f"record_append: the records are written, but the lock is not released: {error}")
    module.exit_json(changed=False, appended=appended, released=result["released"], note=result["note"])


if __name__ == "__main__":
    main()
