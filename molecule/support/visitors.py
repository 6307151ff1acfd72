"""Visitors of the gateways: requests start when they are due, on a connection each, and every answer is looked at."""

from __future__ import annotations

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor

TIMEOUT = 10


class Visitors:
    """`with Visitors(addresses) as visitors: …` then `visitors.failures` says what went wrong and when."""

    def __init__(self, addresses: list[str], path: str = "/api/whoami", rate: float = 15, most: int = 20_000) -> None:
        self.addresses, self.path, self.pause, self.most = addresses, path, 1 / rate, most
        self.answered = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Visitors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        start = time.monotonic()
        with ThreadPoolExecutor(max_workers=100) as pool:
            for number in range(self.most):
                if self._stop.wait(max(0.0, start + number * self.pause - time.monotonic())):
                    break
                for address in self.addresses:
                    pool.submit(self._visit, address)

    def _visit(self, address: str) -> None:
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
        try:
            connection.request("GET", self.path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{time.strftime('%T')} {address}: {type(error).__name__}: {error}")
        else:
            if answer.status == 200 and body:
                self.answered += 1
            else:
                self.failures.append(f"{time.strftime('%T')} {address}: {answer.status}")
        finally:
            connection.close()
