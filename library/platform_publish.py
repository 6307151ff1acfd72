#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the platform document on this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_publish
short_description: Keep the platform document on this host, where the WebUI reads it
description:
  - Writes the document as JSON, by renaming, so that a reader sees the old one or the new one and never half of it.
  - One call, folder included, where M(ansible.builtin.file) and M(ansible.builtin.copy) take four round trips.
options:
  document:
    description: What the platform is made of and who runs what. It must hold no secrets.
    type: dict
    required: true
  path:
    description: Absolute path of the file. Missing folders are made, with mode V(0755).
    type: path
    default: /var/lib/qianjiang/platform/platform.json
attributes:
  check_mode:
    description: Says whether the document would change.
    support: full
  diff_mode:
    description: Shows the text before and after.
    support: full
author: Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Tell the node what the platform runs
  platform_publish:
    document:
      origin: hangzhou
      datacenters: []
      services: []
      replicas: []
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /var/lib/qianjiang/platform/platform.json
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang import system_file

ARGUMENTS = {
    "document": {"type": "dict", "required": True},
    "path": {"type": "path", "default": "/var/lib/qianjiang/platform/platform.json"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    path, text = module.params["path"], json.dumps(module.params["document"], ensure_ascii=False, indent=2) + "\n"
    try:
        found = system_file.read(path)
        before = found.content if found else ""
        if before != text and not module.check_mode:
            system_file.write(path, system_file.SystemFile(text))
    except OSError as error:
        module.fail_json(msg=f"platform_publish: {path}: {error.strerror}; is its folder writable?")
    module.exit_json(
        changed=before != text,
        path=path,
        diff={"before": before, "after": text, "before_header": path, "after_header": path},
    )


if __name__ == "__main__":
    main()
