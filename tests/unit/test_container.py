"""What a container is described as, and how a running one is compared with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.module_utils.qianjiang.change import Change
from ansible.module_utils.qianjiang.container import compare as compare_specs
from ansible.module_utils.qianjiang.container import (
    container_spec,
    create_body,
    memory_bytes,
    moved_body,
    observed_spec,
)

DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64
REFERENCE = "registry.hangzhou.lab:5000/webui"

SERVICE: dict[str, Any] = {
    "name": "webui",
    "replicas": 1,
    "port": 8080,
    "slots_port": 18080,
    "env": {"TITLE": "Qianjiangyuan"},
    "command": None,
    "user": None,
    "mounts": [{"source": "/srv/webui", "target": "/data", "read_only": True}],
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
}
# What `docker image inspect` and `docker inspect` say about a container made of SERVICE, in the engine's words
IMAGE: dict[str, Any] = {
    "Config": {
        "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
        "Cmd": ["./run.sh"],
        "User": "10001:10001",
        "Healthcheck": {"Test": ["CMD", "./check"], "Interval": 30_000_000_000},
    }
}
INSPECT: dict[str, Any] = {
    "Name": "/webui.0.r7",
    "Config": {
        "Image": f"{REFERENCE}@{DIGEST}",
        "Env": ["TITLE=Qianjiangyuan", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
        "Cmd": ["./run.sh"],
        "User": "10001:10001",
        "StopTimeout": 30,
        "Healthcheck": {
            "Test": ["CMD", "./check"],
            "Interval": 2_000_000_000,
            "Timeout": 2_000_000_000,
            "Retries": 3,
            "StartPeriod": 10_000_000_000,
        },
        "Labels": {
            "io.qianjiang.service": "webui",
            "io.qianjiang.replica": "0",
            "io.qianjiang.release": "7",
            "io.qianjiang.slot": "b",
            "io.qianjiang.digest": DIGEST,
            "io.qianjiang.configuration": "c" * 64,
            "io.qianjiang.health_path": "/healthz",
        },
    },
    "HostConfig": {
        "Memory": 268435456,
        "MemorySwap": -1,
        "NanoCpus": 500000000,
        "PidsLimit": 128,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": None,
        "SecurityOpt": ["no-new-privileges:true"],
        "Init": True,
        "Tmpfs": {"/tmp": "rw,nosuid,nodev,noexec"},
        "Mounts": [{"Type": "bind", "Source": "/srv/webui", "Target": "/data", "ReadOnly": True}],
        "PortBindings": {"8080/tcp": [{"HostIp": "", "HostPort": "18081"}]},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
    },
}


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `base` with the value at `a.b.c` replaced (None removes it)."""
    result = copy.deepcopy(base)
    *parents, last = path.split("/")
    place = result
    for key in parents:
        place = place[key]
    if value is None:
        place.pop(last)
    else:
        place[last] = value
    return result


def compare(service: dict[str, Any], inspect: dict[str, Any], digest: str = DIGEST) -> list[Change]:
    return compare_specs(
        container_spec(service, REFERENCE, digest, release=8, replica=0, slot="a"), observed_spec(inspect, IMAGE)
    )


def difference(name: str, before: Any, after: Any) -> dict[str, Any]:
    return {"name": name, "before": before, "after": after}


def test_another_release_number_and_slot_are_no_difference() -> None:
    assert compare(SERVICE, INSPECT) == []


