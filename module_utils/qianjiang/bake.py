# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a new release does as well as the old one, by what HAProxy counted. Pure.

HAProxy's response time is an average over the last 512 answers of a server, in whole milliseconds, rounded up. A slot
served an older release before, so the average of the new one's answers is computed out of two readings. The fewer
answers there are, the more the rounding blurs it: a server is too slow only when it is even in the best case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ansible.module_utils.qianjiang.haproxy import Server

# HAProxy's TIME_STATS_SAMPLES (its manual says 1024)
_WINDOW = 512
# Below this nobody notices a factor
LATENCY_FLOOR_MS = 50.0


class Figures(NamedTuple):
    """What was counted of a server. `blur_ms`: the average may be that much lower. `problem`: why it is not up."""

    requests: int = 0
    errors: int = 0
    response_ms: float = 0.0
    blur_ms: float = 0.0
    problem: str = ""

    @property
    def error_share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0


class Limits(NamedTuple):
    """See the module gateway_watch."""

    max_errors: float = 0.01
    max_latency: float = 2.0
    min_requests: int = 20


def problem_of(server: Server) -> str:
    """Why a server gets no requests. One that HAProxy has yet to check, after it was started again, has none."""
    if server.admin != "ready":
        return f"is in {server.admin}"
    return "" if server.up or server.check_status == "INI" else f"is not UP (last check: {server.check_status})"


def whole(server: Server) -> Figures:
    """All that HAProxy counted of a server."""
    return Figures(server.requests, server.errors_5xx, float(server.response_ms), 1.0, problem_of(server))


def since(begin: Server, now: Server) -> Figures:
    """What was counted of a server since `begin`; all of it where the counters began anew, as after a reload.

    The errors alone may fall without a reload: answers under way hide those of before. What `begin` hides is old.
    """
    count = now.requests - begin.requests
    if count < 0:
        return whole(now)
    if count == 0:
        return Figures(problem=problem_of(now))
    # The weight that the answers from before still have: a plain average up to 512, then a sliding one
    kept = begin.requests / min(now.requests, _WINDOW) if begin.requests < _WINDOW else 1.0
    kept *= (1 - 1 / _WINDOW) ** max(0, now.requests - max(begin.requests, _WINDOW))
    average = max(0.0, (now.response_ms - begin.response_ms * kept) / (1 - kept))
    errors = max(0, now.errors_5xx - begin.errors_5xx - begin.perhaps_unanswered)
    return Figures(count, errors, round(average, 1), round(1 / (1 - kept), 1), problem_of(now))


def together(figures: Mapping[str, Figures]) -> Figures:
    """Several servers as one."""
    requests = sum(each.requests for each in figures.values())
    weights = {name: each.requests / requests for name, each in figures.items()} if requests else {}
    return Figures(
        requests,
        sum(each.errors for each in figures.values()),
        round(sum(figures[name].response_ms * weight for name, weight in weights.items()), 1),
        round(sum(figures[name].blur_ms * weight for name, weight in weights.items()), 1),
    )


def judge(new: Mapping[str, Figures], old: Mapping[str, Figures], limits: Limits) -> str | None:
    """What is wrong with the new servers, one by one and together; None as far as nothing is.

    Without enough requests to the old ones there is no response time to compare with, and their share of errors is 0.
    """
    for name, figures in new.items():
        if figures.problem:
            return f"{name} {figures.problem}"
    before = together(old)
    comparable = before.requests >= limits.min_requests
    allowed_share = (before.error_share if comparable else 0.0) + limits.max_errors
    allowed_ms = max(before.response_ms * limits.max_latency, LATENCY_FLOOR_MS)
    judged = dict(new) | ({", ".join(new): together(new)} if len(new) > 1 else {})
    for name, figures in judged.items():
        if figures.requests < limits.min_requests:
            continue
        if figures.error_share > allowed_share:
            than = f"the old servers have {before.error_share:.1%}" if comparable else "the old servers had no requests"
            return (
                f"{name}: {figures.errors} of {figures.requests} requests failed ({figures.error_share:.1%}), "
                f"allowed are {allowed_share:.1%} ({than})"
            )
        if comparable and figures.response_ms - figures.blur_ms > allowed_ms:
            return (
                f"{name}: answers take {figures.response_ms:.0f} ms on average (of {figures.requests}), "
                f"allowed are {allowed_ms:.0f} ms (the old servers take {before.response_ms:.0f} ms)"
            )
    return None
