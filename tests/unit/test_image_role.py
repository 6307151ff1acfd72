# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role image: the wheels that it fetches on the controller, and what it brings from there to the builder."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from zipfile import ZipFile

import yaml
from ansible.module_utils.qianjiang.build_context import entries

from running import play
from support import ROOT

# Not the controller's
PYTHON = "3.13" if sys.version_info < (3, 13) else "3.12"
FETCH = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: image, tasks_from: wheelhouse}
"""


def wheel(folder: Path, name: str, tags: str, *needs: str) -> str:
    """An empty wheel; returns its line in a lock, but for a marker."""
    file, about = folder / f"{name}-1.0-{tags}.whl", f"{name}-1.0.dist-info"
    folder.mkdir(exist_ok=True)
    with ZipFile(file, "w") as archive:
        required = "".join(f"Requires-Dist: {need}\n" for need in needs)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{required}")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{about}/RECORD", "")
    return f"{name}==1.0 MARKER \\\n    --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


def fetch(folder: Path, lock: str, *options: str) -> tuple[str, list[str]]:
    """What the role's task file says of a service with this lock, and the wheels that its context then has."""
    context = folder / "webui"
    context.mkdir(exist_ok=True)
    (context / "requirements.lock").write_text(f"--no-index\n--find-links {folder}/index\n{lock}")
    (folder / "fetch.yml").write_text(FETCH)
    wheelhouse = {"requirements": "requirements.lock", "python": PYTHON}
    service = {"name": "webui", "build": {"context": "webui", "wheelhouse": wheelhouse}}
    variables = {"image_service": service, "image_source_directory": str(folder)}
    done = play(folder / "fetch.yml", "localhost,", *options, **variables)
    assert done.returncode == 0, done.stdout
    return done.stdout, sorted(file.name for file in (context / "wheelhouse").iterdir())


def test_the_wheels_are_those_that_the_image_needs(tmp_path: Path) -> None:
    index, abi = tmp_path / "index", f"cp{PYTHON.replace('.', '')}"
    marked = [
        (wheel(index, "plain", "py3-none-any", f"older; python_version != '{PYTHON}'"), ""),
        (wheel(index, "older", "py3-none-any"), f"; python_version != '{PYTHON}'"),
        (wheel(index, "newer", "py3-none-any"), f"; python_version == '{PYTHON}' and sys_platform != 'win32'"),
        (wheel(index, "windows", "py3-none-any"), "; sys_platform == 'win32'"),
        (wheel(index, "debian12", f"{abi}-{abi}-manylinux_2_36_x86_64"), ""),
        (wheel(index, "both", f"{abi}-{abi}-manylinux_2_28_x86_64"), ""),
        (wheel(index, "both", f"{abi}-{abi}-manylinux_2_17_x86_64"), ""),
    ]
    lock = "".join(line.replace("MARKER", marker) for line, marker in marked)

    assert fetch(tmp_path, lock)[1] == [
        f"both-1.0-{abi}-{abi}-manylinux_2_17_x86_64.whl",
        f"debian12-1.0-{abi}-{abi}-manylinux_2_36_x86_64.whl",
        "newer-1.0-py3-none-any.whl",
        "plain-1.0-py3-none-any.whl",
    ]


def test_a_check_fetches_wheels_too_as_what_it_says_of_the_image_depends_on_them(tmp_path: Path) -> None:
    lock = wheel(tmp_path / "index", "plain", "py3-none-any").replace("MARKER", "")
    (tmp_path / "webui/wheelhouse").mkdir(parents=True)
    (tmp_path / "webui/wheelhouse/old.whl").touch()
    said, wheels = fetch(tmp_path, lock, "--check")
    assert wheels == ["plain-1.0-py3-none-any.whl"]
    assert "changed=0 " in said, said


def test_the_builders_copy_is_its_owners_and_still_the_same_context(tmp_path: Path) -> None:
    tasks = yaml.safe_load((ROOT / "roles/image/tasks/build.yml").read_text(encoding="utf-8"))
    (bring,) = [task for task in tasks if "ansible.posix.synchronize" in task]
    context, copy = tmp_path / "source/webui", tmp_path / "build/webui"
    (context / "sub").mkdir(parents=True)
    for name, mode in (("Dockerfile", 0o644), (".env", 0o664), ("run.sh", 0o755), ("sub/page.html", 0o640)):
        (context / name).write_text(name)
        (context / name).chmod(mode)
    variables = {
        "image_services": [{"name": "webui", "build": {"context": "webui"}}],
        "image_source_directory": str(context.parent),
        "__image_contexts": str(copy.parent),
    }
    plays = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [bring]}]
    (tmp_path / "bring.yml").write_text(yaml.safe_dump(plays))

    done = [play(tmp_path / "bring.yml", "localhost,", **variables) for _ in range(2)]

    assert [("changed=1 " in one.stdout, one.returncode) for one in done] == [(True, 0), (False, 0)], done
    assert [path for path in (copy, *copy.rglob("*")) if path.stat().st_mode & 0o077] == []
    assert entries(copy, "Dockerfile") == entries(context, "Dockerfile")
