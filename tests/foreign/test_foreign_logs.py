"""Logs as other systems write them: each is read as its authors meant it, or refused with the way out."""

from __future__ import annotations

import csv
import logging
import re
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdrant_tools.debias import rated
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.foreign import as_time
from qdrant_tools.log import LogColumns, LoggedSearch, RetrievalLog, read_log
from qdrant_tools.same import query_key

FILES = Path(__file__).with_name("logs")
ROWS = {"query": "query", "hit": "doc"}
FLAT = ROWS | {"search": "search"}
CLICKED = FLAT | {"feedback": {"click": "clicked"}}

# file, columns -> "session | query | hits@rank=score | feedback | time" of each search, or the message of the refusal
TABLE = [
    (
        "session_as_search.csv",
        ROWS | {"search": "session", "feedback": {"click": "clicked"}},
        ["s1 | reset password | kb-1@1 | click:kb-1", "s1 | cancel my order | kb-8@1 | click:kb-8"],
    ),
    (
        "session_as_search.csv",
        ROWS | {"session": "session", "feedback": {"click": "clicked"}},
        ["s1 | reset password | kb-1@1 | click:kb-1", "s1 | cancel my order | kb-8@1 | click:kb-8"],
    ),
    (
        "sessions_interleaved.csv",
        ROWS | {"session": "session", "at": "time", "rank": "pos", "feedback": {"click": "clicked"}},
        [
            "s1 | reset password | kb-1@1 kb-2@2 | click:kb-1 | 2026-03-01T09:00:00+00:00",
            "s2 | cancel my order | kb-8@1 kb-9@2 | click:kb-9 | 2026-03-01T09:00:01+00:00",
            "s1 | reset password | kb-2@1 kb-1@2 | click:kb-2 | 2026-03-01T09:20:00+00:00",
        ],
    ),
    (
        "postgres_copy.csv",
        {
            "query": "query",
            "search": "id",
            "hit": "doc_id",
            "rank": "position",
            "score": "score",
            "feedback": {"click": "clicked"},
        },
        [" | wie setze ich mein Passwort zurück | kb-1@1=0.91 kb-2@2=0.88 kb-3@3 | click:kb-2"],
    ),
    (
        "mysql_outfile.tsv",
        {"query": "q", "search": "search_id", "hit": "doc", "rank": "rnk", "feedback": {"click": "clicked_at"}},
        [" | reset | kb-1@1 kb-2@2 kb-3@3 | click:kb-2"],
    ),
    (
        "pandas_to_csv.csv",
        FLAT | {"rank": "rank", "score": "score", "feedback": {"click": "clicked", "rating": "grade"}},
        [" | green tea | d1@1=0.75 d2@2 d3@3 | click:d1 rating:d1=2"],
    ),
    (
        "excel_deutsch.csv",
        {
            "query": "Frage",
            "search": "Suche",
            "hit": "Treffer",
            "rank": "Rang",
            "score": "Score",
            "feedback": {"click": "Geklickt", "dwell": "Verweildauer"},
        },
        [' | Was kostet "grüner" Tee? | t-1@1=0.87 t-2@2=0.8125 | click:t-2 dwell:t-2=12.5'],
    ),
    (
        "excel_decimal_marks_mixed.csv",
        {"query": "Frage", "search": "Suche", "hit": "Treffer", "feedback": {"dwell": "Verweildauer"}},
        (
            "excel_decimal_marks_mixed.csv:3: column 'Verweildauer' is '1.250', and other rows have "
            "the other decimal mark"
        ),
    ),
    (
        "excel_unicode_text.csv",
        CLICKED,
        (
            'excel_unicode_text.csv is not UTF-8 text (byte 0): it is UTF-16, the "Unicode text" of '
            'Excel: save it as UTF-8 ("CSV UTF-8" there)'
        ),
    ),
    (
        "utf16_without_mark.csv",
        CLICKED,
        "utf16_without_mark.csv:1: a NUL in this row: it is UTF-16 or no text, convert it",
    ),
    (
        "excel_serial_dates.csv",
        ROWS | {"at": "time"},
        (
            "excel_serial_dates.csv:2: column 'time' is '46352.4166666667', a number of days, as "
            "Excel stores dates: format the column as text, expected an ISO 8601 time with its zone, "
            "such as 2026-11-26T10:00:00+00:00"
        ),
    ),
    (
        "excel_rounded_ids.csv",
        FLAT,
        (
            "excel_rounded_ids.csv:2: column 'search' is '1.76E+17', a long number that a "
            "spreadsheet has rounded: export it as text"
        ),
    ),
    (
        "dates_day_first.csv",
        ROWS | {"at": "time"},
        (
            "dates_day_first.csv:2: column 'time' is '03/04/2026 10:00', in which the day or the "
            "month may stand first: say at_format=day-first or at_format=month-first"
        ),
    ),
    (
        "phoenix_documents_exploded.csv",
        {
            "query": "input.value",
            "search": "context.span_id",
            "hit": "document.id",
            "rank": "document_position",
            "score": "document.score",
        },
        (
            "phoenix_documents_exploded.csv:2: column 'document_position' is '0', expected a rank: a "
            "whole number from 1; say rank_from=0 if the file counts from 0"
        ),
    ),
    (
        "phoenix_documents_exploded.csv",
        {
            "query": "input.value",
            "search": "context.span_id",
            "hit": "document.id",
            "rank": "document_position",
            "score": "document.score",
            "rank_from": 0,
        },
        [" | who makes honey | bees@1=0.71 wasps@2=0.44 | ", " | who hunts at night | owls@1=0.69 | "],
    ),
    ("counts_from_zero_they_say.csv", FLAT | {"rank": "pos", "rank_from": 0}, [" | tea | a@2 b@3 | "]),
    (
        "langfuse_observations.jsonl",
        {
            "query": "input",
            "search": "id",
            "session": "session_id",
            "at": "start_time",
            "hits": "output",
            "hit": "metadata._id",
        },
        (
            "langfuse_observations.jsonl:1: column 'start_time' is '2026-03-01 09:00:00.123456', a "
            'time without a zone: write one (+00:00), or say zone="UTC" (--timezone UTC)'
        ),
    ),
    (
        "langfuse_observations.jsonl",
        {
            "query": "input",
            "search": "id",
            "session": "session_id",
            "at": "start_time",
            "hits": "output",
            "hit": "metadata._id",
            "zone": "UTC",
        },
        [
            "c9 | who makes honey | bees@1 ants@2 |  | 2026-03-01T09:00:00.123456+00:00",
            " | who hunts | owls@1 |  | 2026-03-01T09:01:00+00:00",
        ],
    ),
    (
        "langfuse_headless_ids.jsonl",
        {"query": "input", "hits": "output"},
        (
            "langfuse_headless_ids.jsonl:1: column 'id' is None, expected a text or whole number; "
            "columns: ['id', 'page_content']"
        ),
    ),
    (
        "ubi_queries.jsonl",
        {
            "query": "user_query",
            "search": "query_id",
            "session": "client_id",
            "at": "timestamp",
            "hits": "query_response_hit_ids",
        },
        [
            "u1 | dishwasher | a@1 b@2 c@3 |  | 2026-03-01T09:00:00+00:00",
            "u2 | fridge |  |  | 2026-03-01T09:00:05+00:00",
        ],
    ),
    (
        "ubi_events.csv",
        {
            "query": "user_query",
            "search": "query_id",
            "session": "session_id",
            "hit": "object_id",
            "rank": "ordinal",
            "event_at": "timestamp",
            "feedback": {"click": "action_name=click"},
        },
        ["s1 | dishwasher | a@1 b@2 | click:b | 2026-03-01T09:00:00+00:00"],
    ),
    (
        "ubi_events.csv",
        {
            "query": "user_query",
            "search": "query_id",
            "session": "session_id",
            "hit": "object_id",
            "rank": "ordinal",
            "event_at": "timestamp",
            "feedback": {"click": "action_name"},
        },
        (
            "ubi_events.csv:2: column 'action_name' is 'impression', expected yes or no (true/false, "
            "t/f, 1/0, yes/no, a count or a time) or nothing; if the column names what happened, "
            'write feedback={"click": "action_name=click"}'
        ),
    ),
    (
        "ubi_events.csv",
        {
            "query": "user_query",
            "search": "query_id",
            "session": "session_id",
            "hit": "object_id",
            "rank": "ordinal",
            "feedback": {"click": "action_name=click"},
            "at": "timestamp",
        },
        (
            "ubi_events.csv:4: the search has the time 2026-03-01T09:00:00+00:00 in line 2 and "
            "2026-03-01T09:00:04+00:00 here: if 'timestamp' is the time of each event, name it "
            "`event_at`; if 'query_id' is the session, name it `session`"
        ),
    ),
    (
        "events_with_a_type.jsonl",
        {"query": "q", "hits": "shown", "hit": "doc", "events": "events", "feedback": {"click": "doc"}},
        (
            "events_with_a_type.jsonl:1: every row is taken for a click, and the field 'type' says "
            '\'impression\': name it in `feedback`, for example {"click": "type=click"}'
        ),
    ),
    (
        "events_with_a_type.jsonl",
        {"query": "q", "hits": "shown", "hit": "doc", "events": "events", "feedback": {"click": "type=click"}},
        [" | tea | a@1 b@2 | click:b"],
    ),
    (
        "aol.txt.tsv",
        {
            "query": "Query",
            "session": "AnonID",
            "at": "QueryTime",
            "zone": "UTC",
            "hit": "ClickURL",
            "rank": "ItemRank",
            "feedback": {"click": "ClickURL"},
        },
        [
            "142 | rentdirect.com |  |  | 2006-03-01T07:17:12+00:00",
            (
                "142 | www.newyorklawyersite.com | http://www.newyorklawyersite.com@1 | "
                "click:http://www.newyorklawyersite.com | 2006-03-18T08:02:58+00:00"
            ),
            (
                "142 | www.newyorklawyersite.com | http://www.example.org@3 | "
                "click:http://www.example.org | 2006-03-18T08:03:09+00:00"
            ),
            (
                "217 | lottery | http://www.calottery.com@1 http://www.example.com@2 | "
                "click:http://www.calottery.com click:http://www.example.com | 2006-03-01T11:58:51+00:00"
            ),
        ],
    ),
    (
        "votes.csv",
        FLAT | {"feedback": {"up": "vote"}},
        [" | tea | a@1 b@2 c@3 d@4 e@5 f@6 | up:a down:b down:d down:e"],
    ),
    (
        "votes.csv",
        FLAT | {"feedback": {"up": "vote", "down": "vote"}},
        (
            "votes.csv:7: column 'vote' is '0', expected a vote (up/down, like/dislike, 1/-1, "
            "yes/no): 0 is no vote to some and a thumb down to others, write which"
        ),
    ),
    (
        "votes.csv",
        FLAT | {"feedback": {"down": "vote"}},
        [" | tea | a@1 b@2 c@3 d@4 e@5 f@6 | up:a down:b down:d down:e"],
    ),
    ("helpful_yes_no.csv", FLAT | {"feedback": {"up": "helpful"}}, [" | tea | a@1 b@2 c@3 | up:a"]),
    (
        "helpful_yes_no.csv",
        FLAT | {"feedback": {"up": "helpful", "down": "helpful"}},
        [" | tea | a@1 b@2 c@3 | up:a down:b"],
    ),
    (
        "unknown_flag.csv",
        CLICKED,
        (
            "unknown_flag.csv:3: column 'clicked' is 'maybe', expected yes or no (true/false, t/f, "
            "1/0, yes/no, a count or a time) or nothing; if the column names what happened, write "
            'feedback={"click": "clicked=click"}'
        ),
    ),
    (
        "minus_one.csv",
        CLICKED,
        (
            "minus_one.csv:3: column 'clicked' is '-1', expected yes or no (true/false, t/f, 1/0, "
            "yes/no, a count or a time) or nothing"
        ),
    ),
    (
        "never_a_click.csv",
        CLICKED,
        [
            (
                " | tea | d0@1 d1@2 d2@3 d3@4 d4@5 d5@6 d6@7 d7@8 d8@9 d9@10 d10@11 d11@12 d12@13 d13@14 "
                "d14@15 d15@16 d16@17 d17@18 d18@19 d19@20 d20@21 d21@22 yes@23 | click:yes"
            )
        ],
    ),
    (
        "json_types.jsonl",
        FLAT | {"feedback": {"click": "clicked", "cited": "cited"}},
        [" | tea | a@1 b@2 c@3 d@4 e@5 f@6 | click:a cited:b click:d click:e"],
    ),
    (
        "json_nested_flag.jsonl",
        CLICKED,
        (
            "json_nested_flag.jsonl:1: column 'clicked' is {'value': False}, expected yes or no "
            "(true/false, t/f, 1/0, yes/no, a count or a time) or nothing"
        ),
    ),
    ("json_nested_flag.jsonl", FLAT | {"feedback": {"click": "clicked.value"}}, [" | tea | a@1 | "]),
    (
        "rank_broken.csv",
        FLAT | {"rank": "pos"},
        "rank_broken.csv:3: column 'pos' is '2.7', expected a rank: a whole number from 1",
    ),
    (
        "rank_ordinal.csv",
        FLAT | {"rank": "pos"},
        "rank_ordinal.csv:2: column 'pos' is '1st', expected a rank: a whole number from 1",
    ),
    (
        "rank_negative.csv",
        FLAT | {"rank": "pos"},
        "rank_negative.csv:2: column 'pos' is '-1', expected a rank: a whole number from 1",
    ),
    (
        "rank_true.jsonl",
        FLAT | {"rank": "pos"},
        "rank_true.jsonl:1: column 'pos' is True, expected a rank: a whole number from 1",
    ),
    (
        "two_hits_on_one_rank.csv",
        FLAT | {"rank": "pos"},
        "two_hits_on_one_rank.csv:3: hits 'a' (line 2) and 'b' both have rank 1 in one search",
    ),
    (
        "one_hit_on_two_ranks.csv",
        FLAT | {"rank": "pos"},
        (
            "one_hit_on_two_ranks.csv:2: hit 'a' has rank 1 (line 2) and rank 4 (line 3) in one "
            "search: are these two searches?"
        ),
    ),
    ("chunks_of_one_document.csv", FLAT | {"rank": "pos"}, [" | tea | a@1 b@2 | "]),
    (
        "milliseconds.jsonl",
        {"query": "query", "hits": "hits", "at": "time", "at_format": "seconds"},
        (
            "milliseconds.jsonl:1: column 'time' is 1772355600123, expected seconds since 1970 of a "
            "year from 1990 on and before 2100: as milliseconds it would be of 2026"
        ),
    ),
    (
        "milliseconds.jsonl",
        {"query": "query", "hits": "hits", "at": "time", "at_format": "milliseconds"},
        [" | tea | a@1 |  | 2026-03-01T09:00:00.123000+00:00"],
    ),
    (
        "milliseconds.jsonl",
        {"query": "query", "hits": "hits", "at": "time", "at_format": "iso"},
        (
            "milliseconds.jsonl:1: column 'time' is 1772355600123, a number: say "
            'at_format="milliseconds"; without it, expected an ISO 8601 time with its zone, such as '
            "2026-11-26T10:00:00+00:00"
        ),
    ),
    (
        "zero_times.jsonl",
        {"query": "query", "hits": "hits", "at": "time", "at_format": "seconds"},
        ("zero_times.jsonl:1: column 'time' is 0, expected seconds since 1970 of a year from 1990 on and before 2100"),
    ),
    (
        "summer_time.csv",
        ROWS | {"at": "time", "zone": "Europe/Berlin"},
        (
            "summer_time.csv:2: column 'time' is '2026-10-25 02:30:00', which the clocks of "
            "Europe/Berlin show twice or never: write it with its offset"
        ),
    ),
    (
        "local_times.csv",
        ROWS | {"at": "time", "zone": "Europe/Berlin"},
        [" | tea | a@1 b@2 |  | 2026-07-01T10:00:00+00:00"],
    ),
    (
        "local_times.csv",
        ROWS | {"at": "time"},
        (
            "local_times.csv:2: column 'time' is '2026-07-01 12:00:00', a time without a zone: write "
            'one (+00:00), or say zone="UTC" (--timezone UTC)'
        ),
    ),
    (
        "days_only.csv",
        ROWS | {"at": "time", "zone": "UTC"},
        (
            "days_only.csv:2: column 'time' is '2026-07-01', a day without a time: expected an ISO "
            "8601 time with its zone, such as 2026-11-26T10:00:00+00:00"
        ),
    ),
    (
        "a_time_per_row.csv",
        ROWS | {"session": "session", "at": "time", "rank": "pos", "feedback": {"click": "clicked"}},
        (
            "a_time_per_row.csv:3: the ranks of the query 'tea' go on from line 2 at another time "
            "('time'): if that is the time of each event and not of the search, name it `event_at`; "
            "or give `search`"
        ),
    ),
    (
        "a_time_per_row.csv",
        ROWS | {"session": "session", "rank": "pos", "feedback": {"click": "clicked"}, "event_at": "time"},
        ["s1 | tea | a@1 b@2 | click:b | 2026-03-01T09:00:00+00:00"],
    ),
    (
        "search_at_two_times.csv",
        CLICKED | {"at": "time"},
        (
            "search_at_two_times.csv:3: the search has the time 2026-03-01T09:00:00+00:00 in line 2 "
            "and 2026-03-01T11:00:00+00:00 here: if 'time' is the time of each event, name it "
            "`event_at`; if 'search' is the session, name it `session`"
        ),
    ),
    (
        "clicks_join_by_id.csv",
        CLICKED | {"rank": "pos", "at": "time"},
        [" | tea | a@1 b@2 | click:b | 2026-03-01T09:00:00+00:00", " | coffee | c@1 |  | 2026-03-01T09:00:01+00:00"],
    ),
    (
        "click_of_which_query.csv",
        CLICKED,
        (
            "click_of_which_query.csv:4: line 4 has no query, and search '1' has two: 'tea' in line "
            "2 and 'coffee' in line 3"
        ),
    ),
    (
        "search_of_two_sessions.csv",
        FLAT | {"session": "session"},
        "search_of_two_sessions.csv:3: search '1' is of session 's1' in line 2 and of 's2' here",
    ),
    (
        "session_nested.jsonl",
        {"query": "q", "search": "sid", "hits": "hits"},
        (
            "session_nested.jsonl:2: search 's1' is that of line 1 too, and each row is a search: if "
            "'sid' is a session, name it `session`"
        ),
    ),
    (
        "session_nested.jsonl",
        {"query": "q", "hits": "hits", "session": "sid"},
        ["s1 | tea | a@1 | ", "s1 | coffee | b@1 | "],
    ),
    (
        "again_without_time.csv",
        ROWS | {"session": "session"},
        (
            "again_without_time.csv:4: the query 'tea' of session 's1' is that of line 2, with that "
            "of line 3 in between: one search or two? Give `search` or `at`"
        ),
    ),
    (
        "dwell_spelled.csv",
        FLAT | {"feedback": {"dwell": "read"}},
        [(" | tea | a@1 b@2 c@3 d@4 e@5 f@6 | dwell:a=12 dwell:b=90 dwell:c=0.85 dwell:d=65 dwell:f=90")],
    ),
    (
        "dwell_negative.csv",
        FLAT | {"feedback": {"dwell": "read"}},
        (
            "dwell_negative.csv:2: column 'read' is '-3', expected seconds of at least 0, or a "
            "length such as 12s or 00:01:30"
        ),
    ),
    (
        "dwell_in_ms.csv",
        FLAT | {"feedback": {"dwell": "dwell_ms"}, "dwell_unit": "milliseconds"},
        [" | tea | a@1 b@2 | dwell:a=42 dwell:b=0.85"],
    ),
    (
        "dwell_too_long.csv",
        FLAT | {"feedback": {"dwell": "read"}},
        (
            "dwell_too_long.csv:2: column 'read' is '420000', longer than a day in seconds: give "
            "dwell_unit if it is another"
        ),
    ),
    (
        "thousands_or_decimals.csv",
        FLAT | {"feedback": {"dwell": "read"}},
        (
            "thousands_or_decimals.csv:2: column 'read' is '1,234', in which the comma may part "
            "thousands or decimals: write a point"
        ),
    ),
    (
        "scores_inf.csv",
        FLAT | {"score": "score"},
        "scores_inf.csv:2: column 'score' is 'inf', expected a finite number",
    ),
    (
        "scores_differ.csv",
        FLAT | {"score": "score", "rank": "pos"},
        "scores_differ.csv:3: hit 'a' has the score 0.9 in line 2 and 0.2 here, in one search",
    ),
    (
        "columns_twice.csv",
        CLICKED,
        "columns_twice.csv:1: two columns are named 'clicked': which one is meant cannot be told",
    ),
    ("header_spaces.csv", CLICKED, [" | tea | kb-1@1 | click:kb-1"]),
    ("other_case.jsonl", CLICKED, "other_case.jsonl: no row has the column 'clicked', but 'Clicked'"),
    ("what_nobody_read.csv", CLICKED, [" | tea | a@1 | click:a"]),
    ("quoted_lines.csv", CLICKED, [" | what is\r\nthis; and, that? | a@1 | click:a"]),
    (
        "hits_as_json_text.csv",
        {"query": "query", "hits": "results", "events": "clicks", "feedback": {"click": "id"}},
        [" | tea | a@1 b@2 | click:b", " | coffee |  | "],
    ),
    (
        "hits_as_python.csv",
        {"query": "query", "hits": "results"},
        [" | tea | a@1 | "],
    ),
    (
        "ga4_microseconds.jsonl",
        {
            "query": "search_term",
            "at": "event_timestamp",
            "at_format": "microseconds",
            "hits": "items",
            "hit": "item_id",
        },
        [" | tea | a@1 b@2 |  | 2026-03-01T09:00:00.123456+00:00"],
    ),
    (
        "composed_and_not.jsonl",
        {"query": "q", "hits": "shown", "events": "clicks", "feedback": {"click": "id"}},
        [" | tea | Café.md@1 | click:Café.md"],
    ),
    (
        "click_without_hit.csv",
        CLICKED,
        "click_without_hit.csv:2: a click, and column 'doc' is empty: which hit was it?",
    ),
    (
        "query_null.csv",
        FLAT,
        (
            "query_null.csv:2: column 'query' is 'NULL', expected a text or whole number; columns: "
            "['doc', 'query', 'search']; if a later row of its search has the query, sort the rows by "
            "time"
        ),
    ),
    (
        "session_as_search_again.csv",
        ROWS | {"search": "session"},
        (
            "session_as_search_again.csv:4: search 's1' has the query 'Tea' in line 2 too, with "
            "'coffee' in between: one search or two? Name the time of the searches `at`, and a "
            "session `session`"
        ),
    ),
    (
        "session_as_search_timed.csv",
        ROWS | {"search": "session", "at": "time"},
        ["s1 | tea | a@1 c@2 |  | 2026-03-01T09:00:00+00:00", "s1 | coffee | b@1 |  | 2026-03-01T09:01:00+00:00"],
    ),
    (
        "mysql_query_missing.tsv",
        {"query": "q", "search": "search_id", "hit": "doc"},
        (
            "mysql_query_missing.tsv:2: column 'q' is '\\\\N', expected a text or whole number; "
            "columns: ['doc', 'q', 'search_id']; if a later row of its search has the query, sort the rows by "
            "time"
        ),
    ),
    (
        "ids_of_clicks_in_capitals.jsonl",
        {"query": "q", "hits": "shown", "events": "clicks", "feedback": {"click": "id"}},
        [" | tea | kb-1.md@1 | click:KB-1.MD", " | coffee | kb-2@1 | click:zz"],
    ),
    ("what_nobody_read_yet.csv", FLAT | {"at": "time"}, [" | tea | a@1 |  | 2087-01-01T00:00:00+00:00"]),
    (
        "whole_numbers_as_floats.jsonl",
        {"query": "q", "hits": "shown"},
        "whole_numbers_as_floats.jsonl:1: column 'id' is 17.0, expected a text or whole number; columns: ['id']",
    ),
    (
        "session_unknown.csv",
        ROWS | {"session": "session"},
        "session_unknown.csv:3: column 'session' is empty, and without `search` or `at` nothing tells whose row it is",
    ),
    (
        "phoenix_spans.jsonl",
        {"query": "attributes.input.value", "hits": "attributes.retrieval.documents", "hit": "document.id"},
        "phoenix_spans.jsonl:2: column 'attributes.retrieval.documents' is NoneType, expected a list of objects or "
        "ids: leave out the rows that are no searches",
    ),
    ("pandas_quotes.tsv", FLAT, [' | what is "this" | a@1 | ', ' | "exact phrase" | b@1 | ', ' | say "hi" | c@1 | ']),
    (
        "kibana.csv",
        CLICKED | {"at": "@timestamp", "zone": "UTC", "rank": "rank"},
        [" | tea | kb-1@1 kb-2@2 | click:kb-1 | 2026-03-01T09:00:00.250000+00:00"],
    ),
    (
        "times_with_names_of_months.csv",
        ROWS | {"session": "session", "at": "time", "zone": "UTC"},
        "times_with_names_of_months.csv:6: column 'time' is '01 Mär 2026 09:00', expected an ISO 8601 time with its "
        "zone, such as 2026-11-26T10:00:00+00:00",
    ),
    (
        "pandas_astype_str.csv",
        CLICKED | {"session": "session"},
        [" | tea | kb-1@1 | click:kb-1", " | nan |  | ", " | coffee |  | "],
    ),
    (
        "search_nan.csv",
        FLAT,
        "search_nan.csv:2: column 'search' is 'nan', expected a text or whole number; columns: "
        "['doc', 'query', 'search']",
    ),
    (
        "excel_rounded_ids_deutsch.csv",
        FLAT,
        "excel_rounded_ids_deutsch.csv:2: column 'search' is '1,76E+17', a long number that a spreadsheet has "
        "rounded: export it as text",
    ),
    (
        "excel_errors.csv",
        FLAT,
        "excel_errors.csv:2: column 'query' is '#NAME?', a spreadsheet's error: export its text",
    ),
    ("excel_columns_once_used.csv", CLICKED, [" | tea | a@1 b@2 | click:a"]),
    (
        "excel_title_above.csv",
        CLICKED,
        "excel_title_above.csv:2: 'query' is in one of several columns without a name: is line 1 the header?",
    ),
    (
        "pandas_lines_in_a_cell.tsv",
        FLAT,
        "pandas_lines_in_a_cell.tsv:2: 2 columns, the header has 3, and the last one seems to go on in the next line: "
        "in a .tsv every line is a row; in a .csv, which may be parted by tabs, a text in quotes has several lines",
    ),
    (
        "mysql_lines_in_a_cell.tsv",
        FLAT,
        "mysql_lines_in_a_cell.tsv:2: 2 columns, the header has 3, and the last one seems to go on in the next line: "
        "in a .tsv every line is a row; in a .csv, which may be parted by tabs, a text in quotes has several lines",
    ),
    ("lines_in_a_cell.tsv", FLAT, [" | tea |  | ", " | kb-1 |  | "]),
    ("postgres_copy_text.tsv", FLAT, [r" | tea\tand milk | C:\\kb@1 | ", r" | \\o/ |  | "]),
    (
        "psql_unaligned.csv",
        FLAT,
        "psql_unaligned.csv:2: there is no column 'query'; columns: ['search|query|doc']: they are parted by |, write "
        "them with commas (psql --csv)",
    ),
    (
        "r_write_table.tsv",
        FLAT,
        "r_write_table.tsv:2: there is no column 'query'; columns: ['\"doc\"', '\"query\"', '\"search\"']: in a .tsv a "
        "quote is a character like any other, and a .csv may be parted by tabs: name the file so",
    ),
    (
        "json_array.jsonl",
        FLAT,
        "json_array.jsonl:1: a list, expected an object: write one per line (jq -c '.[]', or lines=True in pandas)",
    ),
    (
        "postgres_array.csv",
        {"query": "query", "search": "search", "hits": "ids"},
        [" | tea | a@1 b@2 | "],
    ),
    (
        "elastic_source.jsonl",
        {
            "query": "_source.user.query",
            "search": "_id",
            "at": "_source.@timestamp",
            "hits": "_source.hits",
            "hit": "doc.id",
            "feedback": {"click": "seen.clicked"},
        },
        [" | tea | a@1 b@2 | click:b | 2026-03-01T09:00:00+00:00"],
    ),
    (
        "same_event_two_spellings.jsonl",
        FLAT | {"feedback": {"click": "event=product_clicked"}},
        [" | tea | a@1 b@2 | click:a"],
    ),
    (
        "dwell_rather_ms.csv",
        FLAT | {"feedback": {"dwell": "dwellTime"}},
        "dwell_rather_ms.csv: 2 of 3 dwells in 'dwellTime' would be longer than ten minutes: give dwell_unit, seconds "
        "or milliseconds",
    ),
    (
        "dwell_rather_ms.csv",
        FLAT | {"feedback": {"dwell": "dwellTime"}, "dwell_unit": "milliseconds"},
        [" | tea | a@1 b@2 | dwell:a=4.5 dwell:b=0.35", " | coffee | c@1 d@2 | dwell:c=12"],
    ),
    (
        "dwell_mostly_short.csv",
        FLAT | {"feedback": {"dwell": "read"}},
        [" | tea | a@1 b@2 | dwell:a=45 dwell:b=7200", " | coffee | c@1 | dwell:c=3"],
    ),
    (
        "two_ratings.csv",
        FLAT | {"feedback": {"rating": "grade"}},
        "two_ratings.csv:3: hit 'a' has rating 5 in line 2 and rating 1 here, in one search and at one time: name the "
        "time of the feedback `event_at`, or keep one",
    ),
    (
        "two_ratings.csv",
        FLAT | {"feedback": {"rating": "grade"}, "event_at": "time"},
        [" | tea | a@1 | rating:a=1 rating:a=5 | 2026-03-01T09:00:00+00:00"],
    ),
    (
        "helpful_and_not.csv",
        FLAT | {"feedback": {"up": "helpful", "down": "unhelpful"}},
        "helpful_and_not.csv:3: hit 'b' has up in line 3 and down here, in one search and at one time: name the time "
        "of the feedback `event_at`, or keep one",
    ),
    ("flags_of_forms.csv", CLICKED, [" | tea | a@1 b@2 c@3 d@4 e@5 f@6 | click:a click:c"]),
    ("pandas_float_ids.csv", FLAT | {"session": "session"}, ["12.0 | tea | 101.0@1 | "]),
    (
        "click_in_the_row.jsonl",
        {"query": "query", "search": "search", "hits": "ids", "feedback": {"click": "eventType=click"}},
        "click_in_the_row.jsonl: the column 'eventType' is in the rows, and is looked for in the entries of 'ids'",
    ),
    ("formulas_for_excel.csv", CLICKED, [" | tea | 007@1 7@2 | click:007"]),
    (
        "clicked_when_never.csv",
        CLICKED,
        "clicked_when_never.csv:2: column 'clicked' is '2026-13-01 00:00:00', expected yes or no (true/false, t/f, "
        "1/0, yes/no, a count or a time) or nothing",
    ),
    ("clicked_when_kibana.csv", CLICKED, [" | tea | a@1 b@2 c@3 | click:a click:b"]),
    (
        "click_before_its_search.csv",
        CLICKED,
        "click_before_its_search.csv:2: column 'query' is '', expected a text or whole number; columns: ['clicked', "
        "'doc', 'query', 'search']; if a later row of its search has the query, sort the rows by time",
    ),
    (
        "event_named_hover.jsonl",
        {"query": "query", "hits": "shown", "events": "did", "feedback": {"click": "id"}},
        "event_named_hover.jsonl:1: every row is taken for a click, and the field 'name' says 'hover': name it in "
        '`feedback`, for example {"click": "name=click"}',
    ),
    ("times_of_clicks_alone.csv", CLICKED, [" | tea | a@1 | click:a", " | coffee | b@1 | "]),
]

