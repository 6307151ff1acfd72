# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables that an inventory gives the roles: a mistyped name would be a default, and a wrong value be found late."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.qianjiang.hostvars import Groups, members, told
from ansible.module_utils.qianjiang.topology import FUNCTIONS, HOST_KEYS, LOGIN, SHARED, hosts_of
from ansible.template import accept_lazy_markers

PROJECT = Path(__file__).resolve().parents[2]
# Whose hosts a role is for
RUNS_ON = {
    "certificate_authority": ("registries", "gateways"),
    "docker_engine": ("nodes", "builders"),
    "gateway": ("gateways",),
    "image": ("builders",),
    "nfs_client": ("nodes",),
    "registry": ("registries",),
    "service": FUNCTIONS,
}
OWN = "own_variables"
# Of the role service, whose other variables are the playbooks'
SERVICE = ("service_copy_timeout", "service_min_free_bytes", "service_stall_timeout")
# What playbooks ask of an inventory beside that, and of -e
OTHERS = (*SHARED, *HOST_KEYS, *LOGIN, "node_address", "platform_ca_certificate", "service", OWN, *SERVICE)
NEAR = 0.85

Options = dict[str, dict[str, Any]]


@accept_lazy_markers  # type: ignore[untyped-decorator]
def variable_errors(groups: Mapping[str, Any], hostvars: Any) -> list[str]:
    """`groups | variable_errors(hostvars)`: names near a variable of a role that are none, and values of a wrong type.

    What cannot be told before the role runs, what is not near any name, and what the inventory lists in `own_variables`
    is let pass.
    """
    found = members(groups)
    written = {host: hostvars.raw_get(host) for host in hosts_of(found, FUNCTIONS)}
    names = {str(name) for variables in written.values() for name in variables}
    own = {str(name) for variables in written.values() for name in variables.get(OWN) or ()}
    return [*name_errors(names - own), *value_errors(found, written, hostvars)]


def name_errors(names: Iterable[str]) -> list[str]:
    """Of names that an inventory uses, those that are meant for one of ours."""
    ours = {*OTHERS, *(name for role in RUNS_ON.keys() - {"service"} for name in options(role))} - derived()
    # What begins with _ was registered by a play before: validate.yml is part of each playbook of site.yml
    others = sorted(name for name in set(names) - ours - derived() if not name.startswith(("_", "ansible_")))
    near = {name: get_close_matches(name, ours, n=1, cutoff=NEAR) for name in others}
    return [
        f"{name}: no role has this variable; did you mean {found[0]}? If it is yours, name it in the list {OWN}"
        for name, found in near.items()
        # vault_registry_password and registry_users_of_ci are names of their own
        if found and not (name.endswith(f"_{found[0]}") or name.startswith(f"{found[0]}_"))
    ]


def value_errors(groups: Groups, written: Mapping[str, Mapping[str, Any]], hostvars: Mapping[str, Any]) -> list[str]:
    """Values that the argument spec of their role refuses. `written`: as they are in the inventory, by host."""
    found: dict[tuple[str, str], list[str]] = {}
    judged: dict[tuple[str, str, str], list[str]] = {}
    for role, functions in RUNS_ON.items():
        for host in hosts_of(groups, functions):
            for name in (options(role).keys() & written[host].keys()) - derived():
                text = str(written[host][name])
                # A template takes time on each host, and is of one type on those of a datacenter
                key = name, text, str(written[host].get("datacenter"))
                if key not in judged:
                    judged[key] = _refused(name, options(role)[name], hostvars[host])
                for message in judged[key]:
                    found.setdefault((name, message), []).append(host)
    return [f"{name}: {message}; on {', '.join(there)}" for (name, message), there in sorted(found.items())]


def _refused(name: str, option: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    # What a role cannot do without may come from the play
    spec = {name: {**option, "required": False, "default": None}}
    messages = ArgumentSpecValidator(spec).validate(told(variables, [name])).error_messages
    # Without the value that is of another type, which may be a secret
    return [re.sub(r"(unable to convert to \w+): .*", r"\1", message, flags=re.DOTALL) for message in messages]


@cache
def options(role: str) -> Options:
    """A role's variables, those of all its entry points together."""
    specs = _yaml(PROJECT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry.get("options", {}).items()}


@cache
def derived() -> frozenset[str]:
    """What follows from any inventory: the playbooks' own variables."""
    return frozenset(_yaml(PROJECT / "playbooks/group_vars/all.yml"))


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"variable_errors": variable_errors}
