"""Functions of test modules, run in a process of their own: because it is killed, refused or ended on the way.

A program is a function at the top of its test module; its arguments arrive as text. What it reports is its result.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def command(program: Callable[..., None], *arguments: object) -> list[str]:
    """The command line that runs a function with these arguments."""
    own = [sys.executable, "-X", "faulthandler", "-m", "programs", program.__module__, program.__name__]
    return [*own, *map(str, arguments)]


def spawn(program: Callable[..., None], *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a program whose lines of output are read one by one."""
    return subprocess.Popen(command(program, *arguments), stdout=subprocess.PIPE, text=True, **options)


def run(program: Callable[..., None], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is."""
    return subprocess.run(command(program, *arguments), capture_output=True, text=True)


def output(program: Callable[..., None], *arguments: object) -> str:
    """What a program reports that has to end well."""
    done = run(program, *arguments)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


def report(*values: object) -> None:
    """Print a line that whoever started the program reads at once."""
    sys.stdout.write(" ".join(map(str, values)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    module, name, *arguments = sys.argv[1:]
    getattr(importlib.import_module(module), name)(*arguments)
