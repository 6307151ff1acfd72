"""A server that dies, falls silent, or is away at boot: nothing is lost, nothing hangs."""

from __future__ import annotations

import time

import pytest
from clients import EXPORT, ON_DEMAND, SHARED, STRICT, Guest, apply, eventually, lab


def test_a_writer_waits_for_a_killed_server_and_loses_nothing(files1: Guest) -> None:
    lab("kill-server")
    files1.background("dd if=/dev/zero bs=64k count=8 of=/mnt/shared/hard conv=fsync; echo $? > /run/written")
    time.sleep(6)
    assert files1.run("test -e /run/written").rc == 1, "the writer did not wait"

    lab("serve")

    eventually("the writer ends", lambda: files1.run("test -e /run/written").rc == 0, 90)
    assert files1.output("cat /run/written") == "0"
    assert (EXPORT / "hard").stat().st_size == 8 * 64 * 1024


@pytest.mark.usefixtures("dead_server")
def test_the_role_does_not_hang_where_nothing_is_to_do() -> None:
    play = apply()

    assert play.status == 0, play.output
    assert play.changed() == 0
    assert play.seconds < 30


@pytest.mark.usefixtures("dead_server")
def test_a_new_mount_fails_in_time_and_says_why(files1: Guest) -> None:
    play = apply(nfs_client_mounts=[SHARED, ON_DEMAND, STRICT, {**SHARED, "path": "/mnt/new"}])

    assert play.status != 0
    assert "/mnt/new: 10.213.0.1:/export is not mounted: no answer from 10.213.0.1 within 10 s" in play.text()
    assert play.seconds < 45
    assert files1.mount("/mnt/shared"), "the mounts that were there stay"


@pytest.mark.usefixtures("dead_server")
def test_a_host_boots_without_the_server(files2: Guest) -> None:
    assert files2.reboot() < 60
    assert files2.mount("/mnt/shared") == ""


def test_an_automount_comes_back_with_the_server(files2: Guest) -> None:
    eventually("the automount answers", lambda: "blob" in files2.run("timeout 30 ls /mnt/on-demand").stdout, 90)


def test_the_role_mounts_what_the_boot_could_not_and_drops_what_failed(files1: Guest, files2: Guest) -> None:
    play = apply()

    assert play.status == 0, play.output
    assert files2.mount("/mnt/shared")
    for client in (files1, files2):
        assert client.run("systemctl cat mnt-new.mount").rc != 0
        assert client.mount("/mnt/new") == ""


def test_mounts_are_back_after_a_reboot(files1: Guest) -> None:
    files1.reboot()

    eventually("the mount is back", lambda: files1.mount("/mnt/shared") != "", 30)
    assert files1.output("stat -c %s /mnt/shared/blob") == "3000000"
