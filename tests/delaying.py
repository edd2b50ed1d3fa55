"""A TCP proxy that hands on every byte a while later, in both directions: a node far away, or a busy one.

What is under way is not held up by what comes behind it: a delay is no bound on how much passes.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress

CHUNK = 65_536


class DelayingProxy:
    """Listens on a port of this machine and connects to another one. `seconds` may be changed at any time."""

    def __init__(self, port: int, to: int, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", port))
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and end those that are there."""
        for each in (self._listening, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                came, _ = self._listening.accept()
                try:
                    went = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    came.close()
                    continue
                self._connections += [came, went]
                for one, other in ((came, went), (went, came)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    threading.Thread(target=self._read, args=(one, under_way), daemon=True).start()
                    threading.Thread(target=self._write, args=(other, under_way), daemon=True).start()

    def _read(self, source: socket.socket, under_way: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(CHUNK)
            except OSError:
                data = b""
            under_way.put((time.monotonic() + self.seconds, data))

    def _write(self, target: socket.socket, under_way: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        with suppress(OSError):
            while True:
                due, data = under_way.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
