# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of services: its schema (KEYS, one row per key), the rules between keys (RULES), and `normalise`.

docs/reference/catalogue.md is written from KEYS. Every mistake is found in one pass and named by the path of its
variable; what only follows from another mistake is not reported beside it.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypedDict, cast


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


class CatalogueError(ValueError):
    """Everything that is wrong in a catalogue, one line each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors

    @property
    def summary(self) -> str:
        """How many, then each."""
        return f"{len(self.errors)} error{'s' if len(self.errors) > 1 else ''} in the catalogue:\n{self}"


# --- what is said


def _shown(value: Any) -> str:
    """A value as it would be written, cut where it gets long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > 61:
        text = text[:60] + "…"
    return text


def _near(word: Any, words: Iterable[str]) -> str:
    """A hint with the nearest of `words`, if one is near."""
    close = difflib.get_close_matches(str(word), sorted(words), n=1)
    return f'did you mean "{close[0]}"?' if close else ""


@dataclass
class Report:
    """The errors found so far, and the paths they are about."""

    errors: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def say(self, path: str, text: str) -> None:
        self.errors.append(f"{path}: {text}")
        self.paths.append(path)

    def unfit(self, path: str, expected: str, value: Any, hint: str = "") -> None:
        self.say(path, f"expected {expected}, got {_shown(value)}{hint and '; ' + hint}")

    def sound(self, path: str) -> bool:
        """Nothing was said about `path`, what is above it or what is below it."""
        return not any(
            path == bad or path.startswith((f"{bad}.", f"{bad}[")) or bad.startswith((f"{path}.", f"{path}["))
            for bad in self.paths
        )


# --- kinds of values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it is called (in the reference, and where another one is found) and how it is read."""

    type: str
    expected: str
    unit: str = ""

    @property
    def allowed(self) -> str:
        return self.expected

    def read(self, value: Any, path: str, report: Report) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Flag(Kind):
    type: str = "boolean"
    expected: str = "true or false"

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, bool):
            word = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}.get(
                value.lower() if isinstance(value, str) else ""
            )
            report.unfit(path, self.expected, value, f"write {word}, without quotes" if word else "")
        return value


@dataclass(frozen=True)
class Number(Kind):
    type: str = "number"
    expected: str = "a number"
    noun: str = "a number"
    minimum: float = 0
    maximum: float | None = None

    @property
    def allowed(self) -> str:
        return f"{self.noun} from {self.minimum:g}" + (f" to {self.maximum:g}" if self.maximum is not None else "")

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not _is_number(value) or (self.type == "integer" and value != int(value)):
            report.unfit(path, self.expected, value, self._hint(value))
        elif value < self.minimum or (self.maximum is not None and value > self.maximum):
            report.unfit(path, self.allowed, value)
        elif value == int(value):
            return int(value)  # 2.0 and 2 are the same configuration
        return value

    def _hint(self, value: Any) -> str:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", value) if isinstance(value, str) else None
        if match and match[2] and self.unit == "seconds":
            return f"write {float(match[1]) * {'s': 1, 'm': 60, 'h': 3600}[match[2]]:g}"
        return f"write {match[1]}, without quotes" if match and not match[2] else ""


@dataclass(frozen=True)
class Text(Kind):
    """A string; `pattern` (described by `rule`) is what it must match, `suggest` makes a better one of it."""

    type: str = "string"
    expected: str = "a string"
    pattern: str = r"(?s).*\S.*"
    rule: str = ""
    suggest: Callable[[str], str] = str
    quoting: str = ""

    @property
    def allowed(self) -> str:
        return self.rule or self.expected

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, str):
            scalar = isinstance(value, int | float) and self.expected == Text.expected
            report.unfit(path, self.expected, value, self.quoting or (f'quote it: "{_shown(value)}"' if scalar else ""))
        elif not re.fullmatch(self.pattern, value):
            better = self.suggest(value)
            fits = better != value and re.fullmatch(self.pattern, better)
            report.unfit(path, self.allowed, value, f'did you mean "{better}"?' if fits else "")
        return value


