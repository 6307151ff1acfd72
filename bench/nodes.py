# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds per added node: rollouts on a lab of its own with more and more nodes, ours and the usual way."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections import defaultdict
from pathlib import Path

import figures
import larger_lab
import measure
import platform_lab
from measure import ONE_SERVICE, PLAYBOOKS, PROJECT, SIDE_BY_SIDE, USUAL

import lab


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 8, 16], help="numbers of nodes (default 4 8 16)")
    parser.add_argument("--rounds", type=int, default=3, help="rollouts of each kind (default 3)")
    parser.add_argument("--write", action="store_true", help="keep the figures in bench/README.md")
    return parser.parse_args()


def use(inventory: Path) -> None:
    """Let everything that follows run on this inventory."""
    lab.INVENTORY = str(inventory)
    lab.variables.cache_clear()


def remove() -> None:
    """Remove the lab. Not with playbooks/lab.yml: that stops the engine too, which others may use."""
    module = ("--become", "--module-name", "ansible.builtin.include_role", "--args", "name=lab")
    done = lab.run_ansible("ansible", "localhost", *module, "--extra-vars", "lab_state=absent")
    if done.returncode != 0:
        measure.say(f"the lab is still there:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Make the lab with all its nodes, bring them into the platform step by step, measure at each step."""
    arguments = parse()
    sizes = sorted(arguments.nodes)
    usual: dict[int, list[float]] = defaultdict(list)
    ours: dict[int, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as undo:
        # The lab's files belong to root, who removes them with the lab
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        inventories = larger_lab.write(PROJECT / "inventories/lab", folder, sizes)
        # These rollouts are nobody's history
        record = ("--extra-vars", f"rollout_record_path={folder}/rollouts.jsonl")
        directory = platform_lab.source(folder / "source")
        use(inventories[sizes[-1]])
        undo.callback(remove)
        measure.run(PLAYBOOKS / "lab.yml")
        for size in sizes:
            use(inventories[size])
            measure.say(f"{size} nodes")
            # Not counted: the new nodes get what they need, and run the newest release
            measure.run(PLAYBOOKS / "site.yml", *record)
            measure.run(USUAL / "rollout.yml")
            for _ in range(arguments.rounds):
                measure.build_new_layer(directory)
                usual[size].append(measure.run(USUAL / "rollout.yml").seconds)
                measure.build_new_layer(directory)
                done = measure.run(PLAYBOOKS / "rollout.yml", *ONE_SERVICE, *SIDE_BY_SIDE, *record)
                ours[size].append(done.seconds)
        use(inventories[sizes[-1]])
    measure.publish("nodes", arguments.rounds, figures.growth_table(usual, ours), is_written=arguments.write)


if __name__ == "__main__":
    main()
