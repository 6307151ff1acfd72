#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_configure
short_description: Configure a Docker Engine and prove that it runs with it
description:
  - Brings C(/etc/docker/daemon.json), the CA certificates of the registries in C(/etc/docker/certs.d) and the proxy of
    the service to the desired state, in one call.
  - Does no more than the change needs. A CA certificate needs nothing, some settings are taken over on a reload,
    the others need a restart. With C(live-restore) the containers run on through a restart. A running engine without
    it takes it over on a reload before, unless it is in a swarm, which cannot have it. An engine that answers, but does
    not tell within O(timeout) whether it has it, is not restarted, and the module fails.
  - A new C(daemon.json) is checked with C(dockerd --validate) before anything is touched, where the engine has it (23.0
    and later). An engine that does not answer with the new files gets the old ones back, and the module fails with
    the engine's own error.
  - A C(data-root) that would leave containers, images or volumes behind is refused before anything is touched.
  - Until the engine has answered, the old files stay beside the new ones as C(*.previous). A run that is killed in
    between is finished by the next one.
options:
  daemon:
    description:
      - The whole content of C(daemon.json). Entries that are null are left out. Keys found in the file and not named
        here are removed.
      - C(insecure-registries) is refused. So is another C(data-root), C(storage-driver), C(userns-remap) or
        C(features.containerd-snapshotter) where the engine would not see its containers, images and volumes any more.
    type: dict
    required: true
  registry_cas:
    description:
      - CA certificates (the PEM text) by registry (C(host) or C(host:port)). An empty text removes the certificate.
      - Registries that are not named keep theirs.
    type: dict
    default: {}
  proxy:
    description:
      - The proxy through which the engine reaches registries, written to C(docker.service.d/http-proxy.conf).
      - Without one that drop-in is removed. Somebody else's is left alone, and refused where a proxy is named.
    type: dict
    default: {}
    suboptions:
      http:
        description: URL of the proxy for HTTP. It is never shown.
        type: str
      https:
        description: URL of the proxy for HTTPS. It is never shown.
        type: str
      no_proxy:
        description: Hosts reached without the proxy, separated by commas.
        type: str
  service_managed:
    description:
      - Enable, start, reload and restart C(docker.service), and write its drop-in. V(false) where systemd is not PID 1.
    type: bool
    default: true
  timeout:
    description: Seconds to wait for the engine to answer.
    type: int
    default: 120
attributes:
  check_mode:
    description: The plan and the validation are the same as without check mode; nothing is changed.
    support: full
  diff_mode:
    description: Each setting by its name, certificates by their fingerprint, URLs without their credentials.
    support: full
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Configure the engine
  engine_configure:
    daemon:
      live-restore: true
      log-driver: json-file
      log-opts: {max-size: 10m, max-file: "3"}
    registry_cas:
      registry.example.com:5000: "{{ platform_ca_certificate }}"
"""

RETURN = r"""
changes:
  description: What differed, by name.
  returned: always
  type: list
  elements: dict
  sample: [{name: daemon.json icc, before: null, after: false}]
action:
  description: What the service needed (V(start), V(restart), V(reload)), or nothing.
  returned: always
  type: str
rolled_back:
  description: The engine did not come up with the new files and has the old ones back.
  returned: on failure of the engine
  type: bool
