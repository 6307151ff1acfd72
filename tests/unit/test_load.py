"""The load generator: what goes wrong on the way is counted, by its kind."""

from __future__ import annotations

import collections
import json
import re
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT

sys.path.append(str(ROOT / "molecule/support"))

from load import Answer, Kind, Load

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"

END = b"3\r\ntwo\r\n0\r\n\r\n"


def whole(body: bytes, status: str = "200 OK", fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status.encode(), fields, len(body), body)


class Server(socketserver.ThreadingTCPServer):
    """Answers by path, and remembers what was posted."""

    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posts: collections.Counter[str] = collections.Counter()
        self.connections = 0
        self.over = threading.Event()
        self.target = f"127.0.0.1:{self.server_address[1]}"


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.connections += 1
        while line := self.rfile.readline():
            fields = dict(field.split(b": ") for field in iter(self.rfile.readline, b"\r\n"))
            body = self.rfile.read(int(fields.get(b"Content-Length", 0))).decode()
            answer = self.answer(line.split()[1].decode(), body)
            self.wfile.write(answer)
            # Only who was told, or gets something wrong, finds the connection closed
            if answer not in (whole(b"right"), whole(body.encode()), STREAM + END):
                return

    def answer(self, path: str, body: str) -> bytes:
        if path.startswith("/post"):
            self.server.posts[body] += {"/post": 1, "/post-twice": 2, "/post-never": 0}[path]
            return whole(body.encode())
        if path == "/hangs":
            self.server.over.wait(20)
        return {
            "/": whole(b"right"),
            "/wrong": whole(b"wrong"),
            "/error": whole(b"sorry", "500 Internal Server Error"),
            "/close": whole(b"right", fields=b"Connection: close\r\n"),
            "/too-long": whole(b"right") + b"more",
            "/short": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nright",
            "/to-the-end": b"HTTP/1.1 200 OK\r\n\r\nright",
            "/stream": STREAM + END,
            "/cut": STREAM,
            "/without-end": STREAM + b"3\r\ntwo\r\n",
            "/half-a-head": b"HTTP/1.1 200 OK\r\n",
            "/no-http": b"SSH-2.0\r\n\r\n",
        }.get(path, b"")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


RIGHT = Kind("GET", 1, expect="right")


def test_every_failure_is_counted_by_its_kind(server: Server) -> None:
    kinds = [
        RIGHT,
        Kind("CLOSE", 1, "/close", expect="right"),
        Kind("END", 1, "/to-the-end", expect="right"),
        Kind("STREAM", 1, "/stream", expect="onetwo"),
        Kind("WRONG", 1, "/wrong", expect="right"),
        Kind("LONG", 1, "/too-long", expect="right"),
        Kind("ERROR", 1, "/error", expect="right"),
        Kind("SHORT", 1, "/short", expect="right"),
        Kind("CUT", 1, "/cut", expect="onetwo"),
        Kind("ENDLESS", 1, "/without-end", expect="onetwo"),
        Kind("HALF", 1, "/half-a-head"),
        Kind("DROP", 1, "/dropped"),
        Kind("SSH", 1, "/no-http"),
        Kind("HANG", 1, "/hangs"),
    ]
    with Load([server.target], rate=200, count=4 * len(kinds), timeout=0.5, kinds=kinds) as load:
        pass
    assert load.done == {"GET": 4, "CLOSE": 4, "END": 4, "STREAM": 4}
    assert load.failures == {
        "WRONG wrong body": 4,
        "LONG wrong body": 4,
        "ERROR 500": 4,
        "SHORT truncated": 4,
        "CUT truncated": 4,
        "ENDLESS truncated": 4,
        "HALF truncated": 4,
        "DROP closed without an answer": 4,
        "SSH no HTTP": 4,
        "HANG timeout": 4,
    }
    assert load.total == 4 * len(kinds)
    assert set(load.examples) == set(load.failures)
    example = rf"\d\d:\d\d:\d\d {server.target}: \w+-r\d+ on a (new|kept) connection, after \d+ ms: b'sorry'"
    assert re.fullmatch(example, load.examples["ERROR 500"])
    assert "4 x CUT truncated, first " in str(load)


