# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping the environment of services out of logs, differences and shown parameters.

Every value, as no list of names or forms of secrets is complete. Ansible's `no_log` does not serve here: it would mask
each of them, "80" or "true" too, wherever it turns up in a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"


def without_environment(value: Any) -> Any:
    """Parameters as they may be logged: every value in an `env` is hidden."""
    if isinstance(value, Mapping):
        return {
            key: dict.fromkeys(inner, HIDDEN)
            if key == "env" and isinstance(inner, Mapping)
            else without_environment(inner)
            for key, inner in value.items()
        }
    return [without_environment(item) for item in value] if isinstance(value, list) else value


def discreet(module_class: Any) -> Any:
    """The AnsibleModule class, but its invocation is logged and returned without the environment of services.

    A function, not a class of its own, so that linters and tests which replace AnsibleModule still do.
    """

    class Discreet(module_class):  # type: ignore[misc]
        def _log_invocation(self) -> None:
            self.log(f"Invoked with {without_environment(self.params)}")

        def _return_formatted(self, kwargs: dict[str, Any]) -> None:
            kwargs.setdefault("invocation", {"module_args": without_environment(self.params)})
            super()._return_formatted(kwargs)

    return Discreet
