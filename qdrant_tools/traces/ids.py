"""Documents as an application knows them -> passages of the collection.

An id is the passage's, or that of its point, which is what LlamaIndex and LangChain know; or it is found by the whole
text, which survives that everything was indexed again.

Guarantees: never by a part of a text, though by a node's own text where the collection embeds it with its metadata.
Memory does not grow with the collection. An id that is not there stays as it is, and is counted. Does not know: spans.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.traces.records import SpanDocument
from qdrant_tools.traces.report import MOST_EXAMPLES, TraceReport

if TYPE_CHECKING:
    from qdrant_tools.collections.collection import Collection

SEARCHES_AT_ONCE = 64
_MOST_KNOWN = 100_000


class Ids(Protocol):
    """What names a document of a list."""

    @property
    def lacking(self) -> str:
        """Why a list without any named document gives no search, as in `report.DROPPED`."""
        ...

    def of(self, document: SpanDocument) -> str | None:
        """The id, None if it is not known."""
        ...


class WrittenIds:
    """Ids as the tool writes them."""

    lacking = "no id"

    def of(self, document: SpanDocument) -> str | None:
        return document.id


class IdsByText:
    """The ids of the passages of a collection that have the documents' texts."""

    lacking = "no text"

    def __init__(self, collection: Collection) -> None:
        self._texts = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._texts.execute("CREATE TABLE texts (hash BLOB PRIMARY KEY, id TEXT NOT NULL) WITHOUT ROWID")
        self._texts.execute("BEGIN")
        # a framework may embed a text below its metadata, and its tracing writes the text alone
        layouts = {collection.layout, replace(collection.layout, embedded_metadata=False)}
        for page in collection.gateway.pages(batch_size=512):
            passages = [
                layout.passage(record.payload, point_id=plain_id(record.id)) for record in page for layout in layouts
            ]
            # of several passages with one text, any is the one
            self._texts.executemany(
                "INSERT INTO texts VALUES (?, ?) ON CONFLICT DO UPDATE SET id = min(id, excluded.id)",
                [(_hash(passage.text), passage.id) for passage in passages if passage.text.strip()],
            )

    def of(self, document: SpanDocument) -> str | None:
        if not document.text:
            return None
        found = self._texts.execute("SELECT id FROM texts WHERE hash = ?", (_hash(document.text),)).fetchone()
        return None if found is None else str(found[0])

    def close(self) -> None:
        self._texts.close()


class IdsOfList:
    """As other ids, also for a document that is written by its id alone: the list it was in has the text of that id."""

    def __init__(self, ids: Ids, documents: Iterable[SpanDocument]) -> None:
        self._ids = ids
        self._named = {document.id: ids.of(document) for document in documents if document.id}

    @property
    def lacking(self) -> str:
        return self._ids.lacking

    def of(self, document: SpanDocument) -> str | None:
        found = self._ids.of(document)
        return self._named.get(document.id or "") if found is None and not document.text else found


def _hash(text: str) -> bytes:
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).digest()[:16]


def ids_checked(
    searches: Iterable[LoggedSearch], collection: Collection, report: TraceReport
) -> Iterator[LoggedSearch]:
    """Yield the searches with the ids of passages where they had those of points, and count what is not there."""
    counted = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        counted.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
        counted.execute("BEGIN")
        report.ids_found = 0
        known: dict[str, str | None] = {}
        searches = iter(searches)
        while block := list(islice(searches, SEARCHES_AT_ONCE)):
            names = list(dict.fromkeys(hit.id for search in block for hit in search.hits or search.feedback))
            new = [name for name in names if name not in known]
            if len(known) > _MOST_KNOWN:
                known, new = {}, names
            known.update(passage_ids(collection, new))
            for name in new:
                if not counted.execute("INSERT INTO ids VALUES (?) ON CONFLICT DO NOTHING", (name,)).rowcount:
                    continue
                report.ids += 1
                report.ids_found += known[name] is not None
                if known[name] is None and len(report.not_found) < MOST_EXAMPLES:
                    report.not_found.append(name)
            yield from (_renamed(search, known) for search in block)
    finally:
        counted.close()


def passage_ids(collection: Collection, names: Sequence[str]) -> dict[str, str | None]:
    """The passage of each id, which is its own or that of its point; None for one that is not there."""
    from qdrant_tools.collections.points import as_point_id, fetch_points, stored_ids

    found: dict[str, str | None] = dict.fromkeys(names)
    if not names:
        return found
    found.update(stored_ids(collection, list(names)))
    points = {name: point for name in names if found[name] is None and (point := as_point_id(name)) is not None}
    if points:
        passages = fetch_points(collection, list(dict.fromkeys(points.values())), with_text=False)
        found.update({name: passages[point].id for name, point in points.items() if point in passages})
    return found


def _renamed(search: LoggedSearch, known: dict[str, str | None]) -> LoggedSearch:
    named = {each.id: known.get(each.id) for each in search.hits or search.feedback}
    new = {name: passage for name, passage in named.items() if passage is not None and passage != name}
    if not new:
        return search
    answer = search.answer
    if answer is not None:
        answer = replace(
            answer,
            context=tuple(new.get(name, name) for name in answer.context),
            cited=tuple(new.get(name, name) for name in answer.cited),
        )
    return replace(
        search,
        hits=tuple(replace(hit, id=new.get(hit.id, hit.id)) for hit in search.hits),
        feedback=tuple(replace(event, id=new.get(event.id, event.id)) for event in search.feedback),
        answer=answer,
    )
