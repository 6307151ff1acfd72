"""Requests reach healthy replicas, and everybody can see which."""

from __future__ import annotations

import re

from gateways import PORT, STATISTICS, Gateway


def test_the_answer_says_which_replica_it_came_from(gateway: Gateway) -> None:
    answers = [gateway.request("/x") for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    assert all(answer.body == answer.headers["x-served-by"] for answer in answers)
    assert {answer.body for answer in answers} == {"first.0.a", "second.0.a"}


def test_a_request_has_one_id_from_the_client_to_the_log(gateway: Gateway) -> None:
    answer = gateway.request("/request-id?token=hunter2", headers={"X-Request-ID": "forged"})
    request_id = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id)
    assert answer.body == request_id
    log = gateway.host.check_output("journalctl --unit haproxy --since -1min --output cat")
    assert f'GET "/request-id" {request_id}' in log
    assert "hunter2" not in log


def test_a_server_that_is_not_ready_gets_nothing(gateway: Gateway) -> None:
    gateway.set(first_b="ready", first_a="maint")
    gateway.wait(first_b="DOWN")
    assert {gateway.request("/x").body for _ in range(6)} == {"second.0.a"}
    gateway.start("first", "b")
    gateway.wait(first_b="UP")
    assert {gateway.request("/x").body for _ in range(6)} == {"first.0.b", "second.0.a"}


def test_without_a_ready_path_a_connection_is_enough(gateway: Gateway) -> None:
    assert gateway.states("connected") == {"first.0.a": "UP"}
    gateway.stop("first", "a")
    gateway.wait(first_a="DOWN")
    assert gateway.request("/x", 8091).status == 503


def test_the_statistics_are_for_reading_only(gateway: Gateway) -> None:
    assert gateway.request("/healthz", STATISTICS).status == 200
    assert "haproxy_server_status" in gateway.request("/metrics", STATISTICS).body
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    gateway.request("/", STATISTICS, "POST", "s=first.0.a&action=maint&b=probe", form)
    assert gateway.states()["first.0.a"] == "UP"
    assert gateway.request("/", PORT).headers["x-served-by"]
