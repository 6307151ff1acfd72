# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of values that a person writes, how each is read, and what is said about a wrong one. Pure."""

from __future__ import annotations

import difflib
import json
import math
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


def shown(value: Any) -> str:
    """A value as it would be written, cut where it gets long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > 61:
        text = text[:60] + "…"
    return text


def near(word: Any, words: Iterable[str]) -> str:
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
        self.say(path, f"expected {expected}, got {shown(value)}{hint and '; ' + hint}")

    def sound(self, path: str) -> bool:
        """Nothing was said about `path`, what is above it or what is below it."""
        return not any(
            path == bad or path.startswith((f"{bad}.", f"{bad}[")) or bad.startswith((f"{path}.", f"{path}["))
            for bad in self.paths
        )


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
            percent = self.unit == "of 1" and 1 < value <= 100
            report.unfit(path, self.allowed, value, f"write {value / 100:g} for {value:g} %" if percent else "")
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
            report.unfit(path, self.expected, value, self.quoting or (f'quote it: "{shown(value)}"' if scalar else ""))
        elif "\0" in value:
            report.unfit(path, "a string without NUL characters", value)
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
        elif not value.isprintable():
            report.unfit(path, "an absolute path without control characters", value)
        elif ":" in value:
            report.unfit(path, self.expected, value, "a colon separates paths for the engine")
        elif (plain := "/" + posixpath.normpath(value).lstrip("/")) != value:
            report.unfit(path, self.expected, value, f'write "{plain}"')
        return value


@dataclass(frozen=True)
class UrlPath(Kind):
    """Of the characters that a URL has, those that HAProxy's configuration takes as they are (RFC 3986, no quote)."""

    type: str = "string"
    expected: str = "a URL path beginning with /"
    characters: str = "[A-Za-z0-9._~!()*+,;&=:@%/?-]"

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, str) or not value.startswith("/"):
            fits = isinstance(value, str) and re.fullmatch(self.characters + "+", value) and ":" not in value
            report.unfit(path, self.expected, value, f'write "/{value}"' if fits else "")
        elif not re.fullmatch(self.characters + "*", value):
            report.unfit(path, "a URL path of letters, digits and -._~!()*+,;&=:@%/?", value)
        return value


@dataclass(frozen=True)
class Choice(Kind):
    type: str = "string"
    expected: str = "a word"
    options: tuple[str, ...] = ()

    def read(self, value: Any, path: str, report: Report) -> Any:
        if not isinstance(value, str) or value not in self.options:
            report.unfit(path, self.expected, value, near(value, self.options))
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
                report.say(f"{path}[{index}]", f"expected each value once, got {shown(one)} again; remove it")
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
            if not isinstance(name, str):
                report.say(where, f'expected a variable\'s name, got {shown(name)}, as YAML reads it; quote it: "ON"')
            elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                report.say(where, "expected a variable's name (letters, digits and _, no digit first)")
            elif name.startswith(OWN_VARIABLES):
                report.say(where, f"expected another name: those with {OWN_VARIABLES} tell a container which one it is")
            elif one is None:
                report.unfit(where, "a string", one, 'write "" for an empty one')
            elif isinstance(one, bool):
                report.unfit(where, "a string", one, f'quote it: "{shown(one)}"')
            elif not isinstance(one, str):
                what = "a number" if isinstance(one, int | float) else "a list or a mapping"
                report.say(where, f"expected a string, got {what} (not shown, it may be a secret); quote it")
            elif "\0" in one:
                report.say(where, "expected a string without NUL characters (not shown, it may be a secret)")
        return dict(value)
