"""LlamaIndex retrievals -> rows of a retrieval log, written by a thread beside the application.

Two lines in an existing application::

    from llama_index_embed_plus import RetrievalRecorder

    recorder = RetrievalRecorder("retrievals.sqlite").start()

From then on every search that a retriever answers is recorded, synchronous or not, alone or inside a query engine:
query, hits with ids, ranks and scores, collection, space, time and, if you say which, session. A search that a
retriever makes for another retriever is not recorded, because nobody saw its hits.

Guarantees: a request only pays for copying ids and scores; whatever goes wrong with the log (a full disk, a locked
file, an overflowing queue) is counted and warned of, never raised in a request, and the warning quotes no query; an
orderly exit loses nothing, and a kill only what was not written yet; a forked child records too, by a writer of its
own. Does not know: what is done with the log.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import queue
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from inspect import BoundArguments
from multiprocessing.util import Finalize
from pathlib import Path
from types import TracebackType
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span_handlers.base import BaseSpanHandler

from llama_index_embed_plus.integrations.spans import Begun, PendingSpan, SearchSpans
from qdrant_tools.client.forks import renew_in_children
from qdrant_tools.errors import InputError, PlusError, UsageError
from qdrant_tools.log.records import (
    Answer,
    Feedback,
    LoggedHit,
    LoggedSearch,
    Verdict,
    check_answer,
    check_feedback,
    check_verdict,
)
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.log.values import finite
from qdrant_tools.validation import brief

GATHER_SECONDS = 0.2  # how long the writer waits for more entries of the same commit
MAX_BATCH = 1000  # entries of one commit

logger = logging.getLogger(__name__)

_Write = Callable[[RetrievalLog], object]
_Forget = Callable[[weakref.ref[NodeWithScore]], None]
_Retrieval = Callable[[BaseRetriever, str, list[NodeWithScore], Begun | None], None]


class RetrievalRecorder:
    """Records what LlamaIndex's retrievers find, from `start()` to `stop()`; also usable in `with`.

    `log` is a file or an open `RetrievalLog`, which may have a redaction rule. Collection and space are read from a
    retriever over Qdrant with a `PlusEmbedding`; for other retrievers, `collection` and `space` are recorded. At most
    `capacity` entries wait to be written. `failed` counts the lost ones. `session` is asked in each request for the
    session that its searches belong to, for example the value of a context variable. `spans` writes a span of
    OpenTelemetry for each search, when it is in the log.

    Raises `LogError` if the log cannot be opened: a wrong path is worth knowing before the first request.
    """

    def __init__(
        self,
        log: str | Path | RetrievalLog,
        *,
        collection: str = "",
        space: str = "",
        capacity: int = 10_000,
        session: Callable[[], str | None] | None = None,
        spans: SearchSpans | None = None,
    ) -> None:
        if capacity < 1:
            raise UsageError(f"capacity is {capacity}, expected at least 1")
        self._owns_log = not isinstance(log, RetrievalLog)
        self.log = log if isinstance(log, RetrievalLog) else RetrievalLog(log)
        self.collection, self.space = collection, space
        self._session = session
        self._recorded_hits: dict[int, _RecordedHit] = {}
        self._capacity = capacity
        self._recording = False
        self._written_spans = spans
        self._spans = _RetrievalSpans(self._record, None if spans is None else spans.begin)
        self._begin()
        renew_in_children(self, RetrievalRecorder._begin)

    def _begin(self) -> None:
        """Count from nothing, with an empty queue: what waits in that of a forked child's parent is its parent's."""
        self.recorded = 0
        self.failed = 0
        self._counting = threading.Lock()
        self._waiting: queue.Queue[_Write | None] = queue.Queue(self._capacity)
        self._write_now = threading.Event()
        self._writer: threading.Thread | None = None

    def start(self) -> RetrievalRecorder:
        """Begin to record, for the whole process and for those that are forked from it."""
        if not self._recording:
            self._recording = True
            self._start_writer()
            get_dispatcher().add_span_handler(self._spans)
        return self

    def _start_writer(self) -> None:
        # a daemon: Python waits for other threads before it calls atexit, and this one ends only by stop()
        self._writer = threading.Thread(target=self._write_until_stopped, name="embed-plus-recorder", daemon=True)
        self._writer.start()
        atexit.unregister(self.stop)  # a forked child has its parent's
        atexit.register(self.stop)
        if multiprocessing.parent_process() is not None:  # such a process ends without atexit
            Finalize(self, RetrievalRecorder._stop_of, args=(weakref.ref(self),), exitpriority=0)

    @staticmethod
    def _stop_of(recorder: weakref.ref[RetrievalRecorder]) -> None:
        if (found := recorder()) is not None:
            found.stop()

    def stop(self) -> None:
        """Stop recording, write what waits, and close the log if it was opened here."""
        if not self._recording:
            return
        self._recording = False
        atexit.unregister(self.stop)
        dispatcher = get_dispatcher()
        # before the end mark, so that hardly any entry comes behind it; the dispatcher has no method to remove one
        dispatcher.span_handlers = [handler for handler in dispatcher.span_handlers if handler is not self._spans]
        if self._writer is not None:
            self._write_now.set()
            self._waiting.put(None)
            self._writer.join()
            self._writer = None
        late = [write for write in self._take_waiting(self._waiting.maxsize) if write]  # came in while stopping
        if late:
            self._write(late)
        if self.failed > 1:
            logger.warning("retrieval log %s: %d entries are lost in all", self.log.path, self.failed)
        if self._owns_log:
            self.log.close()

    def flush(self) -> None:
        """Wait until everything recorded so far is on disk, or counted as failed."""
        self._write_now.set()
        self._waiting.join()
        self._write_now.clear()

    def search_id(self, hit: NodeWithScore) -> str:
        """Return the id of the search that returned `hit`, a result of a retriever or a source node of a query engine.

        `feedback` needs it, with `hit_id(hit.node)`. Raises `UsageError` for a hit of no recorded search.
        """
        recorded = self._recorded_hits.get(id(hit))
        if recorded is None:
            raise UsageError(f"node {hit.node_id!r} is no result of a recorded search: pass what a retriever returned")
        return recorded.search_id

    def feedback(self, search_id: str, hit_id: str, kind: str, value: float = 1.0) -> None:
        """Record what a user did with a hit. The writer does it after the search itself.

        Raises `InputError` for an unknown kind or value. If the log has no such search, it is counted in `failed`.
        """
        event = Feedback(hit_id, kind, value, datetime.now(UTC))
        check_feedback(event)
        self._queue(lambda log: log.feedback(search_id, hit_id, kind, value, at=event.at))

    def answered(
        self, search_ids: Sequence[str], text: str, *, context: Sequence[str] = (), cited: Sequence[str] = ()
    ) -> None:
        """Record the answer that was made of what these searches found, as `RetrievalLog.answered` does.

        Raises `InputError` for what no answer can be. If the log has no such search, it is counted in `failed`.
        """
        if isinstance(search_ids, str) or not search_ids:
            raise InputError(f"searches are {brief(search_ids)}, expected a list of ids that search_id() returned")
        ids, shown, named = tuple(search_ids), tuple(context), tuple(cited)
        check_answer(Answer(ids[0], text, len(ids), shown, named))
        self._queue(lambda log: log.answered(ids, text, context=shown, cited=named))

    def answer_feedback(
        self, search_id: str, kind: str = "thumb", value: float = 1.0, *, name: str = "", who: str = "", text: str = ""
    ) -> None:
        """Record what a user said of the whole answer that was made of a search; it is no label of a hit.

        A later thumb of one person replaces an earlier one. `who` tells the people apart, best by a hash.

        Raises `InputError` for an unknown kind or value. If the log has no such search, it is counted in `failed`.
        """
        said = Verdict(kind, value, datetime.now(UTC), name=name, who=who, text=text)
        check_verdict(said)
        self._queue(lambda log: log.answer_feedback(search_id, kind, value, at=said.at, name=name, who=who, text=text))

    def __enter__(self) -> RetrievalRecorder:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _record(self, retriever: BaseRetriever, query: str, hits: list[NodeWithScore], begun: Begun | None) -> None:
        """Called in the request: copy what the application may change next, and leave the rest to the writer."""
        search_id, at = uuid.uuid4().hex, datetime.now(UTC)
        scores = [(hit_id(hit.node), hit.score) for hit in hits]
        collection = _attribute(retriever, "_vector_store", "collection_name") or self.collection
        space = _attribute(retriever, "_embed_model", "space") or self.space
        session = self._session_of_request()
        for hit in hits:
            recorded = _RecordedHit(hit, self._forget)
            recorded.key, recorded.search_id = id(hit), search_id
            # by id(): LlamaIndex's hits cannot be hashed
            self._recorded_hits[recorded.key] = recorded

        def search() -> LoggedSearch:
            logged = tuple(LoggedHit(name, rank, finite(score)) for rank, (name, score) in enumerate(scores, start=1))
            return LoggedSearch(search_id, at, query, collection, space, logged, session=session)

        self._queue(lambda log: log.extend([search()]))
        spans = self._written_spans
        if spans is not None and begun is not None:
            shown = hits if spans.capture_content else []
            texts = [hit.text if isinstance(hit.node, TextNode) else "" for hit in shown]
            self._queue(PendingSpan(spans, search, spans.innermost(begun), texts))

    def _session_of_request(self) -> str:
        """The session of this request; "" where there is none, or the caller's function fails."""
        try:
            session = "" if self._session is None else self._session()
        except Exception as error:  # a request never fails for what is only recorded of it
            logger.warning("a search is recorded without its session: %s", type(error).__name__)
            return ""
        return str(session or "")

    def _forget(self, recorded: weakref.ref[NodeWithScore]) -> None:
        # Another hit may have got the same id() meanwhile.
        if isinstance(recorded, _RecordedHit) and self._recorded_hits.get(recorded.key) is recorded:
            del self._recorded_hits[recorded.key]

    def _queue(self, write: _Write) -> None:
        if self._writer is None and self._recording:  # the first entry in a forked child
            with self._counting:
                if self._writer is None:
                    self._start_writer()
        try:
            self._waiting.put_nowait(write)
        except queue.Full:
            self._count_failures(1, f"more than {self._waiting.maxsize} entries wait to be written")

    def _write_until_stopped(self) -> None:
        stopped = False
        while not stopped:
            batch = [self._waiting.get()]
            self._write_now.wait(GATHER_SECONDS)  # so that one commit serves many searches
            batch += self._take_waiting(MAX_BATCH - 1)
            stopped = None in batch
            self._write([write for write in batch if write is not None])
            for _ in batch:  # after the write, because flush() waits for it
                self._waiting.task_done()

    def _take_waiting(self, limit: int) -> list[_Write | None]:
        """Take up to `limit` entries that wait."""
        entries: list[_Write | None] = []
        # only one thread takes entries at a time, so what is there stays there until get()
        while len(entries) < limit and not self._waiting.empty():
            entries.append(self._waiting.get())
        return entries

    def _write(self, batch: list[_Write]) -> None:
        """Write everything in one transaction, or, if anything cannot be written, what can."""
        spans = [write for write in batch if isinstance(write, PendingSpan)]
        batch = [write for write in batch if not isinstance(write, PendingSpan)]
        if batch:
            self._write_to_log(batch)
        for write in spans:  # whoever takes them may be slow, and others wait for a transaction
            write(self.log)

    def _write_to_log(self, batch: list[_Write]) -> None:
        try:
            with self.log.batch(forks_wait=True):
                for write in batch:
                    write(self.log)
            self.recorded += len(batch)
        except Exception as error:  # the writer must go on whatever happens; it counts and warns
            # An error of the only entry, or of the file, is final. Else the other entries may still be written.
            if len(batch) == 1 or isinstance(error.__cause__, sqlite3.Error | OSError):
                # a rule that redacts is the caller's: what it raises may quote the query
                self._count_failures(len(batch), str(error) if isinstance(error, PlusError) else type(error).__name__)
            else:
                for write in batch:
                    self._write_to_log([write])

    def _count_failures(self, count: int, reason: str) -> None:
        """Warn at the first failure and whenever their number has another digit."""
        with self._counting:
            before, self.failed = self.failed, self.failed + count
        if len(str(before)) < len(str(self.failed)) or not before:
            lost = "1 entry is" if self.failed == 1 else f"{self.failed} entries are"
            logger.warning("retrieval log %s: %s lost: %s", self.log.path, lost, reason)


