#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_replicate
short_description: Copy images from one registry to another, by digest
description:
  - Gives a datacenter's registry the images that it lacks. Run it at the destination, next to the registry, so that
    each missing blob crosses the WAN once, however many nodes the datacenter has.
  - An image is there when its manifest and every blob that it names are. Then nothing is done, and the source is not
    even asked. What is missing of an incomplete image is copied again. A blob of another size is an error, as no copy
    replaces it.
  - A blob that another repository of the destination holds is taken from there.
  - The manifest goes last, an index after its images, and everything is looked at again afterwards. A copy that breaks
    leaves no manifest, and the next run takes up the blobs that arrived.
  - On a host, one copies to a registry at a time. What another run is copying, as one that outlived its controller, is
    waited for, at most O(copy_timeout), and not sent again.
  - Both registries are reached directly, whatever proxy the host's environment names.
attributes:
  check_mode:
    description: Says which images, and how many blobs and bytes, it would copy.
    support: full
  diff_mode:
    description: Shows what is missing, for each image.
    support: full
options:
  images:
    description:
      - The images, C(repository@digest). Where a tag is named too, as in C(repository:tag@digest), it is set at the
        destination.
    type: list
    elements: str
    required: true
  source:
    description:
      - The registry to copy from, C(host[:port]); the origin. Where it is O(destination) itself, the images only have
        to be there.
    type: str
    required: true
  destination:
    description:
      - The registry to copy to, C(host[:port]).
    type: str
    required: true
  retries:
    description:
      - How often to try a copy again, after 1, 2, 4 … seconds, where it failed in passing or stood still. Blobs that
        arrived are not sent again.
    type: int
    default: 3
  copy_timeout:
    description:
      - Seconds after which the copy of an image is given up, with all its tries and waits; V(0) for never.
    type: int
    default: 3600
  stall_timeout:
    description:
      - Seconds without a byte after which a try is given up. A link that is cut closes no connection.
    type: int
    default: 120
extends_documentation_fragment:
  - registry_client
requirements:
  - skopeo
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Bring the release to this datacenter
  image_replicate:
    images:
      - "webui@{{ digest }}"
    source: registry.hangzhou.lab:5000
    destination: registry.shanghai.lab:5000
    username: "{{ registry_username }}"
    password: "{{ registry_password }}"
"""

RETURN = r"""
images:
  description: Each image with what was (in check mode, would be) copied of it.
  returned: success
  type: list
  elements: dict
  contains:
    image:
      description: The image as it was given.
      type: str
    copied:
      description: Whether anything was copied.
      type: bool
    blobs:
      description: How many blobs came from the source.
      type: int
    bytes:
      description: The size of these blobs, as they are in the registry.
      type: int
blobs:
  description: How many blobs came from the source in all.
  returned: success
  type: int
bytes:
  description: The size of these blobs in all.
  returned: success
  type: int
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.arguments import (
    LOGIN_TOGETHER,
    REGISTRY_CLIENT,
    check_numbers,
    logins,
    registry_client,
)
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.host_lock import HostLockError, host_lock
from ansible.module_utils.qianjiang.image_reference import ImageReference, ImageReferenceError, check_registry, parse
from ansible.module_utils.qianjiang.registry import (
    Blob,
    DamagedError,
    RegistryClient,
    RegistryError,
    blobs,
    is_complete,
)
from ansible.module_utils.qianjiang.skopeo import SkopeoError, find_skopeo

ERRORS = (HostLockError, ImageReferenceError, RegistryError, SkopeoError)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "images": {"type": "list", "elements": "str", "required": True},
    "source": {"type": "str", "required": True},
    "destination": {"type": "str", "required": True},
    "retries": {"type": "int", "default": 3},
    "copy_timeout": {"type": "int", "default": 3600},
    "stall_timeout": {"type": "int", "default": 120},
    **REGISTRY_CLIENT,
}


class Present(NamedTuple):
    """What the destination has of one image, and what has to be done about the rest."""

    complete: bool = True
    manifest: bool = True  # there, though blobs may be missing
    whole: bool = False  # an index: take each of its images
    missing: tuple[Blob, ...] = ()  # in no repository of the destination
    elsewhere: tuple[tuple[Blob, str], ...] = ()  # blob, and the repository that has it
    tag: str | None = None  # the digest under the wanted tag


def wanted(images: Sequence[str]) -> dict[str, ImageReference]:
    """The images to copy, by their text."""
    references = {}
    for index, text in enumerate(images):
        reference = parse(text)
        if reference.registry is not None or reference.digest is None:
            raise ImageReferenceError(f"images[{index}]: expected repository@sha256:<64 hex digits>, got {text!r}")
        references[text] = reference
    return references


def plan(destination: str, desired: Mapping[str, ImageReference], current: Mapping[str, Present]) -> list[Change]:
    """Copy each image that is not complete, then set each tag that names another image."""
    changes = []
    for text, reference in desired.items():
        present = current[text]
        if not present.complete:
            before = "incomplete" if present.manifest else None
            after = f"{len(present.missing)} blobs, {_size(present)} bytes"
            changes.append(Change(name=f"{destination}/{text}", before=before, after=after))
        if reference.tag is not None and present.tag != reference.digest:
            name = f"{destination}/{reference.repository}:{reference.tag}"
            changes.append(Change(name=name, before=present.tag, after=reference.digest))
    return changes


