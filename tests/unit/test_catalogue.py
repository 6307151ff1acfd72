"""The catalogue: what an entry becomes, and what is said about each mistake."""

from __future__ import annotations

import copy
import difflib
import os
import typing
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.qianjiang import catalogue_schema
from ansible.module_utils.qianjiang.catalogue import CatalogueError, normalise
from ansible.module_utils.qianjiang.catalogue_rules import order_by_dependency

from support import ROOT, load

DATACENTERS = {"hangzhou": ["hz1", "hz2"], "shanghai": ["sh1"], "guangzhou": []}
WEBUI: dict[str, Any] = {"build": {}, "port": 8080, "slots_port": 18080}
DIGEST = "sha256:" + "0a" * 32

NORMAL: dict[str, Any] = {
    "name": "webui",
    "repository": "webui",
    "build": {
        "context": "services/webui",
        "dockerfile": "Dockerfile",
        "target": None,
        "args": {},
        "bases": {},
        "network": "none",
        "wheelhouse": None,
    },
    "image": None,
    "placement": {"datacenters": ["hangzhou", "shanghai"]},
    "replicas": 1,
    "port": 8080,
    "slots_port": 18080,
    "gateway": None,
    "env": {},
    "command": None,
    "user": None,
    "mounts": [],
    "tmpfs": ["/tmp"],
    "limits": {"memory": "256M", "cpus": 0.5, "pids": 128},
    "log": {"max_size": "10m", "max_file": 3},
    "hardening": {"read_only": True, "capabilities": [], "no_new_privileges": True, "reason": None},
    "health": {
        "path": "/healthz",
        "ready_path": "/readyz",
        "command": None,
        "interval": 2,
        "timeout": 2,
        "retries": 3,
        "start_period": 10,
    },
    "stop_timeout": 30,
    "update": {
        "max_parallel": 1,
        "min_healthy_time": 10,
        "healthy_deadline": 300,
        "progress_deadline": 600,
        "canary": 1,
        "auto_revert": True,
        "bake_time": 0,
        "max_errors": 0.01,
        "max_latency": 2,
        "drain_timeout": 30,
    },
    "keep_releases": 2,
    "depends_on": [],
}


def webui(**keys: Any) -> dict[str, Any]:
    """A catalogue with one service, the smallest entry changed by `keys`; a key that is `...` is taken out."""
    return {"webui": {key: value for key, value in {**WEBUI, **keys}.items() if value is not ...}}


def errors(services: Any, datacenters: dict[str, list[str]] | None = None) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        normalise(services, DATACENTERS if datacenters is None else datacenters)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return list(caught.value.errors)


def test_the_smallest_entry_gets_every_default() -> None:
    assert normalise(webui(), DATACENTERS) == {"webui": NORMAL}


def test_a_normalised_catalogue_normalises_to_itself() -> None:
    entries = webui(
        gateway={"port": 80},
        mounts=[{"source": "/srv", "target": "/data"}],
        build={"wheelhouse": {}},
        health={"interval": 0.5},
    )
    once = normalise(entries, DATACENTERS)
    assert normalise(once, DATACENTERS) == once


def test_the_input_and_the_defaults_stay_as_they_were() -> None:
    entries = webui(env={"A": "1"})
    before = copy.deepcopy(entries)
    normalise(entries, DATACENTERS)["webui"]["tmpfs"].append("/changed")
    normalise(entries, DATACENTERS)["webui"]["env"]["B"] = "2"
    assert entries == before
    assert normalise(webui(), DATACENTERS) == {"webui": NORMAL}


def test_no_services_are_a_valid_catalogue() -> None:
    assert normalise({}, DATACENTERS) == {}


