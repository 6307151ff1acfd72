"""Running a module's `main()` in this process, as Ansible would."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args


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
