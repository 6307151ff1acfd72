"""The stories' test service in the lab: its entry in the catalogue, and what was posted to it."""

from __future__ import annotations

import collections
import copy
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lab

CONTEXT = "molecule/support/echo"
PORT = 8081
POSTS = "/var/lib/qianjiang/story/posts"
# Who the image runs as
USER = 10001
ENTRY: dict[str, Any] = {
    "build": {"context": CONTEXT, "bases": {"BASE_IMAGE": "base/python:bookworm"}},
    "port": 8080,
    "slots_port": 18100,
    "gateway": {"port": PORT},
    "env": {"ECHO_BEHAVIOUR": "good", "VERSION": "1"},
    "mounts": [{"source": POSTS, "target": "/srv/posts", "read_only": False}],
    "health": {"path": "/healthz", "ready_path": "/readyz", "interval": 2, "start_period": 20},
    "stop_timeout": 10,
    "update": {"min_healthy_time": 1, "drain_timeout": 10},
}


def entry(**changes: Any) -> dict[str, Any]:
    """`entry(env={"ECHO_BEHAVIOUR": "exits"})`: mappings are merged, all else is replaced."""
    return merged(ENTRY, changes)


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(before))
    for key, value in changes.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result


def services(**changes: Any) -> dict[str, Any]:
    """The lab's catalogue with this service, for `--extra-vars`: `json.dumps({"services": services()})`.

    The others are checked less often: an engine in an engine starts a process for each check, which takes a tenth of a
    core when it comes each second.
    """
    others = lab.variable("localhost", "services")
    seldom = {name: merged(service, {"health": {"interval": 10}}) for name, service in others.items()}
    return {**seldom, "echo": entry(**changes)}


def source(directory: Path) -> Path:
    """Copy the context to where a build with `image_source_directory` finds it; what a story changes is in there."""
    shutil.copytree(lab.PROJECT / CONTEXT, directory / CONTEXT, ignore=shutil.ignore_patterns("__pycache__"))
    return directory / CONTEXT


def prepare(nodes: Iterable[str]) -> None:
    """The folder that is mounted, where the service may write. Before its first rollout."""
    for node in nodes:
        lab.connect(node).check_output(f"install --directory --mode 0755 --owner {USER} --group {USER} {POSTS}")


def posts(nodes: Iterable[str]) -> collections.Counter[str]:
    """How often each id was posted, at all replicas of these nodes together."""
    counted: collections.Counter[str] = collections.Counter()
    for node in nodes:
        lines = lab.connect(node).check_output(f"find {POSTS} -type f -exec cat {{}} +").splitlines()
        counted.update(line.split()[0] for line in lines)
    return counted
