# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that run services on a node share."""

from __future__ import annotations


class ModuleDocFragment:
    """Ansible's entry point."""

    DOCUMENTATION = r"""
options:
  state_path:
    description: The directory where this node keeps its record of each service.
    type: path
    default: /var/lib/qianjiang/services
requirements:
  - Docker SDK for Python >= 5.0.3 (python3-docker)
"""
