#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_configure
short_description: Bring the NFS mounts of a host to the desired list, never hanging on a server
description:
  - Writes a systemd unit for each mount, enables and starts it; stops and removes the units of earlier lists.
  - What is mounted is read from C(/proc) alone. Looking at the mount point, as M(ansible.posix.mount) does, hangs for
    as long as the server of a hard mount is dead. Mounting and unmounting run at the same time for all
    mounts and are given up after O(timeout) seconds.
  - A mount that is right is not touched, whether its server answers or not. But one below a path that is unmounted, or
    newly mounted, is unmounted before, and mounted again, also where the new one does not come up.
  - A container that has the mount keeps it when the host unmounts it, and would go on with the old file system. So the
    mount counts as busy until the container ends.
  - So it does while a unit runs that requires it (C(RequiresMountsFor)). systemd would stop the unit with
    the mount, and nobody would start it again.
  - Lines of C(/etc/fstab) for NFS at a path of the list are removed.
  - A path where something else than NFS is mounted, or that leads through a symbolic link, is an error, and nothing is
    changed.
options:
  mounts:
    description: All NFS mounts of the host. Those that this module made earlier and that the list lacks are removed.
    type: list
    elements: dict
    default: []
    suboptions:
      server:
        description: Name or address of the server. Required unless O(mounts[].state=absent).
        type: str
      export:
        description:
          - What the server exports, an absolute path without C(..) or a C(/) at its end.
          - Required unless O(mounts[].state=absent).
        type: str
      path:
        description: Where it is mounted. systemd makes the directory.
        type: path
        required: true
      options:
        description: Options of the mount.
        type: list
        elements: str
        default: []
      automount:
        description:
          - Mount on the first access instead of at boot. The host then boots at once without the server, and gets the
            mount when the server is back.
        type: bool
        default: false
      state:
        description: V(absent) unmounts and removes.
        type: str
        choices: [present, absent]
        default: present
  idmap_domain:
    description: NFSv4 domain for C(/etc/idmapd.conf). Empty leaves the file alone.
    type: str
    default: ""
  lazy_unmount:
    description:
      - Detach a mount that is busy, or whose server is dead. Programs that use it keep what they have open; what they
        have not written yet may be lost.
      - Units that require the mount are stopped, and not started again.
    type: bool
    default: false
  timeout:
    description: Seconds a mount or an unmount may take.
    type: int
    default: 30
attributes:
  check_mode:
    description: The plan is the same as without check mode; nothing is changed.
    support: full
  diff_mode:
    description: Each difference by the mount's path.
    support: full
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Mount the shared folder
  nfs_configure:
    mounts:
      - server: files.example.com
        export: /export/models
        path: /mnt/models
        options: [vers=4.2, hard, nodev, nosuid]
"""

RETURN = r"""
changes:
  description: What differed, by path.
  returned: always
  type: list
  elements: dict
  sample: [{name: /mnt/models mounted, path: /mnt/models, before: null, after: "files.example.com:/export/models"}]
"""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang import durable, nfs_mounts, systemd
from ansible.module_utils.qianjiang.change import difference
from ansible.module_utils.qianjiang.nfs_mounts import Current, Mount

ROOT = Path("/")
UNITS = Path("etc/systemd/system")
WANTS = UNITS / "remote-fs.target.wants"
FSTAB = Path("etc/fstab")
IDMAPD = Path("etc/idmapd.conf")
MOUNTS = Path("proc/self/mountinfo")


def read() -> Current:
    """What the host has, without a look at any mount point."""
    files = [file for kind in ("*.mount", "*.automount") for file in (ROOT / UNITS).glob(kind) if file.is_file()]
    texts = {file.name: file.read_text(encoding="utf-8", errors="replace") for file in files}
    wants = ROOT / WANTS
    return Current(
        units={name: text for name, text in texts.items() if text.startswith(nfs_mounts.MARK)},
        enabled=frozenset(os.listdir(wants) if wants.is_dir() else []),  # noqa: PTH208
        mounted=nfs_mounts.parse_mounts(durable.read_text(ROOT / MOUNTS) or ""),
        fstab=durable.read_text(ROOT / FSTAB) or "",
        idmapd=durable.read_text(ROOT / IDMAPD) or "",
    )


def refusals(mounts: list[Mount], current: Current) -> list[str]:
    """Paths where systemd would mount nothing, or at the next boot in place of what is there, with the reason."""
    found = []
    for mount in mounts:
        top = current.top(mount.path)
        if top and top.fstype not in {*nfs_mounts.NFS_TYPES, "autofs"}:
            hint = "Unmount it and take it out of /etc/fstab, or name another path"
            found.append(f"{mount.path}: {top.source} ({top.fstype}) is mounted there. {hint}")
        link = symlink_in(mount.path, current)
        if link:
            hint = "systemd mounts nothing through one. Name the real path"
            found.append(f"{mount.path}: {link} is a symbolic link: {hint}")
    return found


def symlink_in(path: str, current: Current) -> str | None:
    """The first symbolic link on the way to the path. NFS is not looked into: its server may be dead."""
    for folder in (*reversed(Path(path).parents), Path(path)):
        if current.at(str(folder)) or current.waits_at(str(folder)):
            return None
        if (ROOT / str(folder).lstrip("/")).is_symlink():
            return str(folder)
    return None


def programs(uses: Callable[[Path], bool]) -> list[str]:
    """Programs of which that is true, asked with the process's folder in /proc."""
    found = []
    for process in sorted(int(name) for name in os.listdir(ROOT / "proc") if name.isdigit()):  # noqa: PTH208
        folder = ROOT / "proc" / str(process)
        try:
            if uses(folder):
                found.append(f"{(folder / 'comm').read_text().strip()} ({process})")
        except OSError:
            continue  # it ended, or is the kernel's
    return found


