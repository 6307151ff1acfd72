#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_pull
short_description: Pull an image by digest, from the first registry that gives it
description:
  - Makes sure that this host's engine has an image, and says under which name it can be run. An engine that has it,
    from whichever registry of the list, asks none.
  - Tries the registries in order, the own datacenter's first. A registry that fails in passing is tried again, after
    waits that double; one that lacks the image, refuses the login or gives other content is left at once.
  - The size in the manifest, without layers that are here, is compared with the free space of the engine's data folder
    (and of containerd's, where the engine keeps images in containerd) before anything is pulled.
  - Containers and other images are never touched, so what runs goes on running when a pull fails.
attributes:
  check_mode:
    description: Says whether it would pull. Registries are not asked.
    support: full
  diff_mode:
    description: Shows the image, and the registry that would be tried first.
    support: full
options:
  repository:
    description:
      - The image's repository, without registry, tag and digest.
    type: str
    required: true
  digest:
    description:
      - The manifest's digest.
    type: str
    required: true
  registries:
    description:
      - The registries to try, C(host[:port]), in this order.
    type: list
    elements: str
    required: true
  retries:
    description:
      - How often to try a registry again before the next one's turn.
    type: int
    default: 3
  backoff:
    description:
      - Seconds to wait before the first new try; each further wait is twice as long.
    type: float
    default: 1
  deadline:
    description:
      - Seconds after which the pull is given up, with all its tries and waits; V(0) for never.
    type: float
    default: 0
  min_free_bytes:
    description:
      - What must stay free on the file system of the engine's data folder (and of containerd's, as above), in bytes.
    type: int
    default: 1073741824
  unpack_factor:
    description:
      - How many times larger than in the registry an image is taken to be while it is pulled and unpacked.
    type: float
    default: 3
extends_documentation_fragment:
  - registry_client
seealso:
  - module: image_replicate
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Have the release's image on this node
  image_pull:
    repository: webui
    digest: "{{ digest }}"
    registries:
      - registry.shanghai.lab:5000
      - registry.hangzhou.lab:5000
    username: "{{ registry_username }}"
    password: "{{ registry_password }}"
"""

RETURN = r"""
reference:
  description:
    - The name to run the image by on this host, C(registry/repository@digest). The registry is the first of
      O(registries) from which the engine has the image, and not the first of the list when that one could not give it.
  returned: success
  type: str
source:
  description: The registry that the image came from; null when the engine had it.
  returned: success
  type: str
bytes:
  description: The size of the layers that were transferred, compressed.
  returned: success
  type: int
seconds:
  description: How long it took, with waits.
  returned: success
  type: float
attempts:
  description: What went wrong before it succeeded, in order.
  returned: success
  type: list
  elements: str
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.arguments import LOGIN_TOGETHER, REGISTRY_CLIENT, check_numbers, registry_client
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.engine import EngineError, EngineNotFoundError, connect, translated
from ansible.module_utils.qianjiang.engine_settings import keeps_images_in_containerd
from ansible.module_utils.qianjiang.image_reference import ImageReferenceError, check_registry, parse
from ansible.module_utils.qianjiang.registry import RegistryClient, RegistryError, walk

ERRORS = (EngineError, ImageReferenceError, RegistryError)
CONTAINERD = "/var/lib/containerd"

ARGUMENTS: dict[str, dict[str, Any]] = {
    "repository": {"type": "str", "required": True},
    "digest": {"type": "str", "required": True},
    "registries": {"type": "list", "elements": "str", "required": True},
    "retries": {"type": "int", "default": 3},
    "backoff": {"type": "float", "default": 1.0},
    "deadline": {"type": "float", "default": 0.0},
    "min_free_bytes": {"type": "int", "default": 1024**3},
    "unpack_factor": {"type": "float", "default": 3.0},
    **REGISTRY_CLIENT,
}


class PullError(Exception):
    """No other registry can help."""


class Outcome(NamedTuple):
    """How a pull ended."""

    registry: str
    transferred: int
    attempts: list[str]


