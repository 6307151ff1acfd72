# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs as JSON on stdout, one object a line: requests, the server's own words, and ours."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

# Asked every second or two by the engine and the gateway; only their failures are news.
PROBES = frozenset({"/healthz", "/readyz"})


class JsonFormatter(logging.Formatter):
    """Fields given as `extra={"fields": {…}}` come along."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class JsonLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's logger with its lines as JSON. Query strings, cookies and the like may hold secrets: never logged."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JsonFormatter())
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stdout)

    def access(
        self,
        resp: Any,
        req: Any,  # noqa: ARG002  # gunicorn's signature
        environ: dict[str, Any],
        request_time: timedelta,
    ) -> None:
        path, status = environ.get("PATH_INFO", ""), int(str(resp.status).split(None, 1)[0])
        if path in PROBES and status == 200:
            return
        fields = {
            "method": environ.get("REQUEST_METHOD"),
            "path": path,
            "status": status,
            "ms": round(request_time.total_seconds() * 1000, 1),
            "bytes": getattr(resp, "sent", None),
            "request_id": (environ.get("HTTP_X_REQUEST_ID") or "")[:128] or None,
        }
        self.access_log.info("request", extra={"fields": fields})


def configure() -> None:
    """Our own loggers, all below `webui`."""
    ours = logging.getLogger("webui")
    if not ours.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JsonFormatter())
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
