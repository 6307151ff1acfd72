# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a rollout goes over the datacenters: the variable `datacenters`, in the words of Nomad's `multiregion`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

ON_FAILURE = ("stop", "revert_all", "continue")
UNREACHABLE = ("stop", "continue")


class Policy(TypedDict):
    """The normalised variable.

    `order`: every datacenter, first to last. `max_parallel`: how many move side by side. `on_failure`: `stop` what
    comes after a failed wave, `revert_all` waves before it too, or `continue` with those after it. `unreachable`:
    whether a datacenter or node that is away stops the rollout, or is left for a later one.
    """

    order: list[str]
    max_parallel: int
    on_failure: str
    unreachable: str


class PolicyError(Exception):
    """The variable is wrong; `errors` has one line for each mistake."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = list(errors)


def _order(value: Any, known: Sequence[str]) -> str | None:
    right = isinstance(value, list) and sorted(map(str, value)) == sorted(known)
    return None if right else f"each of {', '.join(known)} once, as a list"


def _one_of(allowed: Sequence[str]) -> Callable[[Any, Sequence[str]], str | None]:
    return lambda value, _known: None if value in allowed else f"one of {', '.join(allowed)}"


def _at_least_one(value: Any, _known: Sequence[str]) -> str | None:
    right = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return None if right else "a whole number from 1"


RULES: Mapping[str, Callable[[Any, Sequence[str]], str | None]] = {
    "order": _order,
    "max_parallel": _at_least_one,
    "on_failure": _one_of(ON_FAILURE),
    "unreachable": _one_of(UNREACHABLE),
}


HOOKS = {"pre_rollout", "post_rollout", "on_failure"}
HOOK_KEYS = {"tasks", "url", "headers"}


# Seconds; the lock of a run that bakes for longer ends after a day, too
LOCK_TTL = range(1, 86401)


def lock_errors(ttl: Any) -> list[str]:
    """What is wrong with the variable `rollout_lock_ttl`; with -e it is a text."""
    seconds = int(ttl) if isinstance(ttl, str) and ttl.isdecimal() else ttl
    if isinstance(seconds, int) and not isinstance(seconds, bool) and seconds in LOCK_TTL:
        return []
    return [f'rollout_lock_ttl: expected seconds as a whole number from 1 to {LOCK_TTL[-1]}, got "{ttl}"']


def hook_errors(hooks: Any) -> list[str]:
    """All that is wrong with the variable `hooks`: a mapping of names to `{tasks}` or `{url, headers}`.

    A value that is none of that is not told: there are tokens among them.
    """
    if not isinstance(hooks, Mapping):
        return [f"hooks: expected a mapping of {', '.join(sorted(HOOKS))}, got something else"]
    errors = []
    for name, hook in hooks.items():
        if name not in HOOKS:
            errors.append(f"hooks.{name}: unknown key; allowed: {', '.join(sorted(HOOKS))}")
        elif not isinstance(hook, Mapping) or set(hook) - HOOK_KEYS or ("tasks" in hook) == ("url" in hook):
            errors.append(f"hooks.{name}: expected tasks (a file), or url with or without headers")
        elif not re.fullmatch(r"/.+", _text(hook.get("tasks", "/-"))):
            errors.append(
                f"hooks.{name}.tasks: expected the absolute path of a file on the controller{_why(hook['tasks'])}"
            )
        elif not re.fullmatch(r"https?://[^/\s].*", _text(hook.get("url", "http://-"))):
            errors.append(f"hooks.{name}.url: expected http:// or https://, a host and a path{_why(hook['url'])}")
        elif not isinstance(hook.get("headers", {}), Mapping):
            errors.append(f"hooks.{name}.headers: expected a mapping of names to values")
    return errors


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _why(value: Any) -> str:
    return "" if isinstance(value, str) else ", got no text; is every variable in it defined, as in the vault?"


def normalise_policy(value: Any, known: Iterable[str]) -> Policy:
    """Fill in the defaults: the order of `known`, one after the other, `stop` in both cases. Raises PolicyError."""
    known = list(known)
    policy: Policy = {"order": known, "max_parallel": 1, "on_failure": "stop", "unreachable": "stop"}
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise PolicyError([f'datacenters: expected a mapping of {", ".join(RULES)}, got "{value}"'])
    errors = [f"datacenters.{key}: unknown key; allowed: {', '.join(RULES)}" for key in value if key not in RULES]
    for key, rule in RULES.items():
        if key in value:
            expected = rule(value[key], known)
            if expected:
                errors.append(f'datacenters.{key}: expected {expected}, got "{value[key]}"')
            policy[key] = value[key]  # type: ignore[literal-required]
    if errors:
        raise PolicyError(errors)
    return policy
