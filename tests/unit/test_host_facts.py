"""The parsers behind host_facts, on text as real hosts print it, and the module's answer when a source is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from ansible.module_utils.qianjiang import host

Load = Callable[[str], ModuleType]

OS_RELEASES = [
    pytest.param(
        'NAME="Debian GNU/Linux"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n',
        ("Debian", "12", "12", "bookworm", "Debian"),
        id="debian",
    ),
    pytest.param(
        'NAME="Ubuntu"\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n',
        ("Ubuntu", "24.04", "24", "noble", "Debian"),
        id="ubuntu",
    ),
    pytest.param(
        '# a comment = no field\nNAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
        ("Rocky", "9.4", "9", "NA", "RedHat"),
        id="rocky",
    ),
    pytest.param(
        'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\nVERSION_CODENAME=wilma\n',
        ("Ubuntu", "22", "22", "wilma", "Debian"),
        id="a derivative counts as what it is like",
    ),
    pytest.param('NAME="Alpine Linux"\nID=alpine\n', ("Alpine Linux", "NA", "NA", "NA", "Alpine Linux"), id="unknown"),
    pytest.param("", ("NA", "NA", "NA", "NA", "NA"), id="no file"),
]


@pytest.mark.parametrize(("text", "expected"), OS_RELEASES)
def test_distribution(text: str, expected: tuple[str, ...]) -> None:
    facts = host.parse_os_release(text)

    names = ("distribution", "distribution_version", "distribution_major_version", "distribution_release", "os_family")
    assert tuple(facts[name] for name in names) == expected


def test_only_installed_packages_count() -> None:
    text = (
        "install\tinstalled\tpython3\t3.11.2-1+b1\n"
        "hold\tinstalled\tdocker.io\t20.10.24+dfsg1-1+deb12u1\n"
        "deinstall\tconfig-files\tnfs-common\t1:2.6.2-4\n"
        "install\tinstalled\tlibc6\t2.36\n"
        "install\tinstalled\tlibc6\t2.36\n"
    )

    assert host.parse_packages(text) == {
        "python3": [{"version": "3.11.2-1+b1"}],
        "docker.io": [{"version": "20.10.24+dfsg1-1+deb12u1", "hold": True}],
        "libc6": [{"version": "2.36"}, {"version": "2.36"}],
    }


def test_what_dnf_locks_is_held() -> None:
    locks = (
        "# Added lock on Mon Jan  5 10:00:00 2026\n"
        "docker-ce-3:26.1.3-1.el9.*\n"
        "docker-ce-cli-1:26.1.3-1.el9.*\n"
        "!containerd.io-0:1.6.1-3.1.el9.*\n"
    )

    held = host.parse_versionlock(locks)
    text = "install\tinstalled\tdocker-ce\t26.1.3-1.el9\ninstall\tinstalled\tcontainerd.io\t1.6.33-3.1.el9\n"

    assert held == {"docker-ce", "docker-ce-cli"}
    assert host.parse_packages(text, held) == {
        "docker-ce": [{"version": "26.1.3-1.el9", "hold": True}],
        "containerd.io": [{"version": "1.6.33-3.1.el9"}],
    }


def test_services_say_whether_they_run_and_will_run() -> None:
    text = (
        "Id=docker.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\n"
        "Id=modules.service\nLoadState=loaded\nActiveState=active\nSubState=exited\nUnitFileState=static\n\n"
        "Id=broken.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=disabled\n\n"
        "Id=idle.service\nLoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=\n\n"
        "Id=gone.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n"
    )

    assert host.parse_services(text) == {
        "docker.service": {"state": "running", "status": "enabled"},
        "modules.service": {"state": "active", "status": "static"},
        "broken.service": {"state": "failed", "status": "disabled"},
        "idle.service": {"state": "stopped", "status": "unknown"},
    }


def test_no_services_at_all() -> None:
    assert host.parse_services("") == {}


def test_mounts_leave_out_the_kernels_own_and_decode_names() -> None:
    text = (
        "proc /proc proc rw,nosuid 0 0\n"
        "overlay / overlay rw,lowerdir=/l 0 0\n"
        "files.example.com:/export /mnt/with\\040space nfs4 rw,vers=4.2,hard 0 0\n"
        "systemd-1 /mnt/later autofs rw,fd=49 0 0\n"
        "/dev/vda1 /srv ext4 rw 0 0\n"
    )

    assert [(mount["device"], mount["mount"], mount["fstype"]) for mount in host.parse_mounts(text)] == [
        ("files.example.com:/export", "/mnt/with space", "nfs4"),
        ("systemd-1", "/mnt/later", "autofs"),
        ("/dev/vda1", "/srv", "ext4"),
    ]


def test_groups_without_members_are_left_out() -> None:
    assert host.parse_groups("root:x:0:\ndocker:x:998:deploy,ops\nbad line\n") == {"docker": ["deploy", "ops"]}


@pytest.mark.parametrize(
    ("directories", "expected"),
    [
        (["run/systemd/system", "etc/init.d"], "systemd"),
        (["etc/init.d"], "sysvinit"),
        (["sbin/openrc", "etc/init.d"], "openrc"),
        ([], "service"),
    ],
)
def test_service_manager(tmp_path: Path, directories: list[str], expected: str) -> None:
    for directory in directories:
        (tmp_path / directory).mkdir(parents=True)

    assert host.service_manager(tmp_path) == expected


def test_facts_of_this_host_have_the_stock_names(load_module: Load) -> None:
    facts = load_module("host_facts").gather()

    assert facts["ansible_os_family"] in {"Debian", "RedHat"}
    assert facts["ansible_architecture"]
    assert facts["packages"]


def test_the_locks_of_dnf_are_read(load_module: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load_module("host_facts")
    locks = tmp_path / "versionlock.list"
    locks.write_text("docker-ce-3:26.1.3-1.el9.*\n")
    monkeypatch.setattr(module, "LOCKS", str(locks))
    answer = ["echo", "install\tinstalled\tdocker-ce\t26.1.3-1.el9"]
    monkeypatch.setattr(module, "DPKG", answer)
    monkeypatch.setattr(module, "RPM", answer)

    assert module.gather()["packages"] == {"docker-ce": [{"version": "26.1.3-1.el9", "hold": True}]}


def test_a_part_that_cannot_be_read_is_left_out(load_module: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_module("host_facts")
    monkeypatch.setattr(module, "DPKG", ["no-such-command"])
    monkeypatch.setattr(module, "RPM", ["false"])
    monkeypatch.setattr(module, "SYSTEMCTL", ["false"])

    facts = module.gather()

    assert "packages" not in facts
    assert "services" not in facts


def test_a_command_that_never_ends_is_left_out(load_module: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_module("host_facts")
    monkeypatch.setattr(module, "TIMEOUT", 0.1)

    assert module.finish(module.start(["sleep", "60"])) is None


def test_units_of_the_project_are_known_by_their_first_line(
    load_module: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = load_module("host_facts")
    monkeypatch.setattr(module, "UNITS", tmp_path)
    (tmp_path / "mnt-ours.mount").write_text("# Managed by qianjiangyuan nfs_client\n[Mount]\n")
    (tmp_path / "mnt-theirs.mount").write_text("[Mount]\n")
    (tmp_path / "note.txt").write_text("# Managed by qianjiangyuan\n")
    (tmp_path / "dangling.service").symlink_to("/nonexistent")

    assert module.managed_units() == ["mnt-ours.mount"]
