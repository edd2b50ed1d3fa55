"""Processes that answer searches from copies of the collections, because threads of one process cannot: the engine's
binding holds the interpreter's lock during a call.

A large collection that is searched gets a copy for each reader: the files that never change are hard links, the others
are copied. Every write is in the collection's journal when it returns, and a reader applies the journal before it
answers, so that a search sees what was written before it. What the journal cannot say (an index exchanged, changed
settings, a load that readers would only do again) makes the copies useless; new ones follow when the writes have come
to rest. Whatever a reader does not answer, this process does: a copy not ready, a reader too far behind, an error.

Guarantees: results are those of this process; no reader writes to a file of a collection; readers end with this
process, and their files with the engine, at the latest when the folder is opened again.
Does not know: the manifest, what is asked.
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
from typing import Any
from weakref import WeakKeyDictionary

from qdrant_tools.edge.convert.config import vector_params
from qdrant_tools.edge.readers.messages import (
    ANSWER,
    QUESTION,
    REFUSAL,
    UNPICKLABLE,
    Copy,
    Journal,
    Progress,
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

READER = Path(__file__).with_name("process.py")

SMALLEST = 4 << 20  # bytes of vectors; below, a search takes less than to ask another process
AT_ONCE = 2  # questions that a reader is given: the second waits there while it answers the first
QUESTION_BYTES = 64 << 10  # of writes that a question may have to wait for; with more, this process answers
PATIENCE = 1.0  # seconds that a search waits for a reader before this process answers
LONGEST_ANSWER = 600  # seconds after which a reader counts as dead
QUIET, RESTLESS = 1.0, 10.0  # seconds without a write, and of writes, after which copies are made anew
LOOK_AGAIN, TRY_AGAIN = 5.0, 60.0  # seconds after a collection was too small, or copies could not be made
WATCH = 0.5  # seconds between two looks at whether all readers live
IN_A_ROW = 16  # searches of one thread after which it counts as the only one
ENDS = 3  # deaths within a minute after which no reader is started again
SPARE = 256 << 20  # bytes of disk that copies leave to the collections: the journal needs some too

logger = logging.getLogger(__name__)


class NotAnsweredError(Exception):
    """No reader answers this: ask the engine of this process. `reason` is an error that one ran into."""

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
    progress: list[Progress]
    ready: set[int] = field(default_factory=set)
    """The numbers of the readers that have opened theirs."""

    @property
    def base(self) -> Path:
        return self.folder / "base" / SHARD_FOLDER

    def copy(self, reader: int) -> Copy:
        shard = self.folder / str(reader) / SHARD_FOLDER
        return Copy(self.number, self.name, self.settings, shard, self.folder / "journal", self._place(reader))

    def _place(self, reader: int) -> Path:
        return self.folder / f"{reader}.place"

    def renew(self, reader: int) -> None:
        """Give a reader a new copy, which holds nothing of the journal yet."""
        shutil.rmtree(self.folder / str(reader), ignore_errors=True)
        threads = max(1, (os.cpu_count() or 1) // len(self.progress))
        link_or_copy_shard(self.base, self.folder / str(reader) / SHARD_FOLDER, threads)
        self.progress[reader].place = 0


class _Process:
    """One reader process with its sockets: one for orders, the others for questions."""

    def __init__(self) -> None:
        pairs = [socket.socketpair() for _ in range(1 + AT_ONCE)]
        theirs = [their for _, their in pairs]
        for own, _ in pairs:
            limit = struct.pack("ll", LONGEST_ANSWER, 0)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.orders, *self.questions = [own for own, _ in pairs]
        numbers = [their.fileno() for their in theirs]
        command = [sys.executable, "-P", str(READER), *map(str, numbers)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, pass_fds=numbers
        )
        for their in theirs:
            their.close()
        self.started = False

    def order(self, name: str, value: Any) -> None:
        """Give an order and wait until it is carried out. Raises `EOFError`, `OSError`, `NotAnsweredError`."""
        if not self.started:
            receive(self.orders)
            self.started = True
        send(self.orders, pickle.dumps((name, value)))
        kind, content = receive(self.orders)
        if kind != ANSWER:
            raise NotAnsweredError(content.decode())

    def end(self) -> str:
        """End it, without a chance to object: it holds nothing that is not elsewhere. How it ended."""
        self.process.kill()
        code = self.process.wait()
        for channel in (self.orders, *self.questions):
            channel.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class _Slot:
    """The right to ask one reader one question."""

    def __init__(self, reader: int, place: int) -> None:
        self.reader, self.place = reader, place


class ReaderPool:
    """The readers of an engine."""

    def __init__(self, root: Path, count: int) -> None:
        self._folder = prepare_readers_folder(root)
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._processes: list[_Process | None] = [None] * count
        self._deaths: list[float] = []
        self._caller = self._calls = 0
        self._leftovers: list[Path] = []
        self._generations: dict[OpenCollection, Generation] = {}
        self._wanted: set[OpenCollection] = set()
        self._not_before: WeakKeyDictionary[OpenCollection, float] = WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.off = False
        self.parts = ThreadPoolExecutor(max(2, count), thread_name_prefix="reader-parts")
        for place in range(AT_ONCE):
            for reader in range(count):
                self._slots.put(_Slot(reader, place))
        # the kernel ends a reader with the thread that started it: this one lives as long as the pool
        self._keeper = threading.Thread(target=self._keep, name="readers", daemon=True)
        self._keeper.start()
        for reader in range(count):
            self._later(lambda reader=reader: self._start(reader))  # type: ignore[misc]

    @property
    def size(self) -> int:
        return len(self._processes)

    # -- asking

    def helps(self, collection: OpenCollection) -> bool:
        """Whether another process is worth its detour. It is not for the searches of a single thread, between writes:
        this one would only wait, and waking processes takes as long as a search."""
        thread = threading.get_ident()
        if thread != self._caller:
            self._caller, self._calls = thread, 0
        self._calls += 1
        return self._calls <= IN_A_ROW or time.monotonic() - collection.last_write < QUIET

    def ask(self, collection: OpenCollection, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """What a reader answers. Raises `NotAnsweredError`."""
        generation = self._generations.get(collection)
        if generation is None or generation.journal.spoilt:
            self._want(collection)
            raise NotAnsweredError
        try:
            question = pickle.dumps((method, arguments, options), pickle.HIGHEST_PROTOCOL)
        except UNPICKLABLE:
            raise NotAnsweredError from None
        try:
            slot = self._slots.get(timeout=PATIENCE)
        except queue.Empty:
            raise NotAnsweredError from None
        try:
            kind, content = self._asked(slot, generation, question)
        finally:
            self._slots.put(slot)
        if kind == ANSWER:
            return unpacked(content)
        raise NotAnsweredError(content.decode() if kind == REFUSAL else "")

    def _asked(self, slot: _Slot, generation: Generation, question: bytes) -> tuple[bytes, bytes]:
        process = self._processes[slot.reader]
        until = generation.journal.size
        if process is None or slot.reader not in generation.ready:
            raise NotAnsweredError
        if until - generation.progress[slot.reader].place > QUESTION_BYTES:
            raise NotAnsweredError
        try:
            channel = process.questions[slot.place]
            send(channel, QUESTION.pack(generation.number, until) + question)
            return receive(channel)
        except (EOFError, OSError):
            self._later(lambda: self._died(slot.reader, process))
            raise NotAnsweredError from None

    def ready(self, collection: OpenCollection) -> bool:
        """Whether every reader would answer a search of this collection; if not, they are made to."""
        generation = self._generations.get(collection)
        if generation is None or generation.journal.spoilt:
            self._want(collection)
        return (
            generation is not None
            and not generation.journal.spoilt
            and len(generation.ready) == self.size
            and None not in self._processes
        )

    def disagreed(self, collection: OpenCollection, reason: str) -> None:
        """A reader ran into an error where this process does not: its copies are not what they should be."""
        logger.warning("readers of collection '%s' are given new copies: one failed with %s", collection.name, reason)
        generation = self._generations.get(collection)
        if generation is not None:
            with collection.paused(flush=False):
                generation.journal.spoil()
            self._want(collection)

    # -- the keeper's work

    def _later(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)

    def _want(self, collection: OpenCollection) -> None:
        if collection in self._wanted or self.off or time.monotonic() < self._not_before.get(collection, 0.0):
            return
        self._wanted.add(collection)
        self._later(lambda: self._copy(collection, time.monotonic()))

    def _keep(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=WATCH)
                if task is None:
                    return
                task()
            except queue.Empty:
                self._watch()
            except (PlusError, OSError, EOFError, NotAnsweredError) as error:
                if not self.off:
                    logger.warning("readers: %s; searches are answered without them", error)

    def _watch(self) -> None:
        """See whether a reader has ended that nobody has asked since, and tidy up."""
        leftovers, self._leftovers = self._leftovers, []
        for folder in leftovers:
            self._remove(folder)
        for reader, process in enumerate(self._processes):
            if process is not None and process.process.poll() is not None:
                self._died(reader, process)

    def _start(self, reader: int) -> None:
        if not self.off:
            self._processes[reader] = _Process()

    def _died(self, reader: int, process: _Process) -> None:
        if self._processes[reader] is not process:
            return  # somebody else saw it too
        self._processes[reader] = None
        for generation in self._generations.values():
            generation.ready.discard(reader)
        how, now = process.end(), time.monotonic()
        self._deaths = [each for each in self._deaths if now - each < 60] + [now]
        if self.off:
            return
        if len(self._deaths) > ENDS:
            logger.warning("readers end again and again (%s): no more are started, this process answers", how)
            return
        logger.warning("a reader ended (%s): its searches are answered here until it is started again", how)
        self._start(reader)
        for generation in list(self._generations.values()):
            if not generation.journal.spoilt:
                self._open(generation, reader)

    def _copy(self, collection: OpenCollection, since: float) -> None:
        """Make new copies of a collection, once its writes have come to rest."""
        now = time.monotonic()
        if self.off or collection.closed or _small(collection):
            self._not_before[collection] = now + LOOK_AGAIN
            self._wanted.discard(collection)
            return
        if now - collection.last_write < QUIET and now - since < RESTLESS:
            time.sleep(QUIET / 20)
            self._later(lambda: self._copy(collection, since))
            return
        self._retire(collection)
        try:
            generation = self._copied(collection)
        except BaseException:
            self._not_before[collection] = now + TRY_AGAIN
            raise
        finally:
            self._wanted.discard(collection)
        self._generations[collection] = generation
        for reader in range(self.size):
            self._open(generation, reader)

    def _copied(self, collection: OpenCollection) -> Generation:
        """The base copy, made while nothing is written, and the journal from that moment on."""
        folder = self._folder / uuid.uuid4().hex
        try:
            with collection.paused(flush=True):
                self._require_room(collection)
                link_or_copy_shard(collection.folder / SHARD_FOLDER, folder / "base" / SHARD_FOLDER, 1)
                progress = [Progress(folder / f"{reader}.place") for reader in range(self.size)]
                journal = Journal(
                    folder / "journal", progress, lambda: self._later(lambda: self._retire(collection, journal))
                )
                settings = collection.settings.model_dump_json(exclude_none=True)
                collection.follow(journal)
        except (OSError, PlusError):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Generation(next(self._numbers), folder, journal, settings, collection.name, progress)

    def _require_room(self, collection: OpenCollection) -> None:
        needed = SPARE + (1 + self.size) * copied_bytes(collection.folder / SHARD_FOLDER)
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise LocationError(
                f"no space left for copies of collection '{collection.name}' in '{self._folder}': "
                f"{free >> 20} MB free, {needed >> 20} MB needed"
            )

    def _open(self, generation: Generation, reader: int) -> None:
        process = self._processes[reader]
        if process is None or generation.journal.spoilt:
            return
        try:
            generation.renew(reader)
            process.order("open", generation.copy(reader))
            generation.ready.add(reader)
        except (EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            self._later(lambda: self._died(reader, process))

    def _retire(self, collection: OpenCollection, journal: Journal | None = None) -> None:
        """Have the copies of a collection dropped; with `journal`, if they are those that follow it."""
        generation = self._generations.get(collection)
        if generation is None or (journal is not None and generation.journal is not journal):
            return
        del self._generations[collection]
        for reader, process in enumerate(self._processes):
            if process is not None and reader in generation.ready:
                try:
                    process.order("drop", generation.number)
                except (EOFError, OSError):
                    self._died(reader, process)
        self._remove(generation.folder)

    def _remove(self, folder: Path) -> None:
        """Remove the folder of a generation, later if a reader is still closing its files."""
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            self._leftovers.append(folder)

    # -- the end

    def close(self) -> None:
        """End all readers and remove their files."""
        if self.off:
            return
        self.off = True
        for process in self._processes:
            if process is not None:
                process.process.kill()
        self._tasks.put(None)
        self._keeper.join()
        for process in self._processes:
            if process is not None:
                process.end()
        self.parts.shutdown(wait=False, cancel_futures=True)
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
                engine.readers = ReaderPool(engine.root, count)
            except OSError as error:
                raise LocationError(f"folder '{engine.root}' cannot be written: {error.strerror}") from error
