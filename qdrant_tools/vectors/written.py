"""What was found of passages -> a field of their metadata, so that filters and groups know it.

The field is marked as ours, and is no part of what `indexing` compares: a passage that has it is unchanged for whoever
indexes its text again. It stays where only the metadata of the document change, and goes with a text that changes,
because it was said of the other text.

Guarantees: a field that documents have of their own is never written over. Does not know: what the values say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qdrant_client import models

from qdrant_tools.client.gateway import PointId
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import OURS
from qdrant_tools.collections.retirement import refuse_retired
from qdrant_tools.collections.settings import payload_indexes, seen_otherwise
from qdrant_tools.errors import CollectionError, InputError, brief
from qdrant_tools.fields import payload_path
from qdrant_tools.validation import checked_text

FOUND = "found"
"""The field of the payload that names the fields of the metadata that were written here."""

Values = Iterable[tuple[Sequence[PointId], Sequence[str]]]
"""Pages of points and what was found of each."""


def found_in(payload: Mapping[str, Any] | None) -> frozenset[str]:
    """The fields of a payload's metadata that were written here."""
    row = (payload or {}).get(FOUND)
    return frozenset(row) if isinstance(row, Mapping) else frozenset()


def with_found(payload: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A new payload with the fields that were found before, but for those that the document has of its own now."""
    own = payload[OURS.metadata]
    kept = {name: value for name, value in fields.items() if name not in own}
    return {**payload, OURS.metadata: {**own, **kept}, FOUND: dict.fromkeys(kept, True)} if kept else payload


def check_field(collection: Collection, field: str) -> None:
    """Refuse a field that cannot be written here.

    Raises:
        CollectionError: the collection is another program's.
        InputError: no name, or one that documents of the collection have already.
    """
    if collection.layout != replace(OURS, vector=collection.layout.vector):
        raise CollectionError(
            f"collection {collection.name!r} has the layout of {collection.layout.name!r}: write its payloads with the "
            "program that made it"
        )
    if not checked_text("field", field).strip():
        raise InputError(f"field is {brief(field)}, expected the name of a metadata field")

    def absent(path: str) -> models.IsEmptyCondition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=path))

    found = absent(payload_path([FOUND, field]))
    theirs = models.Filter(must=[found], must_not=[absent(collection.layout.metadata_field(field))])
    if collection.gateway.count(theirs):
        raise InputError(f"metadata have a field {brief(field)} of their own in {collection.name!r}: give another name")


def write_field(collection: Collection, field: str, pages: Values) -> int:
    """Write what was found of passages into a field of their metadata; how many passages have got it.

    Raises:
        CollectionError, InputError: as `check_field`; or a payload index on the field would hide a value.
    """
    check_field(collection, field)
    kind = payload_indexes(collection.gateway.info(), collection.layout).get(field)
    written = 0
    for points, values in pages:
        points_of: dict[str, list[Any]] = defaultdict(list)
        for point, value in zip(points, values, strict=True):
            points_of[value].append(point)
        changes = []
        for value, of_value in points_of.items():
            if kind is not None and (why := seen_otherwise(kind, value)) is not None:
                raise InputError(f"metadata field {brief(field)} would be {brief(value)}, and {why}")
            changes += [
                models.SetPayload(payload={field: value}, key=OURS.metadata, points=of_value),
                models.SetPayload(payload={field: True}, key=FOUND, points=of_value),
            ]
        collection.gateway.set_payloads(changes)
        refuse_retired(collection)
        written += len(points)
    return written
