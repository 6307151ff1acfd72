"""service_compare: what runs here against the catalogue, as a table of engine lists."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang.container import container_spec, create_body
from ansible.module_utils.qianjiang.service_state import Owned, State

DIGEST, NEW_DIGEST = "sha256:" + "a" * 64, "sha256:" + "b" * 64
REFERENCE = "registry.hangzhou.lab:5000/webui"
SERVICE: dict[str, Any] = {
    "name": "webui",
    "replicas": 1,
    "port": 8080,
    "slots_port": 18080,
    "env": {"TITLE": "Qianjiangyuan"},
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
        "command": ["./check"],
        "interval": 2,
        "timeout": 2,
        "retries": 3,
        "start_period": 10,
    },
    "stop_timeout": 30,
    "keep_releases": 2,
}
Loader = Callable[[str], ModuleType]


def container(release: int, slot: str, status: str = "running", **other: Any) -> Owned:
    item: dict[str, Any] = {
        "container": f"webui.0.r{release}",
        "id": f"id{release}",
        "service": "webui",
        "replica": 0,
        "release": release,
        "slot": slot,
        "digest": DIGEST,
        "configuration": "c",
        "status": status,
        "image_id": "image",
    }
    return item | other  # type: ignore[return-value]


def inspected(release: int, slot: str, restart: str = "unless-stopped", running: bool = True) -> dict[str, Any]:
    """What the engine shows of a container that it made from our own request."""
    spec = container_spec(SERVICE, REFERENCE, DIGEST, release=release, replica=0, slot=slot)
    body = create_body(spec, restart)
    host = body.pop("HostConfig")
    return {
        "Name": "/" + spec["name"],
        "Image": "image",
        "Config": body,
        "HostConfig": host,
        "State": {
            "Running": running,
            "Status": "running" if running else "exited",
            "StartedAt": "2026-11-24T08:00:00Z",
            "Health": {"Status": "healthy"},
        },
    }


class FakeEngine:
    """The two questions that the module asks about single containers."""

    def __init__(self, inspects: dict[str, Any]) -> None:
        self.inspect = inspects.get

    def inspect_image(self, image: str) -> dict[str, Any]:
        return {"Id": image}


def run(
    load_module: Loader,
    containers: list[Owned],
    state: State,
    inspects: dict[str, Any],
    services: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    wanted = services or [{"service": SERVICE, "reference": REFERENCE, "digest": DIGEST}]
    result: dict[str, Any] = load_module("service_compare").report(
        wanted, containers, {"webui": state}, FakeEngine(inspects)
    )
    return result


AT_REST = [container(5, "b", "exited"), container(6, "a")]
INSPECTS = {"id5": inspected(5, "b", running=False), "id6": inspected(6, "a")}
STATE: State = {"highest_release": 6, "current": {"0": "webui.0.r6"}}


def test_a_node_on_its_release_differs_in_nothing(load_module: Loader) -> None:
    assert run(load_module, AT_REST, STATE, INSPECTS) == {
        "services": {
            "webui": {
                "replicas": [
                    {
                        "replica": 0,
                        "current": {
                            "container": "webui.0.r6",
                            "release": 6,
                            "digest": DIGEST,
                            "configuration": "c",
                            "slot": "a",
                            "running": True,
                            "health": "healthy",
                            "started_at": "2026-11-24T08:00:00Z",
                        },
                        "free_slot": "b",
                        "differences": [],
                        "extra": [],
                    }
                ],
                "highest_release": 6,
                "kept": [
                    {"replica": 0, "release": 5, "digest": DIGEST, "configuration": "c", "container": "webui.0.r5"}
                ],
            }
        },
        "orphans": [],
    }


def differences(result: dict[str, Any], replica: int = 0) -> list[tuple[str, Any, Any]]:
    found = result["services"]["webui"]["replicas"][replica]["differences"]
    return [(item["name"], item["before"], item["after"]) for item in found]


@pytest.mark.parametrize(
    ("service", "digest", "expected"),
    [
        ({}, NEW_DIGEST, [("image", DIGEST, NEW_DIGEST)]),
        ({}, None, [("image", DIGEST, "(not known yet)")]),
        ({"env": {}}, DIGEST, [("env.TITLE", "Qianjiangyuan", None)]),
        ({"replicas": 1}, DIGEST, []),
    ],
)
def test_what_the_catalogue_changes(
    load_module: Loader, service: dict[str, Any], digest: str | None, expected: list[Any]
) -> None:
    wanted = [{"service": SERVICE | service, "reference": REFERENCE, "digest": digest}]
    assert differences(run(load_module, AT_REST, STATE, INSPECTS, wanted)) == expected


def test_a_service_that_never_ran(load_module: Loader) -> None:
    result = run(load_module, [], {"highest_release": 0, "current": {}}, {})
    assert differences(result) == [("image", None, DIGEST)]
    replica = result["services"]["webui"]["replicas"][0]
    assert (replica["current"], replica["free_slot"]) == (None, "a")


def test_a_current_one_that_stopped(load_module: Loader) -> None:
    inspects = {"id6": inspected(6, "a", running=False)}
    result = run(load_module, [container(6, "a", "exited")], STATE, inspects)
    assert differences(result) == [("running", False, True)]
    assert result["services"]["webui"]["kept"] == []


def test_a_candidate_left_over_is_extra_and_the_record_decides(load_module: Loader) -> None:
    result = run(load_module, [*AT_REST, container(7, "b")], STATE, INSPECTS | {"id7": inspected(7, "b", "no")})
    replica = result["services"]["webui"]["replicas"][0]
    assert (replica["current"]["container"], replica["extra"], replica["free_slot"]) == (
        "webui.0.r6",
        ["webui.0.r7"],
        "b",
    )


def test_a_candidate_that_died_is_not_kept_for_rollback(load_module: Loader) -> None:
    containers = [*AT_REST, container(7, "b", "exited"), container(8, "b", "created")]
    created = inspected(8, "b", running=False)
    created["State"]["Status"] = "created"
    inspects = INSPECTS | {"id7": inspected(7, "b", "no", running=False), "id8": created}
    result = run(load_module, containers, STATE, inspects)
    assert [item["container"] for item in result["services"]["webui"]["kept"]] == ["webui.0.r5"]


def test_containers_that_nobody_names_are_orphans(load_module: Loader) -> None:
    old = container(3, "a", service="portal", container="portal.0.r3")
    surplus = container(6, "a", replica=1, container="webui.1.r6", id="surplus")
    result = run(load_module, [*AT_REST, surplus, old], STATE, INSPECTS)
    assert result["orphans"] == [
        {"container": "webui.1.r6", "service": "webui", "replica": 1, "release": 6, "running": True},
        {"container": "portal.0.r3", "service": "portal", "replica": 0, "release": 3, "running": True},
    ]


def test_a_container_removed_in_the_meantime_is_not_there(load_module: Loader) -> None:
    result = run(load_module, AT_REST, STATE, {})
    assert differences(result) == [("image", None, DIGEST)]


def test_a_second_entry_for_a_service_is_refused(load_module: Loader) -> None:
    entry = {"service": SERVICE, "reference": REFERENCE, "digest": DIGEST}
    with pytest.raises(ValueError, match=r"^services: webui is listed twice$"):
        run(load_module, [], STATE, {}, [entry, entry])