# file, columns -> what is said at the end of reading
NOTES = [
    ("what_nobody_read.csv", CLICKED, "not read: label, source; of these, label may say what users did or saw"),
    ("counts_from_zero_they_say.csv", FLAT | {"rank": "pos", "rank_from": 0}, "no row has rank 0, although"),
    (
        "session_as_search.csv",
        ROWS | {"search": "session"},
        "1 ids of 'session' had rows of several queries: each query is a search",
    ),
    (
        "ids_of_clicks_in_capitals.jsonl",
        {"query": "q", "hits": "shown", "events": "clicks", "feedback": {"click": "id"}},
        "2 clicks or dwells are on passages that their searches did not show, and count for nothing: "
        "'KB-1.MD', where 'kb-1.md' was shown",
    ),
    ("clicks_join_by_id.csv", CLICKED | {"rank": "pos"}, "the searches get the time of the file: time may be theirs"),
    (
        "ubi_events.csv",
        {"query": "user_query", "search": "query_id", "hit": "object_id", "feedback": {"click": "action_name=click"}},
        "other events are not read: 'impression', 'page_exit'",
    ),
    (
        "ubi_events.csv",
        {"query": "user_query", "search": "query_id", "hit": "object_id", "feedback": {"click": "action_name=klick"}},
        "no row says 'action_name=klick', so there is no such feedback",
    ),
    ("what_nobody_read_yet.csv", FLAT | {"at": "time"}, "1 searches are of the future"),
    ("json_types.jsonl", FLAT | {"feedback": {"down": "thumbs"}}, "no row has the column 'thumbs', so there"),
    ("pandas_astype_str.csv", FLAT, "column 'doc' is 'undefined' in some rows, which is taken for nothing"),
    ("pandas_astype_str.csv", FLAT, "column 'query' has 'nan': programs write this for nothing"),
    ("pandas_astype_str.csv", FLAT | {"session": "session"}, "column 'session' is 'None' in some rows"),
    ("pandas_float_ids.csv", FLAT, "column 'doc' has '101.0': if a program wrote whole numbers so"),
    ("lines_in_a_cell.tsv", FLAT, "2 rows are shorter than the header, the first in line 2"),
    ("postgres_copy_text.tsv", FLAT, r"column 'query' has 'tea\\tand milk': backslashes stay as they are"),
    ("postgres_copy_text.tsv", FLAT, r"column 'doc' has 'C:\\\\kb': backslashes stay as they are"),
    (
        "elastic_source.jsonl",
        {"query": "_source.user.query", "search": "_id", "hits": "_source.hits", "hit": "doc.id"},
        "not read: _source.@timestamp, _source.clicked_id, _source.hits[].seen; of these, _source.clicked_id may say",
    ),
    (
        "same_event_two_spellings.jsonl",
        FLAT | {"feedback": {"click": "event=product_clicked"}},
        "other events are not read: 'Product Clicked'",
    ),
    ("times_of_clicks_alone.csv", CLICKED | {"event_at": "time"}, "1 searches have no event with a time, and get the"),
]


