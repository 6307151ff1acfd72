# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures and tables of the benchmarks. Pure: no clock, no lab; only `write` touches a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)", re.MULTILINE)
# The last line of plugins/callback/report.py
CLOSING = re.compile(r"^[\d.]+ s, at most (\d+) tasks on any host", re.MULTILINE)
FORMATS = {"s": "{:.1f} s", "tasks": "{:.0f}", "ratio": "{:.3f}"}


class Row(NamedTuple):
    """A thing that was measured: all samples of the usual way and of ours (none where there is no such thing)."""

    what: str
    usual: Sequence[float]
    ours: Sequence[float]
    unit: str
    wanted: str = ""


def tasks_by_host(output: str) -> dict[str, int]:
    """How many tasks each host executed, from the recap."""
    return {host: int(ok) for host, ok, _ in RECAP.findall(output)}


def changes(output: str) -> int:
    """How many tasks changed something, on all hosts."""
    return sum(int(changed) for _, _, changed in RECAP.findall(output))


def most_tasks(output: str) -> int:
    """The largest number of tasks on any host, as the playbook itself reports it."""
    found = CLOSING.search(output)
    if not found:
        raise ValueError("the report's closing line is missing: is `report` in callbacks_enabled?")
    return int(found[1])


def cell(samples: Sequence[float], unit: str) -> str:
    """The median, and the smallest and the largest sample where they differ."""
    if not samples:
        return ""
    texts = [FORMATS[unit].format(value) for value in (median(samples), min(samples), max(samples))]
    return texts[0] if texts[1] == texts[2] else f"{texts[0]} ({texts[1]} to {texts[2]})"


def ratio(usual: Sequence[float], ours: Sequence[float]) -> str:
    """Ours as a part of the usual way."""
    return f"{median(ours) / median(usual):.2f}" if usual and ours and median(usual) else ""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(rows: Sequence[Row]) -> str:
    """The usual way and ours side by side."""
    header = ["", "the usual way", "ours", "ours ÷ usual", "wanted of ours"]
    cells = [
        [row.what, cell(row.usual, row.unit), cell(row.ours, row.unit), ratio(row.usual, row.ours), row.wanted]
        for row in rows
    ]
    return markdown(header, cells)


def growth(samples: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """Seconds per added node, by number of nodes, against the next smaller number."""
    sizes = sorted(samples)
    return {
        larger: (median(samples[larger]) - median(samples[smaller])) / (larger - smaller)
        for smaller, larger in pairwise(sizes)
    }


def growth_table(usual: Mapping[int, Sequence[float]], ours: Mapping[int, Sequence[float]]) -> str:
    """Rollouts by number of nodes, and what each added node costs."""
    header = ["nodes", "the usual way", "ours", "ours ÷ usual", "usual, per added node", "ours, per added node"]
    added = [{size: f"{seconds:.2f} s" for size, seconds in growth(samples).items()} for samples in (usual, ours)]
    return markdown(
        header,
        [
            [
                str(size),
                cell(usual[size], "s"),
                cell(ours[size], "s"),
                ratio(usual[size], ours[size]),
                *(column.get(size, "") for column in added),
            ]
            for size in sorted(ours)
        ],
    )


def write(file: Path, name: str, text: str) -> None:
    """Replace what stands between a document's markers `<!-- name: begin -->` and `<!-- name: end -->`."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    head, found_begin, rest = file.read_text().partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{file.name}: expected {begin.strip()} and {end}")
    file.write_text(f"{head}{begin}{text}\n{end}{tail}")
