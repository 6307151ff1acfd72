"""A service for the gateway's tests: probe.py PORT NAME.

GET /x answers NAME, /slow after 2 s, /stream in pieces for 2 s, /hang-up never, /headers with those it got, /counts;
POSTs are counted.
SIGUSR1: takes no more connections, ends the requests it has.
"""

from __future__ import annotations

import collections
import http.server
import json
import os
import signal
import sys
import threading
import time

NAME = sys.argv[2]
COUNTS: collections.Counter[str] = collections.Counter()
LOCK = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one write: a process that is killed has answered wholly or not at all
    wbufsize = -1

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def count(self, what: str) -> None:
        with LOCK:
            COUNTS[what] += 1

    def hang_up(self) -> None:
        """Close without an answer, as a process does that is killed."""
        self.count(f"{self.command} unanswered")
        self.close_connection = True

    def do_GET(self) -> None:
        if self.path == "/counts":
            return self.answer(json.dumps(COUNTS).encode())
        if self.path.startswith("/request-id"):
            return self.answer((self.headers["X-Request-ID"] or "").encode())
        if self.path == "/headers":
            return self.answer(json.dumps({name.lower(): value for name, value in self.headers.items()}).encode())
        if self.path == "/hang-up":
            return self.hang_up()
        if self.path == "/slow":
            time.sleep(2)
        if self.path != "/stream":
            return self.answer(NAME.encode())
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(20):
            self.wfile.write(b"5\r\nhello\r\n")
            self.wfile.flush()
            time.sleep(0.1)
        self.wfile.write(b"0\r\n\r\n")
        return None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/hang-up":
            return self.hang_up()
        self.count("POST")
        return self.answer(NAME.encode())


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    timeout = 0.1
    closing = False

    def run(self) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "closing", True))
        while not self.closing:
            self.handle_request()
        # What the kernel has accepted already must be served, or it would be reset
        self.timeout = 0
        self.socket.setblocking(False)
        for _ in range(1000):
            self.handle_request()
        self.socket.close()
        time.sleep(60)


if __name__ == "__main__":
    server = Server(("", int(sys.argv[1])), Handler)
    server.run()
    os._exit(0)
