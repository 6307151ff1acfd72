# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from webui.document import DocumentError, PlatformFile, parse_document


def test_whole_document(platform: dict[str, Any]) -> None:
    document = parse_document(json.dumps(platform))
    assert (document.environment, document.origin) == ("lab", "hangzhou")
    assert [node.name for each in document.datacenters for node in each.nodes][::3] == [
        "hangzhou-node1",
        "shanghai-node2",
    ]
    assert document.datacenters[0].statistics == ("http://hangzhou.gateway:8404/;csv",)
    assert document.services[0].datacenters == ("hangzhou", "shanghai")
    assert [each.container for each in document.replicas] == ["webui.0.r7"] * 4


@pytest.mark.parametrize(
    ("stats", "statistics", "addresses"),
    [
        ("http://g1/", None, ("http://g1/",)),  # written before there were several
        ("http://g1/", ["http://g1/", "http://g2/"], ("http://g1/", "http://g2/")),
        (None, ["http://g2/"], ("http://g2/",)),
        ("http://g1/", [], ("http://g1/",)),
        (None, None, ()),
    ],
)
def test_addresses_of_the_statistics(
    platform: dict[str, Any], stats: str | None, statistics: list[str] | None, addresses: tuple[str, ...]
) -> None:
    platform["datacenters"][0].update(stats=stats, statistics=statistics)
    assert parse_document(json.dumps(platform)).datacenters[0].statistics == addresses


def test_empty_document_is_a_platform_without_anything() -> None:
    document = parse_document("{}")
    assert (document.datacenters, document.services, document.replicas) == ((), (), ())


def test_unknown_keys_are_left_alone(platform: dict[str, Any]) -> None:
    before = parse_document(json.dumps(platform))
    platform["datacenters"][0]["height"] = 12
    assert parse_document(json.dumps(platform)) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["services"][0].update(replicas="two"), 'services[0].replicas: expected a whole number, got "two"'),
        (lambda d: d["services"][0].update(replicas=True), "services[0].replicas: expected a whole number, got true"),
        (lambda d: d["services"][0].pop("replicas"), "services[0].replicas: expected a whole number, got nothing"),
        (lambda d: d["services"][0].update(datacenters=[7]), "services[0].datacenters[0]: expected text, got 7"),
        (lambda d: d["datacenters"][1].pop("name"), "datacenters[1].name: expected text, got nothing"),
        (lambda d: d["datacenters"][0].update(nodes={}), "datacenters[0].nodes: expected a list, got {}"),
        (lambda d: d["replicas"].append([]), "replicas[4]: expected an object, got []"),
        (lambda d: d.update(environment=1), "environment: expected text, got 1"),
    ],
)
def test_wrong_values_are_named(platform: dict[str, Any], change: Callable[[Any], Any], message: str) -> None:
    change(platform)
    with pytest.raises(DocumentError) as failure:
        parse_document(json.dumps(platform))
    assert str(failure.value) == message


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe\x00", "[1,"])
def test_not_json(text: str | bytes) -> None:
    with pytest.raises(DocumentError, match=r"^not JSON: "):
        parse_document(text)


def test_file_is_parsed_again_only_when_it_changes(platform_file: Path, platform: dict[str, Any]) -> None:
    file = PlatformFile(platform_file)
    first = file.read()
    assert file.read() is first

    platform["services"][0]["release"] = 8
    platform_file.write_text(json.dumps(platform))
    os.utime(platform_file, (1_000_000_000, 1_000_000_000))
    second = file.read()
    assert second.document
    assert (second.document.services[0].release, second.written_at) == (8, 1_000_000_000)


def test_a_file_replaced_by_another_is_noticed(platform_file: Path, platform: dict[str, Any]) -> None:
    file = PlatformFile(platform_file)
    file.read()
    status = platform_file.stat()
    platform["services"][0]["release"] = 8
    new = platform_file.with_suffix(".new")
    new.write_text(json.dumps(platform))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(platform_file)
    document = file.read().document
    assert document
    assert document.services[0].release == 8


def test_missing_file(tmp_path: Path) -> None:
    reading = PlatformFile(tmp_path / "none.json").read()
    assert reading.document is None
    assert reading.problem == f"There is no platform document at {tmp_path}/none.json."


def test_bad_version_never_replaces_a_good_one(platform_file: Path) -> None:
    good = platform_file.read_text()
    file = PlatformFile(platform_file)
    file.read()
    platform_file.write_text(good[:100])
    for _ in range(2):  # also the second time, when nothing is parsed any more
        reading = file.read()
        assert reading.document
        assert reading.document.services[0].release == 7
        assert reading.problem
        assert reading.problem.startswith(f"The platform document {platform_file} cannot be used: not JSON: ")


def test_the_same_file_back_again_is_no_problem_any_more(platform_file: Path) -> None:
    file = PlatformFile(platform_file)
    file.read()
    aside = platform_file.rename(platform_file.with_suffix(".aside"))
    reading = file.read()
    assert reading.document
    assert reading.problem == f"There is no platform document at {platform_file}."
    aside.rename(platform_file)
    assert file.read().problem is None
