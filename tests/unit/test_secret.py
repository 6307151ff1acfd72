"""Keeping secrets out of differences, logs and shown parameters."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.qianjiang.secret import discreet, hide_secret, without_environment


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("TITLE", "x", "x"),
        ("API_TOKEN", "x", "(hidden)"),
        ("db_password", "x", "(hidden)"),
        ("DATABASE_URL", "mysql://root:pw@db/x", "(hidden)"),
        ("HOMEPAGE", "https://example.com/", "https://example.com/"),
        ("API_TOKEN", None, None),
        ("PGPASSWORD", "x", "(hidden)"),
        ("APIKEY", "x", "(hidden)"),
        ("DB_PASSPHRASE", "x", "(hidden)"),
        ("DATABASE_URL", "postgres://u:p/w@db/x", "(hidden)"),
        ("TOKENS_PER_SECOND", "5", "5"),
        ("COMPASS", "x", "x"),
        ("HOMEPAGE", "http://example.com:80/", "http://example.com:80/"),
        ("MONKEY", "x", "x"),
    ],
)
def test_secrets_are_hidden(name: str, value: str | None, shown: str | None) -> None:
    assert hide_secret(name, value) == shown


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
