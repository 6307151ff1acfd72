# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker Engine of this host: a client, and its errors in words that say what to do."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

try:
    from docker import APIClient, errors
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError
except ImportError as error:
    MISSING: str | None = str(error)
else:
    MISSING = None

SOCKET = "/var/run/docker.sock"
# Requests that do real work (a create on a busy disk) take longer than the SDK's minute
TIMEOUT = 120
_EXECUTION_POLL = 0.05


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
    except (errors.DockerException, RequestException, HTTPError) as error:
        raise EngineError(f"{action}: {error}") from error


def _words(error: Exception) -> str:
    explanation = getattr(error, "explanation", None) or str(error)
    return explanation.decode(errors="replace") if isinstance(explanation, bytes) else str(explanation)


class Engine:
    """The calls our modules make, each with the engine's refusal in words. Ids and names of containers serve alike."""

    def __init__(self, client: APIClient | None = None) -> None:
        # the SDK's types are partial
        self._client: Any = connect() if client is None else client

    def containers(self, label: str | None = None) -> list[dict[str, Any]]:
        """All containers, stopped ones too; with `label` those that have it."""
        with translated("list containers"):
            filters = {"label": [label]} if label else None
            return list(self._client.containers(all=True, filters=filters))

    def inspect(self, container: str) -> dict[str, Any] | None:
        """Everything about a container; None: there is none."""
        try:
            with translated(f"inspect container {container}"):
                return dict(self._client.inspect_container(container))
        except EngineNotFoundError:
            return None

    def inspect_image(self, image: str) -> dict[str, Any] | None:
        """Everything about an image in the engine; None: there is none. Asks no registry."""
        try:
            with translated(f"inspect image {image}"):
                return dict(self._client.inspect_image(image))
        except EngineNotFoundError:
            return None

    def image_names(self) -> list[str]:
        """`registry/repository@digest` of every image in the engine that came from a registry."""
        return sorted(name for image in self.all_images() for name in image.get("RepoDigests") or [])

    def all_images(self) -> list[dict[str, Any]]:
        """All images, with their `RepoTags` and `RepoDigests`; either may be None."""
        with translated("list images"):
            return list(self._client.images())

    def create(self, body: dict[str, Any], name: str) -> str:
        """A new container from the body of a create request; returns its id."""
        with translated(f"create {name}"):
            return str(self._client.create_container_from_config(body, name)["Id"])

    def start(self, container: str) -> None:
        """Start a container."""
        with translated(f"start {container}"):
            self._client.start(container)

    def execute(self, container: str, command: list[str], timeout: float) -> int | None:
        """Execute a command in a container; its exit code, or None where it has not ended after `timeout` seconds."""
        with translated(f"execute {command[0]} in {container}"):
            execution = self._client.exec_create(container, command)["Id"]
            self._client.exec_start(execution, detach=True)
            end = time.monotonic() + timeout
            while (code := self._client.exec_inspect(execution)["ExitCode"]) is None and time.monotonic() < end:
                time.sleep(_EXECUTION_POLL)
        return None if code is None else int(code)

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        with translated(f"rename {container}"):
            self._client.rename(container, name)

    def set_restart(self, container: str, policy: str) -> None:
        """Change a container's restart policy."""
        with translated(f"set the restart policy of {container}"):
            self._client.update_container(container, restart_policy={"Name": policy})

    def stop(self, container: str, timeout: int) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds. Returns when the container has ended."""
        with translated(f"stop {container}"):
            self._client.stop(container, timeout=timeout)

    def remove(self, container: str) -> None:
        """Remove a container, running or not, with its anonymous volumes; one that is gone is fine."""
        with suppress(EngineNotFoundError), translated(f"remove {container}"):
            self._client.remove_container(container, force=True, v=True)

    def remove_image(self, image: str) -> bool:
        """Remove an image that nothing uses; False: it is gone, or something uses it after all."""
        try:
            self._client.remove_image(image)
        except errors.APIError as error:
            if error.status_code not in (404, 409):
                raise EngineError(f"remove image {image}: {_words(error)}") from error
            return False
        return True

    def logs(self, container: str, lines: int) -> list[str]:
        """The last lines a container wrote."""
        with translated(f"read the log of {container}"):
            output = self._client.logs(container, stdout=True, stderr=True, tail=lines)
        return output.decode(errors="replace").splitlines() if isinstance(output, bytes) else str(output).splitlines()