def told(search: LoggedSearch, timed: bool) -> str:
    hits = [f"{hit.id}@{hit.rank}" + ("" if hit.score is None else f"={hit.score:g}") for hit in search.hits]
    events = [
        f"{event.kind}:{event.id}" + (f"={event.value:g}" if event.kind in ("dwell", "rating") else "")
        for event in search.feedback
    ]
    at = [search.at.isoformat()] if timed else []
    return " | ".join([search.session, search.query, " ".join(hits), " ".join(events), *at])


@pytest.mark.parametrize(("name", "columns", "expected"), TABLE)
def test_a_log_is_read_as_it_was_meant_or_refused(name, columns, expected, tmp_path):
    reader = read_log(FILES / name, LogColumns(**columns))
    if isinstance(expected, str):
        with pytest.raises(LogError) as refused:
            list(reader)
        assert str(refused.value) == f"{FILES}/{expected}"
        return
    timed = bool(columns.get("at") or columns.get("event_at"))
    searches = list(reader)
    assert [told(search, timed) for search in searches] == expected
    # through the log and out again, it is the same; and the file is the same when it is read again
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        assert log.extend(searches) == len(searches)
        assert log.extend(read_log(FILES / name, LogColumns(**columns))) == 0
        kept = list(log.searches())
        assert [told(search, timed) for search in kept] == expected
        log.export_jsonl(tmp_path / "log.jsonl")
    with RetrievalLog(tmp_path / "again.sqlite") as again:
        assert again.import_jsonl(tmp_path / "log.jsonl") == len(searches)
        assert list(again.searches()) == kept


