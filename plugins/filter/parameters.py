# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said with -e: Ansible takes any name, and a mistyped one would leave a playbook without its bounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars

# Of shorter names too many others are near
SHORTEST = 5
NEAR = 0.85
# The verbs of a plan that look at a parameter; what is not here is for all of them
VERBS = {
    "service": ("rollout", "rollback", "restart", "scale", "retire", "maintenance", "history"),
    "to": ("rollback",),
    "release": ("rollout", "restart"),
    "target": ("drain", "undrain"),
}
# Those that are asked for services of the catalogue; the others for any that may be on the hosts
OF_THE_CATALOGUE = ("rollout", "rollback", "restart", "scale")
# maintenance.yml ends with it
MAY_BE_EMPTY = ("message",)


def parameter_errors(parameters: Iterable[str], given: Mapping[Any, Any] | None = None) -> list[str]:
    """`[service, to] | parameter_errors`: names given with -e that look like one of these, and are none.

    What is no text is a variable of the inventory, such as `services` or `datacenters`: all parameters are texts.
    """
    known = list(parameters)
    long = [name for name in known if len(name) >= SHORTEST]
    names = [str(name) for name, value in _given(given).items() if isinstance(value, str) and name not in known]
    near = {name: get_close_matches(name.lower(), long, n=1, cutoff=NEAR) for name in names}
    return [
        f"{name}: expected one of {', '.join(known)}; did you mean {found[0]}?" for name, found in near.items() if found
    ]


def use_errors(parameters: Iterable[str], verb: str, given: Mapping[Any, Any] | None = None) -> list[str]:
    """`[service, to] | use_errors("rollback")`: those that are empty, as by a variable of a shell that is not set, and
    would take everything; those that this verb does not look at; and the words of a message that have become variables.
    """
    variables = _given(given)
    values = {name: str(value).strip() for name, value in variables.items() if name in set(parameters)}
    empty = [name for name, value in values.items() if not value and name not in MAY_BE_EMPTY]
    ignored = [name for name, value in values.items() if value and verb not in VERBS.get(name, (verb,))]
    lost = [str(name) for name in variables if not str(name).isidentifier()] if "message" in values else []
    return [
        *(f"{name}: expected a value, got an empty one; leave -e {name}= out if that is meant" for name in empty),
        *(f"{name}: expected by {listed(VERBS[name])} only, got -e {name}={values[name]}" for name in ignored),
        *(
            f'message: expected no "=" in it, got {name}=, which became a variable; give it as JSON, '
            '-e \'{"message": "…"}\''
            for name in lost
        ),
    ]


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def service_errors(names: Any, services: Any, verb: str) -> list[str]:
    """`service | service_errors(services, verb)`: names in the list that the catalogue has not."""
    if verb not in OF_THE_CATALOGUE or not isinstance(services, Mapping):
        return []
    words = [word.strip() for word in str(names).split(",") if word.strip()]
    return [
        f'service: expected names from the catalogue ({", ".join(services)}), got "{word}"'
        + "".join(f"; did you mean {near}?" for near in get_close_matches(word, services, n=1))
        for word in words
        if word not in services
    ]


def _given(given: Mapping[Any, Any] | None) -> Mapping[Any, Any]:
    """As Ansible read them when it began, where no others are given."""
    return load_extra_vars(DataLoader()) if given is None else given


def target_errors(target: Any, groups: Mapping[str, Iterable[str]]) -> list[str]:
    """`target | target_errors(groups)`: names in a list of hosts and groups that are neither; patterns are let pass."""
    words = [word.strip().lstrip("!&") for word in re.split(r"[,:]", str(target))]
    plain = [word for word in words if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", word)]
    return [
        f'target: expected hosts or groups of the inventory, got "{word}"'
        for word in plain
        if word not in groups and word not in groups["all"]
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "parameter_errors": parameter_errors,
            "service_errors": service_errors,
            "target_errors": target_errors,
            "use_errors": use_errors,
        }
