# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from webui.document import parse_document
from webui.gateway import (
    FRESH,
    MAXIMUM_BYTES,
    GatewayWatcher,
    Observation,
    Server,
    Servers,
    StatisticsError,
    expected_servers,
    fetch_statistics,
    longest_answer,
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


@pytest.mark.parametrize("text", ["", "<html>no</html>", "pxname,svname\n", "# pxname,svname,\n" + "x" * 2**18])
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
        (Observation(answered_at=90, good_for=12), "reachable"),  # an answer with many servers takes long
        (Observation(error="connection refused"), "checking"),  # before a pause
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
        ("http://[gateway/", "its address is not one: Invalid IPv6 URL"),
        ("http://gateway..lab/", "its address is not one: encoding with 'idna' codec failed"),
    ],
)
def test_fetch_from_nowhere(url: str, message: str) -> None:
    with pytest.raises(StatisticsError) as failure:
        fetch_statistics(url)
    assert str(failure.value).startswith(message)


def test_a_failure_keeps_what_was_seen_before(statistics: Callable[..., str]) -> None:
    answers: list[str | StatisticsError] = [
        statistics(("webui", "n1.0.a", "UP", 1, "")),
        StatisticsError("answered 503"),
    ]
    times = iter((100.0, 102.0))

    def fetch(_url: str, _servers: int) -> str:
        answer = answers.pop(0)
        if isinstance(answer, StatisticsError):
            raise answer
        return answer

    watcher = GatewayWatcher(lambda: None, fetch=fetch, clock=lambda: next(times))
    watcher.ask(("http://gateway/;csv",))
    watcher.ask(("http://gateway/;csv",))
    observation = watcher.look()[("http://gateway/;csv",)]
    assert (observation.answered_at, observation.failed_at, observation.error) == (100.0, 102.0, "answered 503")
    assert observation.servers == {("webui", "n1", 0): {"a": Server("UP", 1)}}


