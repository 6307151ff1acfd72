"""An open-loop load: requests start when they are due, whatever became of those before. Every failure is counted.

    with Load(["172.30.1.10:8081", "172.30.2.10:8081"], rate=300, warm_up=2) as load:
        ...
    assert not load.failures, load
    assert not load.miscounted(posts)

It runs in a process of its own: what the test does meanwhile must not make it late. By hand, one report as JSON:

    python3 molecule/support/load.py --rate 300 --seconds 60 172.30.1.10:8081 172.30.2.10:8081
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import errno
import itertools
import json
import os
import random
import re
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

# A kept connection is used again for so long: less than a gateway keeps an idle one (10 s)
FRESH = 5.0
# What stops a load that nobody stops
MOST_SECONDS = 3600.0


@dataclass(frozen=True)
class Kind:
    """`share` of the requests; an answer is right when its status is 200 and `expect` matches its whole body.

    `{id}` in `body` becomes the request's id, and `\\{id\\}` in `expect` is that id. What has a body changes something.
    """

    name: str
    share: int
    path: str = "/"
    method: str = "GET"
    body: str = ""
    expect: str = "(?s).+"


ECHO = (
    Kind("GET", 86, expect=r'\{"service": .*\}\n'),
    Kind("POST", 10, "/post", "POST", "{id}", r"\{id\}"),
    Kind("SLOW", 2, "/slow?seconds=2", expect=r'\{"service": .*\}\n'),
    Kind("STREAM", 2, "/stream", expect="".join(f"line {number:02}\n" for number in range(20))),
)


@dataclass(frozen=True)
class Options:
    """`targets` (host:port) take turns. It ends after `seconds`, after `count` requests, or when it is told to."""

    targets: Sequence[str]
    rate: float = 100
    seconds: float | None = None
    count: int | None = None
    warm_up: float = 0
    timeout: float = 20
    kinds: Sequence[Kind] = ECHO


@dataclass
class Tally:
    """`failures` by kind and reason, with an example of each; the ids `posted` got the right answer, `unsure` not."""

    total: int = 0
    done: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    examples: dict[str, str] = field(default_factory=dict)
    posted: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=dict)
    late: float = 0

    def summary(self) -> dict[str, Any]:
        """As JSON, with the right answers' milliseconds instead of all their times."""
        milliseconds = {
            kind: {
                name: round(1000 * sorted(times)[min(len(times) * percent // 100, len(times) - 1)], 1)
                for name, percent in (("median", 50), ("p99", 99), ("max", 100))
            }
            for kind, times in self.times.items()
        }
        told = {"milliseconds": milliseconds, "late": round(self.late, 3)}
        return {name: value for name, value in vars(self).items() if name != "times"} | told


class Answer:
    """An answer as it arrives. Raises ValueError for what is no HTTP."""

    def __init__(self) -> None:
        self.rest = b""
        self.status = 0
        self.body = b""
        self.length: int | None = None
        self.chunked = self.closing = False

    def feed(self, data: bytes) -> bool:
        """Whether it is complete."""
        self.rest += data
        if not self.status and not self.read_head():
            return False
        if self.chunked:
            return self.read_chunks()
        if self.length is None or len(self.rest) < self.length:
            return False
        self.body, self.rest = self.rest[: self.length], self.rest[self.length :]
        return True

    def end(self) -> str:
        """What is wrong when the connection closes here."""
        if not self.status:
            return "truncated" if self.rest else "closed without an answer"
        if self.chunked or self.length is not None:
            return "truncated"
        self.body, self.rest = self.rest, b""
        return ""

    def read_head(self) -> bool:
        head, found, rest = self.rest.partition(b"\r\n\r\n")
        if not found:
            return False
        first, *lines = head.lower().split(b"\r\n")
        words = first.split()
        if len(words) < 2 or not words[0].startswith(b"http/1."):
            raise ValueError(first)
        fields = {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self.status, self.rest = int(words[1]), rest
        self.closing = fields.get(b"connection") == b"close" or words[0] == b"http/1.0"
        self.chunked = fields.get(b"transfer-encoding") == b"chunked"
        self.length = int(fields[b"content-length"]) if b"content-length" in fields else None
        return True

    def read_chunks(self) -> bool:
        while True:
            line, found, rest = self.rest.partition(b"\r\n")
            if not found:
                return False
            size = int(line.split(b";")[0], 16)
            if size == 0:
                _, ended, after = (b"\r\n" + rest).partition(b"\r\n\r\n")
                self.rest = after if ended else self.rest
                return bool(ended)
            if len(rest) < size + 2:
                return False
            if rest[size : size + 2] != b"\r\n":
                raise ValueError(line)
            self.body, self.rest = self.body + rest[:size], rest[size + 2 :]


class Target(NamedTuple):
    name: str
    family: int
    address: Any
    idle: collections.deque[Connection]


class Request(NamedTuple):
    kind: Kind
    number: int
    id: str
    target: Target
    keep: bool
    tally: Tally
    start: float


class Connection:
    """A socket in the event loop, with the request that is on it. Cheaper than a stream and a task for each request."""

    def __init__(self, generator: Generator, target: Target) -> None:
        self.generator, self.target = generator, target
        self.request: Request | None = None
        self.used = self.reading = False
        self.since = 0.0
        self.socket = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def carry(self, request: Request) -> None:
        loop = self.generator.loop
        self.request, self.answer = request, Answer()
        self.timer = loop.call_later(self.generator.options.timeout, self.fail, "timeout")
        if self.used:
            return self.send()
        code = self.socket.connect_ex(self.target.address)
        if code not in (0, errno.EINPROGRESS):
            return self.fail(reason(code))
        loop.add_writer(self.socket, self.connected)
        return None

    def connected(self) -> None:
        self.generator.loop.remove_writer(self.socket)
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            return self.fail(reason(code))
        return self.send()

    def send(self) -> None:
        assert self.request
        kind = self.request.kind
        body = kind.body.replace("{id}", self.request.id)
        length = f"Content-Length: {len(body)}\r\n" if body or kind.method != "GET" else ""
        text = f"{kind.method} {kind.path} HTTP/1.1\r\nHost: {self.target.name}\r\n{length}\r\n{body}"
        try:
            # Smaller than any socket's buffer, which is empty: all of it is taken
            self.socket.send(text.encode())
        except OSError as error:
            return self.fail(reason(error.errno))
        if not self.reading:
            self.generator.loop.add_reader(self.socket, self.readable)
            self.reading = True
        return None

    def readable(self) -> None:
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        except OSError as error:
            return self.fail(reason(error.errno)) if self.request else self.close()
        if not self.request:  # the other side ends a connection that was kept
            return self.close()
        try:
            complete = self.answer.feed(data)
        except ValueError:
            return self.fail("no HTTP")
        if data and not complete:
            return None
        problem = "" if complete else self.answer.end()
        return self.fail(problem) if problem else self.judge(closed=not data)

    def judge(self, closed: bool) -> None:
        assert self.request
        request, answer = self.request, self.answer
        body = answer.body.replace(request.id.encode(), b"{id}") if request.kind.body else answer.body
        if answer.status != 200:
            return self.fail(str(answer.status))
        if answer.rest or not self.generator.patterns[request.kind.name].fullmatch(body):
            return self.fail("wrong body")
        self.timer.cancel()
        self.request, self.used, self.since = None, True, self.generator.loop.time()
        if closed or answer.closing or not request.keep:
            self.close()
        else:
            self.target.idle.append(self)
        return self.generator.ended(request, "", "")

    def fail(self, problem: str) -> None:
        assert self.request
        request, self.request = self.request, None
        self.timer.cancel()
        took = 1000 * (self.generator.loop.time() - request.start)
        example = (
            f"{time.strftime('%T')} {self.target.name}: {request.id} on a {'kept' if self.used else 'new'} connection,"
            f" after {took:.0f} ms: {(self.answer.body + self.answer.rest)[:200]!r}"
        )
        self.close()
        self.generator.ended(request, problem, example)

    def close(self) -> None:
        loop = self.generator.loop
        loop.remove_reader(self.socket)
        loop.remove_writer(self.socket)
        self.socket.close()


def reason(code: int | None) -> str:
    known = {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EPIPE: "reset"}
    return known.get(code or 0) or os.strerror(code or 0).lower()


def resolve(name: str) -> Target:
    host, _, port = name.rpartition(":")
    family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    return Target(name, family, address, collections.deque())


class Generator:
    """What the process of the load runs. More than half of the requests are on connections that are kept."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.targets = [resolve(name) for name in options.targets]
        self.patterns = {kind.name: re.compile(kind.expect.encode()) for kind in options.kinds}
        self.run_id = secrets.token_hex(4)
        self.stopping = False
        self.open = 0
        self.warm, self.tally = Tally(), Tally()

    def stop(self) -> None:
        self.stopping = True

    def stop_with_input(self) -> None:
        def ended() -> None:
            self.loop.remove_reader(sys.stdin)
            self.stop()

        self.loop.add_reader(sys.stdin, ended)

    async def warm_up(self) -> None:
        """The same requests, but none that counts anywhere."""
        kinds = [kind for kind in self.options.kinds if not kind.body]
        if kinds:
            await self.send(kinds, int(self.options.warm_up * self.options.rate), self.warm)

    async def measure(self) -> None:
        seconds = min(self.options.seconds or MOST_SECONDS, MOST_SECONDS)
        most = int(seconds * self.options.rate)
        await self.send(self.options.kinds, min(most, self.options.count or most), self.tally)
        while self.open:
            await asyncio.sleep(0.01)

    async def send(self, kinds: Sequence[Kind], most: int, tally: Tally) -> None:
        start, letter = self.loop.time(), "w" if tally is self.warm else "r"
        for number, kind in zip(range(most), deck(kinds), strict=False):
            wait = start + number / self.options.rate - self.loop.time()
            tally.late = max(tally.late, -wait)
            await asyncio.sleep(max(0.0, wait))
            if self.stopping:
                break
            target = self.targets[number % len(self.targets)]
            name = f"{self.run_id}-{letter}{number}"
            self.start(Request(kind, number, name, target, number % 7 < 4, tally, self.loop.time()))

    def start(self, request: Request) -> None:
        request.tally.total += 1
        self.open += 1
        try:
            connection = (request.keep and self.kept(request.target)) or Connection(self, request.target)
        except OSError as error:  # too many open files
            return self.ended(request, reason(error.errno), request.target.name)
        return connection.carry(request)

    def kept(self, target: Target) -> Connection | None:
        """The connection that has been kept longest, but none that the gateway is about to close."""
        while target.idle:
            connection = target.idle.popleft()
            if connection.socket.fileno() < 0:
                continue
            if self.loop.time() - connection.since < FRESH:
                return connection
            connection.close()
        return None

    def ended(self, request: Request, problem: str, example: str) -> None:
        self.open -= 1
        tally, kind = request.tally, request.kind
        if problem:
            tally.failures[f"{kind.name} {problem}"] += 1
            tally.examples.setdefault(f"{kind.name} {problem}", example)
        else:
            tally.done[kind.name] += 1
            tally.times.setdefault(kind.name, []).append(self.loop.time() - request.start)
        if kind.body:
            (tally.unsure if problem else tally.posted).append(request.id)


def deck(kinds: Sequence[Kind]) -> itertools.chain[Kind]:
    """The kinds in their shares, shuffled anew each time they are through, and in each run alike."""
    cards = [kind for kind in kinds for _ in range(kind.share)]
    order = random.Random(1)  # noqa: S311 - no secret
    return itertools.chain.from_iterable(order.sample(cards, len(cards)) for _ in itertools.count())


class Load(Tally):
    """The generator's process as a context manager. Its tally is here when it has ended.

    The block begins when the warm-up is over. At its end, a load with `seconds` or `count` goes on until then; another
    one stops.
    """

    def __init__(self, targets: Sequence[str], **options: Any) -> None:
        super().__init__()
        self.options = Options(targets, **options)
        self.process: subprocess.Popen[str] | None = None
        self.milliseconds: dict[str, dict[str, float]] = {}
        self.cpu = 0.0

    def start(self) -> Load:
        argv = [sys.executable, "-I", __file__, "--worker", json.dumps(asdict(self.options))]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        warm = self.line()
        if warm["total"] and not warm["done"]:
            self.stop()
            raise RuntimeError(f"not one right answer in the warm-up: {warm['examples']}")
        return self

    def stop(self) -> None:
        """Start no more requests, and wait for those that are open."""
        if self.process and self.process.stdin:
            self.process.stdin.close()
        self.wait()

    def wait(self) -> None:
        if self.process is None:
            return
        told = self.line()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()
        self.process = None
        for name in ("done", "failures"):
            setattr(self, name, collections.Counter(told.pop(name)))
        for name, value in told.items():
            setattr(self, name, value)

    def line(self) -> dict[str, Any]:
        assert self.process
        assert self.process.stdout
        text = self.process.stdout.readline()
        if not text:
            code, self.process = self.process.wait(), None
            raise RuntimeError(f"the load's process ended with {code}")
        return dict(json.loads(text))

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind or not (self.options.seconds or self.options.count):
            self.stop()
        else:
            self.wait()

    def miscounted(self, posts: Mapping[str, int]) -> dict[str, int]:
        """The ids that are not there once, with how often they are. What got no right answer may be there or not."""
        wrong = {name: posts.get(name, 0) for name in self.posted if posts.get(name, 0) != 1}
        return wrong | {name: posts[name] for name in self.unsure if posts.get(name, 0) > 1}

    def __str__(self) -> str:
        lines = [f"{count} x {problem}, first {self.examples[problem]}" for problem, count in self.failures.items()]
        return "\n".join([f"{self.total} requests, right: {dict(self.done)}", *lines])


async def work(options: Options, worker: bool) -> Generator:
    """As a worker: a line after the warm-up, and the end of standard input stops it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    generator = Generator(options)
    if worker:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the test, whose end is the end of the input
        generator.stop_with_input()
    else:
        for number in (signal.SIGINT, signal.SIGTERM):
            generator.loop.add_signal_handler(number, generator.stop)
    await generator.warm_up()
    if worker:
        print(json.dumps(generator.warm.summary()), flush=True)
    await generator.measure()
    return generator


def main() -> int:
    parser = argparse.ArgumentParser(description="Send an open-loop load, and report on it as JSON.")
    parser.add_argument("targets", nargs="+", metavar="host:port")
    parser.add_argument("--rate", type=float, default=Options.rate, help="requests in a second (%(default)s)")
    parser.add_argument("--seconds", type=float, help="how long (until Ctrl-C)")
    parser.add_argument("--count", type=int, help="how many requests")
    parser.add_argument("--warm-up", type=float, default=Options.warm_up, help="seconds before, not counted")
    parser.add_argument("--timeout", type=float, default=Options.timeout, help="seconds for an answer (%(default)s)")
    parser.add_argument("--kinds", default=json.dumps([asdict(kind) for kind in ECHO]), help="as JSON (those of echo)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    told = vars(parser.parse_args())
    worker = told.pop("worker")
    found = json.loads(told["targets"][0] if worker else json.dumps(told | {"kinds": json.loads(told["kinds"])}))
    options = Options(**found | {"kinds": [Kind(**kind) for kind in found["kinds"]]})
    generator = asyncio.run(work(options, worker))
    tally, cpu = generator.tally, round(time.process_time(), 2)
    report = tally.summary() | {"cpu": cpu}
    if worker:
        print(json.dumps(report), flush=True)
        return 0
    numbers = {"posted": len(tally.posted), "unsure": len(tally.unsure)}
    print(json.dumps(report | numbers, indent=2))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
