# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""roles/certificate_authority on the controller: an authority that is there is used, never replaced."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from running import play

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - certificate_authority
"""


def create(
    folder: Path, passphrase: str = "", directory: str = "", name: str = "Qianjiangyuan Platform CA"
) -> subprocess.CompletedProcess[str]:
    """The role, for an authority in `folder`/authority, or where `directory` says, and no server certificate."""
    (folder / "play.yml").write_text(PLAYBOOK)
    return play(
        folder / "play.yml",
        "localhost,",
        certificate_authority_directory=directory or str(folder / "authority"),
        certificate_authority_name=name,
        certificate_authority_passphrase=passphrase,
        certificate_authority_server_names=[],
        ansible_python_interpreter=sys.executable,
    )


@pytest.mark.parametrize(("passphrase", "works"), [("right-passphrase", True), ("wrong-passphrase", False)])
def test_a_key_without_its_certificate_is_kept(tmp_path: Path, passphrase: str, works: bool) -> None:
    first = create(tmp_path, "right-passphrase")
    assert first.returncode == 0, first.stdout
    key, certificate = tmp_path / "authority/ca.key", tmp_path / "authority/ca.crt"
    before = key.read_bytes()
    certificate.unlink()
    again = create(tmp_path, passphrase)
    assert key.read_bytes() == before
    assert (again.returncode == 0) == works, again.stdout
    assert certificate.exists() == works


@pytest.mark.parametrize(
    ("directory", "said"),
    [
        pytest.param("~/authority", "must be an absolute path", id="home"),
        pytest.param("authority", "must be an absolute path", id="relative"),
        pytest.param("$HOME/authority", "must be an absolute path", id="variable"),
        # An absolute path, in which modules see more than Ansible's own tests do
        pytest.param("/$AUTHORITY", "has a ca.crt already", id="variable in an absolute path"),
    ],
)
def test_an_authority_of_ones_own_is_never_signed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, said: str
) -> None:
    first = create(tmp_path, name="Example Company")
    assert first.returncode == 0, first.stdout
    folder = tmp_path / "authority"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AUTHORITY", str(folder)[1:])
    monkeypatch.chdir(tmp_path)
    again = create(tmp_path, directory=directory)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert again.returncode != 0, again.stdout
    assert said in " ".join(again.stdout.split())
