# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What identifies a release: an image digest and the hash of the configuration its containers are made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# What a container is made of. The rest of a service (placement, update policy, …) changes without a new container.
CONTAINER_KEYS = (
    "command",
    "env",
    "hardening",
    "health",
    "limits",
    "log",
    "mounts",
    "port",
    "stop_timeout",
    "tmpfs",
    "user",
)


def configuration_hash(service: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of what affects a container, whatever order it was written in."""
    part: dict[str, Any] = {key: service[key] for key in CONTAINER_KEYS}
    # why a service is weakened, and where the gateway asks, is nothing the container knows
    part["hardening"] = {key: value for key, value in service["hardening"].items() if key != "reason"}
    part["health"] = {key: value for key, value in service["health"].items() if key != "ready_path"}
    if "capabilities" in part["hardening"]:
        part["hardening"]["capabilities"] = sorted(part["hardening"]["capabilities"])
    part["mounts"] = sorted(service["mounts"], key=lambda mount: str(mount["target"]))
    part["tmpfs"] = sorted(service["tmpfs"])
    return hashlib.sha256(json.dumps(part, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
