# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateways see: each datacenter's HAProxy statistics, fetched in the background while somebody looks.

Every replica of the WebUI asks for itself, and an answer names every server of a datacenter: 200 nodes with 50 services
make 5 MB of it. Asked for by every replica whether anybody looks or not, that is more than 100 MB/s at each gateway.
"""

from __future__ import annotations

import csv
import http.client
import logging
import math
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from .document import Datacenter, Document

INTERVAL = 2.0
# Three times what a page takes to ask again. No longer: the gateways send each request to another replica, so that one
# open page keeps as many of them asking as it has requests in this time.
WATCHED = 10.0
# How long who looks first after a pause waits for the answers. Below the 2 s that the gateways and the engine give a
# health check: those who wait may have all threads.
WAIT = 1.5
# For a connection, and for each part of an answer
TIMEOUT = 1.0
# An answer stays good for two missed rounds, so that one lost packet does not alarm anyone.
FRESH = 5.0
# What an answer may have without any server: headings, sums, other datacenters
MAXIMUM_BYTES = 4 * 1024 * 1024
# A server's row has about 240 bytes; four times as much where names and numbers are long
ROW_BYTES = 256
LONGEST_ROW_BYTES = 1024
# Bytes a second, below which a gateway counts as away
SLOWEST = 2 * 1024 * 1024
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
# The statistics addresses of a datacenter's gateways, any of which knows all of its servers
Gateways = tuple[str, ...]


class StatisticsError(Exception):
    """A gateway did not answer with its statistics; the message says how."""


def parse_statistics(text: str) -> Servers:
    """Read HAProxy's CSV. Servers that are not named `<node>.<replica>.<slot>` are not replicas of the platform."""
    if not text.startswith("# pxname,svname,"):
        raise StatisticsError("answered, but not with HAProxy statistics")
    servers: Servers = {}
    try:
        heading, *rows = csv.reader(text.removeprefix("# ").splitlines())
    except csv.Error as error:
        raise StatisticsError("answered, but not with HAProxy statistics") from error
    for values in rows:
        name = SERVER_NAME.fullmatch(values[1]) if len(values) > 1 else None
        if not name:
            continue
        row = dict(zip(heading, values, strict=False))
        sessions = row.get("scur") or ""
        servers.setdefault((row["pxname"], name["node"], int(name["replica"])), {})[name["slot"]] = Server(
            status=(row.get("status") or "").partition(" (")[0],
            sessions=int(sessions) if sessions.isdecimal() else 0,
            check=row.get("check_desc") or "",
        )
    return servers


def expected_servers(document: Document, datacenter: Datacenter) -> int:
    """How many servers the gateways of a datacenter have: both slots of each replica of what they forward."""
    replicas = sum(
        each.replicas for each in document.services if each.port is not None and datacenter.name in each.datacenters
    )
    return 2 * len(datacenter.nodes) * replicas


def longest_answer(servers: int, timeout: float = TIMEOUT) -> float:
    """Seconds that an answer with so many servers may take."""
    return timeout + servers * ROW_BYTES / SLOWEST


def fetch_statistics(url: str, servers: int = 0, timeout: float = TIMEOUT) -> str:
    """GET the statistics, which name so many servers.

    `timeout` is for the connection and for each wait within the answer. The whole answer, also one that trickles, has a
    limit in time and in size, against what is no gateway. Both follow the number of servers: a datacenter that grows
    beyond fixed ones would be away for good.
    """
    seconds = longest_answer(servers, timeout)
    largest = MAXIMUM_BYTES + servers * LONGEST_ROW_BYTES
    deadline = time.monotonic() + seconds
    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
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
            if len(body) > largest:
                raise StatisticsError(f"answered with more than {largest // 1024 // 1024} MiB")
            if time.monotonic() > deadline:
                raise StatisticsError(f"no answer within {seconds:.2g} s")
        return body.decode("utf-8", "replace")
    except TimeoutError as error:
        raise StatisticsError(f"no answer within {timeout:g} s") from error
    except ConnectionRefusedError as error:
        raise StatisticsError("connection refused") from error
    except OSError as error:
        raise StatisticsError((error.strerror or str(error)).lower()) from error
    except http.client.HTTPException as error:
        raise StatisticsError(f"not HTTP: {type(error).__name__}") from error
    except UnicodeError as error:
        raise StatisticsError(f"its address is not one: {error}") from error
    finally:
        connection.close()


