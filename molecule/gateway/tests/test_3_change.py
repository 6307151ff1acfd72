"""Changes arrive once; what HAProxy refuses never does."""

from __future__ import annotations

from itertools import pairwise

from gateways import NAMES, PORT, apply, gateway
from lab import changes


def gateways_changed(*arguments: str) -> set[str]:
    return {name for name, count in changes(apply(*arguments)).items() if count}


def test_a_wrong_configuration_is_refused_and_the_gateway_serves_on() -> None:
    for host in NAMES:
        gateway(host).host.check_output(
            "systemd-run --quiet --collect --unit gateway-port python3 -m http.server 18999 && sleep 1"
        )
    for name, value, said in (
        ("gateway_stats_port", 18999, "cannot listen on *:18999: Address already in use"),
        ("gateway_address", "no such address", "/etc/haproxy/haproxy.cfg: refused"),
        ("gateway_stats_port", PORT, "gateway_backends: "),
    ):
        done = apply("--extra-vars", f'{{"{name}": "{value}"}}')
        assert done.returncode != 0
        assert said in done.stdout + done.stderr
    for host in NAMES:
        gateway(host).host.check_output("systemctl stop gateway-port.service")
        gateway(host).rest()
        assert gateway(host).request("/x").status == 200
    assert gateways_changed("--check") == set()


def test_a_changed_timeout_reloads_once_and_loses_no_request() -> None:
    for host in NAMES:
        gateway(host).rest()
    loads = [gateway(host).load(120) for host in NAMES]
    for load in loads:
        load.start()
    assert gateways_changed("--extra-vars", "gateway_timeout_server=61") == set(NAMES)
    for load in loads:
        load.stop()
        assert not load.failures, load
    assert gateways_changed() == set(NAMES)
    assert gateways_changed() == set()


def test_gateways_restart_one_after_the_other() -> None:
    assert gateways_changed("--extra-vars", "gateway_maxconn=9000") == set(NAMES)
    properties = "--property=ActiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic --value"
    # One clock: the lab's hosts have one kernel
    away = sorted(
        sorted(map(int, gateway(host).host.check_output(f"systemctl show haproxy {properties}").split()))
        for host in NAMES
    )
    assert all(before[1] < after[0] for before, after in pairwise(away)), away
    assert gateways_changed() == set(NAMES)
    assert gateways_changed() == set()
