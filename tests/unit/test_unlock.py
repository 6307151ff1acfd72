# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose locks unlock.yml removes: of each datacenter the first gateway keeps it, and --limit leaves some out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from running import play
from support import ROOT

INVENTORY = """
all:
  vars: {datacenter_registries: {east: r1:5000, west: r2:5000}, ansible_connection: local, ansible_become: false}
  children:
    nodes: {hosts: {n1: , n2: }}
    gateways: {hosts: {e1: , e2: , e3: , w1: , w2: }}
    the_east: {vars: {datacenter: east}, hosts: {n1: , e1: , e2: , e3: }}
    the_west: {vars: {datacenter: west}, hosts: {n2: , w1: , w2: }}
"""


def unlock(folder: Path, *options: str, **variables: Any) -> str:
    (folder / "hosts.yml").write_text(INVENTORY)
    return play(ROOT / "playbooks/unlock.yml", folder / "hosts.yml", "--check", *options, **variables).stdout


@pytest.mark.parametrize(
    ("limit", "asked"),
    [
        pytest.param([], "e1 w1", id="the first gateway of each datacenter"),
        pytest.param(["--limit", "the_west"], "w1", id="of one, whatever its group is called"),
    ],
)
def test_who_is_asked(tmp_path: Path, limit: list[str], asked: str) -> None:
    said = unlock(tmp_path, *limit)
    after = said.rpartition("[Remove the lock]")[2]
    assert [host for host in ("e1", "e2", "e3", "w1", "w2") if f"\nok: [{host}]" in after] == asked.split(), said


@pytest.mark.parametrize(
    ("limit", "variables", "message"),
    [
        ([], {"datacenter": "west"}, "datacenter: expected --limit west, got -e datacenter=west"),
        ([], {"datacentre": "west"}, "did you mean datacenter?"),
        (["--limit", "e2:w2"], {}, "--limit: expected a datacenter, or of e1, w1, which keep the locks"),
    ],
)
def test_refused(tmp_path: Path, limit: list[str], variables: dict[str, str], message: str) -> None:
    said = unlock(tmp_path, *limit, **variables)
    assert message in said
    assert "[Remove the lock]" not in said
