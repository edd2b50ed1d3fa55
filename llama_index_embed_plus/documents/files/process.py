"""Files that may be damaged or hostile -> blocks and facts, read by another process.

One process reads file after file. It is ended when a file takes too long or too much memory; the next file gets a new
one.

Guarantees: whatever a file does to the libraries that read it, this process goes on, and says why it was not read.
Blocks come as they are read. Does not know: formats.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from llama_index_embed_plus.documents.files.items import Item
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError

MEMORY = 1 << 30
"""Bytes that a file may take in the other process, its libraries included."""
MOST_FILES = 500
"""Read by one process: libraries keep some memory of each."""
CHILD = "llama_index_embed_plus.documents.files.child"


class ReaderProcess:
    """The process that reads. It is started with the first file, and closed with its `with` block."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue(maxsize=1000)
        self._files = 0

    def __enter__(self) -> ReaderProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def read(self, reader: str, path: Path, encoding: str | None = None) -> Iterator[Item]:
        """The items of a file.

        Raises:
            UnreadFileError: it cannot be read, or not in the time and memory that a file gets.
        """
        process = self._started()
        request = json.dumps({"reader": reader, "path": str(path.absolute()), "encoding": encoding})
        complete = False
        try:
            assert process.stdin is not None
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            while True:
                answer = self._answer(process)
                if "unread" in answer:
                    complete = answer["unread"][0] != "too large"
                    raise UnreadFileError(*answer["unread"])
                if "end" in answer:
                    complete = True
                    return
                yield _item(answer)
        except BrokenPipeError as error:
            raise UnreadFileError("damaged", "the process that read it ended") from error
        finally:
            self._files += 1
            # what is left of its answers belongs to this file
            if not complete or self._files >= MOST_FILES:
                self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            # it may wait for room in the queue
            while self._collector.is_alive():
                with suppress(queue.Empty):
                    self._answers.get(timeout=0.01)
            for stream in (process.stdin, process.stdout):
                # what was not sent yet can no longer be
                with suppress(OSError):
                    if stream is not None:
                        stream.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONIOENCODING": "utf-8",
        }
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", CHILD, str(MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._answers, self._files = queue.Queue(maxsize=1000), 0
        self._collector = threading.Thread(target=_collect, args=(process, self._answers), daemon=True)
        self._collector.start()
        return process

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self.patience)
        except queue.Empty:
            waited = f"{self.patience:g} seconds"
            raise UnreadFileError("too slow", f"nothing more was read of it in {waited}: convert it") from None
        if not line:
            code = process.wait()
            raise UnreadFileError("damaged", f"the process that read it ended ({_how(code)})")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _collect(process: subprocess.Popen[bytes], answers: queue.Queue[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put(b"")


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _item(answer: dict[str, Any]) -> Item:
    if "block" not in answer:
        return dict(answer.get("facts", {}))
    text, kind, headings, page = answer["block"]
    return Block(text, kind, tuple(headings), page)
