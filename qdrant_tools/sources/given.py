"""What a program gives -> passages: passages, dicts, strings, and the documents of LlamaIndex and LangChain.

Documents are known by what they have (`get_content` and `node_id`, or `page_content`), without their libraries. What is
embedded is their text alone; all their metadata is kept beside it. A LlamaIndex node keeps its `node_id`, and names the
document it was made of as `document`; a LangChain document without an id gets one of its content. A document longer
than the encoder reads is cut if the encoder can; passages, dicts and strings are only cut by a cutter that is given.

Guarantees: equal things give equal passages. Does not know: tokens, collections.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

import numpy as np

from qdrant_tools.errors import InputError, brief
from qdrant_tools.fields import json_metadata
from qdrant_tools.records import Encoder, LimitedEncoder, Passage
from qdrant_tools.sources.origin import SourceDocument

logger = logging.getLogger(__name__)

Cutter = Callable[[Passage], Iterable[Passage]]
"""A passage -> itself, or the passages it is cut into."""

_FIELDS = "'id', 'text' and, for everything else, 'metadata'"
_TEXTS = ("page_content", "content", "body", "document")


class NodeLike(Protocol):
    """A LlamaIndex `Document`, `TextNode` or `NodeWithScore`."""

    @property
    def node_id(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    def get_content(self) -> str: ...


class PageLike(Protocol):
    """A LangChain `Document`."""

    @property
    def page_content(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...


Given = Passage | Mapping[str, Any] | str | NodeLike | PageLike
"""What is indexed."""


def passages_given(items: Iterable[Given], encoder: Encoder, cutter: Cutter | None = None) -> Iterator[Given]:
    """The same stream with what is too long cut; what is no passage stays in it, for its own error."""
    by_itself = encoder.cut if isinstance(encoder, LimitedEncoder) else None
    random_ids = _RandomIds()
    for item in items:
        cut = cutter or (by_itself if is_document(item) else None)
        random_ids.see(item)
        try:
            passage = passage_of(item)
        except InputError:
            passage = None
        if cut is None or passage is None or not isinstance(passage.text, str) or not passage.text.strip():
            yield item
        else:
            yield from cut(passage)
    random_ids.say()


def documents_given(items: Iterable[SourceDocument | Given], encoder: Encoder) -> Iterator[SourceDocument]:
    """The same stream as documents of a source: a node is a part of the document it was made of.

    What is too long is cut. What is no passage stays the only part of its document, for its own error.

    Raises:
        InputError: one document, or something else than several.
    """
    if isinstance(items, str | bytes | Mapping | Passage | SourceDocument) or is_document(items):
        raise InputError(f"documents is {brief(items)}, expected several: a list of them")
    random_ids = _RandomIds()
    for item in items:
        if isinstance(item, SourceDocument):
            yield item
        else:
            random_ids.see(item)
            yield _source_document(item, encoder)
    random_ids.say()


def _source_document(item: Given, encoder: Encoder) -> SourceDocument:
    try:
        passage = passage_of(item)
    except InputError:
        return SourceDocument("", [cast(Passage, item)])
    document = passage.metadata.get("document") if is_document(item) else None
    name = document if isinstance(document, str) and document else passage.id
    if is_document(item) and isinstance(encoder, LimitedEncoder) and isinstance(passage.text, str):
        return SourceDocument(name, encoder.cut(passage) if passage.text.strip() else [passage])
    return SourceDocument(name, [passage])


def is_document(item: Any) -> bool:
    """Whether it is a document of LlamaIndex or LangChain."""
    return not isinstance(item, (Passage, Mapping, str)) and (_is_node(item) or hasattr(item, "page_content"))


def passage_of(item: Given) -> Passage:
    """The passage that an item is.

    Raises:
        InputError: it is none of these; or a dict without "id" or "text", or with a field that a passage does not have.
    """
    if isinstance(item, Passage):
        return item
    if isinstance(item, str):
        return Passage(_hash_of(item), item)
    if isinstance(item, Mapping):
        return _of_dict(item)
    if _is_node(item):
        return _of_node(item)
    if hasattr(item, "page_content"):
        return _of_page(item)
    raise InputError(
        f"passage is {brief(item)}, expected a Passage, a dict with 'id' and 'text', or a string; or a document of "
        "LlamaIndex or LangChain"
    )


def _of_dict(item: Mapping[str, Any]) -> Passage:
    for name in ("id", "text"):
        if name not in item:
            other = next((text for text in _TEXTS if name == "text" and text in item), None)
            way = "" if other is None else f": is {other!r} its text? Rename it"
            raise InputError(f"passage {brief(dict(item))} has no field {name!r}, expected {_FIELDS}{way}")
    for name in item:
        if name not in ("id", "text", "metadata"):
            raise InputError(f"passage {brief(item['id'])} has the field {brief(name)}, expected {_FIELDS}")
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping | None):
        raise InputError(f"passage {brief(item['id'])}: field 'metadata' is {brief(metadata)}, expected a dict")
    return Passage(_plain_id(item["id"]), item["text"], metadata or {})


def _is_node(item: Any) -> bool:
    return callable(getattr(item, "get_content", None)) and hasattr(item, "node_id")


def _of_node(item: Any) -> Passage:
    metadata = _metadata_of(item)
    source = getattr(item, "ref_doc_id", None)
    # a document refers to nothing, and its own name for a document comes first
    if isinstance(source, str) and source:
        metadata.setdefault("document", source)
    return Passage(item.node_id, item.get_content(), metadata)


def _of_page(item: Any) -> Passage:
    metadata, name = _metadata_of(item), getattr(item, "id", None)
    if name is None:
        content = [item.page_content, json_metadata(metadata, "document: metadata")]
        name = _hash_of(json.dumps(content, sort_keys=True, ensure_ascii=False))
    return Passage(name, item.page_content, metadata)


def _metadata_of(item: Any) -> dict[str, Any]:
    metadata = getattr(item, "metadata", None)
    if not isinstance(metadata, Mapping | None):
        raise InputError(f"document {brief(item)}: its metadata is {brief(metadata)}, expected a dict")
    return dict(metadata or {})


def _plain_id(value: Any) -> Any:
    """Whole numbers and UUIDs as texts: those of a database are ids too."""
    if isinstance(value, (int, np.integer, uuid.UUID)) and not isinstance(value, bool):
        return str(value)
    return value


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class _RandomIds:
    """Documents that were read from files and have ids of chance, as LlamaIndex gives them by default."""

    def __init__(self) -> None:
        self._count = 0

    def see(self, item: Any) -> None:
        if is_document(item) and _is_node(item) and isinstance(item.node_id, str) and "file_path" in item.metadata:
            with suppress(ValueError):
                self._count += uuid.UUID(item.node_id).version == 4

    def say(self) -> None:
        if self._count:
            logger.warning(
                "%d documents of files have random ids: read again they are other documents, and stand in the "
                "collection twice; SimpleDirectoryReader(filename_as_id=True) names them after their files",
                self._count,
            )
