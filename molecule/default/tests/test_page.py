"""The page of each gateway in a real Chromium: tests/browser, pointed at the lab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import lab


@pytest.mark.parametrize("gateway", lab.group("gateways"))
def test_a_person_sees_every_node(gateway: str) -> None:
    environment = {
        **os.environ,
        "WEBUI_URL": f"http://{lab.variable(gateway, 'ansible_host')}/",
        "WEBUI_NODES": ",".join(lab.group("nodes")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/browser"],
        cwd=lab.PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout, "no Chromium: apt-get install chromium"
