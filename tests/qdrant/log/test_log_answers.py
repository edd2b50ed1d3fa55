"""The level above hits: what an application answered, and what was said of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log import Answer, Feedback, LoggedHit, LoggedSearch, RetrievalLog, Verdict, dropped, hashed
from qdrant_tools.log.schema import MIGRATIONS
from qdrant_tools.records import Hit

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)
SECRET = "a secret that is long"
UP = Verdict("thumb", 1.0, NOON, name="user_feedback", who="u1")
JUDGED = Verdict("score", 0.25, NOON, "judge", "correctness")
COMMENT = Verdict("comment", 1.0, NOON, who="u1", text="ask ann@example.org")
ANSWER = Answer("t1", "Use the red cable.", 2, ("b", "a"), ("b",), (COMMENT, JUDGED, UP))
SEARCH = LoggedSearch(
    "s1",
    NOON,
    "which cable?",
    "docs",
    "words@1",
    (LoggedHit("a", 1, 0.9), LoggedHit("b", 2, 0.5)),
    (Feedback("b", "judged", 0.75, NOON), Feedback("b", "reranked", 4.2, NOON)),
    session="visit 1",
    user="u1",
    generated=True,
    scored_by="fusion",
    answer=ANSWER,
)
OTHER = replace(SEARCH, id="s2", query="cable colours", generated=False, user="u1")


@pytest.fixture
def log(tmp_path):
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        yield log


def test_a_search_with_its_answer_comes_back_from_the_file_and_from_a_row(log):
    log.extend([SEARCH, OTHER])
    assert list(log.searches()) == [SEARCH, OTHER]
    assert LoggedSearch.from_row(SEARCH.as_row()) == SEARCH


def test_a_search_without_an_answer_has_the_row_that_it_always_had():
    assert set(LoggedSearch("s", NOON, "q").as_row()) == {
        *("id", "at", "session", "query", "redacted", "collection", "space", "hits", "feedback")
    }


def test_importing_a_file_twice_changes_nothing(log, tmp_path):
    log.extend([SEARCH, OTHER])
    log.export_jsonl(tmp_path / "out.jsonl")
    before = log.stats()
    assert log.import_jsonl(tmp_path / "out.jsonl") == 0
    assert log.stats() == before and list(log.searches()) == [SEARCH, OTHER]


def test_a_known_search_gets_new_verdicts_and_a_later_one_replaces_an_earlier_one(log):
    log.extend([SEARCH])
    down, other = replace(UP, value=0.0, at=LATER), replace(UP, who="u2", at=LATER)
    assert log.extend([replace(SEARCH, answer=replace(ANSWER, verdicts=(down, other)))]) == 0
    assert next(log.searches()).answer.verdicts == (COMMENT, JUDGED, down, other)
    log.extend([SEARCH])
    assert down in next(log.searches()).answer.verdicts, "an earlier thumb comes too late"


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, 0.0)])
def test_of_two_thumbs_of_one_moment_the_lower_stays_whatever_came_first(log, values):
    for value in values:
        log.extend([replace(SEARCH, answer=replace(ANSWER, verdicts=(replace(UP, value=value),)))])
    assert [said.value for said in next(log.searches()).answer.verdicts] == [0.0]


def test_what_is_missing_of_a_known_answer_is_filled_in_and_nothing_is_overwritten(log):
    log.extend([replace(SEARCH, answer=None)])
    log.extend([replace(SEARCH, answer=Answer("t1", "", 1))])
    log.extend([SEARCH])
    assert next(log.searches()) == SEARCH
    log.extend([replace(SEARCH, answer=Answer("t1", "Another text", 1, ("z",)))])
    assert next(log.searches()) == SEARCH


def test_searches_of_one_answer_share_what_is_said_of_it(log):
    first, second = (log.record(query, [Hit("a", 0.5, 1)], collection="docs", space="s") for query in ("x", "y"))
    answer = log.answered([first, second], "It is red.", context=["a"], cited=["a"])
    log.answer_feedback(second, value=0.0, who="u1", at=NOON)
    found = [search.answer for search in log.searches()]
    assert (
        found[0] == found[1] == Answer(answer, "It is red.", 2, ("a",), ("a",), (Verdict("thumb", 0, NOON, who="u1"),))
    )


def test_a_thumb_may_come_before_its_answer_and_without_one(log):
    search_id = log.record("x", [Hit("a", 0.5, 1)], collection="docs", space="s")
    log.answer_feedback(search_id, at=NOON)
    log.answered([search_id], "It is red.")
    assert next(log.searches()).answer == Answer(search_id, "It is red.", 1, (), (), (Verdict("thumb", 1, NOON),))


def test_a_search_has_one_answer(log):
    first, second = (log.record(query, [], collection="docs", space="s") for query in "xy")
    log.answered([first], "It is red.")
    log.answered([first], "It is red.")
    with pytest.raises(LogError, match="has another answer already"):
        log.answered([second, first], "It is blue.")
    assert [search.answer and search.answer.text for search in log.searches()] == ["It is red.", None]


def test_verdicts_that_come_later_find_their_answer_by_its_id(log):
    log.extend([SEARCH, OTHER])
    assert log.add_verdicts("t1", [replace(UP, who="u9")]) and not log.add_verdicts("t7", [UP])
    assert [len(search.answer.verdicts) for search in log.searches()] == [4, 4]


def test_what_no_answer_can_be_is_refused(log):
    search_id = log.record("x", [], collection="docs", space="s")
    for kind, value in [("thumb", 0.5), ("score", 7), ("score", -0.1), ("praise", 1), ("thumb", float("nan"))]:
        with pytest.raises(InputError):
            log.answer_feedback(search_id, kind, value)
    for more in ({"by": "cat"}, {"who": 5}, {"text": "x" * 70_000}, {"name": "x" * 5000}):
        with pytest.raises(InputError):
            log.answer_feedback(search_id, **more)
    for ids in ([], search_id):
        with pytest.raises(InputError, match="expected a list of the ids"):
            log.answered(ids, "text")
    with pytest.raises(LogError, match="no search 'nowhere'"):
        log.answered(["nowhere"], "text")
    row = SEARCH.as_row()
    for odd in (
        {"answer": 5},
        {"answer": {"text": "no id"}},
        {"answer": {"id": ""}},
        {"answer": {"id": "x", "searches": 0}},
        {"answer": {"id": "x", "context": "abc"}},
        {"answer": {"id": "x", "cited": ["a"] * 10_001}},
        {"answer": {"id": "x", "verdicts": [{"kind": "thumb", "at": NOON.isoformat()}] * 1001}},
        {"answer": {"id": "x", "verdicts": [{"kind": "thumb"}]}},
        {"generated": "yes"},
        {"user": None},
        {"scored_by": "x" * 5000},
    ):
        with pytest.raises(InputError) as refusal:
            LoggedSearch.from_row(row | odd)
        assert len(str(refusal.value)) < 250


def holds(log, text):
    folder = log.path.parent
    return [path.name for path in folder.iterdir() if text.encode() in path.read_bytes()]


@pytest.mark.parametrize("rule", [dropped, hashed(SECRET)])
def test_redaction_takes_answers_comments_and_people_out_of_the_file(log, rule):
    log.extend([SEARCH, OTHER])
    assert log.redact(rule) == 2
    assert not any(holds(log, text) for text in ("red cable", "ann@example.org", "visit 1", "u1\x00", "which"))
    found = next(log.searches())
    assert found.answer.text == "" and [said.text for said in found.answer.verdicts] == ["", "", ""]
    assert (found.user == "") == (rule is dropped)
    before = list(log.searches())
    assert log.redact(rule) == 0 and list(log.searches()) == before, "twice is once"
    # nor does the text come back with the next import
    log.extend([SEARCH])
    assert next(log.searches()).answer.text == ""


def test_under_a_hash_people_are_told_apart_and_without_one_the_last_verdict_stays(log):
    second = replace(UP, who="u2", value=0.0, at=LATER)
    search = replace(SEARCH, answer=replace(ANSWER, verdicts=(UP, second)))
    log.extend([search])
    log.redact(hashed(SECRET))
    people = [said.who for said in next(log.searches()).answer.verdicts]
    assert len(set(people)) == 2 and people[0] == next(log.searches()).user
    log.redact(dropped)
    assert next(log.searches()).answer.verdicts == (replace(second, who=""),)


def test_a_log_that_redacts_never_writes_an_answer(tmp_path):
    with RetrievalLog(tmp_path / "private.sqlite", redact=dropped) as log:
        log.extend([SEARCH])
        search_id = log.record("x", [], collection="", space="", user="ann")
        log.answered([search_id], "the red cable")
        log.answer_feedback(search_id, "comment", text="ann@example.org says", who="ann@example.org")
        log.add_verdicts("t1", [COMMENT])
        assert not any(holds(log, text) for text in ("red cable", "example.org", "ann"))
        assert log.stats().answers == 2


def test_a_rule_that_only_masks_leaves_the_rest_of_an_answer(tmp_path):
    with RetrievalLog(tmp_path / "masked.sqlite", redact=lambda text: text.replace("ann@example.org", "***")) as log:
        log.extend([SEARCH])
        answer = next(log.searches()).answer
        assert answer.text == ANSWER.text and answer.verdicts[0].text == "ask ***"


def test_an_answer_goes_with_the_last_of_its_searches(log):
    log.extend([SEARCH, replace(OTHER, at=LATER)])
    assert log.forget(before=LATER) == 1 and next(log.searches()).answer == ANSWER
    assert log.forget(before=LATER + timedelta(days=1)) == 1
    assert not holds(log, "red cable") and log.stats().answers == 0 and log.stats().verdicts == {}


def test_stats_count_answers_and_what_was_said_and_no_machine_for_a_user(log):
    log.extend([SEARCH, OTHER, LoggedSearch("s3", NOON, "z")])
    stats = log.stats()
    assert (stats.users, stats.generated, stats.answers) == (1, 1, 1)
    assert stats.verdicts == {"comment": 1, "score by a judge": 1, "thumb up": 1}
    assert stats.without_feedback == 3, "a reranker's score is nobody's feedback"


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_log_of_an_earlier_version_is_read_as_it_is_and_gets_answers(tmp_path, version):
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("".join(MIGRATIONS[:version]) + f"PRAGMA user_version = {version};")
        more = {1: "", 2: "", 3: ", 0", 4: ", 0, ''"}[version]
        db.execute(f"INSERT INTO searches VALUES (1, 's1', '2026-01-31T12:00:00.000000+00:00', 'q', 'c', 's'{more})")
    before = LoggedSearch("s1", NOON, "q", "c", "s")
    with RetrievalLog(path, read_only=True) as log:
        assert list(log.searches()) == [before] and log.stats().answers == 0
    with RetrievalLog(path) as log:
        log.answer_feedback("s1", at=NOON)
        assert list(log.searches()) == [replace(before, answer=Answer("s1", verdicts=(Verdict("thumb", 1, NOON),)))]


def test_a_page_of_long_answers_is_cut_short_and_nothing_is_lost(log):
    searches = [replace(SEARCH, id=f"s{i}", answer=Answer(f"t{i}", "x" * 900_000)) for i in range(12)]
    log.extend(searches)
    assert [search.id for search in log.searches()] == [search.id for search in searches]
