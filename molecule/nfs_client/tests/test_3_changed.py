"""Mounts that change or leave the list: never from under a program that uses them, unless asked."""

from __future__ import annotations

import pytest
from clients import EXPORT, ON_DEMAND, SHARED, Guest, apply

GONE = {"path": "/mnt/shared", "state": "absent"}


def test_other_options_take_effect(files1: Guest, files2: Guest) -> None:
    play = apply(nfs_client_options=["vers=4.1", "hard", "nodev", "nosuid", "nofail"])

    assert play.status == 0, play.output
    for client in (files1, files2):
        assert ",vers=4.1," in client.mount("/mnt/shared")


def test_a_busy_mount_stays_and_its_user_is_named(files1: Guest) -> None:
    files1.background("cd /mnt/shared && exec sleep 1000")

    play = apply(nfs_client_mounts=[ON_DEMAND, GONE])

    assert play.status != 0
    assert "/mnt/shared: cannot be unmounted: used by sleep (" in play.text()
    assert files1.mount("/mnt/shared")


def test_a_mount_that_a_container_has_stays(files1: Guest) -> None:
    # As a container's: a mount namespace that gets nothing of what the host mounts and unmounts
    files1.background("exec unshare --mount --propagation private sleep 1001")

    play = apply(nfs_client_mounts=[ON_DEMAND, GONE])
    files1.output("pkill -f '^sleep 1001'")

    assert play.status != 0
    assert "/mnt/shared: cannot be unmounted: used by sleep (" in play.text()
    assert files1.mount("/mnt/shared")


@pytest.mark.usefixtures("dead_server")
def test_a_mount_of_a_dead_server_is_detached_only_when_asked(files1: Guest) -> None:
    files1.background("dd if=/dev/zero bs=64k count=8 of=/mnt/shared/late conv=fsync")

    refused = apply(nfs_client_mounts=[ON_DEMAND, GONE])

    assert refused.status != 0
    assert refused.seconds < 60
    assert files1.mount("/mnt/shared")

    asked = apply(nfs_client_mounts=[ON_DEMAND, GONE], nfs_client_lazy_unmount=True)

    assert asked.status == 0, asked.output
    assert files1.mount("/mnt/shared") == ""


def test_what_leaves_the_list_and_what_fstab_names_is_removed(files1: Guest, files2: Guest) -> None:
    files2.output("echo '10.213.0.1:/export /mnt/legacy nfs vers=4.2 0 0' >> /etc/fstab")
    files2.output("systemctl daemon-reload && mkdir -p /mnt/legacy && mount /mnt/legacy")
    assert files2.mount("/mnt/legacy")

    play = apply(nfs_client_mounts=[{"path": "/mnt/legacy", "state": "absent"}])

    assert play.status == 0, play.output
    assert "/mnt/legacy" not in files2.output("cat /etc/fstab")
    for client in (files1, files2):
        assert "/mnt/" not in client.output("cat /proc/mounts")
        assert client.run("ls /etc/systemd/system/mnt-*").rc != 0
        assert client.output("ls /mnt") == ""


def test_what_is_mounted_below_a_new_mount_is_not_hidden(files1: Guest) -> None:
    outer, inner = {**SHARED, "path": "/mnt/outer"}, {**SHARED, "path": "/mnt/outer/inner"}
    apply(nfs_client_mounts=[inner])

    play = apply(nfs_client_mounts=[outer, inner])

    assert play.status == 0, play.output
    files1.output("touch /mnt/outer/outside /mnt/outer/inner/inside")
    assert (EXPORT / "outside").exists()
    assert (EXPORT / "inside").exists()
    assert apply(nfs_client_mounts=[outer, inner]).changed() == 0
    assert apply(nfs_client_mounts=[]).status == 0
    assert "/mnt/" not in files1.output("cat /proc/mounts")


def test_what_made_room_for_a_mount_that_fails_comes_back(files1: Guest) -> None:
    inner = {**SHARED, "path": "/mnt/outer/inner"}
    apply(nfs_client_mounts=[inner])

    play = apply(nfs_client_mounts=[{**SHARED, "path": "/mnt/outer", "export": "/nothing"}, inner])

    assert play.status != 0
    assert "/mnt/outer: 10.213.0.1:/nothing is not mounted" in play.text()
    assert files1.mount("/mnt/outer/inner")
    assert files1.mount("/mnt/outer") == ""
    assert apply(nfs_client_mounts=[inner]).changed() == 0
    assert apply(nfs_client_mounts=[]).status == 0


def test_an_empty_list_runs_no_task_of_the_role() -> None:
    play = apply(nfs_client_mounts=[])

    assert play.status == 0
    assert play.changed() == 0
    assert (
        play.count("files1", "ok") == 2
    )  # the facts, and the check of the arguments that ansible puts before each role
