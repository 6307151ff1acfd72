"""The platform document arrives whole, once, with its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from running import ModuleFailedError, run

DOCUMENT = {"origin": "hangzhou", "datacenters": []}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "platform/platform.json"


def test_it_is_written_once(
    load_module: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    options = {"document": DOCUMENT, "path": str(file)}
    assert run(load_module("platform_publish"), capsys, options, check=True)["changed"] is True
    assert not file.exists()
    assert run(load_module("platform_publish"), capsys, options)["changed"] is True
    assert json.loads(file.read_text()) == DOCUMENT
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    assert run(load_module("platform_publish"), capsys, options)["changed"] is False


def test_a_path_that_cannot_be_written_is_named(
    load_module: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    options = {"document": DOCUMENT, "path": str(tmp_path / "taken/platform.json")}
    with pytest.raises(ModuleFailedError) as error:
        run(load_module("platform_publish"), capsys, options)
    assert f"platform_publish: {tmp_path}/taken/platform.json: " in str(error.value)