def test_what_the_engine_cannot_keep_as_exactly_is_no_difference() -> None:
    service = changed(changed(SERVICE, "limits/cpus", 1 / 3), "health/interval", 2.00000000004)
    assert compare(service, changed(INSPECT, "HostConfig/NanoCpus", 333333333)) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("env", {"TITLE": "New"}, [difference("env.TITLE", "(hidden)", "(hidden)")]),
        ("env", {"TITLE": "Qianjiangyuan", "MORE": "1"}, [difference("env.MORE", None, "(hidden)")]),
        ("env", {}, [difference("env.TITLE", "(hidden)", None)]),
        (
            "env",
            {"TITLE": "Qianjiangyuan", "LANG": "zh_CN.UTF-8"},
            [difference("env.LANG", "(hidden)", "(hidden)")],
        ),
        # the same value as the image's is no difference, whoever sets it
        ("env", {"TITLE": "Qianjiangyuan", "LANG": "C.UTF-8"}, []),
        ("command", ["./run.sh"], []),
        ("command", ["./other.sh", "-v"], [difference("command", ["./run.sh"], ["./other.sh", "-v"])]),
        ("user", "10001:10001", []),
        ("user", "0", [difference("user", "10001:10001", "0")]),
        ("mounts", [], [difference("mounts./data", "/srv/webui (read only)", None)]),
        (
            "mounts",
            [
                {"source": "/srv/webui", "target": "/data", "read_only": False},
                {"source": "/a", "target": "/b", "read_only": True},
            ],
            [
                difference("mounts./b", None, "/a (read only)"),
                difference("mounts./data", "/srv/webui (read only)", "/srv/webui"),
            ],
        ),
        (
            "tmpfs",
            ["/run"],
            [
                difference("tmpfs./run", None, "rw,nosuid,nodev,noexec"),
                difference("tmpfs./tmp", "rw,nosuid,nodev,noexec", None),
            ],
        ),
        (
            "limits",
            {"memory": "1G", "cpus": 2, "pids": 64},
            [
                difference("limits.cpus", 0.5, 2),
                difference("limits.memory", 268435456, 1073741824),
                difference("limits.pids", 128, 64),
            ],
        ),
        (
            "limits",
            {"memory": None, "cpus": None, "pids": None},
            [
                difference("limits.cpus", 0.5, None),
                difference("limits.memory", 268435456, None),
                difference("limits.pids", 128, None),
            ],
        ),
        ("log", {"max_size": "10m", "max_file": 5}, [difference("log.max_file", 3, 5)]),
        ("stop_timeout", 5, [difference("stop_timeout", 30, 5)]),
        ("port", 9090, [difference("ports", "18080 to 8080/tcp", "18080 to 9090/tcp")]),
        ("slots_port", 19000, [difference("ports", "18080 to 8080/tcp", "19000 to 8080/tcp")]),
        (
            "hardening",
            {"read_only": False, "capabilities": ["NET_BIND_SERVICE"], "no_new_privileges": False, "reason": "x"},
            [
                difference("capabilities", [], ["NET_BIND_SERVICE"]),
                difference("no_new_privileges", True, False),
                difference("read_only", True, False),
            ],
        ),
        ("health/interval", 0.5, [difference("health.interval", 2, 0.5)]),
        ("health/path", "/live", [difference("health.path", "/healthz", "/live")]),
        ("health/ready_path", "/other", []),
        ("health/command", ["./check"], []),
        ("health/command", ["./deep"], [difference("health.command", ["./check"], ["./deep"])]),
        ("replicas", 4, []),
    ],
)
def test_a_changed_catalogue_is_listed_by_name(path: str, value: Any, expected: list[Any]) -> None:
    assert compare(changed(SERVICE, path, value) if value is not None else SERVICE, INSPECT) == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        # set by hand on the container: removed again
        (
            "Config/Env",
            ["TITLE=Qianjiangyuan", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "DEBUG=1"],
            [difference("env.DEBUG", "(hidden)", None)],
        ),
        ("Config/Image", f"registry.shanghai.lab:5000/webui@{DIGEST}", []),
        ("Config/Image", "webui:latest", [difference("image", "webui:latest", DIGEST)]),
        ("HostConfig/ReadonlyRootfs", False, [difference("read_only", False, True)]),
        ("HostConfig/CapDrop", None, [difference("capabilities", "the engine's defaults", [])]),
        ("HostConfig/SecurityOpt", None, [difference("no_new_privileges", None, True)]),
        ("HostConfig/Init", None, [difference("init", False, True)]),
        ("HostConfig/PortBindings", None, [difference("ports", None, "18080 to 8080/tcp")]),
        (
            "HostConfig/LogConfig",
            {"Type": "local", "Config": {}},
            [
                difference("log.driver", "local", "json-file"),
                difference("log.max_file", None, 3),
                difference("log.max_size", None, "10m"),
            ],
        ),
        ("HostConfig/Memory", 134217728, [difference("limits.memory", 134217728, 268435456)]),
        (
            "HostConfig/RestartPolicy",
            {"Name": "always"},
            [difference("restart", "always", "unless-stopped")],
        ),
        ("Config/Healthcheck", {"Test": ["NONE"]}, None),
    ],
)
def test_a_changed_container_is_listed_by_name(path: str, value: Any, expected: list[Any] | None) -> None:
    differences = compare(SERVICE, changed(INSPECT, path, value))
    if expected is None:
        assert {item["name"] for item in differences} == {
            "health.command",
            "health.interval",
            "health.retries",
            "health.start_period",
            "health.timeout",
        }
    else:
        assert differences == expected


def test_another_digest_is_one_difference() -> None:
    assert compare(SERVICE, INSPECT, OTHER_DIGEST) == [difference("image", DIGEST, OTHER_DIGEST)]


def test_a_limit_that_the_kernel_cannot_keep_is_no_difference() -> None:
    spec = container_spec(SERVICE, REFERENCE, DIGEST, release=8, replica=0, slot="a")
    inspect = changed(INSPECT, "HostConfig/PidsLimit", None)
    inspect["Config"]["Labels"]["io.qianjiang.configuration"] = spec["labels"]["io.qianjiang.configuration"]
    assert compare_specs(spec, observed_spec(inspect, IMAGE)) == []


PLACE = {"node": "hangzhou-node1", "datacenter": "hangzhou"}


def test_what_a_container_is_told_about_itself_is_no_difference() -> None:
    spec = container_spec(SERVICE, REFERENCE, DIGEST, release=8, replica=0, slot="b", place=PLACE)
    inspect = copy.deepcopy(INSPECT)
    inspect["Config"]["Env"].append("QJ_RELEASE=7")
    assert compare_specs(spec, observed_spec(inspect, IMAGE)) == []


