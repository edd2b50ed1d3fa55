"""Runs `worker.py` in a child process: for what would stop, or end, this one. Does not know: collections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

WORKER = Path(__file__).with_name("worker.py")

Task = Literal["open", "optimize"]


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code (negative for a signal), the last line it printed, the last error."""

    code: int
    result: str
    error: str

    @property
    def ended_by_signal(self) -> bool:
        return self.code < 0

    @property
    def reason(self) -> str:
        """Why it failed, in a few words."""
        if self.ended_by_signal:
            return f"signal {signal.Signals(-self.code).name}"
        return self.error or f"exit code {self.code}"


def run_worker(
    task: Task, shard_folder: Path, started: Callable[[subprocess.Popen[str] | None], None] = lambda process: None
) -> Outcome:
    """Run a task on a closed shard and wait for it. `started` gets the process, and None when it has ended."""
    command = [sys.executable, "-P", str(WORKER), task, str(shard_folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, text=True
    )
    started(process)
    try:
        output, errors = process.communicate()
    finally:
        started(None)
        if process.poll() is None:
            process.kill()
            process.communicate()
    return Outcome(process.returncode, _last_line(output), _last_line(errors))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
