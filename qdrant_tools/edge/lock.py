"""One process per folder: an advisory lock on a file inside it.

Guarantees: a second process learns at once that the folder is taken; the lock goes with the process, however it
ends. Does not know: what the folder holds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import portalocker

from qdrant_tools.errors import LocationBusyError, LocationError

LOCK_FILE = ".lock"


class FolderLock:
    """Holds the lock from construction to `release()`.

    Raises `LocationBusyError` if another process holds it, `LocationError` if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _open(folder / LOCK_FILE)
        try:
            portalocker.lock(self._file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.exceptions.LockException as error:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise LocationBusyError(
                f"folder '{folder}' is in use by another process{f' (pid {holder})' if holder else ''}: "
                "close it there, or run a Qdrant server and give its URL to share collections between processes"
            ) from error
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        if not self._file.closed:
            # unlocked by hand, because a forked child may still hold the same open file
            portalocker.unlock(self._file)
            self._file.close()


def _open(path: Path) -> IO[str]:
    try:
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise LocationError(f"folder '{path.parent}' cannot be written ({error.strerror}): choose another") from error
