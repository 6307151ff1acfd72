# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One description of a container for creating it, and for comparing what runs with what the catalogue says.

`container_spec` makes the description from a service, `observed_spec` makes the same one from what the engine shows,
`compare` lists the differences by name, `create_body` writes the description as a request to the engine.

What an image brings itself (environment, command, user, health check) is no difference: `observed_spec` keeps it
under `image_defaults`, and `compare` takes it for what the catalogue leaves out. Nor are release number, slot and name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.qianjiang.change import Change
from ansible.module_utils.qianjiang.release import configuration_hash
from ansible.module_utils.qianjiang.secret import HIDDEN

LABEL = "io.qianjiang."
# Prefix of the variables that tell a container which replica of which release it is
IDENTITY = "QJ_"
SLOTS = ("a", "b")
TMPFS_OPTIONS = "rw,nosuid,nodev,noexec"
_SIZES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_NANO = 1_000_000_000
# Engines from 25.0 probe each 5 s while a container starts, whatever its interval is, unless told otherwise
_START_INTERVAL = 1


def container_name(service: str, replica: int, release: int) -> str:
    """`webui.0.r7`."""
    return f"{service}.{replica}.r{release}"


def slot_port(service: Mapping[str, Any], replica: int, slot: str) -> int:
    """The host port of a slot: two for each replica, from the service's `slots_port` on."""
    return int(service["slots_port"]) + 2 * replica + SLOTS.index(slot)


def memory_bytes(text: str | int | None) -> int:
    """`256M` as a number; 0 is no limit."""
    if text is None:
        return 0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmg]?)(?:i?b)?", str(text).strip(), re.I)
    if not match:
        raise ValueError(f'limits.memory: expected a size such as 256M, got "{text}"')
    return int(float(match[1]) * _SIZES[match[2].lower()])


