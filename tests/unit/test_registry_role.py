# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role registry: which values of its variables it takes."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from certificates import authority, issue
from running import play
from support import ROOT

ROLE = ROOT / "roles/registry"


def templar(**variables: Any) -> Templar:
    """With the role's variables, as a playbook may set them."""
    known: dict[str, Any] = {"registry_users": [{"name": "deploy", "password": "s3cret-word"}]}
    for file in ("defaults/main.yml", "vars/main.yml"):
        known = DataLoader().load_from_file(str(ROLE / file), trusted_as_template=True) | known
    return Templar(loader=DataLoader(), variables=known | variables)


def makes_sense(**variables: Any) -> bool:
    """Whether preflight takes the variables."""
    (task,) = yaml.safe_load((ROLE / "tasks/preflight.yml").read_text(encoding="utf-8"))
    conditions = task["ansible.builtin.assert"]["that"]
    return all(templar(**variables).template(trust_as_template(f"{{{{ {one} }}}}")) for one in conditions)


@pytest.mark.parametrize("address", ["", "10.0.0.10", "registry.hangzhou.lab", "[::1]", "[fd00::10]"])
def test_an_address_to_listen_on(address: str) -> None:
    assert makes_sense(registry_address=address)


# Go's net.Listen takes the first colon for the port's: the registry would be restarted for ever
@pytest.mark.parametrize("address", ["::1", "fd00::10", "::", "10.0.0.10:5000", "[::1", "::1]", "[10.0.0.10]x", "a b"])
def test_what_the_registry_could_not_listen_on(address: str) -> None:
    assert not makes_sense(registry_address=address)


@pytest.mark.parametrize(
    "directory", ["/var/lib/docker-registry", "/srv/registry", "/homes/registry", "/data/tmp/images"]
)
def test_a_place_for_the_images(directory: str) -> None:
    assert makes_sense(registry_storage_directory=directory)


# ProtectHome and PrivateTmp give the unit another folder there: it starts, and every push fails
@pytest.mark.parametrize(
    "directory", ["/home/registry", "/root/registry", "/run/registry", "/tmp/registry", "/var/tmp", "/var/tmp/registry"]
)
def test_where_the_unit_cannot_keep_images(directory: str) -> None:
    assert not makes_sense(registry_storage_directory=directory)


@pytest.mark.parametrize("memory", ["1G", "1.5G", "512M", 1073741824, "50%", "infinity"])
def test_a_limit_of_memory(memory: Any) -> None:
    assert makes_sense(registry_memory_max=memory)


# systemd leaves such a line out, and there is no limit
@pytest.mark.parametrize("memory", ["2g", "2Gi", "2GB", "1e9", "-1", ""])
def test_a_limit_of_memory_that_systemd_would_ignore_is_refused(memory: str) -> None:
    assert not makes_sense(registry_memory_max=memory)


def checked(schedule: str) -> tuple[int, str]:
    """What the timer's validation says."""
    argv = templar(registry_collect_schedule=schedule).template(trust_as_template("{{ __registry_validate_schedule }}"))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("schedule", ["*-*-* 03:30:00", "daily", "Sun *-*-* 05:30", "Mon..Fri 22:30 Asia/Shanghai"])
def test_a_schedule_of_collections(schedule: str) -> None:
    assert checked(schedule) == (0, "")


@pytest.mark.parametrize("schedule", ["dialy", "*-*-* 25:00", "", "--version", "daily\nOnBootSec=1"])
def test_a_schedule_that_systemd_would_ignore_is_refused(schedule: str) -> None:
    code, said = checked(schedule)
    assert code == 1
    expected = (
        f'registry_collect_schedule: expected a systemd calendar expression such as *-*-* 03:30:00, got "{schedule}"'
    )
    assert expected in said


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    ca = authority()
    (tmp_path / "other").mkdir()
    certificate, key = issue(tmp_path, ca)
    _, another = issue(tmp_path / "other", ca)
    for private_key, code, said in ((key, 0, ""), (another, 1, "key values mismatch"), ("/no/key", 1, "No such file")):
        argv = templar(registry_private_key=private_key).template(
            trust_as_template("{{ __registry_validate_certificate }}")
        )
        done = subprocess.run(
            [part.replace("%s", certificate) for part in argv], capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert said in done.stderr
        assert ("registry_private_key" in done.stderr) == (code == 1)


@pytest.mark.skipif(not shutil.which("ss"), reason="no ss (iproute2) on this machine")
def test_nothing_is_collected_while_somebody_is_connected(tmp_path: Path) -> None:
    def begins() -> bool:
        return all(subprocess.run(argv, check=False).returncode == 0 for argv in conditions)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = (ROLE / "templates/docker-registry-collect.service.j2").read_text(encoding="utf-8")
        unit = templar(registry_port=port, registry_storage_directory=str(tmp_path)).template(trust_as_template(text))
        lines = [line for line in unit.splitlines() if line.startswith("ExecCondition=")]
        # There is no registry here that could be active
        conditions = [shlex.split(line.partition("=")[2]) for line in lines if "is-active" not in line]
        assert begins()
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert not begins()
        assert begins()


class Healthy(BaseHTTPRequestHandler):
    """Answers 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def test_the_registrys_health_is_asked_past_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = yaml.safe_load((ROLE / "handlers/main.yml").read_text(encoding="utf-8"))
    (wait,) = [handler for handler in handlers if handler["name"] == "Wait until the registry is healthy"]
    # As it is written, but for its patience
    plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [wait | {"retries": 0}]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
    # Nobody is there
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with HTTPServer(("127.0.0.1", 0), Healthy) as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        done = play(
            tmp_path / "play.yml",
            "localhost,",
            "--connection=local",
            registry_debug_port=registry.server_port,
            ansible_python_interpreter=sys.executable,
        )
        registry.shutdown()
    assert done.returncode == 0, done.stdout
