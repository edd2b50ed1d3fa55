"""Click logs that search engines write: UBI (OpenSearch, Elasticsearch, Solr), Elastic's Behavioral Analytics, Azure.

UBI is two indexes, queries and events, whose rows share `query_id`. Behavioral Analytics repeats the query and the list
in every event and names no search: the session, the query and the time tell. Azure's "search traffic analytics" is a
pattern for Application Insights, whose events share a `SearchId` and never have the list.

Does not know: which rows are one search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any, Literal

from qdrant_tools.clicks.cells import Fields, moment, name, named, names, objects, text, unwrapped, value, whole
from qdrant_tools.clicks.records import Asked, ClickSettings, Done, Entry, Skipped
from qdrant_tools.errors import InputError
from qdrant_tools.foreign import as_seconds
from qdrant_tools.same import query_key

_LONGEST_DWELL = 86_400.0


class Ubi:
    """User Behavior Insights, schemas 1.0 to 1.3. The positions of events are not read: the list says the order."""

    name = "ubi"
    clicks = frozenset(["click", "clicked", "click_through", "clickthrough"])
    joined_by: Literal["id", "time"] = "id"
    hint = "name the file of the queries (ubi_queries) beside that of the events"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        fields = unwrapped(row)
        if "action_name" in fields:
            return "query_id" in fields or any(str(key).startswith("event_attributes") for key in fields)
        return {"query_id", "user_query"} <= fields.keys() and any(
            key in fields for key in ("query_response_hit_ids", "query_response_id", "object_id_field", "doc_ids")
        )

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterator[Entry]:
        fields = unwrapped(row, "event_attributes")
        key, action = name(fields, "query_id"), name(fields, "action_name")
        user = name(fields, "user_id", "client_id")
        session, at = name(fields, "session_id"), moment(fields, settings.zone, "timestamp")
        if not key:
            yield Skipped("no query_id: an event of no search")
        elif "action_name" not in fields:
            query = text(fields, "user_query")
            # a null list is that of a search that found nothing
            hits = names(fields, "query_response_hit_ids", "query_response_object_ids", "doc_ids")
            is_told = "query_response_hit_ids" in fields
            hits = () if hits is None and is_told else hits
            yield (
                Asked(key, query, at, hits, session=session, user=user) if query else Skipped("a search without words")
            )
        else:
            yield self._done(
                fields, Done(key, action, (), at, query=text(fields, "user_query"), session=session, user=user)
            )

    @staticmethod
    def _done(fields: Fields, done: Done) -> Entry:
        known = "event_attributes.object.object_id", "event_attributes.object.internal_id"
        ids = tuple(dict.fromkeys(filter(None, (name(fields, path) for path in known))))
        if not ids:
            return Skipped(f"{done.action}: an event without an object")
        return Done(
            done.key, done.action, ids, done.at, (), _dwell(fields), True, done.query, None, done.session, done.user
        )


def _dwell(fields: Fields) -> float | None:
    """The seconds that an event of UBI says, under a name that tells the unit: the schema has no field for them."""
    for field, unit in (("dwell_time_sec", "seconds"), ("dwell_time_seconds", "seconds"), ("dwell_seconds", "seconds"),
                        ("dwell_time_ms", "milliseconds"), ("dwell_ms", "milliseconds")):  # fmt: skip
        path = f"event_attributes.{field}"
        if (found := value(fields, path)) is not None:
            seconds = as_seconds(path, found, unit=unit)
            if seconds > _LONGEST_DWELL:
                raise InputError(f"{path} is {seconds:g} seconds, longer than a day")
            return seconds
    return None


class Elastic:
    """Elastic's Behavioral Analytics: `search` and `search_click`, both with the list."""

    name = "elastic"
    clicks = frozenset(["search_click"])
    joined_by: Literal["id", "time"] = "time"
    hint = "export the events `search` and `search_click`"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        fields = unwrapped(row)
        action = value(fields, "event.action")
        return action in ("search", "search_click", "page_view") and value(fields, "session.id") is not None

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterator[Entry]:
        fields = unwrapped(row, "event", "session", "user", "search", "document")
        action, session = name(fields, "event.action"), name(fields, "session.id")
        query = text(fields, "search.query")
        if action == "page_view":
            yield Skipped("page_view: no search")
            return
        if query is None or not session:
            yield Skipped("a search without words" if session else "no session: whose search it was cannot be told")
            return
        at, user = moment(fields, settings.zone, "@timestamp", "timestamp"), name(fields, "user.id")
        key, index = f"{session}\0{query_key(query)}", name(fields, "search_application")
        hits = _items(fields)
        if action == "search":
            yield Asked(key, query, at, hits, _first_rank(fields), session, user, index)
        elif clicked := name(fields, "document.id"):
            yield Done(key, action, (clicked,), at, query=query, hits=hits, session=session, user=user, index=index)
        else:
            yield Skipped(f"{action}: an event without a document")


def _items(fields: Fields) -> tuple[str, ...] | None:
    """The ids of the list in an event; None if it has none, or an item without an id, whose place nobody would know."""
    if value(fields, "search.results.items") is None:
        return () if whole(fields, "search.results.total_results") == 0 else None
    ids = [name(item, "document.id") for item in objects(fields, "search.results.items")]
    return tuple(ids) if all(ids) else None


def _first_rank(fields: Fields) -> int:
    """Pages count from 1, and have a size."""
    page, size = whole(fields, "search.page.current"), whole(fields, "search.page.size")
    return (page - 1) * size + 1 if page and size else 1


class Azure:
    """Search traffic analytics in Application Insights: `customEvents` and `AppEvents`."""

    name = "azure"
    clicks = frozenset(["click"])
    joined_by: Literal["id", "time"] = "id"
    hint = "export the events `Search` beside the events `Click`"
    _BAGS = ("customDimensions", "Properties")

    def recognises(self, row: Mapping[str, Any]) -> bool:
        bag = next((key for key in self._BAGS if key in row), None)
        if bag is None or not {"name", "Name"} & row.keys():
            return False
        said = row[bag]
        if isinstance(said, str):
            return '"searchid"' in said.lower()
        return isinstance(said, Mapping) and "searchid" in {str(key).lower() for key in said}

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterator[Entry]:
        fields = unwrapped(row, *self._BAGS)
        bag = value(fields, *self._BAGS)
        said = {str(key).lower(): entry for key, entry in bag.items()} if isinstance(bag, Mapping) else {}
        action = name(fields, "name", "Name")
        key = name(said, "searchid")
        if not key:
            yield Skipped(f"{action}: an event of no search")
            return
        # Application Insights keeps times in UTC, and some of its exports name no zone
        at = moment(
            fields, settings.zone or UTC, "timestamp", "timestamp [UTC]", "TimeGenerated", "TimeGenerated [UTC]"
        )
        session, user = name(fields, "session_Id", "SessionId"), name(fields, "user_Id", "UserId")
        index, query = name(said, "indexname"), text(said, "queryterms", "searchtext")
        clicked = value(said, "clickeddocid", "clickeddocumentid")
        if action.lower() == "search" and query is not None:
            found = whole(said, "resultcount", "resultscount")
            hits = () if found == 0 else None
            yield Asked(key, query, at, hits, session=session, user=user, index=index)
        elif clicked is not None:
            ids = (named("ClickedDocId", clicked),)
            yield Done(key, action, ids, at, query=query, session=session, user=user, index=index)
        else:
            yield Skipped("a search without words" if action.lower() == "search" else f"{action}: without a document")
