# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NFS mounts as systemd units: what there shall be, what there is, what differs. Pure: touches nothing.

Units, not /etc/fstab: systemd bounds how long a mount or an unmount may take, and a unit is ours by its first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.qianjiang import system_file

Change = dict[str, Any]

MARK = f"{system_file.MARK} nfs_client"
NFS_TYPES = frozenset({"nfs", "nfs4"})
PLAIN = "expected an absolute path without spaces, .. or a / at its end"


@dataclass(frozen=True)
class Mount:
    """One entry of the list."""

    server: str
    export: str
    path: str
    options: tuple[str, ...]
    automount: bool = False
    present: bool = True
    timeout: int = 30

    @property
    def source(self) -> str:
        server = f"[{self.server}]" if ":" in self.server else self.server
        return f"{server}:{self.export}"

    @property
    def unit(self) -> str:
        return unit_name(self.path)

    @property
    def units(self) -> dict[str, str]:
        """Text of the unit files by name."""
        if not self.present:
            return {}
        wanted_by = ["", "[Install]", "WantedBy=remote-fs.target"]
        mount = [
            MARK,
            "[Unit]",
            f"Description=NFS {escape_value(self.source)}",
            "# Containers that the engine starts at boot must not write below an empty mount point",
            "Before=docker.service",
            "# A server that was away for long is tried again on the next access",
            "StartLimitIntervalSec=0",
            "",
            "[Mount]",
            f"What={escape_value(self.source)}",
            f"Where={escape_value(self.path)}",
            "Type=nfs",
            f"Options={escape_value(','.join(self.options))}",
            f"TimeoutSec={self.timeout}",
        ]
        if not self.automount:
            return {f"{self.unit}.mount": "\n".join([*mount, *wanted_by, ""])}
        automount = [MARK, "[Unit]", "Before=docker.service", "", "[Automount]", f"Where={escape_value(self.path)}"]
        return {
            f"{self.unit}.mount": "\n".join([*mount, ""]),
            f"{self.unit}.automount": "\n".join([*automount, *wanted_by, ""]),
        }

    @property
    def entry(self) -> str:
        """The unit that is enabled and started."""
        return f"{self.unit}.automount" if self.automount else f"{self.unit}.mount"


@dataclass(frozen=True)
class Mounted:
    """A line of /proc/<process>/mountinfo."""

    source: str
    path: str
    fstype: str
    number: str = ""
    parent: str = ""
    device: str = ""
    root: str = "/"  # the folder of its file system that is mounted
    shared: str = ""  # the number of its peer group: one's mounts and unmounts are the others' too
    master: str = ""  # the peer group that it follows in this, one way


@dataclass(frozen=True)
class Current:
    """What the host has."""

    units: dict[str, str] = field(default_factory=dict)  # ours, text by name
    enabled: frozenset[str] = frozenset()
    mounted: tuple[Mounted, ...] = ()
    fstab: str = ""
    idmapd: str = ""

    def top(self, path: str) -> Mounted | None:
        """What is mounted at the path; of several, the last line covers the others."""
        found = [mount for mount in self.mounted if mount.path == path]
        return found[-1] if found else None

    def at(self, path: str) -> Mounted | None:
        """The NFS mount at the path."""
        top = self.top(path)
        return top if top and top.fstype in NFS_TYPES else None

    def waits_at(self, path: str) -> bool:
        return any(mount.path == path and mount.fstype == "autofs" for mount in self.mounted)


def unit_name(path: str) -> str:
    """What systemd-escape --path makes of a path."""
    escaped = "".join(
        "-"
        if letter == "/"
        else letter
        if re.match(r"[A-Za-z0-9:_.]", letter)
        else "".join(f"\\x{b:02x}" for b in letter.encode())
        for letter in path.strip("/")
    )
    return "\\x2e" + escaped[1:] if escaped.startswith(".") else escaped


def escape_value(text: str) -> str:
    """systemd expands % in unit files."""
    return text.replace("%", "%%")


def setting(unit: str, name: str) -> str:
    """The value of a setting in a unit file's text."""
    match = re.search(rf"^{name}=(.*)$", unit, re.MULTILINE)
    return match[1].replace("%%", "%") if match else ""


