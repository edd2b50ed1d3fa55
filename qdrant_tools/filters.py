"""Plain dicts -> Qdrant filters on metadata.

Guarantees: every condition of the dict must hold; a value that no condition can express is refused, not dropped.
Does not know: collections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from qdrant_tools.errors import InputError
from qdrant_tools.layout import Layout
from qdrant_tools.values import brief

PlainFilter = Mapping[str, Any]
"""Metadata field -> the value it must have, or a list of values of which it must have one."""


def as_filter(conditions: PlainFilter | models.Filter | None, *, layout: Layout) -> models.Filter | None:
    """Translate `{"field": value}` and `{"field": [values]}`; a Qdrant filter passes as it is.

    Values are strings, whole numbers or booleans. Dots in a field reach into nested metadata.

    Raises:
        InputError: a field that is no name, or a value of another type, with the way to say it as a Qdrant filter.
    """
    if conditions is None or isinstance(conditions, models.Filter):
        return conditions
    if not isinstance(conditions, Mapping):
        raise InputError(f"filter is a {type(conditions).__name__}, expected a dict or a qdrant_client Filter")
    unnamed = [name for name in conditions if not isinstance(name, str) or not name]
    if unnamed:
        raise InputError(f"filter has the field {unnamed[0]!r}, expected the name of a metadata field")
    must: list[models.Condition] = [
        models.FieldCondition(key=layout.metadata_field(name), match=_match(name, value))
        for name, value in conditions.items()
    ]
    return models.Filter(must=must) if must else None


def _match(field: str, value: Any) -> models.MatchValue | models.MatchAny:
    if isinstance(value, str | int):  # bool is an int
        return models.MatchValue(value=value)
    if isinstance(value, Sequence) and value:
        if all(isinstance(each, str) for each in value):
            return models.MatchAny(any=list(value))
        if all(isinstance(each, int) and not isinstance(each, bool) for each in value):
            return models.MatchAny(any=list(value))
    raise InputError(
        f"filter on {field!r} is {brief(value)}, expected a string, whole number or boolean, or a list of strings or "
        "of whole numbers; anything else can be given as a qdrant_client Filter"
    )
