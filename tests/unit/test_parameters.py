"""What is said with -e."""

from __future__ import annotations

from typing import Any

import pytest

from running import play
from support import ROOT, load

FILTERS = load("plugins/filter/parameters.py")
PARAMETERS = ["service", "to", "target", "plan", "plan_file"]
GROUPS = {"all": ["h1", "s1"], "shanghai": ["s1"]}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sevice", "service"),
        ("services", "service"),
        ("Service", "service"),
        ("serivce", "service"),
        ("targets", "target"),
        ("planfile", "plan_file"),
    ],
)
def test_a_mistyped_name_is_told(name: str, meant: str) -> None:
    assert FILTERS.parameter_errors(PARAMETERS, {name: "x", "other": "y"}) == [
        f"{name}: expected one of service, to, target, plan, plan_file; did you mean {meant}?"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service", "webui"),
        ("to", "r3"),
        ("services", {"webui": {}}),
        ("two", "x"),
        ("plant", "x"),
        ("service_id", "x"),
        ("rollout_lock_ttl", "900"),
        ("ansible_user", "ops"),
        (1, "x"),
    ],
)
def test_other_variables_are_left_alone(name: Any, value: Any) -> None:
    assert FILTERS.parameter_errors(PARAMETERS, {name: value}) == []


def test_datacenters_of_an_inventory_are_no_datacenter() -> None:
    assert FILTERS.parameter_errors(["datacenter"], {"datacenters": {"max_parallel": 2}}) == []
    assert FILTERS.parameter_errors(["datacenter"], {"datacenters": "shanghai"})


def test_what_ansible_was_given_is_what_is_looked_at() -> None:
    done = play(ROOT / "playbooks/validate.yml", ROOT / "inventories/lab/hosts.yml", sevice="webui")
    assert done.returncode != 0
    assert "sevice: expected one of" in done.stdout


@pytest.mark.parametrize(
    ("verb", "given", "message"),
    [
        pytest.param("rollback", {"service": "webui", "to": "r3"}, None, id="right"),
        pytest.param("rollout", {"services": "", "message": ""}, None, id="not asked for, or an end"),
        pytest.param("rollout", {"my-own": "x", 1: "x"}, None, id="other variables"),
        pytest.param(
            "undrain", {"target": " "}, "target: expected a value, got an empty one; leave -e target= out", id="all"
        ),
        pytest.param(
            "rollback", {"service": ""}, "service: expected a value, got an empty one; leave", id="every service"
        ),
        pytest.param(
            "rollout",
            {"message": "See", "https://s.example/?id": "7", "_raw_params": "for more"},
            'message: expected no "=" in it, got https://s.example/?id=, which became a variable; give it as JSON',
            id="a part of the message",
        ),
        pytest.param("rollout", {"to": "r3"}, "to: expected by rollback only, got -e to=r3", id="to"),
        pytest.param(
            "rollback",
            {"release": "v1"},
            "release: expected by rollout and restart only, got -e release=v1",
            id="release",
        ),
        pytest.param("rollout", {"target": "h1"}, "target: expected by drain and undrain only, got -e", id="target"),
        pytest.param(
            "drain",
            {"service": "webui"},
            "service: expected by rollout, rollback, restart, scale, retire, maintenance and history only, got -e",
            id="a node is drained of all services",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(verb: str, given: dict[str, str], message: str | None) -> None:
    names = ["service", "to", "release", "target", "message"]
    found = FILTERS.use_errors(names, verb, given)
    assert [one[: len(message or "")] for one in found] == [message] * bool(message)


def test_the_verb_is_that_of_the_playbook() -> None:
    said = play(
        ROOT / "playbooks/rollback.yml", ROOT / "inventories/lab/hosts.yml", "--check", service="webui", release="v1"
    )
    assert "release: expected by rollout and restart only, got -e release=v1" in said.stdout


@pytest.mark.parametrize(
    ("names", "verb", "errors"),
    [
        ("", "rollout", []),
        ("webui, api", "rollback", []),
        ("old", "retire", []),
        ("old", "maintenance", []),
        (
            "api,webbui",
            "scale",
            ['service: expected names from the catalogue (webui, api), got "webbui"; did you mean webui?'],
        ),
        ("shop", "restart", ['service: expected names from the catalogue (webui, api), got "shop"']),
    ],
)
def test_services_that_are_asked_for(names: str, verb: str, errors: list[str]) -> None:
    assert FILTERS.service_errors(names, {"webui": {}, "api": None}, verb) == errors


@pytest.mark.parametrize("target", ["", "h1", "h1,s1", "shanghai", "h1:shanghai", "all:!h1", "~h.", "h*", "all[0]"])
def test_targets_that_are_there(target: str) -> None:
    assert FILTERS.target_errors(target, GROUPS) == []


@pytest.mark.parametrize("target", ["h1,h3", "h3", " shanghai , h3", "shanghai:!h3", "all,&h3"])
def test_a_target_that_is_not(target: str) -> None:
    assert FILTERS.target_errors(target, GROUPS) == ['target: expected hosts or groups of the inventory, got "h3"']
