"""The child process that builds an index, held before or after its work. A `Gate` copies this file into its folder."""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
PARENT = os.getppid()


def wait() -> None:
    """Wait until the gate is opened, or the parent is gone."""
    (FOLDER / "reached").touch()
    while not (FOLDER / "opened").exists() and os.getppid() == PARENT:
        time.sleep(0.005)


if __name__ == "__main__":
    gate = json.loads((FOLDER / "gate.json").read_text())
    moment = gate["moment"] if sys.argv[1] == "optimize" else None
    if moment == "before":
        wait()
    runpy.run_path(gate["worker"], run_name="__main__")
    if moment == "after":
        sys.stdout.flush()
        wait()
