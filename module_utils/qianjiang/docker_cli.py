# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Building with the Docker client: the SDK knows no BuildKit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ansible.module_utils.qianjiang.arguments import write_private
from ansible.module_utils.qianjiang.build_context import Entry, any_folder, ignore_patterns, staged
from ansible.module_utils.qianjiang.dockerfile import Dockerfile, Instruction
from ansible.module_utils.qianjiang.registry import credentials

Run = Callable[[list[str], dict[str, str]], tuple[int, str, str]]

SHOWN = 30
EXTRA_CA = "extra-ca"  # the id of the secret
# Variables that steer the client itself, or that we set for it: a build argument of that name must not be set in its
# environment. By their full names where one that only begins alike may be somebody's secret
_OWN = re.compile(
    r"(?:BUILDX|BUILDKIT)_.*|PATH|HOME|TMPDIR|LANG|LC_.*|NO_COLOR|SSL_CERT_(?:DIR|FILE)"
    r"|LD_(?:AUDIT|BIND_NOW|DEBUG|DEBUG_OUTPUT|LIBRARY_PATH|PRELOAD|PROFILE|PROFILE_OUTPUT)"
    r"|GO(?:COVERDIR|DEBUG|GC|MAXPROCS|MEMLIMIT|TRACEBACK)"
    r"|DOCKER_(?:API_VERSION|BUILDKIT|CERT_PATH|CLI_.*|CONFIG|CONTENT_TRUST|CONTENT_TRUST_SERVER|CONTEXT"
    r"|DEFAULT_PLATFORM|HIDE_LEGACY_COMMANDS|HOST|ORCHESTRATOR|STACK_ORCHESTRATOR|TLS|TLS_VERIFY)"
)
_LOGIN = re.compile(r"//[^/@:\s]*:[^/@\s]+@")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STEP_NAME = re.compile(r"#(\d+) \[([^\]]*)\] ")
_STEP_ERROR = re.compile(r"#(\d+) ERROR: (?!.*context canceled)(.*)")
_CLASSIC_STEP = re.compile(r"Step (\d+)/\d+ : ")
_PARSE_ERROR = re.compile(r"parse error (?:on )?line (\d+)")


class DockerCliError(Exception):
    """The Docker client is not usable."""


class Request(NamedTuple):
    """What is to be built. `found` is what the context holds, `extra_ca` a file, `logins` are by registry."""

    image: str
    folder: Path
    found: Sequence[Entry]
    dockerfile: Dockerfile
    network: str
    target: str | None
    platform: str | None
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, str]
    extra_ca: str | None
    logins: Mapping[str, tuple[str | None, str | None]]


class Build(NamedTuple):
    """A build made ready. `secrets` are files; `context` is the staged folder."""

    image: str
    context: Path
    dockerfile: str
    network: str
    target: str | None
    platform: str | None
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, Path]


class DockerCli:
    """The Docker client of this host; `folder` is where it may put private files for a while."""

    def __init__(self, run: Run, binary: str, folder: str) -> None:
        self._run = run
        self._binary = binary
        self._folder = folder

    def build(self, request: Request) -> None:
        """Build an image; an error says why, and on which line."""
        buildkit = probe(self._run, self._binary)
        check(request, buildkit=buildkit)
        private = TemporaryDirectory(dir=self._folder, prefix="image-build-")
        with private as name, staged(request.folder, request.found) as context:
            folder = Path(name)
            build = Build(
                image=request.image,
                context=context,
                dockerfile=request.dockerfile.name,
                network=request.network,
                target=request.target,
                platform=request.platform,
                build_args=request.build_args,
                labels=request.labels,
                secrets=_secret_files(request, folder),
            )
            variables = environment(build, buildkit=buildkit, configuration=_configuration(request, folder))
            code, out, err = self._run(command(self._binary, build, buildkit=buildkit), variables)
        if code != 0:
            raise DockerCliError(f"building {request.image} {explain(out, err, request.dockerfile)}")


def check(request: Request, *, buildkit: bool) -> None:
    """Refuse what the classic builder would leave out without a word."""
    own_ignore = f"{request.dockerfile.name}.dockerignore"
    patterns = ignore_patterns(request.folder, request.dockerfile.name)
    for given, what in (
        (request.secrets, "secrets: they need BuildKit"),
        (request.extra_ca, "extra_ca: it needs BuildKit"),
        ((request.folder / own_ignore).is_file(), f"{own_ignore}: it needs BuildKit"),
        (any_folder(patterns), ".dockerignore: an exception with a wildcard for folders needs BuildKit"),
    ):
        if given and not buildkit:
            hint = "Install the buildx plugin (docker-buildx on Debian 13)."
            raise DockerCliError(f"{what}, and this host's Docker client builds without it. {hint}")
    if request.extra_ca and not Path(request.extra_ca).is_file():
        raise DockerCliError(f"extra_ca: no such file: {request.extra_ca}")


