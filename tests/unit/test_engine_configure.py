"""The engine's settings: (desired, current) → changes → what the service needs, and the way back when it refuses."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.qianjiang import engine_settings as settings
from ansible.module_utils.qianjiang import systemd
from ansible.module_utils.qianjiang.engine_settings import Current, Desired
from ansible.module_utils.testing import patch_module_args

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
SETTINGS: dict[str, Any] = {"live-restore": True, "log-driver": "json-file"}
RIGHT = Current(daemon=SETTINGS)

# (desired, current) → names of the changes, action
PLANS = [
    pytest.param(Desired(SETTINGS), RIGHT, [], None, id="right already"),
    pytest.param(
        Desired(SETTINGS, {"registry.lab:5000": CERTIFICATE}),
        Current(daemon=SETTINGS, registry_cas={"registry.lab:5000": CERTIFICATE + "\n"}),
        [],
        None,
        id="the certificate's last newline is no difference",
    ),
    pytest.param(
        Desired(SETTINGS, {"registry.lab:5000": CERTIFICATE}),
        RIGHT,
        ["certs.d/registry.lab:5000/ca.crt"],
        None,
        id="a certificate needs no restart",
    ),
    pytest.param(
        Desired(SETTINGS, {"registry.lab:5000": ""}),
        Current(daemon=SETTINGS, registry_cas={"registry.lab:5000": CERTIFICATE}),
        ["certs.d/registry.lab:5000/ca.crt"],
        None,
        id="a certificate taken away",
    ),
    pytest.param(
        Desired({**SETTINGS, "debug": True}), RIGHT, ["daemon.json debug"], "reload", id="added, taken over on a reload"
    ),
    pytest.param(
        Desired(SETTINGS),
        Current(daemon={**SETTINGS, "debug": True}),
        ["daemon.json debug"],
        "restart",
        id="removed, kept by the engine until a restart",
    ),
    pytest.param(
        Desired(SETTINGS),
        Current(daemon={**SETTINGS, "max-concurrent-downloads": 9}),
        ["daemon.json max-concurrent-downloads"],
        "reload",
        id="removed, back to its default on a reload",
    ),
    pytest.param(
        Desired({**SETTINGS, "debug": True, "icc": False}),
        RIGHT,
        ["daemon.json debug", "daemon.json icc"],
        "restart",
        id="one setting that needs a restart decides",
    ),
    pytest.param(
        Desired(SETTINGS),
        Current(daemon=None),
        ["daemon.json", "daemon.json live-restore", "daemon.json log-driver"],
        "restart",
        id="a file that is not JSON is replaced",
    ),
    pytest.param(
        Desired(SETTINGS),
        Current(daemon=SETTINGS, running=False, enabled=False),
        ["docker.service enabled", "docker.service running"],
        "start",
        id="stopped and disabled",
    ),
    pytest.param(
        Desired(SETTINGS), Current(daemon=SETTINGS, enabled=False), ["docker.service enabled"], None, id="only disabled"
    ),
    pytest.param(
        Desired(SETTINGS),
        Current(daemon=SETTINGS, replaced=True),
        ["docker.service runs the installed version"],
        "restart",
        id="upgraded under the running engine",
    ),
    pytest.param(
        Desired(SETTINGS),
        Current(daemon=SETTINGS, unproven=True),
        ["docker.service proven with its settings"],
        "restart",
        id="an earlier run was killed before the engine answered",
    ),
    pytest.param(
        Desired(SETTINGS, proxy={"http": "http://proxy:3128", "https": None}),
        RIGHT,
        ["http-proxy.conf"],
        "restart",
        id="a proxy",
    ),
    pytest.param(
        Desired(SETTINGS),
        Current(daemon=SETTINGS, drop_in="# Managed by qianjiangyuan docker_engine\n[Service]\n"),
        ["http-proxy.conf"],
        "restart",
        id="a proxy taken away",
    ),
    pytest.param(
        Desired(SETTINGS),
        Current(daemon=SETTINGS, drop_in="[Service]\n"),
        [],
        None,
        id="a drop-in that is not ours",
    ),
    pytest.param(
        Desired({**SETTINGS, "icc": False}, service_managed=False),
        Current(daemon=SETTINGS, running=False, enabled=False),
        ["daemon.json icc"],
        None,
        id="a service that is not ours is left alone",
    ),
]


@pytest.mark.parametrize(("desired", "current", "names", "action"), PLANS)
def test_plan(desired: Desired, current: Current, names: list[str], action: str | None) -> None:
    changes = settings.plan(desired, current)

    assert [change["name"] for change in changes] == names
    assert settings.action(changes, desired, current) == action


def test_a_change_tells_before_and_after() -> None:
    changes = settings.plan(Desired({"icc": False}), Current(daemon={"icc": True}))

    assert changes == [{"name": "daemon.json icc", "before": True, "after": False}]


def test_no_password_of_a_setting_is_told() -> None:
    proxies = {"https-proxy": "http://ops:hunter2@proxy.example.com:3128"}
    desired = Desired({"proxies": proxies, "registry-mirrors": ["https://ops:hunter2@mirror.example.com"]})

    changes = settings.plan(
        desired, Current(daemon={"proxies": {"https-proxy": "http://ops:old@proxy.example.com:3128"}})
    )

    assert [change["name"] for change in changes] == ["daemon.json proxies", "daemon.json registry-mirrors"]
    assert changes[0]["after"] == {"https-proxy": "http://********@proxy.example.com:3128"}
    assert changes[1]["after"] == ["https://********@mirror.example.com"]
    assert "old" not in str(changes)


@pytest.mark.parametrize(
    ("desired", "message"),
    [
        (
            Desired({"insecure-registries": ["registry.lab:5000"]}),
            "daemon.insecure-registries: not allowed; give the registry's CA certificate in registry_cas instead",
        ),
        (
            Desired({}, {"https://registry.lab": CERTIFICATE}),
            "registry_cas.https://registry.lab: expected host or host:port",
        ),
        (Desired({}, {"../x": CERTIFICATE}), "registry_cas.../x: expected host or host:port"),
        (Desired({}, {"registry.lab": "MIIB"}), "registry_cas.registry.lab: expected the text of a PEM certificate"),
        (
            Desired({}, {"registry.lab": CERTIFICATE + "\n-----BEGIN PRIVATE KEY-----\n"}),
            "registry_cas.registry.lab: holds a private key; give the CA's certificate only",
        ),
        (Desired({}, proxy={"http": "proxy:3128"}), "proxy.http: expected http://host:port or https://host:port"),
    ],
)
def test_wrong_input(desired: Desired, message: str) -> None:
    assert settings.errors(desired) == [message]


def test_right_input_has_no_errors() -> None:
    desired = Desired(
        {"insecure-registries": []},
        {"registry.lab:5000": CERTIFICATE, "gone.lab": ""},
        {"https": "https://proxy.lab", "http": None},
    )

    assert settings.errors(desired) == []


def test_null_takes_a_default_away_at_any_depth() -> None:
    assert settings.without_nulls({"a": None, "b": {"c": None, "d": False}}) == {"b": {"d": False}}


def test_the_proxys_credentials_are_written_but_never_shown() -> None:
    desired = Desired({}, proxy={"http": "http://me:s%3Acret@proxy:3128", "no_proxy": "localhost,.lab"})

    text = settings.drop_in_text(desired.proxy)
    changes = settings.plan(desired, Current())

    assert text is not None
    assert 'Environment="HTTP_PROXY=http://me:s%%3Acret@proxy:3128"' in text  # systemd expands %
    assert 'Environment="NO_PROXY=localhost,.lab"' in text
    assert "cret" not in str(changes)
    assert "//********@proxy:3128" in changes[0]["after"]


class Host:
    """A host on a temporary directory: what systemctl is asked, and whether the engine answers."""

    def __init__(self, module: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.calls: list[str] = []
        self.refused: set[str] = set()
        self.answers_with: Callable[[str], bool] = lambda _text: True
        self.info: dict[str, Any] | None = {"LiveRestoreEnabled": True}
        self.info_takes = 0
        self.unit = {"ActiveState": "active", "UnitFileState": "enabled", "MainPID": "7"}
        self.version = "Docker version 20.10.24, build 297e128"
        (root / "run").mkdir()
        monkeypatch.setattr(module, "ROOT", root)
        monkeypatch.setattr(module, "ask", self.ask)
        monkeypatch.setattr(systemd, "run", self.run)
        monkeypatch.setattr(systemd, "show", lambda *_arguments: self.unit)
        monkeypatch.setattr(systemd, "journal", lambda *_arguments: ["starting", "failed to start daemon: bad icc"])

    @property
    def daemon(self) -> Path:
        return self.root / "etc/docker/daemon.json"

    def ask(self, path: str, timeout: float = 5) -> bytes | None:
        if path == "/info":
            return None if self.info is None or timeout < self.info_takes else json.dumps(self.info).encode()
        came_up = self.answers_with(self.daemon.read_text() if self.daemon.exists() else "")
        return (b"OK" if path == "/_ping" else b'{"status": "reload"}') if came_up else None

    def run(self, command: list[str], _timeout: float = 30) -> systemd.Answer:
        if command == ["dockerd", "--version"]:
            return systemd.Answer(0, self.version)
        self.calls.append(" ".join(word.split("=")[0] for word in command))
        refused = self.calls[-1] in self.refused
        return systemd.Answer(int(refused), "unknown key: icx" if refused else "")


@pytest.fixture
def module(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("engine_configure")


@pytest.fixture
def host(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(module, tmp_path, monkeypatch)
    host.daemon.parent.mkdir(parents=True)
    host.daemon.write_text(json.dumps(SETTINGS))
    return host


def run_module(
    module: ModuleType, capsys: pytest.CaptureFixture[str], *, check: bool = False, **arguments: Any
) -> dict[str, Any]:
    with patch_module_args({"timeout": 1, "_ansible_check_mode": check, **arguments}), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_right_host_is_left_alone(host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(module, capsys, daemon=SETTINGS)

    assert result["changed"] is False
    assert host.calls == []


def test_a_restart_is_proven_and_leaves_nothing_behind(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_module(module, capsys, daemon={**SETTINGS, "icc": False})

    assert result["changed"] is True
    assert result["action"] == "restart"
    assert result["diff"] == {"before": {"daemon.json icc": None}, "after": {"daemon.json icc": False}}
    assert host.calls[-1] == "systemctl restart docker.service"
    assert json.loads(host.daemon.read_text()) == {**SETTINGS, "icc": False}
    assert [file.name for file in host.daemon.parent.iterdir()] == ["daemon.json"]


def test_check_mode_has_the_same_plan_and_touches_nothing(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"daemon": {**SETTINGS, "icc": False}, "registry_cas": {"registry.lab:5000": CERTIFICATE}}
    planned = run_module(module, capsys, check=True, **arguments)
    assert host.calls == []
    assert json.loads(host.daemon.read_text()) == SETTINGS
    assert not (host.daemon.parent / "certs.d").exists()

    done = run_module(module, capsys, **arguments)

    assert planned == done | {"invocation": planned["invocation"]}
    assert (host.daemon.parent / "certs.d/registry.lab:5000/ca.crt").read_text() == CERTIFICATE + "\n"


def test_an_engine_that_does_not_come_up_gets_the_old_file_back(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers_with = lambda text: "icc" not in text

    result = run_module(module, capsys, daemon={**SETTINGS, "icc": "maybe"})

    assert result["failed"] is True
    assert result["rolled_back"] is True
    assert result["msg"] == (
        "docker.service: the engine refuses its new settings: failed to start daemon: bad icc."
        " It runs again with the old ones"
    )
    assert json.loads(host.daemon.read_text()) == SETTINGS
    assert [call for call in host.calls if "restart" in call] == ["systemctl restart docker.service"] * 2
    assert [file.name for file in host.daemon.parent.iterdir()] == ["daemon.json"]


def test_a_reload_that_the_engine_does_not_confirm_is_taken_back(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers_with = lambda text: "debug" not in text

    result = run_module(module, capsys, daemon={**SETTINGS, "debug": True})

    assert result["failed"] is True
    assert json.loads(host.daemon.read_text()) == SETTINGS
    assert host.calls == ["systemctl reload docker.service"] * 2


LIVE_RESTORE_OFF = {"LiveRestoreEnabled": False, "Swarm": {"LocalNodeState": "inactive"}}
OTHERS = {"live-restore": False, "log-driver": "json-file"}


@pytest.mark.parametrize("refused", [False, True])
def test_live_restore_is_on_before_the_restart_and_after_a_way_back(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], refused: bool
) -> None:
    host.daemon.write_text(json.dumps(OTHERS))
    host.info = LIVE_RESTORE_OFF
    asked: list[dict[str, Any]] = []

    def answer(text: str) -> bool:
        asked.append(json.loads(text))
        return not (refused and "icc" in asked[-1])

    host.answers_with = answer

    result = run_module(module, capsys, daemon={**SETTINGS, "icc": False})

    assert result.get("failed", False) is refused
    assert asked[0] == {**OTHERS, "live-restore": True}
    assert asked[-1] == ({**OTHERS, "live-restore": True} if refused else {**SETTINGS, "icc": False})
    moves = [call.split()[1] for call in host.calls if call.endswith("docker.service")]
    assert moves == ["reload", "restart", *["restart"] * refused]
    assert [file.name for file in host.daemon.parent.iterdir()] == ["daemon.json"]


def test_an_engine_that_is_slow_to_tell_keeps_its_containers(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    host.daemon.write_text(json.dumps(OTHERS))
    host.info = LIVE_RESTORE_OFF
    host.info_takes = 6

    run_module(module, capsys, timeout=10, daemon={**SETTINGS, "icc": False})

    moves = [call.split()[1] for call in host.calls if call.endswith("docker.service")]
    assert moves == ["reload", "restart"]


@pytest.mark.parametrize("check", [True, False])
def test_an_engine_that_does_not_tell_whether_containers_would_end_is_left_alone(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], check: bool
) -> None:
    host.info = None

    result = run_module(module, capsys, check=check, daemon={**SETTINGS, "icc": False})

    assert result["msg"] == (
        "docker.service: the engine does not answer /info within 1 s, so whether a restart ends its containers is"
        " unknown; nothing was changed. Run this again when the host has less to do, or with a longer timeout."
        " If it never answers, stop docker.service first: that ends the containers"
    )
    assert host.calls == []
    assert json.loads(host.daemon.read_text()) == SETTINGS


def test_an_engine_that_hangs_is_restarted(host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    host.info = None
    host.answers_with = lambda text: "icc" in text

    result = run_module(module, capsys, daemon={**SETTINGS, "icc": False})

    assert result["changed"] is True
    assert host.calls[-1] == "systemctl restart docker.service"


def test_an_answer_is_waited_for_as_long_as_told(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may have 107 bytes only
    monkeypatch.setattr(module, "ROOT", Path())
    Path("run").mkdir()
    released = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "unix"

        def do_GET(self) -> None:
            released.wait(10)
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n{}")

    with socketserver.ThreadingUnixStreamServer("run/docker.sock", Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        assert module.ask("/info", 0.1) is None
        released.set()
        assert module.ask("/info", 10) == b"{}"
        server.shutdown()


def test_an_engine_that_does_not_take_live_restore_over_is_restarted_without(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    host.daemon.write_text(json.dumps(OTHERS))
    host.info = LIVE_RESTORE_OFF
    host.answers_with = lambda text: json.loads(text) == OTHERS

    result = run_module(module, capsys, daemon={**SETTINGS, "icc": False})

    assert result["rolled_back"] is True
    assert json.loads(host.daemon.read_text()) == OTHERS


@pytest.mark.parametrize(
    ("info", "wanted"),
    [
        pytest.param(LIVE_RESTORE_OFF | {"Swarm": {"LocalNodeState": "active"}}, True, id="a swarm cannot have it"),
        pytest.param(LIVE_RESTORE_OFF | {"LiveRestoreEnabled": True}, True, id="on already"),
        pytest.param(LIVE_RESTORE_OFF, False, id="not wanted"),
    ],
)
def test_a_restart_alone(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], info: dict[str, Any], wanted: bool
) -> None:
    host.info = info

    run_module(module, capsys, daemon={**SETTINGS, "live-restore": wanted, "icc": False})

    assert "systemctl reload docker.service" not in host.calls


def test_the_first_file_of_all_goes_away_again(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    host.daemon.unlink()
    host.answers_with = lambda text: "icc" not in text

    run_module(module, capsys, daemon={"icc": "maybe"})

    assert list(host.daemon.parent.iterdir()) == []


def test_a_run_killed_before_the_proof_is_finished_by_the_next(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is there, the engine was never restarted with it: content alone would say that nothing is to do."""
    host.daemon.write_text(json.dumps({**SETTINGS, "icc": "maybe"}))
    (host.daemon.parent / "daemon.json.previous").write_text(json.dumps(SETTINGS))
    host.answers_with = lambda text: "icc" not in text

    result = run_module(module, capsys, daemon={**SETTINGS, "icc": "maybe"})

    assert result["rolled_back"] is True
    assert json.loads(host.daemon.read_text()) == SETTINGS