def test_the_request_to_the_engine_is_complete() -> None:
    body = create_body(container_spec(SERVICE, REFERENCE, DIGEST, release=7, replica=1, slot="b", place=PLACE))
    labels = body.pop("Labels")
    assert len(labels.pop("io.qianjiang.configuration")) == 64
    assert labels == {
        "io.qianjiang.service": "webui",
        "io.qianjiang.replica": "1",
        "io.qianjiang.release": "7",
        "io.qianjiang.slot": "b",
        "io.qianjiang.digest": DIGEST,
        "io.qianjiang.health_path": "/healthz",
    }
    assert body == {
        "Image": f"{REFERENCE}@{DIGEST}",
        "Env": [
            "QJ_DATACENTER=hangzhou",
            f"QJ_DIGEST={DIGEST}",
            "QJ_NODE=hangzhou-node1",
            "QJ_RELEASE=7",
            "QJ_REPLICA=1",
            "QJ_SERVICE=webui",
            "QJ_SLOT=b",
            "TITLE=Qianjiangyuan",
        ],
        "Healthcheck": {
            "Interval": 2_000_000_000,
            "Timeout": 2_000_000_000,
            "Retries": 3,
            "StartPeriod": 10_000_000_000,
            "StartInterval": 1_000_000_000,
        },
        "StopTimeout": 30,
        "ExposedPorts": {"8080/tcp": {}},
        "HostConfig": {
            "Memory": 268435456,
            "MemorySwap": 268435456,
            "NanoCpus": 500000000,
            "PidsLimit": 128,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": [],
            "SecurityOpt": ["no-new-privileges:true"],
            "Init": True,
            "Tmpfs": {"/tmp": "rw,nosuid,nodev,noexec"},
            "Mounts": [{"Type": "bind", "Source": "/srv/webui", "Target": "/data", "ReadOnly": True}],
            "PortBindings": {"8080/tcp": [{"HostPort": "18083"}]},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
            # a candidate that ends is not started again: the policy comes when it is proven
            "RestartPolicy": {"Name": "no"},
        },
    }


def test_a_command_user_and_check_of_its_own() -> None:
    service = {
        **SERVICE,
        "command": ["serve"],
        "user": "1:1",
        "health": {**SERVICE["health"], "command": ["./deep", "-q"]},
    }
    body = create_body(container_spec(service, REFERENCE, DIGEST, release=7, replica=0, slot="a"))
    assert (body["Cmd"], body["User"], body["Healthcheck"]["Test"]) == (["serve"], "1:1", ["CMD", "./deep", "-q"])


@pytest.mark.parametrize(
    ("text", "number"), [("256M", 268435456), ("1g", 1073741824), ("512k", 524288), ("1048576", 1048576), (None, 0)]
)
def test_memory(text: str | None, number: int) -> None:
    assert memory_bytes(text) == number


def test_memory_must_be_a_size() -> None:
    with pytest.raises(ValueError, match=r"^limits.memory: expected a size such as 256M, got \"much\"$"):
        memory_bytes("much")


def engine_shows(body: dict[str, Any]) -> dict[str, Any]:
    """What the engine shows of a container it made from this request, with what it adds itself."""
    config = {key: value for key, value in copy.deepcopy(body).items() if key != "HostConfig"}
    own = {"Hostname": "0123456789ab", "Domainname": "", "Tty": False}
    return {"Config": config | own, "HostConfig": copy.deepcopy(body["HostConfig"]) | {"NetworkMode": "bridge"}}


def test_a_container_moves_to_the_other_slot_as_it_is() -> None:
    here = create_body(container_spec(SERVICE, REFERENCE, DIGEST, release=7, replica=1, slot="b", place=PLACE))
    there = create_body(container_spec(SERVICE, REFERENCE, DIGEST, release=7, replica=1, slot="a", place=PLACE))
    inspect = engine_shows(here)
    before = copy.deepcopy(inspect)
    moved = moved_body(inspect, "a", 18082)
    assert moved == there | {"Tty": False, "HostConfig": there["HostConfig"] | {"NetworkMode": "bridge"}}
    assert moved["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert inspect == before
    assert moved_body(engine_shows(moved), "a", 18082) == moved


def test_a_proven_one_must_prove_itself_again_after_a_move() -> None:
    proven = create_body(container_spec(SERVICE, REFERENCE, DIGEST, release=7, replica=0, slot="b"), "unless-stopped")
    assert moved_body(engine_shows(proven), "a", 18080)["HostConfig"]["RestartPolicy"] == {"Name": "no"}


def test_without_a_port_nothing_is_published() -> None:
    body = create_body(container_spec(SERVICE | {"port": None}, REFERENCE, DIGEST, release=7, replica=0, slot="b"))
    moved = moved_body(engine_shows(body), "a", None)
    assert "PortBindings" not in moved["HostConfig"]
    assert moved["Labels"]["io.qianjiang.slot"] == "a"
    bare = {"Config": {"Image": "x", "Labels": None, "Env": None}, "HostConfig": {"PortBindings": None}}
    assert moved_body(bare, "a", 18080)["HostConfig"]["PortBindings"] == {}
