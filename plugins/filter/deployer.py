# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who deploys, as the lock of a datacenter takes it, and who holds the locks, for the report callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ansible.module_utils.qianjiang.deployer import alive, identity
from ansible.module_utils.qianjiang.lock import shown_holder

DOCUMENTATION = r"""
name: deployer
short_description: Who this run of ansible-playbook is
description:
  - C({} | deployer) gives C(id), C(controller), C(user), C(host) and C(alive), as P(lock_acquire#module) takes them.
    The first four are the same in every task of a run; C(alive) is what runs when the filter is evaluated.
  - What it is applied to is kept beside these.
  - C("2026-11-24T10:05:11Z" | older_than(300)) is true five minutes later.
  - C(released | lock_report) makes a report of P(lock_release#module)'s results by host.
"""

COLUMNS = ["gateway", "holder", "since", "until", "reason"]


def deployer(extra: Mapping[str, Any]) -> dict[str, Any]:
    """`{} | deployer`: this run, and all runs of this controller that are alive."""
    return {**extra, **identity(), "alive": alive()}


def lock_report(released: Mapping[str, Mapping[str, Any]], title: str = "") -> dict[str, Any]:
    """Who held the locks, from lock_release's results by host."""
    report: dict[str, Any] = {"title": title, "columns": COLUMNS, "rows": [], "notes": []}
    for host, result in released.items():
        lock = result["released"]
        if lock:
            row = [host, shown_holder(lock), lock["acquired_at"], lock["expires_at"], lock["reason"]]
            report["rows"].append(row)
        if result["note"]:
            report["notes"].append(f"{host}: {result['note']}")
    return report


def older_than(stamp: str, seconds: float) -> bool:
    """Whether `stamp` ("2026-11-24T10:05:11Z") is more than so many seconds ago."""
    return (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds() > float(seconds)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"deployer": deployer, "lock_report": lock_report, "older_than": older_than}
