# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from webui.app import create_app
from webui.gateway import WAIT, StatisticsError

VARIABLES = {
    "QJ_SERVICE": "webui",
    "QJ_RELEASE": "7",
    "QJ_DIGEST": "sha256:" + "7" * 64,
    "QJ_DATACENTER": "hangzhou",
    "QJ_NODE": "hangzhou-node1",
    "QJ_REPLICA": "0",
    "QJ_SLOT": "a",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, "PLATFORM_FILE"]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, platform_file: Path, statistics: Callable[..., str]) -> Flask:
    """Started by the platform; hangzhou answers, shanghai does not."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    app = create_app(platform_file)
    watcher = app.extensions["portal"].watcher
    watcher._fetch = lambda *_: statistics(
        ("webui", "hangzhou-node1.0.a", "UP", 0, ""), ("webui", "hangzhou-node2.0.a", "UP", 0, "")
    )
    watcher.ask(("http://hangzhou.gateway:8404/;csv",))
    watcher._fetch = lambda *_: "no"
    watcher.ask(("http://shanghai.gateway:8404/;csv",))
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def test_page_shows_the_platform(client: FlaskClient) -> None:
    page = client.get("/").text
    for text in (
        "钱江源",
        "Qianjiangyuan",
        "lab",
        "hangzhou-node1",
        "hangzhou-node2",
        "shanghai-node1",
        "shanghai-node2",
    ):
        assert text in page
    assert page.count("777777777777</code>") == 6  # the service, its four replicas, and who answered
    assert "shanghai is away: its gateway does not answer (answered, but not with HAProxy statistics)." in page
    assert page.count('<tr class="answered">') == 1


def test_page_needs_nothing_from_elsewhere(client: FlaskClient) -> None:
    page = client.get("/").text
    assert re.findall(r"""<(?:script|img|iframe)[^>]*\bsrc=|<link[^>]*href=["'](?!data:)|@import|url\(""", page) == []


@pytest.mark.parametrize("element", ["style", "script"])
def test_policy_allows_the_inline_style_and_script_and_no_other(client: FlaskClient, element: str) -> None:
    answer = client.get("/")
    body = re.search(rf"<{element}>(.*?)</{element}>", answer.text, re.DOTALL)
    assert body
    digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
    policy = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
    assert policy[f"{element}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert " style=" not in answer.text
    assert not re.search(r"\son[a-z]+=", answer.text)


def test_platform_as_json(client: FlaskClient) -> None:
    answer = client.get("/api/platform")
    assert answer.json
    assert (answer.json["environment"], answer.json["origin"]) == ("lab", "hangzhou")
    assert [each["state"] for each in answer.json["datacenters"]] == ["reachable", "away"]
    assert answer.json["answered_by"]["node"] == "hangzhou-node1"
    assert "8404" not in answer.text


def test_the_drawn_view_is_what_the_page_holds(client: FlaskClient) -> None:
    clocks = re.compile(r"\d\d:\d\d:\d\d")
    main = re.search(r"<main>.*</main>", client.get("/").text, re.DOTALL)
    assert main
    drawn = client.get("/api/platform?view=page")
    assert clocks.sub("", drawn.text.strip()) == clocks.sub("", main[0])
    assert drawn.mimetype == "text/html"
    assert drawn.headers["X-Page-Version"] == client.get("/").headers["X-Page-Version"]


def test_whoami(client: FlaskClient) -> None:
    answer = client.get("/api/whoami")
    assert answer.json
    assert {key: answer.json[key] for key in ("service", "release", "slot", "node", "datacenter", "replica")} == {
        "service": "webui",
        "release": 7,
        "slot": "a",
        "node": "hangzhou-node1",
        "datacenter": "hangzhou",
        "replica": 0,
    }
    assert answer.json["digest"] == VARIABLES["QJ_DIGEST"]
    assert answer.headers["X-Served-By"] == "hangzhou-node1.0.a"


@pytest.mark.parametrize("value", ["", "seven", "-1"])
def test_whoami_without_the_platform(monkeypatch: pytest.MonkeyPatch, platform_file: Path, value: str) -> None:
    monkeypatch.setenv("QJ_RELEASE", value)
    answer = create_app(platform_file).test_client().get("/api/whoami")
    identity: dict[str, object] = answer.get_json()
    assert identity.pop("hostname") == answer.headers["X-Served-By"]
    assert set(identity.values()) == {None}


def test_alive_and_ready_until_told_to_stop(app: Flask, client: FlaskClient) -> None:
    assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    app.extensions["portal"].stop()
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/")] == [200, 503, 200]


def test_a_missing_document_is_said_and_takes_nothing_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLATFORM_FILE", str(tmp_path / "none.json"))
    client = create_app().test_client()
    page = client.get("/")
    assert page.status_code == 200
    assert f"There is no platform document at {tmp_path}/none.json." in page.text
    assert client.get("/readyz").status_code == 200


def test_names_cannot_become_markup(platform: dict[str, Any], platform_file: Path) -> None:
    platform["datacenters"][0]["nodes"][0]["name"] = "<script>alert(1)</script>"
    platform_file.write_text(json.dumps(platform))
    page = create_app(platform_file).test_client().get("/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_no_answer_is_kept_by_a_cache(client: FlaskClient) -> None:
    for path in ("/", "/api/platform", "/api/whoami", "/healthz", "/nothing-here"):
        assert client.get(path).headers["Cache-Control"] == "no-store"


@pytest.fixture
def hanging(app: Flask) -> Iterator[list[str]]:
    """Started, with gateways that do not answer before the end of the test; those that were asked."""
    asked: list[str] = []
    end = threading.Event()

    def fetch(url: str, _servers: int) -> str:
        asked.append(url)
        end.wait(30)
        raise StatisticsError("the test is over")

    app.extensions["portal"].watcher._fetch = fetch
    app.extensions["portal"].start()
    yield asked
    end.set()


@pytest.mark.usefixtures("hanging")
def test_a_page_waits_for_a_gateway_only_after_a_pause_and_not_for_long(client: FlaskClient) -> None:
    started = time.monotonic()
    assert "Asking the gateways for the first time." in client.get("/").text
    assert WAIT <= time.monotonic() - started < WAIT + 0.5
    started = time.monotonic()
    assert client.get("/").status_code == 200
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/", True),
        ("/api/platform", True),
        ("/api/platform?view=page", True),
        ("/api/whoami", False),
        ("/healthz", False),
        ("/readyz", False),
        ("/nothing-here", False),
    ],
)
def test_gateways_are_asked_only_for_who_sees_their_answers(
    hanging: list[str], client: FlaskClient, path: str, counts: bool
) -> None:
    client.get(path)
    time.sleep(0.1)
    assert bool(hanging) == counts