@dataclass(frozen=True)
class Size(Kind):
    """A number with a unit, normalised to the case of `units`."""

    type: str = "string"
    expected: str = 'a size such as "256M" (K, M or G)'
    units: str = "KMG"
    minimum: str = ""

    def read(self, value: Any, path: str, report: Report) -> Any:
        match = re.fullmatch(r"([1-9]\d*)([kmg])(i?b)?", value, re.IGNORECASE) if isinstance(value, str) else None
        if not match or match[3]:
            report.unfit(path, self.expected, value, f'write "{match[1]}{self._unit(match[2])}"' if match else "")
            return value
        size = match[1] + self._unit(match[2])
        if self.minimum and _bytes(size) < _bytes(self.minimum):
            report.unfit(path, f"at least {self.minimum} (the engine takes no less)", value)
        return size

    def _unit(self, letter: str) -> str:
        return letter.lower() if self.units.islower() else letter.upper()


def _bytes(size: str) -> int:
    return int(int(size[:-1]) * 1024 ** ("KMG".index(size[-1].upper()) + 1))


@dataclass(frozen=True)
class Path(Kind):
    type: str = "string"
    expected: str = "an absolute path"

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, str) or not value.startswith("/"):
            report.unfit(path, self.expected, value)
        elif ":" in value:
            report.unfit(path, self.expected, value, "a colon separates paths for the engine")
        elif (plain := "/" + posixpath.normpath(value).lstrip("/")) != value:
            report.unfit(path, self.expected, value, f'write "{plain}"')
        return value


@dataclass(frozen=True)
class UrlPath(Kind):
    type: str = "string"
    expected: str = "a URL path beginning with /"

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value):
            fits = isinstance(value, str) and re.fullmatch(r"[!-~]+", value) and ":" not in value
            report.unfit(path, self.expected, value, f'write "/{value}"' if fits else "")
        return value


@dataclass(frozen=True)
class Choice(Kind):
    type: str = "string"
    expected: str = "a word"
    options: tuple[str, ...] = ()

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, str) or value not in self.options:
            report.unfit(path, self.expected, value, _near(value, self.options))
        return value


def one_of(*options: str) -> Choice:
    return Choice(expected=f"one of {', '.join(options)}", options=options)


@dataclass(frozen=True)
class Items(Kind):
    """A list; `unique` where a value makes no sense twice."""

    type: str = "list"
    expected: str = "a list"
    item: Kind = field(default_factory=Text)
    least: int = 0
    unique: bool = False

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, list):
            words = value.split() if isinstance(value, str) else []
            report.unfit(path, self.expected, value, f"write {json.dumps(words, ensure_ascii=False)}" if words else "")
            return value
        if len(value) < self.least:
            report.unfit(path, "a list of at least one", value, "remove the key for the default")
        for index, one in enumerate(value):
            if self.unique and one in value[:index]:
                report.say(f"{path}[{index}]", f"expected each value once, got {_shown(one)} again; remove it")
        return [
            self.item.read(one, f"{path}[{index}]", report) if report.sound(f"{path}[{index}]") else one
            for index, one in enumerate(value)
        ]


# Prefix of the variables that the platform itself gives every container (container.py)
OWN_VARIABLES = "QJ_"


@dataclass(frozen=True)
class Variables(Kind):
    """Names and strings. No value of theirs is shown: passwords are among them."""

    type: str = "mapping of strings"
    expected: str = "a mapping"

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, Mapping):
            what = "a list" if isinstance(value, list) else "something else"
            report.say(path, f"expected a mapping, got {what} (not shown, it may hold secrets); write NAME: value")
            return value
        for name, one in value.items():
            where = f"{path}.{name}"
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
                report.say(where, "expected a variable's name (letters, digits and _, no digit first)")
            elif str(name).startswith(OWN_VARIABLES):
                report.say(where, f"expected another name: those with {OWN_VARIABLES} tell a container which one it is")
            elif one is None:
                report.unfit(where, "a string", one, 'write "" for an empty one')
            elif isinstance(one, bool):
                report.unfit(where, "a string", one, f'quote it: "{_shown(one)}"')
            elif not isinstance(one, str):
                what = "a number" if isinstance(one, int | float) else "a list or a mapping"
                report.say(where, f"expected a string, got {what} (not shown, it may be a secret); quote it")
        return dict(value)


@dataclass(frozen=True)
class Section(Kind):
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
                hint = _near(name, known) or f"allowed: {', '.join(sorted(known))}"
                report.say(f"{path}.{name}", f"unknown key; {hint}")
        return {name: key.read(value.get(name, REQUIRED), f"{path}.{name}", report) for name, key in known.items()}


