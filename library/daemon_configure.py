#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_configure
short_description: Install the files of a daemon and say whether it must be restarted or reloaded
description:
  - Installs all the files that a systemd unit reads in one call. Where one changes, or the unit has not read one yet,
    all are validated first, as the daemon reads them together; only then are they replaced, each in one step.
  - Tells in RV(action) what the unit needs. A unit that started before one of its files changed needs it too, so a run
    that was killed between installing a file and restarting the daemon is made good by the next one. So is a reload
    that failed.
  - A unit that runs with somebody else's file keeps it, and the module fails. Such a file is one without the words
    C(Managed by qianjiangyuan), where the new text has them. What a Debian package brought is nobody's, as long as
    nobody has changed it.
  - Restarts nothing itself. That is for a handler, which looks at RV(action).
attributes:
  check_mode:
    description: Compares and validates, installs nothing.
    support: full
  diff_mode:
    description: Shows each file's access and, unless it is secret, its text, before and after.
    support: full
options:
  unit:
    description: The systemd unit, with its suffix.
    type: str
    required: true
  files:
    description: The files that the unit reads.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path. Missing parent directories are made, with mode V(0755).
        type: path
        required: true
      content:
        description: The whole text. Without it the file is another's, such as a certificate, and only its age counts.
        type: str
      secret_content:
        description: As O(files[].content), for a text that holds a secret. Neither difference nor log shows it.
        type: str
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      mode:
        description: Permissions, as an octal number in quotes.
        type: str
        default: "0644"
      apply:
        description: What makes the daemon use a new text of this file.
        type: str
        choices: [nothing, reload, restart]
        default: restart
      validate:
        description:
          - A command, as a list, that exits with 0 when the new text is right. C(%s) in it is the new text's path, or
            that of the file where O(files[].content) is left out.
          - Left out in check mode where its program or a file without O(files[].content) is not there yet.
        type: list
        elements: str
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Configure HAProxy
  daemon_configure:
    unit: haproxy.service
    files:
      - path: /etc/haproxy/haproxy.cfg
        content: "{{ lookup('ansible.builtin.template', 'haproxy.cfg.j2') }}"
        apply: reload
        validate: [haproxy, -c, -f, "%s"]
      - path: /etc/qianjiang/tls/server.crt
        apply: reload
  register: gateway_configuration
  notify: Reload HAProxy
"""

RETURN = r"""
action:
  description: What the running unit needs, V(restart), V(reload) or V(nothing). A unit that does not run needs nothing.
  returned: always
  type: str
  sample: reload
files:
  description: Paths of the files that were (in check mode, would be) replaced.
  returned: always
  type: list
  elements: str
  sample: [/etc/haproxy/haproxy.cfg]
stale:
  description: Paths of the files that changed after the unit last read them. They make the result changed as well.
  returned: always
  type: list
  elements: str
  sample: []
"""

import hashlib
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang import system_file
from ansible.module_utils.qianjiang.system_file import MARK, SystemFile

WEIGHT = ["nothing", "reload", "restart"]
TIMEOUT = 60


def plan(desired: dict[str, SystemFile], current: dict[str, SystemFile | None]) -> list[dict[str, Any]]:
    """The files that differ, in the order given."""
    return [
        {"name": path, "before": current[path], "after": file}
        for path, file in desired.items()
        if current[path] != file
    ]


def foreign(changes: list[dict[str, Any]], packaged: Callable[[], str]) -> list[str]:
    """The files of somebody else's that a text of ours would take the place of.

    `packaged` gives what dpkg knows of packages' configuration files, a line each: path, MD5. As a package brought it,
    a file is nobody's: its unit runs with it after a boot between the package's installation and the configuration.
    """
    others = {
        change["name"]: change["before"].content
        for change in changes
        if change["before"] and MARK in change["after"].content and MARK not in change["before"].content
    }
    if not others:
        return []
    sums = dict(line.split()[:2] for line in packaged().splitlines() if len(line.split()) > 1)
    return [path for path, content in others.items() if sums.get(path) != _md5(content)]


def _md5(content: str) -> str:
    return hashlib.md5(content.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()


def packages_files(module: AnsibleModule) -> str:
    """The configuration files of all Debian packages; nothing where there is no dpkg."""
    if not module.get_bin_path("dpkg-query"):
        return ""
    command = ["dpkg-query", "--show", "--showformat=${Conffiles}\\n"]
    return str(module.run_command(command, expand_user_and_vars=False)[1])


def modified_at(path: Path) -> float:
    """When the file last changed. cp -p and rsync -t keep a text's time; the status has its own."""
    status = path.stat()
    return max(status.st_mtime, status.st_ctime)


def stale_files(
    applies: dict[str, str], modified: dict[str, float], read_at: dict[str, float], now: float
) -> list[str]:
    """Files that changed after the unit last did what makes it read them. A time in the future is a clock's error."""
    return [
        path
        for path, apply in applies.items()
        if apply in read_at and path in modified and read_at[apply] < modified[path] <= now
    ]


