# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/history.yml: what would widen the question unseen is refused."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from running import play
from support import ROOT


def history(**variables: Any) -> subprocess.CompletedProcess[str]:
    local = {"ansible_connection": "local", "ansible_become": False}
    return play(ROOT / "playbooks/history.yml", ROOT / "inventories/lab/hosts.yml", **local, **variables)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param({"limit": "abc"}, 'limit: expected a whole number from 0 (for all), got "abc"', id="no number"),
        pytest.param({"limit": "-1"}, 'limit: expected a whole number from 0 (for all), got "-1"', id="less than none"),
        pytest.param({"limit": "1.5"}, 'limit: expected a whole number from 0 (for all), got "1.5"', id="half a one"),
        pytest.param({"limit": ""}, "limit: expected a value, got an empty one; leave -e limit= out", id="empty"),
        pytest.param({"service": ""}, "service: expected a value, got an empty one; leave", id="every service"),
        pytest.param({"servic": "webui"}, "servic: expected one of service, limit; did you mean service?", id="name"),
    ],
)
def test_refused(variables: dict[str, str], message: str) -> None:
    done = history(**variables)
    assert message in " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "[Read the datacenter's records]" not in done.stdout


@pytest.mark.parametrize(
    "variables", [{}, {"limit": "50"}, {"limit": 0}, {"service": "webui,api"}], ids=["nothing", "more", "all", "some"]
)
def test_answered(variables: dict[str, Any]) -> None:
    done = history(**variables)
    assert done.returncode == 0, done.stdout
    assert "[Read the datacenter's records]" in done.stdout
