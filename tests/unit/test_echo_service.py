"""The stories' test service, as a process: it serves, it stops without losing a request, and it misbehaves as told."""

from __future__ import annotations

import asyncio
import collections
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.qianjiang.catalogue import normalise
from ansible.module_utils.qianjiang.dockerfile import Dockerfile

from support import ROOT, load

sys.path.append(str(ROOT / "molecule/support"))

import echo_service

import lab
from load import ECHO, Load

CONTEXT = ROOT / echo_service.CONTEXT
TOLD = {"QJ_SERVICE": "echo", "QJ_NODE": "hangzhou-node1", "QJ_REPLICA": "0", "QJ_SLOT": "b", "QJ_RELEASE": "7"}


class Echo:
    def __init__(self, folder: Path, behaviour: str = "good") -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(CONTEXT / "echo.py")],
            env={**TOLD, "VERSION": "two", "PORT": "0", "POSTS": str(folder), "ECHO_BEHAVIOUR": behaviour},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.said = self.process.stdout.readline()
        listening = re.search(r"listening on (\d+)", self.said)
        self.port = int(listening[1]) if listening else 0

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def get(self, path: str, method: str = "GET", body: str | None = None) -> tuple[int, str]:
        connection = self.connect()
        connection.request(method, path, body)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it said after the first line."""
        assert self.process.stdout
        said = self.process.stdout.read()
        return self.process.wait(), said

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout
        assert "SIGTERM" in self.process.stdout.readline()

    def refuses(self) -> bool:
        """Whether it soon takes no more connections."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                self.get("/")
            except ConnectionError:
                return True
        return False

    def posts(self) -> list[str]:
        return [line for file in self.folder.iterdir() for line in file.read_text().splitlines()]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Echo]]:
    started: list[Echo] = []

    def run(*arguments: Any) -> Echo:
        started.append(Echo(tmp_path, *arguments))
        return started[-1]

    yield run
    for echo in started:
        echo.process.kill()
        echo.process.communicate()


def test_it_tells_which_replica_of_which_release_it_is(start: Callable[..., Echo]) -> None:
    echo = start()
    status, body = echo.get("/")
    assert status == 200
    assert json.loads(body) == {
        "service": "echo",
        "datacenter": "",
        "node": "hangzhou-node1",
        "replica": "0",
        "slot": "b",
        "release": "7",
        "digest": "",
        "version": "two",
    }
    assert echo.get("/slow?seconds=0.1") == (status, body)
    assert echo.get("/healthz") == echo.get("/readyz") == (200, "ok\n")


def test_it_serves_the_load_and_counts_each_post_once(start: Callable[..., Echo]) -> None:
    """Two of them in one folder would be two containers of a node, each with a host name of its own."""
    echoes = [start(), start()]
    with Load([f"127.0.0.1:{echo.port}" for echo in echoes], rate=150, count=200) as visits:
        pass
    assert not visits.failures, visits
    assert visits.done == {kind.name: 2 * kind.share for kind in ECHO}
    posts = collections.Counter(line.split()[0] for line in echoes[0].posts())
    assert visits.miscounted(posts) == {}
    assert posts.total() == len(visits.posted) == 20
    assert {line.split()[1] for line in echoes[0].posts()} == {"7"}
    for echo in echoes:
        echo.terminate()
        assert echo.end() == (0, "echo: stopped\n")


def test_when_it_stops_it_answers_what_is_open_and_takes_no_more(start: Callable[..., Echo]) -> None:
    echo = start()
    slow, stream, idle, silent = (echo.connect() for _ in range(4))
    idle.request("GET", "/")
    idle.getresponse().read()
    silent.connect()
    slow.request("GET", "/slow?seconds=0.5")
    stream.request("GET", "/stream?seconds=0.7")
    flowing = stream.getresponse()
    echo.terminate()
    assert echo.refuses()
    for name, connection in (("idle", idle), ("silent", silent)):
        connection.request("POST", "/post", name)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        answer.read()
    assert slow.getresponse().status == 200
    assert flowing.read().decode() == next(kind.expect for kind in ECHO if kind.name == "STREAM")
    assert echo.end() == (0, "echo: stopped\n")
    assert sorted(echo.posts()) == ["idle 7", "silent 7"]


