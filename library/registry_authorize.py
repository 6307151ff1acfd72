#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_authorize
short_description: Set who may use a registry
description:
  - Writes the registry's htpasswd file. It holds exactly the given users, each with a bcrypt hash (the one kind
    that the registry accepts).
  - A user whose password is right already keeps the hash, so nothing changes without a reason, and salts stay random.
  - Uses the system's libcrypt. Passwords appear in no command line, no log and no diff.
attributes:
  check_mode:
    description: Compares, writes nothing.
    support: full
  diff_mode:
    description: Shows the users' names, never a hash.
    support: full
options:
  path:
    description: The htpasswd file. The registry notices a new one by itself.
    type: path
    required: true
  users:
    description: All users of the registry.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The user's name, without a colon or white space.
        type: str
        required: true
      password:
        description: The user's password, at most 72 bytes (bcrypt reads no more).
        type: str
        required: true
  cost:
    description:
      - Work factor of bcrypt. The registry does this work at every request, 3 ms at V(6) and double at each step.
    type: int
    default: 8
  group:
    description: The group that the registry runs as; it may read the file, which belongs to root.
    type: str
    default: root
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Set who may use the registry
  registry_authorize:
    path: /etc/docker/registry/htpasswd
    group: docker-registry
    users:
      - name: deploy
        password: "{{ vault_registry_password }}"
"""

RETURN = r"""
users:
  description: Names of the users that were (in check mode, would be) added, removed or given a new hash.
  returned: always
  type: list
  elements: str
  sample: [deploy]
"""

import ctypes
import hmac
import os
import re
from collections.abc import Callable

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang import system_file
from ansible.module_utils.qianjiang.system_file import SystemFile

LONGEST = 72


def parse(text: str) -> dict[str, str]:
    """An htpasswd file's hashes by user."""
    lines = [line.strip() for line in text.splitlines()]
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def problems(users: list[dict[str, str]]) -> list[str]:
    """What is wrong with the users that are wanted."""
    found = []
    names = [user["name"] for user in users]
    for index, user in enumerate(users):
        if not re.fullmatch(r"[^\s:#][^\s:]*", user["name"]):
            found.append(f'users[{index}].name: expected a name without colon or white space, got "{user["name"]}"')
        if names.index(user["name"]) != index:
            found.append(f'users[{index}].name: "{user["name"]}" is there twice')
        length = len(user["password"].encode())
        if not 1 <= length <= LONGEST:
            found.append(f"users[{index}].password: expected 1 to {LONGEST} bytes, got {length}")
    return found


def plan(
    users: list[dict[str, str]], current: dict[str, str], cost: int, verify: Callable[[str, str], bool]
) -> list[dict[str, str]]:
    """The users to add, to give a new hash, and to remove. `verify(password, hash)` is slow by design."""
    changes = []
    for user in users:
        name, known = user["name"], current.get(user["name"])
        if known is None:
            changes.append({"name": name, "before": "", "after": "password"})
        elif not re.match(rf"\$2[aby]\${cost:02d}\$", known):
            changes.append({"name": name, "before": "hash of another kind or cost", "after": f"bcrypt of cost {cost}"})
        elif not verify(user["password"], known):
            changes.append({"name": name, "before": "another password", "after": "password"})
    wanted = {user["name"] for user in users}
    return changes + [{"name": name, "before": "password", "after": ""} for name in current if name not in wanted]


class Bcrypt:
    """bcrypt of the system's libcrypt (libxcrypt): in every Debian, Ubuntu, RHEL. Python 3.13 has no module for it."""

    def __init__(self) -> None:
        self.library = self._load()
        self.library.crypt.restype = self.library.crypt_gensalt.restype = ctypes.c_char_p
        self.library.crypt_gensalt.argtypes = [ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int]

    @staticmethod
    def _load() -> ctypes.CDLL:
        for name in ("libcrypt.so.1", "libcrypt.so.2"):
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        raise LookupError("libcrypt is missing; install libcrypt1 (Debian, Ubuntu) or libxcrypt (RHEL)")

    def _crypt(self, password: str, setting: bytes) -> str:
        result: bytes | None = self.library.crypt(password.encode(), setting)
        return (result or b"*0").decode("ascii")

    def hash(self, password: str, cost: int) -> str:
        setting = self.library.crypt_gensalt(b"$2y$", cost, os.urandom(16), 16)
        made = self._crypt(password, setting or b"")
        if not made.startswith("$2y$"):
            raise LookupError("this host's libcrypt knows no bcrypt")
        return made

    def verify(self, password: str, known: str) -> bool:
        return hmac.compare_digest(self._crypt(password, known.encode()), known)


def main() -> None:
    user_options = {
        "name": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "users": {"type": "list", "elements": "dict", "required": True, "options": user_options},
            "cost": {"type": "int", "default": 8},
            "group": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    users, cost = module.params["users"], module.params["cost"]
    found = problems(users)
    if not 4 <= cost <= 16:
        found.append(f"cost: expected 4 to 16, got {cost}")
    if found:
        module.fail_json(msg="; ".join(found))
    file = system_file.read(module.params["path"])
    hashes = parse(file.content) if file else {}
    try:
        bcrypt = Bcrypt()
        changes = plan(users, hashes, cost, bcrypt.verify)
        renewed = {change["name"] for change in changes}
        access = SystemFile("", "root", module.params["group"], 0o640).access
        before = file.access if file else ""
        if not module.check_mode and (changes or before != access):
            for user in users:
                if user["name"] in renewed:
                    hashes[user["name"]] = bcrypt.hash(user["password"], cost)
            text = "".join(f"{user['name']}:{hashes[user['name']]}\n" for user in users)
            system_file.write(module.params["path"], SystemFile(text, "root", module.params["group"], 0o640))
    except (LookupError, OSError) as error:
        module.fail_json(msg=f"cannot set the users in {module.params['path']}: {error}")
    module.exit_json(
        changed=bool(changes or before != access),
        users=[change["name"] for change in changes],
        diff={
            "before": {"access": before} | {change["name"]: change["before"] for change in changes},
            "after": {"access": access} | {change["name"]: change["after"] for change in changes},
        },
    )


if __name__ == "__main__":
    main()