def action(paths: list[str], applies: dict[str, str], active: bool) -> str:
    """The strongest of what the files need; a unit that does not run reads them when it starts."""
    return max((applies[path] for path in paths), key=WEIGHT.index, default="nothing") if active else "nothing"


def unit_times(module: AnsibleModule, unit: str) -> dict[str, float]:
    """When the unit last started, and last reloaded or started (seconds since the epoch); nothing where it is down.

    A reload that failed moves the state's time as well, and what ran goes on: since the start nothing counts as read.
    """
    properties = "ActiveState,ReloadResult,ActiveEnterTimestampMonotonic,StateChangeTimestampMonotonic"
    _, output, _ = module.run_command(["systemctl", "show", unit, f"--property={properties}"])
    shown = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if shown.get("ActiveState") not in ("active", "reloading"):
        return {}
    boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    reloaded = shown.get("ReloadResult", "success") == "success"
    return {
        "restart": boot + int(shown["ActiveEnterTimestampMonotonic"]) / 1e6,
        "reload": boot + int(shown[f"{'StateChange' if reloaded else 'ActiveEnter'}TimestampMonotonic"]) / 1e6,
    }


def validate(module: AnsibleModule, path: str, content: str | None, command: list[str]) -> None:
    """Fail the module unless the command accepts the text, or the file as it is."""
    with tempfile.NamedTemporaryFile("w", prefix=f"{Path(path).name}.", encoding="utf-8") as candidate:
        candidate.write(content or "")
        candidate.flush()
        argv = [part.replace("%s", path if content is None else candidate.name) for part in command]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            module.fail_json(
                msg=f"{path}: {argv[0]} did not finish checking the new text in {TIMEOUT} s; nothing was changed"
            )
        said = (done.stdout + done.stderr).strip().replace(candidate.name, path)
        if done.returncode != 0:
            module.fail_json(msg=f"{path}: refused (exit code {done.returncode}), nothing was changed:\n{said}")


def describe(path: str, before: SystemFile | None, after: SystemFile, *, secret: bool) -> dict[str, str]:
    """One file's part of the diff; a line about access only where that changes."""
    access = before is None or before.access != after.access
    old, new = before.content if before else "", after.content
    if secret and old != new:
        old, new = "secret\n" if before else "", "another secret\n"
    return {
        "before_header": f"{path} ({before.access})" if access and before else path,
        "after_header": f"{path} ({after.access})" if access else path,
        "before": old,
        "after": new,
    }


def options() -> dict[str, Any]:
    return {
        "path": {"type": "path", "required": True},
        "content": {"type": "str"},
        "secret_content": {"type": "str", "no_log": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str", "default": "0644"},
        "apply": {"type": "str", "choices": WEIGHT, "default": "restart"},
        "validate": {"type": "list", "elements": "str"},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": options(),
                "mutually_exclusive": [["content", "secret_content"]],
            },
        },
        supports_check_mode=True,
    )
    files: dict[str, dict[str, Any]] = {file["path"]: file for file in module.params["files"]}
    secret = {path for path, file in files.items() if file["secret_content"] is not None}
    for path in secret:
        files[path]["content"] = files[path]["secret_content"]
    applies = {path: file["apply"] for path, file in files.items()}
    ours = {path: file for path, file in files.items() if file["content"] is not None}
    try:
        desired = {
            path: SystemFile(file["content"], file["owner"], file["group"], int(file["mode"], 8))
            for path, file in ours.items()
        }
    except ValueError:
        module.fail_json(msg='files: each "mode" must be an octal number in quotes, such as "0644"')
    changes = plan(desired, {path: system_file.read(path) for path in desired})
    changed_paths = [change["name"] for change in changes]
    read_at = unit_times(module, module.params["unit"])
    modified = {path: modified_at(Path(path)) for path in files if Path(path).exists()}
    stale = stale_files(applies, modified, read_at, time.time())
    commands = {path: file["validate"] for path, file in files.items() if file["validate"] and (changes or stale)}
    lacking = [path for path in files if path not in ours and not Path(path).exists()]
    lacking += sorted({command[0] for command in commands.values() if not module.get_bin_path(command[0])})
    if not lacking:
        for path, command in commands.items():
            validate(module, path, files[path]["content"], command)
    theirs = foreign(changes, lambda: packages_files(module)) if read_at else []
    if theirs:
        module.fail_json(
            msg=f"{', '.join(theirs)}: somebody else's, and {module.params['unit']} runs with it; nothing was changed. "
            "Take another host for this, or stop the unit and remove the file once nobody needs it"
        )
    if not module.check_mode:
        if lacking:
            module.fail_json(msg=f"missing on this host: {', '.join(lacking)}; provide it first; nothing was changed")
        for change in changes:
            try:
                system_file.write(change["name"], change["after"])
            except (LookupError, OSError) as error:
                module.fail_json(msg=f"cannot install {error}")
    module.exit_json(
        changed=bool(changes or stale),
        action=action(changed_paths + stale, applies, bool(read_at)),
        files=changed_paths,
        stale=stale,
        diff=[
            describe(path := change["name"], change["before"], change["after"], secret=path in secret)
            for change in changes
        ],
    )


if __name__ == "__main__":
    main()
