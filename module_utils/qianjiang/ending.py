# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How containers end: SIGTERM, the time they were made with, SIGKILL; and how they and their images go."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible.module_utils.qianjiang.change import Change
from ansible.module_utils.qianjiang.engine import Engine
from ansible.module_utils.qianjiang.service_state import ACTIVE

# The engine's own status of a process that SIGKILL ended
_KILLED = 137
_DEFAULT_STOP_TIMEOUT = 10


def end_containers(engine: Engine, changes: Iterable[Change], images: Mapping[str, str]) -> dict[str, Any]:
    """Stop and remove as planned; `before` "present" is an image. `images`: the reference of each image, by its id."""
    stopped: list[dict[str, Any]] = []
    images_removed: list[str] = []
    for change in changes:
        name, before, after = change["name"], change["before"], change["after"]
        if before == "present":
            reference = images.get(name, name)
            if engine.remove_image(reference):
                images_removed.append(reference)
            continue
        if before in ACTIVE:
            stopped += _stop(engine, name)
        if after is None:
            engine.remove(name)
    return {"stopped": stopped, "images_removed": images_removed}


def unused_images(
    images: Iterable[Mapping[str, Any]],
    entries: Iterable[Mapping[str, Any]],
    names: Collection[str],
    keep: Collection[str],
) -> list[Change]:
    """The removal of images of these names (`registry/repository`) that no container of the engine's list uses.

    Digests to `keep` stay, and so does an image with a tag, which a pull by digest does not give: a builder's.
    """
    used = {entry[key] for entry in entries for key in ("ImageID", "Image")}
    references = [
        reference
        for image in images
        if image["Id"] not in used and not set(image.get("RepoTags") or ()) - {"<none>:<none>"}
        for reference in image.get("RepoDigests") or ()
    ]
    return [
        {"name": reference, "before": "present", "after": None}
        for reference in sorted(references)
        if reference.partition("@")[0] in names and reference.partition("@")[2] not in keep and reference not in used
    ]


def _stop(engine: Engine, name: str) -> list[dict[str, Any]]:
    inspect = engine.inspect(name)
    if inspect is None:
        return []
    timeout = inspect["Config"].get("StopTimeout")
    begin = time.monotonic()
    engine.stop(name, _DEFAULT_STOP_TIMEOUT if timeout is None else timeout)
    state = (engine.inspect(name) or inspect)["State"]
    return [
        {
            "container": name,
            "seconds": round(time.monotonic() - begin, 2),
            "killed": state["ExitCode"] == _KILLED and not state.get("OOMKilled"),
            "exit_code": state["ExitCode"],
        }
    ]
