"""Options that nothing can be done with, in every module that speaks to registries."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import yaml

from running import ModuleFailedError, run
from support import ROOT

DIGEST = "sha256:" + "a" * 64
MODULES: dict[str, dict[str, Any]] = {
    "image_build": {"name": "webui", "path": "/nonexistent"},
    "image_push": {"image": "r.lab/webui:1"},
    "image_pull": {"repository": "webui", "digest": DIGEST, "registries": ["r.lab"]},
    "image_replicate": {"images": [f"webui@{DIGEST}"], "source": "r.lab", "destination": "s.lab"},
    "image_resolve": {"registry": "r.lab", "images": ["webui:1"]},
}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {"timeout": 0}, "timeout: expected at least 1, got 0") for name in MODULES),
        *((name, {"timeout": -1}, "timeout: expected at least 1, got -1") for name in MODULES),
        ("image_pull", {"deadline": -1}, "deadline: expected at least 0, got -1.0"),
        ("image_pull", {"deadline": "nan"}, "deadline: expected at least 0, got nan"),
        ("image_pull", {"deadline": "inf"}, "deadline: expected at least 0, got inf"),
        ("image_pull", {"retries": -1}, "retries: expected at least 0, got -1"),
        ("image_pull", {"backoff": -0.5}, "backoff: expected at least 0, got -0.5"),
        ("image_pull", {"min_free_bytes": -1}, "min_free_bytes: expected at least 0, got -1"),
        ("image_replicate", {"retries": -1}, "retries: expected at least 0, got -1"),
        ("image_replicate", {"copy_timeout": -1}, "copy_timeout: expected at least 0, got -1"),
        ("image_replicate", {"stall_timeout": 0}, "stall_timeout: expected at least 1, got 0"),
        ("image_push", {"stall_timeout": -1}, "stall_timeout: expected at least 1, got -1"),
    ],
)
def test_numbers_that_are_too_small(
    load_module: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ModuleFailedError) as error:
        run(load_module(name), capsys, MODULES[name] | options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("image_build", "registry"),
        ("image_pull", "registries[0]"),
        ("image_replicate", "source"),
        ("image_replicate", "destination"),
        ("image_resolve", "registry"),
    ],
)
@pytest.mark.parametrize("registry", ["registry", "https://r:5000", "r:5000/x", "a..b:5000", "r:99999"])
def test_what_is_no_registry(
    load_module: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], name: str, path: str, registry: str
) -> None:
    option, is_list, _ = path.partition("[")
    with pytest.raises(ModuleFailedError) as error:
        run(load_module(name), capsys, MODULES[name] | {option: [registry] if is_list else registry})
    message = (
        f"{path}: expected host[:port] with a dot or a port in it, as Docker takes other names for repositories of "
        f"Docker Hub, got {registry!r}"
    )
    if (name, registry) == ("image_pull", "https://r:5000"):
        reason = "leave out 'https://': a registry is host[:port]"
        message = f"not an image reference: '{registry}/webui@{DIGEST}' ({reason})"
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("file", "name", "options"),
    [
        ("datacenter", "image_replicate", ["copy_timeout", "stall_timeout"]),
        ("node", "image_pull", ["min_free_bytes"]),
    ],
)
def test_what_an_inventory_may_set(
    load_module: Callable[[str], ModuleType], file: str, name: str, options: list[str]
) -> None:
    def read(path: str) -> Any:
        return yaml.safe_load((ROOT / "roles/service" / path).read_text(encoding="utf-8"))

    block = next(task["block"] for task in read(f"tasks/{file}.yml") if "block" in task)
    given = next(task[name] for task in block if name in task)
    defaults, specs = read("defaults/main.yml"), read("meta/argument_specs.yml")["argument_specs"]["lock"]["options"]
    for option in options:
        variable = f"service_{option}"
        assert given[option] == f"{{{{ {variable} }}}}"
        assert defaults[variable] == specs[variable]["default"] == load_module(name).ARGUMENTS[option]["default"]
