# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a Dockerfile: which images it builds on, whether they are pinned, and on which line a build step stands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import NamedTuple

from ansible.module_utils.qianjiang.image_reference import ImageReferenceError, parse

PIN = "name it by digest, <repository>@sha256:<64 hex digits>; image_resolve gives the digest of a tag"
# Build arguments that need no ARG; the proxies among them do not change what is built
PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
_PREDEFINED = re.compile(r"BUILDKIT_\w+|SOURCE_DATE_EPOCH")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::([-+])([^}]*))?\}|(\w+))")
_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S+)")
_HEREDOC = re.compile(r"(?:^|\s)\d*<<(-?)(['\"]?)([^\s<'\"]+)\2(?=\s|$)")
_MOUNT_FROM = re.compile(r"--mount=(?:\S*,)?from=([^\s,]+)", re.IGNORECASE)
_CHECKSUM = re.compile(r"--checksum=sha256:[0-9a-f]{64}")
_URL = re.compile(r"(?:https?|git)://\S+|git@\S+")
_LAYERS = ("RUN", "COPY", "ADD", "WORKDIR")  # what BuildKit counts as a step of its own


class DockerfileError(Exception):
    """A Dockerfile that is refused; `errors` holds every reason, each with its line."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class Instruction(NamedTuple):
    """One instruction: its first line's number, its keyword, and the rest with single spaces for all white space."""

    line: int
    keyword: str
    value: str

    def __str__(self) -> str:
        return f"{self.keyword} {self.value}"

    @property
    def triggered(self) -> Instruction:
        """What ONBUILD has a later build do; else the instruction itself."""
        if self.keyword != "ONBUILD":
            return self
        keyword, _, value = self.value.partition(" ")
        return Instruction(self.line, keyword.upper(), value)


class Stage(NamedTuple):
    """A build stage: its name (`stage-<n>` where it has none) and its instructions, FROM first."""

    name: str
    instructions: list[Instruction]


class _Image(NamedTuple):
    where: str
    what: str  # as written, for messages
    reference: str


