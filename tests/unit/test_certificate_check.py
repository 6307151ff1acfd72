from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support import load

Load = Callable[[str], ModuleType]
NOW = datetime.datetime.now(datetime.UTC)
DAY = 86400


@dataclass
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def build(subject: str, issuer: str, public_key: Any, days: int) -> x509.CertificateBuilder:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder(name(issuer), name(subject), public_key, x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=400))
        .not_valid_after(NOW + datetime.timedelta(days=days))
    )


def authority(name: str = "Test CA") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = build(name, name, key.public_key(), 3650)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Authority(key, builder.sign(key, hashes.SHA256()))


def issue(directory: Path, by: Authority, days: int = 100) -> tuple[str, str]:
    """A server certificate for registry.lab and 10.0.0.1 from this authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = by.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    names = [x509.DNSName("registry.lab"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]
    builder = build("registry.lab", str(issuer), key.public_key(), days)
    certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(
        by.key, hashes.SHA256()
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = directory / "server.crt", directory / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(*form))
    return str(paths[0]), str(paths[1])


SEEN = {"subjectAltName": (("DNS", "a.lab"), ("IP Address", "0:0:0:0:0:0:0:1")), "notAfter": "Jan  1 00:00:00 2027 GMT"}
END = 1798761600


@pytest.mark.parametrize(
    ("names", "now", "expected"),
    [
        pytest.param(["a.lab", "::1"], END - 31 * DAY, [], id="idempotent"),
        pytest.param(["A.lab", "::1"], END - 31 * DAY, [], id="names have no case"),
        pytest.param(["a.lab", "::1", "b.lab"], END - 31 * DAY, ["names: missing b.lab"], id="name added"),
        pytest.param(["a.lab"], END - 31 * DAY, ["names: no longer wanted ::1"], id="name removed"),
        pytest.param(["a.lab", "::1"], END - 3 * DAY, ["ends in 3 days, renewed 30 days before"], id="due"),
    ],
)
def test_plan(load_module: Load, names: list[str], now: float, expected: list[str]) -> None:
    assert load_module("certificate_check").plan(names, SEEN, 30, now) == expected


def reason(module: ModuleType, *arguments: str) -> str:
    try:
        module.handshake(*arguments)
    except OSError as error:
        return str(module.explain(error))
    return "accepted"


def test_a_right_certificate_is_accepted(load_module: Load, tmp_path: Path) -> None:
    module, ca = load_module("certificate_check"), authority()
    seen = module.handshake(*issue(tmp_path, ca), ca.pem)
    assert module.certificate_names(seen) == {"registry.lab", "10.0.0.1"}


def test_what_a_client_would_refuse_is_refused(load_module: Load, tmp_path: Path) -> None:
    module, ca = load_module("certificate_check"), authority()
    certificate, key = issue(tmp_path, ca)
    # The same name, another key: only the signature tells
    assert reason(module, certificate, key, authority().pem).startswith("not accepted: ")
    (tmp_path / "old").mkdir()
    assert reason(module, *issue(tmp_path / "old", ca, days=-1), ca.pem) == "not accepted: certificate has expired"
    (tmp_path / "other").mkdir()
    _, other_key = issue(tmp_path / "other", ca)
    assert reason(module, certificate, other_key, ca.pem) == "the private key is another certificate's"
    Path(certificate).write_text("")
    assert reason(module, certificate, key, ca.pem).startswith("unreadable: ")
    Path(certificate).unlink()
    assert reason(module, certificate, key, ca.pem) == "missing certificate or private key"


def test_subject_alternative_names() -> None:
    names = load("plugins/filter/certificate.py").subject_alternative_names(["A.lab", "10.0.0.1", "0::1"])
    assert names == ["DNS:a.lab", "IP:10.0.0.1", "IP:::1"]
