"""A service for the stories: it tells its release, counts what is posted to it, and misbehaves as it is told.

GET /healthz and /readyz   200 while healthy
GET /                      JSON: which replica of which release this is, and VERSION
GET /slow?seconds=2        the same, later
GET /stream?seconds=2      STREAM, line by line in that time
POST /post                 the body, an id, goes with the release to a file in /srv/posts, and is then the answer

SIGTERM: no more connections are taken, what is open is answered, then it exits with 0.

ECHO_BEHAVIOUR, so that a variable alone makes each kind of bad release; several have commas between them:
good                        exits                 with 3, at once
exits-later:SECONDS         never-healthy         slow-start:SECONDS (healthy from then on)
sick-after:SECONDS          errors:SHARE (of GET /, while it is healthy)
slow-answers:MILLISECONDS   ignores-term
drops-at-term (ends at once, whatever is open)
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

STREAM = [f"line {number:02}\n" for number in range(20)]
# How long an idle connection may still bring a request after SIGTERM
GRACE = 1.0
MOST_SECONDS = 60.0
MOST_HEAD, MOST_BODY = 16_384, 65_536
PLAIN = {"good", "exits", "never-healthy", "ignores-term", "drops-at-term"}
NUMBERED = {"exits-later", "slow-start", "sick-after", "errors", "slow-answers"}
TOLD = ("service", "datacenter", "node", "replica", "slot", "release", "digest")
EXITS_WITH = 3


def log(text: str) -> None:
    print(f"echo: {text}", flush=True)


def behaviours(text: str) -> dict[str, float]:
    """`errors:0.1,ignores-term` → each with its number (0 where it takes none)."""
    found = {}
    for one in filter(None, text.replace(" ", "").split(",")):
        name, colon, number = one.partition(":")
        fits = not colon if name in PLAIN else name in NUMBERED and re.fullmatch(r"\d+(\.\d+)?", number)
        if not fits:
            allowed = ", ".join(sorted(PLAIN | {f"{name}:<number>" for name in NUMBERED}))
            raise ValueError(f'ECHO_BEHAVIOUR: expected one of {allowed}; got "{one}"')
        found[name] = float(number or 0)
    return found


def duration(query: str) -> float | None:
    text = parse_qs(query).get("seconds", ["2"])[0]
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) and float(text) <= MOST_SECONDS else None


class Echo:
    """What the connections share."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.behaves = behaviours(environ.get("ECHO_BEHAVIOUR", ""))
        self.release = environ.get("QJ_RELEASE", "")
        told = {name: environ.get(f"QJ_{name.upper()}", "") for name in TOLD}
        self.identity = json.dumps({**told, "version": environ.get("VERSION", "")}) + "\n"
        self.delay = self.behaves.get("slow-answers", 0) / 1000
        # A container's name stays when it is restarted: one file each
        self.posts = os.path.join(environ.get("POSTS", "/srv/posts"), socket.gethostname())  # noqa: PTH118 - an import less
        self.posts_file = -1
        self.port = int(environ.get("PORT", "8080"))
        self.asked = 0
        self.stopping = False
        self.connections: set[Connection] = set()
        self.stop_asked = asyncio.Event()
        self.started = time.monotonic()

    def unwell(self) -> tuple[int, str] | None:
        age = time.monotonic() - self.started
        if "never-healthy" in self.behaves:
            return 503, "never healthy\n"
        if age < self.behaves.get("slow-start", 0):
            return 503, "still starting\n"
        if age >= self.behaves.get("sick-after", float("inf")):
            return 500, "sick\n"
        return None

    def root(self) -> tuple[int, str]:
        """Evenly spread: of any ten, one fails at a share of 0.1."""
        share = self.behaves.get("errors", 0)
        before, self.asked = self.asked, self.asked + 1
        if int(self.asked * share) > int(before * share):
            return 500, "told to fail\n"
        return 200, self.identity

    def post(self, body: bytes) -> tuple[int, str]:
        """One write at the end of the file, with the kernel before the answer: a killed process loses nothing."""
        text = body.decode("latin-1")
        if not re.fullmatch(r"[!-~]{1,200}", text):
            return 400, "expected an id of 1 to 200 visible characters\n"
        try:
            if self.posts_file < 0:
                self.posts_file = os.open(self.posts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(self.posts_file, f"{text} {self.release}\n".encode())
        except OSError as error:
            log(f"{self.posts}: {error.strerror}")
            return 500, f"{self.posts}: {error.strerror}\n"
        return 200, text

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", self.port))
        listener.listen(1024)
        listener.setblocking(False)
        server = await loop.create_server(lambda: Connection(self), sock=listener, backlog=1024)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if "exits-later" in self.behaves:
            loop.call_later(self.behaves["exits-later"], self.exit)
        log(f"release {self.release}: listening on {listener.getsockname()[1]}")
        await self.stop_asked.wait()
        await asyncio.gather(*self.close(server, listener), return_exceptions=True)
        for connection in self.connections:
            connection.close_when_idle()
        while self.connections:
            await asyncio.sleep(0.02)
        log("stopped")

    def stop(self) -> None:
        if "drops-at-term" in self.behaves:
            os._exit(0)
        if "ignores-term" in self.behaves:
            log("SIGTERM ignored")
        elif not self.stopping:
            log(f"SIGTERM: {len(self.connections)} connections are open")
            self.stopping = True
            self.stop_asked.set()

    def close(self, server: asyncio.Server, listener: socket.socket) -> Iterator[Coroutine[Any, Any, object]]:
        """Take what the kernel has taken already (it would be reset with the listener), and nothing more."""
        loop = asyncio.get_running_loop()
        accepted = []
        with suppress(BlockingIOError):
            while True:
                accepted.append(listener.accept()[0])
        server.close()
        return (loop.connect_accepted_socket(lambda: Connection(self), connection) for connection in accepted)

    def exit(self) -> None:
        log(f"told to exit with {EXITS_WITH}")
        os._exit(EXITS_WITH)


class Connection(asyncio.Protocol):
    """A client's connection: its requests one after the other."""

    def __init__(self, echo: Echo) -> None:
        self.echo = echo
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.busy = self.closing = self.ended = False
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.echo.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        self.echo.connections.discard(self)

    def eof_received(self) -> bool:
        """A client that has said all may still wait for its answer."""
        self.ended = True
        return self.busy

    def close_when_idle(self) -> None:
        def close() -> None:
            if not self.busy:
                self.transport.close()

        self.loop.call_later(GRACE, close)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.busy:
            self.next()

    def next(self) -> None:
        """Answer the request that the buffer begins with, if it is complete."""
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            if len(head) > MOST_HEAD:
                self.refuse(431)
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = fields.get("content-length", "0")
        if not re.fullmatch(r"[A-Z]+ /\S* HTTP/1\.[01]", first) or not re.fullmatch("[0-9]{1,10}", length):
            return self.refuse(400)
        if "transfer-encoding" in fields:
            return self.refuse(411)
        if int(length) > MOST_BODY:
            return self.refuse(413)
        if len(rest) < int(length):
            return None
        self.busy, self.buffer = True, rest[int(length) :]
        method, target, version = first.split(" ")
        asked = fields.get("connection", "").lower()
        self.closing = "close" in asked or (version == "HTTP/1.0" and "keep-alive" not in asked)
        return self.handle(method, target, rest[: int(length)])

    def refuse(self, status: int) -> None:
        self.closing = True
        self.answer(status, f"{HTTPStatus(status).phrase}\n")

    def handle(self, method: str, target: str, body: bytes) -> None:
        path, _, query = target.partition("?")
        echo = self.echo
        if (method, path) == ("POST", "/post"):
            self.later(echo.delay, *echo.post(body))
        elif method != "GET":
            self.answer(405, "expected GET, or POST /post\n")
        elif path in ("/healthz", "/readyz"):
            stopping = (503, "stopping\n") if path == "/readyz" and echo.stopping else None
            self.answer(*(echo.unwell() or stopping or (200, "ok\n")))
        elif path == "/":
            self.later(echo.delay, *echo.root())
        elif path not in ("/slow", "/stream"):
            self.answer(404, "no such path\n")
        elif (seconds := duration(query)) is None:
            self.answer(400, f"seconds: expected a number up to {MOST_SECONDS:g}\n")
        elif path == "/slow":
            self.later(echo.delay + seconds, 200, echo.identity)
        else:
            self.head(200, "text/plain", "Transfer-Encoding: chunked")
            self.stream(0, seconds / len(STREAM))

    def later(self, seconds: float, status: int, body: str) -> None:
        if seconds > 0:
            self.timer = self.loop.call_later(seconds, self.answer, status, body)
        else:
            self.answer(status, body)

    def head(self, status: int, kind: str, field: str, body: bytes = b"") -> None:
        """Who was told that the connection closes sends no more on it: then it may be closed without a loss."""
        self.closing = self.closing or self.ended or self.echo.stopping
        last = "Connection: close\r\n\r\n" if self.closing else "\r\n"
        text = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n{field}\r\n{last}"
        self.transport.write(text.encode() + body)

    def answer(self, status: int, body: str) -> None:
        kind = "application/json" if body.startswith("{") else "text/plain"
        data = body.encode()
        self.head(status, kind, f"Content-Length: {len(data)}", data)
        self.done()

    def stream(self, number: int, pause: float) -> None:
        if number == len(STREAM):
            self.transport.write(b"0\r\n\r\n")
            return self.done()
        line = STREAM[number].encode()
        self.transport.write(b"%x\r\n%b\r\n" % (len(line), line))
        self.timer = self.loop.call_later(pause, self.stream, number + 1, pause)
        return None

    def done(self) -> None:
        self.busy, self.timer = False, None
        if self.closing or self.ended:
            self.transport.close()
        elif self.echo.stopping:  # SIGTERM came after its head
            self.close_when_idle()
        elif self.buffer:
            self.loop.call_soon(self.next)


async def main() -> int:
    try:
        echo = Echo(os.environ)
    except ValueError as error:
        log(str(error))
        return 2
    if "exits" in echo.behaves:
        log(f"told to exit with {EXITS_WITH}")
        return EXITS_WITH
    await echo.serve()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
