# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and places of certificates."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from ansible.module_utils.qianjiang.certificate import intermediates

DOCUMENTATION = r"""
name: certificate
short_description: Names and places of certificates
description:
  - C(cas | registry_ca_files) turns CA certificates by registry into the files that Docker Engine and skopeo read.
  - C(pem | intermediates) keeps the certificates that another one signed, in their order. Servers send them along.
  - C(names | subject_alternative_names) turns DNS names and IP addresses into C(DNS:…) and C(IP:…).
"""


def subject_alternative_names(names: list[str]) -> list[str]:
    """`["a.example", "10.0.0.1"]` → `["DNS:a.example", "IP:10.0.0.1"]`."""
    result = []
    for name in names:
        try:
            result.append(f"IP:{ipaddress.ip_address(name)}")
        except ValueError:
            result.append(f"DNS:{name.lower()}")
    return result


def registry_ca_files(cas: dict[str, str]) -> list[dict[str, str]]:
    """CA certificate by registry → the files where Docker Engine and skopeo look for it, for daemon_configure."""
    return [
        {"path": f"/etc/docker/certs.d/{registry}/ca.crt", "content": f"{pem.strip()}\n", "apply": "nothing"}
        for registry, pem in cas.items()
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "intermediates": intermediates,
            "registry_ca_files": registry_ca_files,
            "subject_alternative_names": subject_alternative_names,
        }
