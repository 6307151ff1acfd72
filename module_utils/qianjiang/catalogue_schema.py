# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of the catalogue: KEYS, one row per key. docs/reference/catalogue.md is written from it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from ansible.module_utils.qianjiang.value_kinds import (
    Flag,
    Items,
    Kind,
    Number,
    Path,
    Report,
    Size,
    Text,
    UrlPath,
    Variables,
    near,
    one_of,
)


class Wheelhouse(TypedDict):
    requirements: str
    python: str


class Build(TypedDict):
    context: str
    dockerfile: str
    target: str | None
    args: dict[str, str]
    bases: dict[str, str]
    network: str
    wheelhouse: Wheelhouse | None


class Placement(TypedDict):
    datacenters: list[str]


class Gateway(TypedDict):
    port: int


class Mount(TypedDict):
    source: str
    target: str
    read_only: bool


class Limits(TypedDict):
    memory: str
    cpus: int | float
    pids: int


class Log(TypedDict):
    max_size: str
    max_file: int


class Hardening(TypedDict):
    read_only: bool
    capabilities: list[str]
    no_new_privileges: bool
    reason: str | None


class Health(TypedDict):
    path: str
    ready_path: str
    command: list[str] | None
    interval: int | float
    timeout: int | float
    retries: int
    start_period: int | float


class Update(TypedDict):
    max_parallel: int
    min_healthy_time: int | float
    healthy_deadline: int | float
    progress_deadline: int | float
    canary: int
    auto_revert: bool
    bake_time: int | float
    max_errors: int | float
    max_latency: int | float
    drain_timeout: int | float


class Service(TypedDict):
    """An entry of the catalogue, every key filled in. Durations are numbers of seconds."""

    name: str
    repository: str
    build: Build | None
    image: str | None
    placement: Placement
    replicas: int
    port: int
    slots_port: int
    gateway: Gateway | None
    env: dict[str, str]
    command: list[str] | None
    user: str | None
    mounts: list[Mount]
    tmpfs: list[str]
    limits: Limits
    log: Log
    hardening: Hardening
    health: Health
    stop_timeout: int
    update: Update
    keep_releases: int
    depends_on: list[str]


@dataclass(frozen=True)
class Section(Kind):  # type: ignore[misc]
    """A mapping whose keys are the rows of KEYS below `schema`."""

    type: str = "mapping"
    expected: str = "a mapping"
    schema: str = ""

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, Mapping):
            report.unfit(path, self.expected, value)
            return value
        known = {key.path.removeprefix(self.schema): key for key in KEYS if key.parent == self.schema}
        for name in value:
            if name not in known:
                hint = near(name, known) or f"allowed: {', '.join(sorted(known))}"
                report.say(f"{path}.{name}", f"unknown key; {hint}")
        return {name: key.read(value.get(name, REQUIRED), f"{path}.{name}", report) for name, key in known.items()}


@dataclass(frozen=True)
class Derived:
    """A default that depends on the rest; `words` say how, RULES and `normalise` fill it in."""

    words: str


REQUIRED = Derived("required")


@dataclass(frozen=True)
class Key:
    """A row of the schema. A default of None is written `null` and may be: it has the meaning that `text` gives it."""

    path: str
    kind: Kind
    default: Any
    text: str

    @property
    def parent(self) -> str:
        head, dot, _ = self.path.rpartition(".")
        return head + dot

    def read(self, value: Any, path: str, report: Report) -> Any:
        if value is REQUIRED:
            if self.default is REQUIRED:
                report.say(path, f"missing; expected {self.kind.allowed}")
                return None
            if isinstance(self.kind, Section) and self.default is not None:
                return self.kind.read({}, path, report)
            return self.default if isinstance(self.default, Derived) else copy.deepcopy(self.default)
        if value is None:
            if self.default is not None:
                hint = "" if self.default is REQUIRED else "remove the key for the default"
                report.unfit(path, self.kind.expected, value, hint)
            return None
        return self.kind.read(value, path, report)


NAME = r"(?=.{1,40}$)[a-z][a-z0-9]*(-[a-z0-9]+)*"
# 40: `<service>.<replica>.r<release>` is the container's name and host name, which ends at 63
NAME_RULE = "a service name (lower-case letters, digits and single dashes, beginning with a letter, at most 40 long)"
# https://github.com/opencontainers/distribution-spec: a repository's name
REPOSITORY = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
IMAGE = rf"({REPOSITORY})(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}|@sha256:[0-9a-f]{{64}})"
CAPABILITIES = (
    "AUDIT_(CONTROL|READ|WRITE)|BLOCK_SUSPEND|BPF|CHECKPOINT_RESTORE|CHOWN|DAC_(OVERRIDE|READ_SEARCH)|FOWNER|FSETID|"
    "IPC_(LOCK|OWNER)|KILL|LEASE|LINUX_IMMUTABLE|MAC_(ADMIN|OVERRIDE)|MKNOD|NET_(ADMIN|BIND_SERVICE|BROADCAST|RAW)|"
    "PERFMON|SETFCAP|SETGID|SETPCAP|SETUID|"
    "SYS_(ADMIN|BOOT|CHROOT|MODULE|NICE|PACCT|PTRACE|RAWIO|RESOURCE|TIME|TTY_CONFIG)|SYSLOG|WAKE_ALARM"
)
# mounted, these hand the host over to the container
HOST_CONTROL = r"/(boot|dev|etc|proc|root|sys|usr|var|var/lib/docker|(var/)?run(/docker\.sock)?)?"


