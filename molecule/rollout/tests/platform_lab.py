"""The lab's platform as the stories see it: nodes, gateways, the WAN, and the service whose source they change."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lab

BUILD, ROLLOUT = lab.PROJECT / "playbooks/build.yml", lab.PROJECT / "playbooks/rollout.yml"
NODES = lab.group("nodes")
ADDRESSES = [lab.variable(gateway, "ansible_host") for gateway in lab.group("gateways")]


def get(address: str, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def source(directory: Path) -> Path:
    """A copy of the services' source for a story to change. Give it to the build as image_source_directory."""
    shutil.copytree(lab.PROJECT / "services", directory / "services", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def build(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = lab.play(BUILD, "--extra-vars", f"image_source_directory={directory}", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def rollout(*arguments: str) -> subprocess.CompletedProcess[str]:
    return lab.play(ROLLOUT, *arguments)


def configured(**keys: Any) -> Sequence[str]:
    """Arguments for a playbook: the lab's catalogue with some keys of the WebUI changed."""
    services = json.loads(json.dumps(lab.variable("localhost", "services")))
    services["webui"] |= keys
    return ("--extra-vars", json.dumps({"services": services}))


def containers(node: str) -> dict[str, str]:
    """Every container of the WebUI on a node → running or exited."""
    listed = lab.connect(node).check_output(
        "docker ps --all --filter label=io.qianjiang.service=webui --format '{{.Names}} {{.State}}'"
    )
    return dict(line.split() for line in listed.splitlines())


def running(node: str) -> dict[str, Any]:
    """The one container of the WebUI that runs on a node."""
    names = [name for name, state in containers(node).items() if state == "running"]
    assert len(names) == 1, f"{node} runs {names}"
    found: dict[str, Any] = json.loads(lab.connect(node).check_output(f"docker inspect {names[0]}"))[0]
    return found


def digests() -> set[str]:
    return {running(node)["Config"]["Labels"]["io.qianjiang.digest"] for node in NODES}


def release() -> int:
    """The release that all nodes are on."""
    found = {int(running(node)["Config"]["Labels"]["io.qianjiang.release"]) for node in NODES}
    assert len(found) == 1, f"the nodes are on releases {sorted(found)}"
    return found.pop()


def wan_bytes(datacenter: str) -> int:
    """Bytes that came to a datacenter over the WAN so far."""
    network = next(item for item in lab.variable("localhost", "lab_networks") if item["name"] == datacenter)
    router = f"{lab.variable('localhost', 'lab_name')}-wan"
    command = f"cat /sys/class/net/$(ip -o address | awk '/{network['router']}\\//{{print $2}}')/statistics/tx_bytes"
    done = subprocess.run(["docker", "exec", router, "sh", "-c", command], capture_output=True, text=True, check=True)
    return int(done.stdout)
