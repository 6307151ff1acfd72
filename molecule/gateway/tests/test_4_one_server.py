"""A request of the gateway's own host may ask for one server, and gateway_switch proves a candidate with one."""

from __future__ import annotations

import json
import re
from typing import Any

import lab
from gateways import PORT, SLOTS, Gateway

ASK = """
import http.client, sys
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10)
connection.request('GET', sys.argv[2], headers={'X-Qianjiang-Server': sys.argv[3]})
print(connection.getresponse().read().decode())
"""
HEADER = "x-qianjiang-server"


def ask_here(gateway: Gateway, path: str, server: str) -> str:
    return str(gateway.host.check_output("python3 -c %s %s %s %s", ASK, str(PORT), path, server))


def switch(name: str, path: str, **more: Any) -> Any:
    wanted = {"backend": "probe", "to": "first.0.b", "away": ["first.0.a"], "probe": {"port": PORT, "path": path}}
    options = {"switches": [wanted | more], "up_timeout": 5}
    return lab.run_ansible("ansible", name, "-m", "gateway_switch", "-a", json.dumps(options))


def test_a_server_in_drain_is_reached_from_here_and_from_nowhere_else(gateway: Gateway) -> None:
    gateway.start("first", "b")
    gateway.wait(first_b="DRAIN")
    assert [ask_here(gateway, "/x", "first.0.b") for _ in range(3)] == ["first.0.b"] * 3
    elsewhere = [gateway.request("/x", headers={HEADER: "first.0.b"}) for _ in range(6)]
    assert {answer.body for answer in elsewhere} == {"first.0.a", "second.0.a"}


def test_the_service_never_sees_our_headers(gateway: Gateway) -> None:
    ours = {HEADER: "first.0.a", "x-qianjiang-forwarded-by": "me"}
    assert "qianjiang" not in gateway.request("/headers", headers=ours).body
    assert "qianjiang" not in ask_here(gateway, "/headers", "first.0.a")


def test_a_candidate_is_asked_before_it_is_in_rotation(gateway: Gateway) -> None:
    gateway.start("first", "b")
    # It is healthy for HAProxy, but does not answer this
    refused = switch(gateway.name, "/hang-up")
    assert refused.returncode != 0
    assert "through the gateway's port 8090" in refused.stdout
    assert "the others were not touched" in refused.stdout
    assert gateway.states()["first.0.a"] == "UP"
    assert gateway.states()["first.0.b"] == "DRAIN"
    with gateway.load(8) as load:
        done = switch(gateway.name, "/readyz")
        assert done.returncode == 0, done.stdout
    assert not load.failures, load
    assert gateway.states()["first.0.a"] == "DRAIN"
    assert gateway.states()["first.0.b"] == "UP"
    assert '"changed": false' in switch(gateway.name, "/readyz").stdout


def test_a_candidate_that_is_up_is_not_waited_for(gateway: Gateway) -> None:
    """HAProxy checks it in drain; from maintenance it would begin only now, at its interval of 2 s."""
    gateway.start("first", "b")
    gateway.wait(first_b="DRAIN")
    done = switch(gateway.name, "/readyz")
    seconds = re.search(r'"seconds": ([0-9.]+)', done.stdout)
    assert seconds, done.stdout
    assert float(seconds[1]) < 0.5


def test_a_candidate_that_listens_elsewhere_than_the_slot_before(gateway: Gateway) -> None:
    gateway.start("first", "b", 19891)
    refused = switch(gateway.name, "/readyz", port=19892)
    assert refused.returncode != 0
    assert "probe/first.0.b is not UP" in refused.stdout
    assert (gateway.states()["first.0.a"], gateway.ports()["first.0.b"]) == ("UP", SLOTS["b"])
    with gateway.load(8) as load:
        done = switch(gateway.name, "/readyz", port=19891)
        assert done.returncode == 0, done.stdout
    assert not load.failures, load
    assert (gateway.states()["first.0.b"], gateway.ports()["first.0.b"]) == ("UP", 19891)
    assert '"changed": false' in switch(gateway.name, "/readyz", port=19891).stdout
    # Out of rotation, a reload has it forward to the configured port again
    gateway.set(first_a="ready", first_b="drain")
    gateway.host.check_output("systemctl reload haproxy.service")
    assert gateway.ports()["first.0.b"] == SLOTS["b"]


def test_a_candidate_that_has_died_is_not_taken_for_up(gateway: Gateway) -> None:
    gateway.start("first", "b")
    gateway.wait(first_b="DRAIN")
    gateway.stop("first", "b")
    with gateway.load(6) as load:
        refused = switch(gateway.name, "/readyz")
    assert refused.returncode != 0
    assert not load.failures, load
    assert gateway.states()["first.0.a"] == "UP"