def users(path: str) -> list[str]:
    """Programs that have something open in the mount."""

    def uses(folder: Path) -> bool:
        links = [folder / "cwd", folder / "root", *(folder / "fd").iterdir()]
        return any(f"{link.readlink()}/".startswith(f"{path}/") for link in links)

    return programs(uses)


def keepers(path: str, current: Current) -> list[str]:
    """Programs, of containers mostly, whose mount namespace keeps the mount when it is unmounted here."""
    gone = current.at(path)
    if gone is None:
        return []
    known = {(ROOT / "proc/self/ns/mnt").readlink(): False}

    def uses(folder: Path) -> bool:
        namespace = (folder / "ns/mnt").readlink()
        if namespace not in known:
            theirs = nfs_mounts.parse_mounts(durable.read_text(folder / "mountinfo") or "")
            known[namespace] = nfs_mounts.keeps(theirs, gone, current.mounted)
        return known[namespace]

    return programs(uses)


def in_use(mounts: list[Mount], current: Current) -> dict[str, str]:
    """Those that would be taken away from somebody without a complaint of the kernel, with who it is."""
    reasons: dict[str, str] = {}
    going = nfs_mounts.going(mounts, current)
    back_again = {unit for mount in going for unit in names(mount)}
    for mount in going:
        inner = [path for path in reasons if nfs_mounts.is_below(path, mount.path)]
        units = [unit for unit in systemd.stopped_with(*names(mount)) if unit not in back_again]
        found = inner or [*keepers(mount.path, current), *units]
        if found:
            reasons[mount.path] = f"used by {', '.join(found)}"
    return reasons


def names(mount: Mount) -> list[str]:
    return [f"{mount.unit}.automount", f"{mount.unit}.mount"]


def unmount(mounts: list[Mount], current: Current, lazy: bool, timeout: int) -> dict[str, str]:
    """Stop side by side those that have to go. Those that cannot be stopped, with the reason."""
    reasons = {} if lazy else in_use(mounts, current)
    going = nfs_mounts.going([mount for mount in mounts if mount.path not in reasons], current)
    if going:
        systemd.run(["systemctl", "stop", "--no-block", *(unit for mount in going for unit in names(mount))])
    deadline = time.monotonic() + timeout + 2
    for mount in going:
        path = mount.path
        idle = systemd.wait_until(lambda unit=mount.unit: not working(f"{unit}.mount"), deadline)
        if read().at(path) is None:
            continue
        if lazy:
            systemd.run(["umount", "--no-canonicalize", "--lazy", "--force", path], 5)
            if read().at(path) is None:
                continue
        busy = users(path)
        reason = f"used by {', '.join(busy)}" if busy else "the mount is busy" if idle else "the server does not answer"
        reasons[path] = reason
    failed = {
        path: f"{path}: cannot be unmounted: {reason}. End what uses it, or set lazy_unmount"
        for path, reason in reasons.items()
    }
    for mount in mounts:
        hidden = [path for path in reasons if nfs_mounts.is_below(path, mount.path)]
        if hidden and not nfs_mounts.is_there(mount, current):
            failed[mount.path] = f"{mount.path}: not mounted: it would hide {', '.join(hidden)}"
    return failed


def working(unit: str) -> bool:
    """Is systemd still starting or stopping the unit?"""
    state = systemd.show(unit, "ActiveState", "Job")
    return state.get("ActiveState") in {"activating", "deactivating"} or state.get("Job", "0") not in {"", "0"}


