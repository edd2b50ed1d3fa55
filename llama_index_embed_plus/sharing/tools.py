"""Collections -> what a language model may do with them: look, search, add texts, say what was of use.

Guarantees: only the collections that were named, if any were; nothing is written that was said to be read only, and no
passage of a file is replaced; every request is bounded. A search is kept in the log, if there is one, so that feedback
reaches the examples of the next training, and is a span, if spans are written. What a collection cannot be asked with
is one error that says why. Does not know: how the requests come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Literal

from llama_index_embed_plus.integrations.spans import PendingSpan, SearchSpans
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import fetch_points, point_id
from qdrant_tools.errors import CollectionError, CollectionNotFoundError, InputError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.log.records import LoggedHit, LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.log.values import finite
from qdrant_tools.records import Hit, Passage
from qdrant_tools.search.written import written_filter
from qdrant_tools.sources.given import passage_of
from qdrant_tools.sources.origin import SourcedHit
from qdrant_tools.sources.stored import with_origins
from qdrant_tools.validation import brief, checked_text, is_unicode

Mode = Literal["dense", "lexical", "hybrid"]
Feedback = Literal["click", "up", "down", "cited"]

MOST_HITS = 50
MOST_TEXTS = 100
"""That one call adds."""
LONGEST_TEXT = 100_000
"""Characters of a text that is added, or of a question."""
SHOWN = 4000
"""Characters of a hit's text."""
MOST_CONDITIONS = 20


@dataclass(frozen=True)
class CollectionTools:
    """What is offered of the collections of a location. `opener` opens one with its encoder, when it is first asked."""

    manager: CollectionManager
    opener: Callable[[str], Collection]
    names: tuple[str, ...] = ()
    """The collections or aliases that are offered; none given: all."""
    read_only: bool = False
    log: RetrievalLog | None = None
    spans: SearchSpans | None = None
    _lock: Lock = field(default_factory=Lock, repr=False)

    def collections(self) -> list[dict[str, Any]]:
        """The names that are offered, with what is in each."""
        rows = []
        for name in self.names or sorted({*self.manager.names(), *self.manager.aliases()}):
            try:
                docs = self._plain(name)
            except CollectionError:
                continue  # another program's
            rows.append(
                {
                    "name": name,
                    "passages": docs.gateway.count(),
                    "space": docs.space,
                    "modes": ["dense", "lexical", "hybrid"] if docs.lexical is not None else ["dense"],
                }
            )
        return rows

    def search(
        self, collection: str, query: str, *, k: int = 5, mode: Mode = "dense", conditions: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The hits of a question, and the id of the search for `feedback` ("" without a log)."""
        checked_text("query", query)
        if not query.strip() or len(query) > LONGEST_TEXT:
            raise InputError(f"query has {len(query):,} characters, expected 1 to {LONGEST_TEXT:,}")
        if not 1 <= k <= MOST_HITS:
            raise InputError(f"k is {k}, expected 1 to {MOST_HITS}")
        if len(conditions) > MOST_CONDITIONS:
            raise InputError(f"there are {len(conditions)} conditions, expected at most {MOST_CONDITIONS}")
        docs = self._plain(collection) if mode == "lexical" else self._with_encoder(collection)
        begun = None if self.spans is None else self.spans.begin()
        wanted = written_filter(conditions, docs)
        if mode == "dense":
            hits = docs.search(query, k=k, filter=wanted)
        elif mode == "lexical":
            hits = docs.search_lexical([query], k=k, filter=wanted)[0]
        else:
            hits = docs.search_hybrid([query], k=k, filter=wanted)[0]
        search_id = ""
        if self.log is not None:
            search_id = self.log.record(query, hits, collection=docs.name, space=docs.space)
            if self.spans is not None and begun is not None:
                shown = tuple(LoggedHit(hit.id, hit.rank, finite(hit.score)) for hit in hits)
                search = LoggedSearch(search_id, datetime.now(UTC), query, docs.name, docs.space, shown)
                PendingSpan(self.spans, lambda: search, begun, [hit.text for hit in hits])(self.log)
        return {"search_id": search_id, "hits": [_row(hit) for hit in with_origins(docs, hits)]}

    def index(self, collection: str, passages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Add passages `{"text"}`, which may have an "id" and "metadata"; how many are new."""
        if self.read_only:
            raise UsageError("these collections are offered to be read only")
        if not 1 <= len(passages) <= MOST_TEXTS:
            raise InputError(f"there are {len(passages)} texts, expected 1 to {MOST_TEXTS} at once")
        docs = self._with_encoder(collection)
        given = []
        for row in passages:
            text, name, metadata = row.get("text"), row.get("id"), row.get("metadata") or {}
            if not isinstance(text, str) or len(text) > LONGEST_TEXT:
                raise InputError(f"text is {brief(text)}, expected a string of at most {LONGEST_TEXT:,} characters")
            # one without an id has that of its text, as everywhere
            given.append(Passage(passage_of(text).id if name is None else name, text, metadata))
        self._refuse_files(docs, [passage.id for passage in given])
        report = index_passages(docs, given, docs.required_encoder())
        counts = ("added", "updated", "refreshed", "unchanged", "truncated")
        return {name: getattr(report, name) for name in counts}

    def feedback(self, search_id: str, passage_id: str, kind: Feedback) -> None:
        """Keep what a user did with a hit of a search, in the log."""
        if self.log is None:
            raise UsageError("no log is kept here: start the server with --log FILE")
        self.log.feedback(search_id, passage_id, kind)

    def _name(self, name: str) -> str:
        """Refuse a collection that is not offered, as if it were not there."""
        if self.names and name not in self.names:
            raise CollectionNotFoundError(f"no collection {brief(name)} is offered; there are {', '.join(self.names)}")
        return name

    def _plain(self, name: str) -> Collection:
        return self.manager.open(self._name(name))

    def _with_encoder(self, name: str) -> Collection:
        self._plain(name)  # before a model is opened for nothing
        with self._lock:
            return self.opener(name)

    def _refuse_files(self, docs: Collection, ids: Sequence[str]) -> None:
        """Refuse ids of passages that came from a file: the next run over the files would bring these back."""
        points = [point_id(name) for name in ids if isinstance(name, str) and is_unicode(name)]
        stored = fetch_points(docs, points, with_text=False)
        hits = [Hit(each.id, 0.0, 1, point_id=each.point_id) for each in stored.values()]
        for hit in with_origins(docs, hits):
            if isinstance(hit, SourcedHit):
                raise InputError(f"passage {brief(hit.id)} is of the file {hit.origin.file!r}: give another id")


def _row(hit: Hit) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": hit.id,
        "score": round(hit.score, 6),
        "text": hit.text if len(hit.text) <= SHOWN else f"{hit.text[: SHOWN - 4]} ...",
        "metadata": dict(hit.metadata),
    }
    if isinstance(hit, SourcedHit):
        row["file"] = hit.origin.file
    return row