class Dockerfile:
    """The text of a Dockerfile; `name` is what messages call it."""

    def __init__(self, text: str, name: str = "Dockerfile") -> None:
        self.name = name
        # Not splitlines: a form feed or a lone carriage return ends no line of a Dockerfile
        self._lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
        self._directives = dict(self._read_directives())
        self.instructions = list(self._read_instructions())
        self.stages: list[Stage] = []
        for instruction in self.instructions:
            if instruction.keyword == "FROM":
                self.stages.append(Stage(_stage_name(instruction, len(self.stages)), []))
            if self.stages:
                self.stages[-1].instructions.append(instruction)

    def check(self, build_args: Mapping[str, str], target: str | None) -> None:
        """Refuse what is not pinned, and arguments or a target that the Dockerfile does not know."""
        errors: list[str] = []
        if not self.instructions:
            errors.append(f"{self.name} has no FROM")
        for instruction in self._before_first_stage():
            if instruction.keyword != "ARG":
                errors.append(f"{self.name} line {instruction.line}: {instruction.keyword} before the first FROM")
        for image in self._images(build_args, errors):
            self._check_image(image, errors)
        for line, url in self._unpinned_urls(build_args):
            hint = "put the file into the context, or add --checksum=sha256:<64 hex digits>"
            errors.append(f"{self.name} line {line}: ADD {url} is not pinned: {hint}")
        declared = {name for i in self.instructions if i.keyword == "ARG" for name, _ in _arguments(i)}
        for name in sorted(set(build_args) - declared - PROXIES):
            if not _PREDEFINED.fullmatch(name):
                listed = ", ".join(sorted(declared)) or "none"
                errors.append(f"build_args.{name}: {self.name} declares no ARG {name} (it declares {listed})")
        names = [stage.name for stage in self.stages]
        if target is not None and target.lower() not in names and not (target.isdigit() and int(target) < len(names)):
            errors.append(f"target: {self.name} has no stage {target!r} (its stages: {', '.join(names)})")
        if errors:
            raise DockerfileError(errors)

    def bases(self, build_args: Mapping[str, str]) -> list[str]:
        """Every image that the build takes from elsewhere, in order, once."""
        return list(dict.fromkeys(image.reference for image in self._images(build_args, [])))

    def classic_step(self, number: int) -> Instruction | None:
        """The instruction that the classic builder calls `Step <number>/…`."""
        return self.instructions[number - 1] if 0 < number <= len(self.instructions) else None

    def buildkit_step(self, stage: str, number: int) -> Instruction | None:
        """The instruction that BuildKit calls `[<stage> <number>/…]`; the stage is empty where there is only one."""
        names = [known.name for known in self.stages]
        if stage and stage not in names:
            return None
        instructions = self.stages[names.index(stage) if stage else 0].instructions
        base = instructions[0].value.split()
        image = next((word for word in base if not word.startswith("--")), "").lower()
        counted = [i for i in instructions if i.keyword in _LAYERS]
        if image != "scratch" and image not in names:  # only a base from elsewhere is a step
            counted.insert(0, instructions[0])
        return counted[number - 1] if 0 < number <= len(counted) else None

    def at_line(self, line: int) -> Instruction | None:
        """The instruction that stands on (or continues over) a line."""
        before = [i for i in self.instructions if i.line <= line]
        return before[-1] if before else None

    def _read_directives(self) -> Iterator[tuple[str, tuple[int, str]]]:
        for number, line in enumerate(self._lines, 1):
            if number == 1 and line.startswith("#!"):
                continue
            found = _DIRECTIVE.match(line.strip())
            if not found:
                return
            yield found[1].lower(), (number, found[2])

    def _read_instructions(self) -> Iterator[Instruction]:
        escape = self._directives.get("escape", (0, "\\"))[1]
        position = 0
        while position < len(self._lines):
            start = position + 1
            text = ""
            while position < len(self._lines):
                line = self._lines[position].rstrip(" \t")
                position += 1
                if line.lstrip().startswith("#") or (text and not line.strip()):
                    continue  # comments and empty lines do not end a continuation
                if line.endswith(escape * 2):  # Docker 20.10 goes on with the next line, later ones do not
                    hint = "builders disagree whether the next line belongs to it; end it in one"
                    raise DockerfileError([f"{self.name} line {position} ends in two {escape}: {hint}"])
                text += line.removesuffix(escape)
                if not line.endswith(escape):
                    break
            text = " ".join(text.split())
            if not text:
                continue
            start = next(n for n in range(start, len(self._lines) + 1) if _begins(self._lines[n - 1]))
            keyword, _, value = text.partition(" ")
            instruction = Instruction(start, keyword.upper(), value)
            position = self._skip_heredocs(instruction, position)
            yield instruction

    def _skip_heredocs(self, instruction: Instruction, position: int) -> int:
        if instruction.keyword not in ("RUN", "COPY", "ADD"):
            return position
        for tabs, _, end in _HEREDOC.findall(instruction.value):
            for number in range(position, len(self._lines)):
                if (self._lines[number].lstrip("\t") if tabs else self._lines[number]) == end:
                    position = number + 1
                    break
        return position

    def _before_first_stage(self) -> list[Instruction]:
        first = self.stages[0].instructions[0].line if self.stages else float("inf")
        return [i for i in self.instructions if i.line < first]

    def _images(self, build_args: Mapping[str, str], errors: list[str]) -> Iterator[_Image]:
        if "BUILDKIT_SYNTAX" in build_args:  # BuildKit takes it in place of the directive
            frontend = build_args["BUILDKIT_SYNTAX"]
            yield _Image("build_args.BUILDKIT_SYNTAX", frontend, frontend)
        elif "syntax" in self._directives:
            line, syntax = self._directives["syntax"]
            yield _Image(self._at(line), f"syntax={syntax}", syntax)
        values: dict[str, str | None] = {}
        for instruction in self._before_first_stage():
            if instruction.keyword == "ARG":
                for name, default in _arguments(instruction):
                    values[name] = build_args.get(name, None if default is None else _expand(default, values, []))
        for index, stage in enumerate(self.stages):
            earlier = [known.name for known in self.stages[:index]]
            for instruction in stage.instructions:
                if instruction.keyword == "FROM":
                    image = self._from(instruction, values, errors)
                    if image is not None and image.reference.lower() not in ("scratch", *earlier):
                        yield image
                else:
                    yield from self._other_images(instruction, earlier, errors)

    def _from(self, instruction: Instruction, values: Mapping[str, str | None], errors: list[str]) -> _Image | None:
        words = [word for word in instruction.value.split() if not word.startswith("--")]
        missing: list[str] = []
        reference = _expand((words or [""])[0].strip("\"'"), values, missing)
        what = f"FROM {words[0]}" if words else "FROM"
        for name in missing:
            hint = (
                f"give it in build_args, or a default in `ARG {name}=…`"
                if name in values
                else f"declare `ARG {name}` before the first FROM, with a default or in build_args"
            )
            errors.append(f"{self.name} line {instruction.line}: {what}: no value for {name}: {hint}")
        if missing:
            return None
        return _Image(self._at(instruction.line), what if reference == what[5:] else f"{what} ({reference})", reference)

    def _at(self, line: int) -> str:
        return f"{self.name} line {line}"

    def _unpinned_urls(self, build_args: Mapping[str, str]) -> Iterator[tuple[int, str]]:
        """What each ADD without a checksum takes from elsewhere, with its line."""
        everywhere: dict[str, str | None] = {}  # of whatever stage, so that no URL is missed
        scopes: list[dict[str, str | None]] = [{}]  # before the first stage, and each stage
        for instruction in (written.triggered for written in self.instructions):
            if instruction.keyword == "FROM":
                scopes.append({})
            elif instruction.keyword in ("ARG", "ENV"):
                for name, default in _arguments(instruction):
                    for known, outer in ((everywhere, everywhere), (scopes[-1], scopes[0])):
                        value = outer.get(name) if default is None else _expand(default, known, [])
                        known[name] = build_args.get(name, value) if instruction.keyword == "ARG" else value
            elif instruction.keyword == "ADD":
                flags = takewhile(lambda word: word.startswith("--"), instruction.value.split())
                if not any(_CHECKSUM.fullmatch(_expand(flag, scopes[-1], [])) for flag in flags):
                    for url in _URL.findall(_expand(instruction.value, everywhere, [])):
                        yield instruction.line, url

    def _other_images(self, instruction: Instruction, earlier: list[str], errors: list[str]) -> Iterator[_Image]:
        is_trigger, instruction = instruction.keyword == "ONBUILD", instruction.triggered
        found: list[tuple[str, str]] = []
        if instruction.keyword in ("COPY", "ADD"):
            flags = [word for word in instruction.value.split() if word.startswith("--from=")]
            found = [(flag, flag.removeprefix("--from=")) for flag in flags]
        elif instruction.keyword == "RUN":
            unquoted = re.sub("[\"']", "", instruction.value)
            found = [(f"--mount from={name}", name) for name in _MOUNT_FROM.findall(unquoted)]
        for what, name in found:
            if name.isdigit():
                # A trigger counts the stages of the Dockerfile that has it
                if int(name) >= len(earlier) and not is_trigger:
                    where = f"{self.name} line {instruction.line}"
                    errors.append(f"{where}: {what}: there is no such stage before it")
            elif name.lower() not in earlier:
                yield _Image(self._at(instruction.line), what, name)

    def _check_image(self, image: _Image, errors: list[str]) -> None:
        try:
            reference = parse(image.reference)
        except ImageReferenceError as error:
            errors.append(f"{image.where}: {error}")
            return
        if reference.digest is None:
            errors.append(f"{image.where}: {image.what} is not pinned: {PIN}")