def write(mounts: list[Mount], current: Current) -> None:
    """Put the unit files and what points to them to rights."""
    for mount in mounts:
        for name in (f"{mount.unit}.mount", f"{mount.unit}.automount"):
            file = ROOT / UNITS / name
            text = mount.units.get(name)
            if text is None:
                # The unit file last: it is what a run after a killed one knows the rest by
                (ROOT / WANTS / name).unlink(missing_ok=True)
                if name in current.units:
                    file.unlink(missing_ok=True)
            elif current.units.get(name) != text:
                durable.replace(file, text)
        if mount.present:
            for name in set(mount.units) - {mount.entry}:
                (ROOT / WANTS / name).unlink(missing_ok=True)
    fstab = current.fstab
    for mount in mounts:
        fstab = nfs_mounts.fstab_without(fstab, mount.path)
    if fstab != current.fstab:
        durable.replace(ROOT / FSTAB, fstab)
    systemd.run(["systemctl", "daemon-reload"])
    entries = [mount.entry for mount in mounts if mount.present]
    if entries:
        systemd.run(["systemctl", "enable", *entries])


def start(mounts: list[Mount], timeout: int) -> dict[str, str]:
    """Start the mounts side by side. Those that do not come up, with the reason."""
    mounts = [mount for mount in mounts if mount.present]
    if not mounts:
        return {}
    begin = time.time()
    systemd.run(["systemctl", "reset-failed", *(mount.entry for mount in mounts)])
    systemd.run(["systemctl", "start", "--no-block", *(mount.entry for mount in mounts)])
    deadline = time.monotonic() + timeout + 5
    failed = {}
    for mount in mounts:
        systemd.wait_until(lambda entry=mount.entry: not working(entry), deadline)
        now = read()
        if now.waits_at(mount.path) if mount.automount else now.at(mount.path):
            continue
        said = systemd.journal(f"{mount.unit}.mount", begin)
        failed[mount.path] = f"{mount.path}: {mount.source} is not mounted: " + (
            said[-1] if said else f"no answer from {mount.server} within {timeout} s"
        )
    return failed


def apply(mounts: list[Mount], current: Current, lazy: bool, timeout: int) -> list[str]:
    """Unmount what goes or changes, write the units, mount the rest. One that fails does not stop the others."""
    failed = unmount(mounts, current, lazy, timeout)
    rest = [mount for mount in mounts if mount.path not in failed]
    write(rest, current)
    failed |= start(rest, timeout)
    failed |= give_back([mount for mount in rest if mount.path in failed], rest, current, timeout)
    for mount in rest:
        if not mount.present:
            systemd.run(["rmdir", "--ignore-fail-on-non-empty", mount.path], 5)
    return [reason for reason in failed.values() if reason]


def give_back(lost: list[Mount], mounts: list[Mount], current: Current, timeout: int) -> dict[str, str]:
    """Where a new mount did not come up, take its units away and mount again what had to make room for it below.

    What is below requires it, to systemd. The reasons for those below: nothing where it is mounted again.
    """
    were = nfs_mounts.going(mounts, current)
    new = {
        mount: [inner for inner in were if inner.present and nfs_mounts.is_below(inner.path, mount.path)]
        for mount in lost
        if not nfs_mounts.is_there(mount, current)
    }
    back = [inner for below in new.values() for inner in below]
    if not back:
        return {}
    write([dataclasses.replace(mount, present=False) for mount, below in new.items() if below], read())
    return dict.fromkeys((inner.path for inner in back), "") | start(back, timeout)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "mounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "server": {"type": "str"},
                    "export": {"type": "str"},
                    "path": {"type": "path", "required": True},
                    "options": {"type": "list", "elements": "str", "default": []},
                    "automount": {"type": "bool", "default": False},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                },
            },
            "idmap_domain": {"type": "str", "default": ""},
            "lazy_unmount": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    wrong = nfs_mounts.errors(parameters["mounts"])
    if wrong:
        module.fail_json(msg="; ".join(wrong))
    mounts = [
        Mount(
            server=entry["server"] or "",
            export=entry["export"] or "",
            path=entry["path"],
            options=tuple(entry["options"]),
            automount=entry["automount"],
            present=entry["state"] == "present",
            timeout=parameters["timeout"],
        )
        for entry in parameters["mounts"]
    ]
    current = read()
    wrong = refusals([mount for mount in mounts if mount.present], current)
    if wrong:
        module.fail_json(msg="; ".join(wrong))
    changes = nfs_mounts.plan(mounts, current, parameters["idmap_domain"])
    touched = {change["path"] for change in changes if change["path"]}
    if changes and not module.check_mode:
        todo = [mount for mount in nfs_mounts.with_strays(mounts, current) if mount.path in touched]
        todo.sort(key=lambda mount: mount.path)  # the outer before what is below it
        failed = apply(todo, current, parameters["lazy_unmount"], parameters["timeout"]) if todo else []
        if any(change["name"] == "idmapd domain" for change in changes):
            durable.replace(ROOT / IDMAPD, nfs_mounts.idmapd_with(current.idmapd, parameters["idmap_domain"]))
            # The kernel remembers names of the old domain, where there was an NFS client
            nfsidmap = module.get_bin_path("nfsidmap")
            if nfsidmap:
                systemd.run([nfsidmap, "-c"])
        if failed:
            module.fail_json(msg="; ".join(failed), changes=changes)
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        diff=difference(changes),
    )


if __name__ == "__main__":
    main()
