"""Garbage collection frees the space of deleted images, and harms nobody."""

from __future__ import annotations

import socket

from registries import Registry

SLOW = "/run/systemd/system/docker-registry-collect.service.d/slow.conf"
LAYER = 5_000_000


def test_the_space_of_a_deleted_image_is_freed_and_the_others_stay(registry: Registry) -> None:
    kept_directory, kept = registry.make(1_000_000)
    directory, digest = registry.make(LAYER)
    assert registry.push(kept_directory, "kept").rc == 0
    assert registry.push(directory, "going").rc == 0
    before = registry.used()
    assert registry.delete(digest).rc == 0
    registry.be_quiet()
    registry.collect()
    assert before - registry.used() >= LAYER
    assert registry.pull(kept).rc == 0
    assert registry.pull(digest).rc != 0
    # The registry must not believe that the layer is still there
    assert registry.push(directory, "back").rc == 0
    assert registry.pull(digest).rc == 0


def test_an_image_without_a_tag_stays(registry: Registry) -> None:
    """Services run by digest, and what is replicated has no tag."""
    directory, digest = registry.make(1000)
    other, _ = registry.make(1000)
    assert registry.push(directory, "moving").rc == 0
    assert registry.push(other, "moving").rc == 0
    registry.be_quiet()
    registry.collect()
    assert registry.pull(digest).rc == 0


def test_a_collection_is_skipped_while_somebody_pushes(registry: Registry) -> None:
    directory, digest = registry.make(LAYER)
    assert registry.push(directory, "busy").rc == 0
    assert registry.delete(digest).rc == 0
    before = registry.used()
    registry.collect()
    assert registry.used() == before
    assert registry.host.check_output("systemctl is-failed docker-registry-collect.service || true") == "inactive"


def test_a_collection_is_skipped_while_somebody_is_connected(registry: Registry) -> None:
    """A transfer that takes longer than the registry has to stop would be cut off."""
    directory, digest = registry.make(LAYER)
    assert registry.push(directory, "pulled").rc == 0
    assert registry.delete(digest).rc == 0
    registry.be_quiet()
    before = registry.used()
    host, _, port = registry.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10):
        registry.collect()
        assert registry.used() == before
    registry.collect()
    assert registry.used() < before


def test_nothing_is_written_during_a_collection_and_a_killed_one_leaves_nothing_behind(registry: Registry) -> None:
    directory, digest = registry.make(1000)
    other, _ = registry.make(1000)
    assert registry.push(directory, "during").rc == 0
    registry.be_quiet()
    registry.host.check_output(
        f"mkdir --parents $(dirname {SLOW}) && printf '[Service]\\nExecStart=/bin/sleep 120\\n' >{SLOW}"
        " && systemctl daemon-reload && systemctl start --no-block docker-registry-collect.service && sleep 2"
    )
    try:
        registry.wait()
        refused = registry.push(other, "during")
        assert refused.rc != 0
        assert "405" in refused.stderr
        assert registry.pull(digest).rc == 0
    finally:
        registry.host.check_output(
            f"systemctl kill --signal KILL docker-registry-collect.service; rm {SLOW}; systemctl daemon-reload; sleep 1"
        )
    registry.wait()
    assert registry.push(other, "during").rc == 0
    registry.host.run("systemctl reset-failed docker-registry-collect.service")