def container_spec(
    service: Mapping[str, Any],
    reference: str,
    digest: str,
    *,
    release: int,
    replica: int,
    slot: str,
    place: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The whole container for this release of a service, in this slot of this replica.

    `place` has the names of the container's node and datacenter. With the rest of its identity they are told to it as
    variables (IDENTITY), which are no part of its configuration.
    """
    told = dict(place or {}) | {
        "service": service["name"],
        "release": str(release),
        "digest": digest,
        "replica": str(replica),
        "slot": slot,
    }
    health, limits, hardening = service["health"], service["limits"], service["hardening"]
    port = service["port"]
    return {
        "name": container_name(service["name"], replica, release),
        "reference": f"{reference}@{digest}",
        "labels": {
            f"{LABEL}service": service["name"],
            f"{LABEL}replica": str(replica),
            f"{LABEL}release": str(release),
            f"{LABEL}slot": slot,
            f"{LABEL}digest": digest,
            f"{LABEL}configuration": configuration_hash(service),
            f"{LABEL}health_path": health["path"] or "",
        },
        "host_port": slot_port(service, replica, slot) if port else None,
        "image": digest,
        "identity": {f"{IDENTITY}{key.upper()}": value for key, value in told.items()},
        "env": {name: str(value) for name, value in service["env"].items()},
        "command": service["command"],
        "user": service["user"],
        "mounts": {
            mount["target"]: {"source": mount["source"], "read_only": bool(mount["read_only"])}
            for mount in service["mounts"]
        },
        "tmpfs": dict.fromkeys(service["tmpfs"], TMPFS_OPTIONS),
        "read_only": bool(hardening["read_only"]),
        "capabilities": _capabilities(hardening["capabilities"]),
        "no_new_privileges": bool(hardening["no_new_privileges"]),
        "limits": {
            "memory": memory_bytes(limits["memory"]) or None,
            "cpus": _billionths(limits["cpus"]),
            "pids": limits["pids"] or None,
        },
        "health": {
            "command": ["CMD", *health["command"]] if health["command"] else None,
            **{key: _billionths(health[key]) for key in ("interval", "timeout", "start_period")},
            "retries": health["retries"],
            "path": health["path"],
        },
        "log": {"driver": "json-file", "max_size": service["log"]["max_size"], "max_file": service["log"]["max_file"]},
        "stop_timeout": service["stop_timeout"],
        "ports": f"{service['slots_port']} to {port}/tcp" if port else None,
        "restart": "unless-stopped",
        "init": True,
    }


def observed_spec(inspect: Mapping[str, Any], image_inspect: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The same description of a container that exists, from what the engine shows of it and of its image."""
    config, host = inspect["Config"], inspect["HostConfig"]
    labels = config.get("Labels") or {}
    image_config = (image_inspect or {}).get("Config") or {}
    check = config.get("Healthcheck") or {}
    logs = host.get("LogConfig") or {}
    log_options = logs.get("Config") or {}
    restart = (host.get("RestartPolicy") or {}).get("Name") or "no"
    return {
        "name": inspect["Name"].lstrip("/"),
        "labels": labels,
        "image_defaults": {
            "env": _environment(image_config.get("Env")),
            "command": image_config.get("Cmd"),
            "user": image_config.get("User") or None,
            "health_command": _health_command((image_config.get("Healthcheck") or {}).get("Test")),
        },
        # "<repository>@<digest>": the same digest is the same image, whichever registry it came from
        "image": config["Image"].partition("@")[2] or config["Image"],
        "env": {
            name: value for name, value in _environment(config.get("Env")).items() if not name.startswith(IDENTITY)
        },
        "command": config.get("Cmd"),
        "user": config.get("User") or None,
        "mounts": {
            mount["Target"]: {"source": mount.get("Source", ""), "read_only": bool(mount.get("ReadOnly"))}
            for mount in host.get("Mounts") or []
        }
        | dict(_bind(text) for text in host.get("Binds") or []),
        "tmpfs": dict(host.get("Tmpfs") or {}),
        "read_only": bool(host.get("ReadonlyRootfs")),
        "capabilities": _capabilities(host.get("CapAdd") or [])
        if _capabilities(host.get("CapDrop") or []) == ["ALL"]
        else "the engine's defaults",
        "no_new_privileges": _no_new_privileges(host.get("SecurityOpt") or []),
        "limits": {
            "memory": host.get("Memory") or None,
            "cpus": _from_nano(host.get("NanoCpus")),
            "pids": host.get("PidsLimit") or None,
        },
        "health": {
            "command": _health_command(check.get("Test")),
            "interval": _from_nano(check.get("Interval")),
            "timeout": _from_nano(check.get("Timeout")),
            "retries": check.get("Retries") or None,
            "start_period": _from_nano(check.get("StartPeriod")),
            "path": labels.get(f"{LABEL}health_path") or None,
        },
        "log": {
            "driver": logs.get("Type"),
            "max_size": log_options.get("max-size"),
            "max_file": int(log_options["max-file"]) if "max-file" in log_options else None,
        },
        "stop_timeout": config.get("StopTimeout"),
        "ports": _ports(host.get("PortBindings") or {}, labels),
        # a candidate gets its restart policy once it is proven: "no" is no difference
        "restart": "unless-stopped" if restart == "no" else restart,
        "init": bool(host.get("Init")),
    }


def compare(spec: Mapping[str, Any], observed: Mapping[str, Any]) -> list[Change]:
    """What a new container would change, by name, sorted. The empty list: nothing."""
    before, after = _flat(observed), _flat(spec)
    defaults = observed["image_defaults"]
    for key in ("command", "user"):
        after[key] = after[key] if after[key] is not None else defaults[key]
    after["health.command"] = after["health.command"] or defaults["health_command"]
    if after["health.command"] is None and before["health.command"] is None:
        for key in ("health.interval", "health.timeout", "health.retries", "health.start_period"):
            before.pop(key), after.pop(key)
    for name, value in defaults["env"].items():
        after.setdefault(f"env.{name}", value)
    # The engine drops a limit its kernel cannot keep: a container of this very configuration lacks one for that reason
    key = f"{LABEL}configuration"
    if spec["labels"][key] == observed["labels"].get(key):
        for limit in ("limits.memory", "limits.cpus", "limits.pids"):
            before[limit] = before[limit] if before[limit] is not None else after[limit]
    return [
        {"name": name, "before": _shown(name, before.get(name)), "after": _shown(name, after.get(name))}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def create_body(spec: Mapping[str, Any], restart: str = "no") -> dict[str, Any]:
    """The description as the body of the engine's create request."""
    limits, health, log = spec["limits"], spec["health"], spec["log"]
    body: dict[str, Any] = {
        "Image": spec["reference"],
        "Env": [f"{name}={value}" for name, value in sorted((spec["env"] | spec["identity"]).items())],
        "Labels": dict(spec["labels"]),
        "StopTimeout": spec["stop_timeout"],
        # without Test the image's own check runs, at our pace
        "Healthcheck": {
            "Interval": _to_nano(health["interval"]),
            "Timeout": _to_nano(health["timeout"]),
            "Retries": health["retries"],
            "StartPeriod": _to_nano(health["start_period"]),
            "StartInterval": _to_nano(min(health["interval"], _START_INTERVAL)),
        },
        "HostConfig": {
            "Memory": limits["memory"] or 0,
            "MemorySwap": limits["memory"] or 0,
            "NanoCpus": _to_nano(limits["cpus"] or 0),
            "PidsLimit": limits["pids"] or 0,
            "ReadonlyRootfs": spec["read_only"],
            "CapDrop": ["ALL"],
            "CapAdd": list(spec["capabilities"]),
            "SecurityOpt": [f"no-new-privileges:{str(spec['no_new_privileges']).lower()}"],
            "Init": spec["init"],
            "Tmpfs": dict(spec["tmpfs"]),
            # not Binds: those make a missing source, owned by root
            "Mounts": [
                {"Type": "bind", "Source": mount["source"], "Target": target, "ReadOnly": mount["read_only"]}
                for target, mount in sorted(spec["mounts"].items())
            ],
            "LogConfig": {
                "Type": log["driver"],
                "Config": {"max-size": str(log["max_size"]), "max-file": str(log["max_file"])},
            },
            "RestartPolicy": {"Name": restart},
        },
    }
    if health["command"]:
        body["Healthcheck"]["Test"] = list(health["command"])
    if spec["command"] is not None:
        body["Cmd"] = list(spec["command"])
    if spec["user"] is not None:
        body["User"] = spec["user"]
    if spec["ports"]:
        port = spec["ports"].rpartition(" ")[2]
        body["ExposedPorts"] = {port: {}}
        body["HostConfig"]["PortBindings"] = {port: [{"HostPort": str(spec["host_port"])}]}
    return body


def moved_body(inspect: Mapping[str, Any], slot: str, host_port: int | None) -> dict[str, Any]:
    """A create request for what `inspect` shows, in another slot. Its host's name was the old one's id: left out."""
    config, host = dict(inspect["Config"]), dict(inspect["HostConfig"])
    for key in ("Hostname", "Domainname"):
        config.pop(key, None)
    config["Labels"] = {**(config.get("Labels") or {}), f"{LABEL}slot": slot}
    told = f"{IDENTITY}SLOT="
    config["Env"] = [f"{told}{slot}" if item.startswith(told) else item for item in config.get("Env") or []]
    host["RestartPolicy"] = {"Name": "no"}
    if host_port:
        host["PortBindings"] = {port: [{"HostPort": str(host_port)}] for port in host.get("PortBindings") or {}}
    return config | {"HostConfig": host}


def published_port(inspect: Mapping[str, Any]) -> int | None:
    """The host port of a container, also of one that is stopped; None where it publishes none."""
    bindings = (inspect["HostConfig"].get("PortBindings") or {}).values()
    return next((int(host["HostPort"]) for hosts in bindings for host in hosts or []), None)


def _flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The compared part of a description as {name: value}."""
    flat: dict[str, Any] = {
        key: spec[key]
        for key in (
            "image",
            "command",
            "user",
            "read_only",
            "capabilities",
            "no_new_privileges",
            "stop_timeout",
            "ports",
            "restart",
            "init",
        )
    }
    for group in ("env", "tmpfs", "limits", "health", "log"):
        flat |= {f"{group}.{key}": value for key, value in spec[group].items()}
    for target, mount in spec["mounts"].items():
        flat[f"mounts.{target}"] = mount["source"] + (" (read only)" if mount["read_only"] else "")
    return flat


def _shown(name: str, value: Any) -> Any:
    if name.startswith("env."):
        return None if value is None else HIDDEN
    if name == "health.command" and value:
        return value[1:] if value[0] == "CMD" else value[-1]
    return value


def _environment(items: Iterable[str] | None) -> dict[str, str]:
    pairs = (item.partition("=") for item in items or [])
    return {name: value for name, _, value in pairs}


def _capabilities(names: Iterable[str]) -> list[str]:
    return sorted(name.upper().removeprefix("CAP_") for name in names)


def _no_new_privileges(options: Iterable[str]) -> bool | None:
    for option in options:
        if option.startswith("no-new-privileges"):
            return not option.endswith("false")
    return None


def _health_command(test: list[str] | None) -> list[str] | None:
    return list(test) if test and test[0] != "NONE" else None


def _bind(text: str) -> tuple[str, dict[str, Any]]:
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    return target, {"source": source, "read_only": "ro" in options.split(",")}


def _ports(bindings: Mapping[str, Any], labels: Mapping[str, str]) -> str | None:
    """`18080 to 8080/tcp`: the first slot port of the service, so that replica and slot make no difference."""
    replica, slot = labels.get(f"{LABEL}replica", "0"), labels.get(f"{LABEL}slot", "a")
    offset = 2 * int(replica) + SLOTS.index(slot)
    pairs = [
        f"{int(host['HostPort'] or 0) - offset} to {port}"
        for port, hosts in sorted(bindings.items())
        for host in hosts or []
    ]
    return ", ".join(pairs) or None


def _to_nano(number: float) -> int:
    return round(number * _NANO)


def _billionths(number: float | None) -> float | None:
    """As exact as the engine keeps it; None is what it makes of 0."""
    return _from_nano(_to_nano(number)) if number else None


def _from_nano(count: int | None) -> float | None:
    return _short(count / _NANO) if count else None


def _short(number: float) -> float:
    return int(number) if number == int(number) else number
