"""LlamaIndex's metadata filters -> conditions of Qdrant on the fields of a collection.

Guarantees: filters name fields as plain filters of a search do: a name is a name, and numbers are equal if their values
are; they find the same with a payload index and without one. Does not know: collections, queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from qdrant_client import models

from qdrant_tools.collections.metadata import Layout
from qdrant_tools.errors import InputError, NotSupportedError
from qdrant_tools.search.options import any_of, equal, within
from qdrant_tools.validation import brief, checked_text


def metadata_filter(filters: MetadataFilters, layout: Layout) -> models.Filter:
    """LlamaIndex's filters as conditions on the fields of a layout, which find the same with an index and without."""
    conditions = [
        metadata_filter(part, layout) if isinstance(part, MetadataFilters) else _condition(part, layout)
        for part in filters.filters
        if not isinstance(part, MetadataFilters) or part.filters
    ]
    if filters.condition == FilterCondition.OR:
        return models.Filter(should=conditions)
    if filters.condition == FilterCondition.NOT:
        return models.Filter(must_not=conditions)
    return models.Filter(must=conditions)


def _condition(filter: MetadataFilter, layout: Layout) -> models.Condition:
    path, value, operator = layout.metadata_field(filter.key), filter.value, filter.operator or FilterOperator.EQ
    what = f"filter on {brief(filter.key)}"
    missing = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
    if operator == FilterOperator.IS_EMPTY:
        return missing
    if value is None:
        raise InputError(f"{what} has no value: FilterOperator.IS_EMPTY finds nodes without the field")
    if operator in BOUND_OF:
        return within(path, {BOUND_OF[operator]: value}, what)
    if operator == FilterOperator.EQ:
        return any_of(path, value, what) if isinstance(value, list) else equal(path, value, what)
    if operator == FilterOperator.CONTAINS:
        return equal(path, value, what)
    if operator == FilterOperator.NE:
        # not the engine's "except", which with an index finds values of the same type only
        return models.Filter(must_not=[equal(path, value, what), missing])
    if operator == FilterOperator.IN or operator == FilterOperator.ANY:
        return _one_of(path, value, what)
    if operator == FilterOperator.NIN:
        return models.Filter(must_not=[_one_of(path, value, what), missing])
    if operator == FilterOperator.ALL:
        return models.Filter(must=[equal(path, part, what) for part in _values(value)])
    if operator in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        return models.FieldCondition(key=path, match=models.MatchText(text=checked_text(what, value)))
    raise NotSupportedError(f"{what}: Qdrant has no {brief(str(operator))}")


BOUND_OF = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}


def _one_of(path: str, value: Any, what: str) -> models.Condition:
    values = _values(value)
    # nothing is among no values
    return any_of(path, values, what) if values else models.FieldCondition(key=path, match=models.MatchAny(any=[]))


def _values(value: Any) -> list[Any]:
    """The values of "in": a list, or as LlamaIndex's store has it a text with commas."""
    if isinstance(value, list):
        return value
    return value.split(",") if isinstance(value, str) else [value]


def filter_keys(filters: MetadataFilters) -> Iterator[str]:
    for part in filters.filters:
        if isinstance(part, MetadataFilters):
            yield from filter_keys(part)
        else:
            yield part.key
