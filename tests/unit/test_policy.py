"""The variable `datacenters`: how a rollout goes over the datacenters, or what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.qianjiang.policy import PolicyError, hook_errors, lock_errors, normalise_policy

KNOWN = ["hangzhou", "shanghai"]
DEFAULT = {"order": KNOWN, "max_parallel": 1, "on_failure": "stop", "unreachable": "stop"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, DEFAULT, id="not set"),
        pytest.param({}, DEFAULT, id="empty"),
        pytest.param(DEFAULT, DEFAULT, id="idempotent"),
        pytest.param({"order": ["shanghai", "hangzhou"]}, DEFAULT | {"order": ["shanghai", "hangzhou"]}, id="order"),
        pytest.param({"max_parallel": 2}, DEFAULT | {"max_parallel": 2}, id="side by side"),
        pytest.param({"on_failure": "revert_all"}, DEFAULT | {"on_failure": "revert_all"}, id="revert all"),
        pytest.param({"unreachable": "continue"}, DEFAULT | {"unreachable": "continue"}, id="without what is away"),
    ],
)
def test_defaults_are_filled_in(value: Any, expected: dict[str, Any]) -> None:
    assert normalise_policy(value, KNOWN) == expected


@pytest.mark.parametrize(
    ("value", "errors"),
    [
        (
            "stop",
            ['datacenters: expected a mapping of order, max_parallel, on_failure, unreachable, got "stop"'],
        ),
        (
            {"on_failue": "stop"},
            ["datacenters.on_failue: unknown key; allowed: order, max_parallel, on_failure, unreachable"],
        ),
        (
            {"order": ["hangzhou"]},
            ["datacenters.order: expected each of hangzhou, shanghai once, as a list, got \"['hangzhou']\""],
        ),
        (
            {"order": ["hangzhou", "hangzhou", "shanghai"]},
            [
                "datacenters.order: expected each of hangzhou, shanghai once, as a list, "
                "got \"['hangzhou', 'hangzhou', 'shanghai']\""
            ],
        ),
        (
            {"order": "hangzhou"},
            ['datacenters.order: expected each of hangzhou, shanghai once, as a list, got "hangzhou"'],
        ),
        ({"max_parallel": 0}, ['datacenters.max_parallel: expected a whole number from 1, got "0"']),
        ({"max_parallel": True}, ['datacenters.max_parallel: expected a whole number from 1, got "True"']),
        ({"max_parallel": "2"}, ['datacenters.max_parallel: expected a whole number from 1, got "2"']),
        (
            {"on_failure": "ignore", "unreachable": "revert_all"},
            [
                'datacenters.on_failure: expected one of stop, revert_all, continue, got "ignore"',
                'datacenters.unreachable: expected one of stop, continue, got "revert_all"',
            ],
        ),
    ],
)
def test_every_mistake_is_named(value: Any, errors: list[str]) -> None:
    with pytest.raises(PolicyError) as error:
        normalise_policy(value, KNOWN)
    assert error.value.errors == errors
    assert str(error.value) == "; ".join(errors)


@pytest.mark.parametrize(
    ("hooks", "errors"),
    [
        pytest.param({}, [], id="idempotent: none"),
        pytest.param(
            {"pre_rollout": {"tasks": "/a.yml"}, "on_failure": {"url": "https://a", "headers": {}}}, [], id="right"
        ),
        pytest.param(
            ["token"],
            ["hooks: expected a mapping of on_failure, post_rollout, pre_rollout, got something else"],
            id="list",
        ),
        pytest.param(
            {"before": {}}, ["hooks.before: unknown key; allowed: on_failure, post_rollout, pre_rollout"], id="unknown"
        ),
        pytest.param(
            {"on_failure": {"tasks": "a.yml", "url": "https://a"}},
            ["hooks.on_failure: expected tasks (a file), or url with or without headers"],
            id="both",
        ),
        pytest.param(
            {"on_failure": "a.yml"},
            ["hooks.on_failure: expected tasks (a file), or url with or without headers"],
            id="text",
        ),
        pytest.param(
            {"on_failure": {"tasks": "hooks/tell.yml"}, "post_rollout": {"tasks": ["/a.yml"]}},
            [
                "hooks.on_failure.tasks: expected the absolute path of a file on the controller",
                "hooks.post_rollout.tasks: expected the absolute path of a file on the controller, got no text; is "
                "every variable in it defined, as in the vault?",
            ],
            id="a file of which nobody knows where it is",
        ),
        pytest.param(
            {"on_failure": {"url": "chat.example.com/token"}},
            ["hooks.on_failure.url: expected http:// or https://, a host and a path"],
            id="no URL",
        ),
        pytest.param(
            {"on_failure": {"url": "https://a", "headers": ["token"]}},
            ["hooks.on_failure.headers: expected a mapping of names to values"],
            id="headers as a list",
        ),
    ],
)
def test_hooks(hooks: object, errors: list[str]) -> None:
    assert hook_errors(hooks) == errors


@pytest.mark.parametrize(
    ("ttl", "wrong"),
    [(good, False) for good in (1, 900, "900", 86400)]
    + [(bad, True) for bad in ("15m", "0", "", 0, 86401, True, None, 1.5)],
)
def test_how_long_a_lock_is_held(ttl: object, wrong: bool) -> None:
    expected = [f'rollout_lock_ttl: expected seconds as a whole number from 1 to 86400, got "{ttl}"']
    assert lock_errors(ttl) == (expected if wrong else [])