# what is written, where it ends up, what it becomes
BECOMES: list[tuple[dict[str, Any], str, Any]] = [
    ({"limits": {"memory": "1g"}}, "limits.memory", "1G"),
    ({"log": {"max_size": "20M"}}, "log.max_size", "20m"),
    ({"limits": {"cpus": 2.0}}, "limits.cpus", 2),
    ({"health": {"interval": 0.5}}, "health.interval", 0.5),
    ({"build": ..., "image": f"base/redis@{DIGEST}"}, "repository", "base/redis"),
    ({"build": ..., "image": f"base/redis@{DIGEST}"}, "build", None),
    ({"build": ..., "image": "redis:7.2"}, "image", "redis:7.2"),
    ({"build": {"bases": {"BASE_IMAGE": "base/python:3"}}}, "build.bases", {"BASE_IMAGE": "base/python:3"}),
    ({"repository": "team/webui"}, "repository", "team/webui"),
    ({"build": {"wheelhouse": {}}}, "build.wheelhouse", {"requirements": "requirements.lock", "python": "3.11"}),
    (
        {"mounts": [{"source": "/srv/a", "target": "/a"}]},
        "mounts",
        [{"source": "/srv/a", "target": "/a", "read_only": True}],
    ),
    ({"placement": {"datacenters": ["shanghai"]}}, "placement.datacenters", ["shanghai"]),
    ({"gateway": {"port": 443}}, "gateway", {"port": 443}),
    ({"user": "10001:10001"}, "user", "10001:10001"),
    ({"hardening": {"read_only": False, "reason": "writes beside its code"}}, "hardening.read_only", False),
    ({"env": {"NAME": "钱江源", "EMPTY": ""}}, "env", {"NAME": "钱江源", "EMPTY": ""}),
]


@pytest.mark.parametrize(("keys", "path", "expected"), BECOMES, ids=[f"{path}={value}" for _, path, value in BECOMES])
def test_a_value_becomes(keys: dict[str, Any], path: str, expected: Any) -> None:
    value: Any = normalise(webui(**keys), DATACENTERS)["webui"]
    for part in path.split("."):
        value = value[part]
    assert value == expected
    assert type(value) is type(expected)


NAME_RULE = (
    "expected a service name (lower-case letters, digits and single dashes, beginning with a letter, at most 40 long)"
)
SECTIONS = (
    "build, command, depends_on, env, gateway, hardening, health, image, keep_releases, limits, log, mounts, name, "
    "placement, port, replicas, repository, slots_port, stop_timeout, tmpfs, update, user"
)

