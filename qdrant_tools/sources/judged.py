"""Judgements about documents, measured on the parts that a collection keeps of them.

A row or a file that was cut is in a collection as parts, whose metadata names their `document`. Judgements name the
document, as they did when it was whole. Then a part that is found counts as its document: where the best of its parts
stands, there the document stands, and `k` counts documents. A passage that is no part stands for itself.

Guarantees: judgements that name documents and also parts of documents are refused, since what a place in the ranking
is could not be told. Does not know: metrics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from qdrant_client import models

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection as Stored
from qdrant_tools.collections.points import stored_ids
from qdrant_tools.errors import InputError, brief
from qdrant_tools.records import Encoder, Hit, Passage
from qdrant_tools.same import id_key
from qdrant_tools.search.around import DOCUMENT
from qdrant_tools.search.dense import search_batch

PAGE = 1000
_PART = re.compile(r"(.+)#[0-9a-f]{12}(?:-[0-9]+)?", re.DOTALL)

Find = Callable[[Sequence[int], int], list[list[Hit]]]
"""Places of queries, and how many hits -> the hits of each, with the metadata field `document`."""


def document_of(passage_id: str) -> str:
    """The document whose part has this id, by how ids of parts are written; the id itself of any other passage."""
    found = _PART.fullmatch(passage_id)
    return found[1] if found else passage_id


def document_named(passage: Passage | Hit) -> str:
    """The document that the metadata names; the id itself of what is no part."""
    document = passage.metadata.get(DOCUMENT)
    return document if isinstance(document, str) else passage.id


def parts_in(collection: Stored) -> Iterator[tuple[str, str]]:
    """(passage id, document) of every passage that is part of a document."""
    layout = collection.layout
    if not layout.metadata and not layout.id:
        return
    field = layout.metadata_field(DOCUMENT)
    filled = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=field))])
    names = [field, *([layout.id] if layout.id else [])]
    for page in collection.gateway.pages(batch_size=PAGE, with_payload=names, scroll_filter=filled):
        for record in page:
            passage = layout.passage(record.payload, point_id=plain_id(record.id))
            document = passage.metadata.get(DOCUMENT)
            if isinstance(document, str):
                yield passage.id, document


def judged_documents(
    parts: Iterable[tuple[str, str]], names: Iterable[str], passages: Collection[str] = ()
) -> dict[str, str]:
    """Of the judged ids that no passage has, those that are documents with parts -> how these are spelled here.

    passages: the judged ids that passages have.

    Raises:
        InputError: there are documents among the names, and some of the passages are parts of documents.
    """
    wanted = {id_key(name): name for name in names}
    if not wanted:
        return {}
    judged, found, odd = frozenset(passages), {}, None
    for passage, document in parts:
        if (name := wanted.get(id_key(document))) is not None:
            found[name] = document
        if passage in judged and passage != document:
            odd = odd or passage
    if found and odd is not None:
        name = next(iter(found))
        raise InputError(
            f"the judgements name documents that were cut, such as {brief(name)}, and parts of documents, such as "
            f"{brief(odd)}: write either the documents or the parts"
        )
    return found


def documents_judged(collection: Stored, names: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Judged ids -> (those that passages have, those that are documents with parts), as the collection spells them.

    Raises `InputError` as `judged_documents` does.
    """
    passages = stored_ids(collection, sorted(names))
    missing = [name for name in names if name not in passages]
    if not missing:
        return passages, {}
    return passages, judged_documents(parts_in(collection), missing, passages.values())


def search_documents(find: Find, count: int, k: int) -> list[list[Hit]]:
    """The best hit of each of the `k` best documents, under the id of the document, for each of `count` queries."""
    found: list[list[Hit]] = [[] for _ in range(count)]
    waiting, depth = list(range(count)), 2 * k
    while waiting:
        rest = []
        for place, hits in zip(waiting, find(waiting, depth), strict=True):
            found[place] = by_document(hits)[:k]
            # a shorter list is all there is to find
            if len(found[place]) < k and len(hits) >= depth:
                rest.append(place)
        waiting, depth = rest, 4 * depth
    return found


def by_document(hits: Sequence[Hit]) -> list[Hit]:
    """The best hit of each document, as the document; hits that are no parts as they are."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(document_named(hit), hit)
    return [replace(hit, id=name, rank=rank) for rank, (name, hit) in enumerate(best.items(), start=1)]


def search_judged(
    collection: Stored,
    queries: Sequence[str],
    encoder: Encoder,
    *,
    k: int,
    documents: bool,
    exact: bool = False,
) -> list[list[Hit]]:
    """The hits of each query by their vectors, with nothing but their ids; of `documents` instead of passages."""
    if not documents:
        return search_batch(collection, queries, encoder, k=k, exact=exact, fields=(), text=False)

    def find(places: Sequence[int], depth: int) -> list[list[Hit]]:
        asked = [queries[place] for place in places]
        return search_batch(collection, asked, encoder, k=depth, exact=exact, fields=(DOCUMENT,), text=False)

    return search_documents(find, len(queries), k)
