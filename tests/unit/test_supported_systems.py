# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles that install by apt alone say so, before they touch a host of another kind."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from running import play

FACTS = {
    "debian": {"distribution": "Debian", "distribution_version": "12", "os_family": "Debian"},
    "ubuntu": {"distribution": "Ubuntu", "distribution_version": "24.04", "os_family": "Debian"},
    "rocky": {"distribution": "Rocky", "distribution_version": "9.4", "os_family": "RedHat"},
}


@pytest.mark.parametrize(
    ("role", "tasks", "variables"),
    [
        pytest.param("registry", "preflight", {"registry_users": [{"name": "x", "password": "y"}]}, id="registry"),
        pytest.param("gateway", "preflight", {}, id="gateway"),
        pytest.param("certificate_authority", "main", {"certificate_authority_server_names": ["a.lab"]}, id="server"),
    ],
)
def test_another_system_is_named(tmp_path: Path, role: str, tasks: str, variables: dict[str, Any]) -> None:
    facts = {name: f"{{{{ facts[inventory_hostname].{name} }}}}" for name in FACTS["debian"]}
    # Of the last one nothing was gathered
    known = {"ansible.builtin.set_fact": facts | {"cacheable": True}, "when": "inventory_hostname in facts"}
    included = {"ansible.builtin.include_role": {"name": role, "tasks_from": tasks}}
    tasks_of_play = [known, included]
    plays = [{"hosts": "all", "gather_facts": False, "vars": {"facts": FACTS}, "tasks": tasks_of_play}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
    done = play(
        tmp_path / "play.yml",
        f"{','.join(FACTS)},unknown",
        *("--connection=local", "--check"),
        certificate_authority_directory=str(tmp_path / "authority"),
        certificate_authority_server_directory=str(tmp_path / "tls"),
        ansible_python_interpreter=sys.executable,
        **variables,
    )
    failed = re.findall(r"^(\w+) +: .*\bfailed=1\b", done.stdout, re.MULTILINE)
    assert failed == ["rocky"], done.stdout
    assert "this host (Rocky 9.4) must be Debian 12 or 13, or Ubuntu" in " ".join(done.stdout.split())
