"""NFS mounts: (list, host) → changes; what must be unmounted first; what never happens on a right host."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang import durable, nfs_mounts, systemd
from ansible.module_utils.qianjiang.nfs_mounts import Current, Mount, Mounted
from ansible.module_utils.testing import patch_module_args

SHARED = Mount("files.lab", "/export", "/mnt/shared", ("vers=4.2", "hard"))
LATER = Mount("files.lab", "/export", "/mnt/later", ("hard",), automount=True)
ABSENT = Mount("", "", "/mnt/shared", (), present=False)
MOUNTED = Mounted("files.lab:/export", "/mnt/shared", "nfs4")
WAITING = Mounted("systemd-1", "/mnt/later", "autofs")
RIGHT = Current(units=SHARED.units, enabled=frozenset({"mnt-shared.mount"}), mounted=(MOUNTED,))
SOFT = Mount("files.lab", "/export", "/mnt/shared", ("soft",))
MODELS = Mount("files.lab", "/models", "/mnt/shared/models", ("hard",))
ON_DEMAND = Mount("files.lab", "/models", "/mnt/shared/models", ("hard",), automount=True)
BESIDE = Mount("files.lab", "/models", "/mnt/shared-models", ("hard",))


def with_one_more(mount: Mount, *mounted: Mounted) -> Current:
    """The host that is right, and another mount of the list."""
    return Current(RIGHT.units | mount.units, RIGHT.enabled | {mount.entry}, (MOUNTED, *mounted))


PLANS = [
    pytest.param([], Current(), [], id="nothing wanted, nothing there"),
    pytest.param([SHARED], RIGHT, [], id="right already"),
    pytest.param(
        [SHARED],
        Current(),
        ["/mnt/shared unit", "/mnt/shared enabled", "/mnt/shared mounted"],
        id="new",
    ),
    pytest.param(
        [SHARED], Current(units=RIGHT.units, enabled=RIGHT.enabled), ["/mnt/shared mounted"], id="not mounted"
    ),
    pytest.param(
        [SHARED],
        Current(RIGHT.units, RIGHT.enabled, (Mounted("other:/export", "/mnt/shared", "nfs4"),)),
        ["/mnt/shared mounted"],
        id="something else is mounted",
    ),
    pytest.param(
        [Mount("files.lab", "/export", "/mnt/shared", ("soft",))], RIGHT, ["/mnt/shared unit"], id="other options"
    ),
    pytest.param(
        [Mount("files.lab", "/export", "/mnt/shared", SHARED.options, timeout=5)],
        RIGHT,
        ["/mnt/shared unit"],
        id="another timeout",
    ),
    pytest.param(
        [SHARED], Current(RIGHT.units, frozenset(), RIGHT.mounted), ["/mnt/shared enabled"], id="only disabled"
    ),
    pytest.param(
        [SHARED],
        Current(RIGHT.units, RIGHT.enabled, RIGHT.mounted, "files.lab:/export /mnt/shared nfs defaults 0 0\n"),
        ["/mnt/shared in fstab"],
        id="in fstab too",
    ),
    pytest.param(
        [LATER],
        Current(LATER.units, frozenset({"mnt-later.automount"}), (WAITING,)),
        [],
        id="an automount that nobody used",
    ),
    pytest.param(
        [LATER],
        Current(
            LATER.units,
            frozenset({"mnt-later.automount"}),
            (WAITING, Mounted("files.lab:/export", "/mnt/later", "nfs4")),
        ),
        [],
        id="an automount in use",
    ),
    pytest.param(
        [LATER],
        Current(LATER.units, frozenset({"mnt-later.automount"})),
        ["/mnt/later automount"],
        id="an automount that is not waiting",
    ),
    pytest.param([ABSENT], RIGHT, ["/mnt/shared unit", "/mnt/shared mounted"], id="absent"),
    pytest.param([ABSENT], Current(), [], id="absent already"),
    pytest.param([ABSENT], Current(mounted=(MOUNTED,)), ["/mnt/shared mounted"], id="absent, mounted by others"),
    pytest.param([], RIGHT, ["/mnt/shared unit", "/mnt/shared mounted"], id="gone from the list"),
    pytest.param([], Current(mounted=(MOUNTED,)), [], id="mounts of others are left alone"),
    pytest.param(
        [SHARED, MODELS],
        with_one_more(MODELS, Mounted(MODELS.source, MODELS.path, "nfs4")),
        [],
        id="one below another, right already",
    ),
    pytest.param(
        [MODELS, SOFT],
        with_one_more(MODELS, Mounted(MODELS.source, MODELS.path, "nfs4")),
        ["/mnt/shared unit", "/mnt/shared/models remounted"],
        id="below one that changes",
    ),
    pytest.param(
        [MODELS],
        with_one_more(MODELS, Mounted(MODELS.source, MODELS.path, "nfs4")),
        ["/mnt/shared unit", "/mnt/shared mounted", "/mnt/shared/models remounted"],
        id="below one that leaves the list",
    ),
    pytest.param(
        [SOFT, ON_DEMAND],
        with_one_more(ON_DEMAND, Mounted("systemd-1", ON_DEMAND.path, "autofs")),
        ["/mnt/shared unit", "/mnt/shared/models remounted"],
        id="an automount below one that changes",
    ),
    pytest.param(
        [SOFT],
        with_one_more(MODELS, Mounted(MODELS.source, MODELS.path, "nfs4")),
        ["/mnt/shared unit", "/mnt/shared/models unit", "/mnt/shared/models mounted"],
        id="both go",
    ),
    pytest.param(
        [SOFT, BESIDE],
        with_one_more(BESIDE, Mounted(BESIDE.source, BESIDE.path, "nfs4")),
        ["/mnt/shared unit"],
        id="beside one that changes",
    ),
    pytest.param(
        [Mount("files.lab", "/export", "/mnt/shared", SHARED.options, timeout=5), MODELS],
        with_one_more(MODELS, Mounted(MODELS.source, MODELS.path, "nfs4")),
        ["/mnt/shared unit"],
        id="below one that changes and stays mounted",
    ),
]


@pytest.mark.parametrize(("mounts", "current", "names"), PLANS)
def test_plan(mounts: list[Mount], current: Current, names: list[str]) -> None:
    assert [change["name"] for change in nfs_mounts.plan(mounts, current)] == names


def test_a_change_tells_before_and_after() -> None:
    changes = nfs_mounts.plan([Mount("files.lab", "/export", "/mnt/shared", ("soft",))], RIGHT)

    assert changes == [
        {
            "name": "/mnt/shared unit",
            "path": "/mnt/shared",
            "before": "files.lab:/export (vers=4.2,hard)",
            "after": "files.lab:/export (soft)",
        }
    ]


@pytest.mark.parametrize(
    ("mount", "current", "expected"),
    [
        pytest.param(SHARED, Current(), False, id="new"),
        pytest.param(Mount("files.lab", "/export", "/mnt/shared", ("soft",)), RIGHT, True, id="other options"),
        pytest.param(
            Mount("files.lab", "/export", "/mnt/shared", SHARED.options, timeout=5),
            RIGHT,
            False,
            id="another timeout cuts nobody off",
        ),
        pytest.param(SHARED, Current(RIGHT.units, frozenset(), RIGHT.mounted), False, id="only disabled"),
        pytest.param(ABSENT, RIGHT, True, id="absent"),
        pytest.param(ABSENT, Current(units=RIGHT.units), False, id="absent, not mounted"),
    ],
)
def test_must_unmount(mount: Mount, current: Current, expected: bool) -> None:
    assert nfs_mounts.must_unmount(mount, current) is expected


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"server": "files.lab", "export": "/e", "path": "mnt"},
            "mounts[0].path: expected an absolute path without spaces, .. or a / at its end, got 'mnt'",
        ),
        (
            {"server": "files.lab", "export": "/e", "path": "/mnt/../etc"},
            "mounts[0].path: expected an absolute path without spaces, .. or a / at its end, got '/mnt/../etc'",
        ),
        ({"export": "/e", "path": "/mnt"}, "mounts[0].server: expected a host name or an address, got None"),
        (
            {"server": "files.lab", "export": "e", "path": "/mnt"},
            "mounts[0].export: expected an absolute path without spaces, .. or a / at its end, got 'e'",
        ),
        *(
            (
                {"server": "files.lab", "export": export, "path": "/mnt"},
                f"mounts[0].export: expected an absolute path without spaces, .. or a / at its end, got {export!r}",
            )
            for export in ("/export/", "//export", "/srv//export", "//", "/srv/../export", "/srv/./export", "/a b", "")
        ),
        (
            {"server": "files.lab", "export": "/e", "path": "/mnt", "options": ["hard,intr"]},
            "mounts[0].options: expected a list with one option in each entry, got 'hard,intr'",
        ),
    ],
)
def test_wrong_input(entry: dict[str, Any], message: str) -> None:
    assert nfs_mounts.errors([entry]) == [message]


@pytest.mark.parametrize("export", ["/", "/export", "/srv/export.d/..jobs"])
def test_an_export_as_the_kernel_writes_it(export: str) -> None:
    assert nfs_mounts.errors([{"server": "files.lab", "export": export, "path": "/mnt"}]) == []


def test_a_path_twice_is_wrong_and_an_absent_one_needs_no_server() -> None:
    absent = {"path": "/mnt/a", "state": "absent"}

    assert nfs_mounts.errors([absent]) == []
    assert nfs_mounts.errors([absent, absent]) == ["mounts[1].path: /mnt/a is in the list twice"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/mnt/shared", "mnt-shared"),
        ("/mnt/my-data", "mnt-my\\x2ddata"),
        ("/srv/a_b.c:d", "srv-a_b.c:d"),
        ("/.hidden/x", "\\x2ehidden-x"),
        ("/mnt/数据", "mnt-\\xe6\\x95\\xb0\\xe6\\x8d\\xae"),
    ],
)
def test_unit_names_are_those_of_systemd_escape(path: str, name: str) -> None:
    assert nfs_mounts.unit_name(path) == name


def test_an_address_of_version_6_gets_brackets_and_percent_is_doubled() -> None:
    mount = Mount("fe80::1", "/a%b", "/mnt/x", ())

    assert "What=[fe80::1]:/a%%b\n" in mount.units["mnt-x.mount"]
    assert nfs_mounts.describe(mount.units) == "[fe80::1]:/a%b ()"


def test_fstab_loses_only_nfs_at_the_path() -> None:
    kept = "# files:/e /mnt/shared nfs x 0 0\n/dev/sda1 /mnt/shared ext4 x 0 0\nfiles:/e /mnt/other nfs x 0 0\n"

    assert nfs_mounts.fstab_without(kept + "files:/e /mnt/shared nfs4 x 0 0\n", "/mnt/shared") == kept


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[General]\nDomain = lab\n\n"),
        ("[General]\nVerbosity = 0\n", "[General]\nDomain = lab\nVerbosity = 0\n"),
        ("[General]\n# Domain = x\nDomain = old\n", "[General]\n# Domain = x\nDomain = lab\n"),
        ("[General]\nDomain = lab\n", "[General]\nDomain = lab\n"),
    ],
)
def test_idmapd(before: str, after: str) -> None:
    assert nfs_mounts.idmapd_with(before, "lab") == after
    changes = nfs_mounts.plan([], Current(idmapd=before), "lab")
    assert bool(changes) is (before != after)


ROOT = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n"
CONTAINER = "700 600 0:90 / / rw master:30 - overlay overlay rw\n"


class Host:
    """A host on a temporary directory whose systemd mounts what it is told to, unless the server is dead."""

    def __init__(self, module: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.calls: list[list[str]] = []
        self.dead = False
        self.refused = ""  # a path whose export the server does not let be mounted
        self.nfsidmap: str | None = "/usr/sbin/nfsidmap"
        self.units: dict[str, dict[str, str]] = {}
        (root / "etc/systemd/system/remote-fs.target.wants").mkdir(parents=True)
        (root / "proc/self/ns").mkdir(parents=True)
        (root / "proc/self/ns/mnt").symlink_to("mnt:[1]")
        self.mounts = root / "proc/self/mountinfo"
        self.mounts.write_text(ROOT)
        monkeypatch.setattr(module, "ROOT", root)
        monkeypatch.setattr(module.AnsibleModule, "get_bin_path", lambda *_arguments: self.nfsidmap)
        monkeypatch.setattr(systemd, "run", self.run)
        monkeypatch.setattr(systemd, "show", self.show)
        monkeypatch.setattr(systemd, "journal", lambda *_arguments: ["mount.nfs: Connection timed out"])

    @property
    def refused_unit(self) -> str:
        return f"{nfs_mounts.unit_name(self.refused)}.mount"

    def unit(self, name: str) -> Path:
        return self.root / "etc/systemd/system" / name

    def run(self, command: list[str], timeout: float = 30) -> systemd.Answer:  # noqa: ARG002
        self.calls.append(command)
        if Path(command[0]).name == "nfsidmap" and not self.nfsidmap:
            raise FileNotFoundError(command[0])
        action = command[1]
        if action == "enable":
            for name in command[2:]:
                (self.root / "etc/systemd/system/remote-fs.target.wants" / name).touch()
        elif action == "start" and not self.dead:
            for name in command[3:]:
                text = self.unit(name).read_text()
                what, where = nfs_mounts.setting(text, "What"), nfs_mounts.setting(text, "Where")
                mounted = Current(mounted=nfs_mounts.parse_mounts(self.mounts.read_text()))
                # A mount requires those above it, by their units
                lacks = self.refused and where.startswith(self.refused) and self.unit(self.refused_unit).exists()
                if not mounted.at(where) and not lacks:
                    self.mount(what, where)
        elif action == "stop" and not self.dead:
            paths = [mount.path for mount in nfs_mounts.parse_mounts(self.mounts.read_text())]
            self.unmount({path for path in paths if f"{nfs_mounts.unit_name(path)}.mount" in command})
        elif command[0] == "umount":
            self.unmount({command[-1]})
        return systemd.Answer(0, "")

    def show(self, unit: str, *_properties: str) -> dict[str, str]:
        return {"ActiveState": "active", "Job": "0"} | self.units.get(unit, {})

    def unmount(self, paths: set[str]) -> None:
        """Also what is below: a mount requires the mount that it is in."""
        lines = self.mounts.read_text().splitlines(keepends=True)
        gone = tuple(f"{path}/" for path in paths)
        self.mounts.write_text("".join(line for line in lines if not f"{line.split()[4]}/".startswith(gone)))

    def mount(self, source: str, path: str, fstype: str = "nfs4") -> None:
        self.mounts.write_text(f"{self.mounts.read_text()}40 22 0:50 / {path} rw shared:9 - {fstype} {source} rw\n")

    def process(self, number: int, name: str, mounts: str = "") -> Path:
        """A program, in a mount namespace of its own where it has mounts of its own."""
        folder = self.root / f"proc/{number}"
        (folder / "fd").mkdir(parents=True)
        (folder / "ns").mkdir()
        (folder / "ns/mnt").symlink_to(f"mnt:[{number if mounts else 1}]")
        (folder / "mountinfo").write_text(mounts or self.mounts.read_text())
        (folder / "comm").write_text(f"{name}\n")
        (folder / "root").symlink_to("/")
        return folder


@pytest.fixture
def module(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("nfs_configure")


@pytest.fixture
def host(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(module, tmp_path, monkeypatch)


def run_module(
    module: ModuleType, capsys: pytest.CaptureFixture[str], *, check: bool = False, **arguments: Any
) -> dict[str, Any]:
    with patch_module_args({"timeout": 1, "_ansible_check_mode": check, **arguments}), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


ENTRY = {"server": "files.lab", "export": "/export", "path": "/mnt/shared", "options": ["hard"]}


def test_mount_again_change_and_remove(host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    planned = run_module(module, capsys, check=True, mounts=[ENTRY])
    assert host.calls == []
    first = run_module(module, capsys, mounts=[ENTRY])
    assert first["changes"] == planned["changes"]
    assert first["changed"] is True
    assert host.unit("mnt-shared.mount").exists()

    host.calls.clear()
    assert run_module(module, capsys, mounts=[ENTRY])["changed"] is False
    assert host.calls == []

    assert run_module(module, capsys, mounts=[{**ENTRY, "options": ["soft"]}])["changed"] is True
    assert "Options=soft\n" in host.unit("mnt-shared.mount").read_text()

    assert run_module(module, capsys, mounts=[])["changed"] is True
    assert not host.unit("mnt-shared.mount").exists()
    assert host.mounts.read_text() == ROOT
    assert run_module(module, capsys, mounts=[])["changed"] is False


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        pytest.param(
            lambda host: (host.mount("files.lab:/old", "/mnt/shared"), host.mount("/dev/sdb1", "/mnt/shared", "ext4")),
            "/dev/sdb1 (ext4) is mounted there. Unmount it and take it out of /etc/fstab, or name another path",
            id="a disk",
        ),
        pytest.param(
            lambda host: (host.root / "mnt").symlink_to("srv"),
            "/mnt is a symbolic link: systemd mounts nothing through one. Name the real path",
            id="a link on the way",
        ),
        pytest.param(
            lambda host: ((host.root / "mnt").mkdir(), (host.root / "mnt/shared").symlink_to("data")),
            "/mnt/shared is a symbolic link: systemd mounts nothing through one. Name the real path",
            id="a link",
        ),
    ],
)
def test_a_path_where_nothing_can_be_mounted_is_refused_before_anything_is_written(
    host: Host,
    module: ModuleType,
    capsys: pytest.CaptureFixture[str],
    arrange: Callable[[Host], object],
    message: str,
) -> None:
    arrange(host)

    for check in (True, False):
        assert run_module(module, capsys, check=check, mounts=[ENTRY])["msg"] == f"/mnt/shared: {message}"
    assert host.calls == []
    assert not host.unit("mnt-shared.mount").exists()


def test_a_disk_at_a_path_that_leaves_the_list_stays(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run_module(module, capsys, mounts=[ENTRY])
    host.mount("/dev/sdb1", "/mnt/shared", "ext4")

    assert [change["name"] for change in run_module(module, capsys, mounts=[])["changes"]] == ["/mnt/shared unit"]
    assert "/dev/sdb1" in host.mounts.read_text()


def test_nfs_is_not_looked_into_for_symbolic_links(module: ModuleType, host: Host) -> None:
    (host.root / "mnt/shared").mkdir(parents=True)
    (host.root / "mnt/shared/link").symlink_to("elsewhere")

    assert module.symlink_in("/mnt/shared/link/x", Current()) == "/mnt/shared/link"
    assert module.symlink_in("/mnt/shared/link/x", Current(mounted=(MOUNTED,))) is None


def test_lines_that_are_no_utf_8_stay_as_they_are(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    fstab = host.root / "etc/fstab"
    fstab.write_bytes(b"# gr\xfc\xdfe\nfiles.lab:/export /mnt/shared nfs4 hard 0 0\n")
    assert "/mnt/shared in fstab" in [
        change["name"] for change in run_module(module, capsys, mounts=[ENTRY])["changes"]
    ]
    assert fstab.read_bytes() == b"# gr\xfc\xdfe\n"


def test_fstab_stays_its_owners_and_as_closed_as_it_was(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fstab = host.root / "etc/fstab"
    fstab.write_text("//nas/share /mnt/nas cifs password=x 0 0\nfiles.lab:/export /mnt/shared nfs4 hard 0 0\n")
    fstab.chmod(0o600)
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(durable.os, "fchown", lambda _handle, *owner: owners.append(owner))

    run_module(module, capsys, mounts=[ENTRY])

    assert fstab.read_text() == "//nas/share /mnt/nas cifs password=x 0 0\n"
    assert fstab.stat().st_mode & 0o777 == 0o600
    assert owners == [(fstab.stat().st_uid, fstab.stat().st_gid)]
    assert host.unit("mnt-shared.mount").stat().st_mode & 0o777 == 0o644


def test_a_dead_server_is_named_and_keeps_the_unit_for_the_next_run(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    host.dead = True

    result = run_module(module, capsys, mounts=[ENTRY])

    assert result["failed"] is True
    assert result["msg"] == "/mnt/shared: files.lab:/export is not mounted: mount.nfs: Connection timed out"
    host.dead = False
    assert [change["name"] for change in run_module(module, capsys, mounts=[ENTRY])["changes"]] == [
        "/mnt/shared mounted"
    ]


def test_a_mount_in_use_stays_as_it_is_and_its_user_is_named(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_module(module, capsys, mounts=[ENTRY])
    before = host.unit("mnt-shared.mount").read_text()
    host.dead = True
    (host.process(42, "postgres") / "cwd").symlink_to("/mnt/shared/data")

    result = run_module(module, capsys, mounts=[{**ENTRY, "options": ["soft"]}])

    assert result["msg"] == (
        "/mnt/shared: cannot be unmounted: used by postgres (42). End what uses it, or set lazy_unmount"
    )
    assert host.unit("mnt-shared.mount").read_text() == before

    result = run_module(module, capsys, mounts=[], lazy_unmount=True)
    assert result["changed"] is True
    assert host.mounts.read_text() == ROOT


@pytest.mark.parametrize("mounts", [[], [{**ENTRY, "options": ["soft"]}]], ids=["it goes", "it changes"])
def test_a_mount_that_a_container_has_stays_and_its_programs_are_named(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], mounts: list[dict[str, Any]]
) -> None:
    run_module(module, capsys, mounts=[ENTRY])
    host.process(41, "sshd")
    host.process(42, "gunicorn", f"{CONTAINER}701 700 0:50 /jobs /srv/jobs rw - nfs4 files.lab:/export/jobs rw\n")
    before = host.unit("mnt-shared.mount").read_text(), host.mounts.read_text()
    host.calls.clear()

    result = run_module(module, capsys, mounts=mounts)

    assert result["msg"] == (
        "/mnt/shared: cannot be unmounted: used by gunicorn (42). End what uses it, or set lazy_unmount"
    )
    assert "stop" not in [call[1] for call in host.calls]
    assert (host.unit("mnt-shared.mount").read_text(), host.mounts.read_text()) == before
    assert run_module(module, capsys, mounts=mounts, lazy_unmount=True)["changed"] is True


@pytest.mark.parametrize("nfsidmap", ["/usr/sbin/nfsidmap", None])
def test_names_of_the_old_domain_are_forgotten_where_there_may_be_some(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], nfsidmap: str | None
) -> None:
    host.nfsidmap = nfsidmap

    result = run_module(module, capsys, idmap_domain="lab")

    assert [change["name"] for change in result["changes"]] == ["idmapd domain"]
    assert (host.root / "etc/idmapd.conf").read_text() == "[General]\nDomain = lab\n\n"
    assert host.calls == ([[nfsidmap, "-c"]] if nfsidmap else [])


@pytest.mark.parametrize("survived", range(4))
def test_a_run_killed_while_it_removes_units_is_finished_by_the_next(
    host: Host,
    module: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    survived: int,
) -> None:
    run_module(module, capsys, mounts=[{**ENTRY, "automount": True}])
    unlink, unlinked = Path.unlink, []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(unlinked) == survived:
            raise KeyboardInterrupt
        unlinked.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        run_module(module, capsys, mounts=[])
    monkeypatch.setattr(Path, "unlink", unlink)

    # The role runs the module as long as there is a unit of ours
    if list(host.unit("").glob("*mount")):
        run_module(module, capsys, mounts=[])

    assert list(host.unit("").glob("**/*mount")) == []


INNER = {"server": "files.lab", "export": "/models", "path": "/mnt/shared/models", "options": ["hard"]}
OUTER_CHANGED = [INNER, {**ENTRY, "options": ["soft"]}]


@pytest.mark.parametrize("mounts", [OUTER_CHANGED, [INNER]], ids=["it changes", "it goes"])
def test_what_is_below_a_mount_goes_before_it_and_comes_back(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], mounts: list[dict[str, Any]]
) -> None:
    run_module(module, capsys, mounts=[ENTRY, INNER])
    host.units = {
        "mnt-shared.mount": {"RequiredBy": "mnt-shared-models.mount"},
        "mnt-shared-models.mount": {"FragmentPath": "/etc/systemd/system/mnt-shared-models.mount"},
    }
    planned = run_module(module, capsys, check=True, mounts=mounts)
    host.calls.clear()

    done = run_module(module, capsys, mounts=mounts)

    assert done["changes"] == planned["changes"]
    assert {"name": "/mnt/shared/models remounted", "path": INNER["path"], "before": False, "after": True} in done[
        "changes"
    ]
    (stop,) = (call for call in host.calls if call[1] == "stop")
    assert stop.index("mnt-shared-models.mount") < stop.index("mnt-shared.mount")
    (start,) = (call[3:] for call in host.calls if call[1] == "start")
    assert start == ["mnt-shared.mount", "mnt-shared-models.mount"][-len(mounts) :]
    mounted = {mount.path for mount in nfs_mounts.parse_mounts(host.mounts.read_text())}
    assert mounted == {"/", *(mount["path"] for mount in mounts)}
    assert run_module(module, capsys, mounts=mounts)["changed"] is False


def test_what_is_below_a_path_that_is_newly_mounted_is_not_hidden(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run_module(module, capsys, mounts=[INNER])
    planned = run_module(module, capsys, check=True, mounts=[INNER, ENTRY])
    host.calls.clear()

    done = run_module(module, capsys, mounts=[INNER, ENTRY])

    assert done["changes"] == planned["changes"]
    assert "/mnt/shared/models remounted" in [change["name"] for change in done["changes"]]
    assert [call[1] for call in host.calls if "mnt-shared-models.mount" in call] == [
        "stop",
        "enable",
        "reset-failed",
        "start",
    ]
    mounted = [mount.path for mount in nfs_mounts.parse_mounts(host.mounts.read_text())]
    assert mounted == ["/", ENTRY["path"], INNER["path"]]


def test_what_made_room_for_a_mount_that_fails_comes_back(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run_module(module, capsys, mounts=[INNER])
    host.refused = ENTRY["path"]

    result = run_module(module, capsys, mounts=[INNER, ENTRY])

    assert result["msg"] == "/mnt/shared: files.lab:/export is not mounted: mount.nfs: Connection timed out"
    mounted = [mount.path for mount in nfs_mounts.parse_mounts(host.mounts.read_text())]
    assert mounted == ["/", INNER["path"]]
    assert not host.unit("mnt-shared.mount").exists()
    host.refused = ""
    assert "failed" not in run_module(module, capsys, mounts=[INNER, ENTRY])
    assert run_module(module, capsys, mounts=[INNER, ENTRY])["changed"] is False


def test_nothing_is_mounted_above_what_stays(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run_module(module, capsys, mounts=[INNER])
    before = host.mounts.read_text()
    host.units = REGISTRY | {"mnt-shared-models.mount": {"RequiredBy": "docker-registry.service"}}

    result = run_module(module, capsys, mounts=[INNER, ENTRY])

    assert result["msg"] == (
        "/mnt/shared/models: cannot be unmounted: used by docker-registry.service. End what uses it, or set"
        " lazy_unmount; /mnt/shared: not mounted: it would hide /mnt/shared/models"
    )
    assert host.mounts.read_text() == before
    assert not host.unit("mnt-shared.mount").exists()


REGISTRY = {"docker-registry.service": {"FragmentPath": "/lib/systemd/system/docker-registry.service"}}
# An old line of /etc/fstab makes the target require the mount
TARGET = {"FragmentPath": "/lib/systemd/system/remote-fs.target"}


@pytest.mark.parametrize(
    "units",
    [
        pytest.param({"mnt-shared.mount": {"RequiredBy": "docker-registry.service"}}, id="requires it"),
        pytest.param({"mnt-shared.mount": {"BoundBy": "docker-registry.service"}}, id="is bound to it"),
        pytest.param({"mnt-shared.automount": {"RequiredBy": "docker-registry.service"}}, id="requires its automount"),
        pytest.param(
            {
                "mnt-shared.mount": {"RequiredBy": "idle.service remote-fs.target"},
                "idle.service": {"ActiveState": "inactive", "FragmentPath": "/etc/systemd/system/idle.service"},
                "remote-fs.target": TARGET | {"RequiredBy": "docker-registry.service"},
            },
            id="requires what requires it",
        ),
    ],
)
def test_a_mount_that_a_running_unit_requires_stays_and_the_unit_is_named(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], units: dict[str, dict[str, str]]
) -> None:
    run_module(module, capsys, mounts=[ENTRY, INNER])
    before = host.unit("mnt-shared.mount").read_text(), host.mounts.read_text()
    host.units = REGISTRY | units
    host.calls.clear()

    result = run_module(module, capsys, mounts=OUTER_CHANGED)

    assert result["msg"] == (
        "/mnt/shared: cannot be unmounted: used by docker-registry.service. End what uses it, or set lazy_unmount"
    )
    assert "stop" not in [call[1] for call in host.calls]
    assert (host.unit("mnt-shared.mount").read_text(), host.mounts.read_text()) == before
    assert run_module(module, capsys, mounts=OUTER_CHANGED, lazy_unmount=True)["changed"] is True


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param({"remote-fs.target": TARGET}, id="a target"),
        pytest.param({"idle.service": {"ActiveState": "inactive", "FragmentPath": "/x"}}, id="a unit that is stopped"),
        pytest.param({"broken.service": {"ActiveState": "failed", "FragmentPath": "/x"}}, id="a unit that failed"),
        pytest.param({"mnt-shared-more.mount": {}}, id="what the kernel mounted below an export"),
    ],
)
def test_what_systemd_may_stop_with_a_mount(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], unit: dict[str, dict[str, str]]
) -> None:
    run_module(module, capsys, mounts=[ENTRY])
    host.units = unit | {"mnt-shared.mount": {"RequiredBy": " ".join(unit)}}

    assert "failed" not in run_module(module, capsys, mounts=[])


def test_what_is_used_below_a_mount_keeps_both(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run_module(module, capsys, mounts=[ENTRY, INNER])
    host.units = REGISTRY | {"mnt-shared-models.mount": {"RequiredBy": "docker-registry.service"}}
    host.calls.clear()

    result = run_module(module, capsys, mounts=OUTER_CHANGED)

    assert result["msg"] == (
        "/mnt/shared/models: cannot be unmounted: used by docker-registry.service. End what uses it, or set"
        " lazy_unmount; /mnt/shared: cannot be unmounted: used by /mnt/shared/models. End what uses it, or set"
        " lazy_unmount"
    )
    assert "stop" not in [call[1] for call in host.calls]


def test_names_of_units_are_read_as_systemctl_quotes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {
        "a.mount": 'ActiveState=active\nRequiredBy="a-my\\\\x2ddata.mount" b.service\nBoundBy=\n',
        "a-my\\x2ddata.mount": "ActiveState=active\nFragmentPath=/x\nRequiredBy=b.service a.mount\n",
        "b.service": "ActiveState=reloading\nFragmentPath=/x\nRequiredBy=\n",
    }
    monkeypatch.setattr(systemd, "run", lambda command: systemd.Answer(0, shown[command[2]]))

    assert systemd.stopped_with("a.mount") == ["a-my\\x2ddata.mount", "b.service"]


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        pytest.param(f"{CONTAINER}701 700 0:50 / /srv rw - nfs4 files.lab:/export rw\n", True, id="a container's"),
        pytest.param(f"{CONTAINER}701 700 0:51 / /srv rw - nfs4 files.lab:/export rw\n", False, id="another mount"),
        pytest.param(
            f"{CONTAINER}701 700 0:50 / /srv rw - nfs4 files.lab:/export2 rw\n",
            False,
            id="another export on its device",
        ),
        pytest.param(
            "80 70 254:0 / / rw shared:60 master:1 - ext4 /dev/vda rw\n"
            "81 80 0:50 / /mnt/shared rw shared:61 master:9 - nfs4 files.lab:/export rw\n",
            False,
            id="a service of systemd follows the host",
        ),
        pytest.param(
            "80 70 254:0 / / rw shared:60 master:1 - ext4 /dev/vda rw\n"
            "81 80 0:50 / /data rw shared:61 master:9 - nfs4 files.lab:/export rw\n",
            True,
            id="what it bound to another place does not",
        ),
        pytest.param(
            f"{CONTAINER}701 700 254:0 /mnt /data rw master:1 - ext4 /dev/vda rw\n"
            "702 701 0:50 / /data/shared rw master:9 - nfs4 files.lab:/export rw\n",
            False,
            id="a container with rslave follows the host",
        ),
        pytest.param(
            "80 70 254:0 / / rw - ext4 /dev/vda rw\n81 80 0:50 / /mnt/shared rw - nfs4 files.lab:/export rw\n",
            True,
            id="a private namespace",
        ),
    ],
)
def test_who_keeps_what_the_host_unmounts(theirs: str, expected: bool) -> None:
    ours = nfs_mounts.parse_mounts(f"{ROOT}40 22 0:50 / /mnt/shared rw shared:9 - nfs4 files.lab:/export rw\n")

    assert nfs_mounts.keeps(nfs_mounts.parse_mounts(theirs), ours[1], ours) is expected


def test_an_export_at_two_places_has_one_device_and_each_copy_follows_its_own() -> None:
    one, other = "0:50 / /mnt/shared rw shared:9", "0:50 / /mnt/other rw shared:10"
    system = "- nfs4 files.lab:/export rw\n"
    ours = nfs_mounts.parse_mounts(f"{ROOT}40 22 {one} {system}41 22 {other} {system}")
    service = "80 70 254:0 / / rw shared:60 master:1 - ext4 /dev/vda rw\n"
    copies = f"81 80 0:50 / /mnt/shared rw master:9 {system}82 80 0:50 / /mnt/other rw master:10 {system}"

    assert not nfs_mounts.keeps(nfs_mounts.parse_mounts(service + copies), ours[1], ours)


def test_a_line_of_mountinfo() -> None:
    line = r"36 35 0:51 /sub /mnt/a\040b rw,relatime shared:7 master:3 - nfs4 [fd00::1]:/ex\134port rw,vers=4.2"

    assert nfs_mounts.parse_mounts(line) == (
        Mounted("[fd00::1]:/ex\\port", "/mnt/a b", "nfs4", "36", "35", "0:51", "/sub", "7", "3"),
    )
