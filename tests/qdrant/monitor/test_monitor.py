"""Monitoring: what has changed since the reference window, and how often that is said by mistake."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats
from tiny import WordEncoder, client_of, numbered

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, LogError, SpaceMismatchError, VectorError
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import Feedback, LoggedHit, LoggedSearch
from qdrant_tools.monitor import MonitorSettings, Span, energy_test, monitor, read_windows, recent_spans
from qdrant_tools.monitor.signals import click_through, low_scores, signals

NOW = datetime(2025, 6, 30, tzinfo=UTC)
REFERENCE, CURRENT = recent_spans(days=7, reference_days=28, until=NOW)
BEFORE, LATELY = NOW - timedelta(days=20), NOW - timedelta(days=2)
SPACE = WordEncoder().space


def unit(rng, count, *, shift=0.0, dimension=24):
    rows = rng.standard_normal((count, dimension)) + shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def searched(
    number, query="passage number 1", *, at=LATELY, scores=(0.9, 0.8), clicked=(), space=SPACE, redacted=False
):
    hits = tuple(LoggedHit(f"p{rank}", rank, score) for rank, score in enumerate(scores, start=1))
    events = tuple(Feedback(f"p{rank}", "click", 1.0, at) for rank in clicked)
    return LoggedSearch(f"s{number}", at, query, "docs", space, hits, events, redacted)


@pytest.fixture
def collection(tmp_path):
    for client in client_of("memory", tmp_path):
        encoder = WordEncoder()
        collection = CollectionManager(client).ensure("docs", encoder)
        index_passages(collection, numbered(30), encoder)
        yield collection


def test_what_a_machine_said_is_no_feedback_and_its_scores_are_no_similarities():
    said = (Feedback("p1", "judged", 1.0, LATELY), Feedback("p1", "reranked", 7.5, LATELY))
    both = [
        replace(searched(1), feedback=said),
        replace(searched(2, clicked=(1,)), scored_by="retriever"),
        replace(searched(3, scores=(7.5, 3.0)), scored_by="reranker"),
    ]
    found = read_windows([searched(0, at=BEFORE), *both], REFERENCE, CURRENT, space=SPACE).current
    assert (found.counts["feedback"], found.counts["without_score"]) == (1, 1)


# -- drift


def test_without_drift_the_test_fires_as_often_as_it_says():
    rng = np.random.default_rng(1)
    runs, alpha = 300, 0.1
    fired = sum(
        energy_test(unit(rng, 40), unit(rng, 30), permutations=99, seed=run).p_value <= alpha for run in range(runs)
    )
    assert stats.binom.ppf(0.0005, runs, alpha) <= fired <= stats.binom.ppf(0.9995, runs, alpha)


def test_drift_is_found_and_larger_drift_is_larger():
    rng = np.random.default_rng(2)
    reference = unit(rng, 150)
    found = [energy_test(reference, unit(rng, 150, shift=shift)) for shift in (0.0, 0.3, 1.0)]
    assert found[0].p_value > 0.05 and found[1].p_value <= 0.01 and found[2].p_value == 0.001
    assert found[0].share < found[1].share < found[2].share <= 1


def test_drift_is_found_where_the_mean_stays_and_only_the_spread_changes():
    rng = np.random.default_rng(3)
    narrow = np.concatenate([unit(rng, 60, shift=3.0), -unit(rng, 60, shift=3.0)])
    assert energy_test(unit(rng, 120), narrow).p_value <= 0.01


def test_the_statistic_is_the_energy_distance():
    rng = np.random.default_rng(4)
    x, y = unit(rng, 12), unit(rng, 9, shift=0.5)

    def mean(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=2).mean()

    expected = 2 * mean(x, y) - mean(x, x) - mean(y, y)
    found = energy_test(x, y)
    assert found.distance == pytest.approx(expected, rel=1e-5)
    assert found.share == pytest.approx(expected / (2 * mean(x, y)), rel=1e-5)
    assert energy_test(x, y) == found, "deterministic for a seed"


def test_equal_points_are_no_drift():
    same = np.tile(unit(np.random.default_rng(0), 1), (10, 1))
    assert energy_test(same, same).p_value == 1.0


def test_what_cannot_be_tested_is_refused():
    some = unit(np.random.default_rng(0), 10)
    with pytest.raises(InputError, match="7 and 10 vectors"):
        energy_test(some[:7], some)
    with pytest.raises(VectorError, match="NaN"):
        energy_test(some, np.full_like(some, np.nan))
    with pytest.raises(VectorError, match="shape"):
        energy_test(some, some[:, :5])


# -- windows


def test_windows_are_cut_by_time_whatever_the_order_and_clocks_that_are_wrong_are_counted():
    searches = [searched(i, at=at) for i, at in enumerate([LATELY, BEFORE, BEFORE, NOW + timedelta(days=9000)])]
    windows = read_windows([*searches, searched(9, at=NOW - timedelta(days=60))], REFERENCE, CURRENT, space=SPACE)
    assert [w.counts["searches"] for w in (windows.reference, windows.current)] == [2, 1]
    assert windows.elsewhere == 2


def test_a_window_counts_what_it_cannot_use():
    searches = [
        searched(1, "redacted:", clicked=(1,), redacted=True),
        searched(2, "  "),
        searched(3, scores=()),
        searched(4, space="other@000000000000", scores=(7.0,)),
        searched(5, scores=(None, None)),
        searched(6, clicked=(2, 2)),
    ]
    current = read_windows([searched(0, at=BEFORE), *searches], REFERENCE, CURRENT, space=SPACE).current
    assert current.counts == {
        "searches": 6, "tested": 6, "redacted": 1, "empty": 1, "without_hits": 1, "shown": 5, "without_click": 3,
        "feedback": 2, "other_space": 1, "without_score": 1,
    }  # fmt: skip
    assert current.top_scores.tolist() == [0.9, 0.9, 0.9] and len(current.readable) == 4
    assert current.shown_at == {1: 5, 2: 4} and current.clicked_at == {1: 1, 2: 1}


def test_a_sample_does_not_depend_on_the_order_and_keeps_no_megabytes():
    searches = [searched(i, f"q{i}" + "x" * 100_000) for i in range(60)]
    both = [
        read_windows([searched(99, at=BEFORE), *order], REFERENCE, CURRENT, space=SPACE, sample=10).current.sample
        for order in (searches, searches[::-1])
    ]
    assert both[0] == both[1] and len(both[0]) == 10
    assert all(len(search.query) == 8192 for search in both[0])


def test_a_window_without_searches_is_an_error_that_says_which():
    with pytest.raises(LogError, match="no searches in the reference window 2025-05-26.*1 in all"):
        read_windows([searched(1)], REFERENCE, CURRENT, space=SPACE)
    with pytest.raises(LogError, match="0 in all"):
        read_windows([], REFERENCE, CURRENT, space=SPACE)


def test_windows_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="after the current window begins"):
        read_windows([], Span(BEFORE, NOW), CURRENT, space=SPACE)
    with pytest.raises(InputError, match="not after it"):
        Span(NOW, BEFORE)
    with pytest.raises(InputError, match="days is 0"):
        recent_spans(days=0, reference_days=7)
    with pytest.raises(InputError, match="calendar"):
        recent_spans(days=1e9, reference_days=7)


# -- signals


def windows_of(before, lately):
    return read_windows([*before, *lately], REFERENCE, CURRENT, space=SPACE)


def test_low_scores_are_measured_by_the_references_own_quantile():
    rng = np.random.default_rng(0)
    before = [searched(i, at=BEFORE, scores=(float(s),)) for i, s in enumerate(rng.uniform(0.5, 1, 200))]
    lately = [searched(1000 + i, scores=(float(s),)) for i, s in enumerate(rng.uniform(0.3, 0.8, 100))]
    found = low_scores(windows_of(before, lately), quantile=0.05)
    assert found.reference.count == 9 and found.reference.of == 200
    assert found.bound == sorted(search.hits[0].score for search in before)[9]
    assert found.current.count == sum(search.hits[0].score < found.bound for search in lately)
    assert found.p_value < 1e-6


def test_fewer_bad_searches_are_no_alarm():
    before = [searched(i, at=BEFORE, scores=(0.5,) if i % 2 else ()) for i in range(50)]
    lately = [searched(100 + i, scores=(0.9,), clicked=(1,)) for i in range(50)]
    found = {each.name: each for each in signals(windows_of(before, lately))}
    assert found["low_score"].p_value > 0.5 and found["without_hits"].p_value > 0.5
    assert found["without_click"].p_value is None, "nobody recorded clicks before"


def in_sessions(rng, count, *, at, start=0, each=10):
    """Sessions, in each of which all searches go well or all badly."""
    lucky = rng.random(count) < 0.5
    return [
        replace(
            searched(f"{start + session}-{number}", at=at, scores=(float(rng.random()),), clicked=(1,) if luck else ()),
            session=f"session {start + session}",
        )
        for session, luck in enumerate(lucky)
        for number in range(each)
    ]


def test_searches_of_one_session_count_as_one():
    rng = np.random.default_rng(5)
    runs, alpha = 150, 0.05
    fired, unaware = 0, 0
    for _ in range(runs):
        before, lately = in_sessions(rng, 40, at=BEFORE), in_sessions(rng, 30, at=LATELY, start=100)
        windows = windows_of(before, lately)
        assert (windows.reference.counts["searches"], windows.reference.counts["tested"]) == (400, 40)
        assert len(windows.current.top_scores) == len(windows.current.independent) == 30
        fired += signals(windows)[2].p_value <= alpha
        alone = windows_of(*([replace(search, session="") for search in part] for part in (before, lately)))
        unaware += signals(alone)[2].p_value <= alpha
    limit = stats.binom.ppf(0.9995, runs, alpha)
    assert fired <= limit < unaware, "without their sessions, the same logs raise false alarms"


def test_which_search_of_a_session_is_tested_does_not_depend_on_the_order():
    rng = np.random.default_rng(6)
    searches = in_sessions(rng, 12, at=LATELY)
    first, second = (windows_of([searched(0, at=BEFORE)], part).current for part in (searches, searches[::-1]))
    assert first.tested == second.tested and sorted(first.top_scores) == sorted(second.top_scores)


def test_clicks_by_rank_are_of_the_hits_shown_there():
    before = [searched(1, at=BEFORE, clicked=(1,)), searched(2, at=BEFORE)]
    found = list(click_through(windows_of(before, [searched(3, clicked=(2,))])))
    assert [(each.rank, each.reference.count, each.reference.of, each.current.count) for each in found] == [
        (1, 1, 2, 0),
        (2, 0, 2, 1),
    ]


# -- the report


def many(count, *, at, start=0, topics=7, scores=(0.9, 0.8), clicked=(1,)):
    return [
        searched(start + i, f"passage {i} about topic{i % topics}", at=at, scores=scores, clicked=clicked)
        for i in range(count)
    ]


def test_a_quiet_log_raises_no_alarm_and_a_changed_one_says_what_changed(collection):
    encoder = WordEncoder()
    before = many(60, at=BEFORE)
    quiet = monitor(
        [*before, *many(60, at=LATELY, start=100)], collection, encoder, reference=REFERENCE, current=CURRENT
    )
    assert quiet.alarms == () and quiet.drift.p_value > 0.05 and quiet.notes == ()
    lately = [searched(200 + i, f"wholly new words{i}", scores=(0.1,)) for i in range(60)]
    loud = monitor([*before, *lately], collection, encoder, reference=REFERENCE, current=CURRENT)
    assert loud.alarms == ("drift", "low_score"), "nobody recorded a click lately, so clicks are not compared"
    assert any("without_click was not compared" in note for note in loud.notes)


def test_a_report_is_json_and_says_what_it_left_out(collection):
    import json

    odd = [
        searched(300, "redacted:", redacted=True),
        searched(301, space="other@0"),
        searched(302, "gone", scores=(0.9,) * 40),
    ]
    searches = [*many(20, at=BEFORE), *many(20, at=LATELY, start=100), *odd, searched(400, at=NOW + timedelta(days=1))]
    report = monitor(searches, collection, WordEncoder(), reference=REFERENCE, current=CURRENT)
    row = json.loads(json.dumps(report.as_row()))
    assert row["counts"]["current"]["redacted"] == 1 and row["reference"]["end"] == row["current"]["start"]
    assert [note.split(":")[-1].strip() if "current" in note else note for note in report.notes] == [
        "1 searches of the log are in neither window", "no vectors of them", "their scores are left out",
    ]  # fmt: skip
    assert report.unknown_hits.count == 11, "hits p30 to p40 are not in the collection"


def test_too_few_readable_queries_are_said_and_not_tested(collection):
    searches = [searched(i, "redacted:", at=at, redacted=True) for i, at in enumerate([BEFORE] * 20 + [LATELY] * 20)]
    report = monitor(searches, collection, WordEncoder(), reference=REFERENCE, current=CURRENT)
    assert report.drift is None
    assert any("0 and 0 readable queries" in note for note in report.notes)


def test_another_space_is_refused(collection):
    with pytest.raises(SpaceMismatchError):
        monitor(many(9, at=BEFORE), collection, WordEncoder("other"), reference=REFERENCE, current=CURRENT)


def test_a_report_without_change_raises_an_alarm_no_more_often_than_it_says(collection):
    rng = np.random.default_rng(5)

    def some(start, at):
        return [
            searched(start + i, f"passage about topic{rng.integers(7)}", at=at, scores=(float(rng.uniform()),),
                     clicked=(1,) if rng.uniform() < 0.4 else ())
            for i in range(40)
        ]  # fmt: skip

    settings = MonitorSettings(alpha=0.2, permutations=39)
    runs = 150
    alarms = sum(
        bool(
            monitor(
                [*some(0, BEFORE), *some(100, LATELY)],
                collection,
                WordEncoder(),
                reference=REFERENCE,
                current=CURRENT,
                settings=settings,
            ).alarms
        )
        for _ in range(runs)
    )
    assert alarms <= stats.binom.ppf(0.999, runs, 0.2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"quantile": 1.0}, "quantile 1.0"),
        ({"queries": 3}, "queries is 3"),
        ({"alpha": 0.01, "permutations": 99}, "give at least 399"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        MonitorSettings(**wrong)