def _begins(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith("#")


def _stage_name(instruction: Instruction, index: int) -> str:
    words = [word for word in instruction.value.split() if not word.startswith("--")]
    return words[2].lower() if len(words) == 3 and words[1].upper() == "AS" else f"stage-{index}"


def _arguments(instruction: Instruction) -> list[tuple[str, str | None]]:
    """The names and values of an ARG or ENV instruction."""
    try:
        words = shlex.split(instruction.value)
    except ValueError:
        words = instruction.value.split()
    if instruction.keyword == "ENV" and "=" not in "".join(words[:1]):  # its old form: name, space, value
        return [("".join(words[:1]), " ".join(words[1:]))]
    parts = [word.partition("=") for word in words]
    return [(name, default if equals else None) for name, equals, default in parts]


def _expand(text: str, values: Mapping[str, str | None], missing: list[str]) -> str:
    """Put values for `$X`, `${X}`, `${X:-default}` and `${X:+alternative}`; names without a value go to `missing`."""

    def value(found: re.Match[str]) -> str:
        name, operator, word = found[1] or found[4], found[2], found[3]
        current = values.get(name)
        if operator == "-":
            return current or word
        if operator == "+":
            return _expand(word, values, missing) if current else ""
        if current is None:
            missing.append(name)
        return current or ""

    return _VARIABLE.sub(value, text)
