# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/build.yml with --limit: it builds, or it is told that nothing is built."""

from __future__ import annotations

from typing import Any

import pytest

from running import play
from support import ROOT

LEFT_OUT = "--limit shanghai leaves out hangzhou-edge, which builds webui: "


def build(playbook: str, *options: str, **variables: Any) -> tuple[int, str]:
    """The exit code, and what is said, with its lines joined."""
    done = play(
        ROOT / f"playbooks/{playbook}.yml",
        ROOT / "inventories/lab/hosts.yml",
        *("--tags=build", "--skip-tags=hosts", *options),
        **({"ansible_connection": "local", "ansible_become": False} | variables),
    )
    return done.returncode, " ".join(done.stdout.split())


def test_a_build_without_the_builder_fails() -> None:
    code, said = build("build", "--limit", "shanghai")
    assert code != 0, said
    assert f"{LEFT_OUT}so nothing is built" in said


def test_a_site_without_the_builder_says_what_it_rolls_out() -> None:
    code, said = build("site", "--limit", "shanghai")
    assert code == 0, said
    assert f"{LEFT_OUT}what is rolled out was built before" in said


@pytest.mark.parametrize("limit", [[], ["--limit", "hangzhou"]])
def test_the_builder_is_asked(limit: list[str]) -> None:
    code, said = build("build", *limit, ansible_python_interpreter="/nonexistent")  # this host is not to build
    assert (code, "leaves out" in said) == (2, False), said
    assert "PLAY [Build and push]" in said
    assert "fatal: [hangzhou-edge]: FAILED!" in said


def test_where_nothing_is_built_the_builder_is_not_missed() -> None:
    services = {"store": {"image": "etcd:3.5", "port": 2379, "slots_port": 18090}}
    code, said = build("build", "--limit", "shanghai", services=services)
    assert code == 0, said
