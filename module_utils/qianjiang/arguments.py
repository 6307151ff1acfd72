# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options and results that the modules which speak to registries share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.registry import RegistryClient

# Documented in plugins/doc_fragments/registry_client.py
REGISTRY_CLIENT: dict[str, dict[str, Any]] = {
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
}
LOGIN_TOGETHER = [("username", "password")]
# Numbers of these modules, and the least that something can be done with
LEAST = {
    "timeout": 1,
    "stall_timeout": 1,
    "copy_timeout": 0,
    "deadline": 0,
    "retries": 0,
    "min_free_bytes": 0,
    "backoff": 0,
}


def check_numbers(module: AnsibleModule) -> None:
    """End the module where a number is too small, or none that ends (NaN, infinity)."""
    for name, least in LEAST.items():
        value = module.params.get(name, least)
        if not least <= value < math.inf:
            module.fail_json(msg=f"{name}: expected at least {least}, got {value}")


def registry_client(params: Mapping[str, Any], registry: str) -> RegistryClient:
    """A client of one registry, with the options of a module."""
    return RegistryClient(registry, params["username"], params["password"], params["ca_path"], params["timeout"])


def logins(params: Mapping[str, Any], *registries: str) -> dict[str, tuple[str | None, str | None]]:
    """The module's username and password for each registry."""
    return dict.fromkeys(registries, (params["username"], params["password"]))


def write_private(file: Path, text: str) -> Path:
    """Write a file that nobody else can read, not even for a moment."""
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(text)
    return file
