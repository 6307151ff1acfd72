# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names as certificates spell them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

DOCUMENTATION = r"""
name: certificate
short_description: Names as certificates spell them
description:
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


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"subject_alternative_names": subject_alternative_names}
