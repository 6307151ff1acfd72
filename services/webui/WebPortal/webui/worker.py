# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gunicorn's threaded worker, stopping as a gateway expects: not ready at once, nothing new, the rest finished."""

from __future__ import annotations

import time
from types import FrameType

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

# How long a kept-alive connection may still bring a request after SIGTERM. gunicorn's own 2 s would be a good part of a
# rollout; the gateway has drained this replica long before, so this is for a request that is already on the wire.
LINGER = 0.5


class PortalWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Serves an application of `webui.app`."""

    def run(self) -> None:
        self.wsgi.extensions["portal"].start()
        super().run()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM."""
        self.wsgi.extensions["portal"].stop()
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """gunicorn 27 stops accepting, but keeps the socket until its last request is done: the kernel goes on taking
        connections, which hang and end in a reset. Take in what is waiting, then close: the next one is refused at
        once, and the gateway sends it elsewhere."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            taken = -1
            while taken != self.nr_conns:
                taken = self.nr_conns
                self.accept(listener)
            listener.close()

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(min(deadline, time.monotonic() + LINGER))
