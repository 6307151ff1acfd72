# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from webui.gateway import (
    FRESH,
    GatewayWatcher,
    Observation,
    Server,
    Servers,
    StatisticsError,
    fetch_statistics,
    parse_statistics,
)


@pytest.mark.parametrize(
    ("row", "servers"),
    [
        (("webui", "hangzhou-node1.0.a", "UP", 3, ""), {("webui", "hangzhou-node1", 0): {"a": Server("UP", 3)}}),
        (("webui", "hangzhou-node1.2.b", "DOWN 1/2", 0, "Layer4 timeout"),
         {("webui", "hangzhou-node1", 2): {"b": Server("DOWN 1/2", 0, "Layer4 timeout")}}),
        (("webui", "n1.0.a", "MAINT (via webui/n1.0.b)", 0, ""), {("webui", "n1", 0): {"a": Server("MAINT")}}),
        (("webui", "n1.example.org.0.a", "UP", 0, ""), {("webui", "n1.example.org", 0): {"a": Server("UP")}}),
        (("webui", "FRONTEND", "OPEN", 9, ""), {}),
        (("webui", "BACKEND", "UP", 9, ""), {}),
        (("webui", "shanghai", "UP", 0, ""), {}),  # a backup: another datacenter's gateway
        (("webui", "n1.0.c", "UP", 0, ""), {}),
        (("webui", "n1.x.a", "UP", 0, ""), {}),
        (("webui", "n1.0.ab", "UP", 0, ""), {}),
    ],
)  # fmt: skip
def test_rows(statistics: Callable[..., str], row: tuple[str, str, str, int, str], servers: Servers) -> None:
    assert parse_statistics(statistics(row)) == servers


def test_both_slots_are_one_replica(statistics: Callable[..., str]) -> None:
    text = statistics(("webui", "n1.0.a", "UP", 1, ""), ("webui", "n1.0.b", "MAINT", 0, ""))
    assert parse_statistics(text) == {("webui", "n1", 0): {"a": Server("UP", 1), "b": Server("MAINT")}}


@pytest.mark.parametrize("text", ["", "<html>no</html>", "pxname,svname\n"])
def test_not_statistics(text: str) -> None:
    with pytest.raises(StatisticsError, match=r"^answered, but not with HAProxy statistics$"):
        parse_statistics(text)


@pytest.mark.parametrize(
    ("observation", "state"),
    [
        (Observation(), "checking"),
        (Observation(answered_at=100), "reachable"),
        (Observation(answered_at=100 - FRESH), "reachable"),
        (Observation(answered_at=100 - FRESH - 0.1), "away"),  # a thread that hangs reports no failure
        (Observation(failed_at=100, error="connection refused"), "away"),
        (Observation(answered_at=98, failed_at=100, error="connection refused"), "reachable"),  # one round missed
        (Observation(answered_at=90, failed_at=100, error="connection refused"), "away"),
    ],
)
def test_state_of_a_datacenter(observation: Observation, state: str) -> None:
    assert observation.state(100) == state


@contextmanager
def served(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/;csv"
    finally:
        server.shutdown()
        server.server_close()


def _send(handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.end_headers()
    handler.wfile.write(body)


def test_fetch() -> None:
    paths: list[str] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        paths.append(handler.path)
        _send(handler, 200, b"# pxname,svname,\n")

    with served(answer) as url:
        assert fetch_statistics(url) == "# pxname,svname,\n"
    assert paths == ["/;csv"]


def _trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(20):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda handler: _send(handler, 503, b""), "answered 503"),
        (lambda _handler: time.sleep(0.6), "no answer within 0.2 s"),
        (_trickle, "no answer within 0.2 s"),
        (lambda handler: handler.wfile.write(b"SSH-2.0\r\n"), "not HTTP: BadStatusLine"),
    ],
)
def test_fetch_says_what_is_wrong_in_time(
    answer: Callable[[http.server.BaseHTTPRequestHandler], None], message: str
) -> None:
    started = time.monotonic()
    with served(answer) as url, pytest.raises(StatisticsError) as failure:
        fetch_statistics(url, timeout=0.2)
    assert str(failure.value) == message
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/;csv", "connection refused"),
        ("http://127.0.0.1:http/", "its address is not one: Port could not be cast to integer value as 'http'"),
    ],
)
def test_fetch_from_nowhere(url: str, message: str) -> None:
    with pytest.raises(StatisticsError) as failure:
        fetch_statistics(url)
    assert str(failure.value) == message


def test_a_failure_keeps_what_was_seen_before(statistics: Callable[..., str]) -> None:
    answers: list[str | StatisticsError] = [
        statistics(("webui", "n1.0.a", "UP", 1, "")),
        StatisticsError("answered 503"),
    ]
    times = iter((100.0, 102.0))

    def fetch(_url: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, StatisticsError):
            raise answer
        return answer

    watcher = GatewayWatcher(lambda: None, fetch=fetch, clock=lambda: next(times))
    watcher.ask("http://gateway/;csv")
    watcher.ask("http://gateway/;csv")
    observation = watcher.observations()["http://gateway/;csv"]
    assert (observation.answered_at, observation.failed_at, observation.error) == (100.0, 102.0, "answered 503")
    assert observation.servers == {("webui", "n1", 0): {"a": Server("UP", 1)}}