def test_every_file_is_in_the_table():
    assert {file.name for file in FILES.iterdir()} == {name for name, _, _ in TABLE}


@pytest.mark.parametrize(("name", "columns", "note"), NOTES)
def test_what_is_left_out_is_said_at_the_end(name, columns, note, caplog):
    reader = read_log(FILES / name, LogColumns(**columns))
    with caplog.at_level(logging.WARNING):
        list(reader)
    assert any(note in said for said in reader.notes)
    assert any(note in said and str(FILES / name) in said for said in caplog.messages)


def test_a_time_that_names_its_month_is_that_time():
    reader = read_log(
        FILES / "times_with_names_of_months.csv", LogColumns(**ROWS, session="session", at="time", zone="UTC")
    )
    with pytest.raises(LogError, match=":6:"):
        next(reader)
    for text, hour in [
        ("Sun, 01 Mar 2026 10:00:00 +0100", "09:00"),
        ("01/Mar/2026:09:00:00 +0000", "09:00"),
        ("1 March 2026 09:00", "09:00"),
        ("Mar  1 2026 12:30PM", "12:30"),
        ("Mar 1 2026 12:05:00 AM", "00:05"),
        ("March 1, 2026 9:00 PM", "21:00"),
        ("Mar 1, 2026 @ 09:00:00.000", "09:00"),
        ("2026/03/01 09:00:00", "09:00"),
    ]:
        assert as_time("at", text, zone=UTC).isoformat() == f"2026-03-01T{hour}:00+00:00"
    for text in ("Mar 1 2026 13:00 PM", "Mar 32 2026 09:00", "Foo 1 2026 09:00", "01-MAR-26 09:00", "Mar 1 2026"):
        with pytest.raises(InputError):
            as_time("at", text, zone=UTC)


