"""gateway_switch: what changes at the gateway."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.haproxy import HAProxyError, Server

Loader = Callable[[str], ModuleType]
A, B = "node1.0.a", "node1.0.b"


def table(a: str, b: str) -> dict[str, Server]:
    return {name: Server(name, admin, admin != "maint", True, "L7OK", 0, 0) for name, admin in ((A, a), (B, b))}


def change(name: str, before: str, after: str) -> dict[str, Any]:
    return {"name": f"webui/{name}", "before": before, "after": after}


def desired(to: str | None = B, away: list[str] | None = None) -> dict[str, Any]:
    return {"backend": "webui", "to": to, "away": [A] if away is None else away}


@pytest.mark.parametrize(
    ("wanted", "current", "expected"),
    [
        pytest.param(desired(), table("maint", "ready"), [], id="switched already"),
        pytest.param(
            desired(),
            table("ready", "maint"),
            [change(B, "maint", "ready"), change(A, "ready", "maint")],
            id="from a to b",
        ),
        pytest.param(desired(), table("drain", "ready"), [change(A, "drain", "maint")], id="killed while draining"),
        pytest.param(
            desired(),
            table("ready", "drain"),
            [change(B, "drain", "ready"), change(A, "ready", "maint")],
            id="killed while HAProxy checked",
        ),
        pytest.param(desired(to=None), table("ready", "maint"), [change(A, "ready", "maint")], id="only away"),
        pytest.param(desired(away=[]), table("ready", "maint"), [change(B, "maint", "ready")], id="only in"),
    ],
)
def test_plan(load_module: Loader, wanted: dict[str, Any], current: dict[str, Server], expected: list[Any]) -> None:
    assert load_module("gateway_switch").plan(wanted, current) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (desired(to="x"), f"HAProxy has no server webui/x; it has {A}, {B}"),
        (desired(away=["y"]), f"HAProxy has no server webui/y; it has {A}, {B}"),
        (desired(to=A), f"{A} cannot come in and go away at once"),
    ],
)
def test_refused(load_module: Loader, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(HAProxyError) as caught:
        load_module("gateway_switch").plan(wanted, table("ready", "maint"))
    assert str(caught.value) == message


def test_check_mode_of_a_gateway_that_is_not_there_yet(load_module: Loader) -> None:
    assert load_module("gateway_switch").plan(desired(), {}, missing_is_fine=True) == [
        change(B, "absent", "ready"),
        change(A, "absent", "maint"),
    ]