def _dashed(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def seconds(minimum: float = 0) -> Number:
    return Number(expected="seconds as a number", noun="seconds", unit="seconds", minimum=minimum)


def whole(minimum: int = 0) -> Number:
    return Number("integer", "a whole number", noun="a whole number", minimum=minimum)


def section(path: str) -> Section:
    return Section(schema=f"{path}.")


def strings(item: Kind, least: int = 0, unique: bool = True) -> Items:
    return Items("list of strings", item=item, least=least, unique=unique)


SHARE = Number("number", "a share from 0 to 1", noun="a share", unit="of 1", maximum=1)
FACTOR = Number("number", "a factor from 1", noun="a factor", minimum=1)
STRING = Text()
SERVICE_NAME = Text(expected=NAME_RULE, pattern=NAME, suggest=_dashed)
PORT_MAXIMUM = 65535
PORT = Number("integer", "a port as a whole number", noun="a port", minimum=1, maximum=PORT_MAXIMUM)
WHOLE_SECONDS = Number("integer", "seconds as a whole number", unit="seconds", noun="seconds")
CPUS = Number(unit="CPUs", minimum=0.01)
MEMORY = Size(unit="K, M, G (of 1024)", minimum="6M")
LOG_SIZE = Size(expected='a size such as "10m" (k, m or g)', unit="k, m, g (of 1000)", units="kmg")
COMMAND = strings(STRING, least=1, unique=False)
IMAGE_RULE = "<repository>:<tag> or <repository>@sha256:<64 hex digits>"
USER = Text(
    expected="a user as a string",
    rule="user or user:group, each a name or a number",
    pattern=r"[a-z0-9_][a-z0-9_-]*(:[a-z0-9_][a-z0-9_-]*)?",
    quoting="quote it (YAML reads 1000:50 without quotes as a number)",
)
REPOSITORY_NAME = Text(
    expected="a repository as a string",
    pattern=REPOSITORY,
    rule="a repository (lower-case letters and digits, with single . _ - / between)",
    suggest=str.lower,
)
CAPABILITY = Text(
    expected="a Linux capability",
    pattern=CAPABILITIES,
    suggest=lambda word: word.upper().removeprefix("CAP_"),
)
VARIABLES = Variables()
FLAG = Flag()
PATH = Path()
URL_PATH = UrlPath()
NETWORK = one_of("none", "default", "host")
DATACENTERS = strings(STRING, least=1)
MOUNTS = Items("list of mappings", item=section("mounts[]"))
TMPFS = ["/tmp"]  # noqa: S108 - inside the container, in memory

KEYS: tuple[Key, ...] = (
    Key("name", STRING, Derived("the entry's key"), "Name of the service; there is no need to write it."),
    Key("repository", REPOSITORY_NAME, Derived("that of `image`, else the name"), "Repository in every registry."),
    Key("build", section("build"), None, "Built from a Dockerfile. Exactly one of `build` and `image`."),
    Key("build.context", STRING, Derived("`services/<name>`"), "Folder of the build context, from the project's root."),
    Key("build.dockerfile", STRING, "Dockerfile", "Dockerfile, from the context."),
    Key("build.target", STRING, None, "Stage to build; `null`: the last."),
    Key("build.args", VARIABLES, {}, "Build arguments. No secrets: they stay in the image."),
    Key("build.bases", VARIABLES, {}, "Build arguments that are images at the origin; passed on by digest."),
    Key("build.network", NETWORK, "none", "Network of the build steps."),
    Key("build.wheelhouse", section("build.wheelhouse"), None, "Python wheels fetched before the build."),
    Key("build.wheelhouse.requirements", STRING, "requirements.lock", "Locked requirements, from the context."),
    Key("build.wheelhouse.python", STRING, "3.11", "Python that the wheels are for, as `3.11` or `3.11.2`."),
    Key(
        "image", STRING, None, f"An image at the origin, without a registry: `{IMAGE_RULE.replace(' or ', '` or `')}`."
    ),
    Key("placement", section("placement"), {}, "Where the service runs: on every node of its datacenters."),
    Key(
        "placement.datacenters", DATACENTERS, Derived("all that have nodes"), "Datacenters, each with a node at least."
    ),
    Key("replicas", whole(1), 1, "Containers on each node."),
    Key("port", PORT, REQUIRED, "Port that the container listens on."),
    Key("slots_port", PORT, REQUIRED, "First of the `2 * replicas` host ports of this service on each of its nodes."),
    Key("gateway", section("gateway"), None, "Forwarded by the gateway of each datacenter; `null`: not forwarded."),
    Key("gateway.port", PORT, REQUIRED, "Port of the gateway; one service each."),
    Key("env", VARIABLES, {}, "Environment variables. Every value is a string: quote numbers and booleans."),
    Key("command", COMMAND, None, "Command and arguments; `null`: the image's."),
    Key("user", USER, None, "Who runs it; `null`: the image's. `root` needs a `hardening.reason`."),
    Key("mounts", MOUNTS, [], "Folders and files of the node."),
    Key("mounts[].source", PATH, REQUIRED, "Path on the node; it has to be there."),
    Key("mounts[].target", PATH, REQUIRED, "Path in the container."),
    Key("mounts[].read_only", FLAG, True, "Whether the container may only read."),
    Key(
        "tmpfs",
        strings(PATH),
        TMPFS,
        "Writable paths in memory, lost with the container; nothing there can be executed.",
    ),
    Key("limits", section("limits"), {}, "What a container may take."),
    Key("limits.memory", MEMORY, "256M", "Memory; at least `6M`."),
    Key("limits.cpus", CPUS, 0.5, "CPU time."),
    Key("limits.pids", whole(1), 128, "Processes and threads."),
    Key("log", section("log"), {}, "What is kept of a container's output."),
    Key("log.max_size", LOG_SIZE, "10m", "Size of a file."),
    Key("log.max_file", whole(1), 3, "Number of files."),
    Key("hardening", section("hardening"), {}, "What the container is denied."),
    Key("hardening.read_only", FLAG, True, "The root file system is read-only."),
    Key("hardening.capabilities", strings(CAPABILITY), [], "Capabilities to keep; all others are dropped."),
    Key("hardening.no_new_privileges", FLAG, True, "No process gains privileges (setuid programs)."),
    Key("hardening.reason", Text(expected="a reason in words"), None, "Why it is weakened (see the rules below)."),
    Key("health", section("health"), {}, "How health is judged."),
    Key("health.path", URL_PATH, "/healthz", "Answers 200 while the service lives."),
    Key("health.ready_path", URL_PATH, "/readyz", "Answers 200 while the gateway may send requests."),
    Key("health.command", COMMAND, None, "Health check inside the container; `null`: the image's `HEALTHCHECK`."),
    Key("health.interval", seconds(0.1), 2, "Time between two checks."),
    Key("health.timeout", seconds(0.1), 2, "Time one check may take."),
    Key("health.retries", whole(1), 3, "Failed checks in a row that mean unhealthy."),
    Key("health.start_period", seconds(0.1), 10, "Time to start, in which failed checks do not count."),
    Key("stop_timeout", WHOLE_SECONDS, 30, "Time from SIGTERM to SIGKILL."),
    Key("update", section("update"), {}, "How a rollout goes."),
    Key("update.max_parallel", whole(1), 1, "Nodes of a datacenter that may be away from the old release at a time."),
    Key("update.min_healthy_time", seconds(), 10, "Unbroken health that proves a node."),
    Key("update.healthy_deadline", seconds(1), 300, "Time a node has to become healthy."),
    Key(
        "update.progress_deadline",
        seconds(1),
        600,
        "Time without progress that fails a node: its pull may take so long.",
    ),
    Key("update.canary", whole(), 1, "Nodes that go first; `0`: none."),
    Key("update.auto_revert", FLAG, True, "A failed rollout goes back to the release before."),
    Key("update.bake_time", seconds(), 0, "Time to watch the canary datacenter before the others."),
    Key(
        "update.max_errors", SHARE, 0.01, "Share of 5xx answers that the baking release may have above the one before."
    ),
    Key("update.max_latency", FACTOR, 2, "How many times as long as the one before it may take to answer."),
    Key("update.drain_timeout", seconds(), 30, "Time for open requests to end before they are cut."),
    Key("keep_releases", whole(), 2, "Stopped releases kept on each node for rollback."),
    Key("depends_on", strings(STRING), [], "Services that are rolled out before this one."),
)
ENTRY = Section()


def reference_table() -> str:
    """The schema as the table of docs/reference/catalogue.md."""
    obvious = {Text.expected, Flag.expected, Items.expected, Section.expected}
    rows = [("Key", "Type", "Unit", "Allowed", "Default", "Meaning"), ("---",) * 6]
    for key in KEYS:
        kind = key.kind.type + (" or null" if key.default is None else "")
        allowed = "" if key.kind.allowed in obvious else key.kind.allowed
        default = key.default.words if isinstance(key.default, Derived) else f"`{json.dumps(key.default)}`"
        rows.append((f"`{key.path}`", kind, key.kind.unit, allowed, default, key.text))
    return "".join(f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in row)}|\n" for row in rows)
