"""Run a command beside Qdrant servers of its own: `python tests/servers.py [--nodes N] COMMAND ...`.

The servers are the binary that QDRANT_BINARY names, or `qdrant` on PATH. They listen on free ports of this machine
only, keep their files in a temporary folder, and are gone when the command ends. The command finds the first of them in
QDRANT_URL and QDRANT_GRPC_PORT, and all of them, parted by commas, in QDRANT_URLS. Where QDRANT_URL is set already,
the command runs with what is there.

With several nodes they are one cluster. The exit code is the command's, or 2 where there is no server to start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from delaying import DelayingProxy

READY_S = 60
NONE = "no server: put Qdrant's binary `qdrant` on PATH, or name it in QDRANT_BINARY, or a running server in QDRANT_URL"


def binary() -> str | None:
    """The server's program, if there is one."""
    return os.environ.get("QDRANT_BINARY") or shutil.which("qdrant")


@dataclass
class Node:
    """One server: its ports, its folder, and its process while it runs."""

    program: str
    folder: Path
    rest: int
    grpc: int
    peers: int = 0
    first: int = 0
    reached_at: int = 0
    """The port at which the other nodes reach it: its own, or that of `proxy`."""
    proxy: DelayingProxy | None = None
    """What passes on what other nodes send it, so that it can be made to lag."""
    settings: tuple[tuple[str, str], ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rest}"

    def start(self) -> None:
        """Start it, and wait until it answers. Raises `RuntimeError` with the end of its log if it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, *self._uris()], cwd=self.folder, env=self._environment(), stdout=log, stderr=log
            )
        until = time.monotonic() + READY_S
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > until:
                log_text = (self.folder / "log").read_text(errors="replace")
                self.kill()
                raise RuntimeError(f"{self.program} does not serve {self.url}:\n{log_text[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """As a crash does it: nothing is flushed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _uris(self) -> list[str]:
        if not self.peers:
            return []
        own = ["--uri", f"http://127.0.0.1:{self.reached_at}"]
        return own if self.first == self.reached_at else [*own, "--bootstrap", f"http://127.0.0.1:{self.first}"]

    def _environment(self) -> dict[str, str]:
        own = {
            "QDRANT__TELEMETRY_DISABLED": "true",
            "QDRANT__LOG_LEVEL": "WARN",
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(self.rest),
            "QDRANT__SERVICE__GRPC_PORT": str(self.grpc),
            "QDRANT__STORAGE__STORAGE_PATH": str(self.folder / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self.folder / "snapshots"),
        }
        if self.peers:
            own |= {"QDRANT__CLUSTER__ENABLED": "true", "QDRANT__CLUSTER__P2P__PORT": str(self.peers)}
        return (
            {name: value for name, value in os.environ.items() if not name.startswith("QDRANT__")}
            | own
            | dict(self.settings)
        )

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def running(nodes: int = 1, *, proxied: int | None = None, **settings: str) -> Iterator[list[Node]]:
    """So many servers, one cluster if there are several, while the context lasts. `settings` are QDRANT__ variables.

    The node of the number `proxied` (not the first) is reached by the others through a proxy.
    """
    program = binary()
    if program is None:
        raise RuntimeError(NONE)
    ports = free_ports(3 * nodes + 1)
    with tempfile.TemporaryDirectory(prefix="qdrant-tests-", ignore_cleanup_errors=True) as folder:
        made = [
            Node(
                program,
                Path(folder) / f"node{number}",
                ports[3 * number],
                ports[3 * number + 1],
                peers=ports[3 * number + 2] if nodes > 1 else 0,
                first=ports[2],
                reached_at=ports[-1] if number == proxied else ports[3 * number + 2],
                proxy=DelayingProxy(ports[-1], ports[3 * number + 2]) if number == proxied else None,
                settings=tuple(settings.items()),
            )
            for number in range(nodes)
        ]
        try:
            for node in made:
                node.start()
            yield made
        finally:
            for node in made:
                node.kill()
                if node.proxy is not None:
                    node.proxy.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    if os.environ.get("QDRANT_URL"):
        return subprocess.call(given.command)
    try:
        with running(given.nodes) as nodes:
            environment = os.environ | {
                "QDRANT_URL": nodes[0].url,
                "QDRANT_GRPC_PORT": str(nodes[0].grpc),
                "QDRANT_URLS": ",".join(node.url for node in nodes),
            }
            return subprocess.call(given.command, env=environment)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
