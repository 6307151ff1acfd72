# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables of hosts, as the controller's filters ask for them: what cannot be told is no error there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ansible.errors import AnsibleError
from jinja2 import Undefined

Groups = Mapping[str, list[str]]


def members(groups: Mapping[str, Any]) -> dict[str, list[str]]:
    """The groups as plain lists: Ansible's own are looked at anew each time."""
    return {name: list(hosts) for name, hosts in groups.items()}


def told(variables: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """These of a host's variables. One that cannot be told (no vault, no file) is left out.

    Needs a filter with `accept_lazy_markers`, where a part of a value may be undefined.
    """
    found = {}
    for name in names:
        with suppress(AnsibleError, KeyError):
            value = _plain(variables[name])
            if value is not None:
                found[name] = value
    return found


def _plain(value: Any) -> Any:
    """Without Ansible's containers, which take their templates' variables along, and None for what is undefined."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, Undefined) else value