def hit_id(node: BaseNode) -> str:
    """Return the id under which `qdrant_tools` knows a node: the passage id in a collection of ours, else its own."""
    if "content_hash" in node.metadata and isinstance(node.metadata.get("passage_id"), str):
        return str(node.metadata["passage_id"])
    return node.node_id


class _RecordedHit(weakref.ref[NodeWithScore]):
    """The search that returned a hit, known as long as the application holds the hit."""

    __slots__ = ("key", "search_id")

    key: int
    search_id: str


class _RetrievalSpans(BaseSpanHandler[Any]):
    """Follows LlamaIndex's spans and reports every outermost `retrieve` or `aretrieve` that succeeds."""

    # Fields: pydantic's private attributes cost a microsecond at every access.
    report: _Retrieval | None = None
    begin: Callable[[], Begun] | None = None
    outermost: dict[str, tuple[BaseRetriever, Begun | None]] = Field(default_factory=dict)
    inside: set[str] = Field(default_factory=set)

    def __init__(self, report: _Retrieval, begin: Callable[[], Begun] | None) -> None:
        super().__init__()
        self.report, self.begin = report, begin

    def span_enter(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any | None = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # below a recorded search: a retriever that asks another one
        if parent_id in self.inside:
            self.inside.add(id_)
        # the dispatcher names a span after the method: "VectorIndexRetriever.retrieve-<uuid>"
        elif isinstance(instance, BaseRetriever) and id_.partition("-")[0].endswith((".retrieve", ".aretrieve")):
            self.inside.add(id_)
            self.outermost[id_] = instance, None if self.begin is None else self.begin()

    def span_exit(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any | None = None,
        result: Any | None = None,
        **kwargs: Any,
    ) -> None:
        self.inside.discard(id_)
        retriever, begun = self.outermost.pop(id_, (None, None))
        if retriever is None or self.report is None:
            return
        query = next(iter(bound_args.arguments.values()))
        text = query.query_str if isinstance(query, QueryBundle) else query
        self.report(retriever, text, list(result or ()), begun)

    def span_drop(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any | None = None,
        err: BaseException | None = None,
        **kwargs: Any,
    ) -> None:
        self.inside.discard(id_)
        self.outermost.pop(id_, None)

    def new_span(self, *_: Any, **__: Any) -> None:
        """Do nothing: no state is kept per span."""

    def prepare_to_exit_span(self, *_: Any, **__: Any) -> None:
        """Do nothing: no state is kept per span."""

    def prepare_to_drop_span(self, *_: Any, **__: Any) -> None:
        """Do nothing: no state is kept per span."""


def _attribute(retriever: BaseRetriever, *path: str) -> str:
    """Return the text at `path` under a retriever, or "" where there is none."""
    value: Any = retriever
    for name in path:
        value = getattr(value, name, None)
    return value if isinstance(value, str) else ""