def is_plain(path: str) -> bool:
    """Is the path as the kernel writes it in mountinfo? Another spelling would differ from it in every run."""
    return re.fullmatch(r"(/[^/\s]+)+", path) is not None and "/../" not in f"{path}/" and "/./" not in f"{path}/"


def errors(mounts: Iterable[dict[str, Any]]) -> list[str]:
    """What is wrong with the list, each with its path."""
    found = []
    seen: set[str] = set()
    for number, mount in enumerate(mounts):
        at = f"mounts[{number}]"
        path = mount["path"]
        if not is_plain(path):
            found.append(f"{at}.path: {PLAIN}, got {path!r}")
        if path in seen:
            found.append(f"{at}.path: {path} is in the list twice")
        seen.add(path)
        if mount.get("state") == "absent":
            continue
        if not re.fullmatch(r"[A-Za-z0-9.:_-]+", mount.get("server") or ""):
            found.append(f"{at}.server: expected a host name or an address, got {mount.get('server')!r}")
        if mount.get("export") != "/" and not is_plain(mount.get("export") or ""):
            found.append(f"{at}.export: {PLAIN}, got {mount.get('export')!r}")
        wrong = [option for option in mount.get("options") or [] if not re.fullmatch(r"[^\s,]+", option)]
        if wrong:
            found.append(f"{at}.options: expected a list with one option in each entry, got {wrong[0]!r}")
    return found


def with_strays(mounts: list[Mount], current: Current) -> list[Mount]:
    """The list, and as absent what our units mount at paths that it does not name."""
    named = {mount.path for mount in mounts}
    strays = sorted({setting(text, "Where") for text in current.units.values()} - named)
    return [*mounts, *(Mount("", "", path, (), present=False) for path in strays)]


def plan(mounts: list[Mount], current: Current, domain: str = "") -> list[Change]:
    """What differs, by path, and what is mounted again as it is below a mount that goes."""
    changes: list[Change] = []
    mounts = with_strays(mounts, current)
    for mount in mounts:
        changes += plan_mount(mount, current)
    for mount in reversed(going(mounts, current)):
        if mount.present and not must_unmount(mount, current):
            changes.append({"name": f"{mount.path} remounted", "path": mount.path, "before": False, "after": True})
    if domain and idmapd_with(current.idmapd, domain) != current.idmapd:
        changes.append(
            {"name": "idmapd domain", "path": None, "before": idmapd_domain(current.idmapd), "after": domain}
        )
    return changes


def plan_mount(mount: Mount, current: Current) -> list[Change]:
    """What differs for one path."""
    changes: list[Change] = []

    def compare(name: str, before: Any, after: Any) -> None:
        if before != after:
            changes.append({"name": f"{mount.path} {name}", "path": mount.path, "before": before, "after": after})

    names = [f"{mount.unit}.mount", f"{mount.unit}.automount"]
    before = {name: current.units[name] for name in names if name in current.units}
    if before != mount.units:
        compare("unit", describe(before), describe(mount.units))
        if not changes:  # a difference beside source, options and automount
            compare("unit", "another text", "rewritten")
    compare("in fstab", fstab_without(current.fstab, mount.path) != current.fstab, False)
    found = current.at(mount.path)
    if not mount.present:
        compare("mounted", found.source if found else None, None)
        return changes
    compare("enabled", mount.entry in current.enabled, True)
    if mount.automount:
        compare("automount", current.waits_at(mount.path), True)
    if found or not mount.automount:
        compare("mounted", found.source if found else None, mount.source)
    return changes


def must_unmount(mount: Mount, current: Current) -> bool:
    """Does the mount go away, or come back with another source or other options? NFS takes neither in a remount."""
    found = current.at(mount.path)
    if not mount.present:
        return found is not None or current.waits_at(mount.path)
    before = {name: text for name, text in current.units.items() if name.startswith(f"{mount.unit}.")}
    differs = describe(before) != describe(mount.units)
    return (found is not None and (differs or found.source != mount.source)) or (
        differs and current.waits_at(mount.path)
    )


def is_below(path: str, outer: str) -> bool:
    return path.startswith(f"{outer}/")


def is_there(mount: Mount, current: Current) -> bool:
    return current.at(mount.path) is not None or current.waits_at(mount.path)


