"""Keeping secrets out of differences, logs and shown parameters."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.qianjiang.secret import discreet, without_environment

PARAMETERS = {"service": {"name": "webui", "env": {"A": "x"}}, "services": [{"service": {"env": {"A": "x", "B": "y"}}}]}
SHOWN = {
    "service": {"name": "webui", "env": {"A": "(hidden)"}},
    "services": [{"service": {"env": {"A": "(hidden)", "B": "(hidden)"}}}],
}


def test_parameters_without_the_environment() -> None:
    assert without_environment(PARAMETERS) == SHOWN


class FakeModule:
    """What AnsibleModule does with its parameters."""

    def __init__(self) -> None:
        self.params = PARAMETERS
        self.logged: list[str] = []
        self.returned: dict[str, Any] = {}
        self._log_invocation()

    def _log_invocation(self) -> None:
        self.log(str(self.params))

    def log(self, text: str) -> None:
        """To syslog."""
        self.logged.append(text)

    def _return_formatted(self, kwargs: dict[str, Any]) -> None:
        self.returned = {"invocation": {"module_args": self.params}} | kwargs


def test_a_module_neither_logs_nor_returns_the_environment() -> None:
    module = discreet(FakeModule)()
    module._return_formatted({"changed": False})
    assert module.logged == [f"Invoked with {SHOWN}"]
    assert module.returned == {"changed": False, "invocation": {"module_args": SHOWN}}
