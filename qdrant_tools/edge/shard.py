"""One collection with its shard open: the only place that holds an engine object, and the lock around it.

Guarantees: calls into one shard come one after another (the binding holds the interpreter's lock anyway), so that
closing, reloading or exchanging the shard never happens in the middle of a call; every error leaves as a
`PlusError`. Does not know: the manifest, other collections, qdrant-client's requests.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.checks import VectorSchema
from qdrant_tools.edge.child import run_worker
from qdrant_tools.edge.config import engine_config, vector_schema
from qdrant_tools.edge.guard import Guard
from qdrant_tools.edge.journal import Entry, Journal
from qdrant_tools.edge.seal import break_seal, seal
from qdrant_tools.edge.seam import EngineCall, damaged_on_open
from qdrant_tools.edge.space import room_for_copy, room_for_points
from qdrant_tools.errors import CollectionNotFoundError, DamagedCollectionError, InputError, PlusError

SHARD_FOLDER = "shard"
SHARD_CONFIG_FILE = "edge_config.json"
REPLAYED_UNDER_LOCK = 4


class OpenCollection:
    """One collection, open. Raises `DamagedCollectionError` if its files cannot be what was acknowledged.

    `fresh` says that this process has just created it.
    """

    def __init__(self, name: str, folder: Path, settings: models.CreateCollection, *, fresh: bool = False) -> None:
        self.name = name
        self.folder = folder
        self.settings = settings
        self.schema: VectorSchema = vector_schema(name, settings)
        self.call = EngineCall(name)
        self.guard = Guard(folder)
        self.building = threading.Lock()
        self._builder: subprocess.Popen[str] | None = None
        self.last_write = 0.0
        # always in this order: writing, then calling
        self._writing = threading.RLock()
        self._calling = threading.RLock()
        self._record: list[tuple[qe.UpdateOperation, bool]] | None = None
        self._replayed = 0
        self._journal: Journal | None = None
        self._described = self._wrote = False
        self._require_files()
        room_for_points(folder, 0, 0)  # opening writes too, not least what a crash left in the log
        if not break_seal(name, folder, folder / SHARD_FOLDER) and not fresh:
            self._try_in_child()
        self._shard: qe.EdgeShard | None = self._load(folder, settings)

    @property
    def closed(self) -> bool:
        return self._shard is None

    @contextmanager
    def hold(self) -> Iterator[qe.EdgeShard]:
        """The open shard, for this thread alone; its errors leave translated."""
        with self._calling, self.call:
            if self._shard is None:
                raise CollectionNotFoundError(f"Collection {self.name} not found: it was deleted or closed meanwhile")
            yield self._shard

    def info(self) -> qe.ShardInfo:
        with self.hold() as shard:
            return shard.info()

    def write(self, operation: qe.UpdateOperation, *, points: int = 0) -> None:
        """Apply one change that adds up to `points` points. When this returns it is in the write-ahead log."""
        with self._writing:
            room_for_points(self.folder, points, self.schema.bytes_per_point)
            applied = False
            self.guard.before_writing()
            try:
                with self.hold() as shard:
                    shard.update(operation)
                applied = True
            finally:
                # one that failed may have changed some points before it did
                if self._record is not None:
                    self._record.append((operation, applied))
                self._wrote = True
                if not self._described:
                    self._spoil_journal()
                self.last_write = time.monotonic()

    def delete(self, operation: qe.UpdateOperation, at_most: Callable[[qe.EdgeShard], int]) -> None:
        """Apply a deletion of at most `at_most(shard)` points."""
        with self._writing:
            with self.hold() as shard:
                self.guard.before_removing(at_most(shard))
            self.write(operation)

    def flush(self) -> None:
        """Make everything written so far survive a power failure, not only the end of the process."""
        with self._writing, self.hold() as shard:
            shard.flush()
            self.guard.flushed(shard.info().points_count)

    @property
    def optimized(self) -> bool:
        """Whether the optimizer ran since the last write, under the present settings."""
        return self.guard.is_optimized(self._fingerprint())

    def optimize(self) -> bool:
        """Run the engine's optimizer in this process; every Python thread waits for it."""
        with self._writing, self.hold() as shard:
            room_for_copy(self.folder)
            built = shard.optimize()
            self._spoil_journal()
            self.flush()
            self.guard.optimized(self._fingerprint())
            return built

    def _fingerprint(self) -> str:
        row = self.settings.model_dump_json(exclude={"metadata"}, exclude_none=True)
        return hashlib.sha256(row.encode()).hexdigest()[:16]

    # -- letting other processes follow what is written

    @contextmanager
    def paused(self, *, flush: bool) -> Iterator[None]:
        """Inside the context nothing is written; with `flush`, everything written before is in the files."""
        with self._writing:
            if flush:
                self.flush()
            yield

    def follow(self, journal: Journal) -> None:
        """Add every write from now on to a journal, in place of an older one. The caller has paused the writes."""
        self._spoil_journal()
        self._journal = journal

    @contextmanager
    def described(self, entry: Entry) -> Iterator[None]:
        """What is written inside the context goes into the journal as `entry`; without a description it spoils it."""
        if self._journal is None:
            yield
            return
        with self._writing:
            self._described, self._wrote = True, False
            try:
                yield
            except InputError:
                self._add_to_journal(entry, applied=False)
                raise
            except BaseException:
                if self._wrote:  # some of it, and who can say how much
                    self._spoil_journal()
                raise
            else:
                self._add_to_journal(entry, applied=True)
            finally:
                self._described = False

    def _add_to_journal(self, entry: Entry, *, applied: bool) -> None:
        if self._wrote and self._journal is not None:
            self._journal.append(entry, applied=applied)

    def _spoil_journal(self) -> None:
        if self._journal is not None:
            self._journal.spoil()
            self._journal = None

    # -- exchanging the shard for an optimized copy of it

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Flushed and without writes inside the context; from its end on every write is recorded."""
        with self._writing:
            room_for_copy(self.folder)
            self.flush()
            yield
            self._record, self._replayed = [], 0

    def builds_in(self, process: subprocess.Popen[str] | None) -> None:
        """Remember the child that builds a copy, to end it when the collection is closed."""
        self._builder = process

    def nothing_due(self) -> None:
        """The optimizer found nothing to do in the copy; remember it unless something was written meanwhile."""
        with self._writing:
            if not self._record:
                self.guard.optimized(self._fingerprint())

    def stop_recording(self) -> None:
        with self._writing:
            self._record = None

    def caught_up(self, folder: Path) -> qe.EdgeShard:
        """Open the copy in `folder` and replay most of what was recorded, while writes go on."""
        shard = self._load(folder, self.settings)
        while len(self._record or []) > REPLAYED_UNDER_LOCK:
            self._replay(shard)
        return shard

    @contextmanager
    def exchanged(self, copy: qe.EdgeShard, folder: Path) -> Iterator[None]:
        """Serve from the copy in `folder` if the context succeeds, and close the other one.

        Inside the context nothing is written and the copy holds every acknowledged write, durably.
        """
        with self._writing, self.hold() as old:
            shard = copy
            try:
                written = self._replay(copy)
                copy.flush()
                guard = Guard(folder)
                guard.flushed(copy.info().points_count)
                if not written:
                    guard.optimized(self._fingerprint())
                yield
                shard, self._shard = old, copy
                self.folder, self.guard = folder, guard
                self._spoil_journal()
            finally:
                shard.close()

    def _replay(self, shard: qe.EdgeShard) -> bool:
        """Apply the recorded writes to a copy; whether there were any, ever."""
        with self._writing:
            operations, self._record = self._record or [], []
        for operation, applied in operations:
            try:
                with self.call:
                    shard.update(operation)
            except PlusError:
                if applied:
                    raise
        self._replayed += len(operations)
        return self._replayed > 0

    def reload(self, settings: models.CreateCollection) -> None:
        """Open the shard again under changed settings; if the engine refuses them the old ones stay.

        The caller holds `building`, so that no copy under the old settings is on its way.
        """
        engine_config(settings)
        with self._writing, self.hold() as shard:
            self.flush()
            self._spoil_journal()
            shard.close()
            self._shard = None
            try:
                self._shard = self._load(self.folder, settings)
            except PlusError:
                self._shard = self._load(self.folder, self.settings)
                raise
            self.adopt(settings)

    def adopt(self, settings: models.CreateCollection) -> None:
        """Take over settings that the shard already has."""
        with self._writing:
            self._spoil_journal()
        self.settings = settings
        self.schema = vector_schema(self.name, settings)

    def close(self, *, discard: bool = False) -> None:
        """Close the shard; `discard` skips making it durable because its folder goes next."""
        builder = self._builder
        if builder is not None:
            builder.kill()
        with self._writing, self._calling:
            shard, flush = self._shard, not discard
            self._spoil_journal()
            if shard is None:
                return
            try:
                if flush:
                    self.flush()
            finally:
                self._shard = None
                with self.call:
                    shard.close()
            if flush:
                seal(self.folder, self.folder / SHARD_FOLDER)

    def _try_in_child(self) -> None:
        """After a crash, open the shard in a child process first: some damage ends the process that opens it."""
        shard_folder = self.folder / SHARD_FOLDER
        if not sys.executable:
            return
        outcome = run_worker("open", shard_folder)
        if outcome.ended_by_signal:
            raise DamagedCollectionError(
                f"collection '{self.name}' is damaged: opening it ends the process ({outcome.reason}); "
                f"restore its files in '{shard_folder}' or index it again"
            )

    def _require_files(self) -> None:
        """Raise `DamagedCollectionError` if there is no shard: the engine would silently make a new, empty one."""
        shard_folder = self.folder / SHARD_FOLDER
        if not (shard_folder / SHARD_CONFIG_FILE).is_file():
            raise DamagedCollectionError(
                f"collection '{self.name}' has lost its files in '{shard_folder}': restore them or index it again"
            )

    def _load(self, folder: Path, settings: models.CreateCollection) -> qe.EdgeShard:
        shard_folder = folder / SHARD_FOLDER
        with damaged_on_open(self.name, shard_folder):
            shard = qe.EdgeShard.load(str(shard_folder), engine_config(settings))
            self.guard.check(self.name, shard.info().points_count)
        return shard
