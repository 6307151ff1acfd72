# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role docker_engine: what it decides from its variables and a host's facts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.modules import find

import support
from support import ROOT

ROLE = ROOT / "roles/docker_engine"
DEBIAN = {
    "distribution": "Debian",
    "distribution_major_version": "12",
    "distribution_release": "bookworm",
    "os_family": "Debian",
    "packages": {},
    "service_mgr": "systemd",
}
ROCKY = DEBIAN | {"distribution": "Rocky", "distribution_major_version": "9", "os_family": "RedHat"}
rendered = partial(support.rendered, "docker_engine")


def tasks(file: str) -> dict[str, Any]:
    """The tasks of a file of the role, by name."""
    return {task["name"]: task for task in yaml.safe_load((ROLE / "tasks" / file).read_text(encoding="utf-8"))}


def tasks_that_run(file: str, facts: dict[str, Any], *, check: bool, **variables: Any) -> list[str]:
    """Names of those whose condition is met."""
    conditions = {name: task.get("when", "true") for name, task in tasks(file).items()}
    known = variables | {"ansible_check_mode": check}
    return [name for name, when in conditions.items() if rendered(f"{{{{ ({when}) | bool }}}}", facts, **known)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.gpg] REPOSITORY bookworm stable", True),
        ("deb REPOSITORY/ bookworm stable\n", True),
        ("Types: deb\nURIs: REPOSITORY\nSuites: bookworm\n", True),
        ("Types: deb\nURIs: https://deb.example.com\n REPOSITORY\nSuites: bookworm\n", True),
        ("# deb REPOSITORY bookworm stable", False),
        ("deb REPOSITORY-archive bookworm stable", False),
        ("deb https://deb.debian.org/debian bookworm main", False),
    ],
)
def test_another_source_of_dockers_repository_is_found(tmp_path: Path, source: str, found: bool) -> None:
    file = tmp_path / "other.list"
    file.write_text(source.replace("REPOSITORY", "https://download.docker.com/linux/debian"))
    look = tasks("repository-Debian.yml")["Look for other sources of Docker's repository"]

    pattern = rendered(look["ansible.builtin.find"]["contains"], DEBIAN)

    assert find.contentfilter(file, pattern, None) is found


@pytest.mark.parametrize(
    ("source", "packages", "errors"),
    [
        ("distribution", [], []),
        ("distribution", ["docker.io"], []),
        ("docker", ["docker-ce", "docker-ce-cli", "containerd.io"], []),
        (
            "distribution",
            ["docker-ce", "docker-ce-cli", "containerd.io"],
            [
                "docker_engine_source: distribution would replace the host's docker-ce, docker-ce-cli;"
                " set it to docker, or remove them first"
            ],
        ),
        (
            "docker",
            ["docker.io"],
            [
                "docker_engine_source: docker would replace the host's docker.io;"
                " set it to distribution, or remove them first"
            ],
        ),
    ],
)
def test_the_other_sources_engine_is_not_replaced(source: str, packages: list[str], errors: list[str]) -> None:
    facts = DEBIAN | {"packages": {name: [{"version": "1"}] for name in packages}}

    assert rendered("{{ __docker_engine_errors }}", facts, docker_engine_source=source) == errors


@pytest.mark.parametrize(
    ("variables", "version", "held", "moves", "released"),
    [
        pytest.param({"docker_engine_version": "26.1.*"}, "26.1.3-1.el9", True, False, [], id="right"),
        pytest.param({"docker_engine_version": "26.1.*"}, "26.1.3-1.el9", False, True, [], id="not held yet"),
        pytest.param(
            {"docker_engine_version": "27.*"},
            "26.1.3-1.el9",
            True,
            True,
            ["docker-ce", "docker-ce-cli"],
            id="held at another version",
        ),
        pytest.param({}, "26.1.3-1.el9", True, True, ["docker-ce", "docker-ce-cli"], id="no longer held"),
    ],
)
def test_a_lock_of_dnf_goes_before_another_version_comes(
    variables: dict[str, Any], version: str, held: bool, moves: bool, released: list[str]
) -> None:
    engine = [{"version": version, **({"hold": True} if held else {})}]
    other = [{"version": "1"}]
    others = ["containerd.io", "python3-docker", "python3-dnf-plugin-versionlock"]
    packages = {"docker-ce": engine, "docker-ce-cli": engine} | dict.fromkeys(others, other)
    facts = ROCKY | {"packages": packages}
    known = variables | {"docker_engine_source": "docker"}

    to_do = rendered("{{ __docker_engine_missing + __docker_engine_to_move }}", facts, **known)

    assert bool(to_do) is moves
    assert rendered("{{ __docker_engine_to_release }}", facts, **known) == released