@pytest.mark.parametrize(
    ("version", "validated"),
    [("Docker version 20.10.24, build 297e128", False), ("Docker version 23.0.1, build bc3805a", True)],
)
def test_dockerd_validates_before_anything_is_touched(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], version: str, validated: bool
) -> None:
    host.version = version
    host.refused = {"dockerd --validate --config-file"}

    result = run_module(module, capsys, daemon={**SETTINGS, "icx": False})

    assert result.get("failed", False) is validated
    if validated:
        assert result["msg"] == (
            "docker.service: dockerd refuses the new daemon.json, nothing was changed: unknown key: icx"
        )
        assert json.loads(host.daemon.read_text()) == SETTINGS
        assert list((host.root / "run").iterdir()) == []


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("before", [{}, SETTINGS], ids=["no settings before", "settings before"])
def test_data_is_not_left_behind(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], before: dict[str, Any], running: bool
) -> None:
    host.daemon.write_text(json.dumps(before))
    host.info = {"DockerRootDir": "/var/lib/docker"} if running else None
    host.unit["ActiveState"] = "active" if running else "inactive"
    for folder in ("containers/c1", "containers/c2", "volumes/v1/_data"):
        (host.root / "var/lib/docker" / folder).mkdir(parents=True)

    for check in (True, False):
        result = run_module(module, capsys, check=check, daemon={**SETTINGS, "data-root": "/data/docker"})

        assert result["msg"] == (
            "daemon.data-root: /data/docker would leave behind what the engine has in /var/lib/docker:"
            " containers (2), volumes (1)."
            " Set it to /var/lib/docker, or stop the engine and move /var/lib/docker to /data/docker before"
        )
    assert host.calls == []
    assert json.loads(host.daemon.read_text()) == before


