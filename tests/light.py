"""Run Python where torch and what needs it cannot be imported, as on an installation without the extra `train`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "sentence_transformers", "peft", "accelerate", "datasets", "matplotlib")
_BLOCK = """
import importlib.util, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Missing())
spec = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name.partition(".")[0] in {names!r} else spec(name, package)
importlib.util.find_spec = find_spec
"""


def run_light(code: str, *also: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own in which none of HEAVY, nor `also`, is there."""
    block = _BLOCK.format(names={*HEAVY, *also})
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, cwd=folder, timeout=900)
