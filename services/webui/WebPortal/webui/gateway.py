# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateways see: each datacenter's HAProxy statistics, fetched in the background: no page waits for them."""

from __future__ import annotations

import csv
import http.client
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .document import Document

INTERVAL = 2.0
TIMEOUT = 1.0
# An answer stays good for two missed rounds, so that one lost packet does not alarm anyone.
FRESH = 5.0
MAXIMUM_BYTES = 4 * 1024 * 1024
SERVER_NAME = re.compile(r"(?P<node>.+)\.(?P<replica>[0-9]+)\.(?P<slot>[ab])")

log = logging.getLogger("webui.gateway")


@dataclass(frozen=True)
class Server:
    """A slot of a replica, as the gateway sees it."""

    status: str
    sessions: int = 0
    check: str = ""


# (service, node, replica) → slot → server
Servers = dict[tuple[str, str, int], dict[str, Server]]


class StatisticsError(Exception):
    """A gateway did not answer with its statistics; the message says how."""


def parse_statistics(text: str) -> Servers:
    """Read HAProxy's CSV. Servers that are not named `<node>.<replica>.<slot>` are not replicas of the platform."""
    if not text.startswith("# pxname,svname,"):
        raise StatisticsError("answered, but not with HAProxy statistics")
    servers: Servers = {}
    for row in csv.DictReader(text.removeprefix("# ").splitlines()):
        name = SERVER_NAME.fullmatch(row["svname"] or "")
        if not name:
            continue
        sessions = row.get("scur") or ""
        servers.setdefault((row["pxname"], name["node"], int(name["replica"])), {})[name["slot"]] = Server(
            status=(row.get("status") or "").partition(" (")[0],
            sessions=int(sessions) if sessions.isdecimal() else 0,
            check=row.get("check_desc") or "",
        )
    return servers


def fetch_statistics(url: str, timeout: float = TIMEOUT) -> str:
    """GET the statistics; the timeout is for the whole answer, also one that trickles."""
    deadline = time.monotonic() + timeout
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    except (ValueError, http.client.InvalidURL) as error:
        raise StatisticsError(f"its address is not one: {error}") from error
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Connection": "close"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise StatisticsError(f"answered {answer.status}")
        body = bytearray()
        while chunk := answer.read1(65536):
            body += chunk
            if len(body) > MAXIMUM_BYTES:
                raise StatisticsError(f"answered with more than {MAXIMUM_BYTES // 1024 // 1024} MiB")
            if time.monotonic() > deadline:
                raise TimeoutError
        return body.decode("utf-8", "replace")
    except TimeoutError as error:
        raise StatisticsError(f"no answer within {timeout:g} s") from error
    except ConnectionRefusedError as error:
        raise StatisticsError("connection refused") from error
    except OSError as error:
        raise StatisticsError((error.strerror or str(error)).lower()) from error
    except http.client.HTTPException as error:
        raise StatisticsError(f"not HTTP: {type(error).__name__}") from error
    finally:
        connection.close()


@dataclass
class Observation:
    """The last answer of a datacenter's gateway, and the failure since then, if any."""

    answered_at: float | None = None
    servers: Servers = field(default_factory=dict)
    failed_at: float | None = None
    error: str | None = None

    def state(self, now: float) -> str:
        """Is the datacenter `reachable`, `away`, or is it still being asked for the first time (`checking`)?"""
        if self.answered_at is not None and now - self.answered_at <= FRESH:
            return "reachable"
        return "checking" if self.answered_at is None and self.failed_at is None else "away"


class GatewayWatcher:
    """Asks every gateway every two seconds, each on a thread of its own: one that hangs delays nobody."""

    def __init__(
        self,
        document: Callable[[], Document | None],
        fetch: Callable[[str], str] = fetch_statistics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._document = document
        self._fetch = fetch
        self._clock = clock
        self._observations: dict[str, Observation] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._run, name="gateway-watcher", daemon=True).start()

    def observations(self) -> dict[str, Observation]:
        """A copy that nobody changes any more, by statistics address."""
        with self._lock:
            return dict(self._observations)

    def ask(self, url: str) -> None:
        """One round for one gateway."""
        with self._lock:
            before = self._observations.get(url, Observation())
        name = urlsplit(url).netloc
        try:
            servers = parse_statistics(self._fetch(url))
        except StatisticsError as error:
            after = Observation(before.answered_at, before.servers, self._clock(), str(error))
            if before.error is None:
                log.warning("gateway %s: %s", name, error)
        else:
            after = Observation(self._clock(), servers)
            if before.error is not None:
                log.info("gateway %s answers again", name)
        with self._lock:
            self._observations[url] = after

    def _ask(self, url: str) -> None:
        try:
            self.ask(url)
        finally:
            with self._lock:
                self._busy.discard(url)

    def _run(self) -> None:
        with ThreadPoolExecutor(max_workers=16, thread_name_prefix="gateway") as pool:
            while True:
                document = self._document()
                urls = {each.statistics for each in document.datacenters if each.statistics} if document else set()
                with self._lock:
                    for gone in self._observations.keys() - urls:
                        del self._observations[gone]
                    idle = urls - self._busy
                    self._busy |= idle
                for url in sorted(idle):
                    try:
                        pool.submit(self._ask, url)
                    except RuntimeError:
                        # the process ends, and the interpreter has closed the pool
                        return
                time.sleep(INTERVAL)
