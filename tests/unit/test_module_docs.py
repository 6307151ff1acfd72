"""Each module's documentation says what its argument_spec says, and is complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule

from support import ROOT, load

MODULES = sorted(file.stem for file in (ROOT / "library").glob("*.py"))
FACTS = ("type", "elements", "default", "required", "choices", "aliases")


@cache
def ansible_doc(*names: str) -> tuple[dict[str, Any], str]:
    """What ansible-doc makes of modules, and what it complains about."""
    command = [str(Path(sys.executable).with_name("ansible-doc")), "-j", "-M", "library", "-t", "module", *names]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return (json.loads(done.stdout) if done.returncode == 0 else {}), done.stderr


def documented(name: str) -> dict[str, Any]:
    """One module's documentation. All are read at once, as starting takes longest; one by one if any cannot be read."""
    pages, _ = ansible_doc(*MODULES)
    complaint = ""
    if name not in pages:
        pages, complaint = ansible_doc(name)
    assert name in pages, complaint
    return dict(pages[name])


class _SpecificationError(Exception):
    """Carries what a module passed to AnsibleModule."""


def specification(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], bool]:
    """The argument_spec that the module's main() uses, and whether it supports check mode."""
    seen: dict[str, Any] = {}

    def record(self: AnsibleModule, argument_spec: dict[str, Any], **settings: Any) -> None:
        seen.update(argument_spec=argument_spec, **settings)
        raise _SpecificationError

    monkeypatch.setattr(AnsibleModule, "__init__", record)
    with pytest.raises(_SpecificationError):
        load(f"library/{name}.py").main()
    return seen["argument_spec"], bool(seen.get("supports_check_mode"))


def facts(option: dict[str, Any]) -> dict[str, Any]:
    """What both sides must say alike of an option, with what is left out filled in."""
    chosen = {"type": "str", "required": False, "default": None, **{k: option[k] for k in FACTS if option.get(k)}}
    if "default" in option:
        chosen["default"] = option["default"]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items()}


def differences(spec: dict[str, Any], docs: dict[str, Any], path: str = "") -> list[str]:
    """Where an argument_spec and documented options part, by the option's path."""
    found = []
    for name in sorted({*spec, *docs}):
        where = f"{path}{name}"
        if name not in docs:
            found.append(f"{where}: not documented")
        elif name not in spec:
            found.append(f"{where}: documented, but no option")
        else:
            if not docs[name].get("description"):
                found.append(f"{where}: no description")
            here, there = facts(spec[name]), facts(docs[name])
            found += [
                f"{where}: {key} is {here.get(key)!r}, documented as {there.get(key)!r}"
                for key in sorted({*here, *there})
                if here.get(key) != there.get(key)
            ]
            found += differences(spec[name].get("options") or {}, docs[name].get("suboptions") or {}, f"{where}.")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = specification(name, monkeypatch)
    assert differences(spec, documented(name)["doc"].get("options") or {}) == []


@pytest.mark.parametrize("name", MODULES)
def test_everything_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = documented(name)
    doc = page["doc"]
    missing = [key for key in ("short_description", "description", "author") if not doc.get(key)]
    missing += [key for key in ("examples", "return") if not page.get(key)]
    missing += [f"attributes.{key}" for key in ("check_mode", "diff_mode") if key not in (doc.get("attributes") or {})]
    assert missing == []
    _, supported = specification(name, monkeypatch)
    assert (doc["attributes"]["check_mode"]["support"] != "none") == supported
    assert re.search(rf"^  {name}:", page["examples"], re.MULTILINE), "no example uses the module"
    assert [key for key, value in page["return"].items() if not (value.get("description") and value.get("type"))] == []


@pytest.mark.parametrize("name", MODULES)
def test_secrets_are_not_logged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = specification(name, monkeypatch)
    word = re.compile(r"(?:^|_)(?:password|passphrase|secrets?|token)(?:$|_)")
    assert [option for option, facts in spec.items() if word.search(option) and not facts.get("no_log")] == []


@pytest.mark.parametrize(
    ("spec", "docs", "found"),
    [
        ({"a": {"type": "str"}}, {"a": {"description": ["x"], "type": "str"}}, []),
        ({"a": {}}, {}, ["a: not documented"]),
        ({}, {"a": {"description": ["x"]}}, ["a: documented, but no option"]),
        (
            {"a": {"type": "int", "default": 3}},
            {"a": {"description": ["x"], "type": "int", "default": 2}},
            ["a: default is 3, documented as 2"],
        ),
        (
            {"a": {"type": "list", "elements": "dict", "options": {"b": {"required": True}}}},
            {"a": {"description": ["x"], "type": "list", "elements": "dict", "suboptions": {"b": {"description": []}}}},
            ["a.b: no description", "a.b: required is True, documented as False"],
        ),
        (
            {"a": {"choices": ("x", "y")}},
            {"a": {"description": ["x"], "choices": ["x"]}},
            ["a: choices is ['x', 'y'], documented as ['x']"],
        ),
    ],
)
def test_the_comparison_itself(spec: dict[str, Any], docs: dict[str, Any], found: list[str]) -> None:
    assert differences(spec, docs) == found
