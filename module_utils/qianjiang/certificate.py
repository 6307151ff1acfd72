# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates of an authority: roots, which clients trust, and those between, which servers send along. Pure."""

from __future__ import annotations

import re
import ssl

CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def signs_itself(certificate: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate)
    return all(seen["subject"] == seen["issuer"] for seen in context.get_ca_certs())


def roots(authority: str) -> str:
    """Those that sign themselves, as PEM. Raises ssl.SSLError."""
    return "".join(f"{one}\n" for one in CERTIFICATE.findall(authority) if signs_itself(one))


def intermediates(authority: str) -> str:
    """Those that another one signed, as PEM, in their order. Raises ssl.SSLError."""
    return "".join(f"{one}\n" for one in CERTIFICATE.findall(authority) if not signs_itself(one))
