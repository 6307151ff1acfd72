"""Reaching the engine, and its errors in words that say what to do."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.module_utils.qianjiang import engine
from ansible.module_utils.qianjiang.engine import Engine, EngineError, EngineNotFoundError, connect, translated
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import ConnectionError as RequestsConnectionError
from urllib3.exceptions import ProtocolError


def test_the_sdk_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MISSING", "No module named 'docker'")
    with pytest.raises(EngineError, match=r"^the Docker SDK for Python is missing for .*; install python3-docker"):
        connect()


def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=rf"^no Docker Engine here: {tmp_path}/none does not exist; install it"):
        connect(str(tmp_path / "none"))


def test_the_engine_is_down(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with pytest.raises(
        EngineError, match=rf"^the Docker Engine at {path} does not answer \(.*Connection refused\); see"
    ):
        connect(str(path))


def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Mock()
    refusing.return_value.__enter__ = Mock(return_value=Mock(connect=Mock(side_effect=PermissionError())))
    refusing.return_value.__exit__ = Mock(return_value=False)
    monkeypatch.setattr(engine.socket, "socket", refusing)
    with pytest.raises(
        EngineError, match=r"^no permission to use the Docker Engine at /var/run/docker.sock; become root"
    ):
        connect()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (NotFound("404", explanation="No such container: x"), EngineNotFoundError, "do it: No such container: x"),
        (ImageNotFound("404", explanation="No such image: x"), EngineNotFoundError, "do it: No such image: x"),
        (APIError("409", explanation="in use"), EngineError, "do it: in use"),
        (APIError("500", explanation=b"broken"), EngineError, "do it: broken"),
        (DockerException("odd"), EngineError, "do it: odd"),
        (RequestsConnectionError("reset"), EngineError, "do it: reset"),
        # the SDK follows a stream, as of a pull, past requests
        (ProtocolError("connection broken"), EngineError, "do it: connection broken"),
    ],
)
def test_errors_are_translated(error: Exception, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught, translated("do it"):
        raise error
    assert str(caught.value) == message


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(KeyError), translated("do it"):
        raise KeyError("a mistake of ours")


def api_error(status: int) -> APIError:
    return APIError("no", response=Mock(status_code=status), explanation="no")


@pytest.mark.parametrize(("error", "removed"), [(None, True), (api_error(404), False), (api_error(409), False)])
def test_an_image_in_use_or_gone_is_no_error(error: APIError | None, removed: bool) -> None:
    client = Mock()
    client.remove_image.side_effect = error
    assert Engine(client).remove_image("webui@sha256:x") is removed


def test_an_image_that_cannot_be_removed_is_an_error() -> None:
    client = Mock()
    client.remove_image.side_effect = api_error(500)
    with pytest.raises(EngineError, match=r"^remove image webui@sha256:x: no$"):
        Engine(client).remove_image("webui@sha256:x")


def test_what_is_gone_is_none() -> None:
    client = Mock()
    client.inspect_container.side_effect = client.inspect_image.side_effect = NotFound("gone")
    client.remove_container.side_effect = NotFound("gone")
    reader = Engine(client)
    assert (reader.inspect("x"), reader.inspect_image("x")) == (None, None)
    reader.remove("x")


def test_the_log_is_text() -> None:
    client: Any = Mock()
    client.logs.return_value = b"one\n\xff two\n"
    assert Engine(client).logs("x", 2) == ["one", "\ufffd two"]


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0], 0), ([None, None, 3], 3), ([None] * 99, None)],
)
def test_what_is_executed_in_a_container(
    monkeypatch: pytest.MonkeyPatch, codes: list[int | None], code: int | None
) -> None:
    client: Any = Mock()
    client.exec_create.return_value = {"Id": "execution"}
    client.exec_inspect.side_effect = [{"ExitCode": one} for one in codes]
    monkeypatch.setattr(engine, "_EXECUTION_POLL", 0.01)
    assert Engine(client).execute("x", ["check", "it"], timeout=0.1) == code
    client.exec_create.assert_called_once_with("x", ["check", "it"])
    client.exec_start.assert_called_once_with("execution", detach=True)