@dataclass
class Observation:
    """The last answer of a datacenter's gateways, by which of them, and their failure since then, if any."""

    answered_at: float | None = None
    servers: Servers = field(default_factory=dict)
    failed_at: float | None = None
    error: str | None = None
    good_for: float = FRESH
    address: str | None = None

    def state(self, now: float) -> str:
        """Is the datacenter `reachable`, `away`, or is it still being asked for the first time (`checking`)?"""
        if self.answered_at is not None and now - self.answered_at <= self.good_for:
            return "reachable"
        return "away" if self.is_told() else "checking"

    def is_told(self) -> bool:
        """Has a gateway answered, or have all failed to?"""
        return self.answered_at is not None or self.failed_at is not None


Observations = dict[Gateways, Observation]


class GatewayWatcher:
    """Asks a gateway of every datacenter every two seconds while somebody looks, for each on a thread of its own.

    One that hangs delays no other. Who looks is shown what was heard last; only the first one after a pause waits, and
    not for long.
    """

    def __init__(
        self,
        document: Callable[[], Document | None],
        fetch: Callable[[str, int], str] = fetch_statistics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._document = document
        self._fetch = fetch
        self._clock = clock
        self._observations: Observations = {}
        self._busy: set[Gateways] = set()
        self._changed = threading.Condition()
        self._resting = False
        self._waking = False
        self._looked_at = self._woken_at = -math.inf

    def start(self) -> None:
        self._resting = True
        threading.Thread(target=self._run, name="gateway-watcher", daemon=True).start()

    def look(self) -> Observations:
        """What the gateways said, in a copy that nobody changes. They go on being asked."""
        with self._changed:
            self._looked_at = time.monotonic()
            if self._resting:
                self._wake()
            self._changed.wait_for(self._all_told, max(0.0, self._woken_at + WAIT - self._looked_at))
            return dict(self._observations)

    def ask(self, gateways: Gateways, servers: int = 0) -> None:
        """One round for one datacenter, which has so many servers: the first gateway that answers.

        The one that answered last comes first, so that one that hangs costs its time once and not in every round.
        """
        with self._changed:
            last = self._observations.get(gateways, Observation()).address
        failures: dict[str, str] = {}
        answer: Observation | None = None
        for address in sorted(gateways, key=lambda each: each != last):
            try:
                found = parse_statistics(self._fetch(address, servers))
            except StatisticsError as error:
                failures[address] = str(error)
            else:
                answer = Observation(self._clock(), found, good_for=_good_for(servers), address=address)
                break
        with self._changed:
            before = self._observations.get(gateways, Observation())
            said = "; ".join(dict.fromkeys(failures.values()))
            self._observations[gateways] = answer or replace(before, failed_at=self._clock(), error=said)
            self._changed.notify_all()
        if before.error is None:
            for address, failure in failures.items():
                log.warning("gateway %s: %s", urlsplit(address).netloc, failure)
        elif answer:
            log.info("gateway %s answers again", urlsplit(answer.address).netloc)

    def _wake(self) -> None:
        """What was seen before the pause says nothing of now: keep which gateway answers, and what the log has told."""
        self._resting, self._waking = False, True
        self._woken_at = self._looked_at
        self._observations = {
            gateways: Observation(error=each.error, address=each.address)
            for gateways, each in self._observations.items()
        }
        self._changed.notify_all()

    def _all_told(self) -> bool:
        return not self._waking and all(each.is_told() for each in self._observations.values())

    def _rest_unless_watched(self) -> None:
        with self._changed:
            self._resting = self._resting or time.monotonic() - self._looked_at > WATCHED
            self._changed.wait_for(lambda: not self._resting)

    def _due(self) -> dict[Gateways, int]:
        """Whom to ask now, and how many servers they have. Who is still being asked is left out."""
        document = self._document()
        servers = (
            {each.statistics: expected_servers(document, each) for each in document.datacenters if each.statistics}
            if document
            else {}
        )
        with self._changed:
            self._observations = {each: self._observations.get(each, Observation()) for each in servers}
            self._waking = False
            due = {each: servers[each] for each in sorted(servers.keys() - self._busy)}
            self._busy |= due.keys()
            self._changed.notify_all()
        return due

    def _ask(self, gateways: Gateways, servers: int) -> None:
        try:
            self.ask(gateways, servers)
        except Exception:
            # The pool would keep it to itself
            log.exception("gateways %s", ", ".join(gateways))
        finally:
            with self._changed:
                self._busy.discard(gateways)

    def _run(self) -> None:
        with ThreadPoolExecutor(max_workers=16, thread_name_prefix="gateway") as pool:
            while True:
                self._rest_unless_watched()
                for gateways, servers in self._due().items():
                    try:
                        pool.submit(self._ask, gateways, servers)
                    except RuntimeError:
                        # the process ends, and the interpreter has closed the pool
                        return
                time.sleep(INTERVAL)


def _good_for(servers: int) -> float:
    """As FRESH, where an answer takes long: a gateway is asked again only after it has answered."""
    seconds = longest_answer(servers)
    return 2 * max(INTERVAL, seconds) + seconds
