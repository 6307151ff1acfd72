# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker Engine of this host: a client, and its errors in words that say what to do."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

try:
    from docker import APIClient, errors
    from requests.exceptions import RequestException
except ImportError as error:
    MISSING: str | None = str(error)
else:
    MISSING = None

SOCKET = "/var/run/docker.sock"
# Requests that do real work (a create on a busy disk) take longer than the SDK's minute
TIMEOUT = 120


class EngineError(Exception):
    """The engine cannot be reached, or refused something."""


class EngineNotFoundError(EngineError):
    """The engine has no such container or image."""


def connect(path: str = SOCKET, timeout: int = TIMEOUT) -> APIClient:
    """A client of the engine behind the unix socket `path`. Raises EngineError when there is none."""
    if MISSING:
        raise EngineError(
            f"the Docker SDK for Python is missing for {sys.executable} ({MISSING}); "
            "install python3-docker (the docker_engine role does)"
        )
    _reach(path)
    with translated("connect to the Docker Engine"):
        return APIClient(base_url=f"unix://{path}", version="auto", timeout=timeout)


def _reach(path: str) -> None:
    """Find out why a socket does not answer: the SDK wraps all causes in one message."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(10)
            probe.connect(path)
    except FileNotFoundError as error:
        raise EngineError(
            f"no Docker Engine here: {path} does not exist; install it (the docker_engine role does), "
            "or start docker.service"
        ) from error
    except PermissionError as error:
        raise EngineError(
            f"no permission to use the Docker Engine at {path}; become root, or join the docker group"
        ) from error
    except OSError as error:
        raise EngineError(
            f"the Docker Engine at {path} does not answer ({error}); "
            "see systemctl status docker and journalctl -u docker"
        ) from error


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn the SDK's exceptions into EngineError("<action>: <the engine's own words>")."""
    try:
        yield
    except errors.NotFound as error:
        raise EngineNotFoundError(f"{action}: {_words(error)}") from error
    except errors.APIError as error:
        raise EngineError(f"{action}: {_words(error)}") from error
    except (errors.DockerException, RequestException) as error:
        raise EngineError(f"{action}: {error}") from error


def _words(error: Exception) -> str:
    explanation = getattr(error, "explanation", None) or str(error)
    return explanation.decode(errors="replace") if isinstance(explanation, bytes) else str(explanation)