def test_of_several_gateways_the_first_that_answers_counts(
    statistics: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    down = {"http://g1/": "connection refused"}

    def fetch(url: str, _servers: int) -> str:
        asked.append(url)
        if url in down:
            raise StatisticsError(down[url])
        return statistics(("webui", "n1.0.a", "UP", 1, ""))

    def ask() -> tuple[str, str | None]:
        """The datacenter's state after a round, and what is wrong."""
        asked.clear()
        watcher.ask(both)
        found = watcher.look()[both]
        return found.state(100.0), found.error

    both = ("http://g1/", "http://g2/")
    watcher = GatewayWatcher(lambda: None, fetch=fetch, clock=lambda: 100.0)
    assert ask() == ("reachable", None)
    assert asked == ["http://g1/", "http://g2/"]
    assert caplog.messages == ["gateway g1: connection refused"]
    assert ask() == ("reachable", None)
    assert asked == ["http://g2/"]

    down["http://g2/"] = "answered 503"
    watcher._clock = lambda: 200.0
    assert ask()[1] == "answered 503; connection refused"
    assert watcher.look()[both].state(200.0) == "away"

    del down["http://g1/"]
    ask()
    assert watcher.look()[both].state(200.0) == "reachable"
    assert asked == ["http://g2/", "http://g1/"]


@pytest.mark.parametrize(
    ("changes", "servers"),
    [
        ({}, 4),
        ({"replicas": 3}, 12),
        ({"datacenters": ["hangzhou"]}, 0),
        ({"port": None}, 0),  # not forwarded
    ],
)
def test_servers_that_a_gateway_has(platform: dict[str, Any], changes: dict[str, Any], servers: int) -> None:
    platform["services"][0].update(changes)
    document = parse_document(json.dumps(platform))
    assert expected_servers(document, document.datacenters[1]) == servers


def test_what_an_answer_may_weigh_follows_the_number_of_servers() -> None:
    body = b"x" * (MAXIMUM_BYTES + 1)
    with served(lambda handler: _send(handler, 200, body)) as url:
        assert len(fetch_statistics(url, servers=20_000)) == len(body)
        with pytest.raises(StatisticsError, match=r"^answered with more than 4 MiB$"):
            fetch_statistics(url)


def test_what_an_answer_may_take_follows_the_number_of_servers() -> None:
    with served(_trickle) as url:
        assert fetch_statistics(url, servers=20_000, timeout=0.2) == "x" * 20


def test_an_answer_with_many_servers_stays_good_for_longer(statistics: Callable[..., str]) -> None:
    watcher = GatewayWatcher(lambda: None, fetch=lambda *_: statistics(), clock=lambda: 100.0)
    watcher.ask(("http://few/;csv",), 4)
    watcher.ask(("http://many/;csv",), 20_000)
    few, many = watcher.look().values()
    assert few.good_for == pytest.approx(FRESH, abs=0.01)
    assert many.good_for == pytest.approx(3 * longest_answer(20_000))


class Gateways:
    """Answers of two gateways that change with each round; `rounds` of them were asked for."""

    def __init__(self, platform: dict[str, Any], statistics: Callable[..., str]) -> None:
        self.rounds = 0
        self.error = ""
        self.statistics = statistics
        document = parse_document(json.dumps(platform))
        self.watcher = GatewayWatcher(lambda: document, fetch=self.fetch)
        self.watcher.start()

    def fetch(self, url: str, servers: int) -> str:
        assert servers == 4
        if "hangzhou" in url:
            self.rounds += 1
        if self.error:
            raise StatisticsError(self.error)
        return self.statistics(("webui", "n1.0.a", "UP", self.rounds, ""))

    def seen(self) -> list[tuple[str, int]]:
        """Who looks sees: each gateway's state and its last round."""
        found = self.watcher.look().values()
        now = time.time()
        return [
            (each.state(now), max((slots["a"].sessions for slots in each.servers.values()), default=0))
            for each in found
        ]


@pytest.fixture
def gateways(monkeypatch: pytest.MonkeyPatch, platform: dict[str, Any], statistics: Callable[..., str]) -> Gateways:
    monkeypatch.setattr("webui.gateway.INTERVAL", 0.02)
    monkeypatch.setattr("webui.gateway.WATCHED", 0.3)
    return Gateways(platform, statistics)


def wait_for_the_pause(gateways: Gateways) -> int:
    """How many rounds there were when the pause began."""
    time.sleep(0.6)
    before = gateways.rounds
    time.sleep(0.2)
    assert gateways.rounds == before
    return before


def test_nobody_is_asked_before_somebody_looks(gateways: Gateways) -> None:
    assert wait_for_the_pause(gateways) == 0


def test_who_looks_first_sees_what_is_there_now(gateways: Gateways) -> None:
    assert [state for state, _ in gateways.seen()] == ["reachable", "reachable"]


def test_while_somebody_looks_the_picture_moves(gateways: Gateways) -> None:
    gateways.seen()
    for _ in range(10):
        time.sleep(0.1)
        last = gateways.rounds
        assert gateways.seen()[0] >= ("reachable", last - 1)
    assert gateways.rounds > 10


def test_after_a_pause_only_what_is_heard_anew_is_shown(gateways: Gateways) -> None:
    gateways.seen()
    before = wait_for_the_pause(gateways)
    assert 2 < before < 40
    assert gateways.seen()[0][1] > before

    wait_for_the_pause(gateways)
    gateways.error = "answered 503"
    assert gateways.seen() == [("away", 0), ("away", 0)]


def test_the_log_tells_a_failure_once_also_over_a_pause(gateways: Gateways, caplog: pytest.LogCaptureFixture) -> None:
    gateways.error = "answered 502"  # no other test's, whose last words may come late
    for _ in range(2):
        gateways.seen()
        wait_for_the_pause(gateways)
    assert sorted(text for text in caplog.messages if "502" in text) == [
        f"gateway {name}.gateway:8404: answered 502" for name in ("hangzhou", "shanghai")
    ]


def test_a_mistake_of_ours_is_in_the_log(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("webui.gateway.parse_statistics", lambda _text: {}["made up"])
    gateways.seen()
    assert "gateways http://hangzhou.gateway:8404/;csv" in caplog.messages
    assert any("KeyError: 'made up'" in str(record.exc_text) for record in caplog.records)
