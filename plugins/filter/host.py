# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guards that read host_facts, so that a role runs a slow stock module only where it has something to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils.qianjiang import host

DOCUMENTATION = r"""
name: host
short_description: Guards that read what M(host_facts) gathered
description:
  - C(names | packages_missing(ansible_facts)) lists the packages the host lacks (C(name) or C(name=version*)).
  - C(names | packages_held(ansible_facts)) lists those that are kept at their version.
  - C(ansible_facts | service_running("docker")) is true when the service runs and is enabled.
  - C(users | users_outside_group(ansible_facts, "docker")) lists the users who are not members of the group.
  - Without facts everything is missing, so that the guarded stock module runs.
"""


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "packages_held": host.packages_held,
            "packages_missing": host.packages_missing,
            "service_running": host.service_running,
            "users_outside_group": host.users_outside_group,
        }