def test_what_was_posted_must_be_there_once(server: Server) -> None:
    kinds = [Kind(name, 1, f"/{name}", "POST", "{id}", r"\{id\}") for name in ("post", "post-twice", "post-never")]
    with Load([server.target], rate=300, count=30, kinds=kinds) as load:
        pass
    assert not load.failures, load
    assert len(load.posted) == len(set(load.posted)) == 30
    assert sorted(load.miscounted(server.posts).values()) == [0] * 10 + [2] * 10
    assert load.miscounted(dict.fromkeys(load.posted, 1)) == {}


def test_a_post_without_the_right_answer_may_be_there_once_or_not() -> None:
    load = Load([])
    load.unsure = ["lost", "done", "repeated"]
    assert load.miscounted({"done": 1, "repeated": 2}) == {"repeated": 2}


def test_nobody_listens_at_one_of_two_targets(server: Server) -> None:
    with Server() as other:
        target = other.target
    with Load([server.target, target], rate=300, count=30, kinds=[RIGHT]) as load:
        pass
    assert load.failures == {"GET refused": 15}
    assert load.done == {"GET": 15}
    assert f" {target}: " in load.examples["GET refused"]


def test_requests_start_whatever_became_of_those_before(server: Server) -> None:
    with Load([server.target], rate=100, count=40, timeout=0.6, kinds=[Kind("HANG", 1, "/hangs")]) as load:
        pass
    assert load.failures == {"HANG timeout": 40}
    assert server.connections == 40


def test_more_than_half_of_the_requests_share_connections(server: Server) -> None:
    with Load([server.target], rate=500, count=210, kinds=[RIGHT]) as load:
        pass
    assert load.done == {"GET": 210}
    assert 210 * 3 // 7 < server.connections < 180


def test_it_goes_on_until_it_is_stopped_and_no_failure_of_the_warm_up_counts(server: Server) -> None:
    kinds = [RIGHT, Kind("WRONG", 1, "/wrong", expect="right"), Kind("POST", 1, "/post", "POST", "{id}")]
    with Load([server.target], rate=200, warm_up=0.3, kinds=kinds) as load:
        while len(server.posts) < 10:
            time.sleep(0.01)
    assert load.failures.keys() == {"WRONG wrong body"}
    assert sum(load.done.values()) + sum(load.failures.values()) == load.total
    assert set(server.posts) == set(load.posted)
    assert all("-r" in name for name in server.posts)


def test_a_warm_up_without_one_right_answer_is_an_error(server: Server) -> None:
    load = Load([server.target], warm_up=0.1, kinds=[Kind("WRONG", 1, "/wrong", expect="right")])
    with pytest.raises(RuntimeError, match=r"not one right answer in the warm-up: .*b'wrong'"):
        load.start()
    assert load.process is None


def test_a_target_that_has_no_port_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="the load's process ended with 1"):
        Load(["localhost"]).start()
    assert "ValueError" in capfd.readouterr().err


def test_by_hand_it_reports_as_json_and_fails_when_a_request_failed(server: Server) -> None:
    kinds = [{"name": "GET", "share": 1}, {"name": "ERROR", "share": 1, "path": "/error"}]
    argv = [sys.executable, "-I", str(Path(ROOT, "molecule/support/load.py")), "--count", "20", server.target]
    done = subprocess.run([*argv, "--kinds", json.dumps(kinds)], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert (report["total"], report["done"], report["failures"]) == (20, {"GET": 10}, {"ERROR 500": 10})
    assert report["milliseconds"]["GET"].keys() == {"median", "p99", "max"}


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_may_arrive_in_any_pieces(size: int) -> None:
    data, answer = STREAM + b"3;x=1\r\ntwo\r\n0\r\nTrailer: 1\r\n\r\n", Answer()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert [answer.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert (answer.status, answer.body, answer.rest) == (200, b"onetwo", b"")