def going(mounts: list[Mount], current: Current) -> list[Mount]:
    """Those that are unmounted, the inner before the outer: what goes, and what is below that or below what comes."""
    leaving = {mount.path for mount in mounts if plan_mount(mount, current) and must_unmount(mount, current)}
    coming = {mount.path for mount in mounts if mount.present and not is_there(mount, current)}

    def goes(mount: Mount) -> bool:
        return mount.path in leaving or any(is_below(mount.path, outer) for outer in leaving | coming)

    there = [mount for mount in mounts if is_there(mount, current)]
    return sorted(filter(goes, there), key=lambda mount: mount.path, reverse=True)


def describe(units: dict[str, str]) -> str | None:
    """A mount's units in one line."""
    for name, text in units.items():
        if name.endswith(".mount"):
            automount = ", automount" if len(units) > 1 else ""
            return f"{setting(text, 'What')} ({setting(text, 'Options')}{automount})"
    return None


def parse_mounts(text: str) -> tuple[Mounted, ...]:
    """mountinfo. It is all that tells what is mounted: looking at the path of a dead server would hang."""
    mounts = []
    for line in filter(None, text.split("\n")):
        mount, _, system = line.partition(" - ")
        number, parent, device, root, path, _, *optional = map(unescape, mount.split(" "))
        fstype, source = map(unescape, system.split(" ")[:2])
        tags = dict(tag.split(":", 1) for tag in optional if ":" in tag)
        groups = tags.get("shared", ""), tags.get("master", "")
        mounts.append(Mounted(source, path, fstype, number, parent, device, root, *groups))
    return tuple(mounts)


def unescape(word: str) -> str:
    """A word of mountinfo, where white space is an octal number."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


def keeps(theirs: Iterable[Mounted], gone: Mounted, ours: Iterable[Mounted]) -> bool:
    """Does another mount namespace keep what ours unmounts? Containers do; services of systemd follow the host."""
    their_number, our_number = ({mount.number: mount for mount in mounts} for mounts in (theirs, ours))
    # An export that is mounted at two places has one device: each copy follows its own place
    alike = [mount for mount in our_number.values() if mount.device == gone.device]
    for mount in their_number.values():
        # The mount itself or a folder of it: another export of the server may be on the same device
        same = mount.device == gone.device and f"{mount.source}/".startswith(f"{gone.source.rstrip('/')}/")
        its_parent = their_number.get(mount.parent)
        if same and not any(follows(mount, its_parent, one, our_number.get(one.parent)) for one in alike):
            return True
    return False


def follows(mount: Mounted, its_parent: Mounted | None, gone: Mounted, parent: Mounted | None) -> bool:
    """Does the kernel unmount it with the other one? So it does at the same place, where its parent gets the events."""
    if not parent or not its_parent or not parent.shared:
        return False
    return parent.shared in {its_parent.shared, its_parent.master} and place(mount, its_parent) == place(gone, parent)


def place(mount: Mounted, parent: Mounted) -> str:
    """Where the mount is in the file system of its parent."""
    return f"{parent.root.rstrip('/')}/{mount.path.removeprefix(parent.path).lstrip('/')}"


def fstab_without(text: str, path: str) -> str:
    """fstab without NFS at the path: two descriptions of one mount would be one too many."""
    return "".join(
        line
        for line in text.splitlines(keepends=True)
        if not (
            len(words := line.split()) >= 3
            and not line.lstrip().startswith("#")
            and words[1] == path
            and words[2] in NFS_TYPES
        )
    )


def idmapd_domain(text: str) -> str | None:
    match = re.search(r"^\s*Domain\s*=\s*(\S+)", text, re.MULTILINE)
    return match[1] if match else None


def idmapd_with(text: str, domain: str) -> str:
    """idmapd.conf with the domain."""
    if idmapd_domain(text) == domain:
        return text
    if idmapd_domain(text):
        return re.sub(r"^\s*Domain\s*=.*$", f"Domain = {domain}", text, count=1, flags=re.MULTILINE)
    if re.search(r"^\[General\]\s*$", text, re.MULTILINE):
        return re.sub(r"^\[General\]\s*$", f"[General]\nDomain = {domain}", text, count=1, flags=re.MULTILINE)
    return f"[General]\nDomain = {domain}\n\n{text}"
