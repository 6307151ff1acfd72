"""The lab's hosts, as the scenarios' tests reach them."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import testinfra

PROJECT = Path(__file__).resolve().parents[2]
INVENTORY = os.environ.get("LAB_INVENTORY", str(PROJECT / "inventories/lab/hosts.yml"))
CONNECTION = (
    "[ansible_connection | default('ssh'), ansible_host, ansible_user | default('root'),"
    " ansible_ssh_private_key_file | default(''), ansible_ssh_common_args | default('')]"
)


def run_ansible(*arguments: str, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """An ansible command with the project's configuration, changed by `settings`, and the lab's inventory."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        # YAML breaks long strings into lines
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        **(settings or {}),
    }
    command, *others = arguments
    argv = [command, "--inventory", INVENTORY, *others]
    return subprocess.run(argv, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


def play(
    playbook: Path, *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run_ansible("ansible-playbook", str(playbook), *arguments, settings=settings)


def changes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """How many tasks changed something on each host, in a run that did not fail."""
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return {name: int(count) for name, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.M)}


@functools.cache
def variable(host: str, expression: str) -> Any:
    """A value made of the host's variables, with their templates resolved."""
    message = f'msg="{{{{ {expression} | to_json }}}}"'
    done = run_ansible("ansible", host, "-m", "ansible.builtin.debug", "-a", message)
    found = re.search(r'"msg": (.*?),?$', done.stdout, re.M)
    if done.returncode != 0 or not found:
        raise LookupError(done.stdout + done.stderr)
    return json.loads(json.loads(found[1]))


@functools.cache
def group(name: str) -> tuple[str, ...]:
    listed = run_ansible("ansible", name, "--list-hosts").stdout
    return tuple(sorted(line.strip() for line in listed.splitlines()[1:]))


@functools.cache
def connect(host: str) -> Any:
    """A host for testinfra. Not by its ansible backend: that starts ansible for every command."""
    connection, address, user, key, arguments = variable(host, CONNECTION)
    if connection.endswith("docker"):
        return testinfra.get_host(f"docker://{address}")
    options = {"sudo": "true", "controlpersist": "60", "ssh_identity_file": key}
    # Not among the options that a testinfra URL takes: known hosts, checks, jump hosts
    return testinfra.get_host(f"ssh://{quote(user)}@{address}?{urlencode(options)}", ssh_extra_args=arguments.strip())


def most_tasks(done: subprocess.CompletedProcess[str]) -> int:
    """The largest number of tasks that any host executed."""
    return max(int(count) for count in re.findall(r"^\S+\s+: ok=(\d+)", done.stdout, re.M))
