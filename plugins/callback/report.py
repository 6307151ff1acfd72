# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what a play has to say to people after the recap, as text and tables instead of YAML."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report
type: notification
short_description: Print the reports of a playbook after its recap
description:
  - A play hands over a report with M(ansible.builtin.set_stats), as C(report) with C(title), C(columns), C(rows) and
    C(notes).
  - The time that the playbook took and the largest number of tasks that any host executed are printed with it.
requirements:
  - enabled in C(callbacks_enabled)
"""

import sys
import time
from typing import Any

from ansible.plugins.callback import CallbackBase
from rich.console import Console
from rich.table import Table


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible's entry point."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The end of the playbook."""
        reports = [custom["report"] for custom in stats.custom.values() if "report" in custom]
        # A table in a log is as wide as it has to be
        width = None if sys.stdout.isatty() else 1000
        console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True, width=width)
        for report in reports:
            self._print(console, report)
        executed = max((stats.ok.get(host, 0) for host in stats.processed), default=0)
        seconds = time.monotonic() - self.started
        console.print(f"{seconds:.1f} s, at most {executed} tasks on any host")

    @staticmethod
    def _print(console: Console, report: dict[str, Any]) -> None:
        console.print()
        if report.get("rows"):
            table = Table(title=report.get("title"), title_justify="left", box=None, pad_edge=False)
            for column in report["columns"]:
                table.add_column(column, no_wrap=True)
            for row in report["rows"]:
                table.add_row(*(str(cell) for cell in row))
            console.print(table)
        elif report.get("title"):
            console.print(report["title"])
        for note in report.get("notes", []):
            console.print(note)
