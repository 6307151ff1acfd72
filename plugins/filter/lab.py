# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the lab's role: what each container of the lab is attached to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any


def lab_router_networks(networks: list[dict[str, Any]], lab_name: str) -> list[dict[str, str]]:
    """The router stands on every network: Docker network name and address, as docker_container takes them."""
    return [{"name": f"{lab_name}-{network['name']}", "ipv4_address": network["router"]} for network in networks]


def lab_routes(networks: list[dict[str, Any]], datacenter: str) -> str:
    """Routes of a host of `datacenter` to the other ones, "<subnet> via <router>" separated by commas."""
    router = next(network["router"] for network in networks if network["name"] == datacenter)
    return ",".join(f"{network['subnet']} via {router}" for network in networks if network["name"] != datacenter)


def lab_version(text: str) -> str:
    """A short name for what an image is made from."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"lab_router_networks": lab_router_networks, "lab_routes": lab_routes, "lab_version": lab_version}
