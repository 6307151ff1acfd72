"""An engine in memory, for running the service modules without Docker."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.qianjiang.container import LABEL, container_spec, create_body

from support import NEW, catalogue

WEBUI = catalogue()["webui"]
REFERENCE = "registry.hangzhou.lab:5000/webui"
STARTED = "2026-11-24T08:00:00Z"


class Host:
    """An engine that remembers; the ids of containers are their names. What is in `sick` ends as soon as it started."""

    def __init__(self, images: Iterable[str] = (), service: Mapping[str, Any] = WEBUI) -> None:
        self.images = set(images)
        self.service = service
        self.there: dict[str, dict[str, Any]] = {}
        self.strangers: list[dict[str, Any]] = []
        self.sick: set[str] = set()
        self.calls: list[str] = []
        self._lock = threading.Lock()

    def add(
        self,
        release: int,
        slot: str,
        status: str = "running",
        *,
        restart: str = "unless-stopped",
        replica: int = 0,
        **state: Any,
    ) -> Host:
        """A container of the service, as the engine makes it from our own request."""
        spec = container_spec(self.service, REFERENCE, NEW, release=release, replica=replica, slot=slot)
        self._put(spec["name"], create_body(spec, restart), status, **state)
        return self

    def _put(self, name: str, body: dict[str, Any], status: str, **state: Any) -> None:
        config = dict(body)
        host = config.pop("HostConfig")
        stands = {"Running": status == "running", "Status": status, "StartedAt": STARTED, "ExitCode": 0}
        with self._lock:
            self.there[name] = {
                "Id": name,
                "Name": f"/{name}",
                "Image": f"image of r{config['Labels'][f'{LABEL}release']}",
                "Config": config,
                "HostConfig": host,
                "State": stands | {"Health": {"Status": "healthy"}} | state,
            }

    def stranger(self, name: str, port: int) -> Host:
        """A container that is not ours."""
        ports = [{"PublicPort": port, "Type": "tcp"}, {"PrivatePort": 1, "Type": "tcp"}]
        entry = {"Id": name, "Names": [f"/{name}"], "ImageID": "its image", "Image": name, "State": "running"}
        self.strangers.append(entry | {"Labels": None, "Ports": ports})
        return self

    def containers(self) -> list[dict[str, Any]]:
        return self.strangers + [self._entry(name, one) for name, one in self.there.items()]

    @staticmethod
    def _entry(name: str, one: dict[str, Any]) -> dict[str, Any]:
        bindings = one["HostConfig"].get("PortBindings", {}) if one["State"]["Running"] else {}
        ports = [{"PublicPort": int(item["HostPort"]), "Type": "tcp"} for port in bindings.values() for item in port]
        return {
            "Id": name,
            "Names": [f"/{name}"],
            "ImageID": one["Image"],
            "Image": one["Config"]["Image"],
            "State": one["State"]["Status"],
            "Labels": one["Config"]["Labels"],
            "Ports": ports,
        }

    def inspect(self, container: str) -> dict[str, Any] | None:
        return self.there.get(container)

    def inspect_image(self, image: str) -> dict[str, Any] | None:
        return {"Id": image} if image in self.images or image.startswith("image of") else None

    def image_names(self) -> list[str]:
        return sorted(self.images)

    def all_images(self) -> list[dict[str, Any]]:
        return [{"Id": name, "RepoTags": None, "RepoDigests": [name]} for name in self.images]

    def create(self, body: dict[str, Any], name: str) -> str:
        self.calls.append(f"create {name}")
        self._put(name, body, "created")
        return name

    def start(self, container: str) -> None:
        self.calls.append(f"start {container}")
        ended = container in self.sick
        state = (
            {"Status": "exited", "Running": False, "ExitCode": 3} if ended else {"Status": "running", "Running": True}
        )
        self.there[container]["State"] |= state | {"Health": {}}

    def set_restart(self, container: str, policy: str) -> None:
        self.there[container]["HostConfig"]["RestartPolicy"] = {"Name": policy}

    def restart_of(self, container: str) -> str:
        return str(self.there[container]["HostConfig"]["RestartPolicy"]["Name"])

    def stop(self, container: str, timeout: int) -> None:
        """One that is in `sick` does not end by itself."""
        self.calls.append(f"stop {container} within {timeout}")
        code = 137 if container in self.sick else 0
        self.there[container]["State"] |= {"Status": "exited", "Running": False, "ExitCode": code}

    def remove(self, container: str) -> None:
        self.calls.append(f"remove {container}")
        self.there.pop(container, None)

    def remove_image(self, image: str) -> bool:
        self.calls.append(f"remove image {image}")
        self.images.discard(image)
        return True

    def logs(self, container: str, lines: int) -> list[str]:
        return [f"{container} said line {number}" for number in range(1, 30)][-lines:]
