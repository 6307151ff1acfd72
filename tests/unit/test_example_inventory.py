"""inventories/example, as Ansible reads it: the groups, the variables of every host, the vault, the catalogue."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.qianjiang.catalogue import normalise
from ansible.module_utils.qianjiang.catalogue_rules import order_by_dependency
from ansible.module_utils.qianjiang.policy import normalise_policy
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.manager import VariableManager

from support import ROOT, load

EXAMPLE = ROOT / "inventories/example"
VAULT = EXAMPLE / "group_vars/all/vault.yml"
PASSWORD_FILE = EXAMPLE / ".vault-password-example"
DATACENTERS = {"hangzhou", "shanghai", "guangzhou"}
FUNCTIONS = {"nodes", "registries", "gateways", "builders"}
# used by playbooks and modules, though a role has the same first word
SHARED = {"registry_username", "registry_password"}


def vault_secret() -> VaultSecret:
    return VaultSecret(PASSWORD_FILE.read_bytes().strip())


@cache
def inventory() -> tuple[DataLoader, InventoryManager, VariableManager]:
    init_plugin_loader([])  # or ansible.builtin.… is not found
    loader = DataLoader()
    loader.set_vault_secrets([("default", vault_secret())])
    manager = InventoryManager(loader=loader, sources=[str(EXAMPLE / "hosts.yml")])
    return loader, manager, VariableManager(loader=loader, inventory=manager)


def hosts(group: str = "all") -> set[str]:
    return {host.name for host in inventory()[1].get_hosts(group)} - {"localhost"}


@cache
def resolved(host: str) -> dict[str, Any]:
    """The variables that the inventory gives a host, templated; an undefined one fails."""
    loader, manager, variables = inventory()
    every = variables.get_vars(host=manager.get_host(host), include_hostvars=True)
    names = sorted({name for path in variable_files() for name in variable_names(path)} & set(every))
    templar = Templar(loader=loader, variables=every)
    return {name: templar.template(trust_as_template(f"{{{{ {name} }}}}")) for name in ["ansible_host", *names]}


def variable_files() -> list[Path]:
    return sorted((EXAMPLE / "group_vars").rglob("*.yml"))


def plain(path: Path) -> str:
    data = path.read_bytes()
    vault = VaultLib([("default", vault_secret())])
    return (vault.decrypt(data) if vault.is_encrypted(data) else data).decode()


@cache
def variable_names(path: Path) -> frozenset[str]:
    return frozenset(yaml.safe_load(plain(path)))


def nodes() -> dict[str, list[str]]:
    return {name: sorted(hosts(name) & hosts("nodes")) for name in sorted(DATACENTERS)}


def catalogue(host: str) -> Any:
    return normalise(resolved(host)["services"], nodes())


def test_hosts_yml_has_hosts_and_groups_only() -> None:
    def look(name: str, group: dict[str, Any] | None) -> None:
        assert set(group or {}) <= {"hosts", "children"}, name
        for host, keys in ((group or {}).get("hosts") or {}).items():
            assert host == "localhost" or set(keys or {}) <= {"ansible_host"}, host
        for child, inner in ((group or {}).get("children") or {}).items():
            look(child, inner)

    look("all", yaml.safe_load((EXAMPLE / "hosts.yml").read_text(encoding="utf-8"))["all"])


def test_the_groups_are_the_datacenters_and_the_functions() -> None:
    groups = inventory()[1].groups
    assert set(groups) == DATACENTERS | FUNCTIONS | {"all", "ungrouped", "datacenters"}
    assert {child.name for child in groups["datacenters"].child_groups} == DATACENTERS


def test_every_host_belongs_to_one_datacenter_and_knows_it() -> None:
    assert hosts() == hosts("datacenters")
    for host in hosts():
        (datacenter,) = {name for name in DATACENTERS if host in hosts(name)}
        assert resolved(host)["datacenter"] == datacenter
        assert host.startswith(f"{datacenter}-")


def test_every_host_has_a_function_and_an_address_of_its_own() -> None:
    assert set().union(*(hosts(name) for name in FUNCTIONS)) == hosts()
    assert len({resolved(host)["ansible_host"] for host in hosts()}) == len(hosts())


@pytest.mark.parametrize("datacenter", sorted(DATACENTERS))
def test_a_datacenter_has_a_registry_a_gateway_and_two_nodes(datacenter: str) -> None:
    assert len(hosts(datacenter) & hosts("registries")) == 1
    assert len(hosts(datacenter) & hosts("gateways")) >= 1
    assert len(hosts(datacenter) & hosts("nodes")) >= 2


def test_images_are_built_at_the_origin() -> None:
    for host in hosts():
        assert set(resolved(host)["datacenter_registries"]) == DATACENTERS
        assert hosts("builders") <= hosts(resolved(host)["origin_datacenter"])


@pytest.mark.parametrize("host", sorted(hosts()))
def test_every_variable_of_a_host_resolves(host: str) -> None:
    found = resolved(host)
    assert found.keys() >= {"services", "platform_ca_certificate", "registry_username", "registry_password"}
    assert found["platform_ca_certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert "{{" not in str(found)


def test_the_catalogue_is_valid_and_the_same_everywhere() -> None:
    (first, *others) = sorted(hosts())
    rules = resolved(first)
    assert normalise_policy(rules["datacenters"], rules["datacenter_registries"])["unreachable"] == "continue"
    services = catalogue(first)
    assert all(catalogue(host) == services for host in others)
    assert order_by_dependency(services)[-1] == "webui"
    assert services["webui"]["gateway"] == {"port": 80}


def test_the_gateways_forward_what_is_placed_with_them() -> None:
    backends = load("plugins/filter/catalogue.py").FilterModule().filters()["gateway_backends"]
    for datacenter in DATACENTERS:
        addresses = {node: resolved(node)["ansible_host"] for node in nodes()[datacenter]}
        forwarded = backends(catalogue(next(iter(addresses))), datacenter, addresses)
        taken = ArgumentSpecValidator(role_specifications()["gateway"]).validate({"gateway_backends": forwarded})
        assert taken.error_messages == []
        assert "webui" in [backend["name"] for backend in forwarded]
        assert all(server["address"] in addresses.values() for b in forwarded for server in b["servers"])


def test_the_vault_is_encrypted_and_every_secret_is_used() -> None:
    assert VAULT.read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT;1.1;AES256\n")
    secrets = yaml.safe_load(plain(VAULT))
    text = "\n".join(plain(path) for path in variable_files() if path != VAULT)
    assert all(value.startswith("example-") for value in secrets.values())
    assert set(re.findall(r"\bvault_\w+", text)) == set(secrets)


def test_no_secret_stands_outside_the_vault() -> None:
    secret = re.compile(
        r"^\s*-?\s*\w*(password|passphrase|secret|token)\w*:\s*(?=\S)(?!\"\{\{ \w+ \}\}\"$)", re.I | re.M
    )
    for path in variable_files():
        if path != VAULT:
            assert not secret.findall(path.read_text(encoding="utf-8")), path


def test_one_datacenter_is_behind_a_bastion_and_host_keys_are_checked() -> None:
    jumps = {
        host: re.findall(r"ProxyJump=(\S+)", str(resolved(host).get("ansible_ssh_common_args", ""))) for host in hosts()
    }
    assert {host for host, through in jumps.items() if through} == hosts("guangzhou")
    assert not [path for path in variable_files() if re.search(r"StrictHostKeyChecking=(no|off)", plain(path))]


def role_specifications() -> dict[str, dict[str, Any]]:
    """The options of each role, those of all its entry points together."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            found.setdefault(path.parts[-3], {}).update(entry.get("options", {}))
    return found


@pytest.mark.parametrize("role", sorted(role_specifications()))
def test_a_roles_variables_are_the_roles(role: str) -> None:
    options = role_specifications()[role]
    # what a role cannot do without may come from the play
    options = {name: {**option, "required": False, "default": None} for name, option in options.items()}
    for host in sorted(hosts()):
        given = {name: value for name, value in resolved(host).items() if name.startswith(f"{role}_")}
        given = {name: value for name, value in given.items() if name not in SHARED or name in options}
        assert ArgumentSpecValidator(options).validate(given).error_messages == [], host
