from __future__ import annotations

import fcntl
import functools
import socket
import threading
from pathlib import Path

import pytest
from ansible.module_utils.qianjiang import haproxy

from support import load

CONFIGURATION = """
frontend webui
    default_backend webui
backend webui
    default-server check
    server node1.0.a 10.0.0.1:18080
    server node1.0.b [fd00::1]:18081 weight 1
backend other
    server node1.0.a 10.0.0.1:19080
"""
HEADER = "# be_id be_name srv_id srv_name"


def line(backend: str, server: str, admin: int, port: str) -> str:
    return f"4 {backend} 1 {server} 10.0.0.1 2 {admin} 1 1 23 15 3 3 6 0 0 0 - {port} - 0 0 - - 0"


def test_configured_servers() -> None:
    assert load("roles/gateway/files/haproxy_state.py").configured_servers(CONFIGURATION) == {
        ("webui", "node1.0.a"): ("10.0.0.1", "18080"),
        ("webui", "node1.0.b"): ("fd00::1", "18081"),
        ("other", "node1.0.a"): ("10.0.0.1", "19080"),
    }


def test_endpoints() -> None:
    text = "frontend a\n    bind *:80\n    bind 10.0.0.1:443 ssl crt x\n    bind [::1]:8404\n"
    assert load("roles/gateway/files/haproxy_state.py").endpoints(text) == [("", 80), ("10.0.0.1", 443), ("::1", 8404)]


def test_a_port_of_another_program_is_refused() -> None:
    module = load("roles/gateway/files/haproxy_state.py")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use$"):
            module.check_endpoints(f"bind 127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as ours:
        module.check_endpoints(f"bind 127.0.0.1:{ours.getsockname()[1]}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([line("webui", "a", 1, "80")], [line("webui", "a", 1, "80")], id="idempotent"),
        pytest.param([line("webui", "a", 8, "99")], [line("webui", "a", 8, "80")], id="the configuration's port"),
        pytest.param([line("webui", "node1.0.a", 0, "99")], [line("webui", "node1.0.a", 0, "99")], id="of what serves"),
        pytest.param([line("webui", "node1.0.a", 1, "99")], [line("webui", "node1.0.a", 1, "80")], id="of what rests"),
        pytest.param([line("webui", "datacenter.a", 0, "99")], [line("webui", "datacenter.a", 0, "80")], id="no slot"),
        pytest.param([line("webui", "gone", 0, "80")], [], id="no such server any more"),
        pytest.param([line("gone", "a", 0, "80")], [], id="no such backend any more"),
    ],
)
def test_carry_over(before: list[str], after: list[str]) -> None:
    names = [row.split()[3] for row in after] or ["a"]
    servers = {("webui", name): ("10.0.0.1", "80") for name in names}
    state = "\n".join(["1", HEADER, *before]) + "\n\n"
    assert (
        load("roles/gateway/files/haproxy_state.py").carry_over(state, servers)
        == "\n".join(["1", HEADER, *after]) + "\n"
    )


def test_a_new_slot_of_what_serves_begins_in_drain() -> None:
    serves, rests = line("webui", "node1.0.a", 0, "18080"), line("webui", "node1.0.b", 8, "18081")
    servers = {
        ("webui", "node1.0.a"): ("10.0.0.1", "18080"),
        ("webui", "node1.0.b"): ("10.0.0.1", "18081"),
        ("webui", "node1.1.a"): ("10.0.0.2", "18082"),
        ("webui", "datacenter.shanghai"): ("10.0.0.9", "80"),
        ("other", "node1.0.a"): ("10.0.0.1", "19080"),
    }
    carry_over = load("roles/gateway/files/haproxy_state.py").carry_over
    *before, new = carry_over("\n".join(["1", HEADER, serves, rests]), servers).splitlines()
    assert before == ["1", HEADER, serves, rests]
    assert new.split()[3:7] == ["node1.1.a", "10.0.0.2", "2", "8"]
    assert (new.split()[1], new.split()[18], len(new.split())) == ("webui", "18082", len(rests.split()))


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^unexpected answer to 'show servers state': '2\\n'$"):
        load("roles/gateway/files/haproxy_state.py").carry_over("2\n", {})


def test_a_map_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    there = tmp_path / "there.map"
    there.touch()
    text = f"    set-var(txn.a) str(x),map({there}) unless x\n    set-var(txn.b) str(map),map(/nowhere/y.map)\n"
    expected = text.replace("/nowhere/y.map", "/dev/null")
    assert load("roles/gateway/files/haproxy_state.py").without_missing_maps(text) == expected


def test_nothing_is_set_from_the_save_until_the_new_worker_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("roles/gateway/files/haproxy_state.py")
    workers = iter([100, 100, 0, 200])
    seen: list[tuple[str, bool]] = []

    def saw(what: str) -> None:
        with module.LOCK.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                seen.append((what, False))
            except BlockingIOError:
                seen.append((what, True))

    def worker() -> int:
        saw("worker")
        return next(workers)

    assert Path(haproxy.SOCKET).with_name(haproxy.RELOAD_LOCK) == module.LOCK
    (tmp_path / "haproxy.cfg").touch()
    for name in ("CONFIGURATION", "STATE", "LOCK"):
        file = {"CONFIGURATION": "haproxy.cfg", "STATE": "server-state", "LOCK": "reload.lock"}[name]
        monkeypatch.setattr(module, name, tmp_path / file)
    monkeypatch.setattr(module, "worker", worker)
    monkeypatch.setattr(module, "save", lambda: saw("save"))
    monkeypatch.setattr(module.os, "kill", lambda *_: saw("kill"))
    monkeypatch.setattr(module, "alive", lambda _: bool(saw("ends")))
    module.reload(1, 5)
    assert seen == [(what, True) for what in ("worker", "save", "kill", "worker", "worker", "worker")] + [
        ("ends", False)
    ]


@pytest.mark.parametrize("arguments", [[], ["127.0.0.1", "8404"]], ids=["now", "before keepalived was reloaded"])
def test_a_gateway_is_healthy_while_its_runtime_socket_answers_whatever_its_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    module = load("roles/gateway/files/haproxy_state.py")
    path = str(tmp_path / "admin.sock")
    monkeypatch.setattr(module, "ask", functools.partial(module.ask, path=path))
    monkeypatch.setattr("sys.argv", ["haproxy-state", "healthy", *arguments])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(connection.recv(100).replace(b"show info", b"Pid: 7"))

        threading.Thread(target=serve, daemon=True).start()
        assert module.main() == 0
    assert module.main() == 1
    assert capsys.readouterr().err == "haproxy-state: [Errno 111] Connection refused\n"
