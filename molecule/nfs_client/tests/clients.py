"""The guests, the file server and the role, as the tests use them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra

SCENARIO = Path(__file__).resolve().parents[1]
PROJECT = SCENARIO.parents[1]
LAB = PROJECT / ".lab/nfs"
EXPORT = LAB / "export"
# The list in the inventory
SHARED = {"server": "10.213.0.1", "export": "/export", "path": "/mnt/shared"}
ON_DEMAND = {"server": "10.213.0.1", "export": "/export", "path": "/mnt/on-demand", "automount": True}
STRICT = {**SHARED, "path": "/mnt/strict", "options": ["vers=4.2", "hard", "noac"]}
MOUNTED = r"^10\.213\.0\.1:/export {} nfs4 "


@dataclass(frozen=True)
class Guest:
    """A client of the file server."""

    name: str
    host: Any

    def run(self, command: str) -> Any:
        return self.host.run(command)

    def output(self, command: str) -> str:
        text: str = self.host.check_output(command)
        return text

    def mount(self, path: str) -> str:
        """The line of /proc/mounts for NFS at the path, or nothing. Never looks at the path itself."""
        return next(
            (line for line in self.output("cat /proc/mounts").splitlines() if re.match(MOUNTED.format(path), line)), ""
        )

    def background(self, command: str) -> None:
        self.output(f"setsid sh -c '{command}' >/dev/null 2>&1 </dev/null &")

    def reboot(self, seconds: float = 120) -> float:
        """Reboot and wait for SSH: seconds it took."""
        before = self.output("cat /proc/sys/kernel/random/boot_id")
        begin = time.monotonic()
        with contextlib.suppress(RuntimeError):  # the connection may go before the answer
            self.run("systemctl reboot")

        def back() -> bool:
            try:
                return self.output("cat /proc/sys/kernel/random/boot_id") != before
            except (RuntimeError, AssertionError):  # no SSH yet
                return False

        eventually(f"{self.name} is back", back, seconds)
        return time.monotonic() - begin


@dataclass(frozen=True)
class Play:
    """How a run of the role ended."""

    status: int
    output: str
    seconds: float

    def count(self, guest: str, what: str) -> int:
        match = re.search(rf"^{guest} .*\b{what}=(\d+)", self.output, re.MULTILINE)
        if match is None:
            pytest.fail(self.output)
        return int(match[1])

    def text(self) -> str:
        """The output without the line breaks that YAML puts into messages."""
        return " ".join(self.output.split())

    def changed(self) -> int:
        return self.count("files1", "changed") + self.count("files2", "changed")


def eventually(what: str, check: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.3)


def lab(*command: str) -> None:
    subprocess.run([str(PROJECT / "molecule/nfs_client/guests.py"), *command], check=True)


def apply(**variables: Any) -> Play:
    """Run the role on both guests."""
    begin = time.monotonic()
    done = subprocess.run(
        [
            "ansible-playbook",
            "--inventory=inventory/hosts.yml",
            f"--extra-vars={json.dumps(variables)}",
            "converge.yml",
        ],
        cwd=SCENARIO,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    return Play(done.returncode, done.stdout + done.stderr, time.monotonic() - begin)


def guest(name: str, address: str) -> Guest:
    options = f"-o UserKnownHostsFile={LAB}/known_hosts -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes"
    host = testinfra.get_host(
        f"ssh://root@{address}",
        ssh_identity_file=str(LAB / "id_ed25519"),
        ssh_extra_args=options,
        timeout=5,
        controlpersist=0,  # a master connection of before a reboot would hang
    )
    return Guest(name, host)
