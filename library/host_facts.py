#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: Gather what the roles ask a host, in one cheap call
description:
  - One call instead of M(ansible.builtin.setup), M(ansible.builtin.package_facts), M(ansible.builtin.service_facts) and
    a look at the mounts. The facts have the names and the shape of the stock ones, cut down to what the roles read.
  - Meant as C(facts_modules) in C(ansible.cfg), so that C(gather_facts) runs it. It takes no options; C(gather_facts)
    passes C(gather_subset), C(gather_timeout) and C(filter) to M(ansible.builtin.setup) alone.
  - It never looks at a mount point (a dead file server would hang that) and asks no network directory for groups.
attributes:
  check_mode:
    description: Reads only; runs the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
  facts:
    description: Returns facts.
    support: full
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Gather the host's facts
  host_facts:

- name: Install what is missing
  ansible.builtin.apt:
    name: "{{ wanted }}"
  when: wanted | packages_missing(ansible_facts) | length > 0
  vars:
    wanted: [docker.io, python3-docker]
"""

RETURN = r"""
ansible_facts:
  description: The host's facts.
  returned: always
  type: dict
  contains:
    ansible_distribution:
      description: Name of the distribution; also C(_version), C(_major_version) and C(_release) (its code name).
      type: str
      sample: Debian
    ansible_os_family:
      description: V(Debian), V(RedHat), or the distribution's name.
      type: str
    ansible_architecture:
      description: The machine's architecture.
      type: str
      sample: x86_64
    ansible_service_mgr:
      description: V(systemd) where it is PID 1.
      type: str
    ansible_pkg_mgr:
      description: V(apt), V(dnf) or V(unknown).
      type: str
    ansible_mounts:
      description: Mounts that hold data (no kernel file systems, no overlays), as in /proc/mounts, without sizes.
      type: list
      elements: dict
      sample: [{device: "files.example.com:/export", fstype: nfs4, mount: /mnt/shared, options: "rw,vers=4.2"}]
    packages:
      description:
        - Installed packages by name. An entry has C(hold=true) when dpkg or dnf's versionlock keeps it at its version.
      type: dict
      sample: {docker.io: [{version: 20.10.24+dfsg1-1+deb12u1}]}
    services:
      description: Loaded services. C(state) is C(running), C(active) (ran and ended well), C(failed) or C(stopped).
      type: dict
      sample: {docker.service: {state: running, status: enabled}}
    group_members:
      description: Members of the local groups that have any.
      type: dict
      sample: {docker: [deploy]}
    managed_units:
      description: Files in /etc/systemd/system that begin with C(# Managed by qianjiangyuan).
      type: list
      elements: str
      sample: [mnt-shared.mount]
"""

import os
import platform
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang import host
from ansible.module_utils.qianjiang.system_file import MARK

DPKG = ["dpkg-query", "--show", "--showformat=${db:Status-Want}\t${db:Status-Status}\t${Package}\t${Version}\n"]
RPM = ["rpm", "--query", "--all", "--queryformat=install\tinstalled\t%{NAME}\t%{VERSION}-%{RELEASE}\n"]
LOCKS = "/etc/dnf/plugins/versionlock.list"
# `show` with a pattern answers from the manager's memory (25 ms); list-unit-files reads every unit file (400 ms)
SYSTEMCTL = ["systemctl", "show", "*.service", "--property=Id,LoadState,ActiveState,SubState,UnitFileState"]
UNITS = Path("/etc/systemd/system")
UNIT_TYPES = {".automount", ".mount", ".service", ".timer"}
TIMEOUT = 20


def read(path: str) -> str:
    """The file's text, or nothing where there is no such file."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def start(command: list[str]) -> subprocess.Popen[str] | None:
    """Start a command whose answer is collected later, or nothing where the host has no such command."""
    try:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return None


def finish(process: subprocess.Popen[str] | None) -> str | None:
    """The command's output, or nothing where it failed or never ended."""
    if process is None:
        return None
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return output if process.returncode == 0 else None


def managed_units() -> list[str]:
    """Unit files that the project wrote, by their first line."""
    if not UNITS.is_dir():
        return []
    files = [file for file in UNITS.iterdir() if file.suffix in UNIT_TYPES and file.is_file()]
    return sorted(file.name for file in files if read(str(file)).startswith(MARK))


def gather() -> dict[str, object]:
    """All facts. A part that cannot be read is left out: the roles then ask the stock modules."""
    distribution = host.parse_os_release(read("/etc/os-release"))
    package_manager = {"Debian": "apt", "RedHat": "dnf"}.get(distribution["os_family"], "unknown")
    systemd = host.service_manager() == "systemd"
    packages_process = start(DPKG if package_manager == "apt" else RPM)
    services_process = start(SYSTEMCTL) if systemd else None
    stock: dict[str, object] = {
        **distribution,
        "architecture": platform.machine(),
        "hostname": platform.node().split(".")[0],
        "kernel": platform.release(),
        "mounts": host.parse_mounts(read("/proc/mounts")),
        "pkg_mgr": package_manager,
        "service_mgr": host.service_manager(),
    }
    facts: dict[str, object] = {f"ansible_{name}": value for name, value in stock.items()}
    facts["group_members"] = host.parse_groups(read("/etc/group"))
    facts["managed_units"] = managed_units()
    packages = finish(packages_process)
    if packages is not None:
        facts["packages"] = host.parse_packages(packages, host.parse_versionlock(read(LOCKS)))
    services = finish(services_process)
    if services is not None:
        facts["services"] = host.parse_services(services)
    return facts


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, ansible_facts=gather())


if __name__ == "__main__":
    main()
