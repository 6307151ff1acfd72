# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WebUI's code is imported as in its image: with WebPortal/ on the path."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PORTAL = Path(__file__).parents[1] / "WebPortal"
sys.path.insert(0, str(PORTAL))

SEVEN = "sha256:" + "7" * 64
EIGHT = "sha256:" + "8" * 64


@pytest.fixture
def platform() -> dict[str, Any]:
    """Two datacenters with two nodes each; webui on all of them at release 7, in slot a."""
    names = ("hangzhou", "shanghai")
    return {
        "environment": "lab",
        "origin": "hangzhou",
        "datacenters": [
            {
                "name": name,
                "gateway": f"http://{name}.gateway",
                "stats": f"http://{name}.gateway:8404/;csv",
                "nodes": [{"name": f"{name}-node{number}", "address": f"172.30.0.1{number}"} for number in (1, 2)],
            }
            for name in names
        ],
        "services": [
            {
                "name": "webui",
                "port": 8000,
                "repository": "webui",
                "datacenters": list(names),
                "release": 7,
                "digest": SEVEN,
                "replicas": 1,
            }
        ],
        "replicas": [
            {
                "service": "webui",
                "datacenter": name,
                "node": f"{name}-node{number}",
                "replica": 0,
                "slot": "a",
                "release": 7,
                "digest": SEVEN,
                "container": "webui.0.r7",
            }
            for name in names
            for number in (1, 2)
        ],
    }


@pytest.fixture
def platform_file(tmp_path: Path, platform: dict[str, Any]) -> Path:
    path = tmp_path / "platform.json"
    path.write_text(json.dumps(platform))
    return path


@pytest.fixture
def statistics() -> Callable[..., str]:
    """HAProxy's CSV with the given (backend, server, status, sessions, check) rows."""

    def text(*rows: tuple[str, str, str, int, str]) -> str:
        lines = ["# pxname,svname,scur,status,check_desc,"]
        lines += [
            f"{backend},{server},{sessions},{status},{check}," for backend, server, status, sessions, check in rows
        ]
        return "\n".join(lines) + "\n"

    return text
