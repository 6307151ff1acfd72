"""An inventory that is no platform: each mistake by its path, before anything is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.module_utils.qianjiang.topology import FUNCTIONS, topology_errors

GROUPS = {
    "datacenters": ["h-edge", "h1", "s-edge", "s1"],
    "hangzhou": ["h-edge", "h1"],
    "shanghai": ["s-edge", "s1"],
    "nodes": ["h1", "s1"],
    "registries": ["h-edge", "s-edge"],
    "gateways": ["h-edge", "s-edge"],
    "builders": ["h-edge"],
}
PLACES = {"h-edge": "hangzhou", "h1": "hangzhou", "s-edge": "shanghai", "s1": "shanghai"}
REGISTRIES = {"hangzhou": "registry.hangzhou.example.com:5000", "shanghai": "registry.shanghai.example.com:5000"}


def errors(
    groups: dict[str, list[str]] | None = None,
    places: dict[str, Any] | None = None,
    registries: Any = REGISTRIES,
    origin: Any = "hangzhou",
) -> list[str]:
    """Of the inventory above, changed so."""
    changed = copy.deepcopy(GROUPS) | (groups or {})
    known = PLACES | (places or {})
    hosts = {host: {"datacenter": known.get(host)} for name in FUNCTIONS for host in changed[name]}
    return topology_errors(changed, hosts, registries=registries, origin=origin)


@pytest.mark.parametrize(
    ("groups", "places"),
    [
        pytest.param({}, {}, id="as it should be"),
        pytest.param({"builders": []}, {}, id="nothing is built"),
        pytest.param({"nodes": ["h1"]}, {}, id="a datacenter without nodes, yet"),
        pytest.param({"hangzhou": [], "shanghai": [], "east": ["h-edge", "h1"]}, {}, id="groups of other names"),
    ],
)
def test_right(groups: dict[str, list[str]], places: dict[str, Any]) -> None:
    assert errors(groups, places) == []


@pytest.mark.parametrize(
    ("groups", "places", "error"),
    [
        pytest.param(
            {"shanghai": ["s-edge", "s1", "h1"]},
            {"h1": "shanghai"},
            "hosts.yml: h1: expected in one datacenter's group, got hangzhou, shanghai; take it out of the others",
            id="in two datacenters",
        ),
        pytest.param(
            {"nodes": ["h1", "h2", "s1"]},
            {},
            "h2: datacenter: expected one of hangzhou, shanghai, got nothing; put the host into its datacenter's "
            "group, or the datacenter into datacenter_registries",
            id="in none",
        ),
        pytest.param(
            {},
            {"s1": "hangzhou"},
            's1: datacenter: expected shanghai, the group it is in, got "hangzhou"',
            id="group_vars of another one",
        ),
        pytest.param(
            {"nodes": ["h1", "h2", "s1"], "hangzhou": ["h-edge", "h1", "h2"]},
            {"h2": "hangzhou"},
            "hosts.yml: h2: expected in a child group of datacenters, got none; nodes.yml would leave it out",
            id="outside of datacenters",
        ),
        pytest.param(
            {"nodes": []}, {}, "hosts.yml: nodes: expected the hosts that run services, got none", id="no node"
        ),
        pytest.param(
            {"gateways": ["h-edge"]},
            {},
            "hosts.yml: gateways: expected a host of shanghai, got none; its lock and its records are there, too; the "
            "registry's host can be one",
            id="no gateway",
        ),
        pytest.param(
            {"registries": ["h-edge"]},
            {},
            "hosts.yml: registries: expected a host of shanghai, got none; its nodes pull from it",
            id="no registry",
        ),
    ],
)
def test_what_is_wrong_with_the_hosts(groups: dict[str, list[str]], places: dict[str, Any], error: str) -> None:
    assert errors(groups, places) == [error]


@pytest.mark.parametrize(
    ("registries", "found"),
    [(None, "nothing"), ("registry:5000", '"registry:5000"'), ({}, '"{}"'), ([], '"[]"')],
)
def test_no_datacenter(registries: Any, found: str) -> None:
    assert errors(registries=registries) == [
        f"datacenter_registries: expected a mapping of each datacenter to host:port, got {found}"
    ]


@pytest.mark.parametrize(
    "registry", ["https://registry.example.com", "registry:", "", 5000, None, "a b", "registry/images"]
)
def test_what_is_no_registry(registry: Any) -> None:
    (error,) = errors(registries=REGISTRIES | {"shanghai": registry})
    assert error.startswith("datacenter_registries.shanghai: expected host:port, got ")


@pytest.mark.parametrize("registry", ["registry", "registry.example.com", "192.0.2.1:443", "R-1.example:5000"])
def test_what_is_a_registry(registry: str) -> None:
    assert errors(registries=REGISTRIES | {"shanghai": registry}) == []


@pytest.mark.parametrize(("origin", "found"), [(None, "nothing"), ("beijing", '"beijing"')])
def test_the_origin(origin: Any, found: str) -> None:
    assert errors(origin=origin) == [f"origin_datacenter: expected one of hangzhou, shanghai, got {found}"]


@pytest.mark.parametrize("value", [["hangzhou"], {"name": "hangzhou"}], ids=["list", "mapping"])
def test_what_is_no_name_is_a_mistake_like_another(value: Any) -> None:
    found = errors(places={"h1": value}, origin=value)
    assert found[0] == f'origin_datacenter: expected one of hangzhou, shanghai, got "{value}"'
    assert found[1].startswith(f'h1: datacenter: expected one of hangzhou, shanghai, got "{value}"')


def test_a_port_that_is_none_is_for_ssh_to_tell() -> None:
    hosts = {host: {"datacenter": place, "ansible_port": [22]} for host, place in PLACES.items()}
    assert topology_errors(GROUPS, hosts, REGISTRIES, "hangzhou") == []


def test_all_mistakes_at_once() -> None:
    assert len(errors({"gateways": [], "nodes": ["x", "y"]}, origin="z")) == 5


@pytest.mark.parametrize(
    ("datacenter", "port", "found"),
    [
        ("hangzhou", 22, ["hosts.yml: h2: ansible_host: expected an address of its own, got h1's, 10.0.0.1"]),
        pytest.param("hangzhou", 2202, [], id="forwarded by its port"),
        pytest.param("shanghai", 22, [], id="private, behind another bastion"),
    ],
)
def test_two_names_of_one_machine(datacenter: str, port: int, found: list[str]) -> None:
    edges = {"h-edge": {"datacenter": "hangzhou"}, "s-edge": {"datacenter": "shanghai"}}
    both = {"ansible_host": "10.0.0.1"}
    hosts = {
        "h1": both | {"datacenter": "hangzhou", "ansible_port": 22},
        "h2": both | {"datacenter": datacenter, "ansible_port": port},
    }
    groups = GROUPS | {"nodes": ["h1", "h2"], "datacenters": [*edges, *hosts], "hangzhou": [], "shanghai": []}
    assert topology_errors(groups, edges | hosts, REGISTRIES, "hangzhou") == found
