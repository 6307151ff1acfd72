# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Flask application: the page, the same as JSON, and what the platform asks a service about itself."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from flask import Flask, Response, jsonify, render_template, request
from markupsafe import Markup

from .document import PlatformFile
from .gateway import GatewayWatcher
from .identity import Identity, read_identity, served_by
from .log import configure
from .overview import Overview, build_overview

DEFAULT_PLATFORM_FILE = "/srv/platform/platform.json"
ASSETS = Path(__file__).with_name("assets")


@dataclass
class Portal:
    """What the application knows beside the requests. Threads start only in `start`, after the server has forked."""

    file: PlatformFile
    watcher: GatewayWatcher
    identity: Identity
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self.watcher.start()

    def stop(self) -> None:
        """From now on not ready: finish what came in, send nothing new."""
        self.stopping.set()

    def overview(self) -> Overview:
        """What pages and their data show. Nothing else is a reason to ask the gateways."""
        return build_overview(self.file.read(), self.watcher.look(), self.identity, time.time())


@dataclass(frozen=True)
class Assets:
    """Style and script, put into the page itself: while two releases serve side by side, a page that had to fetch them
    could get those of the other one."""

    style: Markup
    script: Markup
    version: str
    policy: str


def create_app(platform_file: Path | None = None) -> Flask:
    """The application, ready to serve: everything that could fail has been loaded."""
    configure()
    file = PlatformFile(platform_file or Path(os.environ.get("PLATFORM_FILE") or DEFAULT_PLATFORM_FILE))
    portal = Portal(file, GatewayWatcher(lambda: file.read().document), read_identity(os.environ))
    app = Flask("webui", root_path=str(Path(__file__).parent), static_folder=None)
    app.extensions["portal"] = portal
    app.json.sort_keys = False  # type: ignore[attr-defined]  # an attribute of the default provider only
    assets = load_assets()
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    for template in app.jinja_env.list_templates():
        app.jinja_env.get_template(template)

    @app.get("/")
    def page() -> str:
        return render_template("page.html", overview=portal.overview(), assets=assets)

    @app.get("/api/platform")
    def platform() -> Response | str:
        overview = portal.overview()
        if request.args.get("view") == "page":  # the page's own script: the same, already drawn
            return render_template("overview.html", overview=overview)
        return jsonify(overview)

    @app.get("/api/whoami")
    def whoami() -> Response:
        return jsonify(portal.identity)

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("alive\n", mimetype="text/plain")

    @app.get("/readyz")
    def readyz() -> Response:
        # A missing document is no reason: it is missing on every node at once, and a page that says so beats none.
        if portal.stopping.is_set():
            return Response("stopping\n", 503, mimetype="text/plain")
        return Response("ready\n", mimetype="text/plain")

    @app.after_request
    def headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = assets.policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Served-By"] = served_by(portal.identity)
        response.headers["X-Page-Version"] = assets.version
        return response

    return app


def load_assets() -> Assets:
    """Read style and script, with the policy that allows these two and nothing else."""
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("style.css", "live.js"))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    templates = sorted((Path(__file__).with_name("templates")).glob("*.html"))
    everything = "".join([style, script, *(each.read_text(encoding="utf-8") for each in templates)])
    version = hashlib.sha256(everything.encode()).hexdigest()[:16]
    return Assets(Markup(style), Markup(script), version, policy)  # noqa: S704  # our own files


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
