"""What a gateway forwards (filter gateway_backends), and the configurations that the role writes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from running import play
from support import ROOT, load

ROLE = ROOT / "roles/gateway"
DATACENTERS = {"hangzhou": ["hz1"], "shanghai": ["sh1"], "guangzhou": ["gz1"]}
GATEWAYS = {"hangzhou": ["10.0.0.1"], "shanghai": ["10.0.1.1", "10.0.1.2"], "guangzhou": ["10.0.2.1"]}


def backends(datacenter: str = "hangzhou", *gateways: Any, **service: Any) -> Any:
    filters = load("plugins/filter/catalogue.py").FilterModule().filters()
    webui = {"build": {}, "port": 8080, "slots_port": 18080, "gateway": {"port": 80}, **service}
    services = filters["normalised_services"]({"webui": webui}, DATACENTERS)
    return filters["gateway_backends"](services, datacenter, {"hz1": "10.0.0.11"}, *gateways)


def test_backups_are_the_other_datacenters_gateways() -> None:
    assert backends("hangzhou", GATEWAYS)[0]["backups"] == [
        {"name": "shanghai", "address": "10.0.1.1"},
        {"name": "shanghai.2", "address": "10.0.1.2"},
        {"name": "guangzhou", "address": "10.0.2.1"},
    ]


def test_only_where_the_service_is_placed() -> None:
    placement = {"datacenters": ["shanghai", "hangzhou"]}
    assert [backup["name"] for backup in backends("shanghai", GATEWAYS, placement=placement)[0]["backups"]] == [
        "hangzhou"
    ]
    assert backends("guangzhou", GATEWAYS, placement=placement) == []


def test_a_datacenter_without_gateways_is_no_backup() -> None:
    assert backends("hangzhou", {"hangzhou": ["10.0.0.1"], "guangzhou": []})[0]["backups"] == []
    assert "backups" not in backends("hangzhou")[0]


def values(**changes: Any) -> dict[str, Any]:
    """The role's variables, as a playbook may set them."""
    files = ("defaults/main.yml", "vars/main.yml")
    found: dict[str, Any] = {}
    for file in files:
        found |= yaml.safe_load((ROLE / file).read_text(encoding="utf-8"))
    return found | changes


def rendered(template: str, **changes: Any) -> str:
    # As Ansible's: a block's line end is not written
    environment = Environment(  # noqa: S701 - a configuration, no HTML
        loader=FileSystemLoader(ROLE / "templates"), trim_blocks=True, undefined=StrictUndefined
    )
    environment.filters["bool"] = bool
    return environment.get_template(template).render(values(**changes))


