"""Click logs of search engines and sites are read as searches: whose click it was, and what nobody knows."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qdrant_tools.clicks import ClickSettings, form_of, read_clicks
from qdrant_tools.debias import click_over_skip_above, clicked_as_positive, inverse_propensity, unclicked_as_negative
from qdrant_tools.debias import fit_click_model as fit
from qdrant_tools.errors import InputError, LogError, UsageError
from qdrant_tools.log import RetrievalLog
from qdrant_tools.monitor.windows import Span, read_windows


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path, *rows, **settings):
    reader = read_clicks(written(path / "log.jsonl", rows), settings=ClickSettings(**settings))
    return list(reader), reader


def feedback(search):
    return [(event.kind, event.id, event.value) for event in search.feedback]


def ranks(search):
    return {hit.id: hit.rank for hit in search.hits}


# UBI -----------------------------------------------------------------------------------------------------------------


def ubi_query(key="q1", query="how do bees make honey", hits=("a", "b", "c"), at="2026-11-01T10:00:00Z", **more):
    row = {"application": "shop", "query_id": key, "client_id": "browser-7", "user_query": query, "timestamp": at}
    return row | {"query_response_id": f"r-{key}", "query_response_hit_ids": list(hits)} | more


def ubi_event(action="click", key="q1", hit="b", at="2026-11-01T10:00:09Z", **attributes):
    found = {"object": {"object_id": hit, "object_id_field": "_id"}, "position": {"ordinal": 2}} if hit else {}
    row = {"action_name": action, "query_id": key, "session_id": "s-1", "client_id": "browser-7", "timestamp": at}
    return row | {"event_attributes": found | attributes}


def test_ubi_events_find_their_query_whichever_file_comes_first(tmp_path):
    queries = written(tmp_path / "q.jsonl", [ubi_query(), ubi_query("q2", "who hunts at night", ("c", "d"))])
    events = written(tmp_path / "e.jsonl", [ubi_event(), ubi_event("click_through", "q2", "d")])
    first, second = read_clicks([events, queries])
    assert [first, second] == list(read_clicks([queries, events]))
    assert (first.id, first.query, ranks(first)) == ("q1", "how do bees make honey", {"a": 1, "b": 2, "c": 3})
    assert feedback(first) == [("click", "b", 1.0)] and feedback(second) == [("click", "d", 1.0)]
    assert first.session == second.session != "" and "s-1" not in first.session and "browser" not in first.user


def test_actions_that_nobody_named_are_counted_by_name_and_are_no_feedback(tmp_path):
    rows = [ubi_query(), *(ubi_event(action) for action in ("impression", "impression", "purchase", "button_click"))]
    (search,), reader = read(tmp_path, *rows, ubi_event("page_exit", None, None), ubi_event("click", hit=None))
    assert feedback(search) == []
    (told,) = [note for note in reader.notes if "no feedback" in note]
    assert "'impression' (2)" in told and "'purchase' (1)" in told and "--up NAME" in told
    assert "such as a dislike, as a thumb down (--down NAME)" in told
    assert reader.dropped["no query_id: an event of no search"] == 1
    assert reader.dropped["click: an event without an object"] == 1


def test_a_purchase_is_a_thumb_up_once_somebody_says_so_and_a_name_that_no_row_has_is_said(tmp_path):
    rows = ubi_query(), ubi_event("purchase"), ubi_event("item_click", hit="a")
    (search,), reader = read(tmp_path, *rows, click=("item_click",), up=("Purchase", "add_to_cart"))
    assert feedback(search) == [("up", "b", 1.0), ("click", "a", 1.0)]
    assert "no row has the action 'add_to_cart' that was named" in reader.notes


def test_a_dwell_counts_where_its_field_tells_the_unit(tmp_path):
    rows = ubi_query(), ubi_event(), ubi_event("dwell", dwell_time_sec=45), ubi_event("leave", hit="c", dwell_ms="1500")
    (search,), _ = read(tmp_path, *rows)
    assert feedback(search) == [("click", "b", 1.0), ("dwell", "b", 45.0), ("dwell", "c", 1.5)]
    with pytest.raises(LogError, match=r"log.jsonl:2: .*dwell_time_sec is 90000 seconds, longer than a day"):
        read(tmp_path, ubi_query(), ubi_event("dwell", dwell_time_sec=90_000))


def test_the_object_is_named_as_the_list_names_it(tmp_path):
    event = ubi_event()
    event["event_attributes"]["object"] |= {"object_id": "ISBN 7", "internal_id": 12}
    (search,), _ = read(tmp_path, ubi_query(hits=(11, 12)), event)
    assert feedback(search) == [("click", "12", 1.0)]


def test_a_query_that_found_nothing_is_a_search_without_hits(tmp_path):
    found, _ = read(tmp_path, ubi_query(hits=()), ubi_query("q2", "x", at="2026-11-01T11:00:00Z") | {
        "query_response_hit_ids": None
    })  # fmt: skip
    assert [search.hits for search in found] == [(), ()]


def test_one_id_with_two_lists_is_two_searches_and_a_click_goes_to_the_one_that_showed_its_hit(tmp_path):
    pages = ubi_query(), ubi_query(hits=("d", "e"), at="2026-11-01T10:01:00Z")
    (first, second), reader = read(
        tmp_path, *pages, ubi_event(hit="a", at="2026-11-01T10:02:00Z"), ubi_event(hit="e", at="2026-11-01T10:03:00Z")
    )
    assert first.id == "q1" != second.id
    assert feedback(first) == [("click", "a", 1.0)] and feedback(second) == [("click", "e", 1.0)]
    assert "1 ids of several lists or queries" in reader.notes


def test_the_query_in_an_event_stands_for_a_query_that_no_file_has(tmp_path):
    (search,), reader = read(tmp_path, ubi_event() | {"user_query": "honey"})
    assert (search.query, search.hits, feedback(search)) == ("honey", (), [("click", "b", 1.0)])
    assert any("no file says what they showed" in note for note in reader.notes)


def test_events_alone_are_refused_with_the_file_that_is_missing(tmp_path):
    with pytest.raises(LogError, match=r"2 × actions of a search that no file has: name the file of the queries"):
        read(tmp_path, ubi_event(), ubi_event(hit="c"))


def test_documents_of_an_index_and_tables_are_rows_as_well(tmp_path):
    (expected,), _ = read(tmp_path, ubi_query(), ubi_event())
    wrapped = [{"_index": "ubi_queries", "_id": "1", "_source": ubi_query()}, {"_index": "e", "_source": ubi_event()}]
    (again,), _ = read(tmp_path, *wrapped)
    assert again == expected
    tables = []
    for name, row, dump in (("q", ubi_query(), json.dumps), ("e", ubi_event(), repr)):
        tables.append(tmp_path / f"{name}.csv")
        with tables[-1].open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(row)
            table.writerow([dump(cell) if isinstance(cell, (dict, list)) else cell for cell in row.values()])
    assert list(read_clicks(tables)) == [expected]
    dotted = {"event_attributes.object.object_id": "b", **ubi_event()}
    del dotted["event_attributes"]
    (flat,), _ = read(tmp_path, ubi_query(timestamp=1_793_527_200_000), dotted)
    assert flat == expected


def test_what_a_search_in_the_index_returned_packed_files_and_parquet_are_read_as_well(tmp_path):
    rows = [ubi_query(), ubi_event()]
    (expected,), _ = read(tmp_path, *rows)
    page = tmp_path / "page.json"
    found = [{"_index": "ubi", "_id": str(n), "_source": row} for n, row in enumerate(rows)]
    page.write_text(json.dumps({"took": 3, "hits": {"total": {"value": 2}, "hits": found}}, indent=1))
    packed = tmp_path / "log.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "log.jsonl").read_bytes()))
    columns = [tmp_path / "q.parquet", tmp_path / "e.parquet"]
    for path, row in zip(columns, rows):
        pq.write_table(pa.Table.from_pylist([row]), path)
    for files in (page, packed, columns):
        assert list(read_clicks(files)) == [expected]


def test_a_file_that_was_cut_in_its_last_row_gives_the_others_and_says_so(tmp_path):
    path = written(tmp_path / "log.jsonl", [ubi_query(), ubi_event(), ubi_event(hit="c")])
    path.write_text(path.read_text()[:-40])
    reader = read_clicks(path)
    (search,) = reader
    assert feedback(search) == [("click", "b", 1.0)] and any("cut" in note for note in reader.notes)


# Elastic -------------------------------------------------------------------------------------------------------------


def elastic(action, at, hits=("a", "b", "c"), hit=None, query="who makes honey", session="s1"):
    items = [{"document": {"id": each, "index": "facts"}} for each in hits]
    row = {"@timestamp": f"2026-11-01T{at}Z", "event": {"action": action}, "session": {"id": session}}
    row |= {"user": {"id": "u1"}, "search": {"query": query, "results": {"items": items, "total_results": len(items)}}}
    return row | ({"document": {"id": hit, "index": "facts"}} if hit else {})


def test_the_list_that_elastic_repeats_in_each_event_was_shown_once(tmp_path):
    (search,), _ = read(
        tmp_path,
        elastic("search_click", "10:00:30", hit="c"),
        elastic("search", "10:00:00"),
        elastic("search_click", "10:00:07", hit="b"),
    )
    assert ranks(search) == {"a": 1, "b": 2, "c": 3}
    assert feedback(search) == [("click", "b", 1.0), ("click", "c", 1.0)]


def test_the_same_query_again_is_another_search_and_other_sessions_are_others(tmp_path):
    found, _ = read(
        tmp_path,
        elastic("search", "10:00:00"),
        elastic("search", "11:00:00"),
        elastic("search_click", "11:00:05", hit="a"),
        elastic("search", "10:59:00", session="s2"),
    )
    assert [len(search.feedback) for search in found] == [0, 1, 0]
    assert len({search.id for search in found}) == 3 and len({search.session for search in found}) == 2


def test_a_click_without_its_search_brings_the_list_itself(tmp_path):
    (search,), _ = read(tmp_path, elastic("search_click", "10:00:07", hit="b"))
    assert ranks(search) == {"a": 1, "b": 2, "c": 3} and feedback(search) == [("click", "b", 1.0)]


# Algolia and others of its kind --------------------------------------------------------------------------------------


def algolia(kind, ids, ms=0, **more):
    row = {"eventType": kind, "eventName": "x", "index": "facts", "userToken": "anon", "objectIDs": list(ids)}
    return row | {"queryID": "k1", "timestamp": 1_793_527_200_000 + ms} | more


def test_algolia_events_without_the_searches_are_refused_and_say_what_to_name(tmp_path):
    with pytest.raises(LogError, match=r"searches whose query no file has: .*clickAnalytics=true"):
        read(tmp_path, algolia("view", "abc"), algolia("click", "b", 7000, positions=[2]))


def test_algolia_events_join_what_the_searches_returned(tmp_path):
    response = {"queryID": "k1", "query": "honey", "hits": [{"objectID": each} for each in "abc"], "page": 0}
    rows = algolia("click", "b", 7000, positions=[2]), algolia("conversion", "b", 9000), response
    (search,), reader = read(tmp_path, *rows, algolia("view", "ab", 500))
    assert (search.id, search.query, ranks(search)) == ("k1", "honey", {"a": 1, "b": 2, "c": 3})
    assert search.at == datetime(2026, 11, 1, 10, 0, 0, 500_000, UTC)
    assert feedback(search) == [("click", "b", 1.0)] and "'conversion' (1)" in "".join(reader.notes)
    (again,), _ = read(tmp_path, {"events": list(rows[:2])}, response)
    assert feedback(again) == feedback(search)


def test_views_in_parts_are_one_list_and_positions_tell_its_page(tmp_path):
    rows = {"queryID": "k1", "query": "honey"}, algolia("view", "ab", 100), algolia("view", "cd", 200)
    (search,), _ = read(tmp_path, *rows, algolia("click", "c", 7000, positions=[23]))
    assert ranks(search) == {"a": 21, "b": 22, "c": 23, "d": 24}


def test_a_list_that_its_clicks_contradict_is_none(tmp_path):
    rows = {"queryID": "k1", "query": "honey"}, algolia("view", "abcd", 100)
    clicks = algolia("click", "c", 7000, positions=[1]), algolia("click", "a", 8000, positions=[4])
    (search,), reader = read(tmp_path, *rows, *clicks)
    assert search.hits == () and len(search.feedback) == 2
    assert any("another order than the positions" in note for note in reader.notes)


@pytest.mark.parametrize("positions", [[0], [1, 2], ["x"], [True]])
def test_positions_that_are_none_are_refused(tmp_path, positions):
    with pytest.raises(LogError, match=r"log.jsonl:1: .*position"):
        read(tmp_path, algolia("click", "b", positions=positions), {"queryID": "k1", "query": "honey"})


def test_meilisearch_events_join_a_response_that_says_which_field_is_the_id(tmp_path):
    response = {"query": "honey", "hits": [{"ref": 4}, {"ref": 9}], "offset": 0, "timestamp": "2026-11-01T10:00:00Z"}
    response |= {"metadata": {"queryUid": "m1", "indexUid": "facts", "primaryKey": "ref"}}
    event = {"eventType": "click", "eventName": "e", "indexUid": "facts", "userId": "u", "queryUid": "m1"}
    (search,), _ = read(tmp_path, event | {"objectId": "9", "position": 1}, response)
    assert ranks(search) == {"4": 1, "9": 2} and feedback(search) == [("click", "9", 1.0)]
    del response["metadata"]["primaryKey"]
    (search,), _ = read(tmp_path, event | {"objectId": "9", "position": 1}, response)
    assert search.hits == ()


def test_typesense_events_repeat_the_query(tmp_path):
    sent = {"type": "click", "name": "clicks", "data": {"q": "honey", "doc_id": "9", "user_id": "u"}}
    kept = {"name": "clicks", "event_type": "click", "collection": "facts", "timestamp": 1_793_527_200_000_000}
    (search,), _ = read(tmp_path, kept | {"user_id": "u", "doc_id": "9", "query": "honey"})
    assert search.query == "honey" and search.hits == () and search.at == datetime(2026, 11, 1, 10, tzinfo=UTC)
    (search,), reader = read(tmp_path, sent)
    assert feedback(search) == [("click", "9", 1.0)] and "1 searches without a time" in reader.notes
    with pytest.raises(LogError, match="1 × click: an event without a query"):
        read(tmp_path, sent | {"data": {"doc_id": "9", "user_id": "u"}})


# Azure, Google -------------------------------------------------------------------------------------------------------


def azure(name, at="10:00:00", **said):
    row = {"timestamp": f"2026-11-01T{at}.0000000Z", "name": name, "session_Id": "s", "user_Id": "u"}
    return row | {"customDimensions": json.dumps(said)}


def test_azure_never_says_what_was_shown_and_a_click_is_no_list_of_one(tmp_path):
    rows = [azure("Search", SearchId="z1", QueryTerms="honey", ResultCount="3", IndexName="facts")]
    rows += [azure("Click", "10:00:07", SearchId="z1", ClickedDocId="b", Rank="2"), azure("Basket", SearchId="z1")]
    rows += [
        azure("search", SearchId="z2", searchText="bees", resultsCount=0),
        azure("Search", SearchId="z3", QueryTerms="x"),
    ]
    (clicked, nothing), reader = read(tmp_path, *rows)
    assert (clicked.query, clicked.hits, feedback(clicked)) == ("honey", (), [("click", "b", 1.0)])
    assert (nothing.query, nothing.hits, nothing.feedback) == ("bees", (), ())
    assert reader.dropped["searches without a click, of which no file says what was shown"] == 1
    assert any("neither positions nor what was passed over can be judged" in note for note in reader.notes)
    later = {"TimeGenerated [UTC]": "2026-11-01 10:00:00", "Name": "Search", "SessionId": "s", "UserId": "u"}
    later |= {"Properties": {"SearchId": "z2", "QueryTerms": "bees", "ResultCount": 0}}
    table = {"name": "PrimaryResult", "columns": [{"name": name} for name in later], "rows": [list(later.values())]}
    for row in (later, {"tables": [table]}):
        again, _ = read(tmp_path, row)
        assert [(search.query, search.at) for search in again] == [("bees", nothing.at)]


def ga4(event, seconds, items=(), session="77", **said):
    """As BigQuery writes it: whole numbers are texts, and every kind of value has a field."""
    kinds = ("string_value", "int_value", "float_value", "double_value")
    said |= {"ga_session_id": session} if session else {}
    params = [
        {"key": key, "value": dict.fromkeys(kinds) | {"int_value" if found.isdigit() else "string_value": found}}
        for key, found in said.items()
    ]
    row = {"event_name": event, "event_timestamp": str((1_793_527_200 + seconds) * 10**6), "event_params": params}
    listed = [{"item_id": hit, "item_list_index": str(place)} for place, hit in enumerate(items)]
    return row | {"user_pseudo_id": "1.2", "items": listed}


def test_a_selected_item_is_of_the_search_before_it_in_the_session(tmp_path):
    rows = [
        ga4("select_item", 67, "b", item_list_name="search results"),
        ga4("view_search_results", 0, search_term="honey"),
        ga4("view_search_results", 60, search_term="bees"),
        ga4("select_item", 61, "c", item_list_name="You may also like"),
        ga4("page_view", 62),
        ga4("select_item", 70, "z", session="78", item_list_name="search results"),
        ga4("select_item", 70, "z", session="", item_list_name="search results"),
    ]
    (search,), reader = read(tmp_path, *rows)
    assert (search.query, search.hits, feedback(search)) == ("bees", (), [("click", "b", 1.0)])
    dropped = "; ".join(reader.dropped)
    assert "select_item of the list 'You may also like'" in dropped and "page_view: not read" in dropped
    assert "no search of the session explains" in dropped and "without a session" in dropped
    (search,), _ = read(tmp_path, *rows, click=("select_item",))
    assert feedback(search) == [("click", "c", 1.0), ("click", "b", 1.0)]


def test_a_list_that_the_site_reports_is_what_was_shown(tmp_path):
    rows = [
        ga4("view_search_results", 0, search_term="honey"),
        ga4("view_item_list", 1, "abc", item_list_id="search"),
        ga4("select_item", 9, "b", item_list_id="search"),
        ga4("purchase", 900, "bz"),
    ]
    (search,), _ = read(tmp_path, *rows, up=("purchase",))
    assert ranks(search) == {"a": 1, "b": 2, "c": 3}
    assert feedback(search) == [("click", "b", 1.0), ("up", "b", 1.0), ("up", "z", 1.0)]


def test_a_click_hours_after_the_search_is_not_its_click(tmp_path):
    rows = ga4("view_search_results", 0, search_term="honey"), ga4("view_item_list", 1, "ab", item_list_id="search")
    (search,), reader = read(tmp_path, *rows, ga4("select_item", 7200, "b", item_list_id="search"))
    assert search.feedback == () and any("explains" in reason for reason in reader.dropped)


# lists of judgements -------------------------------------------------------------------------------------------------


def test_judgements_of_people_are_ratings_and_those_of_a_language_model_are_judged(tmp_path):
    ratings = [{"query": "honey", "ratings": [{"docId": "a", "rating": "3"}, {"docId": "b", "rating": "0.0"}]}]
    (search,), _ = read(tmp_path, *ratings)
    assert feedback(search) == [("rating", "a", 3.0), ("rating", "b", 0.0)]
    whole = {"id": "7", "timestamp": "2026-11-01T10:00:00Z", "type": "LLM_JUDGMENT", "judgmentRatings": ratings}
    (search,), _ = read(tmp_path, {"_index": "judgment", "_source": whole})
    assert [event.kind for event in search.feedback] == ["judged", "judged"]
    with pytest.raises(LogError, match="computed of clicks"):
        read(tmp_path, whole | {"type": "UBI_JUDGMENT"})


# what holds of all ---------------------------------------------------------------------------------------------------


def test_clicks_without_a_list_are_positives_and_nothing_else(tmp_path):
    rows = azure("Search", SearchId="z1", QueryTerms="honey"), azure("Click", SearchId="z1", ClickedDocId="b")
    found, _ = read(tmp_path, *rows)
    assert [(label.passage_id, label.weight) for label in clicked_as_positive(found)] == [("b", 1.0)]
    assert unclicked_as_negative(found) == click_over_skip_above(found) == []
    with pytest.raises(InputError, match="no clicks on shown hits"):
        fit(found)
    shown, _ = read(tmp_path, ubi_query(), ubi_event())
    assert fit([*shown, *found]) == fit(shown)
    assert inverse_propensity([*shown, *found], fit(shown)) == inverse_propensity(shown, fit(shown))


def test_the_monitor_does_not_take_an_unknown_list_for_one_of_nothing(tmp_path):
    rows = azure("Search", SearchId="z1", QueryTerms="honey"), azure("Click", SearchId="z1", ClickedDocId="b")
    found, _ = read(
        tmp_path, *rows, azure("Search", SearchId="z2", QueryTerms="x", ResultCount=0) | {"session_Id": "t"}
    )
    days = [datetime(2026, month, 1, tzinfo=UTC) for month in (9, 10, 11, 12)]
    before = [type(found[0])(f"old{n}", days[0], "q") for n in range(2)]
    windows = read_windows([*before, *found], Span(days[0], days[1]), Span(days[2], days[3]), space="")
    assert windows.current.counts["without_hits"] == windows.current.tested["without_hits"] == 1
    assert windows.current.tested["shown"] == 0


def test_importing_twice_adds_nothing_and_a_later_file_of_events_adds_its_clicks(tmp_path):
    queries = written(tmp_path / "q.jsonl", [ubi_query(), ubi_query("q2", "who hunts", ("c", "d"))])
    events = written(tmp_path / "e.jsonl", [ubi_event()])
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        assert [log.extend(read_clicks([queries])), log.extend(read_clicks([queries, events]))] == [2, 0]
        assert log.extend(read_clicks([events, queries])) == 0
        assert [len(search.feedback) for search in log.searches()] == [1, 0]


def test_the_form_is_told_by_the_rows_and_never_two_are(tmp_path):
    told = {
        "ubi": ubi_event("page_exit", None, None),
        "elastic": elastic("search", "10:00:00"),
        "algolia": algolia("view", "a"),
        "azure": azure("Click", SearchId="z", ClickedDocId="b"),
        "ga4": ga4("page_view", 0),
        "meilisearch": {"eventType": "click", "indexUid": "f", "queryUid": "m", "objectId": "1"},
        "typesense": {"type": "click", "name": "n", "data": {"doc_id": "1", "q": "x"}},
        "opensearch-judgments": {"query": "q", "ratings": [{"docId": "1", "rating": "1"}]},
    }
    assert {name: form_of([row]) for name, row in told.items()} == {name: name for name in told}
    assert form_of([{"query": "q", "hits": []}]) is None and form_of(told.values()) is None
    with pytest.raises(LogError, match="of no click log that is known"):
        read(tmp_path, {"query": "q", "hits": []})
    files = [written(tmp_path / f"{name}.jsonl", [told[name]]) for name in ("ubi", "ga4")]
    with pytest.raises(LogError, match="several forms"):
        read_clicks(files)
    with pytest.raises(LogError, match=r"ga4.jsonl: no row of it is of ubi"):
        list(read_clicks(files, form="ubi"))
    with pytest.raises(UsageError, match="expected one of ubi"):
        read_clicks(files, form="solr")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (ubi_query(hits=[{"id": 1}]), "query_response_hit_ids"),
        (ubi_query(hits=["x" * 5000]), "5,000 characters"),
        (ubi_query(timestamp="2026-11-01T10:00:00"), "a time without a zone"),
        (ubi_query(timestamp="yesterday"), "yesterday"),
        (ubi_query(user_query={"deep": 1}), "user_query"),
        (ubi_query(query_id=10**60), "more than 40 digits"),
        (ubi_query() | {"query_response_hit_ids": "a|b;c"}, "may part the values"),
        (ubi_event(hit="b") | {"event_attributes": "{'object': __import__('os')}"}, "event_attributes"),
    ],
)
def test_a_damaged_row_is_one_error_with_its_place_and_value(tmp_path, row, problem):
    with pytest.raises(LogError, match=r"log.jsonl:2: ") as told:
        read(tmp_path, ubi_query("q0"), row)
    assert problem in str(told.value) and len(str(told.value)) < 500


def test_a_time_without_a_zone_is_read_in_the_zone_that_is_given(tmp_path):
    (search,), _ = read(tmp_path, ubi_query(at="2026-11-01T10:00:00"), zone=UTC)
    assert search.at == datetime(2026, 11, 1, 10, tzinfo=UTC)


def test_a_session_of_more_rows_than_anybody_makes_ends_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("qdrant_tools.clicks.joining.MOST_ROWS", 10)
    (search,), reader = read(tmp_path, ubi_query(), *(ubi_event(hit=f"h{n}") for n in range(30)))
    assert len(search.feedback) == 9
    assert reader.dropped["more rows of one search or session than anybody makes"] == 21