def test_a_connection_that_it_had_yet_to_take_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(f"{echo_service.CONTEXT}/echo.py")
    echo = module.Echo({"PORT": "0"})
    waiting: list[socket.socket] = []

    def said(text: str) -> None:
        """As soon as it listens, before it can take any: connections, then the signal."""
        if listening := re.search(r"listening on (\d+)", text):
            waiting.extend(socket.create_connection(("127.0.0.1", int(listening[1])), 10) for _ in range(20))
            for connection in waiting:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            echo.stop()

    monkeypatch.setattr(module, "log", said)
    asyncio.run(echo.serve())
    assert [connection.recv(15) for connection in waiting] == [b"HTTP/1.1 200 OK"] * 20
    for connection in waiting:
        connection.close()


def test_an_idle_connection_does_not_keep_it(start: Callable[..., Echo]) -> None:
    echo = start()
    with socket.create_connection(("127.0.0.1", echo.port), 10) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert idle.recv(100)
        echo.terminate()
        assert echo.end()[0] == 0


def test_requests_in_pieces_and_in_one_piece_are_answered_in_turn(start: Callable[..., Echo]) -> None:
    echo = start()
    with socket.create_connection(("127.0.0.1", echo.port), 10) as client:
        client.sendall(b"POST /post HTTP/1.1\r\nContent-Length: 3\r\n\r\no")
        time.sleep(0.05)
        client.sendall(b"neGET /slow?seconds=0.1 HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        data = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    assert re.findall(r"HTTP/1.1 (\d+)", data) == ["200"] * 3
    assert data.index("one") < data.index('"service"') < data.index("ok\n")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("nonsense", 400),
        ("GET / HTTP/1.1\r\nContent-Length: -1", 400),
        ("POST /post HTTP/1.1\r\nContent-Length: 99999999", 413),
        ("POST /post HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        ("POST /post HTTP/1.0\r\nContent-Length: 0", 400),
        ("GET /slow?seconds=soon HTTP/1.0", 400),
        ("GET /nowhere HTTP/1.0", 404),
        ("DELETE / HTTP/1.0", 405),
    ],
)
def test_what_it_does_not_understand_is_refused(whole: Echo, request_text: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", whole.port), 10) as client:
        client.sendall(f"{request_text}\r\n\r\n".encode())
        assert b"".join(iter(lambda: client.recv(65536), b"")).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echo]:
    """One for all tests that do not change it."""
    echo = Echo(tmp_path_factory.mktemp("posts"))
    yield echo
    echo.process.kill()
    echo.process.communicate()


def test_the_image_s_health_check_knows_the_sick_from_the_well(start: Callable[..., Echo]) -> None:
    text = (CONTEXT / "Dockerfile").read_text()
    check = Dockerfile(text)
    check.check({"BASE_IMAGE": "registry:5000/base/python@sha256:" + "0" * 64}, None)
    command = next(one.value for one in check.instructions if one.keyword == "HEALTHCHECK").partition("CMD ")[2]
    codes = []
    for echo in (start(), start("never-healthy")):
        _, *arguments = json.loads(command.replace("8080", str(echo.port)))
        codes.append(subprocess.run([sys.executable, *arguments], check=False).returncode)
    assert codes == [0, 1]


def test_it_exits_at_once(start: Callable[..., Echo]) -> None:
    echo = start("exits")
    assert echo.end() == (3, "")
    assert echo.said == "echo: told to exit with 3\n"


def test_it_exits_later(start: Callable[..., Echo]) -> None:
    echo = start("exits-later:0.2")
    assert echo.port
    assert echo.end() == (3, "echo: told to exit with 3\n")


