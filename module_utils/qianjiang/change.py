# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module changes, and how Ansible shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict


class Change(TypedDict):
    """One thing that a module changes; None stands for: not there."""

    name: str
    before: Any
    after: Any


def difference(changes: Iterable[Change]) -> dict[str, dict[str, Any]]:
    """The changes as Ansible shows differences."""
    found = list(changes)
    return {
        "before": {change["name"]: change["before"] for change in found},
        "after": {change["name"]: change["after"] for change in found},
    }
