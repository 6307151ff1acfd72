"""A datacenter without a replica forwards to the others, and never in circles."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gateways import NAMES, PORT, Gateway, ask
from gateways import gateway as named


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def elsewhere(gateway: Gateway) -> set[str]:
    return set(gateway.states("probe.elsewhere").values())


@pytest.fixture
def others(gateway: Gateway) -> list[Gateway]:
    """The other datacenters' gateways, at rest too and seen as such."""
    found = [named(name) for name in NAMES if named(name).address != gateway.address]
    for other in found:
        other.rest()
    until(lambda: elsewhere(gateway) == {"UP"}, "the other gateways are not UP")
    return found


def posts(gateway: Gateway) -> int:
    return sum(gateway.count("POST", place) for place in gateway.nodes)


def test_requests_go_elsewhere_and_come_back(gateway: Gateway, others: list[Gateway]) -> None:
    with gateway.load(10) as load:
        time.sleep(1)
        gateway.set(first_a="maint", second_a="maint")
        time.sleep(1)
        there = sum(posts(other) for other in others)
        answer = gateway.request("/x")
        assert (answer.status, answer.headers["x-served-by"]) == (200, answer.body)
        time.sleep(2)
        assert sum(posts(other) for other in others) > there > 0
        gateway.set(first_a="ready", second_a="ready")
        gateway.wait(first_a="UP", second_a="UP")
        time.sleep(1)
        back = sum(posts(other) for other in others)
        time.sleep(2)
        assert sum(posts(other) for other in others) == back
    assert not load.failures, load


def test_one_that_has_no_server_itself_is_no_backup(gateway: Gateway, others: list[Gateway]) -> None:
    for other in others:
        other.set(first_a="maint", second_a="maint")
    until(lambda: elsewhere(gateway) == {"DOWN"}, "the others are without servers, and still UP")
    gateway.set(first_a="maint", second_a="maint")
    begin = time.monotonic()
    for each in [gateway, *others]:
        assert each.request("/x").status == 503
    assert time.monotonic() - begin < 5


def test_what_a_gateway_sent_is_not_sent_on(gateway: Gateway, others: list[Gateway]) -> None:
    gateway.set(first_a="maint", second_a="maint")
    assert gateway.request("/x").status == 200
    sent = ask(gateway.address, PORT, "GET", "/x", headers={"X-Qianjiang-Forwarded-By": "anybody"})
    assert sent.status == 503
