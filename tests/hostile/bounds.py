"""What a refusal may cost, and what may not change while it happens.

A command runs in a process of its own, whose memory and time are compared with a command that is refused at once: so
the bounds hold on any machine, and do not count the imports.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import warm

MORE_BYTES = 100_000_000
"""What a refusal may take above the process that refuses at once."""
PATIENCE = 240.0
"""Seconds until a command counts as hung. A refusal takes less than one, and many times that on a busy machine."""


@dataclass(frozen=True)
class Outside:
    """A folder that belongs to the user: a secret, a note, a folder with a file."""

    folder: Path
    before: tuple[tuple[str, ...], ...]

    @classmethod
    def made(cls, folder: Path) -> Outside:
        (folder / "below").mkdir(parents=True)
        (folder / "secret.txt").write_text("the user's key: hunter2\n")
        (folder / "notes.jsonl").write_text('{"id": "note", "text": "a private note"}\n')
        (folder / "below" / "config.json").write_text("{}")
        return cls(folder, state_of(folder))

    @property
    def secret(self) -> Path:
        return self.folder / "secret.txt"

    def require_unchanged(self) -> None:
        assert state_of(self.folder) == self.before

    def require_not_copied_into(self, folder: Path) -> None:
        """No file below `folder` holds the secret."""
        assert not [path for path in folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def state_of(folder: Path) -> tuple[tuple[str, ...], ...]:
    """Name, kind, permissions and content of everything in a folder, links as links."""
    rows = []
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((str(path.relative_to(folder)), oct(status.st_mode), str(status.st_nlink), content))
    return tuple(rows)


@dataclass(frozen=True)
class Ran:
    """How a command ended: exit code, stdout, stderr, seconds, and the most memory that it had."""

    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int


# The program that runs the command says its own peak, which on Linux is not `ru_maxrss`: that begins with the peak of
# the process that started it, and a test may have had more than the command.
_RUN = """
import atexit, resource, sys
file = sys.argv.pop(1)
def peak():
    try:
        return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    except OSError:
        return str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
atexit.register(lambda: open(file, "w").write(peak()))
from llama_index_embed_plus.cli import main
sys.argv[0] = "embed-plus"
main()
"""


def ran(folder: Path, *args: object, stdin: str = "") -> Ran:
    """Run `embed-plus ARGS` in `folder`."""
    peak = folder / ".peak"
    started = time.perf_counter()
    done = warm.run(
        [sys.executable, "-c", _RUN, str(peak), *map(str, args)],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=PATIENCE,
    )
    seconds = time.perf_counter() - started
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return Ran(done.returncode, done.stdout, done.stderr, seconds, int(peak.read_text()) * unit)


@cache
def _refused_at_once(folder: Path, args: tuple[str, ...]) -> Ran:
    return ran(folder, *args)


class Refusals:
    """Run a command that must be refused: exit code 1 or 2, nothing on stdout, one line on stderr, little memory.

    `like`: arguments of a command that does the same imports and is done at once, for example the same command on a
    good small input.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *args: object, like: tuple[object, ...] = ("search", "--help"), stdin: str = "") -> str:
        # measured once for all tests, but where it is about files of this folder
        everywhere = any(argument == "--help" or Path(str(argument)).is_absolute() for argument in like)
        folder = self.folder.parent if everywhere else self.folder
        base = _refused_at_once(folder, tuple(map(str, like)))
        done = ran(self.folder, *args, stdin=stdin)
        assert done.code in (1, 2), (done.code, done.out, done.err)
        lines = [line for line in done.err.splitlines() if line.strip() and not line.startswith("done ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), done.err
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in lines[0]), lines[0]
        assert done.peak_bytes < base.peak_bytes + MORE_BYTES, (done.peak_bytes, base.peak_bytes)
        return lines[0]
