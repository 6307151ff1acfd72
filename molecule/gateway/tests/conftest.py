from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")]

import gateways


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that asks for a gateway sees each of them."""
    if "gateway" in metafunc.fixturenames:
        metafunc.parametrize("gateway", gateways.NAMES, indirect=True)


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> gateways.Gateway:
    """A gateway at rest."""
    found = gateways.gateway(request.param)
    found.rest()
    return found