@pytest.mark.parametrize(
    ("present", "wanted", "refused"),
    [
        pytest.param("/var/lib/docker", "/data/docker", False, id="nothing there yet"),
        pytest.param("/srv/docker", "/srv/docker", False, id="where the engine is, whatever the file said"),
        pytest.param("/srv/docker", "/link", False, id="the same by a link"),
        pytest.param("/srv/docker", "/var/lib/docker", True, id="back to the default"),
        pytest.param("/srv/docker/100000.100000", "/srv/docker", False, id="the same with userns-remap"),
        pytest.param("/srv/docker/100000.100000", "/data/docker", True, id="another one with userns-remap"),
    ],
)
def test_another_data_root_is_refused_where_the_engine_has_data(
    host: Host, module: ModuleType, present: str, wanted: str, refused: bool
) -> None:
    for used in ("srv/docker", "srv/docker/100000.100000"):
        (host.root / used / "image/overlay2/imagedb/content/sha256/0a1b").mkdir(parents=True)
    (host.root / "link").symlink_to(host.root / "srv/docker")

    said = module.left_behind(Desired({"data-root": wanted}), RIGHT, {"DockerRootDir": present})

    assert (said is not None) is refused


# The engine's driver where it keeps images in containerd
IN_CONTAINERD = "overlayfs"


