# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says about itself, parsed into the shape of Ansible's stock facts."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]

# ID (or a word of ID_LIKE) in /etc/os-release → ansible's distribution and os_family. The first that is known decides.
DISTRIBUTIONS = {
    "almalinux": "AlmaLinux",
    "amzn": "Amazon",
    "centos": "CentOS",
    "debian": "Debian",
    "fedora": "Fedora",
    "ol": "OracleLinux",
    "raspbian": "Debian",
    "rhel": "RedHat",
    "rocky": "Rocky",
    "ubuntu": "Ubuntu",
}
FAMILIES = {"Debian": "Debian", "Ubuntu": "Debian"}

# Mounts of these types are the kernel's own or a container's: hundreds on a node, and no role asks for them.
# fmt: off
PSEUDO_FILESYSTEMS = {
    "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
    "fusectl", "fuse.lxcfs", "hugetlbfs", "mqueue", "nsfs", "overlay", "proc", "pstore", "ramfs", "rpc_pipefs",
    "securityfs", "selinuxfs", "sysfs", "tmpfs", "tracefs",
}
# fmt: on

# systemd's UnitFileState values that mean "starts by itself" (static units are started by others and cannot be enabled)
STARTS_AT_BOOT = frozenset({"alias", "enabled", "enabled-runtime", "generated", "static"})


def parse_os_release(text: str) -> dict[str, str]:
    """The distribution's facts from /etc/os-release."""
    fields = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            fields[key] = "".join(shlex.split(value))
    known = [word for word in [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()] if word in DISTRIBUTIONS]
    distribution = DISTRIBUTIONS[known[0]] if known else fields.get("NAME", "NA")
    version = fields.get("VERSION_ID", "NA")
    return {
        "distribution": distribution,
        "distribution_version": version,
        "distribution_major_version": version.split(".")[0],
        "distribution_release": fields.get("VERSION_CODENAME") or fields.get("UBUNTU_CODENAME") or "NA",
        "os_family": FAMILIES.get(distribution, "RedHat" if known else distribution),
    }


def parse_versionlock(text: str) -> set[str]:
    """Names of the packages that dnf's versionlock.list keeps at a version: lines `name-epoch:version-release.*`."""
    return set(re.findall(r"^([^#!\n].*)-\d+:[^-\n]+-[^-\n]+$", text, re.MULTILINE))


def parse_packages(text: str, locked: Container[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """Installed packages from lines `want, status, name, version`, as dpkg-query (or rpm) is asked to print them."""
    packages: dict[str, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        want, status, name, version = line.split("\t")
        if status != "installed":
            continue
        package: dict[str, Any] = {"version": version}
        if want == "hold" or name in locked:
            package["hold"] = True
        packages.setdefault(name, []).append(package)
    return packages


def parse_services(text: str) -> dict[str, dict[str, str]]:
    """Loaded services from `systemctl show '*.service' --property=Id,LoadState,ActiveState,SubState,UnitFileState`."""
    services = {}
    for block in text.strip().split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit.get("LoadState") != "loaded":
            continue
        state = "running" if unit["SubState"] == "running" else "stopped"
        if unit["ActiveState"] in {"failed", "active"} and state != "running":
            state = unit["ActiveState"]
        services[unit["Id"]] = {"state": state, "status": unit.get("UnitFileState") or "unknown"}
    return services


def unescape_mount(text: str) -> str:
    """/proc/mounts writes space, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def parse_mounts(text: str) -> list[dict[str, str]]:
    """Mounts that hold data, from /proc/mounts alone: a look at the mount point of a dead server would hang."""
    mounts = []
    for line in text.splitlines():
        device, path, fstype, options = line.split(" ")[:4]
        if fstype not in PSEUDO_FILESYSTEMS:
            mounts.append(
                {
                    "device": unescape_mount(device),
                    "mount": unescape_mount(path),
                    "fstype": fstype,
                    "options": options,
                }
            )
    return mounts


def parse_groups(text: str) -> dict[str, list[str]]:
    """Members of the local groups that have any, from /etc/group."""
    groups = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) == 4 and fields[3]:
            groups[fields[0]] = fields[3].split(",")
    return groups


def packages_missing(names: Iterable[str], facts: Facts) -> list[str]:
    """Those of `names` (`name` or `name=version`, where * matches anything) that the host does not have."""
    installed = facts.get("packages", {})
    missing = []
    for wanted in names:
        name, _, version = wanted.partition("=")
        versions = [package["version"] for package in installed.get(name, [])]
        if not any(fnmatch.fnmatchcase(found, version or "*") for found in versions):
            missing.append(wanted)
    return missing


def packages_held(names: Iterable[str], facts: Facts) -> list[str]:
    """Those of `names` that the package manager is told to leave at their version."""
    installed = facts.get("packages", {})
    return [
        name
        for name in (wanted.partition("=")[0] for wanted in names)
        if any(p.get("hold") for p in installed.get(name, []))
    ]


def service_running(facts: Facts, name: str) -> bool:
    """Is the service running, and will it run after a boot?"""
    unit = name if name.endswith(".service") else f"{name}.service"
    service = facts.get("services", {}).get(unit, {})
    return service.get("state") == "running" and service.get("status") in STARTS_AT_BOOT


def users_outside_group(users: Iterable[str], facts: Facts, group: str) -> list[str]:
    """Those of `users` who are not members of the group."""
    members = facts.get("group_members", {}).get(group, [])
    return [user for user in users if user not in members]


def service_manager(root: Path = Path("/")) -> str:
    """Ansible's service_mgr: systemd where it is PID 1, else what can start a service here."""
    if (root / "run/systemd/system").is_dir():
        return "systemd"
    if (root / "sbin/openrc").exists():
        return "openrc"
    return "sysvinit" if (root / "etc/init.d").is_dir() else "service"