def references(repository: str, digest: str, registries: Sequence[str]) -> list[str]:
    """The names that the image may have on this host, in order."""
    if not registries:
        raise ImageReferenceError("registries: expected at least one")
    names = [str(parse(f"{registry}/{repository}@{digest}")) for registry in registries]
    for index, registry in enumerate(registries):
        check_registry(f"registries[{index}]", registry)
    return names


def plan(desired: Sequence[str], current: str | None) -> list[Change]:
    """Pull unless the engine has the image under one of the names."""
    if current in desired:
        return []
    return [Change(name=desired[0].partition("/")[2], before=None, after=desired[0].partition("/")[0])]


def sizes(client: RegistryClient, repository: str, digest: str) -> tuple[int, dict[str, int]]:
    """The size of an image (of an index's largest) in the registry, and of each layer by the engine's short id."""
    largest, layers = 0, {}
    for image in walk(client, repository, client.get_manifest(repository, digest)):
        found = {
            layer["digest"].removeprefix("sha256:")[:12]: int(layer["size"])
            for layer in image.document.get("layers", [])
        }
        largest = max(largest, sum(found.values()))
        layers.update(found)
    return largest, layers


def lacking(client: RegistryClient, repository: str, digest: str, stacks: Sequence[Sequence[str]]) -> int:
    """The size of what an engine lacks of an image (of an index's largest), by the layers of each image that it has.

    The engine keeps a layer together with all those below it, so the lowest layers are shared, or none. The ids are
    those of unpacked layers (diff ids), which an image's configuration lists.
    """
    largest = 0
    for image in walk(client, repository, client.get_manifest(repository, digest)):
        layers = image.document.get("layers", [])
        if layers:
            configuration = json.loads(client.get_blob(repository, image.document["config"]["digest"]))
            ids = configuration.get("rootfs", {}).get("diff_ids", [])
            shared = max((_alike(ids, stack) for stack in stacks), default=0)
            largest = max(largest, sum(int(layer["size"]) for layer in layers[shared:]))
    return largest


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = enumerate(zip(one, other))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))


def image_folders(info: Mapping[str, Any]) -> list[str]:
    """Where the engine may keep images: in its own folder, or in containerd's, which it does not name."""
    elsewhere = keeps_images_in_containerd(info) and Path(CONTAINERD).is_dir()
    return [info["DockerRootDir"], *([CONTAINERD] if elsewhere else [])]


