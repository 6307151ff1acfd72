"""A service in maintenance says so, across reloads and restarts, and the others do not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

import lab
from gateways import Gateway

MESSAGE = "维护中; back at 10:00, $5 \\o/"


def maintain(name: str, message: str, *arguments: str) -> bool:
    """Run the module; whether it changed something."""
    options = json.dumps({"backend": "probe", "message": message})
    done = lab.run_ansible("ansible", name, "-m", "gateway_maintain", "-a", options, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return '"changed": true' in done.stdout


@pytest.fixture
def closed(gateway: Gateway) -> Iterator[Gateway]:
    assert maintain(gateway.name, MESSAGE)
    yield gateway
    maintain(gateway.name, "")


def assert_closed(gateway: Gateway) -> None:
    answer = gateway.request("/x")
    assert (answer.status, answer.body) == (503, f"{MESSAGE}\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert int(answer.headers["retry-after"]) > 0


def test_it_says_so_until_it_ends(closed: Gateway) -> None:
    assert_closed(closed)
    assert closed.request("/x", 8091).status == 200
    assert not maintain(closed.name, MESSAGE)
    assert maintain(closed.name, "", "--check")
    closed.host.check_output("systemctl reload haproxy.service")
    assert_closed(closed)
    closed.host.check_output("systemctl restart haproxy.service")
    closed.wait(first_a="UP", second_a="UP")
    assert_closed(closed)
    assert maintain(closed.name, "")
    assert closed.request("/x").status == 200
    assert not maintain(closed.name, "")
