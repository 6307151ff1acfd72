"""The configuration hash: equal for equal containers, different for each difference that a container would show."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.qianjiang.catalogue import normalise
from ansible.module_utils.qianjiang.release import configuration_hash

ENTRY = {
    "image": "webui:1",
    "port": 8080,
    "slots_port": 18080,
    "env": {"A": "1", "B": "2"},
    "mounts": [{"source": "/srv/a", "target": "/a"}, {"source": "/srv/b", "target": "/b"}],
    "tmpfs": ["/tmp", "/run"],
    "hardening": {"capabilities": ["CHOWN", "NET_BIND_SERVICE"], "reason": "binds port 80"},
}


def service() -> dict[str, Any]:
    normal: dict[str, Any] = normalise({"webui": ENTRY}, {"hangzhou": ["n1"]})["webui"]
    return copy.deepcopy(normal)


def test_the_hash_is_sha256_of_canonical_json() -> None:
    small = dict.fromkeys(service()) | {"hardening": {}, "health": {}, "mounts": [], "tmpfs": []}
    text = (
        '{"command":null,"env":null,"hardening":{},"health":{},"limits":null,"log":null,"mounts":[],'
        '"port":null,"stop_timeout":null,"tmpfs":[],"user":null}'
    )
    assert configuration_hash(small) == hashlib.sha256(text.encode()).hexdigest()


# what changes in the service, in words and as code
SAME: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": dict.copy,
    "another order of variables": lambda s: s.update(env={"B": "2", "A": "1"}),
    "another order of mounts": lambda s: s["mounts"].reverse(),
    "another order of tmpfs": lambda s: s["tmpfs"].reverse(),
    "another order of capabilities": lambda s: s["hardening"]["capabilities"].reverse(),
    "the reason in other words": lambda s: s["hardening"].update(reason="other words"),
    "the gateway's readiness path": lambda s: s["health"].update(ready_path="/other"),
    "the update policy": lambda s: s["update"].update(max_parallel=2),
    "replicas": lambda s: s.update(replicas=3),
    "placement": lambda s: s["placement"].update(datacenters=["shanghai"]),
    "the image": lambda s: s.update(image="webui:2"),
    "the gateway's port": lambda s: s.update(gateway={"port": 81}),
    "releases kept": lambda s: s.update(keep_releases=5),
}
DIFFERENT: dict[str, Callable[[dict[str, Any]], object]] = {
    "a variable's value": lambda s: s["env"].update(A="3"),
    "a variable more": lambda s: s["env"].update(C=""),
    "a variable less": lambda s: s["env"].pop("A"),
    "command": lambda s: s.update(command=["serve"]),
    "the order of the command": lambda s: s.update(command=["serve", "--now"]),
    "user": lambda s: s.update(user="10001"),
    "a mount": lambda s: s["mounts"].pop(),
    "a mount's access": lambda s: s["mounts"][0].update(read_only=False),
    "tmpfs": lambda s: s["tmpfs"].pop(),
    "memory": lambda s: s["limits"].update(memory="512M"),
    "log size": lambda s: s["log"].update(max_size="20m"),
    "a capability": lambda s: s["hardening"]["capabilities"].pop(),
    "read-only root": lambda s: s["hardening"].update(read_only=False),
    "health path": lambda s: s["health"].update(path="/other"),
    "health interval": lambda s: s["health"].update(interval=3),
    "port": lambda s: s.update(port=8081),
    "stop timeout": lambda s: s.update(stop_timeout=31),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_a_change_that_no_container_shows_keeps_the_hash(change: Callable[[dict[str, Any]], object]) -> None:
    changed = service()
    change(changed)
    assert configuration_hash(changed) == configuration_hash(service())


def test_each_difference_of_a_container_has_its_own_hash() -> None:
    hashes = {configuration_hash(service())}
    for change in DIFFERENT.values():
        changed = service()
        change(changed)
        hashes.add(configuration_hash(changed))
    assert len(hashes) == 1 + len(DIFFERENT)


def test_the_service_is_left_as_it_was() -> None:
    before = service()
    configuration_hash(before)
    assert before == service()


def test_numbers_that_are_equal_hash_equal() -> None:
    whole = normalise({"webui": ENTRY | {"limits": {"cpus": 1}}}, {"hangzhou": ["n1"]})["webui"]
    point = normalise({"webui": ENTRY | {"limits": {"cpus": 1.0}}}, {"hangzhou": ["n1"]})["webui"]
    assert configuration_hash(whole) == configuration_hash(point)
