# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts on the lab, ours and the usual way side by side. The lab must have the site on it: `make demo`."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import figures
import measure
import platform_lab
from measure import ONE_SERVICE, PLAYBOOKS, SIDE_BY_SIDE, USUAL

Samples = defaultdict[str, list[float]]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--link", default="50mbit", help="rate of a narrow WAN, as tc writes it (default 50mbit)")
    parser.add_argument("--write", action="store_true", help="keep the figures in bench/README.md")
    return parser.parse_args()


def measure_rollout(
    samples: Samples,
    directory: Path,
    name: str,
    playbook: Path,
    *arguments: str,
    settings: Mapping[str, str] | None = None,
) -> None:
    """A new layer and its rollout."""
    measure.build_new_layer(directory)
    found = measure.rollout(playbook, *arguments, settings=settings)
    samples[name].append(found.run.seconds)
    samples[f"{name}, tasks"] += found.run.node_tasks
    for datacenter, crossed in found.crossed.items():
        samples[f"{name}, {datacenter}"].append(crossed)


def measure_round(samples: Samples, directory: Path, link: str) -> None:
    """Everything that moves a release, once. Each rollout has a new layer of its own."""
    rollout = PLAYBOOKS / "rollout.yml"
    usual = USUAL / "rollout.yml"
    measure_rollout(samples, directory, "usual, stock", usual, *measure.STOCK_VARIABLES, settings=measure.STOCK)
    measure_rollout(samples, directory, "usual", usual)
    measure_rollout(samples, directory, "side by side", rollout, *ONE_SERVICE, *SIDE_BY_SIDE)
    samples["plan"].append(measure.run_unchanged(PLAYBOOKS / "plan.yml").seconds)
    samples["rollback"].append(measure.run(PLAYBOOKS / "rollback.yml", *ONE_SERVICE).seconds)
    measure_rollout(samples, directory, "default", rollout, *ONE_SERVICE)
    with measure.shaped(link):
        measure_rollout(samples, directory, "usual, narrow", usual)
        measure_rollout(samples, directory, "narrow", rollout, *ONE_SERVICE, *SIDE_BY_SIDE)


def measure_site(samples: Samples) -> None:
    """A site where everything is right."""
    for name, playbook in (("usual site", USUAL / "site.yml"), ("site", PLAYBOOKS / "site.yml")):
        done = measure.run_unchanged(playbook)
        samples[name].append(done.seconds)
        samples[f"{name}, tasks"].append(done.tasks)


def rows(samples: Samples, link: str) -> list[figures.Row]:
    """The table."""
    stock, usual, narrow = samples["usual, stock"], samples["usual"], samples["usual, narrow"]
    nodes = len(platform_lab.NODES)
    found = [
        figures.Row(
            f"rollout to {nodes} nodes, datacenters side by side", stock, samples["side by side"], "s", "≤ half"
        ),
        figures.Row("the same, the usual way tuned", usual, samples["side by side"], "s"),
        figures.Row(f"rollout to {nodes} nodes, default policy", usual, samples["default"], "s", "≤ 15 s"),
        figures.Row(f"the same side by side, WAN at {link}", narrow, samples["narrow"], "s"),
        figures.Row(
            "tasks on a node (the first also plans, locks, records and reports)",
            samples["usual, tasks"],
            samples["side by side, tasks"],
            "tasks",
            "≤ 8",
        ),
        figures.Row("rollback", [], samples["rollback"], "s", "≤ 6 s"),
        figures.Row("plan with nothing to do", [], samples["plan"], "s", "≤ 3 s"),
        figures.Row(
            "site with nothing to do (usual: nodes only)", samples["usual site"], samples["site"], "s", "≤ 12 s"
        ),
        figures.Row("tasks on any host in it", samples["usual site, tasks"], samples["site, tasks"], "tasks", "≤ 20"),
    ]
    for name, where in (("side by side", ""), ("narrow", f", at {link}")):
        of_usual = "usual, narrow" if where else "usual"
        found += [
            figures.Row(
                f"WAN bytes to {datacenter} ÷ bytes of missing blobs{where}",
                samples[f"{of_usual}, {datacenter}"],
                samples[f"{name}, {datacenter}"],
                "ratio",
                "≤ 1.02",
            )
            for datacenter in measure.other_datacenters()
        ]
    return found


def main() -> None:
    """Measure, put the lab back as it was, print."""
    arguments = parse()
    samples: Samples = defaultdict(list)
    with contextlib.ExitStack() as undo:
        directory = platform_lab.source(Path(undo.enter_context(tempfile.TemporaryDirectory())))
        with measure.shaped(arguments.link):
            measure.say(f"tc can shape the WAN to {arguments.link}")
        undo.callback(measure.run, USUAL / "clean.yml")
        undo.callback(measure.run, PLAYBOOKS / "site.yml")
        # Not counted: its container and its login are there before the first round, as ours are
        measure.run(USUAL / "rollout.yml")
        measure.run_unchanged(USUAL / "rollout.yml")
        for number in range(1, arguments.rounds + 1):
            measure.say(f"round {number} of {arguments.rounds}")
            measure_round(samples, directory, arguments.link)
        # Not counted: back to the project's own image
        measure.run(PLAYBOOKS / "site.yml")
        measure.run(USUAL / "site.yml")
        for _ in range(arguments.rounds):
            measure_site(samples)
    measure.publish(
        "rollout", arguments.rounds, figures.table(rows(samples, arguments.link)), is_written=arguments.write
    )


if __name__ == "__main__":
    main()
