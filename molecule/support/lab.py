"""The lab's hosts, as the scenarios' tests reach them."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import testinfra

PROJECT = Path(__file__).resolve().parents[2]
INVENTORY = os.environ.get("LAB_INVENTORY", str(PROJECT / "inventories/lab/hosts.yml"))
# What nearly every test asks. It is asked together, of all hosts: nearly all of the time is Ansible's start
COMMON = {
    "connection": (
        "[ansible_connection | default('ssh'), ansible_host, ansible_user | default('root'),"
        " ansible_ssh_private_key_file | default(''), ansible_ssh_common_args | default('')]"
    ),
    "ansible_host": "ansible_host",
    "datacenter": "datacenter | default('')",
    "groups": "groups",
    "lab_name": "lab_name | default('')",
    "services": "services | default({})",
}
TOGETHER = "{" + ", ".join(f"'{name}': {expression}" for name, expression in COMMON.items()) + "}"


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
def variables(expression: str) -> dict[str, str]:
    """A value made of a host's variables, with their templates resolved, as JSON; where it cannot be made, why."""
    message = f'msg="{{{{ {expression} | to_json }}}}"'
    done = run_ansible("ansible", "all:localhost", "--one-line", "-m", "ansible.builtin.debug", "-a", message)
    found = re.findall(r"^(\S+) \| \S+ => (.*)$", done.stdout, re.M)
    if not found:
        raise LookupError(done.stdout + done.stderr)
    return {host: str(json.loads(result)["msg"]) for host, result in found}


def variable(host: str, expression: str) -> Any:
    """One of COMMON, or a value made of the host's variables. Raises LookupError for a host that has none."""
    told = variables(TOGETHER if expression in COMMON else expression).get(host, "no such host")
    try:
        value = json.loads(told)
    except ValueError:
        raise LookupError(f"{host}: {expression}: {told}") from None
    return value[expression] if expression in COMMON else value


def group(name: str) -> tuple[str, ...]:
    return tuple(sorted(variable("localhost", "groups")[name]))


@functools.cache
def connect(host: str) -> Any:
    """A host for testinfra. Not by its ansible backend: that starts ansible for every command."""
    connection, address, user, key, arguments = variable(host, "connection")
    if connection.endswith("docker"):
        return testinfra.get_host(f"docker://{address}")
    options = {"sudo": "true", "controlpersist": "60", "ssh_identity_file": key}
    # A connection whose host has been away is given up soon
    alive = "-o ServerAliveInterval=2 -o ServerAliveCountMax=3"
    # Not among the options that a testinfra URL takes: known hosts, checks and jump hosts; and where the connection is
    # kept, without which each command makes one of its own
    return testinfra.get_host(
        f"ssh://{quote(user)}@{address}?{urlencode(options)}",
        ssh_extra_args=f"{arguments.strip()} {alive}",
        controlpath=f"{sockets()}/{host}",
    )


@functools.cache
def sockets() -> str:
    """A folder with a short path, for as long as this process lives."""
    folder = tempfile.mkdtemp(prefix="qj-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def most_tasks(done: subprocess.CompletedProcess[str]) -> int:
    """The largest number of tasks that any host executed."""
    return max(int(count) for count in re.findall(r"^\S+\s+: ok=(\d+)", done.stdout, re.M))