@pytest.mark.parametrize(("grades", "refused"), [("2 5", True), ("1 5", True), ("5 5", False), ("0 5", False)])
def test_stars_say_which_are_good_whatever_the_worst_that_was_given(grades, refused, tmp_path):
    rows = "".join(f"1,tea,{number},{grade}\n" for number, grade in enumerate(grades.split()))
    (tmp_path / "stars.csv").write_text(f"search,query,doc,stars\n{rows}")
    searches = list(read_log(tmp_path / "stars.csv", LogColumns(**FLAT, feedback={"rating": "stars"})))
    assert [label.weight for label in rated(searches, top=5, relevant_from=4)][1] == 1.0
    if refused:
        with pytest.raises(InputError, match=f"go from {grades[0]} to 5, and none is 0.*--relevant-from"):
            rated(searches, top=5)
    else:
        assert rated(searches, top=5)[1].weight == 1.0


def test_no_answer_to_one_query_becomes_one_to_another():
    for column in ("search", "session"):
        searches = list(read_log(FILES / "session_as_search.csv", LogColumns(**ROWS, **{column: "session"})))
        assert {search.query: [hit.id for hit in search.hits] for search in searches} == {
            "reset password": ["kb-1"],
            "cancel my order": ["kb-8"],
        }
        assert len({search.id for search in searches}) == 2


