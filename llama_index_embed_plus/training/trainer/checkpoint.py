"""A run's state, in a folder beside its output -> the same run, going on where it was.

::

    .NAME-training/run.json            what the run is: hashes of base, data and settings
    .NAME-training/work-*/             what the run at work has open, and the model while it is proved
    .NAME-training/checkpoint-STEP/    weights, optimizer, schedule, random states; there whole or not at all

Guarantees: a checkpoint is written under another name and renamed when it is complete, and the one before is removed
only then, so a kill or a full disk at any moment leaves the last good one; a run whose base, data or settings differ is
refused by name; one process per folder. The folder is its owner's alone, holds no links out of it, and is removed only
if a run wrote it. Does not know: what is in a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import portalocker

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.models.artifact import WORK
from qdrant_tools.errors import UsageError, first_line
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.trees import files_of
from qdrant_tools.files.written import open_private, private_folder, write_text

RUN_FILE, LOCK_FILE, PREFIX, DRAFT = "run.json", ".lock", "checkpoint-", "draft"
_CHECKPOINT = re.compile(re.escape(PREFIX) + "[0-9]{1,15}")


class Checkpoints:
    """The checkpoints of one run. `identity`: what must be equal to go on, name -> value."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.identity = folder, dict(identity)
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Take the folder.

        Raises:
            UsageError: another run lives there, another process is at it, or it holds links or files of no run.
            TrainingError: it cannot be made or opened.
        """
        try:
            private_folder(self.folder)
            self.folder.chmod(0o700)  # one that an earlier version made
            self._lock = open_private(self.folder / LOCK_FILE)
        except OSError as error:
            raise TrainingError(f"{self.folder} cannot be used for checkpoints ({first_line(error)})") from error
        try:
            portalocker.lock(self._lock, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.exceptions.LockException as error:
            self._lock.close()
            self._lock = None
            raise UsageError(f"another process trains in {self.folder}: let it finish, or give another out") from error
        try:
            stored = self._stored()
            # Without a complete checkpoint nothing is lost by starting anew, whatever the earlier run was.
            if stored is not None and self.latest() is not None:
                self._refuse_another_run(stored)
            write_text(self.folder / RUN_FILE, json.dumps(self.identity, indent=2) + "\n")
        except BaseException:
            self._release()
            raise
        self.discard_draft()  # under the lock: nobody else can be writing it
        self.discard_work()

    def discard_draft(self) -> None:
        """Remove what an interrupted write left."""
        shutil.rmtree(self.folder / DRAFT, ignore_errors=True)

    def discard_work(self) -> None:
        """Remove what a killed run had open."""
        for path in self.folder.glob(f"{WORK}*"):
            shutil.rmtree(path, ignore_errors=True)

    def latest(self) -> Path | None:
        """The last complete checkpoint."""
        if not self.folder.is_dir():
            return None
        complete = [path for path in self.folder.iterdir() if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]
        return max(complete, key=step_of, default=None)

    def keep(self, written: Path) -> None:
        """Make the folder `written` the last good checkpoint, and drop the ones before it."""
        for path in sorted(written.rglob("*")):
            if path.is_file():
                path.chmod(0o600)
                _flush(path)
        # The new checkpoint is on the disk and has its name before the old ones go: a kill in between leaves one.
        kept = self.folder / written.name
        shutil.rmtree(kept, ignore_errors=True)
        os.replace(written, kept)
        for path in self.folder.glob(f"{PREFIX}*"):
            if path != kept:
                shutil.rmtree(path, ignore_errors=True)

    def close(self, *, done: bool) -> None:
        """Give the folder up. It is removed if the run is `done`, or if there is nothing to go on from."""
        if self._lock is not None:
            if done or self.latest() is None:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._release()

    def _stored(self) -> Mapping[str, Any] | None:
        """What the folder says about the run in it; None if nothing began there yet."""
        # a received folder may lead out: nothing is read, written or removed through a link
        files_of(self.folder, error=UsageError)
        try:
            stored = read_json(self.folder / RUN_FILE, error=UsageError)
        except FileNotFoundError:
            others = [name for name in sorted(os.listdir(self.folder)) if not name.startswith(".") and name != DRAFT]
            if others:
                raise UsageError(
                    f"{self.folder} holds {others[0]!r} and no {RUN_FILE}: no run made it; move it away, or give "
                    "another out"
                ) from None
            return None
        if not isinstance(stored, dict):
            raise UsageError(f"{self.folder / RUN_FILE} holds no object: remove that folder to start anew")
        return stored

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse_another_run(self, stored: Mapping[str, Any]) -> None:
        for name, value in self.identity.items():
            if stored.get(name) == value:
                continue
            before = stored.get(name)
            if isinstance(value, dict) and isinstance(before, dict):
                key = next(k for k in {**before, **value} if before.get(k) != value.get(k))
                name, before, value = f"{name}.{key}", before.get(key), value.get(key)
            raise UsageError(
                f"{self.folder} holds an interrupted run with another {name} ({_short(before)}, now {_short(value)}): "
                "give the same again to go on with it, or remove that folder to start anew"
            )


def step_of(checkpoint: Path) -> int:
    """How many optimiser steps a checkpoint has behind it."""
    return int(checkpoint.name.removeprefix(PREFIX))


def fingerprint(rows: Any) -> str:
    """Name JSON-ready rows by their contents: 12 hex digits."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:12]


def cannot_write(folder: Path, error: Exception, *, last: Path | None) -> TrainingError:
    """The one error for a checkpoint that could not be written, whatever library noticed."""
    reason = getattr(error, "strerror", None) or first_line(error)
    kept = f"the last good one is {last}" if last else "there is none yet"
    return TrainingError(
        f"a checkpoint cannot be written to {folder} ({reason}); {kept}: free some space, then run the same again"
    )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
