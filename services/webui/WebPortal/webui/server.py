# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gunicorn's settings (`--config python:webui.server`)."""

from __future__ import annotations

import os

bind = f"0.0.0.0:{os.environ.get('PORT', '8080')}"  # a container's own network
# One process, so that one watcher asks the gateways; threads, so that a slow client holds up nobody.
workers = 1
worker_class = "webui.worker.PortalWorker"
threads = 16
# The application is loaded once, before the fork: a mistake in it ends the start instead of a loop of dying workers.
preload_app = True
# The root filesystem is read-only.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True
# Longer than the gateway keeps an idle connection: it must be the one that closes, never under a request on its way.
keepalive = 75
# Below the catalogue's stop_timeout (30 s), after which the engine kills.
graceful_timeout = 25
accesslog = "-"
errorlog = "-"
logger_class = "webui.log.JsonLogger"
