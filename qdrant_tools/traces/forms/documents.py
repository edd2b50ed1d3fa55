"""A list of documents as frameworks write it -> `SpanDocument`s.

Known are the documents of LangChain (`page_content`, `metadata`; as JSON, as a constructor, as Python's repr), nodes of
LlamaIndex (`node.id_`, `score`; and their repr), points of Qdrant (`payload`), documents of Haystack (`meta`), and
whatever has an id, a text and a score under their usual names. The list itself may lie under a usual name.

Guarantees: positions are those of the list; an id is the document's own, never that of the file that its chunks share,
unless nothing else is there and no two documents have the same; a distance is no score; a hidden text is none. A list
that is not surely one of documents is None where the caller asks for certainty. Does not know: spans, tools.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qdrant_tools.traces.forms.fields import first_of, name_of
from qdrant_tools.traces.forms.raw import number_of, score_of
from qdrant_tools.traces.forms.values import is_hidden, json_in, text_of
from qdrant_tools.traces.records import SpanDocument, TraceSettings

LIST_KEYS = (
    "documents", "retrieved_documents", "retrieved_docs", "docs", "source_documents", "source_nodes", "nodes", "chunks",
    "retrievedDocuments", "retrievedDocs", "retrievedChunks", "sourceDocuments", "sourceNodes", "searchResults",
    "retrieved_chunks", "passages", "hits", "matches", "points", "results", "result", "search_results", "sources",
    "contexts", "retrieved_contexts", "context", "retrieval_context", "references", "citations", "output", "value",
    "items", "data", "artifact", "retrievalResults", "retrieval_results", "return_value", "response",
)  # fmt: skip
"""Names under which a list of documents lies in an output."""
_OWN_IDS = ("id", "_id", "id_", "node_id", "point_id", "chunk_id", "passage_id", "segment_id", "uuid", "pk", "chunkId")
_METADATA_IDS = (
    "_id", "id", "node_id", "point_id", "chunk_id", "passage_id", "segment_id", "uuid", "chunkId",
    "x-amz-bedrock-kb-chunk-id",
)  # fmt: skip
_FILE_IDS = ("document_id", "doc_id", "docid", "documentId", "docId", "corpus_id", "corpusid")
"""Ids that chunks of one document share, where documents are chunked."""
_TEXTS = (
    "page_content", "pageContent", "text", "content", "chunk", "passage", "document", "body", "chunk_text", "snippet",
    "page", "contents", "document_content", "value", "preview",
)  # fmt: skip
_SCORES = (
    "score", "relevance_score", "similarity", "similarity_score", "_score", "certainty", "@search.score", "rrf_score",
    "relevanceScore", "search_score", "cosine_similarity",
)  # fmt: skip
_METADATA = ("metadata", "meta", "payload", "properties", "metadatas", "entity")
_METADATA_SCORES = ("score", "relevance_score")
_MOST_REPR = 2_000_000
_DEEPEST = 4
_NODE = re.compile(r"<?NodeWithScore\(node=\w+\(id_=([^)\s]{1,200})\), score=([^)\s]{1,40})\)>?")


class _Item(NamedTuple):
    """A document, taken out of its wrappers: its own fields, its metadata, the score of the wrapper."""

    fields: Mapping[str, Any]
    metadata: Mapping[str, Any]
    score: Any = None


def documents_in(value: Any, settings: TraceSettings, *, certain: bool = False) -> tuple[SpanDocument, ...] | None:
    """The documents of an output; None if it holds no list of them.

    certain: Only lists of what surely are retrieved documents: for spans of which nothing says that they are
        retrievals.
    """
    items = _items(value, certain, _DEEPEST)
    if items is None:
        return None
    taken = [_taken_out(item) for item in items]
    if not certain:
        kept = [(position, item) for position, item in enumerate(taken) if item is not None]
        return _documents(kept, settings)
    if not taken or not all(item is not None and _is_certain(item) for item in taken):
        return None
    return _documents([(position, item) for position, item in enumerate(taken) if item is not None], settings)


def hidden_in(value: Any) -> int:
    """How many values of an output a tool has hidden, down to the fields of its documents."""
    value = _inside(value)
    if is_hidden(value):
        return 1
    items = _items(value, False, _DEEPEST) or []
    fields = [item.fields for item in map(_taken_out, items) if item is not None]
    return sum(is_hidden(first_of(each, *_TEXTS)) for each in fields)


def collection_in(value: Any) -> str:
    """The collection that langchain-qdrant writes beside the id of every point; the empty string if there is none."""
    for item in map(_taken_out, (_items(value, False, _DEEPEST) or [])[:1]):
        name = None if item is None else item.metadata.get("_collection_name")
        if isinstance(name, str):
            return name
    return ""


def _inside(value: Any) -> Any:
    """What JSON holds, or the value itself."""
    inside = json_in(value)
    return value if inside is None else inside


def _unwrapped(value: Any) -> Any:
    """The arguments of a document that LangChain has written as a constructor."""
    inner = value.get("kwargs") if isinstance(value, Mapping) and value.get("type") == "constructor" else None
    return inner if isinstance(inner, Mapping) else value


def _items(value: Any, certain: bool, depth: int) -> Sequence[Any] | None:
    """The list of documents in an output: itself, or what lies under a name that frameworks use for it."""
    value = _unwrapped(_inside(value))
    if isinstance(value, str):
        return _of_repr(value)
    if isinstance(value, (list, tuple)):
        if len(value) == 1 and isinstance(value[0], (list, tuple)) and not _is_pair(value[0]):
            return _items(value[0], certain, depth - 1) if depth else None  # a batch of one query
        return value if _may_be_documents(value) else None
    if not isinstance(value, Mapping) or depth == 0:
        return None
    for key in LIST_KEYS:
        if key in value and isinstance(value[key], (list, tuple, str, Mapping)):
            if isinstance(value[key], str) and key in ("response", "value", "context", "output", "data", "result"):
                inner = _inside(value[key])
                if isinstance(inner, str) and _of_repr(inner) is None:
                    continue  # an answer
            if (found := _items(value[key], certain, depth - 1)) is not None:
                return found
    return _columns(value)


def _may_be_documents(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (Mapping, str)) or _is_pair(value) for value in values)


def _is_pair(value: Any) -> bool:
    """A document with its score, as `similarity_search_with_score` returns them."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and isinstance(value[0], (Mapping, str))
        and isinstance(value[1], (int, float))
        and not isinstance(value[1], bool)
    )


