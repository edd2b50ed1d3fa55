"""A folder of collections that is only read -> a private folder of this process that the engine may open in its place.

The engine opens payloads, tables of ids and its log for writing, even to read them. So those are copied into a private
temporary folder, a collection at a time, when it is first opened. Vectors and graphs of built indexes, which are only
ever mapped for reading, are links to where they are.

Guarantees: nothing in the folder itself is written; while it is read, no process of this machine that honours its lock
opens it to write. The copy goes with `close`; a killed process leaves it in the folder of temporary files. Does not
know: the engine, what the files mean.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import portalocker

from qdrant_tools.edge.integrity.checksums import read_checksums, write_checksums
from qdrant_tools.edge.storage.collection_folder import os_errors
from qdrant_tools.edge.storage.disk_space import MEGABYTE, RESERVE
from qdrant_tools.edge.storage.files import LOCK_FILE, SHARD_FOLDER, busy_error, content_size, copy_sparse
from qdrant_tools.edge.storage.manifest import FOLDER_NAME, MANIFEST_FILE, PREVIOUS_FILE
from qdrant_tools.edge.storage.tree import COLLECTIONS_FOLDER, NEVER_WRITTEN, require_plain_tree
from qdrant_tools.errors import LocationError, PlusError

PREFIX = "embed-plus-read-only-"


class ReadOnlyFolder:
    """The private copy of one folder; `path` is where it lies.

    Raises `LocationBusyError` if a process has the folder open for writing, `LocationError` if it cannot be read or
    there is no room for temporary files.
    """

    def __init__(self, root: Path, reason: str) -> None:
        self.root = root
        self.reason = reason
        self._lock = SharedLock(root)
        try:
            self.path = _temporary_folder(root)
        except BaseException:
            self._lock.release()
            raise
        try:
            with os_errors(root):
                self._copy_descriptions()
        except BaseException:
            self.close()
            raise

    def _copy_descriptions(self) -> None:
        """All but the shards: the manifests, and what each collection's folder says of itself."""
        for name in (MANIFEST_FILE, PREVIOUS_FILE):
            with suppress(FileNotFoundError):
                shutil.copyfile(self.root / name, self.path / name)
        collections = self.root / COLLECTIONS_FOLDER
        for folder in collections.iterdir() if collections.is_dir() else ():
            if FOLDER_NAME.fullmatch(folder.name) and folder.is_dir():
                copy = self.path / COLLECTIONS_FOLDER / folder.name
                copy.mkdir(parents=True)
                for file in folder.iterdir():
                    if file.is_file():
                        shutil.copyfile(file, copy / file.name)

    def fetch(self, name: str, folder: str) -> None:
        """Copy the shard of the collection `name`, once. Raises `LocationError` if there is no room for it."""
        source, target = (root / COLLECTIONS_FOLDER / folder for root in (self.root, self.path))
        if (target / SHARD_FOLDER).exists() or not (source / SHARD_FOLDER).is_dir():
            return
        require_plain_tree(source)
        with os_errors(source):
            self._require_room(source / SHARD_FOLDER)
            shutil.copytree(source / SHARD_FOLDER, target / SHARD_FOLDER, copy_function=_link_or_copy)
        checksums = read_checksums(name, source)
        if checksums is not None and checksums.closed_here:
            # the files were closed by this project in that very place: the copy is as good, and needs no child process
            write_checksums(target, checksums)

    def _require_room(self, shard: Path) -> None:
        needed = RESERVE + sum(content_size(file) for file in shard.rglob("*") if file.name not in NEVER_WRITTEN)
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise LocationError(
                f"folder '{self.root}' is only read ({self.reason}), which takes {needed / MEGABYTE:.0f} MB of "
                f"temporary files, and '{self.path.parent}' has {free / MEGABYTE:.0f} MB free: free some, or let "
                "TMPDIR name a folder with more room"
            )

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors that leave the context name the folder itself, not its copy."""
        try:
            yield
        except PlusError as error:
            error.args = tuple(str(part).replace(str(self.path), str(self.root)) for part in error.args)
            raise

    def refusal(self) -> LocationError:
        """The error of whoever wants to change something."""
        return LocationError(f"folder '{self.root}' can only be read here ({self.reason}), not changed").with_way_out(
            python="write where that is possible, or take a collection along with copy_collection",
            command="collection copy NAME --to FOLDER takes a collection to where it can be",
        )

    def close(self) -> None:
        """Remove the copy and let the folder go."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


class SharedLock:
    """The lock of a folder, together with others that read it. Raises `LocationBusyError` if one process writes."""

    def __init__(self, folder: Path) -> None:
        self._file = None
        try:
            self._file = open(folder / LOCK_FILE, encoding="utf-8", errors="replace")  # noqa: SIM115
        except FileNotFoundError:
            return  # a copy that came without it: nobody can hold it
        except OSError as error:
            raise LocationError(
                f"folder '{folder}' cannot be read ({error.strerror}): ask its owner for the right to read it "
                f"(chmod -R a+rX), or for what `embed-plus collection snapshot NAME --out FILE` writes"
            ) from error
        try:
            portalocker.lock(self._file, portalocker.LockFlags.SHARED | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.exceptions.LockException as error:
            busy = busy_error(folder, self._file)
            self._file.close()
            raise busy from error

    def release(self) -> None:
        if self._file is not None and not self._file.closed:
            portalocker.unlock(self._file)
            self._file.close()


def _temporary_folder(root: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    except OSError as error:
        raise LocationError(
            f"folder '{root}' is only read, which takes temporary files, and there is no folder for them: let TMPDIR "
            "name one that can be written"
        ) from error


def _link_or_copy(source: str, target: str) -> str:
    if os.path.basename(source) in NEVER_WRITTEN:
        os.symlink(source, target)
        return target
    return copy_sparse(source, target)