@pytest.mark.parametrize(
    ("found", "after", "told"),
    [
        (({"userns-remap": "default"}, "overlay2"), {}, "userns-remap: nothing"),
        # It chooses the driver that has data
        (({"storage-driver": "overlay2"}, "overlay2"), {}, None),
        (({"storage-driver": "overlay2"}, None), {}, None),
        (
            ({}, IN_CONTAINERD),
            {"features": {"containerd-snapshotter": False}},
            "features.containerd-snapshotter: False",
        ),
        (({}, IN_CONTAINERD), {"features": {"containerd-snapshotter": True}}, None),
        (({}, IN_CONTAINERD), {}, None),
        (({}, "overlay2"), {"features": {"containerd-snapshotter": True}}, "features.containerd-snapshotter: True"),
        (({}, "overlay2"), {"features": {"containerd-snapshotter": False}}, None),
        # dockerd says what is wrong with it
        (({}, "overlay2"), {"features": ["containerd-snapshotter"]}, None),
        (({}, "overlay2"), {"userns-remap": "default"}, "userns-remap: default"),
        (({"userns-remap": "default"}, "overlay2"), {"userns-remap": "default"}, None),
        (({"storage-driver": "vfs"}, "vfs"), {}, "storage-driver: nothing"),
        (({}, "overlay2"), {"storage-driver": "vfs"}, "storage-driver: vfs"),
        (({}, "overlay2"), {"storage-driver": "overlay2"}, None),
        (({}, None), {"storage-driver": "overlay2"}, None),
        (({"features": {"containerd-snapshotter": True}}, "overlayfs"), {}, "features.containerd-snapshotter: nothing"),
        (({"mtu": 1400}, "overlay2"), {}, None),
    ],
)
def test_another_store_is_refused_where_the_engine_has_data(
    host: Host, module: ModuleType, found: tuple[dict[str, Any], str | None], after: dict[str, Any], told: str | None
) -> None:
    before, driver = found
    engine: dict[str, Any] = {"Driver": driver, "DockerRootDir": "/var/lib/docker"} if driver else {}
    if driver == IN_CONTAINERD:
        engine["DriverStatus"] = [["driver-type", "io.containerd.snapshotter.v1"]]
    for used in (False, True):
        said = module.left_behind(Desired(after), Current(daemon=before), engine)
        assert (said or "").startswith(f"daemon.{told} would leave" if told and used else ""), said
        assert bool(said) is bool(told and used)
        (host.root / "var/lib/docker/volumes/v1/_data").mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("check", [True, False])