def _size(present: Present) -> int:
    return sum(blob.size for blob in present.missing)


class ImageReplicate:
    """Copies into one registry: `read` counts what is missing, `apply` copies and verifies."""

    def __init__(self, module: AnsibleModule) -> None:
        self.params = module.params
        self.images = wanted(self.params["images"])
        for option in ("source", "destination"):
            check_registry(option, self.params[option])
        self.source: RegistryClient = registry_client(self.params, self.params["source"])
        self.destination: RegistryClient = registry_client(self.params, self.params["destination"])
        self.module = module
        self.coming: dict[str, str] = {}  # blobs on their way, with their repository
        self.repositories: list[str] | None = None

    def read(self) -> dict[str, Present]:
        """What the destination has of each image. What comes with one image counts as there for those after it."""
        found = {}
        for text, image in self.images.items():
            found[text] = self._present(image)
            for blob in found[text].missing:
                self.coming.setdefault(blob.digest, image.repository)
        return found

    def _present(self, image: ImageReference) -> Present:
        tag = self.destination.head_manifest(image.repository, image.tag) if image.tag else None
        manifest = self.destination.head_manifest(image.repository, image.digest) is not None
        if manifest and is_complete(self.destination, image.repository, image.digest):
            return Present(tag=tag)
        if self.params["source"] == self.params["destination"]:
            problem = "is incomplete" if manifest else "is not there"
            raise RegistryError(f"{image.at(self.params['source'])} {problem}: push it first (image_push)")
        wanted_manifest = self.source.get_manifest(image.repository, image.digest)
        absent = [
            blob
            for blob in blobs(self.source, image.repository, wanted_manifest)
            if not self.destination.has_blob(image.repository, blob.digest, blob.size)
        ]
        found = list(zip(absent, self._holders(image.repository, absent)))
        return Present(
            complete=False,
            manifest=manifest,
            whole=bool(wanted_manifest.children),
            missing=tuple(blob for blob, other in found if other is None),
            elsewhere=tuple((blob, other) for blob, other in found if other is not None),
            tag=tag,
        )

    def _holders(self, repository: str, absent: Sequence[Blob]) -> list[str | None]:
        """The other repository that has each blob, or None.

        What images share is the layers they begin with. So the first layer is looked for everywhere, those after it
        where all before were, and none after one that is nowhere: each look is a request.
        """
        others: list[str] | None = None
        found: list[str | None] = []
        for blob in absent:
            holder = self.coming.get(blob.digest)
            if not blob.is_layer:
                others = None
            elif holder is not None:
                others = others or []
            else:
                if others is None:
                    others = [name for name in self._repositories() if name != repository]
                others = [name for name in others if self.destination.has_blob(name, blob.digest, blob.size)]
                holder = next(iter(others), None)
            found.append(holder)
        return found

    def _repositories(self) -> list[str]:
        if self.repositories is None:
            self.repositories = self.destination.repositories()
        return self.repositories

    def apply(self, current: Mapping[str, Present], changes: Sequence[Change]) -> None:
        """Copy what is missing, verify it, then set tags."""
        names = {change["name"] for change in changes}
        for text, image in self.images.items():
            if not current[text].complete:
                self._copy(image, current[text])
            if f"{self.params['destination']}/{image.repository}:{image.tag}" in names:
                manifest = self.destination.get_manifest(image.repository, image.digest)
                self.destination.put_manifest(image.repository, image.tag, manifest.body, manifest.media_type)

    def _copy(self, image: ImageReference, present: Present) -> None:
        source, destination = self.params["source"], self.params["destination"]
        for blob, other in present.elsewhere:
            if other != image.repository:
                self.destination.mount_blob(image.repository, blob.digest, other)
        name = f"{image.repository}@{image.digest}"
        find_skopeo(self.module).copy(
            f"docker://{source}/{name}",
            f"docker://{destination}/{name}",
            logins(self.params, source, destination),
            whole=present.whole,
            retries=self.params["retries"],
            seconds=self.params["copy_timeout"],
        )
        self._verify(image)

    def _verify(self, image: ImageReference) -> None:
        """What was not copied whole must not stay visible."""
        reason = "Look at its storage."
        try:
            if is_complete(self.destination, image.repository, image.digest):
                return
        except DamagedError as error:
            reason = str(error)
        gone = self.destination.delete_manifest(image.repository, image.digest)
        state = "its manifest was removed again" if gone else "its manifest is still there: delete it"
        name = f"{self.params['destination']}/{image.repository}@{image.digest}"
        raise RegistryError(f"{name} is incomplete after the copy; {state}. {reason}")


def main() -> None:
    """Copy images."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_together=LOGIN_TOGETHER)
    check_numbers(module)
    try:
        replicate = ImageReplicate(module)
        destination = module.params["destination"]
        lock = host_lock(f"copies to {destination}", module.params["copy_timeout"])
        with nullcontext() if module.check_mode else lock:
            current = replicate.read()
            changes = plan(destination, replicate.images, current)
            if changes and not module.check_mode:
                replicate.apply(current, changes)
    except ERRORS as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(changes),
        diff=difference(changes),
        images=[
            {"image": text, "copied": not present.complete, "blobs": len(present.missing), "bytes": _size(present)}
            for text, present in current.items()
        ],
        blobs=sum(len(present.missing) for present in current.values()),
        bytes=sum(_size(present) for present in current.values()),
    )


if __name__ == "__main__":
    main()
