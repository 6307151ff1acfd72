# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role nfs_client: what it decides from its variables and a host's facts."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import yaml

import support

DEBIAN = {"os_family": "Debian", "packages": {}, "service_mgr": "systemd", "managed_units": []}
SHARED = {"server": "files.lab", "export": "/export", "path": "/mnt/shared"}
rendered = partial(support.rendered, "nfs_client")


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        pytest.param({"nfs_client_mounts": [SHARED]}, ["nfs-common"], id="a mount"),
        pytest.param({"nfs_client_idmap_domain": "lab"}, ["nfs-common"], id="a domain alone"),
        pytest.param({"nfs_client_mounts": [{"path": "/mnt/shared", "state": "absent"}]}, [], id="what goes"),
        pytest.param({}, [], id="nothing"),
    ],
)
def test_the_client_is_installed_where_it_is_used(variables: dict[str, Any], missing: list[str]) -> None:
    assert rendered("{{ __nfs_client_missing }}", DEBIAN, **variables) == missing
    installed = DEBIAN | {"packages": {"nfs-common": [{"version": "1"}]}}
    assert rendered("{{ __nfs_client_missing }}", installed, **variables) == []


@pytest.mark.parametrize(
    ("units", "runs"),
    [
        (["mnt-shared.mount"], True),
        # What a run that was killed while it removed both has left
        (["mnt-later.automount"], True),
        (["docker-registry-collect.timer"], False),
        ([], False),
    ],
)
def test_an_empty_list_runs_the_module_where_units_are_left(units: list[str], runs: bool) -> None:
    text = (support.ROOT / "roles/nfs_client/tasks/main.yml").read_text(encoding="utf-8")
    (when,) = (task["when"] for task in yaml.safe_load(text) if task["name"] == "Bring the mounts to the list")

    assert rendered(f"{{{{ {when} }}}}", DEBIAN | {"managed_units": units}) is runs