def sections(**changes: Any) -> dict[str, list[str]]:
    """The configuration's lines without comments, by section."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in rendered("haproxy.cfg.j2", **changes).splitlines():
        if line and not line.startswith((" ", "#")):
            name = line
        elif line.strip() and not line.strip().startswith("#"):
            found.setdefault(name, []).append(line.strip())
    return found


def position(lines: list[str], part: str) -> int:
    (found,) = [number for number, line in enumerate(lines) if part in line]
    return found


def test_the_role_takes_what_the_filter_makes() -> None:
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"][
        "options"
    ]
    given = {name: value for name, value in values().items() if not name.startswith("__")}
    assert given.keys() == options.keys()
    assert given == {name: option.get("default") for name, option in options.items()}
    given["gateway_backends"] = backends("hangzhou", GATEWAYS)
    assert ArgumentSpecValidator(options).validate(given).error_messages == []


def test_without_backups_nothing_goes_elsewhere() -> None:
    found = sections(gateway_backends=backends("hangzhou"))
    assert "backend webui.elsewhere" not in found
    assert not [line for line in found["frontend webui"] if line.startswith("use_backend")]


def test_backups_get_what_no_server_here_can_and_no_other_gateway_sent() -> None:
    found = sections(gateway_backends=backends("hangzhou", GATEWAYS))
    (rule,) = [line for line in found["frontend webui"] if line.startswith("use_backend")]
    assert rule == (
        "use_backend webui.elsewhere if { nbsrv(webui) eq 0 } { nbsrv(webui.elsewhere) gt 0 }"
        " !{ var(txn.forwarded) -m found } !{ var(txn.server) -m found }"
    )
    elsewhere = found["backend webui.elsewhere"]
    assert [line for line in elsewhere if line.startswith("server ")] == [
        "server datacenter.shanghai 10.0.1.1:80",
        "server datacenter.shanghai.2 10.0.1.2:80",
        "server datacenter.guangzhou 10.0.2.1:80",
    ]
    assert "http-request set-header X-Qianjiang-Forwarded-By %[hostname]" in elsewhere
    check = elsewhere[position(elsewhere, "http-check send")]
    assert check.endswith("hdr Host webui hdr X-Qianjiang-Forwarded-By %[hostname]")
    # The other gateway knows which replica it was
    assert not [line for line in elsewhere if "X-Served-By" in line]
    # gateway_hold and gateway_switch see slots only
    assert [line for line in found["backend webui"] if line.startswith("server ")] == [
        "server hz1.0.a 10.0.0.11:18080",
        "server hz1.0.b 10.0.0.11:18081",
    ]


def test_an_empty_slot_is_asked_no_more_often_than_one_that_serves() -> None:
    """Each replica has one, all the time."""
    found = sections(gateway_backends=backends("hangzhou", GATEWAYS, health={"interval": 3}))
    check = "default-server check inter 3000ms fastinter 250ms downinter {} rise 1 fall 3"
    assert check.format("3000ms") in found["backend webui"]
    # A datacenter that is back is found at once
    assert check.format("250ms") in found["backend webui.elsewhere"]


def test_headers_of_ours_are_read_and_then_taken_away() -> None:
    lines = sections(gateway_backends=backends("hangzhou", GATEWAYS))["frontend webui"]
    reads = position(lines, "set-var(txn.server) req.hdr(X-Qianjiang-Server) if { src 127.0.0.0/8 }")
    assert reads < position(lines, "del-header X-Qianjiang-Server")
    reads = position(lines, "set-var(txn.forwarded) req.hdr(X-Qianjiang-Forwarded-By)")
    assert reads < position(lines, "del-header X-Qianjiang-Forwarded-By")


def test_maintenance_is_before_everything_but_a_probe() -> None:
    lines = sections(gateway_backends=backends("hangzhou", GATEWAYS))["frontend webui"]
    asked = position(lines, "str(webui),map(/etc/haproxy/maintenance.map) unless { var(txn.server) -m found }")
    said = position(lines, 'lf-string "%[var(txn.maintenance)]\\n" hdr Retry-After 60 if')
    others_check = position(lines, "http-request return status 200 if { var(txn.forwarded) -m found }")
    assert position(lines, "set-var(txn.server)") < asked < said < others_check < position(lines, "use_backend")


@pytest.mark.parametrize(
    ("address", "binds"),
    [
        ("*", ["bind *:80"]),
        ("127.0.0.1", ["bind 127.0.0.1:80"]),
        ("10.0.0.1", ["bind 10.0.0.1:80", "bind 127.0.0.1:80"]),
    ],
)
def test_a_probe_reaches_the_port_on_loopback(address: str, binds: list[str]) -> None:
    lines = sections(gateway_backends=backends("hangzhou"), gateway_address=address)["frontend webui"]
    assert [line for line in lines if line.startswith("bind")] == binds


def test_gateways_speak_tls_to_each_other_where_clients_do() -> None:
    plain = sections(gateway_backends=backends("hangzhou", GATEWAYS))["backend webui.elsewhere"]
    assert "ssl" not in " ".join(plain)
    found = sections(
        gateway_backends=backends("hangzhou", GATEWAYS),
        gateway_certificate="/etc/tls/server.crt",
        gateway_backup_ca="/etc/tls/ca.crt",
        gateway_address="10.0.0.1",
    )
    (server,) = [line for line in found["backend webui.elsewhere"] if line.startswith("default-server")]
    assert server.endswith(" ssl verify required ca-file /etc/tls/ca.crt")
    binds = [line for line in found["frontend webui"] if line.startswith("bind")]
    assert len(binds) == 2
    assert all(line.endswith(" ssl crt /etc/tls/server.crt alpn h2,http/1.1") for line in binds)


VIRTUAL = {"gateway_virtual_address": "10.0.0.100/24", "gateway_virtual_interface": "eth1"}


def test_keepalived_asks_haproxy() -> None:
    text = rendered("keepalived.conf.j2", **VIRTUAL)
    assert 'script "/usr/local/lib/qianjiang/haproxy-state healthy"' in text
    assert "10.0.0.100/24 dev eth1" in text
    assert "unicast_peer" not in text
    assert "authentication" not in text
    assert rendered("keepalived.conf.j2", **VIRTUAL, gateway_stats_port=9000) == text


def test_keepalived_knows_its_peers_and_the_password() -> None:
    text = rendered("keepalived.conf.j2", **VIRTUAL, gateway_virtual_peers=["10.0.0.2"], gateway_virtual_password="s3")
    assert "    unicast_peer {\n        10.0.0.2\n    }\n" in text
    assert "        auth_pass s3\n" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("keep_alive", "limit"),
    [
        # The unit of before, on all the hosts that have it: another text would reload HAProxy
        pytest.param(10, "", id="systemd's own 90 s are enough"),
        pytest.param(30, "", id="58 s are left for the new process"),
        pytest.param(31, "TimeoutStartSec=123", id="more"),
        pytest.param(300, "TimeoutStartSec=392", id="minutes"),
    ],
)
def test_a_reload_has_the_time_that_it_waits_for_idle_connections(keep_alive: int, limit: str) -> None:
    lines = rendered("haproxy.conf.j2", gateway_timeout_keep_alive=keep_alive).splitlines()
    assert [line for line in lines if line.startswith("TimeoutStartSec")] == [limit] * bool(limit)
    assert f"ExecReload=/usr/local/lib/qianjiang/haproxy-state reload $MAINPID {keep_alive + 2}" in lines


# Restarts HAProxy nowhere: it says where it would, and fails in Shanghai
RESTART = """
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({"host": {"type": "str"}, "log": {"type": "str"}})
with open(module.params["log"], "a") as log:
    log.write(module.params["host"] + " ")