NAME, INSTALL = "Name the packages that would be installed", "Install packages with {{ ansible_facts['pkg_mgr'] }}"


@pytest.mark.parametrize("facts", [DEBIAN, ROCKY], ids=["Debian", "Rocky"])
def test_a_check_of_a_bare_host_names_the_packages_and_asks_no_manager(facts: dict[str, Any]) -> None:
    known = {"docker_engine_source": "docker", "docker_engine_version": "26.1.*"}

    assert tasks_that_run("install.yml", facts, check=True, **known) == ["Add Docker's repository", NAME]
    assert tasks_that_run("install.yml", facts, check=False, **known) == ["Add Docker's repository", INSTALL]


# Docker's own packages have epochs that differ: 3 for the engine, 1 for its client
@pytest.mark.parametrize(
    "version", ["27.4.1-1.el9", "27.4.*", "3:27.4.1-1.el9", "1:27.4.1-1.el9", "3:27.4.*", "*:27.4.*"]
)
def test_a_version_of_dnf_may_have_its_epoch_or_not(version: str) -> None:
    known = {"docker_engine_source": "docker", "docker_engine_version": version}
    engine = {name: [{"version": "27.4.1-1.el9", "hold": True}] for name in ("docker-ce", "docker-ce-cli")}
    others = ["containerd.io", "python3-docker", "python3-dnf-plugin-versionlock"]
    right = ROCKY | {"packages": engine | {name: [{"version": "1"}] for name in others}}
    asked_for = tasks("packages-RedHat.yml")["Install the engine's packages"]["ansible.builtin.dnf"]["name"]

    assert rendered("{{ __docker_engine_missing + __docker_engine_to_move }}", right, **known) == []
    plain = version.rpartition(":")[2]
    assert rendered(asked_for, ROCKY, **known)[:2] == [f"docker-ce-{plain}", f"docker-ce-cli-{plain}"]


@pytest.mark.parametrize(("version", "missing"), [("5:26.1.*", False), ("5:27.*", True), ("4:26.1.*", True)])
def test_a_version_of_apt_keeps_its_epoch(version: str, missing: bool) -> None:
    installed = ["docker-ce", "docker-ce-cli", "containerd.io", "python3-docker"]
    facts = DEBIAN | {"packages": {name: [{"version": "5:26.1.3-1~debian.12~bookworm"}] for name in installed}}
    known = {"docker_engine_source": "docker", "docker_engine_version": version}

    found = [f"docker-ce={version}", f"docker-ce-cli={version}"] if missing else []
    assert rendered("{{ __docker_engine_missing }}", facts, **known) == found


def test_what_holds_a_version_is_installed_with_it() -> None:
    known = {"docker_engine_source": "docker", "docker_engine_version": "26.1.*"}

    assert "python3-dnf-plugin-versionlock" in rendered("{{ __docker_engine_missing }}", ROCKY, **known)


@pytest.mark.parametrize(
    ("check", "then"),
    [(True, "Name the users who would become members"), (False, "Make the users members of the group docker")],
)
def test_a_check_needs_no_group_docker(check: bool, then: str) -> None:
    known = {"docker_engine_users": ["deploy"]}

    assert tasks_that_run("users.yml", DEBIAN, check=check, **known) == ["Look for the users", then]
