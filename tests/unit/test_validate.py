# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/validate.yml and ansible.cfg: an inventory that Ansible would half read is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from running import play
from support import ROOT

VALIDATE = ROOT / "playbooks/validate.yml"
LAB = ROOT / "inventories/lab"


def test_an_inventory_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    done = play(VALIDATE, tmp_path / "hosts.yml")
    assert (done.returncode, str(tmp_path / "hosts.yml") in done.stdout) == (1, True), done.stdout


def test_a_service_that_is_written_twice_does_not_lose_its_first_half(tmp_path: Path) -> None:
    shutil.copytree(LAB, tmp_path, dirs_exist_ok=True)
    (tmp_path / "group_vars/all/services.yml").write_text("services:\n  webui: {build: {}}\n  webui: {}\n")
    done = play(VALIDATE, tmp_path / "hosts.yml")
    assert done.returncode != 0
    assert "[ERROR]: YAML parsing failed: Found duplicate mapping key 'webui'" in done.stdout


def test_an_inventory_named_by_its_folder_has_its_authority_beside_the_hosts() -> None:
    example = ROOT / "inventories/example"
    assert (example / "certificate_authority/ca.crt").is_file()
    done = play(VALIDATE, example, "--vault-password-file", str(example / ".vault-password-example"))
    assert done.returncode == 0, done.stdout


def test_it_says_which_inventory_it_looks_at_and_whether_the_service_is_in_it() -> None:
    done = play(VALIDATE, LAB / "hosts.yml", service="webbui")
    assert done.returncode != 0
    assert "in the inventory lab]" in done.stdout
    assert 'service: expected names from the catalogue (webui), got "webbui"; did you mean webui?' in done.stdout


def test_what_a_hook_sends_is_filled_in_when_it_is_sent() -> None:
    headers = {"Title": "{{ rollout_told.verb }}", "Ticket": "{{ ticket }}"}
    hooks = {"on_failure": {"url": "https://hooks.example.com/failed", "headers": headers}}
    done = play(VALIDATE, LAB / "hosts.yml", hooks=hooks)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "variables", "message"),
    [
        (
            "group_vars/all/vault.yml",
            {"registry_password": "{{ vault_registry_password }}"},
            "registry_password: expected a text, got nothing on hangzhou-node1, ",
        ),
        (
            "host_vars/hangzhou-edge.yml",
            {"registry_users": [{"name": "deploy", "password": "{{ vault_registry_password }}"}]},
            "hangzhou-edge: registry_users: expected an entry with registry_username (deploy) and registry_password",
        ),
        (
            "group_vars/all/vault.yml",
            {"hooks": {"on_failure": {"url": "{{ vault_chat_url }}"}}},
            "hooks.on_failure.url: expected http:// or https://, a host and a path, got no text; is every variable",
        ),
    ],
    ids=["a password", "an account's", "a hook's address"],
)
def test_what_no_vault_has_is_named(tmp_path: Path, file: str, variables: dict[str, Any], message: str) -> None:
    shutil.copytree(LAB, tmp_path, dirs_exist_ok=True)
    (tmp_path / "host_vars").mkdir()
    (tmp_path / file).write_text(json.dumps(variables))
    done = play(VALIDATE, tmp_path / "hosts.yml")
    assert done.returncode != 0
    assert message in " ".join(done.stdout.split())