if module.params["host"] == "sh1":
    module.fail_json(msg="Job for haproxy.service failed")
module.exit_json(changed=True)
"""


@pytest.mark.parametrize(
    ("needs", "restarted", "failed"),
    [
        pytest.param(["hz2", "gz1"], ["hz2", "gz1"], [], id="one after the other, where it is needed"),
        pytest.param(["hz1", "sh1", "gz1"], ["hz1", "sh1"], ["sh1", "gz1"], id="none after one that failed"),
        pytest.param([], [], [], id="none"),
    ],
)
def test_gateways_restart_as_long_as_they_come_back(
    tmp_path: Path, needs: list[str], restarted: list[str], failed: list[str]
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/restart.py").write_text(RESTART)
    log = tmp_path / "log"
    handlers = yaml.safe_load((ROLE / "handlers/main.yml").read_text(encoding="utf-8"))
    handlers = [handler for handler in handlers if "keepalived" not in handler["name"]]
    # As they are written, but for what they do
    for handler in handlers:
        if handler.pop("ansible.builtin.systemd_service", None):
            handler["restart"] = {"host": "{{ __gateway_host | default('reload') }}", "log": str(log)}
    action = f"{{{{ 'restart' if inventory_hostname in {needs} else 'reload' }}}}"
    configured = {
        "ansible.builtin.set_fact": {"__gateway_configured": {"action": action}},
        "changed_when": True,
        "notify": f"{{{{ 'Restart' if inventory_hostname in {needs} else 'Reload' }}}} the gateway",
    }
    goes_on = {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }} goes on"}}
    plays = [
        {"hosts": "all", "gather_facts": False, "tasks": [configured], "handlers": handlers},
        {"hosts": "all", "gather_facts": False, "tasks": [goes_on]},
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
    hosts = ["hz1", "hz2", "sh1", "gz1"]
    done = play(
        tmp_path / "play.yml",
        ",".join([*hosts, ""]),
        "--connection=local",
        ansible_python_interpreter=sys.executable,
    )
    assert done.returncode == (2 if failed else 0), done.stdout
    done_at = log.read_text().split() if log.exists() else []
    assert [host for host in done_at if host != "reload"] == restarted, done.stdout
    # The others are not kept from theirs, nor from what comes after
    assert done_at.count("reload") == len(hosts) - len(needs)
    assert [host for host in hosts if f"{host} goes on" not in done.stdout] == failed
    said = " ".join(done.stdout.split())
    reason = "HAProxy of sh1 did not come back from its restart: Job for haproxy.service failed"
    assert (f"{reason}. So gz1 was not restarted" in said) == bool(failed), said
