"""Running a module's `main()` in this process, as Ansible would, and a playbook in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from support import ROOT


class ModuleFailedError(Exception):
    """The module failed; the text is its message, `result` all it returned."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result["msg"])
        self.result = result


def run(
    module: ModuleType, capsys: pytest.CaptureFixture[str], options: dict[str, Any], *, check: bool = False
) -> dict[str, Any]:
    """What the module returns; raises ModuleFailedError when it fails."""
    capsys.readouterr()
    with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit) as end:
        module.main()
    result = dict(json.loads(capsys.readouterr().out))
    if end.value.code:
        raise ModuleFailedError(result)
    return result


def play(playbook: Path, inventory: Path | str, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """ansible-playbook with the project's ansible.cfg; at most 120 s."""
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("--inventory", str(inventory), *options, "--extra-vars", json.dumps(variables), str(playbook)),
        ],
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
