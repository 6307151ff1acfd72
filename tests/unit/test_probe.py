"""Proving a candidate: what counts as healthy, for how long, and what ends the wait at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible.module_utils.qianjiang.probe import (
    NO_VERDICT,
    Observation,
    UnprovenError,
    check_command,
    container_problem,
    port_holder,
    probe_http,
    probe_tcp,
    wait_proven,
)

GOOD = Observation(True, False, "", {"container": "healthy"})
BAD = Observation(False, False, "GET /readyz answered 503", {"container": "starting"})
ANSWERS = Observation(False, False, "its health check has not passed yet", {"container": "starting"}, answers=True)
ENDED = Observation(False, True, "ended with exit code 3", {"container": "starting"})


class Clock:
    """A clock that only the wait moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait(observations: list[Observation], minimum: float, deadline: float, *verdicts: str) -> tuple[float, Observation]:
    """How long it took, and what was seen last. `verdicts`: of the container's check, each time it is run."""
    clock = Clock()
    left, told = list(observations), [*verdicts, NO_VERDICT]
    result = wait_proven(
        lambda: left.pop(0) if len(left) > 1 else left[0],
        min_healthy_time=minimum,
        healthy_deadline=deadline,
        check=lambda: told.pop(0) if len(told) > 1 else told[0],
        clock=clock.time,
        sleep=clock.sleep,
        interval=1,
    )
    return clock.now - 100, result


@pytest.mark.parametrize(
    ("observations", "minimum", "seconds"),
    [
        pytest.param([GOOD], 0, 0, id="at once"),
        pytest.param([GOOD], 5, 5, id="healthy for long enough"),
        pytest.param([BAD] * 20 + [GOOD], 5, 25, id="slow but healthy"),
        pytest.param([ANSWERS] * 3 + [GOOD], 5, 5, id="the time begins with the first answers"),
        pytest.param([ANSWERS] * 3 + [BAD] + [GOOD], 5, 9, id="answers that stop do not count"),
        pytest.param([GOOD] * 4 + [BAD] + [GOOD], 5, 10, id="only unbroken health counts"),
    ],
)
def test_healthy(observations: list[Observation], minimum: float, seconds: float) -> None:
    assert wait(observations, minimum, 60) == (seconds, GOOD)


@pytest.mark.parametrize(
    ("observations", "verdicts", "seconds", "last"),
    [
        pytest.param([ANSWERS], [""], 5, ANSWERS, id="the engine has not run it yet"),
        pytest.param([ANSWERS], ["its health check fails", ""], 11, ANSWERS, id="what fails breaks the health"),
        pytest.param([ANSWERS] * 9 + [GOOD], [NO_VERDICT], 11, GOOD, id="the engine was sooner the second time"),
        pytest.param([ANSWERS] * 3 + [BAD] + [ANSWERS], [""], 9, ANSWERS, id="only after unbroken answers"),
    ],
)
def test_the_check_of_the_container_has_the_last_word(
    observations: list[Observation], verdicts: list[str], seconds: float, last: Observation
) -> None:
    assert wait(observations, 5, 60, *verdicts) == (seconds, last)


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        ([BAD], "not healthy within 30 s: GET /readyz answered 503"),
        ([ANSWERS], "not healthy within 30 s: its health check has not passed yet"),
        ([BAD, GOOD, BAD, ENDED], "ended with exit code 3 after 3.0 s"),
        ([BAD, GOOD] * 20, "healthy at times, but never for 5 s without a break within 30 s: GET /readyz answered 503"),
        ([BAD] * 28 + [GOOD], "healthy too late: 5 s of health do not fit into what is left of 30 s"),
    ],
)
def test_unproven(observations: list[Observation], message: str) -> None:
    with pytest.raises(UnprovenError) as caught:
        wait(observations, 5, 30)
    assert str(caught.value) == message


def inspected(**state: Any) -> dict[str, Any]:
    return {"State": {"Running": True, "Restarting": False, "ExitCode": 0, "StartedAt": "t0"} | state}


@pytest.mark.parametrize(
    ("inspect", "ended", "problem"),
    [
        (inspected(), False, ""),
        (inspected(Health={"Status": "healthy"}), False, ""),
        (inspected(Health={"Status": "starting"}), False, "its health check has not passed yet"),
        (
            inspected(Health={"Status": "unhealthy", "Log": [{"ExitCode": 1, "Output": "no\nroute\n"}]}),
            False,
            "its health check fails: no route",
        ),
        (inspected(Running=False, ExitCode=3), True, "ended with exit code 3"),
        (inspected(Running=False, ExitCode=137, OOMKilled=True), True, "ended with exit code 137 (out of memory)"),
        (inspected(Running=False, ExitCode=127, Error="no such file"), True, "ended with exit code 127 (no such file)"),
        (inspected(Restarting=True, ExitCode=1), True, "ended with exit code 1"),
        (inspected(StartedAt="t1"), True, "ended with exit code 0 and was started again"),
        (None, True, "was removed by someone else"),
    ],
)
def test_container(inspect: dict[str, Any] | None, ended: bool, problem: str) -> None:
    assert container_problem(inspect, "t0") == (ended, problem)


@contextmanager
def server(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_address[1]
        http.shutdown()


def hang_up(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    connection.close()


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({"Healthcheck": {"Test": ["CMD", "check", "it all"]}}, ["check", "it all"]),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "check it; all"]}}, ["/bin/sh", "-c", "check it; all"]),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "check"]}, "Shell": ["/bin/ash", "-ec"]}, ["/bin/ash", "-ec", "check"]),
        ({"Healthcheck": {"Test": ["NONE"]}}, None),
        ({"Healthcheck": {"Interval": 1}}, None),
        ({"Healthcheck": None}, None),
        ({}, None),
    ],
)
def test_what_the_engine_would_execute(config: dict[str, Any], command: list[str] | None) -> None:
    assert check_command(config) == command


def test_probes() -> None:
    with server(204) as port:
        assert probe_http("127.0.0.1", port, "/x", 1) == (204, "")
        assert probe_tcp("127.0.0.1", port, 1) == ("open", "")
    with server(302) as port:
        assert probe_http("127.0.0.1", port, "/x", 1) == (302, "GET /x answered 302")
    # the engine's proxy accepts before the service listens, and hangs up
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        threading.Thread(target=hang_up, args=(listening,), daemon=True).start()
        assert probe_tcp("127.0.0.1", port, 1) == ("closed", f"port {port} hangs up")
    assert probe_tcp("127.0.0.1", port, 1) == ("closed", f"port {port}: Connection refused")
    assert probe_http("127.0.0.1", port, "/x", 1) == (None, "GET /x: Connection refused")


def test_who_holds_a_port() -> None:
    listed = [{"Names": ["/other"], "Id": "1", "Ports": [{"PublicPort": 18080, "Type": "tcp"}, {"PrivatePort": 1}]}]
    assert port_holder(18080, listed) == "container other"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        holder = port_holder(listening.getsockname()[1], listed)
        assert holder is not None
        assert holder.startswith("process ")
    assert port_holder(1, listed) is None
