"""Where a stored passage comes from: its source, its document, and the file that holds the document.

It stands in a field of its own beside the metadata, which belongs to whoever wrote the document: a row may have a field
`source` too. It is no part of the content: a passage that only gets an origin is unchanged.

Guarantees: what another program wrote into the field is no origin. Does not know: how documents are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from qdrant_tools.records import Hit, Passage

ORIGIN = "origin"
"""The field of the payload."""
INDEXED = (f"{ORIGIN}.source", f"{ORIGIN}.file")
"""What a collection of sources has payload indexes on."""
FILES_AT_ONCE = 1000
"""Files that one filter names."""


@dataclass(frozen=True)
class Origin:
    """Where a passage comes from."""

    source: str
    document: str
    """The id of the document."""
    file: str = ""
    """The file that holds the document, as a path below the source; "" if none does."""

    def as_payload(self) -> dict[str, str]:
        return {"source": self.source, "document": self.document, "file": self.file}

    @property
    def is_of_its_file(self) -> bool:
        """Whether the document is named after the file: it is the file, or a part of it without an id of its own."""
        name = f"{self.source}/{self.file}"
        return self.document == name or self.document.startswith(f"{name}#")

    @classmethod
    def of_payload(cls, payload: Mapping[str, Any] | None) -> Origin | None:
        """The origin that a payload says, if it says one."""
        row = (payload or {}).get(ORIGIN)
        if not isinstance(row, Mapping):
            return None
        values = [row.get(name) for name in ("source", "document", "file")]
        return cls(*values) if all(isinstance(value, str) for value in values) else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class SourcedHit(Hit):
    """A hit that knows where its passage comes from."""

    origin: Origin = Origin("", "")


@dataclass(frozen=True)
class SourceDocument:
    """A document and its passages, which may be a stream that is read once. Without passages it has become empty."""

    id: str
    passages: Iterable[Passage]
    file: str = ""
    """The file that holds it, as a path below the source."""


@dataclass(frozen=True)
class SourcedPassage(Passage):
    """A passage on its way into a collection, with its origin."""

    origin: Origin = Origin("", "")


def of_source(source: str, files: Iterable[str] | None = None) -> models.Filter:
    """The points of a source, or of these files of it."""
    must: list[models.Condition] = [
        models.FieldCondition(key=f"{ORIGIN}.source", match=models.MatchValue(value=source)),
    ]
    if files is not None:
        must.append(models.FieldCondition(key=f"{ORIGIN}.file", match=models.MatchAny(any=list(files))))
    return models.Filter(must=must)


def of_document(document: str) -> models.Filter:
    """The points of a document, in whatever source."""
    condition = models.FieldCondition(key=f"{ORIGIN}.document", match=models.MatchValue(value=document))
    return models.Filter(must=[condition])


def of_earlier_versions() -> models.Filter:
    """The points that have a `part` in their metadata and no origin, as those of versions that knew none."""

    def empty(field: str) -> models.IsEmptyCondition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))

    return models.Filter(must=[empty(f"{ORIGIN}.source")], must_not=[empty("metadata.part")])