def _columns(value: Mapping[str, Any]) -> Sequence[Any] | None:
    """The documents of a result in columns, as Chroma's: `ids` and `documents`, each a list or a list of one list."""
    ids, texts = (_column(value.get(name)) for name in ("ids", "documents"))
    if ids is None or (texts is not None and len(texts) != len(ids)):
        return None
    return [{"id": each, **({} if texts is None else {"text": texts[i]})} for i, each in enumerate(ids)]


def _column(value: Any) -> Sequence[Any] | None:
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], (list, tuple)):
        value = value[0]
    if isinstance(value, (list, tuple)) and all(isinstance(item, (str, int)) for item in value):
        return value
    return None


def _taken_out(item: Any) -> _Item | None:
    score = None
    if _is_pair(item):
        item, score = item
    item = _unwrapped(_inside(item))
    if isinstance(item, str):
        found = _of_repr(item)
        if found is not None and len(found) == 1:
            return _taken_out(found[0])
        return _Item({"text": item}, {}, score)
    if not isinstance(item, Mapping):
        return None
    for key in ("node", "document", "doc", "point", "chunk"):
        inner = _unwrapped(_inside(item.get(key)))
        if isinstance(inner, Mapping):
            outer_score = first_of(item, *_SCORES)
            found_inner = _taken_out(inner)
            if found_inner is None:
                return None
            own = {name: item[name] for name in ("id", "point_id", "chunk_id") if name in item}
            return found_inner._replace(
                score=outer_score if outer_score is not None else found_inner.score,
                fields={**own, **found_inner.fields},
            )
    metadata: Mapping[str, Any] = {}
    for key in _METADATA:
        inner = _inside(item.get(key))
        if isinstance(inner, Mapping):
            metadata = inner
            break
    return _Item(item, metadata, score)