# --- the schema


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
    Key("build.wheelhouse.python", STRING, "3.11", "Python that the wheels are for."),
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
    Key("mounts[].source", PATH, REQUIRED, "Path on the node."),
    Key("mounts[].target", PATH, REQUIRED, "Path in the container."),
    Key("mounts[].read_only", FLAG, True, "Whether the container may only read."),
    Key("tmpfs", strings(PATH), TMPFS, "Writable paths in memory, lost with the container."),
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
    Key("health.start_period", seconds(), 10, "Time to start, in which failed checks do not count."),
    Key("stop_timeout", WHOLE_SECONDS, 30, "Time from SIGTERM to SIGKILL."),
    Key("update", section("update"), {}, "How a rollout goes."),
    Key("update.max_parallel", whole(1), 1, "Nodes of a datacenter that may be away from the old release at a time."),
    Key("update.min_healthy_time", seconds(), 10, "Unbroken health that proves a node."),
    Key("update.healthy_deadline", seconds(1), 300, "Time a node has to become healthy."),
    Key("update.progress_deadline", seconds(1), 600, "Time without one more healthy node that fails the rollout."),
    Key("update.canary", whole(), 1, "Nodes that go first; `0`: none."),
    Key("update.auto_revert", FLAG, True, "A failed rollout goes back to the release before."),
    Key("update.bake_time", seconds(), 0, "Time to watch the canary datacenter before the others."),
    Key("update.drain_timeout", seconds(), 30, "Time for open requests to end before they are cut."),
    Key("keep_releases", whole(), 2, "Stopped releases kept on each node for rollback."),
    Key("depends_on", strings(STRING), [], "Services that are rolled out before this one."),
)
ENTRY = Section()


# --- rules between keys: what each reads (it is skipped when one of these is wrong already), and what it finds

Nodes = Mapping[str, list[str]]
Findings = Iterator[tuple[str, str]]  # a key's path and what is wrong with it


def slots(service: Service) -> tuple[int, int]:
    """The first and the last host port of a service on each of its nodes."""
    return service["slots_port"], service["slots_port"] + 2 * service["replicas"] - 1


def _at(service: Service, path: str) -> Any:
    value: Any = service
    for part in path.split("."):
        value = value[part]
    return value


def _origin(service: Service, _: Nodes) -> Findings:
    if service["build"] is not None and service["image"] is not None:
        yield "", "expected exactly one of build and image, got both; remove one"
    if service["build"] is None and service["image"] is None:
        yield (
            "",
            "expected exactly one of build and image, got neither; "
            "add build: {} (a folder with a Dockerfile) or image (a repository at the origin)",
        )


def _misnamed(image: str) -> str:
    """What is wrong with the name of an image at the origin."""
    first, slash, rest = image.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return f'expected no registry, got {_shown(image)}; each datacenter pulls from its own: write "{rest}"'
    if not re.fullmatch(IMAGE, image):
        hint = "; add a digest, or a tag" if re.fullmatch(REPOSITORY, image) else ""
        return f"expected {IMAGE_RULE}, got {_shown(image)}{hint}"
    return ""


def _image(service: Service, _: Nodes) -> Findings:
    if service["image"] is None:
        return
    match = re.fullmatch(IMAGE, service["image"])
    if text := _misnamed(service["image"]):
        yield "image", text
    elif match and match[1] != service["repository"]:
        yield "repository", f'expected "{match[1]}", as in image, got {_shown(service["repository"])}; remove it'


def _bases(service: Service, _: Nodes) -> Findings:
    build = service["build"]
    if build is None:
        return
    for name, image in build["bases"].items():
        if name in build["args"]:
            hint = "keep it there, where it is passed on by digest"
            yield f"build.args.{name}", f"expected an argument once, got it in build.bases too; {hint}"
        elif text := _misnamed(image):
            yield f"build.bases.{name}", text


def _datacenters(service: Service, nodes: Nodes) -> Findings:
    for index, name in enumerate(service["placement"]["datacenters"]):
        path = f"placement.datacenters[{index}]"
        if name not in nodes:
            hint = _near(name, nodes)
            yield path, f"expected one of {', '.join(sorted(nodes))}, got {_shown(name)}{hint and '; ' + hint}"
        elif not nodes[name]:
            hint = "add a host of it to the group nodes, or take it out"
            yield path, f"expected a datacenter with nodes, got {_shown(name)}; {hint}"
    if not service["placement"]["datacenters"]:  # an empty list that was written is found before
        text = "expected a datacenter with nodes, but no datacenter has any; add hosts to the group nodes"
        yield "placement.datacenters", text