def test_it_is_never_healthy_but_serves(start: Callable[..., Echo]) -> None:
    echo = start("never-healthy")
    assert echo.get("/healthz") == echo.get("/readyz") == (503, "never healthy\n")
    assert echo.get("/")[0] == 200


@pytest.mark.parametrize(
    ("behaviour", "before", "after"),
    [("slow-start:60", (503, "still starting\n"), None), ("sick-after:60", None, (500, "sick\n"))],
    ids=["slow start", "sick after"],
)
def test_its_health_changes(behaviour: str, before: object, after: object) -> None:
    echo = load(f"{echo_service.CONTEXT}/echo.py").Echo({"ECHO_BEHAVIOUR": behaviour})
    assert echo.unwell() == before
    echo.started -= 60
    assert echo.unwell() == after


def test_a_share_of_its_answers_are_errors_while_it_is_healthy(start: Callable[..., Echo]) -> None:
    echo = start("errors:0.2,slow-answers:1")
    assert [echo.get("/")[0] for _ in range(10)] == [200, 200, 200, 200, 500] * 2
    assert echo.get("/healthz")[0] == 200


def test_it_ignores_sigterm(start: Callable[..., Echo]) -> None:
    echo = start("ignores-term")
    echo.terminate()
    assert echo.get("/")[0] == 200
    assert echo.process.poll() is None


@pytest.mark.parametrize("behaviour", ["god", "exits:1", "sick-after", "errors:lots"])
def test_a_behaviour_that_it_does_not_know_is_an_error(start: Callable[..., Echo], behaviour: str) -> None:
    echo = start(behaviour)
    assert echo.end()[0] == 2
    assert echo.said.startswith("echo: ECHO_BEHAVIOUR: expected one of ")
    assert echo.said.endswith(f'got "{behaviour}"\n')


def test_a_post_that_it_cannot_keep_is_no_success(start: Callable[..., Echo], tmp_path: Path) -> None:
    echo = start()
    tmp_path.rmdir()
    status, body = echo.get("/post", "POST", "id")
    tmp_path.mkdir()
    assert status == 500
    assert "No such file or directory" in body
    assert echo.get("/post", "POST", "two words")[0] == 400


def test_the_lab_s_catalogue_takes_it() -> None:
    listed = yaml.safe_load((ROOT / "inventories/lab/group_vars/all/services.yml").read_text())["services"]
    entry = echo_service.entry(env={"ECHO_BEHAVIOUR": "exits"}, update={"canary": 0})
    echo = normalise(listed | {"echo": entry}, {"hangzhou": ["a", "b"]})["echo"]
    assert echo["env"] == {"ECHO_BEHAVIOUR": "exits", "VERSION": "1"}
    assert (echo["update"]["canary"], echo["update"]["drain_timeout"]) == (0, 10)
    assert echo["build"]
    assert (ROOT / echo["build"]["context"] / "Dockerfile").is_file()
    assert echo_service.ENTRY["env"]["ECHO_BEHAVIOUR"] == "good"


def test_the_posts_of_all_nodes_are_counted_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Host:
        def check_output(self, command: str) -> str:
            return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.rstrip("\n")

    monkeypatch.setattr(lab, "connect", lambda _: Host())
    monkeypatch.setattr(echo_service, "POSTS", str(tmp_path / "posts"))
    monkeypatch.setattr(echo_service, "USER", os.getuid())
    echo_service.prepare(["a"])
    assert echo_service.posts(["a"]) == {}
    (tmp_path / "posts/container1").write_text("one 6\ntwo 6\n")
    (tmp_path / "posts/container2").write_text("two 7\n")
    assert echo_service.posts(["a"]) == {"one": 1, "two": 2}


def test_a_story_gets_a_context_to_change(tmp_path: Path) -> None:
    copy = echo_service.source(tmp_path)
    assert copy == tmp_path / "molecule/support/echo"
    assert {file.name for file in copy.iterdir()} == {"Dockerfile", ".dockerignore", "echo.py"}
