# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that make one history of what each datacenter has on record, for the report callback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.module_utils.qianjiang.record import history_rows, merge

DOCUMENTATION = r"""
name: record
short_description: One history of the records of all datacenters
description:
  - C([hangzhou.records, shanghai.records] | merge_records) gives each record once, by time.
  - C(found | history_report(host by place, "webui", 20)) makes a report of M(record_read)'s results by
    host. It takes the host of each place, the names of services (V(webui,api); all by default), and how many rollouts
    (the newest; all by default). A place whose host has no result is named in the notes.
"""


def merge_records(lists: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The records of several hosts as one history."""
    return list(merge(lists))


def history_report(
    found: Mapping[str, Mapping[str, Any]], places: Mapping[str, str], services: str = "", limit: int | str = 0
) -> dict[str, Any]:
    """record_read's results by host → what the report callback prints."""
    names = [name.strip() for name in services.split(",") if name.strip()]
    asked = {place: found[host] for place, host in places.items() if host in found}
    report = history_rows(merge(result["records"] for result in asked.values()), names, int(limit))
    of_what = f" of {', '.join(names)}" if names else ""
    report["title"] = "" if report["rows"] else f"No rollout{of_what} is on record"
    report["notes"] += [
        f"{place}: {result['damaged']} damaged line{'s' if result['damaged'] > 1 else ''} left out"
        for place, result in asked.items()
        if result["damaged"]
    ]
    report["notes"] += [
        f"{place} could not be asked; what only it has on record is missing here"
        for place in places
        if place not in asked
    ]
    return dict(report)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"history_report": history_report, "merge_records": merge_records}
