# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order nodes move: stages of services, waves of datacenters, batches of nodes. Pure.

- A **stage** has the services that depend on nothing but earlier stages. It ends before the next one begins.
- A **wave** has the datacenters that move side by side. Where a service bakes, the first datacenter is a wave of its
  own: the canary datacenter.
- A **batch** has, from each datacenter of its wave, first the `canary` nodes, then `max_parallel` at a time.
- What **goes first** proves the release: the canaries of the first wave, or all of a wave that bakes. After that the
  rest need not wait for each other to start; they are switched batch by batch all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from math import ceil
from typing import Any, TypedDict

from ansible.module_utils.qianjiang.policy import Policy

# playbooks/apply.yml has a play for each: the plays of a playbook cannot be made while it runs
MAX_STAGES = 4


class Wave(TypedDict):
    """Datacenters that move together, and how. `bake`: seconds to watch what the wave brought, one service after
    the other, 0: not at all."""

    datacenters: list[str]
    batches: list[list[str]]
    bake: float


class Batches(TypedDict):
    """`nodes` are in order, `serial` has the size of each batch."""

    nodes: list[str]
    serial: list[int]


class Stage(TypedDict):
    """`first` and `rest`: the batches of all waves, in order."""

    services: list[str]
    waves: list[Wave]
    first: Batches
    rest: Batches


def joined(batches: Iterable[Sequence[str]]) -> Batches:
    """Batches as a play takes them."""
    found = [list(batch) for batch in batches]
    return {"nodes": [node for batch in found for node in batch], "serial": [len(batch) for batch in found]}


def ranks(services: Mapping[str, Mapping[str, Any]], order: Iterable[str]) -> list[list[str]]:
    """The names of `order` by rank: 0 depends on none of them, 1 on such ones, and so on."""
    rank: dict[str, int] = {}
    for name in order:
        rank[name] = max((rank[other] + 1 for other in services[name]["depends_on"] if other in rank), default=0)
    return [[name for name in rank if rank[name] == level] for level in range(max(rank.values(), default=-1) + 1)]


def batches(nodes: Sequence[str], canary: int, max_parallel: int) -> list[list[str]]:
    """Nodes of one datacenter: the canaries, then the others, `max_parallel` at a time."""
    first = [list(nodes[start : start + max_parallel]) for start in range(0, min(canary, len(nodes)), max_parallel)]
    if first:
        first[-1] = first[-1][: canary - (len(first) - 1) * max_parallel]
    rest = nodes[canary:]
    return first + [list(rest[start : start + max_parallel]) for start in range(0, len(rest), max_parallel)]


def waves(datacenters: Sequence[str], max_parallel: int, bake: float) -> list[list[str]]:
    """Datacenters that move together."""
    alone = 1 if bake else 0
    rest = list(datacenters[alone:])
    groups = [list(datacenters[:alone])] + [
        rest[start : start + max_parallel] for start in range(0, len(rest), max_parallel)
    ]
    return [group for group in groups if group]


def stage(
    services: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    nodes: Mapping[str, Sequence[str]],
    policy: Policy,
    *,
    proven_before: bool,
) -> Stage:
    """One stage. `nodes` maps a datacenter to its nodes that change.

    Of several services in it the most careful policy holds. `proven_before`: what comes has served before (a rollback),
    so nothing bakes, nothing goes first, and all datacenters move side by side.
    """
    updates = [services[name]["update"] for name in names]
    parallel = min((update["max_parallel"] for update in updates), default=1)
    canary = 0 if proven_before else max((update["canary"] for update in updates), default=0)
    bake = 0 if proven_before else sum(update["bake_time"] for update in updates)
    places = [name for name in policy["order"] if nodes.get(name)]
    side_by_side = max(len(places), 1) if proven_before else policy["max_parallel"]
    together: list[Wave] = []
    for group in waves(places, side_by_side, bake):
        columns = zip_longest(*(batches(nodes[name], canary, parallel) for name in group), fillvalue=[])
        moving = [[node for part in column for node in part] for column in columns]
        together.append({"datacenters": group, "batches": moving, "bake": 0 if together else bake})
    every = [batch for wave in together for batch in wave["batches"]]
    proving = len(together[0]["batches"]) if bake and together else max(1, ceil(canary / parallel))
    first = 0 if proven_before else proving
    return {
        "services": list(names),
        "waves": together,
        "first": joined(every[:first]),
        "rest": joined(every[first:]),
    }
