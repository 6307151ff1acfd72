from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang import system_file
from ansible.module_utils.testing import patch_module_args

Load = Callable[[str], ModuleType]
HASH = "$2y$04$" + "x" * 53


@pytest.mark.parametrize(
    ("current", "right", "expected"),
    [
        pytest.param({"ann": HASH}, True, [], id="idempotent"),
        pytest.param({}, True, [("ann", "", "password")], id="added"),
        pytest.param({"ann": HASH}, False, [("ann", "another password", "password")], id="password"),
        pytest.param(
            {"ann": HASH.replace("04", "12")},
            True,
            [("ann", "hash of another kind or cost", "bcrypt of cost 4")],
            id="cost",
        ),
        pytest.param(
            {"ann": "{SHA}x"}, True, [("ann", "hash of another kind or cost", "bcrypt of cost 4")], id="no bcrypt"
        ),
        pytest.param({"ann": HASH, "bob": HASH}, True, [("bob", "password", "")], id="removed"),
    ],
)
def test_plan(load_module: Load, current: dict[str, str], right: bool, expected: list[tuple[str, str, str]]) -> None:
    users = [{"name": "ann", "password": "secret"}]
    changes = load_module("registry_authorize").plan(users, current, 4, lambda _password, _hash: right)
    assert [(change["name"], change["before"], change["after"]) for change in changes] == expected


def test_problems(load_module: Load) -> None:
    users = [
        {"name": "a:b", "password": "x"},
        {"name": "ann", "password": ""},
        {"name": "ann", "password": "é" * 37},
        {"name": "bob", "password": "x" * 72},
    ]
    assert load_module("registry_authorize").problems(users) == [
        'users[0].name: expected a name without colon or white space, got "a:b"',
        "users[1].password: expected 1 to 72 bytes, got 0",
        'users[2].name: "ann" is there twice',
        "users[2].password: expected 1 to 72 bytes, got 74",
    ]


def run(module: ModuleType, path: Path, password: str, *, check: bool = False, **more: Any) -> dict[str, Any]:
    arguments = {
        "path": str(path),
        "users": [{"name": "ann", "password": password}],
        "cost": 4,
        "group": system_file._group(0),
        "_ansible_check_mode": check,
        **more,
    }
    output = io.StringIO()
    with patch_module_args(arguments), redirect_stdout(output), pytest.raises(SystemExit):
        module.main()
    assert password not in output.getvalue()
    result: dict[str, Any] = json.loads(output.getvalue())
    return result


@pytest.mark.skipif(os.getuid() != 0, reason="the file belongs to root")
def test_check_do_check_do(load_module: Load, tmp_path: Path) -> None:
    module, path = load_module("registry_authorize"), tmp_path / "htpasswd"
    path.write_text("bob:$2y$04$abc\n")
    predicted = run(module, path, "hunter-2", check=True)
    assert predicted["users"] == ["ann", "bob"]
    assert "ann" not in path.read_text()
    done = run(module, path, "hunter-2")
    assert done["diff"] == predicted["diff"]
    first = path.read_text()
    name, hashed = first.strip().split(":", 1)
    assert name == "ann"
    assert module.Bcrypt().verify("hunter-2", hashed)
    assert not module.Bcrypt().verify("hunter-3", hashed)
    assert path.stat().st_mode & 0o777 == 0o640
    for check in (True, False):
        assert not run(module, path, "hunter-2", check=check)["changed"]
    assert path.read_text() == first
    assert run(module, path, "hunter-3")["users"] == ["ann"]
    assert path.read_text() != first


def test_cost_is_checked(load_module: Load, tmp_path: Path) -> None:
    result = run(load_module("registry_authorize"), tmp_path / "htpasswd", "hunter-2", cost=31)
    assert result["msg"] == "cost: expected 4 to 16, got 31"
