"""An open-loop load: requests start when they are due, whatever became of those before. Every failure is counted."""

from __future__ import annotations

import asyncio
import collections
import itertools
import threading
import time

# Out of twenty: quick GETs, POSTs, a GET of 2 s, a stream of 2 s
MIX = ["GET", "GET", "GET", "POST"] * 4 + ["GET", "GET", "SLOW", "STREAM"]
PATHS = {"GET": "/x", "POST": "/x", "SLOW": "/slow", "STREAM": "/stream"}
STREAM = b"hello" * 20
TIMEOUT = 20
FRESH = 5


class Load(threading.Thread):
    """Half of the clients keep their connections. It ends after `seconds`, or when `enough` is set.

    `done` counts the right answers by kind, `failures` all others.
    """

    def __init__(self, host: str, port: int, seconds: float, rate: float = 100) -> None:
        super().__init__(daemon=True)
        self.target = (host, port)
        self.total, self.rate = int(seconds * rate), rate
        self.enough = threading.Event()
        self.done: collections.Counter[str] = collections.Counter()
        self.failures: collections.Counter[str] = collections.Counter()
        self.idle: collections.deque[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = collections.deque()

    def __enter__(self) -> Load:
        self.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    def run(self) -> None:
        asyncio.run(self.send_all())

    async def send_all(self) -> None:
        start, tasks = time.monotonic(), []
        for number, kind in zip(range(self.total), itertools.cycle(MIX), strict=False):
            if self.enough.is_set():
                break
            await asyncio.sleep(max(0.0, start + number / self.rate - time.monotonic()))
            tasks.append(asyncio.create_task(self.send(kind, keep=number % 7 < 4)))
        self.total = len(tasks)
        await asyncio.gather(*tasks)

    async def send(self, kind: str, keep: bool) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                problem = await self.exchange(kind, keep)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            problem = f"{kind} {'kept' if keep else 'new'} connection: {type(error).__name__}"
        if problem:
            self.failures[problem] += 1
        else:
            self.done[kind] += 1

    def kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection kept longest, but none that the gateway is about to close as idle (after 10 s)."""
        while self.idle:
            since, reader, writer = self.idle.popleft()
            if time.monotonic() - since < FRESH:
                return reader, writer
            writer.close()
        return None

    async def exchange(self, kind: str, keep: bool) -> str:
        reader, writer = (keep and self.kept()) or await asyncio.open_connection(*self.target)
        closing = True
        try:
            body = b"x" * 100 if kind == "POST" else b""
            method = "POST" if body else "GET"
            head = f"{method} {PATHS[kind]} HTTP/1.1\r\nHost: probe\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            status, data, closing = await self.answer(reader)
            if keep and not closing:
                self.idle.append((time.monotonic(), reader, writer))
        finally:
            if closing or not keep:
                writer.close()
        if status != 200:
            return f"{kind} {status}"
        return "STREAM truncated" if kind == "STREAM" and data != STREAM else ""

    @staticmethod
    async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        closing = b"connection: close" in head
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            return int(head.split()[1]), await reader.readexactly(length), closing
        data = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            data += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return int(head.split()[1]), data, closing