def _room(service: Service, _: Nodes) -> Findings:
    first, last = slots(service)
    if last > PORT_MAXIMUM:
        highest = PORT_MAXIMUM + 1 - 2 * service["replicas"]
        yield (
            "slots_port",
            f"expected room for 2 ports per replica up to {PORT_MAXIMUM}, got {first}-{last}; "
            f"the highest that fits is {highest}",
        )


def _targets(service: Service, _: Nodes) -> Findings:
    taken: set[str] = set()
    for index, mount in enumerate(service["mounts"]):
        path, target = f"mounts[{index}].target", mount["target"]
        if target == "/":
            yield path, f"expected a path below /, got {_shown(target)}"
        elif target in taken:
            yield path, f"expected a target of its own, got {_shown(target)} again"
        elif target in service["tmpfs"]:
            yield path, f"expected a target of its own, got {_shown(target)}, also in tmpfs"
        taken.add(target)


def _weakened(service: Service, _: Nodes) -> Findings:
    hardening, user = service["hardening"], service["user"]
    weak = {
        "hardening.read_only": None if hardening["read_only"] else False,
        "hardening.capabilities": hardening["capabilities"] or None,
        "hardening.no_new_privileges": None if hardening["no_new_privileges"] else False,
        "user": user if user and user.split(":")[0] in ("0", "root") else None,
        "mounts": ", ".join(
            mount["source"] for mount in service["mounts"] if re.fullmatch(HOST_CONTROL, mount["source"])
        )
        or None,
    }
    found = ", ".join(f"{path}: {_shown(value)}" for path, value in weak.items() if value is not None)
    if found and hardening["reason"] is None:
        yield "hardening.reason", f"missing; expected why, because of {found}"


def _provable(service: Service, _: Nodes) -> Findings:
    update, interval = service["update"], service["health"]["interval"]
    needed = update["min_healthy_time"] + interval
    if needed >= update["healthy_deadline"]:
        yield (
            "update.healthy_deadline",
            f"expected more than update.min_healthy_time + health.interval ({needed:g}), "
            f"got {update['healthy_deadline']}",
        )


def _canary(service: Service, nodes: Nodes) -> Findings:
    smallest = min(service["placement"]["datacenters"], key=lambda name: len(nodes[name]))
    if service["update"]["canary"] > len(nodes[smallest]):
        yield (
            "update.canary",
            f"expected at most {len(nodes[smallest])}, the nodes of {smallest}, got {service['update']['canary']}",
        )


def _revert(service: Service, _: Nodes) -> Findings:
    if service["update"]["auto_revert"] and service["keep_releases"] < 1:
        text = "expected 1 or more with update.auto_revert, got 0; a revert needs the release before"
        yield "keep_releases", text


def _less(lower: str, upper: str) -> tuple[tuple[str, ...], Callable[[Service, Nodes], Findings]]:
    def find(service: Service, _: Nodes) -> Findings:
        low, high = _at(service, lower), _at(service, upper)
        if low >= high:
            yield lower, f"expected less than {upper} ({high}), got {low}"

    return (lower, upper), find


RULES: tuple[tuple[tuple[str, ...], Callable[[Service, Nodes], Findings]], ...] = (
    (("build", "image"), _origin),
    (("image", "repository"), _image),
    (("build.args", "build.bases"), _bases),
    (("placement.datacenters",), _datacenters),
    (("slots_port", "replicas"), _room),
    (("mounts", "tmpfs"), _targets),
    (("hardening", "user", "mounts"), _weakened),
    # as in Nomad's update block
    _less("update.min_healthy_time", "update.healthy_deadline"),
    _less("update.healthy_deadline", "update.progress_deadline"),
    _less("health.start_period", "update.healthy_deadline"),
    (("update.min_healthy_time", "update.healthy_deadline", "health.interval"), _provable),
    (("update.canary", "placement.datacenters"), _canary),
    (("update.auto_revert", "keep_releases"), _revert),
)


# --- rules between services


def _shared(one: Service, other: Service) -> list[str]:
    return [name for name in one["placement"]["datacenters"] if name in other["placement"]["datacenters"]]


def _free_slots(service: Service, others: Iterable[Service]) -> int:
    """The first host port from which the slots of `service` fit among those of the others."""
    first, size = service["slots_port"], 2 * service["replicas"]
    for low, high in sorted(slots(other) for other in others if _shared(service, other)):
        if first <= high and first + size > low:
            first = high + 1
    return first


