"""Events that sites send to hosted engines and analytics: Algolia, Meilisearch, Typesense, Google Analytics 4.

Algolia's and Meilisearch's events name a search by an id, and the words of the query are only in what the search
itself returned: name that file too. Typesense's events repeat the query. Google's know neither the id nor the list:
the session and the time tell which search it was.

Does not know: which rows are one search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from qdrant_tools.clicks.cells import Fields, moment, name, named, names, objects, text, unwrapped, value, whole
from qdrant_tools.clicks.records import Asked, ClickSettings, Done, Entry, Skipped
from qdrant_tools.errors import InputError
from qdrant_tools.same import folded, query_key
from qdrant_tools.unread import words_in_name


class Algolia:
    """Insights events, one a row or in `events`, and the responses of searches with their `queryID`."""

    name = "algolia"
    clicks = frozenset(["click"])
    joined_by: Literal["id", "time"] = "id"
    hint = (
        "Insights events have no query: name a file beside them with the queryID and the query of each search "
        '(what searches return with clickAnalytics=true: {"queryID", "query", "hits"})'
    )

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return "queryID" in row or any(map(self._is_event, self._events(row)))

    @staticmethod
    def _is_event(row: Mapping[str, Any]) -> bool:
        return "eventType" in row and ("objectIDs" in row or "userToken" in row or "queryID" in row)

    @staticmethod
    def _events(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        inner = row.get("events")
        return [each for each in inner if isinstance(each, Mapping)] if isinstance(inner, list) else [row]

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterator[Entry]:
        for each in self._events(row):
            yield self._event(each, settings) if self._is_event(each) else self._response(each, settings)

    @staticmethod
    def _response(row: Fields, settings: ClickSettings) -> Entry:
        key, query = name(row, "queryID"), text(row, "query")
        if not key or query is None:
            return Skipped("a search without words" if key else "no queryID: a search that no event names")
        page, size = whole(row, "page"), whole(row, "hitsPerPage")
        hits = None
        if isinstance(found := value(row, "hits"), list):
            ids = [name(hit, "objectID") if isinstance(hit, Mapping) else named("hits", hit) for hit in found]
            hits = tuple(ids) if all(ids) else None
        elif whole(row, "nbHits") == 0:
            hits = ()
        user, index = name(row, "userToken"), name(row, "index", "indexName")
        at = moment(row, settings.zone, "timestamp")
        # pages count from 0
        return Asked(key, query, at, hits, (page or 0) * (size or 0) + 1, user=user, index=index)

    @staticmethod
    def _event(row: Fields, settings: ClickSettings) -> Entry:
        key, action = name(row, "queryID"), name(row, "eventType")
        ids = names(row, "objectIDs", "objectID") or ()
        if not key or not ids:
            return Skipped(f"{action}: an event of no search" if ids else f"{action}: an event without an object")
        at, user, index = moment(row, settings.zone, "timestamp"), name(row, "userToken"), name(row, "index")
        if action == "view":
            return Asked(key, None, at, ids, user=user, index=index, part=True)
        ranks = tuple(_rank(each) for each in _numbers(row, "positions"))
        if ranks and len(ranks) != len(ids):
            raise InputError(f"{len(ids)} objectIDs have {len(ranks)} positions, expected one each")
        kind = name(row, "eventSubtype") or action
        return Done(key, kind, ids, at, ranks, user=user, index=index)


def _numbers(row: Fields, path: str) -> list[Any]:
    found = value(row, path)
    if found is None:
        return []
    return list(names(row, path) or ()) if not isinstance(found, list) else found


def _rank(found: Any) -> int:
    place = whole({"positions": found}, "positions")
    if not place:
        raise InputError(f"positions has {found}, expected places from 1")
    return place


class Meilisearch:
    """Bodies of `POST /events`, and the responses of searches with their `metadata`. Positions count from 0."""

    name = "meilisearch"
    clicks = frozenset(["click"])
    joined_by: Literal["id", "time"] = "id"
    hint = (
        "events have no query: name a file beside them with what the searches returned, with their metadata "
        "(Meili-Include-Metadata: true)"
    )

    def recognises(self, row: Mapping[str, Any]) -> bool:
        if "eventType" in row:
            return "indexUid" in row and ("queryUid" in row or "objectId" in row)
        return value(row, "metadata.queryUid") is not None and "query" in row

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterator[Entry]:
        fields = unwrapped(row, "metadata")
        at, index = (
            moment(fields, settings.zone, "timestamp", "createdAt"),
            name(fields, "indexUid", "metadata.indexUid"),
        )
        if "eventType" not in row:
            query, key = text(fields, "query"), name(fields, "metadata.queryUid")
            yield (
                Asked(key, query, at, self._hits(fields), 1 + (whole(fields, "offset") or 0), index=index)
                if query
                else Skipped("a search without words")
            )
            return
        key, hit, action = name(fields, "queryUid"), name(fields, "objectId"), name(fields, "eventType")
        if not key or not hit:
            yield Skipped(f"{action}: an event of no search" if hit else f"{action}: an event without an object")
            return
        place = whole(fields, "position")
        ranks = () if place is None else (place + 1,)
        yield Done(key, action, (hit,), at, ranks, user=name(fields, "userId"), index=index)

    @staticmethod
    def _hits(fields: Fields) -> tuple[str, ...] | None:
        """Only the response says which field of its documents is the id."""
        key = name(fields, "metadata.primaryKey")
        if not key or value(fields, "hits") is None:
            return () if whole(fields, "estimatedTotalHits", "totalHits") == 0 else None
        ids = [name(hit, key) for hit in objects(fields, "hits")]
        return tuple(ids) if all(ids) else None


class Typesense:
    """Analytics events, as they were sent (`data`) or as they are returned."""

    name = "typesense"
    clicks = frozenset(["click"])
    joined_by: Literal["id", "time"] = "time"
    hint = "send the query (`q`) with each event, and a user_id"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        data = row.get("data")
        if isinstance(data, Mapping):
            return (
                ("type" in row or "event_type" in row) and "name" in row and bool({"doc_id", "doc_ids"} & data.keys())
            )
        return {"event_type", "name", "collection", "user_id"} <= row.keys()

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterator[Entry]:
        fields = unwrapped(row, "data")
        action, user = name(fields, "event_type", "type"), name(fields, "data.user_id", "user_id")
        query = text(fields, "data.q", "data.query", "query", "q")
        ids = names(fields, "data.doc_ids", "doc_ids") or tuple(filter(None, [name(fields, "data.doc_id", "doc_id")]))
        at = moment(fields, settings.zone, "timestamp", "data.timestamp")
        if query is None or not user:
            yield Skipped(f"{action}: an event without {'a query' if user else 'a user'}")
            return
        key, index = f"{user}\0{query_key(query)}", name(fields, "collection")
        if action == "search":
            yield Asked(key, query, at, session=user, user=user, index=index)
        elif ids:
            yield Done(key, action, ids, at, query=query, session=user, user=user, index=index)
        else:
            yield Skipped(f"{action}: an event without a document")


class GoogleAnalytics:
    """The BigQuery export of Google Analytics 4: `view_search_results`, and `select_item` from a list of a search.

    `select_item` is also sent by lists of recommendations: unless it is named as a click, only those of a list whose
    name says search, or results, count. `view_item_list` of such a list is what was shown.
    """

    name = "ga4"
    clicks = frozenset(["select_item"])
    joined_by: Literal["id", "time"] = "time"
    hint = "export the events view_search_results, view_item_list and select_item of the same sessions"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return {"event_name", "event_params", "event_timestamp"} <= row.keys()

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterator[Entry]:
        event = name(row, "event_name")
        told = {*settings.click, *settings.up, *settings.down}
        if event not in ("view_search_results", "view_item_list", "select_item") and folded(event) not in told:
            yield Skipped(f"{event}: not read")
            return
        fields = unwrapped(row, "event_params", "items")
        said = _parameters(fields)
        user, number = name(fields, "user_pseudo_id"), name(said, "ga_session_id")
        at = moment(fields, settings.zone, "event_timestamp")
        if not user or not number or at is None:
            yield Skipped(f"{event}: without a session or a time")
            return
        session = f"{user}.{number}"
        query = text(said, "search_term")
        if event == "view_search_results":
            who = name(fields, "user_id") or user
            yield Asked(session, query, at, session=session, user=who) if query else Skipped("a search without words")
            return
        items = objects(fields, "items")
        of = next(filter(None, [name(each, "item_list_name", "item_list_id") for each in [said, *items]]), "")
        is_of_search = bool({"search", "result", "results"} & {*words_in_name(of)})
        ids = [name(item, "item_id", "item_name") for item in items]
        if not ids or not all(ids):
            yield Skipped(f"{event}: without the id of an item")
        elif event == "view_item_list":
            shown = tuple(name(item, "item_id", "item_name") for item in _in_order(items))
            yield Asked(session, None, at, shown) if is_of_search else Skipped(f"{event}: a list of no search")
        elif event == "select_item" and not is_of_search and "select_item" not in told:
            where = f"the list {of!r}" if of else "no list"
            yield Skipped(
                f"select_item of {where}: to take it for a click on a result, name it as one (--click select_item)"
            )
        else:
            yield Done(session, event, tuple(ids), at, session=session, user=user)


def _parameters(fields: Fields) -> dict[str, Any]:
    """The parameters of an event by their keys: of each the one value that is set."""
    found = {}
    for entry in objects(fields, "event_params"):
        said = entry.get("value")
        if isinstance(said, Mapping):
            said = next((each for each in said.values() if each is not None), None)
        found[str(entry.get("key"))] = said
    return found


def _in_order(items: list[Fields]) -> list[Fields]:
    """As `item_list_index` says, if all items have another one; else as they stand."""
    places = [name(item, "item_list_index") for item in items]
    if all(place.isdigit() and len(place) < 10 for place in places) and len({*places}) == len(places):
        return [item for _, item in sorted(zip(map(int, places), items), key=lambda pair: pair[0])]
    return items