def check_command_line(build_args: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Refuse a login where it would stand on the command line."""
    for option, values, hint in (
        ("build_args", build_args, "give it as a secret, or under another name"),
        ("labels", labels, "leave it out"),
    ):
        for name, value in values.items():
            if _LOGIN.search(value) and (option == "labels" or _OWN.fullmatch(name)):
                problem = "as it would stand on the command line, which every user of this host can read"
                raise DockerCliError(f"{option}.{name}: expected no user:password@ in it, {problem}; {hint}")


def _secret_files(request: Request, folder: Path) -> dict[str, Path]:
    (folder / "secrets").mkdir(mode=0o700)
    files = {
        name: write_private(folder / "secrets" / str(number), value)
        for number, (name, value) in enumerate(sorted(request.secrets.items()))
    }
    return {**files, **({EXTRA_CA: Path(request.extra_ca)} if request.extra_ca else {})}


def _configuration(request: Request, folder: Path) -> Path | None:
    """A configuration for the client with the logins, or None for the user's own."""
    if not request.logins:
        return None
    configuration = folder / "configuration"
    configuration.mkdir(mode=0o700)
    plugins = str(Path("~/.docker/cli-plugins").expanduser())
    document = {**credentials(request.logins), "cliPluginsExtraDirs": [plugins]}
    write_private(configuration / "config.json", json.dumps(document))
    return configuration


def probe(run: Run, binary: str) -> bool:
    """Whether this client and engine build with BuildKit. Docker 23 and later need the buildx plugin for it."""
    code, out, err = run([binary, "version", "--format", "{{json .}}"], {})

    def reject(found: str) -> DockerCliError:
        hint = "is it one? Put Docker's own client first in PATH."
        return DockerCliError(f"{binary} does not answer like a Docker client ({found}): {hint}")

    try:
        document = json.loads(out)
        client, server = str(document["Client"]["Version"]), document["Server"]
    except (ValueError, KeyError, TypeError) as error:
        raise reject(repr((err.strip() or out.strip())[:200])) from error
    if code != 0 or server is None:
        raise DockerCliError(f"the Docker Engine does not answer its client: {err.strip()[:500]}")
    api = str(server.get("ApiVersion"))
    try:
        major = int(client.split(".", maxsplit=1)[0])
        api_version = tuple(int(part) for part in api.split("."))
    except ValueError as error:
        raise reject(f"version {client!r}, API {api!r}") from error
    if major >= 23:
        return run([binary, "buildx", "version"], {})[0] == 0
    return major >= 18 and api_version >= (1, 39)


def command(binary: str, build: Build, *, buildkit: bool) -> list[str]:
    """The command line of a build. Every user can read it: values that the environment or a file can carry stay out."""
    argv = [binary, "build", "--tag", build.image, "--file", str(build.context / build.dockerfile)]
    argv += ["--network", build.network]
    # A failed step of the classic builder leaves its container behind otherwise
    argv += ["--progress", "plain"] if buildkit else ["--force-rm"]
    if build.target is not None:
        argv += ["--target", build.target]
    if build.platform is not None:
        argv += ["--platform", build.platform]
    for name, value in sorted(build.labels.items()):
        argv += ["--label", f"{name}={value}"]
    for name, value in sorted(build.build_args.items()):
        argv += ["--build-arg", f"{name}={value}" if _OWN.fullmatch(name) else name]
    for name, file in sorted(build.secrets.items()):
        argv += ["--secret", f"id={name},src={file}"]
    return [*argv, str(build.context)]


def environment(build: Build, *, buildkit: bool, configuration: Path | None) -> dict[str, str]:
    """The variables of a build: its arguments, which builder, and the folder with the client's configuration."""
    variables = {name: value for name, value in build.build_args.items() if not _OWN.fullmatch(name)}
    variables["DOCKER_BUILDKIT"] = "1" if buildkit else "0"
    variables["NO_COLOR"] = "1"
    # buildx otherwise adds documents about the build: an image index instead of an image, with a new digest each time
    variables["BUILDX_NO_DEFAULT_ATTESTATIONS"] = "1"
    variables["BUILDX_GIT_INFO"] = "0"
    if configuration is not None:
        variables["DOCKER_CONFIG"] = str(configuration)
    return variables


def explain(out: str, err: str, dockerfile: Dockerfile) -> str:
    """Why a build failed: the instruction with its line, the reason, and the last lines that the step wrote."""
    out, err = _COLOUR.sub("", out), _COLOUR.sub("", err)
    instruction, reason, lines = _buildkit(err, dockerfile) or _classic(out, err, dockerfile)
    parse_error = _PARSE_ERROR.search(err)
    if parse_error:
        instruction = dockerfile.at_line(int(parse_error[1]))
    where = f" at {dockerfile.name} line {instruction.line}: {str(instruction)[:500]}" if instruction else ""
    message = f"failed{where}\n{reason or 'the Docker client said nothing'}"
    shown = [f"  {line.rstrip()}" for line in lines if line.strip()][-SHOWN:]
    return "\n".join([message, *(["The last lines of that step:", *shown] if shown else [])])


_Found = tuple[Instruction | None, str, list[str]]


def _buildkit(err: str, dockerfile: Dockerfile) -> _Found | None:
    lines = err.splitlines()
    failed = next(filter(None, map(_STEP_ERROR.match, lines)), None)
    if failed is None:
        return None
    number, reason = failed[1], failed[2]
    instruction = None
    for named in filter(None, map(_STEP_NAME.match, lines)):
        words = named[2].split()
        if named[1] == number and words and re.fullmatch(r"\d+/\d+", words[-1]):
            stage = words[-2] if len(words) > 1 and "/" not in words[-2] else ""
            instruction = dockerfile.buildkit_step(stage, int(words[-1].split("/")[0]))
    written = re.compile(rf"#{number} \d+\.\d+ ?(.*)")
    return instruction, reason, [match[1] for match in filter(None, map(written.match, lines))]


def _classic(out: str, err: str, dockerfile: Dockerfile) -> _Found:
    instruction: Instruction | None = None
    written: list[str] = []
    for line in out.splitlines():
        step = _CLASSIC_STEP.match(line)
        if step:
            instruction, written = dockerfile.classic_step(int(step[1])), []
        elif instruction and not line.startswith((" ---> ", "Removing intermediate container ")):
            written.append(line)
    said = [line.strip() for line in err.splitlines() if line.strip()]
    return instruction, said[-1] if said else "", written
