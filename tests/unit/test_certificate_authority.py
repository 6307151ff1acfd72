# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""roles/certificate_authority on the controller: an authority that is there is used, never replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority, authority, private
from running import play
from support import load

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - certificate_authority
"""


def issue(folder: Path, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """The role, with this machine's server certificate from the authority in `folder`/authority."""
    (folder / "play.yml").write_text(PLAYBOOK)
    known = {
        "certificate_authority_directory": str(folder / "authority"),
        "certificate_authority_server_directory": str(folder / "tls"),
        "certificate_authority_server_names": ["registry.lab"],
        # This Python has what makes keys
        "__certificate_authority_packages": [],
        "ansible_python_interpreter": sys.executable,
    }
    return play(folder / "play.yml", "localhost,", *options, **known | variables)


def create(folder: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    """The role, with no server certificate."""
    return issue(folder, certificate_authority_server_names=[], **variables)


def adopt(folder: Path, ca: Authority, *above: Authority) -> None:
    """An authority that was made elsewhere."""
    (folder / "authority").mkdir()
    (folder / "authority/ca.key").write_bytes(private(ca.key))
    (folder / "authority/ca.crt").write_text("".join(one.pem for one in (ca, *above)))


@pytest.mark.parametrize(("passphrase", "works"), [("right-passphrase", True), ("wrong-passphrase", False)])
def test_a_key_without_its_certificate_is_kept(tmp_path: Path, passphrase: str, works: bool) -> None:
    first = create(tmp_path, certificate_authority_passphrase="right-passphrase")
    assert first.returncode == 0, first.stdout
    key, certificate = tmp_path / "authority/ca.key", tmp_path / "authority/ca.crt"
    before = key.read_bytes()
    certificate.unlink()
    again = create(tmp_path, certificate_authority_passphrase=passphrase)
    assert key.read_bytes() == before
    assert (again.returncode == 0) == works, again.stdout
    assert certificate.exists() == works


@pytest.mark.parametrize(
    ("directory", "said"),
    [
        pytest.param("~/authority", "must be an absolute path", id="home"),
        pytest.param("authority", "must be an absolute path", id="relative"),
        # An absolute path, in which modules see more than Ansible's own tests do
        pytest.param("/$AUTHORITY", "has a ca.crt already", id="variable in an absolute path"),
    ],
)
def test_an_authority_of_ones_own_is_never_signed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, said: str
) -> None:
    adopt(tmp_path, authority("Example Company"))
    folder = tmp_path / "authority"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AUTHORITY", str(folder)[1:])
    monkeypatch.chdir(tmp_path)
    again = create(tmp_path, certificate_authority_directory=directory)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert again.returncode != 0, again.stdout
    assert said in " ".join(again.stdout.split())


as_root = pytest.mark.skipif(os.getuid() != 0, reason="the certificate and its key are root's")


@as_root
def test_who_trusts_the_root_alone_accepts_what_an_intermediate_authority_issued(tmp_path: Path) -> None:
    root = authority("Root")
    adopt(tmp_path, authority("Issuing", root), root)
    first = issue(tmp_path)
    assert first.returncode == 0, first.stdout
    certificate, key = str(tmp_path / "tls/server.crt"), str(tmp_path / "tls/server.key")
    seen = load("library/certificate_check.py").handshake(certificate, key, root.pem)
    assert seen["subjectAltName"] == (("DNS", "registry.lab"),)
    again = issue(tmp_path)
    assert "changed=0" in again.stdout
    assert "Install the server certificate" not in again.stdout


@pytest.mark.parametrize("options", [["--check"], []], ids=["check", "run"])
def test_an_authority_without_its_key_is_named_before_anything_is_made(tmp_path: Path, options: list[str]) -> None:
    adopt(tmp_path, authority())
    (tmp_path / "authority/ca.key").unlink()
    done = issue(tmp_path, *options)
    assert done.returncode != 0, done.stdout
    assert "/authority) has ca.crt, but no ca.key" in " ".join(done.stdout.split())
    assert not (tmp_path / "tls").exists()


def test_a_check_names_what_a_new_certificate_leads_to(tmp_path: Path) -> None:
    adopt(tmp_path, authority())
    done = issue(tmp_path, "--check")
    assert done.returncode == 0, done.stdout
    assert "missing certificate or private key" in done.stdout
    assert "/tls/server.crt: a registry with it restarts, a gateway reloads" in " ".join(done.stdout.split())
    assert not (tmp_path / "tls").exists()
