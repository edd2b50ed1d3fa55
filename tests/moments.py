"""Moments that a test waits for, instead of times: so a test means the same on a fast machine and on a slow one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from paths import TESTS

from qdrant_tools.edge.storage import child

T = TypeVar("T")
LONGEST_WAIT = 300
"""Seconds that only a broken test waits: long enough for a machine that does ten other things."""


def until(condition: Callable[[], T]) -> T:
    """Wait for something that is bound to come; returns the first true value of the condition."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not (value := condition()):
        assert time.monotonic() < deadline, "what had to come did not come"
        time.sleep(0.002)
    return value


def dying(owner: Any, names: list[str], nth: int, moment: str) -> None:
    """Have this process kill itself before or after the nth call of any of these functions of an object or module."""
    left = nth

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            last = left == 0
            if last and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counting

    for name in names:
        setattr(owner, name, counted(getattr(owner, name)))


class Gate:
    """Holds the child process that builds an index, before or after its work, until the gate is opened."""

    def __init__(self, folder: Path, moment: str = "before") -> None:
        folder.mkdir()
        self.worker, self._reached, self._opened = folder / "worker.py", folder / "reached", folder / "opened"
        shutil.copy(TESTS / "gated_worker.py", self.worker)
        (folder / "gate.json").write_text(json.dumps({"moment": moment, "worker": str(child.WORKER)}))

    @property
    def reached(self) -> bool:
        return self._reached.exists()

    def open(self) -> None:
        self._opened.touch()
