"""Moments that a test waits for, instead of times: what is meant to happen during something happens then everywhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from qdrant_tools.edge.storage import child

Found = TypeVar("Found")
PATIENCE = 300
"""Seconds that only a broken test waits: long enough for a machine that does ten other things."""

GATED = """
import os, pathlib, runpy, sys, time
moment, reached, opened = {moment!r}, pathlib.Path({reached!r}), pathlib.Path({opened!r})
parent = os.getppid()
def wait():
    reached.touch()
    while not opened.exists() and os.getppid() == parent:
        time.sleep(0.005)
gated = sys.argv[1] == "optimize"
if gated and moment == "before":
    wait()
runpy.run_path({worker!r}, run_name="__main__")
if gated and moment == "after":
    sys.stdout.flush()
    wait()
"""


def until(condition: Callable[[], Found]) -> Found:
    """Wait for something that is bound to come; what the condition gave when it was true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "what had to come did not come"
        time.sleep(0.002)
    return found


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
        self.worker.write_text(
            GATED.format(moment=moment, reached=str(self._reached), opened=str(self._opened), worker=str(child.WORKER))
        )

    @property
    def reached(self) -> bool:
        return self._reached.exists()

    def open(self) -> None:
        self._opened.touch()
