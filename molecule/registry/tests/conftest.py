from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")]

import registries


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that asks for a registry sees each of them."""
    if "registry" in metafunc.fixturenames:
        metafunc.parametrize("registry", registries.NAMES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def registry(request: pytest.FixtureRequest) -> registries.Registry:
    return registries.registry(request.param)
