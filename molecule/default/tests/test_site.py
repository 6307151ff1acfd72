"""What `site.yml` promises, seen on the hosts and from outside."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import lab

SITE = lab.PROJECT / "playbooks/site.yml"
NODES = lab.group("nodes")
GATEWAYS = lab.group("gateways")


def get(host: str, path: str) -> tuple[int, str]:
    address = lab.variable(host, "ansible_host")
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return answer.status, answer.read().decode()


def container(node: str) -> dict[str, Any]:
    """The one running container of the WebUI on a node, as its engine describes it."""
    host = lab.connect(node)
    names = host.check_output("docker ps --quiet --filter label=io.qianjiang.service=webui").split()
    assert len(names) == 1, f"{node} runs {len(names)} containers of the WebUI"
    found: dict[str, Any] = json.loads(host.check_output(f"docker inspect {names[0]}"))[0]
    return found


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_each_gateway_answers_with_the_webui(gateway: str) -> None:
    status, page = get(gateway, "/")
    assert status == 200
    assert "钱江源" in page
    for node in NODES:
        assert node in page


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_gateway_forwards_to_its_own_datacenter(gateway: str) -> None:
    datacenter = lab.variable(gateway, "datacenter")
    answered = {json.loads(get(gateway, "/api/whoami")[1])["node"] for _ in range(8)}
    assert answered == {node for node in NODES if lab.variable(node, "datacenter") == datacenter}


def test_all_nodes_run_one_digest_from_their_own_registry() -> None:
    images = {node: container(node)["Config"]["Image"] for node in NODES}
    assert len({image.partition("@")[2] for image in images.values()}) == 1
    for node, image in images.items():
        own = lab.variable(node, "datacenter_registries[datacenter]")
        assert re.fullmatch(rf"{re.escape(own)}/webui@sha256:[0-9a-f]{{64}}", image)


@pytest.mark.parametrize("node", NODES)
def test_a_container_has_no_rights_it_does_not_need(node: str) -> None:
    found = container(node)
    status = lab.connect(node).check_output(f"cat /proc/{found['State']['Pid']}/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    assert facts["Uid"].split()[1] == "10001"
    written = lab.connect(node).run(f"docker exec {found['Id']} touch /usr/WebPortal/written")
    assert (written.rc, "Read-only file system" in written.stderr) == (1, True)
    assert found["HostConfig"]["Memory"] == 256 * 1024**2
    assert found["HostConfig"]["PidsLimit"] == 128


def test_the_page_knows_every_replica() -> None:
    platform = json.loads(get(GATEWAYS[0], "/api/platform")[1])
    replicas = [
        (node["name"], replica["state"], replica["release"])
        for datacenter in platform["datacenters"]
        for node in datacenter["nodes"]
        for replica in node["replicas"]
    ]
    release = platform["services"][0]["release"]
    assert sorted(replicas) == [(node, "healthy", release) for node in NODES]


def test_no_password_is_left_where_others_read_it() -> None:
    password = lab.variable("localhost", "registry_password")
    for name in (*NODES, *GATEWAYS):
        host = lab.connect(name)
        # Read here and compared here: a command line with the password in it would be what it looks for
        journal = host.check_output("journalctl --no-pager --output=cat")
        assert password not in journal, f"{name}: the registry's password is in the journal"
        files = host.run(
            "grep --recursive --no-messages --binary-files=without-match . /root /etc /var/lib/qianjiang /tmp"
        ).stdout
        assert password not in files, f"{name}: the registry's password is in a file"


def test_a_check_of_a_finished_site_lists_no_change() -> None:
    changes = lab.changes(lab.play(SITE, "--check", "--diff"))
    assert set(changes.values()) == {0}, changes


def test_a_second_run_needs_few_tasks() -> None:
    done = lab.play(SITE)
    assert set(lab.changes(done).values()) == {0}
    assert lab.most_tasks(done) <= 20


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"services": {"webui": {"build": {}, "port": 8080, "slots_port": 18080, "health": {"interval": "fast"}}}},
            'services.webui.health.interval: expected seconds as a number, got "fast"',
        ),
        ({"service": "webiu"}, 'service: expected names from the catalogue (webui), got "webiu"'),
    ],
)
def test_bad_input_stops_before_anything_is_touched(variables: dict[str, Any], message: str) -> None:
    done = lab.play(lab.PROJECT / "playbooks/rollout.yml", "--extra-vars", json.dumps(variables))
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())
    assert not re.search(r"changed=[1-9]", done.stdout), done.stdout
