# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/maintenance.yml: a service is closed somewhere, or it is told that it is not."""

from __future__ import annotations

import re
import subprocess

import pytest

from running import play
from support import ROOT

SERVICES = {
    "webui": {
        "image": "webui:1",
        "port": 8080,
        "slots_port": 18080,
        "gateway": {"port": 80},
        "placement": {"datacenters": ["hangzhou"]},
    }
}


def maintain(message: str, *limit: str, service: str = "webui") -> subprocess.CompletedProcess[str]:
    return play(
        ROOT / "playbooks/maintenance.yml",
        ROOT / "inventories/lab/hosts.yml",
        "--check",
        *limit,
        services=SERVICES,
        service=service,
        message=message,
        ansible_connection="local",
        ansible_become=False,
    )


def test_nowhere_is_refused() -> None:
    done = maintain("Back at ten", "--limit", "shanghai")
    assert done.returncode != 0
    assert "--limit: expected gateways of hangzhou, where webui is, got those of shanghai" in done.stdout
    assert "[Tell the gateway]" not in done.stdout


@pytest.mark.parametrize(
    ("message", "limit", "asked"),
    [
        pytest.param("Back at ten", (), ["hangzhou-edge"], id="where it is"),
        pytest.param("Back at ten", ("--limit", "hangzhou"), ["hangzhou-edge"], id="by --limit"),
        pytest.param("", ("--limit", "shanghai"), ["shanghai-edge"], id="ended also where it is no more"),
    ],
)
def test_who_is_told(message: str, limit: tuple[str, ...], asked: list[str]) -> None:
    done = maintain(message, *limit)
    told = done.stdout.partition("[Tell the gateway]")[2].partition("TASK [")[0]
    hosts = [host for host in ("hangzhou-edge", "shanghai-edge") if re.search(rf"(ok|changed): \[{host}\]", told)]
    assert (done.returncode, hosts) == (0, asked), done.stdout


def test_to_end_what_was_never_in_maintenance_names_the_services() -> None:
    done = maintain("", service="gone")
    assert 'service: expected one of webui, or one in maintenance, got "gone"' in done.stdout
    assert done.returncode != 0
