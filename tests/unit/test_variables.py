"""Variables of roles, as an inventory gives them: names that none has, values of a wrong type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from running import play
from support import ROOT, load

FILTERS = load("plugins/filter/variables.py")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gateway_maxcon", "gateway_maxconn"),
        ("registry_storage_dir", "registry_storage_directory"),
        ("docker_engine_deamon", "docker_engine_daemon"),
        ("regsitry_port", "registry_port"),
        ("hook", "hooks"),
        ("datacentres", "datacenters"),
        ("node_adress", "node_address"),
    ],
)
def test_a_mistyped_name_is_told(name: str, meant: str) -> None:
    assert FILTERS.name_errors([name, meant]) == [
        f"{name}: no role has this variable; did you mean {meant}? If it is yours, name it in the list own_variables"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "gateway_maxconn",
        "registry_password",
        "rollout_hosts",
        "vault_registry_password",
        "vault_certificate_authority_passphrase",
        "service",
        "target",
        "ansible_host",
        "ansible_ssh_port",
        "docker_engine_daemon_of_node1",
        "platform_ca_certificate_path",
        "registry_users_ci",
        "groups",
        "inventory_dir",
        "gateway_color",
        "smtp_relay",
    ],
)
def test_other_names_are_let_pass(name: str) -> None:
    assert FILTERS.name_errors([name]) == []


def registered(value: Any) -> Iterator[str]:
    """What tasks register and set as facts, anywhere below."""
    if isinstance(value, dict):
        yield from [value["register"]] if "register" in value else []
        yield from value.get("ansible.builtin.set_fact", ())
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from registered(one)


def test_what_a_play_before_has_registered_is_let_pass() -> None:
    files = [*(ROOT / "playbooks").glob("*.yml"), *(ROOT / "roles").glob("*/tasks/*.yml")]
    names = {name for file in files for name in registered(yaml.safe_load(file.read_text(encoding="utf-8")))}
    assert {"__certificate_authority_server", "rollout_plan", "service_pulled"} <= names
    assert FILTERS.name_errors(names) == []


GROUPS = {"nodes": ["h1", "h2"], "gateways": ["edge"], "registries": ["edge"], "builders": []}


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({}, None),
        (
            {
                "gateway_maxconn": "20000",
                "docker_engine_source": "docker",
                "registry_users": [{"name": "a", "password": "b"}],
            },
            None,
        ),
        (
            {"gateway_maxconn": "many"},
            "gateway_maxconn: argument 'gateway_maxconn' is of type str and we were unable to convert to int; on edge",
        ),
        (
            {"docker_engine_source": "dokcer"},
            "docker_engine_source: value of docker_engine_source must be one of: distribution, docker, got: dokcer;"
            " on h1, h2",
        ),
        # Of another role's hosts
        ({"image_bases": []}, None),
        ({"nfs_client_mounts": [{"pfad": "/mnt"}]}, "nfs_client_mounts: "),
        # What cannot be told is for the role
        ({"gateway_timeout_client": None}, None),
    ],
)
def test_values_are_as_their_role_takes_them(variables: dict[str, Any], error: str | None) -> None:
    written = {host: {"datacenter": "hangzhou", **variables} for host in ("h1", "h2", "edge")}
    found = FILTERS.value_errors(GROUPS, written, written)
    if error is None:
        assert found == []
    else:
        assert found[0].startswith(error)


def test_a_secret_of_another_type_is_not_shown() -> None:
    written = {"edge": {"registry_users": "correct horse"}}
    found = FILTERS.value_errors(GROUPS | {"nodes": []}, written, written)
    assert found
    assert "horse" not in str(found)


def test_each_role_has_its_hosts() -> None:
    # The lab's own, and that of the plan, whose variables are all the playbooks'
    others = {"lab", "controller", "rollout"}
    assert {path.name for path in (ROOT / "roles").iterdir() if path.is_dir()} == FILTERS.RUNS_ON.keys() | others


def test_the_playbook_tells_both_at_once_and_leaves_out_what_is_the_inventorys_own() -> None:
    wrong = {
        "gateway_maxcon": 5,
        "gateway_maxcom": 6,
        "gateway_stats_port": "eighty",
        "own_variables": ["gateway_maxcom"],
    }
    done = play(ROOT / "playbooks/validate.yml", ROOT / "inventories/lab/hosts.yml", **wrong)
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert "gateway_maxcon: no role has this variable; did you mean gateway_maxconn?" in text
    assert "gateway_stats_port: argument ''gateway_stats_port'' is of type str" in text
    assert "gateway_maxcom:" not in text