def check_space(folder: str, whole: int, lacks: Callable[[], int], keep: int) -> None:
    """Fail when a pull would not leave `keep` bytes free. What it `lacks` is asked where the `whole` has no room."""
    try:
        state = os.statvfs(folder)
    except OSError as error:
        raise PullError(f"cannot see how much space is free in {folder}: {error.strerror}") from error
    free = state.f_bavail * state.f_frsize
    if free - whole < keep and free - (needed := lacks()) < keep:
        raise PullError(
            f"not enough space in {folder}: {free} bytes free, about {needed} needed, and {keep} are to stay free "
            "(min_free_bytes). Remove images that nothing uses, or enlarge the file system."
        )


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Seconds that a pull may take; 0: any number. An engine that says nothing is waited for no longer, either."""

    def passed(_signal: int, _frame: object) -> None:
        raise PullError(f"the image was not here after {seconds:g} s (deadline). What runs was left alone")

    before = signal.signal(signal.SIGALRM, passed)
    # Again each second: what is raised while Python finalises something is lost
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def transferred(reference: str, events: Iterable[Mapping[str, Any]], layers: Mapping[str, int]) -> int:
    """Follow a pull to its end; the size of the layers that were not there before."""
    fetched = set()
    for event in events:
        if "error" in event:
            if "no space left on device" in str(event["error"]):
                raise PullError(f"pull {reference}: {event['error']}")
            raise EngineError(f"pull {reference}: {event['error']}")
        if event.get("status") in ("Download complete", "Pull complete"):
            fetched.add(str(event.get("id")))
    return sum(layers.get(layer, 0) for layer in fetched)


def first_success(
    registries: Sequence[str],
    attempt: Callable[[str], int],
    retries: int,
    backoff: float,
) -> Outcome:
    """Try registries in order, each again while its failure may pass; all reasons are in the error."""
    failures: list[str] = []
    for registry in registries:
        for number in range(retries + 1):
            try:
                return Outcome(registry, attempt(registry), failures)
            except (RegistryError, EngineError) as error:
                failures.append(str(error))
                if number == retries or not getattr(error, "transient", True):
                    break
                time.sleep(backoff * 2**number)
    reasons = "\n".join(f"  {reason}" for reason in dict.fromkeys(failures))
    raise PullError(f"no registry gave the image. What runs was left alone. The reasons:\n{reasons}")


class ImagePull:
    """One pull: `read` asks the engine, `apply` the registries."""

    def __init__(self, module: AnsibleModule) -> None:
        self.params = module.params
        self.names = references(self.params["repository"], self.params["digest"], self.params["registries"])
        self.engine = connect()

    def read(self) -> str | None:
        """The first name under which the engine has the image."""
        return next((name for name in self.names if self._has(name)), None)

    def _has(self, name: str) -> bool:
        try:
            with translated(f"look for {name}"):
                return name in (self.engine.inspect_image(name).get("RepoDigests") or [])
        except EngineNotFoundError:
            return False

    def _stacks(self) -> list[list[str]]:
        """Of each image that the engine has, its layers, the lowest first."""
        with translated("look for the layers that are here"):
            images = [self.engine.inspect_image(image["Id"]) for image in self.engine.images()]
        return [image["RootFS"].get("Layers") or [] for image in images]

    def apply(self) -> Outcome:
        """Pull from the first registry that gives the image."""
        with translated("ask the Docker Engine for its data folder"):
            folders = image_folders(self.engine.info())

        params = self.params

        def attempt(registry: str) -> int:
            return self._pull(registry, folders)

        with deadline(params["deadline"]):
            return first_success(
                params["registries"],
                attempt,
                params["retries"],
                params["backoff"],
            )

    def _pull(self, registry: str, folders: Sequence[str]) -> int:
        params = self.params
        repository, digest = params["repository"], params["digest"]
        client = registry_client(params, registry)
        size, layers = sizes(client, repository, digest)

        def lacks() -> int:
            return int(lacking(client, repository, digest, self._stacks()) * params["unpack_factor"])

        for folder in folders:
            check_space(folder, int(size * params["unpack_factor"]), lacks, params["min_free_bytes"])
        name = f"{registry}/{repository}@{digest}"
        # Given with the request, so that nothing is written to ~/.docker
        login = {"username": params["username"], "password": params["password"]} if params["password"] else None
        with translated(f"pull {name}"):
            events = self.engine.pull(f"{registry}/{repository}", digest, stream=True, decode=True, auth_config=login)
            size = transferred(name, events, layers)
        if not self._has(name):
            raise EngineError(f"pull {name}: the engine has no image with this digest afterwards")
        return size


def main() -> None:
    """Pull one image."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_together=LOGIN_TOGETHER)
    check_numbers(module)
    start = time.monotonic()
    outcome = None
    try:
        pull = ImagePull(module)
        current = pull.read()
        changes = plan(pull.names, current)
        if changes and not module.check_mode:
            outcome = pull.apply()
    except (*ERRORS, PullError) as error:
        module.fail_json(msg=str(error))
    image = f"{module.params['repository']}@{module.params['digest']}"
    module.exit_json(
        changed=bool(changes),
        diff=difference(changes),
        reference=f"{outcome.registry}/{image}" if outcome else current or pull.names[0],
        source=outcome.registry if outcome else None,
        bytes=outcome.transferred if outcome else 0,
        seconds=round(time.monotonic() - start, 3),
        attempts=outcome.attempts if outcome else [],
    )


if __name__ == "__main__":
    main()
