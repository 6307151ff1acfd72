#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what rollouts did."""

from __future__ import annotations

DOCUMENTATION = r"""
module: record_read
short_description: Read what rollouts did here
version_added: "0.1.0"
description:
  - Reads the records that M(record_append) wrote, oldest first. A file that is not there holds none.
  - A line that is no record, as a crash may leave one, is counted and does no harm.
attributes:
  check_mode:
    description: Reads, as ever.
    support: full
  diff_mode:
    description: There is no diff, as there is no change.
    support: none
options:
  path:
    description: The file.
    type: path
    default: /var/lib/qianjiang/records/rollouts.jsonl
  limit:
    description: Of how many rollouts, the newest, all records are read; V(0) for all. No rollout is read in part.
    type: int
    default: 200
author:
  - Qianjiangyuan Deploy contributors (@qianjiangyuan)
"""

EXAMPLES = r"""
- name: Read the records of the last 20 rollouts
  record_read:
    limit: 20
  register: history
"""

RETURN = r"""
records:
  description: The records, in the order of writing. The shapes are in C(module_utils/qianjiang/record.py).
  returned: success
  type: list
  elements: dict
damaged:
  description: How many lines of the file are no records.
  returned: success
  type: int
  sample: 0
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.record import RECORD_PATH, RecordError, read

ARGUMENTS = {
    "path": {"type": "path", "default": RECORD_PATH},
    "limit": {"type": "int", "default": 200},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    path, limit = module.params["path"], module.params["limit"]
    if limit < 0:
        module.fail_json(msg=f"record_read: limit: expected 0 or more, got {limit}")
    try:
        found = read(path, limit)
    except RecordError as error:
        module.fail_json(msg=f"record_read: {error}")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
