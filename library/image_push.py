#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_push
short_description: Put an image into the origin registry, once
description:
  - Pushes an image of this host's engine, or of an archive, and then moves tags to it. Nothing is sent when the
    registry has the image, with every blob that it names. What is missing of an incomplete image is sent again. A blob
    of another size is an error, as no push replaces it.
  - An identity tag (C(ctx-…), see M(image_build)) stands for its content, so it is enough that the registry has it,
    from whichever builder; the engine need not have the image then. Under any other tag, the registry's image is
    compared with the engine's or the archive's by the digest of its configuration.
  - On a host, one builds or pushes an image of a repository at a time; the others wait, at most an hour.
  - Tags move inside the registry, by storing the same manifest once more. No image is sent for that.
attributes:
  check_mode:
    description:
      - Says what it would push and which tags it would move. An image that is nowhere yet is taken for one that would
        have been built before, an O(archive) that is not there yet for one with another image.
    support: full
  diff_mode:
    description: Shows the digest before and after, for the image and each tag.
    support: full
options:
  image:
    description:
      - The image, C(registry/repository:tag). The engine has it under this name; from an O(archive) it gets this name.
    type: str
    required: true
  tags:
    description:
      - Tags of the same repository that shall name the same image.
    type: list
    elements: str
    default: [latest]
  archive:
    description:
      - File to push from instead of the engine, as C(docker save) or an OCI tool writes it, with one image in it. Meant
        for base images where no public registry can be reached. Needs skopeo.
    type: path
  stall_timeout:
    description:
      - Seconds without a byte after which the push of an O(archive) is given up. A link that is cut closes no
        connection.
    type: int
    default: 120
extends_documentation_fragment:
  - registry_client
seealso:
  - module: image_build
  - module: image_replicate
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Push what was built, and name it latest
  image_push:
    image: "{{ webui.image }}"
    username: "{{ registry_username }}"
    password: "{{ registry_password }}"

- name: Put the base image into the origin registry
  image_push:
    image: registry.hangzhou.lab:5000/base:bookworm
    archive: /srv/images/bookworm.tar
    tags: []
    username: "{{ registry_username }}"
    password: "{{ registry_password }}"
"""

RETURN = r"""
digest:
  description: The manifest's digest. In check mode null for an image that would be pushed.
  returned: success
  type: str
pushed:
  description: Whether the image was (in check mode, would be) sent.
  returned: success
  type: bool
tags_moved:
  description: The tags that were (in check mode, would be) moved.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.arguments import (
    LOGIN_TOGETHER,
    REGISTRY_CLIENT,
    check_numbers,
    logins,
    registry_client,
)
from ansible.module_utils.qianjiang.change import Change, difference
from ansible.module_utils.qianjiang.engine import EngineError, EngineNotFoundError, connect, translated
from ansible.module_utils.qianjiang.host_lock import PATIENCE, HostLockError, host_lock
from ansible.module_utils.qianjiang.image_reference import ImageReference, ImageReferenceError, parse
from ansible.module_utils.qianjiang.registry import RegistryError, explained, is_complete
from ansible.module_utils.qianjiang.skopeo import Skopeo, SkopeoError, archive_source, find_skopeo

UNKNOWN = "(known after the push)"
ERRORS = (EngineError, HostLockError, ImageReferenceError, RegistryError, SkopeoError)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "image": {"type": "str", "required": True},
    "tags": {"type": "list", "elements": "str", "default": ["latest"]},
    "archive": {"type": "path"},
    "stall_timeout": {"type": "int", "default": 120},
    **REGISTRY_CLIENT,
}


def wanted_image(image: str, tags: Sequence[str]) -> ImageReference:
    """The reference to push; it and the tags are checked."""
    reference = parse(image)
    if reference.registry is None or reference.tag is None or reference.digest is not None:
        raise ImageReferenceError(f"image: expected registry/repository:tag, got {image!r}")
    for tag in tags:
        parse(f"{reference.name}:{tag}")
    return reference


def plan(image: ImageReference, current: Mapping[str, Any]) -> list[Change]:
    """Push unless the registry has this very image, then move each tag that names another one."""
    changes = []
    after = current["digest"] if current["same"] else UNKNOWN
    if not current["same"]:
        before = "incomplete" if current["digest"] and not current["complete"] else current["digest"]
        changes.append(Change(name=str(image), before=before, after=after))
    for tag, before in current["tags"].items():
        if before != after:
            changes.append(Change(name=f"{image.name}:{tag}", before=before, after=after))
    return changes


