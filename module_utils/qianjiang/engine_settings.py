# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Docker Engine is configured with, and what has to happen when that changes. Pure: touches nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.qianjiang.system_file import MARK

Change = dict[str, Any]

# dockerd takes these over on SIGHUP (moby, daemon/reload.go) …
RELOADED = frozenset(
    {
        "debug",
        "features",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "shutdown-timeout",
    }
)
# … but keeps the old value of most of them when they vanish from the file; only these go back to their default
RESET_WHEN_REMOVED = frozenset(
    {"features", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"}
)

REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", re.IGNORECASE)
CREDENTIALS = re.compile(r"//[^/@\s]+@")
COMPLAINT = re.compile(r"fail|unable|error|invalid|conflict|unknown", re.IGNORECASE)
LOG_LINE = re.compile(r'time="?[^ ]+ level=(?P<level>\w+) msg="(?P<text>(?:[^"\\]|\\.)*)"')
PROXY_VARIABLES = {"http": "HTTP_PROXY", "https": "HTTPS_PROXY", "no_proxy": "NO_PROXY"}


@dataclass(frozen=True)
class Desired:
    """What the engine shall be configured with."""

    daemon: dict[str, Any]
    registry_cas: dict[str, str | None] = field(default_factory=dict)
    proxy: dict[str, str | None] = field(default_factory=dict)
    service_managed: bool = True


@dataclass(frozen=True)
class Current:
    """What the host has. A file that is not there is None; a daemon.json that is not JSON has `daemon` None."""

    daemon: dict[str, Any] | None = field(default_factory=dict)
    registry_cas: dict[str, str | None] = field(default_factory=dict)
    drop_in: str | None = None
    running: bool = True
    enabled: bool = True
    replaced: bool = False  # the running dockerd's file was replaced by an upgrade
    unproven: bool = False  # an earlier run stopped before the engine had come up with its settings


def without_nulls(value: Any) -> Any:
    """The mapping without its null entries, at any depth: null takes a default away."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    return value


def errors(desired: Desired) -> list[str]:
    """What is wrong with the desired settings, each with its path."""
    found = []
    if desired.daemon.get("insecure-registries"):
        found.append(
            "daemon.insecure-registries: not allowed; give the registry's CA certificate in registry_cas instead"
        )
    for registry, certificate in desired.registry_cas.items():
        path = f"registry_cas.{registry}"
        if not REGISTRY.fullmatch(registry):
            found.append(f"{path}: expected host or host:port")
        if certificate and "PRIVATE KEY" in certificate:
            found.append(f"{path}: holds a private key; give the CA's certificate only")
        elif certificate and "-----BEGIN CERTIFICATE-----" not in certificate:
            found.append(f"{path}: expected the text of a PEM certificate")
    found += [
        f"proxy.{name}: expected http://host:port or https://host:port"
        for name in ("http", "https")
        if desired.proxy.get(name) and not re.match(r"https?://[^\s/]", desired.proxy[name] or "")
    ]
    return found


def daemon_text(daemon: dict[str, Any]) -> str:
    """daemon.json as it is written: sorted, so that a difference is a difference."""
    return json.dumps(daemon, indent=2, sort_keys=True) + "\n"


def drop_in_text(proxy: dict[str, str | None]) -> str | None:
    """The service's drop-in with the proxy's variables, or nothing where there is no proxy."""
    lines = []
    for name, variable in PROXY_VARIABLES.items():
        value = proxy.get(name)
        if value:
            # systemd expands % and reads \ and " inside quotes
            escaped = value.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'Environment="{variable}={escaped}"')
    if not lines:
        return None
    return "\n".join([f"{MARK} docker_engine", "[Service]", *lines, ""])


def foreign(drop_in: str | None) -> bool:
    """Is there a drop-in that somebody else wrote?"""
    return drop_in is not None and not drop_in.startswith(MARK)


def certificate_text(certificate: str | None) -> str | None:
    """ca.crt as it is written, or nothing where there shall be none."""
    return certificate.strip() + "\n" if certificate else None


def fingerprint(text: str | None) -> str | None:
    """A short name for a file's content in a diff."""
    return text and "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def hide_credentials(text: str | None) -> str | None:
    """The text with the user and password of its URLs taken out."""
    return text and CREDENTIALS.sub("//********@", text)


def without_credentials(value: Any) -> Any:
    """A setting as a difference may show it: a proxy or a mirror may have a password in its URL."""
    if isinstance(value, Mapping):
        return {key: without_credentials(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_credentials(inner) for inner in value]
    return hide_credentials(value) if isinstance(value, str) else value


def plan(desired: Desired, current: Current) -> list[Change]:
    """What differs, in the order in which it is put right."""
    changes: list[Change] = []

    def compare(name: str, before: Any, after: Any) -> None:
        if before != after:
            changes.append({"name": name, "before": without_credentials(before), "after": without_credentials(after)})

    for registry in sorted(desired.registry_cas):
        after = certificate_text(desired.registry_cas[registry])
        compare(f"certs.d/{registry}/ca.crt", fingerprint(current.registry_cas.get(registry)), fingerprint(after))
    if current.daemon is None:
        compare("daemon.json", "not JSON", "replaced")
    before = current.daemon or {}
    for key in sorted({*before, *desired.daemon}):
        compare(f"daemon.json {key}", before.get(key), desired.daemon.get(key))
    if desired.service_managed:
        drop_in = drop_in_text(desired.proxy)
        if current.drop_in != drop_in and not (drop_in is None and foreign(current.drop_in)):
            compare("http-proxy.conf", current.drop_in, drop_in or "")
        compare("docker.service enabled", current.enabled, True)
        compare("docker.service running", current.running, True)
        compare("docker.service runs the installed version", not (current.running and current.replaced), True)
        compare("docker.service proven with its settings", not current.unproven, True)
    return changes


def keeps_images_in_containerd(engine: Mapping[str, Any]) -> bool:
    """By the engine's /info."""
    return any("io.containerd.snapshotter" in value for _, value in engine.get("DriverStatus") or [])


def other_store(desired: Desired, current: Current, engine: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Setting → before and after, of those that say in which part of data-root the engine has what it has.

    `engine` is its /info, empty where it does not answer. Without a storage driver it takes the one that has data, but
    never vfs.
    """
    before, after = _store(current.daemon or {}), _store(desired.daemon)
    if after["storage-driver"]:
        before["storage-driver"] = engine.get("Driver") or before["storage-driver"] or after["storage-driver"]
    elif before["storage-driver"] != "vfs":
        before["storage-driver"] = None
    if engine and after["features.containerd-snapshotter"] is not None:
        before["features.containerd-snapshotter"] = keeps_images_in_containerd(engine)
    return {name: (before[name], after[name]) for name in before if (before[name] or None) != (after[name] or None)}


def _store(daemon: Mapping[str, Any]) -> dict[str, Any]:
    features = daemon.get("features")
    return {
        "storage-driver": daemon.get("storage-driver"),
        "userns-remap": daemon.get("userns-remap"),
        "features.containerd-snapshotter": features.get("containerd-snapshotter")
        if isinstance(features, dict)
        else None,
    }


def overwritten(desired: Desired, current: Current) -> str | None:
    """What is wrong with a proxy for which somebody else's drop-in would be lost."""
    if drop_in_text(desired.proxy) is None or not foreign(current.drop_in):
        return None
    return (
        f"proxy: docker.service.d/http-proxy.conf is not ours, as it does not begin with {MARK};"
        " remove it, or keep it and name no proxy"
    )


def action(changes: list[Change], desired: Desired, current: Current) -> str | None:
    """What the service needs for these changes: `start`, `restart`, `reload`, or nothing."""
    settings = [change for change in changes if change["name"].startswith("daemon.json")]
    others = {change["name"] for change in changes if change["name"].startswith(("http-proxy", "docker.service"))}
    if not desired.service_managed:
        return None
    if not current.running:
        return "start"
    if others - {"docker.service enabled"}:
        return "restart"
    if not settings:
        return None
    return "reload" if all(reloads(change) for change in settings) else "restart"


def reloads(change: Change) -> bool:
    """Does SIGHUP take this change of daemon.json over?"""
    key = change["name"].removeprefix("daemon.json ")
    return key in RELOADED and (change["after"] is not None or key in RESET_WHEN_REMOVED)


def ends_containers(desired: Desired, engine: Mapping[str, Any]) -> bool:
    """Would a restart end the containers, though live-restore is wanted? A swarm's engine does not start with it."""
    swarm = engine.get("Swarm", {}).get("LocalNodeState", "inactive") != "inactive"
    return bool(desired.daemon.get("live-restore")) and engine.get("LiveRestoreEnabled") is False and not swarm


def complaints(log: list[str]) -> list[str]:
    """The last things dockerd complained about, without its log's dressing. What ends it is printed plainly."""
    found = []
    for line in log:
        match = LOG_LINE.match(line)
        if match and match["level"] in {"error", "fatal"}:
            found.append(match["text"].replace('\\"', '"'))
        elif not match and COMPLAINT.search(line):
            found.append(line)
    return list(dict.fromkeys(found))[-3:]
