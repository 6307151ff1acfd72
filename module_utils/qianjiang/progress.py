# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a rollout is: from what the tasks of its plays report, the phase of each node and the bar of each wave.

Pure: no clock, no terminal. Each event returns the lines that it has to say, mostly one or none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

WAITING = "waiting"
DONE = "done"
FAILED = "failed"

SWITCH = "switch"
# What a node is said to do in a play; in a play of phase "switch" its task says it
PLAYS = {
    "look": "looking",
    "copy": "copying",
    "pull": "pulling",
    "ahead": "starting ahead",
    "settle": "settling",
    "record": "recording",
}
SWITCH_AT_GATEWAY = "Switch at the gateway"
STEPS = {
    "Start the candidates and prove them": "starting",
    SWITCH_AT_GATEWAY: "switching",
    "Watch the new release": "baking",
}


class Row(NamedTuple):
    """A node."""

    node: str
    services: str
    phase: str
    reason: str


class Bar(NamedTuple):
    """A wave: its nodes that are done, that failed, and all."""

    name: str
    done: int
    failed: int
    total: int


def first_line(reason: str) -> str:
    """Its first line that says something, without what a terminal would obey."""
    lines = ["".join(letter for letter in line if letter.isprintable()).strip() for line in reason.splitlines()]
    return next((line for line in lines if line), "")


class Progress:
    """The phases of the nodes. A failure stays; the nodes that a plan does not name are shown until there is one.

    A node is in a wave of each stage that changes it: its n-th batch belongs to its n-th wave.
    """

    def __init__(self, check: bool = False) -> None:
        self.phase = ""
        self._suffix = " (check)" if check else ""
        self.planned = False
        self._waves: list[tuple[str, list[str]]] = []
        self._services: dict[str, str] = {}
        self._phases: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self._batches: Counter[str] = Counter()  # that a node has been in
        self._switched: set[str] = set()  # nodes of this batch that the gateway has switched

    def begin(self, phase: str) -> list[str]:
        """A play begins, or the next batch of it: the one before has ended."""
        lines = self.end()
        self.phase = phase
        return lines

    def end(self) -> list[str]:
        """The play, or its batch, has ended."""
        lines = []
        for node, phase in list(self._phases.items()):
            if phase == FAILED:
                continue
            if phase in STEPS.values():
                self._batches[node] += 1
                if self._is_done(node):
                    lines += self._enter(node, DONE)
            self._phases[node] = DONE if self._is_done(node) else WAITING
        self._switched.clear()
        self.phase = ""
        return lines

    def plan(self, plan: Mapping[str, Any]) -> None:
        """The plan is known. A node that failed before is shown on."""
        self.planned = True
        self._waves = [
            (
                f"wave {number} {', '.join(wave['datacenters'])}",
                [node for batch in wave["batches"] for node in batch],
            )
            for number, wave in enumerate(plan.get("waves", []), start=1)
        ]
        self._services = {
            node: ", ".join(f"{step['service']} r{step['release']}" for step in steps)
            for node, steps in plan["steps"].items()
        }
        failed = dict.fromkeys(self._reasons, FAILED)
        self._phases = {node: self._phases.get(node, WAITING) for node in plan["nodes"]} | failed

    def started(self, node: str, task: str) -> list[str]:
        """A task starts on a node."""
        if self.planned and node not in self._phases:
            return []
        if self.phase == SWITCH:
            phase = STEPS.get(task)
            if phase == STEPS["Start the candidates and prove them"]:
                self._switched.discard(node)
        else:
            phase = PLAYS.get(self.phase, self.phase)
        return self._enter(node, phase) if phase else []

    def succeeded(self, node: str, task: str) -> None:
        """A task is done on a node."""
        if self.phase == SWITCH and task == SWITCH_AT_GATEWAY:
            self._switched.add(node)

    def failed(self, node: str, reason: str) -> list[str]:
        """A node has failed; its first reason is kept."""
        if node in self._reasons:
            return []
        self._reasons[node] = first_line(reason)
        self._switched.discard(node)
        if self._phases.get(node) not in STEPS.values() and self._is_done(node):
            self._batches[node] -= 1
        return self._enter(node, FAILED)

    def rows(self) -> list[Row]:
        """The nodes in rollout order."""
        return [
            Row(node, self._services.get(node, ""), phase, self._reasons.get(node, ""))
            for node, phase in self._phases.items()
        ]

    def bars(self) -> list[Bar]:
        """The waves in rollout order."""
        bars = []
        seen: Counter[str] = Counter()
        for name, nodes in self._waves:
            done = {node for node in nodes if seen[node] < self._batches[node] + (node in self._switched)}
            seen.update(nodes)
            bars.append(Bar(name, len(done), len(set(nodes) & set(self._reasons) - done), len(nodes)))
        return bars

    def _is_done(self, node: str) -> bool:
        waves = sum(node in nodes for _, nodes in self._waves)
        return self._batches[node] >= max(waves, 1)

    def _enter(self, node: str, phase: str) -> list[str]:
        if self._phases.get(node) in {phase, FAILED}:
            return []
        self._phases[node] = phase
        who = " ".join(part for part in (node, self._services.get(node)) if part)
        reason = self._reasons.get(node)
        return [f"{who}: {phase}{f': {reason}' if reason else ''}{self._suffix}"]
