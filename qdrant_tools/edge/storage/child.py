"""Runs `worker.py` in a child process: for what would stop, or end, this one.

Guarantees: a child ends. Some damage makes the engine allocate without end, so its memory and its time are limited. The
limits grow with the files that it opens, and are far above what undamaged files need. Does not know: collections.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qdrant_tools.edge.storage.files import content_bytes

WORKER = Path(__file__).with_name("worker.py")
GIGABYTE = 1 << 30
OUT_OF_MEMORY = "memory allocation of"  # what the engine prints when an allocation has failed

Task = Literal["open", "optimize"]


@dataclass(frozen=True)
class Limits:
    """What a child may take: bytes of memory and seconds. Measured needs are in docs/embedded-engine.md."""

    memory: int
    seconds: float

    @classmethod
    def of(cls, task: Task, content: int) -> Limits:
        """The limits for a shard with this many bytes in its files."""
        threads = (16 << 20) * (os.cpu_count() or 1)  # stacks of the engine's threads, and their share of the heap
        if task == "open":
            return cls(GIGABYTE // 2 + threads + 8 * content, 30 + content / 500_000)
        return cls(2 * GIGABYTE + threads + 16 * content, 3600 + content / 2_000)


@dataclass(frozen=True)
class Outcome:
    """How a child ended: exit code (negative for a signal), the last line of its output, its error."""

    code: int
    result: str
    error: str
    limits: Limits
    timed_out: bool = False

    @property
    def ended_by_signal(self) -> bool:
        return self.code < 0

    @property
    def out_of_memory(self) -> bool:
        return OUT_OF_MEMORY in self.error or "MemoryError" in self.error

    @property
    def disk_full(self) -> bool:
        """A write through a memory map that finds no room on the disk ends the process by SIGBUS."""
        return hasattr(signal, "SIGBUS") and self.code == -signal.SIGBUS

    @property
    def reason(self) -> str:
        """Why it failed, in a few words."""
        if self.out_of_memory:
            return f"it wanted more than {self.limits.memory / GIGABYTE:.1f} GB of memory"
        if self.timed_out:
            return f"it had not ended after {self.limits.seconds:.0f} seconds"
        if self.ended_by_signal:
            return f"signal {signal.Signals(-self.code).name}"
        return self.error or f"exit code {self.code}"


def run_worker(
    task: Task, shard_folder: Path, started: Callable[[subprocess.Popen[str] | None], None] = lambda process: None
) -> Outcome:
    """Run a task on a closed shard and wait for it. `started` gets the process, and None when it has ended."""
    limits = Limits.of(task, content_bytes(shard_folder))
    # -P: not the worker's own folder, whose module names could hide others
    command = [sys.executable, "-P", str(WORKER), task, str(shard_folder), str(limits.memory)]
    # the child must import the same engine as this process, however it was found
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, text=True
    )
    errors: list[str] = []
    # a backtrace may fill its pipe, so a thread reads it; the output is one digit
    reader = threading.Thread(target=_follow_errors, args=(process, errors), daemon=True)
    reader.start()
    started(process)
    timed_out = False
    try:
        process.wait(limits.seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        started(None)
        if process.poll() is None:
            process.kill()
            process.wait()
    reader.join()
    with process.stdout or io.StringIO() as stream:
        output = stream.read()
    return Outcome(process.returncode, _last_line(output), _error_line(errors), limits, timed_out)


def _follow_errors(process: subprocess.Popen[str], lines: list[str]) -> None:
    """Collect a child's errors, and end it when its memory has run out: it may hang instead of ending itself."""
    with process.stderr or io.StringIO() as stream:
        for line in stream:
            lines.append(line)
            if OUT_OF_MEMORY in line:
                process.kill()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _error_line(lines: list[str]) -> str:
    """The line that says what went wrong: a failed allocation may be followed by a backtrace."""
    allocations = [line.strip() for line in lines if OUT_OF_MEMORY in line]
    return allocations[0] if allocations else _last_line("".join(lines))
