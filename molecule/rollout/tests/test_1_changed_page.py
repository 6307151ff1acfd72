"""A changed page is built, crosses the WAN once, and nobody notices the change of releases."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from platform_lab import ADDRESSES, NODES, build, containers, digests, get, release, rollout, running, source, wan_bytes
from visitors import Visitors

import lab

ADDED = 20_000_000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source with another page, and with something in it that is large and does not compress."""
    directory = source(tmp_path_factory.mktemp("changed"))
    portal = directory / "services/webui/WebPortal/webui"
    template = next(file for file in (portal / "templates").iterdir() if "</body>" in file.read_text())
    template.write_text(template.read_text().replace("</body>", "<!-- a changed page --></body>"))
    (portal / "assets/large.bin").write_bytes(os.urandom(ADDED))
    return directory


def test_a_check_run_says_which_image_would_be_built(page: Path) -> None:
    changed = re.findall(r"changed: .*webui:(ctx-[0-9a-f]+)\)", build(page, "--check").stdout)
    assert len(changed) == 1
    assert changed[0] not in lab.connect(lab.group("builders")[0]).check_output("docker images --format {{.Tag}}")


def test_a_changed_page_reaches_every_node_unnoticed(page: Path) -> None:
    before, number, old = wan_bytes("shanghai"), release(), digests()
    with Visitors(ADDRESSES) as visitors:
        build(page)
        done = rollout()
    assert done.returncode == 0, done.stdout
    assert visitors.failures == []
    assert visitors.answered > 200
    for address in ADDRESSES:
        assert "<!-- a changed page -->" in get(address)
    assert release() == number + 1
    assert len(digests()) == 1
    assert digests() != old
    crossed = wan_bytes("shanghai") - before
    assert ADDED < crossed < 1.1 * ADDED, f"{crossed} bytes crossed the WAN for a layer of {ADDED}"


def test_the_release_before_is_kept_stopped(page: Path) -> None:
    for node in NODES:
        states = containers(node)
        assert states[f"webui.0.r{release()}"] == "running"
        assert states[f"webui.0.r{release() - 1}"] == "exited"
        assert running(node)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_the_same_source_is_neither_built_nor_rolled_out_again(page: Path) -> None:
    number = release()
    assert set(lab.changes(build(page)).values()) == {0}
    assert set(lab.changes(rollout()).values()) == {0}
    assert release() == number


def test_the_page_tells_which_replica_answered() -> None:
    nodes = {json.loads(get(address, "/api/whoami"))["node"] for address in ADDRESSES for _ in range(6)}
    assert nodes == set(NODES)
