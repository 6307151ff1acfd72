"""An inventory that is no platform: each mistake by its path, before anything is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.module_utils.qianjiang.topology import (
    FUNCTIONS,
    login_errors,
    port_errors,
    registry_errors,
    shared_errors,
    tls_errors,
    topology_errors,
)

from support import catalogue

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
        pytest.param(
            {"registries": ["h-edge", "s-edge", "s1"]},
            {},
            "hosts.yml: registries: expected one host of shanghai, got s-edge and s1; only the first is filled",
            id="two registries",
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
    "registry",
    [
        *("https://registry.example.com", "registry:", "", 5000, None, "a b", "registry/images"),
        *("registry", "registry.example.com:99999", "a..b:5000", "registry.example.com:0"),
    ],
)
def test_what_is_no_registry(registry: Any) -> None:
    (error,) = errors(registries=REGISTRIES | {"shanghai": registry})
    assert error.startswith("datacenter_registries.shanghai: expected host:port, got ")


@pytest.mark.parametrize(
    "registry", ["registry:5000", "localhost", "registry.example.com", "192.0.2.1:443", "R-1.example:65535"]
)
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


def test_what_is_built_needs_a_builder() -> None:
    hosts = {host: {"datacenter": place} for host, place in PLACES.items()}
    assert topology_errors(GROUPS, hosts, REGISTRIES, "hangzhou", ["webui"]) == []
    assert topology_errors(GROUPS | {"builders": []}, hosts, REGISTRIES, "hangzhou", ["webui", "api"]) == [
        "hosts.yml: builders: expected a host that builds webui, api, got none"
    ]


def test_a_registry_of_two_datacenters() -> None:
    same = dict.fromkeys(REGISTRIES, "registry.example.com:5000")
    assert errors(registries=same) == [
        "datacenter_registries.shanghai: expected a registry of its own, got that of hangzhou, "
        "registry.example.com:5000"
    ]


@pytest.mark.parametrize(
    ("there", "error"),
    [
        ({}, None),
        ({"services": {"webui": {"env": {"A": "other"}}}}, "services.webui.env.A"),
        ({"services": {"webui": {"env": {}, "port": 80}}}, "services.webui.env.A, services.webui.port"),
        ({"services": {}}, "services.webui"),
        ({"services": "{{ others }}"}, "services"),
        ({"origin_datacenter": "shanghai", "services": None}, "origin_datacenter, services"),
        ({"hooks": {"pre_rollout": {"tasks": "freeze.yml"}}}, "hooks"),
        ({"datacenters": {"unreachable": "continue"}}, "datacenters"),
        ({"rollout_lock_ttl": 60}, "rollout_lock_ttl"),
    ],
)
def test_what_is_one_for_all_hosts(there: dict[str, Any], error: str | None) -> None:
    shared = {"origin_datacenter": "hangzhou", "services": {"webui": {"env": {"A": "secret"}}}}
    hosts = {"h1": shared, "h2": shared | {"more": 1}, "s1": shared | there, "s2": shared | there}
    expected = f"{error}: expected one for all hosts, got another one on s1, s2 than on h1; say it in group_vars/all"
    assert shared_errors(hosts) == ([expected] if error else [])


APART = {"webui": {"placement": {"datacenters": ["shanghai"]}}, "store": {"gateway": {"port": 8001}}}


@pytest.mark.parametrize(
    ("certificates", "placed", "without"),
    [
        ({}, {}, ""),
        ({"h-edge": "/etc/tls/server.crt", "s-edge": "/etc/ssl/portal.crt"}, {}, ""),
        ({"h-edge": "/etc/tls/server.crt"}, {}, "s-edge"),
        ({"s-edge": "/etc/tls/server.crt", "h-edge": ""}, {}, "h-edge"),
        # Nothing is forwarded between them
        ({"h-edge": "/etc/tls/server.crt"}, APART, ""),
        ({"h-edge": "/etc/tls/server.crt"}, {"webui": {"gateway": None}}, ""),
    ],
)
def test_gateways_speak_tls_to_each_other_or_not(
    certificates: dict[str, str], placed: dict[str, dict[str, Any]], without: str
) -> None:
    hosts = {
        host: {"datacenter": place, "gateway_certificate": certificates.get(host), "gateway_backup_ca": "/etc/ca.crt"}
        for host, place in PLACES.items()
    }
    expected = (
        f"gateway_certificate: expected on all gateways that forward webui or on none, got nothing on {without}; they "
        "forward to each other, so set it in group_vars/gateways.yml"
    )
    assert tls_errors(catalogue(**placed), GROUPS, hosts) == ([expected] if without else [])


@pytest.mark.parametrize(
    ("authorities", "placed", "without"),
    [
        ({"h-edge": "/etc/ca.crt", "s-edge": "/etc/ca.crt"}, {}, ""),
        ({"h-edge": "/etc/ca.crt", "s-edge": ""}, {}, "s-edge"),
        ({}, {}, "h-edge, s-edge"),
        ({}, APART, ""),
    ],
)
def test_gateways_that_speak_tls_verify_each_other(
    authorities: dict[str, str], placed: dict[str, dict[str, Any]], without: str
) -> None:
    hosts = {
        host: {"datacenter": place, "gateway_certificate": "/etc/tls.crt", "gateway_backup_ca": authorities.get(host)}
        for host, place in PLACES.items()
    }
    expected = (
        f"gateway_backup_ca: expected the path of a CA's certificate on gateways that speak TLS, got nothing on "
        f"{without}; they verify each other with it"
    )
    assert tls_errors(catalogue(**placed), GROUPS, hosts) == ([expected] if without else [])


NAME = "certificate_authority_server_names"
PORT_MESSAGE = (
    'datacenter_registries.shanghai: expected port 5000, where s-edge listens without registry_port, got "{}"; set '
    "registry_port, to 5000 if something forwards to it"
)
NAME_MESSAGE = (
    "s-edge: certificate_authority_server_names: expected registry.shanghai.example.com among them, the registry's "
    "name in datacenter_registries, got portal.example.com; everybody would refuse its certificate"
)


@pytest.mark.parametrize(
    ("variables", "registry", "error"),
    [
        ({}, ":5000", None),
        ({"registry_port": "5443"}, ":5443", None),
        ({"registry_port": 443}, "", None),
        ({}, "", PORT_MESSAGE.format("registry.shanghai.example.com")),
        ({}, ":5443", PORT_MESSAGE.format("registry.shanghai.example.com:5443")),
        # Something forwards to it
        ({"registry_port": 5000}, "", None),
        ({NAME: []}, ":5000", None),
        ({NAME: ["portal.example.com", "registry.shanghai.example.com"]}, ":5000", None),
        ({NAME: ["*.shanghai.example.com"]}, ":5000", None),
        ({NAME: ["portal.example.com"]}, ":5000", NAME_MESSAGE),
        ({NAME: ["Registry.Shanghai.example.com"]}, ":5000", None),
        # A fact, before there are any
        ({NAME: [None, "portal.example.com"]}, ":5000", None),
        # Of another authority; the platform's is for something else
        ({NAME: ["portal.example.com"], "registry_certificate": "/etc/ssl/registry.crt"}, ":5000", None),
    ],
)
def test_a_registry_is_where_it_is_asked_and_has_that_name(
    variables: dict[str, Any], registry: str, error: str | None
) -> None:
    hosts = {host: {"datacenter": place} for host, place in PLACES.items()}
    hosts["s-edge"] |= variables
    registries = REGISTRIES | {"shanghai": f"registry.shanghai.example.com{registry}"}
    assert registry_errors(GROUPS, hosts, registries) == ([error] if error else [])


ACCOUNT = {"registry_username": "deploy", "registry_password": "correct horse"}
USERS = {"registry_users": [{"name": "deploy", "password": "correct horse"}]}
KNOWN = {host: ACCOUNT | (USERS if "edge" in host else {}) for host in PLACES}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({}, None),
        (
            {"h1": {}, "s1": {"registry_username": "deploy", "registry_password": " "}},
            "registry_password: expected a text, got nothing on h1, s1; is its vault there, with a value for it?",
        ),
        (
            {"s1": {"registry_username": "deploy", "registry_password": 12345678}},
            "registry_password: expected a text, got something else on s1; quote it",
        ),
        (
            {"s1": ACCOUNT | {"registry_password": "马" * 25}},
            "registry_password: expected at most 72 bytes, got more on s1",
        ),
        (
            {"s1": {"registry_password": "correct horse"}},
            "registry_username: expected a text, got nothing on s1; set it in group_vars/all",
        ),
        *(
            (
                {"s-edge": ACCOUNT | {"registry_users": users}},
                "s-edge: registry_users: expected an entry with registry_username (deploy) and registry_password among "
                "them, got none; playbooks push and pull as this account",
            )
            for users in (None, [], "deploy", [{"name": "deploy", "password": "another horse"}], ["deploy"])
        ),
    ],
)
def test_the_account_at_the_registries(change: dict[str, Any], error: str | None) -> None:
    found = login_errors(GROUPS, KNOWN | change)
    assert found[-1:] == ([error] if error else [])
    assert not any("horse" in line for line in found)


@pytest.mark.parametrize(
    ("webui", "variables", "error"),
    [
        ({}, {}, None),
        (
            {"gateway": {"port": 22}},
            {},
            "gateway.port: expected a port that is free on h-edge, got 22, which SSH has there",
        ),
        ({"gateway": {"port": 22}}, {"ansible_port": "2222"}, None),
        # forwarded to the host's own
        ({"slots_port": 18080}, {"ansible_port": 18081, "node_address": "10.0.0.1"}, None),
        (
            {"gateway": {"port": 8404}},
            {},
            "gateway.port: expected a port that is free on h-edge, got 8404, which gateway_stats_port has there",
        ),
        ({"gateway": {"port": 8404}}, {"gateway_stats_port": 8405}, None),
        (
            {"gateway": {"port": 5000}},
            {},
            "gateway.port: expected a port that is free on h-edge, got 5000, which registry_port has there",
        ),
        ({"slots_port": 5000}, {}, None),
        ({"slots_port": 21}, {}, "slots_port: expected a port that is free on h1, got 22, which SSH has there"),
    ],
)
def test_ports_that_something_else_has(webui: dict[str, Any], variables: dict[str, Any], error: str | None) -> None:
    hosts = {host: {"datacenter": place, "ansible_port": [22]} | variables for host, place in PLACES.items()}
    expected = [f"services.webui.{error}"] if error else []
    assert port_errors(catalogue(webui=webui), GROUPS, hosts) == expected


def test_a_slot_on_a_node_that_is_a_gateway() -> None:
    groups = {"nodes": ["h1"], "gateways": ["h1"]}
    services = catalogue(webui={"gateway": {"port": 18091}})
    assert port_errors(services, groups, {"h1": {"datacenter": "hangzhou"}}) == [
        "services.store.slots_port: expected a port that is free on h1, got 18091, "
        "which services.webui.gateway.port has there"
    ]
