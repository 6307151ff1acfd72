# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as an authority issues them, for tests."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)


@dataclass
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def name(self) -> str:
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def build(subject: str, issuer: str, public_key: Any, days: int) -> x509.CertificateBuilder:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder(name(issuer), name(subject), public_key, x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=400))
        .not_valid_after(NOW + datetime.timedelta(days=days))
    )


def private(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form)


def authority(name: str = "Test CA", by: Authority | None = None) -> Authority:
    """One that signs itself, or an intermediate one."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = build(name, by.name if by else name, key.public_key(), 3650)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Authority(key, builder.sign(by.key if by else key, hashes.SHA256()))


def issue(directory: Path, by: Authority, days: int = 100) -> tuple[str, str]:
    """A server certificate for registry.lab and 10.0.0.1 from this authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("registry.lab"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]
    builder = build("registry.lab", by.name, key.public_key(), days)
    certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(
        by.key, hashes.SHA256()
    )
    paths = directory / "server.crt", directory / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(private(key))
    return str(paths[0]), str(paths[1])