def pushed_digest(image: str, events: Iterable[Mapping[str, Any]]) -> str:
    """The digest that the engine reports at the end of a push."""
    digest = None
    for event in events:
        if "error" in event:
            raise EngineError(f"push {image}: {explained(str(event['error']))}")
        digest = (event.get("aux") or {}).get("Digest") or digest
    if digest is None:
        raise EngineError(f"push {image}: the engine reported no digest")
    return str(digest)


class ImagePush:
    """One push: `read` compares registry and source, `apply` sends and moves tags."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.image = wanted_image(self.params["image"], self.params["tags"])
        self.is_identity = self.image.tag.startswith("ctx-")
        self.client = registry_client(self.params, self.image.registry)
        self.skopeo: Skopeo | None = None
        self.source = ""
        archive = self.params["archive"]
        self.archive_to_come = bool(archive) and module.check_mode and not Path(archive).exists()
        if archive and not self.archive_to_come:
            self.skopeo = find_skopeo(module)
            self.source = archive_source(Path(archive))

    def read(self) -> dict[str, Any]:
        """What the registry has under the image's tag and the other tags, and whether that is the wanted image."""
        digest = self.client.head_manifest(self.image.repository, self.image.tag)
        tags = {tag: self.client.head_manifest(self.image.repository, tag) for tag in self.params["tags"]}
        complete = digest is not None and is_complete(self.client, self.image.repository, digest)
        same = self._same(digest, complete=complete)
        return {"digest": digest, "complete": complete, "same": same, "tags": tags}

    def _same(self, digest: str | None, *, complete: bool) -> bool:
        if self.archive_to_come:
            return False
        if complete and self.skopeo is None and self.is_identity:
            return True
        identifiers = {self.skopeo.config_digest(self.source)} if self.skopeo else self._engine_identifiers()
        if not complete:
            if not identifiers and not self.module.check_mode:
                state = f"({digest}) is neither whole" if digest else "is neither"
                hint = "Build it first (image_build), or give an archive."
                raise EngineError(f"{self.image} {state} in its registry nor in this host's engine. {hint}")
            return False
        if not identifiers:
            return True  # only the registry has it
        # The classic image store names an image by its configuration, containerd's by its manifest
        config = self.client.get_manifest(self.image.repository, digest).config_digest
        return not identifiers.isdisjoint({config, digest})

    def _engine_identifiers(self) -> set[str]:
        try:
            with translated(f"look for {self.image}"):
                return {connect().inspect_image(str(self.image))["Id"]}
        except EngineNotFoundError:
            return set()

    def apply(self, current: Mapping[str, Any], changes: Sequence[Change]) -> str:
        """Push if need be, then move the tags; returns the digest."""
        digest = current["digest"] if current["same"] else self._push()
        moves = {change["name"] for change in changes}
        manifest = self.client.get_manifest(self.image.repository, digest)
        for tag in self.params["tags"]:
            if f"{self.image.name}:{tag}" in moves:
                self.client.put_manifest(self.image.repository, tag, manifest.body, manifest.media_type)
        return str(digest)

    def _push(self) -> str:
        if self.skopeo:
            self.skopeo.copy(self.source, f"docker://{self.image}", logins(self.params, self.image.registry))
            reported = None
        else:
            login = {"username": self.params["username"], "password": self.params["password"]}
            auth = login if self.params["password"] else None
            with translated(f"push {self.image}"):
                events = connect().push(self.image.name, self.image.tag, stream=True, decode=True, auth_config=auth)
                reported = pushed_digest(str(self.image), events)
        digest = self.client.head_manifest(self.image.repository, self.image.tag)
        # Under an identity tag another builder's push is as good
        if digest is None or (reported not in (None, digest) and not self.is_identity):
            hint = "Does something else push there?"
            raise RegistryError(f"{self.image}: pushed {reported or 'it'}, but the registry has {digest}. {hint}")
        if not is_complete(self.client, self.image.repository, digest):
            hint = "Look at its registry's storage."
            raise RegistryError(f"{self.image} ({digest}) is incomplete after the push. {hint}")
        return str(digest)


def main() -> None:
    """Push one image."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_together=LOGIN_TOGETHER)
    check_numbers(module)
    try:
        push = ImagePush(module)
        with nullcontext() if module.check_mode else host_lock(push.image.name, PATIENCE):
            current = push.read()
            changes = plan(push.image, current)
            digest = current["digest"] if current["same"] else None
            if changes and not module.check_mode:
                digest = push.apply(current, changes)
    except ERRORS as error:
        module.fail_json(msg=str(error))
    moved = [change["name"].rpartition(":")[2] for change in changes if change["name"] != str(push.image)]
    module.exit_json(
        changed=bool(changes),
        diff=difference(changes),
        digest=digest,
        pushed=not current["same"],
        tags_moved=moved,
    )


if __name__ == "__main__":
    main()
