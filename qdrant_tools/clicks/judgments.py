"""Lists of judgements of OpenSearch's Search Relevance Workbench: grades of passages for queries, and no searches.

What people graded is a `rating`, what a language model graded is `judged`. A list that was computed of clicks is
refused: the clicks themselves are worth more, and its numbers are no grades. Does not know: the top of the scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from qdrant_tools.clicks.cells import moment, name, objects, text, unwrapped, value
from qdrant_tools.clicks.records import ClickSettings, Entry, Judged, Skipped
from qdrant_tools.errors import InputError
from qdrant_tools.foreign import as_amount


class Judgments:
    """A row is a list of judgements, or one query of such a list."""

    name = "opensearch-judgments"
    clicks: frozenset[str] = frozenset()
    joined_by: Literal["id", "time"] = "id"
    hint = ""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        fields = unwrapped(row)
        if isinstance(inner := fields.get("judgmentRatings"), list):
            return all(isinstance(each, Mapping) and "ratings" in each for each in inner)
        ratings = fields.get("ratings")
        return (
            isinstance(fields.get("query"), str)
            and isinstance(ratings, list)
            and all(isinstance(each, Mapping) and {"docId", "rating"} <= each.keys() for each in ratings)
        )

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterator[Entry]:
        fields = unwrapped(row)
        of = name(fields, "type")
        if of == "UBI_JUDGMENT":
            raise InputError("a list that was computed of clicks (UBI_JUDGMENT): import the UBI queries and events")
        kind = "judged" if of == "LLM_JUDGMENT" else "rating"
        at = moment(fields, settings.zone, "timestamp")
        is_list = value(fields, "judgmentRatings") is not None
        for each in objects(fields, "judgmentRatings") if is_list else [fields]:
            query = text(each, "query")
            grades = tuple(
                (name(grade, "docId"), as_amount("rating", grade.get("rating"))) for grade in objects(each, "ratings")
            )
            grades = tuple(grade for grade in grades if grade[0])
            yield (
                Judged(query, grades, kind, at) if query and grades else Skipped("a judgement without query or grades")
            )
