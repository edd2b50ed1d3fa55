"""A pool of processes that answer searches from copies of the collections.

Threads cannot: the engine's binding holds the interpreter's lock during a call. A large collection that is searched
gets a copy for each reader. Files that never change are hard links, the others are copied. Every write is in the
collection's journal when it returns. A reader applies the journal before it answers, so that a search sees what was
written before it. Some changes cannot be journaled: an exchanged index, changed settings, a load that each reader would
repeat. They invalidate the copies, and new ones are made when the writes have come to rest. This process answers
whatever the readers do not: a copy is not ready, a reader is too far behind, an error.

Guarantees: results are those of this process; no reader writes to a file of a collection; readers end with this
process; their files go with the engine, at the latest when the folder is opened again.
Does not know: the manifest, what a request means.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import pickle
import queue
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from qdrant_tools.edge.convert.config import vector_params
from qdrant_tools.edge.readers.messages import (
    ERROR,
    REQUEST,
    RESULT,
    UNPICKLABLE,
    CopyInfo,
    Journal,
    ReaderProgress,
    receive,
    send,
    unpacked,
)
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.files import (
    SHARD_FOLDER,
    copied_bytes,
    link_or_copy_shard,
    prepare_readers_folder,
)
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import InputError, LocationError, PlusError
from qdrant_tools.validation import brief

READER_PROGRAM = Path(__file__).with_name("process.py")

SMALLEST = 4 << 20  # bytes of vectors; a smaller collection is searched in less time than a request takes
REQUESTS_PER_READER = 2  # at once: the second waits in the socket while the first is answered
LARGEST_CATCH_UP = 64 << 10  # bytes of writes that a reader may apply before an answer
READER_WAIT = 1.0  # seconds that a search waits for a reader before this process answers
RESPONSE_TIMEOUT = 600  # seconds after which a reader counts as dead
QUIET, LONGEST_LOAD = 1.0, 10.0  # copies are made anew after so many seconds without a write, or of writing
SMALL_PAUSE, FAILURE_PAUSE = 5.0, 60.0  # seconds without copies, of a small collection and after a failure
POLL_SECONDS = 0.5  # between two looks at whether all readers live
SEARCHES_IN_A_ROW = 16  # of one thread, after which it counts as the only one
MOST_ENDS = 3  # within a minute; after more, no reader is started again
SPARE_DISK = 256 << 20  # bytes that copies leave to the collections: the journal needs some too

logger = logging.getLogger(__name__)


class NotAnsweredError(Exception):
    """No reader answers: the engine of this process must. `reason` is the error of a reader, if it raised one."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Generation:
    """Copies of one collection, as it was at one moment, and the journal of what was written since."""

    number: int
    folder: Path
    journal: Journal
    settings: str
    name: str
    progress: list[ReaderProgress]
    ready: set[int] = field(default_factory=set)
    """The numbers of the readers that have opened theirs."""

    @property
    def base(self) -> Path:
        return self.folder / "base" / SHARD_FOLDER

    def copy(self, reader: int) -> CopyInfo:
        shard, progress = self.folder / str(reader) / SHARD_FOLDER, self.folder / f"{reader}.progress"
        return CopyInfo(self.number, self.name, self.settings, shard, self.folder / "journal", progress)

    def renew(self, reader: int) -> None:
        """Give a reader a new copy, which holds nothing of the journal yet."""
        shutil.rmtree(self.folder / str(reader), ignore_errors=True)
        # all readers together search with one thread for each CPU
        threads = max(1, (os.cpu_count() or 1) // len(self.progress))
        link_or_copy_shard(self.base, self.folder / str(reader) / SHARD_FOLDER, threads)
        self.progress[reader].offset = 0


class _Process:
    """One reader process with its sockets: one for orders, the others for requests."""

    def __init__(self) -> None:
        pairs = [socket.socketpair() for _ in range(1 + REQUESTS_PER_READER)]
        reader_ends = [reader_end for _, reader_end in pairs]
        for own_end, _ in pairs:
            limit = struct.pack("ll", RESPONSE_TIMEOUT, 0)  # a struct timeval
            own_end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.orders, *self.requests = [own_end for own_end, _ in pairs]
        numbers = [end.fileno() for end in reader_ends]
        command = [sys.executable, "-P", str(READER_PROGRAM), *map(str, numbers)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, pass_fds=numbers
        )
        for end in reader_ends:
            end.close()
        self.started = False

    def order(self, name: str, value: Any) -> None:
        """Give an order and wait until it is carried out. Raises `EOFError`, `OSError`, `NotAnsweredError`."""
        if not self.started:
            receive(self.orders)  # its "ready"
            self.started = True
        send(self.orders, pickle.dumps((name, value)))
        kind, content = receive(self.orders)
        if kind != RESULT:
            raise NotAnsweredError(content.decode())

    def end(self) -> str:
        """Kill it, since it owns nothing, and return how it ended."""
        self.process.kill()
        code = self.process.wait()
        for channel in (self.orders, *self.requests):
            channel.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class _Slot(NamedTuple):
    """The right to send one request to one reader, over one of its sockets."""

    reader: int
    channel: int


class ReaderPool:
    """The readers of an engine."""

    def __init__(self, root: Path, count: int) -> None:
        self._folder = prepare_readers_folder(root)
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._processes: list[_Process | None] = [None] * count
        self._ends: list[float] = []
        self._last_thread = self._searches_in_a_row = 0
        self._leftovers: list[Path] = []
        self._generations: dict[OpenCollection, Generation] = {}
        self._scheduled: set[OpenCollection] = set()
        self._not_before: WeakKeyDictionary[OpenCollection, float] = WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.closed = False
        self.executor = ThreadPoolExecutor(max(2, count), thread_name_prefix="reader-parts")
        for channel in range(REQUESTS_PER_READER):
            for reader in range(count):
                self._slots.put(_Slot(reader, channel))
        # the kernel ends a reader with the thread that started it: this one lives as long as the pool
        self._thread = threading.Thread(target=self._run_tasks, name="readers", daemon=True)
        self._thread.start()
        for reader in range(count):
            self._enqueue(lambda reader=reader: self._start(reader))  # type: ignore[misc]

    @property
    def size(self) -> int:
        return len(self._processes)

    @property
    def process_ids(self) -> list[int]:
        """Those of the readers that run."""
        return [process.process.pid for process in self._processes if process is not None]

    # -- requests

    def is_worthwhile(self, collection: OpenCollection) -> bool:
        """Whether a request to another process is worth the detour.

        It is not for the searches of a single thread between writes. This process would only wait meanwhile, and waking
        another one takes as long as a search.
        """
        # without a lock: a wrong count sends a search elsewhere, which gives the same answer
        thread = threading.get_ident()
        if thread != self._last_thread:
            self._last_thread, self._searches_in_a_row = thread, 0
        self._searches_in_a_row += 1
        return self._searches_in_a_row <= SEARCHES_IN_A_ROW or time.monotonic() - collection.last_write < QUIET

    def request(
        self, collection: OpenCollection, method: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """The result of a reader. Raises `NotAnsweredError`."""
        generation = self._generations.get(collection)
        if generation is None or not generation.journal.valid:
            self._schedule_copies(collection)
            raise NotAnsweredError
        try:
            content = pickle.dumps((method, arguments, options), pickle.HIGHEST_PROTOCOL)
        except UNPICKLABLE:
            raise NotAnsweredError from None
        try:
            slot = self._slots.get(timeout=READER_WAIT)
        except queue.Empty:
            raise NotAnsweredError from None
        try:
            kind, response = self._response(slot, generation, content)
        finally:
            self._slots.put(slot)
        if kind == RESULT:
            return unpacked(response)
        raise NotAnsweredError(response.decode() if kind == ERROR else "")

    def _response(self, slot: _Slot, generation: Generation, content: bytes) -> tuple[bytes, bytes]:
        process = self._processes[slot.reader]
        journaled = generation.journal.size  # read first: what is written later need not be in the answer
        if process is None or slot.reader not in generation.ready:
            raise NotAnsweredError
        if journaled - generation.progress[slot.reader].offset > LARGEST_CATCH_UP:
            raise NotAnsweredError
        try:
            channel = process.requests[slot.channel]
            send(channel, REQUEST.pack(generation.number, journaled) + content)
            return receive(channel)
        except (EOFError, OSError):
            self._enqueue(lambda: self._restart(slot.reader, process))
            raise NotAnsweredError from None

    def ready(self, collection: OpenCollection) -> bool:
        """Whether every reader would answer a search of this collection; if not, copies are scheduled."""
        generation = self._generations.get(collection)
        if generation is None or not generation.journal.valid:
            self._schedule_copies(collection)
        return (
            generation is not None
            and generation.journal.valid
            and len(generation.ready) == self.size
            and None not in self._processes
        )

    def report_failure(self, collection: OpenCollection, reason: str) -> None:
        """A reader raised an error where this process does not: the copies must be wrong, and new ones are made."""
        logger.warning("readers of collection %r are given new copies: one failed with %s", collection.name, reason)
        generation = self._generations.get(collection)
        if generation is not None:
            with collection.paused(flush=False):
                generation.journal.invalidate()
            self._schedule_copies(collection)

    # -- the work of the pool's own thread

    def _enqueue(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)

    def _schedule_copies(self, collection: OpenCollection) -> None:
        if collection in self._scheduled or self.closed or time.monotonic() < self._not_before.get(collection, 0.0):
            return
        self._scheduled.add(collection)
        self._enqueue(lambda: self._make_copies(collection, time.monotonic()))

    def _run_tasks(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=POLL_SECONDS)
                if task is None:
                    return
                task()
            except queue.Empty:
                self._check_processes()
            except (PlusError, OSError, EOFError, NotAnsweredError) as error:
                if not self.closed:
                    logger.warning("readers: %s; searches are answered without them", error)

    def _check_processes(self) -> None:
        """Restart readers that ended between two requests, and remove leftover folders."""
        leftovers, self._leftovers = self._leftovers, []
        for folder in leftovers:
            self._remove(folder)
        for reader, process in enumerate(self._processes):
            if process is not None and process.process.poll() is not None:
                self._restart(reader, process)

    def _start(self, reader: int) -> None:
        if not self.closed:
            self._processes[reader] = _Process()

    def _restart(self, reader: int, process: _Process) -> None:
        if self._processes[reader] is not process:
            return  # another thread noticed it too
        self._processes[reader] = None  # first, so that no further request is sent to it
        for generation in self._generations.values():
            generation.ready.discard(reader)
        ending, now = process.end(), time.monotonic()
        self._ends = [moment for moment in self._ends if now - moment < 60] + [now]
        if self.closed:
            return
        if len(self._ends) > MOST_ENDS:
            logger.warning("readers end again and again (%s): no more are started, this process answers", ending)
            return
        logger.warning("a reader ended (%s): its searches are answered here until it is started again", ending)
        self._start(reader)
        for generation in list(self._generations.values()):
            if generation.journal.valid:
                self._open(generation, reader)

    def _make_copies(self, collection: OpenCollection, since: float) -> None:
        """Make new copies of a collection, once its writes have come to rest."""
        now = time.monotonic()
        if self.closed or collection.closed or _small(collection):
            self._not_before[collection] = now + SMALL_PAUSE
            self._scheduled.discard(collection)
            return
        if now - collection.last_write < QUIET and now - since < LONGEST_LOAD:
            time.sleep(QUIET / 20)  # then to the end of the queue: other tasks must not wait for a load
            self._enqueue(lambda: self._make_copies(collection, since))
            return
        self._retire(collection)
        try:
            generation = self._new_generation(collection)
        except BaseException:
            self._not_before[collection] = now + FAILURE_PAUSE
            raise
        finally:
            self._scheduled.discard(collection)
        self._generations[collection] = generation
        for reader in range(self.size):
            self._open(generation, reader)

    def _new_generation(self, collection: OpenCollection) -> Generation:
        """The base copy, made while nothing is written, and the journal from that moment on."""
        folder = self._folder / uuid.uuid4().hex
        try:
            with collection.paused(flush=True):
                self._require_room(collection)
                # the readers' copies are made of this one later, while writes go on
                link_or_copy_shard(collection.folder / SHARD_FOLDER, folder / "base" / SHARD_FOLDER, 1)
                progress = [ReaderProgress(folder / f"{reader}.progress") for reader in range(self.size)]
                journal = Journal(
                    folder / "journal", progress, lambda: self._enqueue(lambda: self._retire(collection, journal))
                )
                settings = collection.settings.model_dump_json(exclude_none=True)
                collection.follow(journal)
        except (OSError, PlusError):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Generation(next(self._numbers), folder, journal, settings, collection.name, progress)

    def _require_room(self, collection: OpenCollection) -> None:
        needed = SPARE_DISK + (1 + self.size) * copied_bytes(collection.folder / SHARD_FOLDER)
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise LocationError(
                f"no space left for copies of collection '{collection.name}' in '{self._folder}': "
                f"{free >> 20} MB free, {needed >> 20} MB needed"
            )

    def _open(self, generation: Generation, reader: int) -> None:
        process = self._processes[reader]
        if process is None or not generation.journal.valid:
            return
        try:
            generation.renew(reader)
            process.order("open", generation.copy(reader))
            generation.ready.add(reader)
        except (EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # no fault of the reader
                raise
            self._enqueue(lambda: self._restart(reader, process))

    def _retire(self, collection: OpenCollection, journal: Journal | None = None) -> None:
        """Drop the copies of a collection; with `journal`, only if they follow that one."""
        generation = self._generations.get(collection)
        if generation is None or (journal is not None and generation.journal is not journal):
            return
        del self._generations[collection]
        for reader, process in enumerate(self._processes):
            if process is not None and reader in generation.ready:
                try:
                    process.order("drop", generation.number)
                except (EOFError, OSError):
                    self._restart(reader, process)
        self._remove(generation.folder)

    def _remove(self, folder: Path) -> None:
        """Remove the folder of a generation; later, if a reader is still closing its files."""
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            self._leftovers.append(folder)

    # -- the end

    def close(self) -> None:
        """End all readers and remove their files."""
        if self.closed:
            return
        self.closed = True
        # killed before the thread is joined: it may be waiting for the answer of one
        for process in self._processes:
            if process is not None:
                process.process.kill()
        self._tasks.put(None)
        self._thread.join()
        for process in self._processes:
            if process is not None:
                process.end()
        self.executor.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _small(collection: OpenCollection) -> bool:
    size = sum(params.size for params in vector_params(collection.settings).values())
    return collection.info().points_count * size * 4 < SMALLEST


def checked_readers(count: int) -> int:
    """Raises `InputError` for what is no number of processes."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 64:
        raise InputError(f"readers is {brief(count)}, expected a number of processes from 0 to 64")
    return count


def start_readers(engine: Engine, count: int) -> None:
    """Give an engine readers, or more than it has. Raises `InputError`, `LocationError`."""
    if checked_readers(count) == 0 or not sys.executable:
        return
    with engine.mutex:
        if engine.readers is None or engine.readers.size < count:
            if engine.readers is not None:
                engine.readers.close()
            try:
                engine.readers = ReaderPool(engine.place, count)
            except OSError as error:
                raise LocationError(f"folder '{engine.root}' cannot be written: {error.strerror}") from error