def _ports(services: Mapping[str, Service], report: Report) -> None:
    """No host port twice on a node, no port twice on a gateway. A gateway's port and a slot are on different hosts."""

    def sound(*keys: str) -> list[Service]:
        return [s for n, s in services.items() if all(report.sound(f"services.{n}.{key}") for key in keys)]

    # computed before anything is said: an error about one pair must not hide another
    slotted = sound("slots_port", "replicas", "placement.datacenters")
    forwarded = [service for service in sound("gateway", "placement.datacenters") if service["gateway"]]
    for one, other in combinations(slotted, 2):
        (first, last), (low, high) = slots(one), slots(other)
        if first <= high and low <= last and (shared := _shared(one, other)):
            free = _free_slots(other, (service for service in slotted if service is not other))
            report.say(
                f"services.{other['name']}.slots_port",
                f"expected host ports of its own, got {low}-{high}, and services.{one['name']} has {first}-{last} "
                f"on the nodes of {', '.join(shared)}; {free} is free",
            )
    for one, other in combinations(forwarded, 2):
        port, shared = cast(Gateway, other["gateway"])["port"], _shared(one, other)
        if shared and one["gateway"] == other["gateway"]:
            report.say(
                f"services.{other['name']}.gateway.port",
                f"expected a port of its own, got {port}, and services.{one['name']} has it "
                f"on the gateway of {', '.join(shared)}",
            )


def _walk(services: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The names, each after what it depends on and else by name; and the circles that stand in the way."""
    order: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            circles.append([*way[way.index(name) :], name])
        elif name not in order:
            for dependency in sorted(set(services[name]["depends_on"]) & set(services)):
                visit(dependency, [*way, name])
            order.append(name)

    for name in sorted(services):
        visit(name, [])
    return order, circles


def order_by_dependency(services: Mapping[str, Any]) -> list[str]:
    """The services' names, each after those it depends on; else by name."""
    return _walk(services)[0]


def _dependencies(services: Mapping[str, Service], report: Report) -> None:
    sound = {name: one for name, one in services.items() if report.sound(f"services.{name}.depends_on")}
    for name, service in sound.items():
        others = sorted(set(services) - {name})
        for index, dependency in enumerate(service["depends_on"]):
            if dependency not in services:
                expected = f"one of {', '.join(others)}" if others else "another service of the catalogue"
                report.unfit(f"services.{name}.depends_on[{index}]", expected, dependency, _near(dependency, others))
    for circle in _walk(sound)[1]:
        where = f"services.{circle[0]}.depends_on"
        report.say(where, f"expected no circle, got {' -> '.join(circle)}; remove one of them")


# --- the catalogue


def _fill(entry: dict[str, Any], name: str, nodes: Nodes) -> Service:
    """Put in the defaults that depend on the rest of the entry."""
    image = entry["image"] if isinstance(entry["image"], str) else ""
    match = re.fullmatch(IMAGE, image)
    derived = {
        "name": name,
        "repository": match[1] if match else name,
        "build.context": f"services/{name}",
        "placement.datacenters": [datacenter for datacenter in nodes if nodes[datacenter]],
    }
    for path, value in derived.items():
        head, _, last = path.rpartition(".")
        section = entry[head] if head else entry
        if isinstance(section, dict) and isinstance(section.get(last), Derived):
            section[last] = value
    return cast(Service, entry)


def normalise(services: Mapping[str, Any], datacenters: Mapping[str, list[str]]) -> dict[str, Service]:
    """Every service with every key, or a CatalogueError with all that is wrong. `datacenters`: the nodes of each."""
    report = Report()
    if not isinstance(services, Mapping):
        report.unfit("services", "a mapping of service names to their keys", services, "write {} for none")
        raise CatalogueError(report.errors)
    normal: dict[str, Service] = {}
    for name, entry in services.items():
        SERVICE_NAME.read(name, f"services.{name}", report)
        read = ENTRY.read(entry, f"services.{name}", report)
        if isinstance(entry, Mapping):
            normal[name] = _fill(read, name, datacenters)
    for name, service in normal.items():
        where = f"services.{name}"
        if service["name"] != name and report.sound(f"{where}.name"):
            report.unfit(f"{where}.name", f'"{name}", the key of the entry', service["name"], "remove it")
        for keys, find in RULES:
            if all(report.sound(f"{where}.{key}") for key in keys):
                for path, text in find(service, datacenters):
                    report.say(f"{where}.{path}" if path else where, text)
    _ports(normal, report)
    _dependencies(normal, report)
    if report.errors:
        raise CatalogueError(report.errors)
    return normal


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