def test_ids_that_count_from_one_in_every_file_do_not_meet_in_a_log(tmp_path):
    (tmp_path / "monday.csv").write_text("search,query,doc\n1,tea,a\n")
    (tmp_path / "tuesday.csv").write_text("search,query,doc\n1,coffee,b\n")
    columns = LogColumns(**FLAT)
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        log.extend(read_log(tmp_path / "monday.csv", columns))
        with pytest.raises(Exception, match="search '1' is in .* already, with another query"):
            log.extend(read_log(tmp_path / "tuesday.csv", columns))
        assert [search.query for search in log.searches()] == ["tea"]


SAID = {
    "t": True,
    "1": True,
    "WAHR": True,
    "2026-03-01 09:00:07": True,
    "f": False,
    r"\N": False,
    "0.00": False,
    "": False,
}
rows = st.lists(
    st.tuples(
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(["tea", "Tea?", "coffee"]),
        st.sampled_from(["2026-03-01T09:00:00Z", "2026-03-01T09:01:00Z"]),
        st.sampled_from("abc"),
        st.sampled_from(list(SAID)),
    ),
    min_size=1,
    max_size=6,
)
ways = st.sampled_from(
    [
        {"search": "session"},
        {"session": "session"},
        {"session": "session", "event_at": "time"},
        {"session": "session", "at": "time"},
        {"search": "session", "at": "time"},
        {"at": "time"},
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows, ways)
def test_whatever_the_rows_no_hit_and_no_click_leaves_its_query_session_or_time(tmp_path, table, way):
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["session", "query", "time", "doc", "clicked"], *table])
    try:
        searches = list(read_log(path, LogColumns(**ROWS, **way, feedback={"click": "clicked"})))
    except LogError as error:
        assert re.match(rf"{re.escape(str(path))}:\d+: ", str(error)) and "\n" not in str(error)
        return

    def place(session, query, at):
        return (session if "at" not in way or len(way) > 1 else "", query_key(query), at if "at" in way else "")

    expected = {}
    for session, query, time, doc, said in table:
        shown, clicked = expected.setdefault(place(session, query, time), ({}, set()))
        shown[doc] = None
        clicked |= {doc} if SAID[said] else set()
    found = {}
    for search in searches:
        if "search" in way and not search.session:
            search = replace(search, session=search.id)
        at = search.at.isoformat().replace("+00:00", "Z")
        key = place(search.session, search.query, at)
        assert key not in found
        found[key] = ({hit.id: None for hit in search.hits}, {event.id for event in search.feedback})
    assert found == expected