"""

import http.client
import json
import re
import socket
import time
import urllib.parse
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang import durable, systemd
from ansible.module_utils.qianjiang import engine_settings as settings
from ansible.module_utils.qianjiang.change import difference

ROOT = Path("/")
DAEMON = Path("etc/docker/daemon.json")
CERTIFICATES = Path("etc/docker/certs.d")
DROP_IN = Path("etc/systemd/system/docker.service.d/http-proxy.conf")
SOCKET = Path("run/docker.sock")
UNIT = "docker.service"
DATA = "/var/lib/docker"
# What an engine that was used has in its data-root, as patterns
USED = {"containers": "containers/*", "images": "image/*/imagedb/content/*/*", "volumes": "volumes/*/_data"}
VALIDATES_SINCE = 23


class EngineError(Exception):
    """The engine refuses its settings."""


class RolledBackError(EngineError):
    """The engine refuses its settings and has the old ones back."""


class Connection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(ROOT / SOCKET))


def ask(path: str, timeout: float = 5) -> bytes | None:
    """The engine's answer, or nothing."""
    connection = Connection("localhost", timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == 200 else None


def answers() -> bool:
    return ask("/_ping") == b"OK"


def info(timeout: float = 5) -> dict[str, object]:
    """What the engine says about itself; nothing where it does not answer."""
    body = ask("/info", timeout)
    return dict(json.loads(body)) if body else {}


def previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def read(desired: settings.Desired) -> settings.Current:
    """What the host has."""
    text = durable.read_text(ROOT / DAEMON)
    daemon: dict[str, object] | None = None
    try:
        parsed = json.loads(text) if text and text.strip() else {}
        daemon = parsed if isinstance(parsed, dict) else None
    except ValueError:
        daemon = None
    certificates = {name: durable.read_text(ROOT / CERTIFICATES / name / "ca.crt") for name in desired.registry_cas}
    if not desired.service_managed:
        return settings.Current(daemon=daemon, registry_cas=certificates)
    unit = systemd.show(UNIT, "ActiveState", "UnitFileState", "MainPID")
    executable = ROOT / "proc" / unit.get("MainPID", "0") / "exe"
    return settings.Current(
        daemon=daemon,
        registry_cas=certificates,
        drop_in=durable.read_text(ROOT / DROP_IN),
        running=unit.get("ActiveState") in {"active", "reloading"},
        enabled=unit.get("UnitFileState") == "enabled",
        replaced=executable.is_symlink() and str(executable.readlink()).endswith(" (deleted)"),
        unproven=previous(ROOT / DAEMON).exists(),
    )


def validate(daemon: dict[str, object]) -> None:
    """Let the installed dockerd read the new daemon.json, where it can and where there is one yet."""
    try:
        version = systemd.run(["dockerd", "--version"]).output
    except FileNotFoundError:
        return
    match = re.search(r"version (\d+)\.", version)
    if match is None or int(match[1]) < VALIDATES_SINCE:
        return
    file = ROOT / "run" / f"engine_configure.{time.monotonic_ns()}.json"
    try:
        durable.replace(file, settings.daemon_text(daemon), 0o600)
        answer = systemd.run(["dockerd", "--validate", f"--config-file={file}"])
    finally:
        file.unlink(missing_ok=True)
    if not answer.succeeded:
        raise EngineError(
            f"dockerd refuses the new daemon.json, nothing was changed: {answer.output.replace(str(file), DAEMON.name)}"
        )


def left_behind(desired: settings.Desired, current: settings.Current, engine: dict[str, object]) -> str | None:
    """What is wrong with settings with which the engine would not see its containers, images and volumes any more."""
    place = str(engine.get("DockerRootDir") or (current.daemon or {}).get("data-root", DATA))
    # With userns-remap it is a folder of data-root, named by user and group
    root = re.sub(r"/[0-9]+\.[0-9]+$", "", place)
    wanted = str(desired.daemon.get("data-root", DATA))
    held = {name: len(list((ROOT / place.lstrip("/")).glob(pattern))) for name, pattern in USED.items()}
    if not any(held.values()):
        return None
    counts = ", ".join(f"{name} ({count})" for name, count in held.items() if count)
    if (ROOT / root.lstrip("/")).resolve() != (ROOT / wanted.lstrip("/")).resolve():
        return (
            f"daemon.data-root: {wanted} would leave behind what the engine has in {root}: {counts}."
            f" Set it to {root}, or stop the engine and move {root} to {wanted} before"
        )
    others = settings.other_store(desired, current, engine)
    if not others:
        return None
    name, (before, after) = next(iter(others.items()))
    shown = "nothing" if after is None else after
    return (
        f"daemon.{name}: {shown} would leave behind what the engine has in {place}: {counts}."
        f" Set it to {before or 'null'}, or remove those before"
    )


def put(path: Path, text: str | None, mode: int = 0o644) -> None:
    if text is None:
        path.unlink(missing_ok=True)
    else:
        durable.replace(path, text, mode)


def keep(path: Path) -> None:
    """Keep the file as it was when the engine last answered; an empty one stands for none."""
    if not previous(path).exists():
        durable.replace(previous(path), durable.read_text(path) or "", 0o600)


def bring_back(path: Path, mode: int) -> None:
    if previous(path).exists():
        put(path, durable.read_text(previous(path)) or None, mode)
        previous(path).unlink()


def move(action: str, timeout: int) -> None:
    """Start, restart or reload the service, and wait for the engine's own word that it did."""
    begin = time.time()
    deadline = time.monotonic() + timeout
    if action != "reload":
        systemd.run(["systemctl", "daemon-reload"])
        # Attempts that failed count against the unit's start limit
        systemd.run(["systemctl", "reset-failed", UNIT, "docker.socket"])
    answer = systemd.run(["systemctl", action, UNIT], timeout)
    if action == "reload":
        # systemd has only sent a signal. The engine's event tells that it has taken the file over.
        filters = urllib.parse.quote(json.dumps({"type": ["daemon"], "event": ["reload"]}))
        deadline = min(deadline, time.monotonic() + 10)

    def proven() -> bool:
        if action == "reload":
            return bool(ask(f"/events?since={begin:.3f}&until={time.time():.3f}&filters={filters}"))
        return answers()

    if not answer.succeeded or not systemd.wait_until(proven, deadline):
        said = settings.complaints(systemd.journal(UNIT, begin))
        raise EngineError("; ".join(said) or answer.output or f"no answer within {timeout} s")


def prove(action: str, timeout: int) -> None:
    """Move the service; where the engine does not answer with the new files, give it the old ones back."""
    files = {ROOT / DAEMON: 0o644, ROOT / DROP_IN: 0o600}
    try:
        move(action, timeout)
    except EngineError as error:
        for path, mode in files.items():
            bring_back(path, mode)
        try:
            move(action if action == "reload" else "restart", timeout)
        except EngineError as second:
            raise RolledBackError(
                f"the engine refuses its new settings: {error}. The old ones are back and refused too: {second}"
            ) from error
        raise RolledBackError(
            f"the engine refuses its new settings: {error}. It runs again with the old ones"
        ) from error
    for path in files:
        previous(path).unlink(missing_ok=True)


def keep_containers(current: settings.Current, timeout: int) -> None:
    """Turn live-restore on in the running engine: with the old file it is also what a refused new one goes back to."""
    text = durable.read_text(ROOT / DAEMON)
    put(ROOT / DAEMON, settings.daemon_text({**(current.daemon or {}), "live-restore": True}))
    try:
        move("reload", timeout)
    except EngineError:
        put(ROOT / DAEMON, text)


def apply(desired: settings.Desired, changes: list[settings.Change], action: str | None, timeout: int) -> None:
    """Write the files, then move the service. The old files are kept until the engine has answered."""
    names = {change["name"] for change in changes}
    for registry, certificate in desired.registry_cas.items():
        if f"certs.d/{registry}/ca.crt" in names:
            put(ROOT / CERTIFICATES / registry / "ca.crt", settings.certificate_text(certificate))
    if action:
        keep(ROOT / DAEMON)
    if "http-proxy.conf" in names:
        keep(ROOT / DROP_IN)
        put(ROOT / DROP_IN, settings.drop_in_text(desired.proxy), 0o600)
    if any(name.startswith("daemon.json") for name in names):
        put(ROOT / DAEMON, settings.daemon_text(desired.daemon))
    if "docker.service enabled" in names:
        answer = systemd.run(["systemctl", "enable", UNIT])
        if not answer.succeeded:
            raise EngineError(f"cannot enable {UNIT}: {answer.output}")
    if action:
        prove(action, timeout)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "daemon": {"type": "dict", "required": True},
            "registry_cas": {"type": "dict", "default": {}},
            "proxy": {
                "type": "dict",
                "default": {},
                "options": {
                    "http": {"type": "str", "no_log": True},
                    "https": {"type": "str", "no_log": True},
                    "no_proxy": {"type": "str"},
                },
            },
            "service_managed": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    desired = settings.Desired(
        daemon=settings.without_nulls(parameters["daemon"]),
        registry_cas=parameters["registry_cas"],
        proxy=parameters["proxy"],
        service_managed=parameters["service_managed"],
    )
    wrong = settings.errors(desired)
    if wrong:
        module.fail_json(msg="; ".join(wrong))
    current = read(desired)
    changes = settings.plan(desired, current)
    action = settings.action(changes, desired, current)
    engine = info() if changes else {}
    if changes and current.running and not engine:
        # It counts its containers for that: on a loaded host it may take longer
        engine = info(parameters["timeout"])
    if action == "restart" and not engine and answers():
        module.fail_json(
            msg=f"{UNIT}: the engine does not answer /info within {parameters['timeout']} s, so whether a restart ends"
            " its containers is unknown; nothing was changed. Run this again when the host has less to do, or with a"
            " longer timeout. If it never answers, stop docker.service first: that ends the containers",
            changes=changes,
        )
    lost = [settings.overwritten(desired, current), left_behind(desired, current, engine)] if changes else []
    if any(lost):
        module.fail_json(msg="; ".join(filter(None, lost)), changes=changes)
    try:
        if current.daemon != desired.daemon:
            validate(desired.daemon)
        if not module.check_mode:
            if action == "restart" and settings.ends_containers(desired, engine):
                keep_containers(current, parameters["timeout"])
            apply(desired, changes, action, parameters["timeout"])
    except RolledBackError as error:
        module.fail_json(msg=f"{UNIT}: {error}", changes=changes, action=action, rolled_back=True)
    except EngineError as error:
        module.fail_json(msg=f"{UNIT}: {error}", changes=changes, action=action)
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        action=action or "",
        diff=difference(changes),
    )


if __name__ == "__main__":
    main()
