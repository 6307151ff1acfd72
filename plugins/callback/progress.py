# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show how far a rollout is. What is shown is decided in module_utils/qianjiang/progress.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Ansible's default output, and how far a rollout is
description:
  - A play is one of a rollout where its C(vars) have C(progress_phase), the name of its phase. Of its tasks only what
    people have to see is shown, which is failures, warnings, diffs and debug messages, and in check mode what would
    change; and, on a terminal, a line for each node and a bar for each wave, otherwise a line for each change of a
    node's phase.
  - The nodes and waves are those of the fact C(rollout_plan). A node has failed when it gets the fact
    C(service_failure).
  - All other plays, and all plays with C(-v), are shown as P(ansible.builtin.default#callback) does; but after the plan
    a play without hosts is one that has nothing to do, and is not shown.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as C(stdout_callback)
"""

import atexit
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ansible import constants as C  # noqa: N812 - Ansible's own name for it
from ansible import context
from ansible.module_utils.qianjiang.progress import DONE, FAILED, WAITING, Progress, Row
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.utils.color import ANSIBLE_COLOR
from ansible.utils.fqcn import add_internal_fqcns
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

DEBUG = add_internal_fqcns(("debug",))
STYLES = {FAILED: "red", DONE: "green", WAITING: "dim"}
BAR_WIDTH = 30
GAP = 2


def will_be_rescued(task: Any) -> bool:
    """Whether a block around a task has a rescue section that runs when the task fails."""
    inside = {task._uuid}
    block = task._parent
    while block is not None:
        sections = getattr(block, "rescue", []) + getattr(block, "always", [])
        if getattr(block, "rescue", []) and not inside & {part._uuid for part in sections}:
            return True
        inside.add(block._uuid)
        block = block._parent
    return False


def fitting(rows: list[Row], room: int) -> list[Row]:
    """The rows for a terminal with `room` lines: nodes that failed or are busy before those that wait or are done."""
    if len(rows) <= room:
        return rows
    ranks = {FAILED: 0, WAITING: 2, DONE: 3}
    chosen = sorted(rows, key=lambda row: ranks.get(row.phase, 1))[: max(room - 1, 0)]
    return [row for row in rows if row in chosen]


class Screen:
    """The lines and bars at the bottom of a terminal; all other output scrolls above them.

    Whoever draws holds Ansible's display lock first. It is held during forks too, so no worker inherits one of rich's
    locks closed. rich's own refresh thread takes them in the opposite order, and would block both threads for ever.
    """

    def __init__(self, lock: threading.RLock, progress: Progress) -> None:
        self._lock = lock
        self._progress = progress
        self._since: dict[str, tuple[str, float]] = {}
        self._stopped = threading.Event()
        self._console = Console(
            file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True, no_color=not ANSIBLE_COLOR
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stderr=sys.stderr.isatty(),
            get_renderable=self._frame,
        )
        with self._lock:
            self._live.start(refresh=True)
            # A run that is killed leaves the terminal as it was
            self._console.show_cursor(True)
        threading.Thread(target=self._tick, daemon=True).start()
        atexit.register(self.stop)

    def refresh(self) -> None:
        """Draw what has changed."""
        with self._lock:
            if not self._stopped.is_set():
                self._live.refresh()

    def stop(self) -> None:
        """Leave the last state on the terminal, in full."""
        with self._lock:
            if not self._stopped.is_set():
                self._stopped.set()
                self._live.stop()
        atexit.unregister(self.stop)

    def _tick(self) -> None:
        while not self._stopped.wait(1):
            self.refresh()

    def _frame(self) -> Group:
        bars = self._progress.bars()
        rows = self._progress.rows()
        shown = rows if self._stopped.is_set() else fitting(rows, self._console.height - len(bars) - 2)
        nodes = Table.grid(padding=(0, GAP))
        cells = [self._cells(row) for row in shown]
        # rich would take the room for a long reason from all columns alike
        taken = sum(max((line[column].cell_len for line in cells), default=0) + GAP for column in range(3))
        for line in cells:
            line[-1].truncate(max(self._console.width - taken, 1), overflow="ellipsis")
            nodes.add_row(*line)
        waves = Table.grid(padding=(0, GAP))
        for _ in range(3):
            waves.add_column(no_wrap=True, overflow="ellipsis")
        for bar in bars:
            style = "red" if bar.failed else "green"
            drawn = ProgressBar(bar.total, bar.done, width=BAR_WIDTH, complete_style=style, finished_style=style)
            failed = f", {bar.failed} failed" if bar.failed else ""
            waves.add_row(bar.name, drawn, f"{bar.done}/{bar.total}{failed}")
        hidden = [Text(f"… and {len(rows) - len(shown)} more", "dim")] if len(shown) < len(rows) else []
        return Group(*([nodes] if shown else []), *hidden, *([waves] if bars else []))

    def _cells(self, row: Row) -> list[Text]:
        style = STYLES.get(row.phase, "")
        services = Text(row.services)
        services.truncate(self._console.width // 3, overflow="ellipsis")
        return [Text(row.node), services, Text(row.phase, style), Text(row.reason or self._age(row), style)]

    def _age(self, row: Row) -> str:
        if row.phase in STYLES:
            return ""
        phase, since = self._since.get(row.node, ("", 0.0))
        if phase != row.phase:
            since = time.monotonic()
            self._since[row.node] = (row.phase, since)
        return f"{time.monotonic() - since:.0f} s"


class CallbackModule(DefaultCallback):  # type: ignore[misc]
    """Ansible's entry point."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "progress"

    def __init__(self) -> None:
        super().__init__()
        self._progress = Progress(check=bool(context.CLIARGS.get("check")))
        self._screen: Screen | None = None
        self._of_rollout = False
        self._holds_banner = False
        self._announced: Any = None

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A play starts, or the next batch of it."""
        phase = play.get_vars().get("progress_phase")
        self._announced = None
        if not phase or self._display.verbosity:
            self._announced = play
            if not self._progress.planned or self._display.verbosity:
                self._show_play()
            return
        self._play = play
        self._of_rollout = True
        if self._screen is None and sys.stdout.isatty():
            self._screen = Screen(self._display._lock, self._progress)
        self._advance(lambda: self._progress.begin(str(phase)))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The playbook has ended."""
        self._leave()
        super().v2_playbook_on_stats(stats)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """A phase in which no node has anything to do is none, and no other play after the plan."""
        if not self._of_rollout and not self._announced:
            super().v2_playbook_on_no_hosts_matched()

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """A task file is included."""
        if not self._of_rollout:
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """A task starts on a host."""
        super().v2_runner_on_start(host, task)
        if self._of_rollout and host.name not in C.LOCALHOST:
            self._advance(lambda: self._progress.started(host.name, task.name))

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task is done on a host."""
        facts = result.result.get("ansible_facts") or {}
        if "rollout_plan" in facts:
            with self._display._lock:
                self._progress.plan(facts["rollout_plan"])
        if not self._of_rollout or self._is_for_people(result):
            super().v2_runner_on_ok(result)
        else:
            self._handle_warnings_and_exception(result)
        if self._of_rollout:
            node = result.host.name
            reason = facts.get("service_failure")
            self._advance(
                lambda: (
                    self._progress.failed(node, str(reason))
                    if reason
                    else self._progress.succeeded(node, result.task.name)
                )
            )

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """An item of a loop is done."""
        if not self._of_rollout or self._is_for_people(result):
            super().v2_runner_item_on_ok(result)
        else:
            self._handle_warnings_and_exception(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A task has nothing to do on a host."""
        if not self._of_rollout:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        """An item of a loop has nothing to do."""
        if not self._of_rollout:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task has failed on a host. Where the play goes on, it says in its own words why."""
        if self._goes_on(result, ignore_errors):
            self._handle_warnings(result.result)
            return
        # The base class removes from the result what it has shown
        reason = str(result.result.get("msg", ""))
        super().v2_runner_on_failed(result, ignore_errors)
        if self._of_rollout and not ignore_errors:
            self._advance(lambda: self._progress.failed(result.host.name, reason))

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """An item of a loop has failed."""
        if self._goes_on(result, bool(result.task.ignore_errors)):
            self._handle_warnings(result.result)
        else:
            super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host cannot be reached."""
        reason = f"unreachable: {result.result.get('msg', '')}"
        super().v2_runner_on_unreachable(result)
        if self._of_rollout and not result.task.ignore_unreachable:
            self._advance(lambda: self._progress.failed(result.host.name, reason))

    def _show_play(self) -> None:
        """One that is none of a rollout, where it has not been shown yet."""
        if self._announced:
            self._leave()
            super().v2_playbook_on_play_start(self._announced)
            self._announced = None

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        self._show_play()
        # Remember its name, for the banner above what its results have to say
        self._holds_banner = self._of_rollout
        super()._task_start(task, prefix)
        self._holds_banner = False

    def _print_task_banner(self, task: Any) -> None:
        if not self._holds_banner:
            super()._print_task_banner(task)

    def _is_for_people(self, result: Any) -> bool:
        """Messages; in check mode, what would change; and diffs, as the line after a diff says whose it is."""
        if result.task.action in DEBUG:
            return self._run_is_verbose(result)  # type: ignore[no-any-return]
        parts = [result.result, *result.result.get("results", [])]
        # The results of a package module are text
        has_diff = result.task.diff and any(isinstance(part, dict) and part.get("diff") for part in parts)
        return bool(result.result.get("changed") and (result.task.check_mode or has_diff))

    def _goes_on(self, result: Any, ignore_errors: bool) -> bool:
        return self._of_rollout and (ignore_errors or will_be_rescued(result.task))

    def _advance(self, event: Callable[[], list[str] | None]) -> None:
        """Let something happen, and say so: the log has every line, the terminal only what will not be seen below."""
        with self._display._lock:
            lines = event() or []
            for line in lines:
                is_failure = f": {FAILED}" in line
                self._display.display(
                    f"{time.strftime('%H:%M:%S')} {line}",
                    color=C.COLOR_ERROR if is_failure else None,
                    log_only=self._screen is not None and not is_failure,
                )
            if self._screen is not None:
                self._screen.refresh()

    def _leave(self) -> None:
        """The plays of the rollout, or these ones of them, are over."""
        if not self._of_rollout:
            return
        self._advance(self._progress.end)
        self._of_rollout = False
        if self._screen is not None:
            self._screen.stop()
            self._screen = None
