# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real thing: run.sh, gunicorn, sockets and signals."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from webui.worker import LINGER, PortalWorker

SERVICE = Path(__file__).parents[1]
# The WebUI itself has no slow request to be stopped under, so one is added to it.
SLOW_APPLICATION = """
import os, time
from pathlib import Path
import webui.worker
from webui.app import create_app

webui.worker.LINGER = 5  # the machine of a test may be a busy one

def slow_app():
    app = create_app()

    @app.get("/slow")
    def slow():
        Path(os.environ["STARTED"]).touch()
        time.sleep(3)
        return "finished\\n"

    @app.get("/broken")
    def broken():
        raise RuntimeError("on purpose")

    return app
"""


class Running:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        connection = self.connect()
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """SIGTERM; the exit code and the log."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=15)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(application: str | None = None) -> Running:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (tmp_path / "slow_application.py").write_text(SLOW_APPLICATION)
        path = os.pathsep.join((str(SERVICE / "WebPortal"), str(tmp_path)))
        command: list[str | Path] = [SERVICE / "run.sh"]
        if application:
            command = [sys.executable, "-m", "gunicorn", "--config", "python:webui.server", application]
        process = subprocess.Popen(
            command,
            cwd=SERVICE / "WebPortal",
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PORT": str(port),
                "PYTHONPATH": path,
                "STARTED": str(tmp_path / "started"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PLATFORM_FILE": str(tmp_path / "platform.json"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running.append(Running(process, port))
        deadline = time.monotonic() + 15
        while True:
            try:
                assert running[-1].get("/readyz") == (200, "ready\n")
                return running[-1]
            except OSError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline, "gunicorn does not listen"
                time.sleep(0.02)

    yield start
    for each in running:
        with contextlib.suppress(ProcessLookupError):  # all gone already
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.communicate()


def ask_while(condition: Callable[[], bool], server: Running) -> None:
    while condition():
        server.get("/healthz")
        time.sleep(0.05)


def test_sigterm_lets_the_request_in_flight_finish_and_refuses_new_ones(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    server = run("slow_application:slow_app()")
    answers: list[tuple[int, str]] = []
    request = threading.Thread(target=lambda: answers.append(server.get("/slow")))
    request.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)

    server.process.send_signal(signal.SIGTERM)
    with pytest.raises(ConnectionRefusedError):
        ask_while(request.is_alive, server)
    assert request.is_alive()
    request.join()
    assert answers == [(200, "finished\n")]
    assert server.stop()[0] == 0


def test_a_connection_kept_alive_is_answered_not_ready_while_stopping(run: Callable[..., Running]) -> None:
    server = run("slow_application:slow_app()")
    kept = server.connect()
    kept.request("GET", "/readyz")
    assert kept.getresponse().read() == b"ready\n"
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    kept.request("GET", "/readyz")
    answer = kept.getresponse()
    assert (answer.status, answer.read(), answer.getheader("Connection")) == (503, b"stopping\n", "close")
    kept.close()
    assert server.stop()[0] == 0


def test_idle_connections_do_not_hold_up_the_stop() -> None:
    worker = PortalWorker.__new__(PortalWorker)
    idle, closing = SimpleNamespace(timeout=time.monotonic() + 75), SimpleNamespace(timeout=time.monotonic() + 0.1)
    worker.keepalived_conns = deque((closing, idle))
    worker._cap_keepalive(time.monotonic() + 2)
    assert closing.timeout < idle.timeout <= time.monotonic() + LINGER


def test_connections_the_kernel_has_taken_are_served_before_the_socket_closes() -> None:
    worker = PortalWorker.__new__(PortalWorker)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        taken: list[object] = []
        worker.alive, worker._accepting, worker.nr_conns = False, False, 0
        worker.sockets, worker.cfg, worker.enqueue_req = [listener], SimpleNamespace(), taken.append
        worker.set_accept_enabled(False)
        assert (len(taken), listener.fileno()) == (3, -1)
    for client in clients:
        client.close()


def test_log_is_json_without_secrets_and_probes(run: Callable[..., Running]) -> None:
    server = run("slow_application:slow_app()")
    headers = {"X-Request-ID": "r-1", "Cookie": "session=hidden", "Authorization": "Bearer hidden"}
    status, page = server.get("/?token=hidden", headers)
    server.get("/nothing-here")
    server.get("/broken")
    server.get("/healthz")
    code, lines = server.stop()
    requests = [line for line in lines if line["message"] == "request"]
    assert code == 0
    assert [(each["method"], each["path"], each["status"]) for each in requests] == [
        ("GET", "/", 200),
        ("GET", "/nothing-here", 404),
        ("GET", "/broken", 500),
    ]
    assert requests[0]["request_id"] == "r-1"
    assert requests[0]["bytes"] == len(page.encode())
    assert 0 < requests[0]["ms"] < 5000
    assert status == 200
    assert "hidden" not in json.dumps(lines)
    assert [line["exception"].splitlines()[-1] for line in lines if "exception" in line] == ["RuntimeError: on purpose"]


def health_check(port: str | None) -> int:
    """The exit code of the image's health check, in an environment with this PORT."""
    command = (SERVICE / "Dockerfile").read_text().partition("\nHEALTHCHECK ")[2].partition("CMD ")[2].splitlines()[0]
    _, *arguments = json.loads(command)
    environment = {} if port is None else {"PORT": port}
    check = subprocess.run([sys.executable, *arguments], check=False, env=environment, stderr=subprocess.DEVNULL)
    return check.returncode


def test_the_image_s_health_check_asks_at_the_port_that_is_served(run: Callable[..., Running]) -> None:
    server = run()
    assert health_check(str(server.port)) == 0
    server.stop()
    assert health_check(str(server.port)) == 1


def test_the_image_s_health_check_has_the_server_s_default_port() -> None:
    try:
        default = socket.create_server(("127.0.0.1", 8080))
    except OSError:
        pytest.skip("port 8080 is in use here")
    with default:
        default.settimeout(10)
        asking = threading.Thread(target=health_check, args=(None,))
        asking.start()
        client, _ = default.accept()
        with client:
            assert client.recv(64).startswith(b"GET /healthz ")
        asking.join()


def test_run_sh_becomes_the_server(run: Callable[..., Running]) -> None:
    server = run()
    command = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().split(b"\0")
    assert command[1:3] == [b"-m", b"gunicorn"]
    assert server.stop()[0] == 0
