"""What a user asked for: one folder, seen on every host, mounted the way the defaults promise."""

from __future__ import annotations

from clients import EXPORT, Guest


def test_the_mount_has_the_promised_options(files1: Guest, files2: Guest) -> None:
    for client in (files1, files2):
        line = client.mount("/mnt/shared")
        for option in ("vers=4.2", "hard", "nodev", "nosuid"):
            assert option in line.replace(" ", ",").split(","), line


def test_a_mount_may_have_options_of_its_own(files1: Guest) -> None:
    line = files1.mount("/mnt/strict")

    assert ",noac," in line
    assert "nosuid" not in line


def test_what_one_host_writes_the_other_and_the_server_read(files1: Guest, files2: Guest) -> None:
    written = files1.output("head -c 3000000 /dev/urandom > /mnt/shared/blob && sha256sum < /mnt/shared/blob")

    assert files2.output("sha256sum < /mnt/shared/blob") == written
    assert (EXPORT / "blob").stat().st_size == 3000000


def test_a_lock_holds_across_hosts(files1: Guest, files2: Guest) -> None:
    files1.background('flock /mnt/shared/lock sh -c "touch /mnt/shared/locked; sleep 4"')
    files2.output("for i in $(seq 50); do test -e /mnt/shared/locked && break; sleep 0.1; done")

    assert files2.run("flock --nonblock --conflict-exit-code 77 /mnt/shared/lock true").rc == 77


def test_an_automount_mounts_on_the_first_access(files1: Guest) -> None:
    assert files1.mount("/mnt/on-demand") == ""

    assert "blob" in files1.output("ls /mnt/on-demand")

    assert files1.mount("/mnt/on-demand")
