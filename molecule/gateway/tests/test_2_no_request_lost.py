"""Not one failed request: reloads, servers that go away, a gateway that comes back."""

from __future__ import annotations

import time

from gateways import Gateway, changed_configuration
from load import Load


def assert_none_lost(load: Load) -> None:
    assert not load.failures, load
    assert sum(load.done.values()) == load.total
    assert load.total > 300


def test_reloads_lose_no_request_and_forget_nothing(gateway: Gateway) -> None:
    gateway.start("first", "b")
    gateway.set(first_a="drain", second_b="maint")
    gateway.wait(first_b="DRAIN")
    expected = {"first.0.a": "DRAIN", "first.0.b": "DRAIN", "second.0.a": "UP", "second.0.b": "MAINT"}
    with gateway.load(8) as load:
        time.sleep(0.5)
        for _ in range(2):
            gateway.host.check_output("systemctl reload haproxy.service")
            # At once: a reload has ended when the new process is the one that answers
            assert gateway.states() == expected
    assert_none_lost(load)
    # Each POST exactly once, and none at the servers that are out of rotation
    assert gateway.count("POST", "second") == load.done["POST"]
    assert gateway.count("POST", "first") == gateway.count("POST", "first", "b") == 0


def test_a_restart_forgets_nothing_either(gateway: Gateway) -> None:
    gateway.start("second", "b")
    gateway.set(first_a="maint")
    gateway.wait(second_b="DRAIN")
    gateway.host.check_output("systemctl restart haproxy.service")
    gateway.wait(first_a="MAINT", second_a="UP", second_b="DRAIN")


def test_a_server_that_closes_its_port_costs_no_request(gateway: Gateway) -> None:
    with gateway.load(6) as load:
        time.sleep(1)
        gateway.stop("first", "a", "USR1")
    assert_none_lost(load)
    assert gateway.states()["first.0.a"] == "DOWN"


def test_a_killed_server_costs_no_request_that_may_be_repeated(gateway: Gateway) -> None:
    with gateway.load(6) as load:
        time.sleep(1)
        gateway.stop("first", "a")
    lost = {kind.split()[0] for kind in load.failures}
    # Its streams are cut, and what it was doing for a POST nobody knows
    assert lost <= {"STREAM", "POST"}, load
    assert load.failures["POST 502"] <= 2, load


def test_only_what_may_be_repeated_is_repeated(gateway: Gateway) -> None:
    """A server that closes without an answer may have done what it was asked to do."""
    assert gateway.request("/hang-up", method="POST", body="x").status == 502
    assert sum(gateway.count("POST unanswered", place) for place in gateway.nodes) == 1
    assert gateway.request("/hang-up").status == 502
    assert all(gateway.count("GET unanswered", place) >= 1 for place in gateway.nodes)


def test_after_a_crash_servers_that_are_gone_cost_no_request(gateway: Gateway) -> None:
    """HAProxy begins with every server taken for healthy; two of these four are not there."""
    gateway.host.check_output("systemctl kill --signal KILL haproxy.service")
    end = time.monotonic() + 15
    while True:
        try:
            gateway.request("/x")
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)
    with gateway.load(4) as load:
        pass
    assert_none_lost(load)
    gateway.wait(first_a="UP", first_b="DOWN", second_a="UP", second_b="DOWN")


def test_a_reload_takes_ports_from_the_configuration_but_not_of_what_serves(gateway: Gateway) -> None:
    """HAProxy itself would keep all ports of its state file."""
    change = r"s/:1899\([01]\)/:1989\1/; s/second\.0\.b/third.0.b/"
    with gateway.load(4) as load, changed_configuration(gateway.host, change):
        found = gateway.ports()
        assert found == {"first.0.a": 18990, "first.0.b": 19891, "second.0.a": 18990, "third.0.b": 19891}
    assert_none_lost(load)
    assert gateway.ports()["first.0.b"] == 18991


def test_what_was_resolved_serves_on_while_nothing_is_resolved(gateway: Gateway) -> None:
    lines = "\n".join(f"{address} {place}-node" for place, address in gateway.addresses.items())
    change = "; ".join(f"s/ {address}:1899/ {place}-node:1899/" for place, address in gateway.addresses.items())
    # A mount: written into, never replaced
    gateway.host.check_output("cp /etc/hosts /root/hosts.kept && echo %s >> /etc/hosts", lines)
    try:
        with gateway.load(8) as load, changed_configuration(gateway.host, change):
            gateway.host.check_output("cp /root/hosts.kept /etc/hosts")
            assert gateway.host.run("getent hosts first-node").rc != 0
            gateway.host.check_output("systemctl reload haproxy.service")
            assert gateway.states() == {
                "first.0.a": "UP",
                "first.0.b": "DOWN",
                "second.0.a": "UP",
                "second.0.b": "DOWN",
            }
        assert_none_lost(load)
    finally:
        gateway.host.check_output("cp /root/hosts.kept /etc/hosts && rm /root/hosts.kept")
