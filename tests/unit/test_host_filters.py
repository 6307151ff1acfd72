"""The guards in front of slow stock modules: without facts they must let the module run."""

from __future__ import annotations

from typing import Any

import pytest

from support import load

FACTS: dict[str, Any] = {
    "packages": {
        "docker.io": [{"version": "20.10.24+dfsg1-1+deb12u1", "hold": True}],
        "python3-docker": [{"version": "5.0.3-1"}],
    },
    "services": {
        "docker.service": {"state": "running", "status": "enabled"},
        "ssh.service": {"state": "running", "status": "disabled"},
        "haproxy.service": {"state": "failed", "status": "enabled"},
    },
    "group_members": {"docker": ["deploy"]},
}


@pytest.mark.parametrize(
    ("names", "facts", "missing"),
    [
        pytest.param(["docker.io", "python3-docker"], FACTS, [], id="all there"),
        pytest.param(["docker.io", "skopeo"], FACTS, ["skopeo"], id="one absent"),
        pytest.param(["docker.io=20.10.24+dfsg1-1+deb12u1"], FACTS, [], id="the pinned version"),
        pytest.param(["docker.io=20.10.*"], FACTS, [], id="a pattern"),
        pytest.param(["docker.io=26.1*"], FACTS, ["docker.io=26.1*"], id="another version"),
        pytest.param([], FACTS, [], id="nothing wanted"),
        pytest.param(["docker.io"], {}, ["docker.io"], id="no facts"),
    ],
)
def test_packages_missing(names: list[str], facts: dict[str, Any], missing: list[str]) -> None:
    assert filters()["packages_missing"](names, facts) == missing


@pytest.mark.parametrize(
    ("name", "facts", "running"),
    [
        ("docker", FACTS, True),
        ("docker.service", FACTS, True),
        ("ssh", FACTS, False),
        ("haproxy", FACTS, False),
        ("absent", FACTS, False),
        ("docker", {}, False),
    ],
)
def test_service_running(name: str, facts: dict[str, Any], running: bool) -> None:
    assert filters()["service_running"](facts, name) is running


def test_packages_held() -> None:
    assert filters()["packages_held"](["docker.io=20.10.*", "python3-docker", "absent"], FACTS) == ["docker.io"]
    assert filters()["packages_held"](["docker.io"], {}) == []


def test_users_outside_group() -> None:
    assert filters()["users_outside_group"](["deploy", "ops"], FACTS, "docker") == ["ops"]
    assert filters()["users_outside_group"](["deploy"], {}, "docker") == ["deploy"]


def filters() -> dict[str, Any]:
    plugin: dict[str, Any] = load("plugins/filter/host.py").FilterModule().filters()
    return plugin
