"""One collection with its shard open: the only place that holds an engine object, and the lock around it.

Guarantees: calls into one shard come one after another (the binding holds the interpreter's lock anyway). So the shard
is never closed, reloaded or exchanged in the middle of a call. Every error leaves as a `PlusError`.
Does not know: the manifest, other collections, qdrant-client's requests.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import VectorSchema
from qdrant_tools.edge.convert.config import engine_config, vector_schema
from qdrant_tools.edge.errors import EngineCall, damaged_on_open
from qdrant_tools.edge.integrity.check import Integrity, PointCount
from qdrant_tools.edge.readers.messages import Entry, Journal
from qdrant_tools.edge.storage.child import run_worker
from qdrant_tools.edge.storage.disk_space import (
    DELETED,
    MARGIN,
    NEW_FILE,
    ChangeEstimate,
    Sizes,
    fill_holes,
    is_memory_filesystem,
    opening_bytes,
    require_room_for_build,
    reserve_of,
)
from qdrant_tools.edge.storage.files import SHARD_CONFIG_FILE, SHARD_FOLDER
from qdrant_tools.errors import CollectionNotFoundError, DamagedCollectionError, LocationError, PlusError

REPLAYED_UNDER_LOCK = 4  # recorded writes that a copy may lack when writes begin to wait for its exchange


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
        self.point_count = PointCount(folder)
        self.building = threading.Lock()
        self.require_writable: Callable[[], None] = lambda: None
        """Raises `LocationError` if the collection is only read."""
        self._builder: subprocess.Popen[str] | None = None
        self.last_write = 0.0
        # always in this order: writing, then calling. Re-entrant: a build and a reload flush while they hold both
        self._writing = threading.RLock()
        self._calling = threading.RLock()
        self._record: list[tuple[qe.UpdateOperation, bool]] | None = None
        self._replayed = 0
        self._estimate = ChangeEstimate(folder / SHARD_FOLDER, self.schema)
        self._journal: Journal | None = None
        # for each thread its own: several may be inside `described` at once
        self._change = threading.local()
        self._require_files()
        self.reserve = reserve_of(folder.parent.parent)
        self.reserve.refresh()
        self.reserve.spend(MARGIN + opening_bytes(folder))  # opening writes too
        self.integrity = Integrity(name, folder, folder / SHARD_FOLDER)
        self._shard: qe.EdgeShard | None = None
        try:
            self._open(fresh=fresh)
        except BaseException:  # a panic of the engine is no Exception
            self.integrity.close(clean=False)
            self._close_shard()
            raise

    # -- opening

    def _open(self, *, fresh: bool) -> None:
        self.integrity.verify()
        clean = fresh or self.integrity.closed_cleanly
        self.integrity.before_opening()
        if not clean or not (fresh or self.integrity.closed_here):
            self._open_in_child()
        self._shard = self._load(self.folder, self.settings)
        # after a crash the child has replayed the log and flushed
        self.integrity.flushed(unchanged=clean)
        self.reserve.refill()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()

    def _require_files(self) -> None:
        """Raise `DamagedCollectionError` if there is no shard: the engine would silently make a new, empty one."""
        shard_folder = self.folder / SHARD_FOLDER
        if not (shard_folder / SHARD_CONFIG_FILE).is_file():
            raise DamagedCollectionError(
                f"collection '{self.name}' has lost its files in '{shard_folder}': restore them or index it again"
            )

    def _open_in_child(self) -> None:
        """After a crash, and when the files are a copy of others, open the shard in a child process first.

        Some damage ends the process that opens it, and whoever made the copy may have done that damage on purpose.
        """
        shard_folder = self.folder / SHARD_FOLDER
        if not sys.executable:  # Python inside another program may not know its own: no child then
            return
        outcome = run_worker("open", shard_folder)
        if outcome.disk_full:
            raise LocationError(
                f"collection '{self.name}' cannot be opened: the disk of '{self.folder}' is full; free some and "
                "connect again, what was acknowledged is kept"
            )
        # an error that ends the child in order is left to the opening here, which raises it with its text
        if outcome.ended_by_signal or outcome.out_of_memory:
            raise DamagedCollectionError(
                f"collection '{self.name}' is damaged: opening it ends the process ({outcome.reason}); "
                f"restore its files in '{shard_folder}' or index it again"
            )

    def _load(self, folder: Path, settings: models.CreateCollection) -> qe.EdgeShard:
        shard_folder = folder / SHARD_FOLDER
        with damaged_on_open(self.name, shard_folder):
            shard = qe.EdgeShard.load(str(shard_folder), engine_config(settings))
            # some damage opens without an error, and with fewer points
            self.point_count.verify(self.name, shard.info().points_count)
        return shard

    # -- reading

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

    # -- writing

    def upsert_bytes(self, sizes: Sizes) -> int:
        """Bytes on the disk that an upsert takes at most."""
        return sizes.needed(len(self.info().payload_schema))

    def change_bytes(self, added: int, ids: Sequence[Any]) -> int:
        """Bytes on the disk that adding `added` bytes of payload to each of these points takes at most."""
        with self.hold() as shard:
            return self._estimate.change(shard, self.reserve.free, added, ids)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nothing else is written inside the context: what was read there holds until it is changed there."""
        with self._writing:
            yield

    def write(
        self,
        operation: qe.UpdateOperation,
        *,
        needed: int = 0,
        upserts: Sequence[qe.Point] = (),
        overwrites: Sequence[Any] = (),
    ) -> None:
        """Apply one change to points. When this returns it is in the write-ahead log.

        `needed` is how many bytes on the disk it takes at most. `upserts` are the points of an upsert, `overwrites`
        the ids of the points whose vectors another change overwrites. Raises `LocationError` before anything is
        written if there is no room.
        """
        self.require_writable()
        with self._writing:
            fills_holes = bool(upserts) and is_memory_filesystem(self.folder)
            self.reserve.require(needed + (self._new_file_bytes() if fills_holes else 0))
            self._apply(operation, upserts, overwrites)
            if fills_holes:
                fill_holes(self.folder)
            self._estimate.add(needed)

    def _new_file_bytes(self) -> int:
        """Bytes of the files that the first vectors of a collection make."""
        return 0 if self.info().points_count else NEW_FILE * len(self.schema.dense)

    def delete(self, operation: qe.UpdateOperation, at_most: int) -> None:
        """Apply a deletion of at most that many points. The reserve makes room for it."""
        self.require_writable()
        with self._writing:
            self.reserve.spend(MARGIN + DELETED * at_most)
            self.point_count.before_deleting(at_most)
            self._apply(operation)
            self.reserve.refill()

    def restructure(self, operation: qe.UpdateOperation, *, numbers: int = 0, indexes: int = 0) -> None:
        """Apply one change to the indexes or vectors of all points, and make it durable.

        It adds `numbers` to the vectors of each point, or `indexes` to those of the payload.
        """
        self.require_writable()
        with self._writing:
            with self.hold() as shard:
                needed = self._estimate.schema_change(shard, self.reserve.free, numbers, indexes)
            self.reserve.require(needed)
            # a kill from here on may leave files changed that writes of points never change: that is no damage
            self.integrity.before_any_change()
            self._apply(operation)
            self.flush()

    def _apply(
        self, operation: qe.UpdateOperation, upserts: Sequence[qe.Point] = (), overwrites: Sequence[Any] = ()
    ) -> None:
        applied = False
        # every note that makes the next opening expect less comes before the engine writes
        self.point_count.before_writing()
        if overwrites:
            self.integrity.overwrites_vectors(overwrites)
        try:
            with self.hold() as shard, self.integrity.writing():
                before = shard.info().points_count if upserts else 0
                shard.update(operation)
                # some points existed: their vectors were overwritten. A kill before this note leaves a log that goes on
                # behind its noted end, which counts as overwritten vectors too
                if upserts and shard.info().points_count != before + len(upserts):
                    self.integrity.overwrites_vectors([point.id for point in upserts])
            applied = True
        finally:
            # one that failed may have changed some points before it did
            if self._record is not None:
                self._record.append((operation, applied))
            # a failed one too: it fails in the readers as well
            self._append_to_journal(applied=applied)
            self.last_write = time.monotonic()

    # -- durability

    def flush(self) -> None:
        """Make everything written so far survive a power failure, not only the end of the process."""
        with self._writing, self.hold() as shard:
            clean = self.integrity.clean  # nothing was written: the checksums stay as they are
            self.reserve.spend()
            if not clean:
                self.integrity.before_any_change()
            shard.flush()
            # only now is this number of points on the disk
            self.point_count.flushed(shard.info().points_count)
            if not clean:
                self.integrity.flushed()

    @property
    def optimized(self) -> bool:
        """Whether the optimizer ran since the last write, under the present settings."""
        return self.point_count.is_optimized(self._settings_fingerprint())

    def optimize(self) -> bool:
        """Run the engine's optimizer in this process; every Python thread waits for it."""
        self.require_writable()
        with self._writing, self.hold() as shard:
            require_room_for_build(self.folder, self.reserve)
            self.integrity.before_optimizing()
            self._estimate.forget()
            built = shard.optimize()
            self._invalidate_journal()
            self.flush()
            self.point_count.optimized(self._settings_fingerprint())
            return built

    def _settings_fingerprint(self) -> str:
        # the engine does not know the metadata: changing them makes no build due
        row = self.settings.model_dump_json(exclude={"metadata"}, exclude_none=True)
        return hashlib.sha256(row.encode()).hexdigest()[:16]

    # -- letting readers follow what is written

    @contextmanager
    def paused(self, *, flush: bool) -> Iterator[None]:
        """Inside the context nothing is written; with `flush`, everything written before is in the files."""
        with self._writing:
            if flush:
                self.flush()
            yield

    def follow(self, journal: Journal) -> None:
        """Add every write from now on to a journal, in place of an older one. The caller has paused the writes."""
        self._invalidate_journal()
        self._journal = journal

    @contextmanager
    def described(self, entry: Entry) -> Iterator[None]:
        """What this thread writes inside the context goes into the journal as `entry`; other writes make it invalid.

        No lock is held meanwhile: a caller that writes in several operations does so inside `changing`.
        """
        self._change.entry, self._change.applied = entry, None
        try:
            yield
        except BaseException:
            if self._change.applied:  # a part of the change is written, and nobody knows how much
                with self._writing:
                    self._invalidate_journal()
            raise
        finally:
            self._change.entry = None

    def _append_to_journal(self, *, applied: bool) -> None:
        if self._journal is None:
            return
        entry = getattr(self._change, "entry", None)
        if entry is None:  # a change of the schema, which no entry can express
            self._invalidate_journal()
        elif self._change.applied is None:  # the first operation: one entry stands for the whole change
            self._change.applied = applied
            self._journal.append(entry, applied=applied)

    def _invalidate_journal(self) -> None:
        if self._journal is not None:
            self._journal.invalidate()
            self._journal = None

    # -- exchanging the shard for an optimized copy of it

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Flushed and without writes inside the context; from its end on every write is recorded."""
        with self._writing:
            require_room_for_build(self.folder, self.reserve)
            self.flush()
            yield
            self._record, self._replayed = [], 0

    def set_builder(self, process: subprocess.Popen[str] | None) -> None:
        """Remember the child that builds a copy, to end it when the collection is closed."""
        self._builder = process

    def mark_optimized(self) -> None:
        """The optimizer found nothing to do in the copy: remember it, unless something was written meanwhile."""
        with self._writing:
            if not self._record:
                self.point_count.optimized(self._settings_fingerprint())

    def stop_recording(self) -> None:
        with self._writing:
            self._record = None

    def open_copy(self, folder: Path) -> qe.EdgeShard:
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
            unused = copy
            try:
                written = self._replay(copy)
                copy.flush()
                # the copy's notes are complete before the manifest names its folder, which the caller does inside
                point_count = PointCount(folder)
                point_count.flushed(copy.info().points_count)
                integrity = Integrity(self.name, folder, folder / SHARD_FOLDER)
                integrity.flushed()
                if not written:  # otherwise some points lie outside the index that was built
                    point_count.optimized(self._settings_fingerprint())
                yield
                unused, self._shard = old, copy
                self.integrity.close(clean=False)  # the old files are removed next: not worth any checksums
                self.folder, self.point_count, self.integrity = folder, point_count, integrity
                self._estimate = ChangeEstimate(folder / SHARD_FOLDER, self.schema)
                self._invalidate_journal()
            finally:
                unused.close()

    def _replay(self, shard: qe.EdgeShard) -> bool:
        """Apply the recorded writes to a copy. True if any were recorded since the copy was made."""
        with self._writing:
            operations, self._record = self._record or [], []
        for operation, applied in operations:
            try:
                with self.call:
                    shard.update(operation)
            except PlusError:
                if applied:  # one that the original refused is refused by the copy too
                    raise
        self._replayed += len(operations)
        return self._replayed > 0

    # -- changing settings, closing

    def reload(self, settings: models.CreateCollection) -> None:
        """Open the shard again under changed settings; if the engine refuses them the old ones stay.

        The caller holds `building`, so that no copy under the old settings is on its way.
        """
        self.require_writable()
        engine_config(settings)  # raises for settings that the engine lacks, before anything is closed
        with self._writing, self.hold() as shard:
            self.flush()
            self.integrity.before_any_change()
            self._invalidate_journal()
            # closed first: the engine opens no folder twice
            shard.close()
            self._shard = None
            try:
                self._shard = self._load(self.folder, settings)
            except PlusError:
                self._shard = self._load(self.folder, self.settings)
                raise
            finally:
                if self._shard is not None:
                    # new settings change the engine's configuration, not the points
                    self.integrity.flushed(unchanged=True)
            self.adopt(settings)

    def adopt(self, settings: models.CreateCollection) -> None:
        """Take over settings that the shard already has."""
        with self._writing:
            self._invalidate_journal()
        self.settings = settings
        self.schema = vector_schema(self.name, settings)
        self._estimate = ChangeEstimate(self.folder / SHARD_FOLDER, self.schema)

    def close(self, *, discard: bool = False) -> None:
        """Close the shard; `discard` skips making it durable because its folder is removed next."""
        builder = self._builder
        if builder is not None:  # nobody would take over what it builds
            builder.kill()
        with self._writing, self._calling:
            shard, flush = self._shard, not discard
            self._invalidate_journal()
            if shard is None:
                return
            durable = False
            try:
                if flush:
                    self.flush()
                    durable = True
            finally:
                self._shard = None
                try:
                    with self.call:
                        shard.close()
                except PlusError:
                    durable = False
                    raise
                finally:
                    # clean only if the flush AND the engine's closing went well
                    self.integrity.close(clean=durable)
                    self.reserve.refill()
