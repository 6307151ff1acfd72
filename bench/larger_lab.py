# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An inventory like the lab's, with more nodes in each datacenter, as another lab beside it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

# Another lab: its containers and its networks have names and addresses of their own
RENAMED = {"qianjiang-lab": "qianjiang-bench", "172.30.1.": "172.30.5.", "172.30.2.": "172.30.6."}
# 10 is the edge, nodes come after it
FIRST = 11


def renamed(text: str) -> str:
    """The text of an inventory file, for the other lab."""
    for old, new in RENAMED.items():
        text = text.replace(old, new)
    return text


def with_nodes(hosts: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The inventory with `count` nodes in all, shared out evenly. Nodes are <datacenter>-node1, -node2 and so on."""
    larger = copy.deepcopy(dict(hosts))
    groups = larger["all"]["children"]
    datacenters = groups["datacenters"]["children"]
    if count % len(datacenters):
        raise ValueError(f"{count} nodes cannot be shared out evenly over {len(datacenters)} datacenters")
    groups["nodes"]["hosts"] = {}
    for name, datacenter in datacenters.items():
        edge = datacenter["hosts"][f"{name}-edge"]
        network = edge["ansible_host"].rpartition(".")[0]
        addresses = {
            f"{name}-node{number}": {"ansible_host": f"{network}.{FIRST + number - 1}"}
            for number in range(1, count // len(datacenters) + 1)
        }
        datacenter["hosts"] = {f"{name}-edge": edge} | addresses
        groups["nodes"]["hosts"] |= dict.fromkeys(addresses)
    return larger


def write(source: Path, folder: Path, counts: Iterable[int]) -> dict[int, Path]:
    """Write the inventory of another lab below `folder`, with one hosts file for each number of nodes."""
    environment = folder / "inventories/bench"
    shutil.copytree(source / "group_vars", environment / "group_vars")
    for file in environment.rglob("*.yml"):
        file.write_text(renamed(file.read_text()))
    hosts = yaml.safe_load(renamed((source / "hosts.yml").read_text()))
    files = {count: environment / f"hosts-{count}.yml" for count in counts}
    for count, file in files.items():
        file.write_text(yaml.safe_dump(with_nodes(hosts, count), sort_keys=False))
    return files
