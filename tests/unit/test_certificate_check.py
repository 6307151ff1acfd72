from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from certificates import authority, issue
from support import load

Load = Callable[[str], ModuleType]
DAY = 86400


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


def test_an_intermediate_authority_is_sent_along_to_those_who_trust_the_root(load_module: Load, tmp_path: Path) -> None:
    module, root = load_module("certificate_check"), authority("Root")
    upper = authority("Upper", root)
    lower = authority("Lower", upper)
    chain = lower.pem + upper.pem + root.pem
    certificate, key = issue(tmp_path, lower)
    assert reason(module, certificate, key, chain) == "not accepted: unable to get local issuer certificate"
    text = Path(certificate).read_text()
    Path(certificate).write_text(
        text + load("plugins/filter/certificate.py").FilterModule().filters()["intermediates"](chain)
    )
    assert Path(certificate).read_text() == text + lower.pem + upper.pem
    assert reason(module, certificate, key, chain) == "accepted"
    assert reason(module, certificate, key, root.pem) == "accepted"


def test_a_root_is_not_sent_along() -> None:
    assert (
        load("plugins/filter/certificate.py")
        .FilterModule()
        .filters()["intermediates"](authority("Old").pem + authority("New").pem)
        == ""
    )


def test_subject_alternative_names() -> None:
    names = load("plugins/filter/certificate.py").subject_alternative_names(["A.lab", "10.0.0.1", "0::1"])
    assert names == ["DNS:a.lab", "IP:10.0.0.1", "IP:::1"]