# the catalogue as found, and every line that is said about it
MISTAKES: dict[str, tuple[Any, list[str]]] = {
    # types, strictly
    "word for seconds": (
        webui(health={"interval": "fast"}),
        ['services.webui.health.interval: expected seconds as a number, got "fast"'],
    ),
    "quoted seconds": (
        webui(health={"interval": "5"}),
        ['services.webui.health.interval: expected seconds as a number, got "5"; write 5, without quotes'],
    ),
    "seconds with a unit": (
        webui(update={"healthy_deadline": "5m"}),
        ['services.webui.update.healthy_deadline: expected seconds as a number, got "5m"; write 300'],
    ),
    "boolean for seconds": (
        webui(stop_timeout=True),
        ["services.webui.stop_timeout: expected seconds as a whole number, got true"],
    ),
    "fraction for whole seconds": (
        webui(stop_timeout=1.5),
        ["services.webui.stop_timeout: expected seconds as a whole number, got 1.5"],
    ),
    "no seconds at all": (
        webui(health={"interval": 0, "start_period": 0}),
        [
            "services.webui.health.interval: expected seconds from 0.1, got 0",
            # the engine takes 0 for the image's
            "services.webui.health.start_period: expected seconds from 0.1, got 0",
        ],
    ),
    "infinite seconds": (
        webui(health={"timeout": float("inf")}),
        ["services.webui.health.timeout: expected seconds as a number, got Infinity"],
    ),
    "boolean for a number": (
        webui(replicas=True),
        ["services.webui.replicas: expected a whole number, got true"],
    ),
    "quoted number": (
        webui(replicas="2"),
        ['services.webui.replicas: expected a whole number, got "2"; write 2, without quotes'],
    ),
    "no replica": (
        webui(replicas=0),
        ["services.webui.replicas: expected a whole number from 1, got 0"],
    ),
    "port of none": (
        webui(port=70000),
        ["services.webui.port: expected a port from 1 to 65535, got 70000"],
    ),
    "word for a port": (
        webui(port="http"),
        ['services.webui.port: expected a port as a whole number, got "http"'],
    ),
    "word for a boolean": (
        webui(update={"auto_revert": "yes"}),
        ['services.webui.update.auto_revert: expected true or false, got "yes"; write true, without quotes'],
    ),
    "number for a boolean": (
        webui(hardening={"read_only": 1}),
        ["services.webui.hardening.read_only: expected true or false, got 1"],
    ),
    "number for a string": (
        webui(user=60050),
        [
            "services.webui.user: expected a user as a string, got 60050; "
            "quote it (YAML reads 1000:50 without quotes as a number)"
        ],
    ),
    "version as a number": (
        webui(build={"wheelhouse": {"python": 3.11}}),
        ['services.webui.build.wheelhouse.python: expected a string, got 3.11; quote it: "3.11"'],
    ),
    "string for a list": (
        webui(command="gunicorn app"),
        ['services.webui.command: expected a list, got "gunicorn app"; write ["gunicorn", "app"]'],
    ),
    "number in a list": (
        webui(command=["sleep", 5]),
        ['services.webui.command[1]: expected a string, got 5; quote it: "5"'],
    ),
    "empty list": (
        webui(command=[]),
        ["services.webui.command: expected a list of at least one, got []; remove the key for the default"],
    ),
    "twice in a list": (
        webui(tmpfs=["/tmp", "/run", "/tmp"]),
        ['services.webui.tmpfs[2]: expected each value once, got "/tmp" again; remove it'],
    ),
    "string for a mapping": (
        webui(health="none"),
        ['services.webui.health: expected a mapping, got "none"'],
    ),
    "null": (
        webui(env=None),
        ["services.webui.env: expected a mapping, got null; remove the key for the default"],
    ),
    "list for the catalogue": (
        [],
        ["services: expected a mapping of service names to their keys, got []; write {} for none"],
    ),
    "null for the catalogue": (
        None,
        ["services: expected a mapping of service names to their keys, got null; write {} for none"],
    ),
    "string for a service": (
        {"webui": "webui:1"},
        ['services.webui: expected a mapping, got "webui:1"'],
    ),
    # keys
    "unknown key with a near name": (
        webui(helth={}),
        ['services.webui.helth: unknown key; did you mean "health"?'],
    ),
    "unknown key below with a near name": (
        webui(health={"intervall": 5}),
        ['services.webui.health.intervall: unknown key; did you mean "interval"?'],
    ),
    "unknown key with no near name": (
        webui(zzz=1),
        [f"services.webui.zzz: unknown key; allowed: {SECTIONS}"],
    ),
    "unknown key in a mount": (
        webui(mounts=[{"source": "/a", "target": "/b", "readonly": True}]),
        ['services.webui.mounts[0].readonly: unknown key; did you mean "read_only"?'],
    ),
    "key that is no string": (
        webui(health={1: 2}),
        [
            "services.webui.health.1: unknown key; "
            "allowed: command, interval, path, ready_path, retries, start_period, timeout"
        ],
    ),
    "required keys missing": (
        webui(port=..., slots_port=...),
        [
            "services.webui.port: missing; expected a port from 1 to 65535",
            "services.webui.slots_port: missing; expected a port from 1 to 65535",
        ],
    ),
    "required key of a mount missing": (
        webui(mounts=[{"source": "/a"}]),
        ["services.webui.mounts[0].target: missing; expected an absolute path"],
    ),
    "percent as a share": (
        webui(update={"max_errors": 5}),
        ["services.webui.update.max_errors: expected a share from 0 to 1, got 5; write 0.05 for 5 %"],
    ),
    # names
    "service name": (
        {"Web_UI": WEBUI},
        [f'services.Web_UI: {NAME_RULE}, got "Web_UI"; did you mean "web-ui"?'],
    ),
    "service name with a dot": (
        {"web.ui": WEBUI},
        [f'services.web.ui: {NAME_RULE}, got "web.ui"; did you mean "web-ui"?'],
    ),
    "service name too long": (
        {"w" * 41: WEBUI},
        [f'services.{"w" * 41}: {NAME_RULE}, got "{"w" * 41}"'],
    ),
    "service name that is a number": (
        {8080: WEBUI},
        [f"services.8080: {NAME_RULE}, got 8080"],
    ),
    "name that is not the key": (
        webui(name="portal"),
        ['services.webui.name: expected "webui", the key of the entry, got "portal"; remove it'],
    ),
    "repository": (
        webui(repository="WebUI"),
        [
            "services.webui.repository: expected a repository (lower-case letters and digits, with single . _ - / "
            'between), got "WebUI"; did you mean "webui"?'
        ],
    ),
    # image
    "image and build": (
        webui(image="webui:1"),
        ["services.webui: expected exactly one of build and image, got both; remove one"],
    ),
    "neither image nor build": (
        webui(build=...),
        [
            "services.webui: expected exactly one of build and image, got neither; "
            "add build: {} (a folder with a Dockerfile) or image (a repository at the origin)"
        ],
    ),
    "image with a registry": (
        webui(build=..., image="registry.example.com:5000/redis:7"),
        [
            'services.webui.image: expected no registry, got "registry.example.com:5000/redis:7"; '
            'each datacenter pulls from its own: write "redis:7"'
        ],
    ),
    "image on localhost": (
        webui(build=..., image="localhost/redis:7"),
        [
            'services.webui.image: expected no registry, got "localhost/redis:7"; '
            'each datacenter pulls from its own: write "redis:7"'
        ],
    ),
    "image with neither tag nor digest": (
        webui(build=..., image="redis"),
        [
            "services.webui.image: expected <repository>:<tag> or <repository>@sha256:<64 hex digits>, "
            'got "redis"; add a digest, or a tag'
        ],
    ),
    "image with half a digest": (
        webui(build=..., image="redis@sha256:abc"),
        [
            "services.webui.image: expected <repository>:<tag> or <repository>@sha256:<64 hex digits>, "
            'got "redis@sha256:abc"'
        ],
    ),
    "base image with a registry": (
        webui(build={"bases": {"BASE_IMAGE": "docker.io/library/python:3.11"}}),
        [
            'services.webui.build.bases.BASE_IMAGE: expected no registry, got "docker.io/library/python:3.11"; '
            'each datacenter pulls from its own: write "library/python:3.11"'
        ],
    ),
    "base image without a tag": (
        webui(build={"bases": {"BASE_IMAGE": "base/python"}}),
        [
            "services.webui.build.bases.BASE_IMAGE: "
            'expected <repository>:<tag> or <repository>@sha256:<64 hex digits>, got "base/python"; '
            "add a digest, or a tag"
        ],
    ),
    "base image that is an argument too": (
        webui(build={"args": {"BASE_IMAGE": "a:1"}, "bases": {"BASE_IMAGE": "a:1"}}),
        [
            "services.webui.build.args.BASE_IMAGE: expected an argument once, got it in build.bases too; "
            "keep it there, where it is passed on by digest"
        ],
    ),
    "image and another repository": (
        webui(build=..., image="redis:7", repository="cache"),
        ['services.webui.repository: expected "redis", as in image, got "cache"; remove it'],
    ),
    "two builds in one repository": (
        {"api": WEBUI | {"repository": "webui"}, "webui": WEBUI | {"slots_port": 19000}},
        [
            "services.webui.repository: expected another one than services.api.repository, or the same build, "
            'got "webui"'
        ],
    ),
    "two builds in a repository of another name": (
        {"api": WEBUI | {"repository": "page"}, "webui": WEBUI | {"slots_port": 19000, "repository": "page"}},
        [
            "services.webui.repository: expected another one than services.api.repository, or the same build, "
            'got "page"; remove it, for "webui"'
        ],
    ),
    "a name that is no text, beside others": (
        {
            1: WEBUI,
            "api": WEBUI | {"slots_port": 19000, "depends_on": ["x"]},
            "store": WEBUI | {"slots_port": 19100, "depends_on": ["api"]},
        },
        [
            f"services.1: {NAME_RULE}, got 1",
            'services.api.depends_on[0]: expected one of store, got "x"',
        ],
    ),
    # placement
    "unknown datacenter": (
        webui(placement={"datacenters": ["hangzhou", "shangahi"]}),
        [
            "services.webui.placement.datacenters[1]: expected one of guangzhou, hangzhou, shanghai, "
            'got "shangahi"; did you mean "shanghai"?'
        ],
    ),
    "datacenter without nodes": (
        webui(placement={"datacenters": ["guangzhou"]}),
        [
            'services.webui.placement.datacenters[0]: expected a datacenter with nodes, got "guangzhou"; '
            "add a host of it to the group nodes, or take it out"
        ],
    ),
    "nowhere": (
        webui(placement={"datacenters": []}),
        [
            "services.webui.placement.datacenters: expected a list of at least one, got []; "
            "remove the key for the default"
        ],
    ),
    # ports
    "slots of two services": (
        {
            "api": WEBUI | {"replicas": 2},
            "far": WEBUI | {"slots_port": 30000},
            "webui": WEBUI | {"slots_port": 18083},
        },
        [
            "services.webui.slots_port: expected host ports of its own, got 18083-18084, "
            "and services.api has 18080-18083 on the nodes of hangzhou, shanghai; 18084 is free"
        ],
    ),
    "slots past the last port": (
        webui(slots_port=65534, replicas=2),
        [
            "services.webui.slots_port: expected room for 2 ports per replica up to 65535, got 65534-65537; "
            "the highest that fits is 65532"
        ],
    ),
    "gateway port of two services": (
        {
            "api": WEBUI | {"gateway": {"port": 80}, "placement": {"datacenters": ["shanghai"]}},
            "webui": WEBUI | {"gateway": {"port": 80}, "slots_port": 19000},
        },
        [
            "services.webui.gateway.port: expected a port of its own, got 80, "
            "and services.api has it on the gateway of shanghai"
        ],
    ),
    # update policy, as Nomad has it
    "healthy for as long as the deadline": (
        webui(update={"min_healthy_time": 300}),
        ["services.webui.update.min_healthy_time: expected less than update.healthy_deadline (300), got 300"],
    ),
    "deadline past progress": (
        webui(update={"healthy_deadline": 600}),
        ["services.webui.update.healthy_deadline: expected less than update.progress_deadline (600), got 600"],
    ),
    "start past the deadline": (
        webui(health={"start_period": 400}),
        ["services.webui.health.start_period: expected less than update.healthy_deadline (300), got 400"],
    ),
    "no update at all": (
        webui(update={"max_parallel": 0}),
        ["services.webui.update.max_parallel: expected a whole number from 1, got 0"],
    ),
    "more canaries than nodes": (
        webui(update={"canary": 2}),
        ["services.webui.update.canary: expected at most 1, the nodes of shanghai, got 2"],
    ),
    "proven after the deadline": (
        webui(update={"min_healthy_time": 290}, health={"interval": 10}),
        [
            "services.webui.update.healthy_deadline: expected more than "
            "update.min_healthy_time + health.interval (300), got 300"
        ],
    ),
    "revert to nothing": (
        webui(keep_releases=0),
        [
            "services.webui.keep_releases: expected 1 or more with update.auto_revert, got 0; "
            "a revert needs the release before"
        ],
    ),
    # dependencies
    "unknown dependency": (
        {"api": WEBUI, "webui": WEBUI | {"slots_port": 19000, "depends_on": ["ap"]}},
        ['services.webui.depends_on[0]: expected one of api, got "ap"; did you mean "api"?'],
    ),
    "on itself": (
        webui(depends_on=["webui"]),
        ["services.webui.depends_on: expected no circle, got webui -> webui; remove one of them"],
    ),
    "circle": (
        {
            "a": WEBUI | {"slots_port": 1100, "depends_on": ["b"]},
            "b": WEBUI | {"slots_port": 1200, "depends_on": ["c"]},
            "c": WEBUI | {"slots_port": 1300, "depends_on": ["a"]},
            "d": WEBUI | {"slots_port": 1400, "depends_on": ["a"]},
        },
        ["services.a.depends_on: expected no circle, got a -> b -> c -> a; remove one of them"],
    ),
    # paths
    "relative mount": (
        webui(mounts=[{"source": "data", "target": "/a/../b"}]),
        [
            'services.webui.mounts[0].source: expected an absolute path, got "data"',
            'services.webui.mounts[0].target: expected an absolute path, got "/a/../b"; write "/b"',
        ],
    ),
    "colon in a path": (
        webui(mounts=[{"source": "/a:b", "target": "/c"}]),
        [
            'services.webui.mounts[0].source: expected an absolute path, got "/a:b"; '
            "a colon separates paths for the engine"
        ],
    ),
    "mount over the root": (
        webui(mounts=[{"source": "/srv", "target": "/"}]),
        ['services.webui.mounts[0].target: expected a path below /, got "/"'],
    ),
    "two mounts on one target": (
        webui(mounts=[{"source": "/a", "target": "/x"}, {"source": "/b", "target": "/x"}]),
        ['services.webui.mounts[1].target: expected a target of its own, got "/x" again'],
    ),
    "tmpfs on a mount": (
        webui(mounts=[{"source": "/a", "target": "/tmp"}]),
        ['services.webui.mounts[0].target: expected a target of its own, got "/tmp", also in tmpfs'],
    ),
    "health path": (
        webui(health={"path": "healthz"}),
        ['services.webui.health.path: expected a URL path beginning with /, got "healthz"; write "/healthz"'],
    ),
    "health path that HAProxy would cut": (
        webui(health={"ready_path": "/ready#now"}),
        [
            "services.webui.health.ready_path: expected a URL path of letters, digits and -._~!()*+,;&=:@%/?, "
            'got "/ready#now"'
        ],
    ),
    "control character in a path": (
        webui(mounts=[{"source": "/a\nb", "target": "/x"}]),
        ['services.webui.mounts[0].source: expected an absolute path without control characters, got "/a\\nb"'],
    ),
    "NUL in a command": (
        webui(command=["a\0b"]),
        ['services.webui.command[0]: expected a string without NUL characters, got "a\\u0000b"'],
    ),
    "root under another name of its number": (
        webui(user="00:0"),
        ['services.webui.hardening.reason: missing; expected why, because of user: "00:0"'],
    ),
    # environment
    "a name in env that YAML reads as another thing": (
        webui(env={True: "1", "X": "2"}),
        ['services.webui.env.True: expected a variable\'s name, got true, as YAML reads it; quote it: "ON"'],
    ),
    "NUL in env": (
        webui(env={"A": "a\0b"}),
        ["services.webui.env.A: expected a string without NUL characters (not shown, it may be a secret)"],
    ),
    "number in env": (
        webui(env={"WORKERS": 4}),
        ["services.webui.env.WORKERS: expected a string, got a number (not shown, it may be a secret); quote it"],
    ),
    "the platform's own name in env": (
        webui(env={"QJ_NODE": "a"}),
        ["services.webui.env.QJ_NODE: expected another name: those with QJ_ tell a container which one it is"],
    ),
    "boolean in env": (
        webui(env={"DEBUG": True}),
        ['services.webui.env.DEBUG: expected a string, got true; quote it: "true"'],
    ),
    "null in env": (
        webui(env={"TOKEN": None}),
        ['services.webui.env.TOKEN: expected a string, got null; write "" for an empty one'],
    ),
    "name in env": (
        webui(env={"A-B": "1"}),
        ["services.webui.env.A-B: expected a variable's name (letters, digits and _, no digit first)"],
    ),
    "list in env": (
        webui(env=["A=1"]),
        ["services.webui.env: expected a mapping, got a list (not shown, it may hold secrets); write NAME: value"],
    ),
    # sizes
    "memory as a number": (
        webui(limits={"memory": 268435456}),
        ['services.webui.limits.memory: expected a size such as "256M" (K, M or G), got 268435456'],
    ),
    "memory in other units": (
        webui(limits={"memory": "256MB"}),
        ['services.webui.limits.memory: expected a size such as "256M" (K, M or G), got "256MB"; write "256M"'],
    ),
    "memory too small": (
        webui(limits={"memory": "4M"}),
        ['services.webui.limits.memory: expected at least 6M (the engine takes no less), got "4M"'],
    ),
    "log size": (
        webui(log={"max_size": "ten"}),
        ['services.webui.log.max_size: expected a size such as "10m" (k, m or g), got "ten"'],
    ),
    "no cpu": (
        webui(limits={"cpus": 0}),
        ["services.webui.limits.cpus: expected a number from 0.01, got 0"],
    ),
    # hardening
    "weakened without a reason": (
        webui(hardening={"read_only": False, "capabilities": ["NET_ADMIN"], "no_new_privileges": False}, user="root"),
        [
            "services.webui.hardening.reason: missing; expected why, because of hardening.read_only: false, "
            'hardening.capabilities: ["NET_ADMIN"], hardening.no_new_privileges: false, user: "root"'
        ],
    ),
    "the engine's socket without a reason": (
        webui(mounts=[{"source": "/var/run/docker.sock", "target": "/docker.sock"}]),
        ['services.webui.hardening.reason: missing; expected why, because of mounts: "/var/run/docker.sock"'],
    ),
    "empty reason": (
        webui(hardening={"read_only": False, "reason": " "}),
        ['services.webui.hardening.reason: expected a reason in words, got " "'],
    ),
    "capability": (
        webui(hardening={"capabilities": ["CAP_CHOWN"], "reason": "x"}),
        [
            "services.webui.hardening.capabilities[0]: expected a Linux capability, "
            'got "CAP_CHOWN"; did you mean "CHOWN"?'
        ],
    ),
    "build network": (
        webui(build={"network": "bridge"}),
        ['services.webui.build.network: expected one of none, default, host, got "bridge"'],
    ),
    # all of them at once; what follows from a mistake is not reported beside it
    "several": (
        {
            "api": WEBUI | {"slots_port": "18080", "gateway": {"port": 80}},
            "webui": WEBUI | {"update": {"min_healthy_time": "long", "healthy_deadline": 5}, "gateway": {"port": 80}},
        },
        [
            'services.api.slots_port: expected a port as a whole number, got "18080"; write 18080, without quotes',
            'services.webui.update.min_healthy_time: expected seconds as a number, got "long"',
            "services.webui.health.start_period: expected less than update.healthy_deadline (5), got 10",
            "services.webui.gateway.port: expected a port of its own, got 80, "
            "and services.api has it on the gateway of hangzhou, shanghai",
        ],
    ),
}


