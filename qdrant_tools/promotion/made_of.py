"""A note in the payload of a point: which of its vectors were made of the text that it holds.

While a collection has two vectors for every text, a write may change the text and one of them. Some clients write a
payload and a vector apart. A server before 1.19 *merges* an upsert into a point whose segment is indexed: vectors that
it does not name stay, made of the former text. Nothing but a note in the payload tells that: whoever writes a whole
payload takes it away, and only what it names counts.

Guarantees: a vector that the note names was made of a text with the hash that it says, and stored before the note.
Does not know: encoders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from qdrant_tools.client.gateway import metadata_in
from qdrant_tools.collections.identity import PROMOTION_KEY
from qdrant_tools.collections.metadata import MADE_OF_TEXT, Layout


def note(text: str, vectors: Sequence[str]) -> dict[str, Any]:
    """The field of a payload that says that these vectors were made of this text."""
    return {MADE_OF_TEXT: {"text": _hash(text), "vectors": sorted(set(vectors))}}


def made_of_its_text(vector: str) -> models.Filter:
    """The points that have the vector, and say that it was made of their text."""
    named = models.FieldCondition(key=f"{MADE_OF_TEXT}.vectors", match=models.MatchValue(value=vector))
    return models.Filter(must=[models.HasVectorCondition(has_vector=vector), named])


def says_another_text(payload: Mapping[str, Any] | None, layout: Layout) -> bool:
    """Whether there is a note and the text has changed since, by somebody who kept or copied the note."""
    row = (payload or {}).get(MADE_OF_TEXT)
    passage = layout.passage(payload, point_id=0)
    return row is not None and not (isinstance(row, Mapping) and row.get("text") == _hash(passage.text))


def two_vectors(info: models.CollectionInfo) -> tuple[bool, bool]:
    """Whether a promotion in place gives texts two vectors now, and whether its new vector serves already."""
    state = metadata_in(info).get(PROMOTION_KEY)
    if not isinstance(state, Mapping) or state.get("kind") != "in-place":
        return False, False
    return True, state.get("phase") == "switched"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