def test_a_drop_in_that_is_not_ours_is_not_overwritten(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str], check: bool
) -> None:
    drop_in = host.root / "etc/systemd/system/docker.service.d/http-proxy.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nEnvironment=HTTP_PROXY=http://old:3128\n")

    result = run_module(module, capsys, check=check, daemon=SETTINGS, proxy={"http": "http://proxy:3128"})

    assert result["msg"] == (
        "proxy: docker.service.d/http-proxy.conf is not ours, as it does not begin with # Managed by qianjiangyuan;"
        " remove it, or keep it and name no proxy"
    )
    assert host.calls == []
    assert "old" in drop_in.read_text()


def test_a_drop_in_that_is_not_ours_survives_a_way_back(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_in = host.root / "etc/systemd/system/docker.service.d/http-proxy.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\n")
    drop_in.chmod(0o640)
    host.answers_with = lambda text: "icc" not in text

    result = run_module(module, capsys, daemon={**SETTINGS, "icc": "maybe"})

    assert result["rolled_back"] is True
    assert (drop_in.read_text(), drop_in.stat().st_mode & 0o777) == ("[Service]\n", 0o640)
    assert [file.name for file in drop_in.parent.iterdir()] == ["http-proxy.conf"]


def test_complaints_are_the_engines_own_words() -> None:
    log = [
        'time="2026-11-24T07:40:18Z" level=info msg="stopping event stream" error="<nil>" module=libcontainerd',
        'time="2026-11-24T07:40:18Z" level=error msg="Error reconfiguring: scheme \\"\\" in x" driver=y',
        "failed to start daemon: invalid CIDR address: 300.1.1.1/24",
        "failed to start daemon: invalid CIDR address: 300.1.1.1/24",
    ]

    assert settings.complaints(log) == [
        'Error reconfiguring: scheme "" in x',
        "failed to start daemon: invalid CIDR address: 300.1.1.1/24",
    ]


def test_wrong_input_is_refused_before_reading(
    host: Host, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_module(module, capsys, daemon={"insecure-registries": ["x"]})

    assert result["failed"] is True
    assert host.calls == []


def test_a_command_that_hangs_is_given_up() -> None:
    assert systemd.run(["sleep", "60"], timeout=0.1) == systemd.Answer(systemd.TIMED_OUT, "")