def _documents(items: Sequence[tuple[int, _Item]], settings: TraceSettings) -> tuple[SpanDocument, ...] | None:
    ids = [_id(item, settings) for _, item in items]
    if items and not any(ids) and settings.id_field is None:
        files = [name_of(first_of(item.fields, *_FILE_IDS)) for _, item in items]
        if all(files) and len(set(files)) == len(files):
            ids = files
    found = tuple(
        SpanDocument(position, id, _score(item), _text(item)) for (position, item), id in zip(items, ids, strict=True)
    )
    if items and not any(document.id or document.text for document in found):
        return None
    return found


def _id(item: _Item, settings: TraceSettings) -> str | None:
    if settings.id_field is not None:
        for holder in (item.metadata, item.fields):
            value: Any = holder.get(settings.id_field)
            if value is None:
                value = holder
                for part in settings.id_field.split("."):
                    value = value.get(part) if isinstance(value, Mapping) else None
            if (name := name_of(value)) is not None:
                return name
        return None
    # langchain-qdrant names the point there, and leaves the id of the document empty
    point = name_of(item.metadata.get("_id")) if "_collection_name" in item.metadata else None
    return point or name_of(first_of(item.fields, *_OWN_IDS)) or name_of(first_of(item.metadata, *_METADATA_IDS))


def _score(item: _Item) -> float | None:
    for value in (item.score, first_of(item.fields, *_SCORES), first_of(item.metadata, *_METADATA_SCORES)):
        if (number := number_of(value)) is not None:
            return number
    written = (item.score, *map(item.fields.get, _SCORES), *map(item.metadata.get, _METADATA_SCORES))
    return next((number for value in written if (number := score_of(value)) is not None), None)


def _text(item: _Item) -> str | None:
    for holder in (item.fields, item.metadata):
        for name in _TEXTS:
            value = holder.get(name)
            if isinstance(value, Mapping):  # Bedrock: {"content": {"text": …}}
                value = value.get("text")
            if (text := text_of(value)) is not None:
                return text
    return None


def _is_certain(item: _Item) -> bool:
    """Whether it can be nothing but a document that a search returned."""
    fields = item.fields
    if isinstance(fields.get("page_content", fields.get("pageContent")), str):
        return True
    text, id, score = _text(item), _id(item, TraceSettings()), _score(item)
    if fields.get("class_name") in ("TextNode", "IndexNode", "ImageNode", "Node", "Document") and id:
        return text is not None
    if id is None or score is None:
        return False
    # an id and a score alone are also those of other lists: of classes, of people
    return text is not None or isinstance(fields.get("payload"), Mapping)


def _of_repr(text: str) -> Sequence[Any] | None:
    """The documents in Python's repr of a list: of LangChain's `Document(...)`, of LlamaIndex' nodes."""
    stripped = text.strip()
    if len(stripped) > _MOST_REPR:
        return None
    if "NodeWithScore(" in stripped[:40]:
        return [{"id": id, "score": score_of(score)} for id, score in _NODE.findall(stripped)] or None
    if re.match(r"\[?\(?Document\(", stripped):
        return _of_calls(stripped)
    if stripped.startswith("page_content=") and " metadata=" in stripped:
        before, _, after = stripped.rpartition(" metadata=")
        return _of_calls(f"Document({before}, metadata={after})")
    return None


def _of_calls(text: str) -> Sequence[Any] | None:
    """`[Document(page_content='…', metadata={…})]` as objects; nothing of it is run."""
    try:
        body = ast.parse(text, mode="eval").body
        return [_of_call(item) for item in (body.elts if isinstance(body, ast.List) else [body])]
    # whatever is too deep, too odd or no Python is no list of documents
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _of_call(node: ast.expr) -> Any:
    if isinstance(node, ast.Tuple) and len(node.elts) == 2:
        return [_of_call(node.elts[0]), ast.literal_eval(node.elts[1])]
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call of a document")
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
