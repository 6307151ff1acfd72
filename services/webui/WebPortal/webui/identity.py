# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which replica this process is, as the platform told it through its environment."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TypedDict


class Identity(TypedDict):
    """Everything but the hostname may be missing: a container that was started by hand has none of it."""

    hostname: str
    service: str | None
    release: int | None
    digest: str | None
    datacenter: str | None
    node: str | None
    replica: int | None
    slot: str | None


def read_identity(environ: Mapping[str, str]) -> Identity:
    """Read the QJ_ variables; one that is absent, empty or not a number where one belongs becomes None."""
    return {
        "hostname": socket.gethostname(),
        "service": environ.get("QJ_SERVICE") or None,
        "release": _number(environ.get("QJ_RELEASE")),
        "digest": environ.get("QJ_DIGEST") or None,
        "datacenter": environ.get("QJ_DATACENTER") or None,
        "node": environ.get("QJ_NODE") or None,
        "replica": _number(environ.get("QJ_REPLICA")),
        "slot": environ.get("QJ_SLOT") or None,
    }


def served_by(identity: Identity) -> str:
    """The replica under the name the gateway has for it, or the hostname where it has none."""
    if identity["node"] and identity["replica"] is not None and identity["slot"]:
        return f"{identity['node']}.{identity['replica']}.{identity['slot']}"
    return identity["hostname"]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
