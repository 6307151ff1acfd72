from __future__ import annotations

import socket

import pytest

from support import load

CONFIGURATION = """
frontend webui
    default_backend webui
backend webui
    default-server check
    server node1.0.a 10.0.0.1:18080
    server node1.0.b [fd00::1]:18081 weight 1
backend other
    server node1.0.a 10.0.0.1:19080
"""
HEADER = "# be_id be_name srv_id srv_name"


def line(backend: str, server: str, admin: int, port: str) -> str:
    return f"4 {backend} 1 {server} 10.0.0.1 2 {admin} 1 1 23 15 3 3 6 0 0 0 - {port} - 0 0 - - 0"


def test_configured_ports() -> None:
    assert load("roles/gateway/files/haproxy_state.py").configured_ports(CONFIGURATION) == {
        ("webui", "node1.0.a"): "18080",
        ("webui", "node1.0.b"): "18081",
        ("other", "node1.0.a"): "19080",
    }


def test_endpoints() -> None:
    text = "frontend a\n    bind *:80\n    bind 10.0.0.1:443 ssl crt x\n    bind [::1]:8404\n"
    assert load("roles/gateway/files/haproxy_state.py").endpoints(text) == [("", 80), ("10.0.0.1", 443), ("::1", 8404)]


def test_a_port_of_another_program_is_refused() -> None:
    module = load("roles/gateway/files/haproxy_state.py")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use$"):
            module.check_endpoints(f"bind 127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as ours:
        module.check_endpoints(f"bind 127.0.0.1:{ours.getsockname()[1]}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([line("webui", "a", 1, "80")], [line("webui", "a", 1, "80")], id="idempotent"),
        pytest.param([line("webui", "a", 8, "99")], [line("webui", "a", 8, "80")], id="the configuration's port"),
        pytest.param([line("webui", "gone", 0, "80")], [], id="no such server any more"),
        pytest.param([line("gone", "a", 0, "80")], [], id="no such backend any more"),
    ],
)
def test_carry_over(before: list[str], after: list[str]) -> None:
    ports = {("webui", "a"): "80"}
    state = "\n".join(["1", HEADER, *before]) + "\n\n"
    assert (
        load("roles/gateway/files/haproxy_state.py").carry_over(state, ports) == "\n".join(["1", HEADER, *after]) + "\n"
    )


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^unexpected answer to 'show servers state': '2\\n'$"):
        load("roles/gateway/files/haproxy_state.py").carry_over("2\n", {})