@pytest.mark.parametrize(("services", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(services: Any, expected: list[str]) -> None:
    assert errors(services) == expected


def test_a_long_value_is_cut_in_the_message() -> None:
    (line,) = errors(webui(replicas="x" * 500))
    assert line == f'services.webui.replicas: expected a whole number, got "{"x" * 59}…'


def test_no_nodes_anywhere() -> None:
    assert errors(webui(), {"hangzhou": []}) == [
        "services.webui.placement.datacenters: expected a datacenter with nodes, but no datacenter has any; "
        "add hosts to the group nodes"
    ]


def test_two_services_of_one_build_share_an_image() -> None:
    build = {"context": "services/webui"}
    worker = WEBUI | {"repository": "webui", "build": build, "slots_port": 19000}
    assert list(normalise({"webui": WEBUI | {"build": build}, "worker": worker}, DATACENTERS)) == ["webui", "worker"]


VALID: dict[str, dict[str, Any]] = {
    "the same slots in different datacenters": {
        "api": WEBUI | {"placement": {"datacenters": ["hangzhou"]}},
        "webui": WEBUI | {"placement": {"datacenters": ["shanghai"]}},
    },
    "slots side by side": {"api": WEBUI | {"replicas": 2}, "webui": WEBUI | {"slots_port": 18084}},
    "a gateway port among the slots, which are on other hosts": {
        "api": WEBUI | {"gateway": {"port": 18085}},
        "webui": WEBUI | {"slots_port": 18084},
    },
    "a gateway port in different datacenters": {
        "api": WEBUI | {"placement": {"datacenters": ["hangzhou"]}, "gateway": {"port": 80}},
        "webui": WEBUI | {"placement": {"datacenters": ["shanghai"]}, "gateway": {"port": 80}},
    },
    "all canaries": webui(update={"canary": 2}, placement={"datacenters": ["hangzhou"]}),
    "no canary": webui(update={"canary": 0}),
    "no kept release when nothing reverts": webui(keep_releases=0, update={"auto_revert": False}),
    "a weakened service with its reason": webui(user="0", hardening={"reason": "binds port 80 inside"}),
    "the last port": webui(slots_port=65534),
}


@pytest.mark.parametrize("services", VALID.values(), ids=VALID)
def test_valid(services: dict[str, Any]) -> None:
    assert list(normalise(services, DATACENTERS)) == list(services)


ORDERS: list[tuple[dict[str, list[str]], list[str]]] = [
    ({}, []),
    ({"b": [], "a": []}, ["a", "b"]),
    ({"webui": ["api"], "api": ["state"], "state": []}, ["state", "api", "webui"]),
    ({"a": ["d", "c"], "b": [], "c": ["d"], "d": []}, ["d", "c", "a", "b"]),
]


@pytest.mark.parametrize(("depends_on", "expected"), ORDERS)
def test_dependencies_come_first_then_names(depends_on: dict[str, list[str]], expected: list[str]) -> None:
    assert order_by_dependency({name: {"depends_on": names} for name, names in depends_on.items()}) == expected


def test_the_schema_and_the_type_have_the_same_keys() -> None:
    def paths(kind: Any, prefix: str) -> set[str]:
        found = set()
        for name, hint in typing.get_type_hints(kind).items():
            found.add(prefix + name)
            inner = [hint, *typing.get_args(hint)]
            for candidate in inner:
                if typing.is_typeddict(candidate):
                    found |= paths(candidate, f"{prefix}{name}{'[]' if typing.get_origin(hint) is list else ''}.")
        return found

    assert paths(catalogue_schema.Service, "") == {key.path for key in catalogue_schema.KEYS}


REFERENCE = ROOT / "docs/reference/catalogue.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->\n"


def test_the_reference_has_every_key_as_the_schema_has_it() -> None:
    head, rest = REFERENCE.read_text(encoding="utf-8").split(BEGIN)
    table, tail = rest.split(END)
    expected = catalogue_schema.reference_table()
    if os.environ.get("UPDATE_REFERENCE"):
        REFERENCE.write_text(head + BEGIN + expected + END + tail, encoding="utf-8")
        return
    drift = "\n".join(difflib.unified_diff(table.splitlines(), expected.splitlines(), lineterm="", n=0))
    assert not drift, f"write it anew: UPDATE_REFERENCE=1 pytest {Path(__file__).relative_to(ROOT)}\n{drift}"


FILTERS = load("plugins/filter/catalogue.py").FilterModule().filters()


def test_the_filter_returns_every_error_and_nothing_that_may_be_secret() -> None:
    services = webui(health={"interval": "fast"}, replicas=0, env={"DATABASE_PASSWORD": "correct horse", "PORT": 1234})
    assert FILTERS["catalogue_errors"](services, DATACENTERS, {}, {}) == [
        "services.webui.replicas: expected a whole number from 1, got 0",
        "services.webui.env.PORT: expected a string, got a number (not shown, it may be a secret); quote it",
        'services.webui.health.interval: expected seconds as a number, got "fast"',
    ]
    assert FILTERS["catalogue_errors"](webui(), DATACENTERS, {}, {}) == []


def test_the_gateway_of_a_datacenter_forwards_to_every_slot() -> None:
    services = normalise(
        {
            "webui": WEBUI | {"gateway": {"port": 80}, "replicas": 2},
            "api": WEBUI | {"gateway": {"port": 81}, "slots_port": 19000, "placement": {"datacenters": ["shanghai"]}},
            "worker": WEBUI | {"slots_port": 20000},
        },
        DATACENTERS,
    )
    backends = FILTERS["gateway_backends"](services, "hangzhou", {"hz2": "10.0.0.2", "hz1": "10.0.0.1"})
    assert backends == [
        {
            "name": "webui",
            "port": 80,
            "health": {"path": "/healthz", "ready_path": "/readyz", "interval": 2, "timeout": 2, "retries": 3},
            "drain_timeout": 30,
            "servers": [
                {"name": "hz1.0.a", "address": "10.0.0.1", "port": 18080},
                {"name": "hz1.0.b", "address": "10.0.0.1", "port": 18081},
                {"name": "hz1.1.a", "address": "10.0.0.1", "port": 18082},
                {"name": "hz1.1.b", "address": "10.0.0.1", "port": 18083},
                {"name": "hz2.0.a", "address": "10.0.0.2", "port": 18080},
                {"name": "hz2.0.b", "address": "10.0.0.2", "port": 18081},
                {"name": "hz2.1.a", "address": "10.0.0.2", "port": 18082},
                {"name": "hz2.1.b", "address": "10.0.0.2", "port": 18083},
            ],
        }
    ]
    names = [b["name"] for b in FILTERS["gateway_backends"](services, "shanghai", {"sh1": "10.0.1.1"})]
    assert names == ["api", "webui"]


def test_backends_of_a_raw_catalogue_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="webui lacks placement: pass the catalogue as normalised"):
        FILTERS["gateway_backends"](webui(gateway={"port": 80}), "hangzhou", {})


def test_the_filter_normalises_and_fails_with_every_error() -> None:
    assert FILTERS["normalised_services"](webui(), DATACENTERS) == {"webui": NORMAL}
    with pytest.raises(AnsibleFilterError, match=r"2 errors in the catalogue:\nservices.webui.replicas: .*\nservices"):
        FILTERS["normalised_services"](webui(health={"interval": "fast"}, replicas=0), DATACENTERS)


def test_nodes_are_grouped_by_their_datacenter() -> None:
    hostvars = {"hz1": {"datacenter": "hangzhou"}, "hz2": {"datacenter": "hangzhou"}, "sh1": {"datacenter": "shanghai"}}
    group = FILTERS["nodes_by_datacenter"]
    assert group(["hz2", "sh1", "hz1"], hostvars, ["hangzhou", "shanghai", "guangzhou"]) == {
        "hangzhou": ["hz2", "hz1"],
        "shanghai": ["sh1"],
        "guangzhou": [],
    }
    with pytest.raises(AnsibleFilterError, match='bj1: datacenter: expected one of hangzhou, got "beijing"'):
        group(["bj1"], {"bj1": {"datacenter": "beijing"}}, ["hangzhou"])
