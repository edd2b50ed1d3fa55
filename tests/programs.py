"""Functions of test modules, run in a process of their own: because it is killed, refused or ended on the way.

A program is a function at the top of its test module; its arguments arrive as text. What it reports is its result.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import warm


def command(program: Callable[..., None], *arguments: object) -> list[str]:
    """The command line that runs a function with these arguments."""
    own = [sys.executable, "-X", "faulthandler", "-m", "programs", program.__module__, program.__name__]
    return [*own, *map(str, arguments)]


def spawn(program: Callable[..., None], *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a program whose lines of output are read one by one."""
    return warm.Popen(command(program, *arguments), stdout=subprocess.PIPE, text=True, **options)


def run(program: Callable[..., None], *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is."""
    return warm.run(command(program, *arguments), capture_output=True, text=True, **options)


def output(program: Callable[..., None], *arguments: object, **options: Any) -> str:
    """What a program reports that has to end well."""
    done = run(program, *arguments, **options)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


PATIENCE = 240.0
"""Seconds after which a process is taken to hang, however loaded the machine is. It takes a few at most."""


def forked(work: Callable[[], object], name: str = "a child") -> None:
    """Run `work` in a child, which must end well in time."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
        finally:
            sys.stderr.flush()
            os._exit(code)
    awaited(child, name)


def awaited(child: int, name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"{name} ended with {status}"
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"{name} hangs")


def report(*values: object) -> None:
    """Print a line that whoever started the program reads at once."""
    sys.stdout.write(" ".join(map(str, values)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    module, name, *arguments = sys.argv[1:]
    getattr(importlib.import_module(module), name)(*arguments)
