# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WebUI in a real Chromium, as a person sees it.

WEBUI_URL     a gateway that forwards to the WebUI, or the WebUI itself (required)
WEBUI_NODES   the nodes that must be shown, comma-separated (default: those its API names)
WEBUI_DIGEST  the image all of them must be on (default: the one its API names)
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

URL = os.environ.get("WEBUI_URL", "")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(not URL, reason="WEBUI_URL names no WebUI to look at"),
    pytest.mark.skipif(not BROWSER, reason="no Chromium: apt-get install chromium"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--window-size=1280,1024",
)


@dataclass
class Page:
    """The text of every table row, of the summary and of who answered; and what the browser complained about."""

    rows: list[str] = field(default_factory=list)
    marked: list[str] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    text: str = ""
    complaints: list[str] = field(default_factory=list)


class Reader(HTMLParser):
    UNSEEN = frozenset({"script", "style", "noscript", "head"})
    EMPTY = frozenset({"meta", "link", "br", "rect", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._open: list[tuple[str, dict[str, str | None], int]] = []
        self._texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self._open.append((tag, dict(attrs), len(self._texts)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and tag not in self.EMPTY:
            name, attributes, start = self._open.pop()
            text = " ".join(" ".join(self._texts[start:]).split())
            if name == "tr":
                self.page.rows.append(text)
                if attributes.get("class") == "answered":
                    self.page.marked.append(text)
            if name == "section" and attributes.get("aria-label"):
                self.page.sections[attributes["aria-label"] or ""] = text
            if name == tag:
                break
        self.page.text = " ".join(" ".join(self._texts).split())

    def handle_data(self, data: str) -> None:
        if not any(name in self.UNSEEN for name, _, _ in self._open):
            self._texts.append(data)


def look(url: str, profile: Path, seconds: float = 0) -> Page:
    """Open the page, let the given time go by in the browser, and read what is there."""
    assert BROWSER
    result = subprocess.run(
        [
            BROWSER,
            *FLAGS,
            f"--user-data-dir={profile}",
            f"--virtual-time-budget={int(seconds * 1000) or 100}",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    reader = Reader()
    reader.feed(result.stdout)
    reader.close()
    reader.page.complaints = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return reader.page


def ask(path: str) -> Any:
    parts = urlsplit(URL)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    return json.loads(answer.read())


@pytest.fixture(scope="module")
def platform() -> dict[str, Any]:
    overview: dict[str, Any] = ask("/api/platform")
    return overview


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return look(URL, tmp_path_factory.mktemp("profile"))


def test_the_name_and_the_environment_are_there(page: Page, platform: dict[str, Any]) -> None:
    assert f"钱江源 Qianjiangyuan {platform['environment']}" in page.text


def test_every_node_has_its_row_with_release_image_and_state_in_words(page: Page, platform: dict[str, Any]) -> None:
    nodes = [node for datacenter in platform["datacenters"] for node in datacenter["nodes"]]
    wanted = os.environ.get("WEBUI_NODES", ",".join(node["name"] for node in nodes)).split(",")
    digest = os.environ.get("WEBUI_DIGEST", platform["services"][0]["digest"]).removeprefix("sha256:")[:12]
    assert wanted != [""]
    for name in wanted:
        row = next((each for each in page.rows if each.startswith(name) and " webui " in f" {each} "), None)
        assert row, f"no row for {name}"
        assert re.search(rf"webui \d+.* {digest} [ab] (healthy|switching|unknown)\b", row), row


def test_every_datacenter_is_said_to_be_reachable_or_away(page: Page, platform: dict[str, Any]) -> None:
    for datacenter in platform["datacenters"]:
        origin = "origin " if datacenter["origin"] else ""
        assert re.search(rf"\b{datacenter['name']} {origin}(reachable|away)\b", page.text)


def test_the_summary_is_a_sentence(page: Page) -> None:
    assert page.sections["Summary"].endswith(".")


def test_who_answered_is_named_and_marked_in_its_row(page: Page) -> None:
    answered = re.match(r"Answered by (\S+)", page.sections["Who answered"])
    assert answered
    assert [row.split()[0] for row in page.marked] == [answered[1]]


def test_the_browser_complains_of_nothing(page: Page) -> None:
    assert page.complaints == []


class Between(http.server.BaseHTTPRequestHandler):
    """Hands on what the WebUI says; what is fetched after the page itself says "changed-since" for "healthy"."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        connection = http.client.HTTPConnection(urlsplit(URL).netloc, timeout=10)
        connection.request("GET", self.path)
        answer = connection.getresponse()
        body = answer.read()
        if self.path != "/":
            body = body.replace(b"healthy", b"changed-since")
        self.send_response(answer.status)
        for name in ("Content-Type", "Content-Security-Policy", "X-Page-Version"):
            self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def between() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Between,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


def test_the_page_keeps_itself_up_to_date(between: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = between
    page = look(url, tmp_path, seconds=7)
    assert asked[0] == "/"
    assert asked.count("/api/platform?view=page") >= 2
    assert "changed-since" in page.text
    assert page.complaints == []
