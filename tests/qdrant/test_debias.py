"""What users did becomes labels, by rules whose outcome can be counted by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from qdrant_tools.debias import (
    ClickModel,
    aggregate,
    click_over_no_click_next,
    click_over_skip_above,
    clicked_as_positive,
    fit_click_model,
    inverse_propensity,
    last_click_over_skip_above,
    long_dwell_as_positive,
    rated,
    unclicked_as_negative,
)
from qdrant_tools.errors import InputError
from qdrant_tools.log.records import Feedback, LoggedHit, LoggedSearch
from qdrant_tools.records import Label

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def search(shown: str, *events: tuple, query: str = "q") -> LoggedSearch:
    """`shown` has one letter per hit; an event is (hit, kind) or (hit, kind, value), in the order of time."""
    feedback = tuple(
        Feedback(hit, kind, value[0] if value else 1.0, NOON + timedelta(seconds=second))
        for second, (hit, kind, *value) in enumerate(events)
    )
    hits = tuple(LoggedHit(hit, rank) for rank, hit in enumerate(shown, start=1))
    return LoggedSearch("id", NOON, query, hits=hits, feedback=feedback)


def clicked(shown: str, clicks: str, query: str = "q") -> LoggedSearch:
    return search(shown, *((hit, "click") for hit in clicks), query=query)


def weights(labels: list[Label]) -> dict[str, float]:
    assert len({label.passage_id for label in labels}) == len(labels)
    return {label.passage_id: label.weight for label in labels}


def test_the_naive_rules():
    assert weights(clicked_as_positive([clicked("abcd", "bd")])) == {"b": 1, "d": 1}
    assert weights(unclicked_as_negative([clicked("abcd", "bd")])) == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert weights(unclicked_as_negative([clicked("ab", "")])) == {"a": 0, "b": 0}


def test_click_over_skip_above_prefers_a_click_to_what_it_passed_over():
    """The example of the paper: clicks on 1, 3 and 5 of 7 say 3 > 2, 5 > 2 and 5 > 4."""
    assert weights(click_over_skip_above([clicked("1234567", "135")])) == {"3": 1, "5": 1, "2": 0, "4": 0}
    assert click_over_skip_above([clicked("123", "1"), clicked("123", ""), clicked("123", "12")]) == []


def test_last_click_over_skip_above_takes_the_last_in_time():
    assert weights(last_click_over_skip_above([clicked("1234567", "153")])) == {"3": 1, "2": 0}
    assert weights(last_click_over_skip_above([clicked("1234567", "135")])) == {"5": 1, "2": 0, "4": 0}
    assert weights(last_click_over_skip_above([clicked("12345", "353")])) == {"3": 1, "1": 0, "2": 0}


def test_click_over_no_click_next_prefers_a_click_to_the_hit_below():
    """The example of the paper: clicks on 1, 3 and 5 of 7 say 1 > 2, 3 > 4 and 5 > 6."""
    found = weights(click_over_no_click_next([clicked("1234567", "135")]))
    assert found == {"1": 1, "2": 0, "3": 1, "4": 0, "5": 1, "6": 0}
    assert click_over_no_click_next([clicked("123", "3"), clicked("12", "12")]) == []


def test_clicks_on_what_was_not_shown_are_left_out_where_the_position_counts():
    for rule in (clicked_as_positive, click_over_skip_above, last_click_over_skip_above, click_over_no_click_next):
        assert rule([clicked("ab", "z")]) == []


def test_long_dwell_adds_visits_up_and_may_count_bounces():
    visits = search("abc", ("a", "dwell", 20.0), ("b", "dwell", 2.0), ("a", "dwell", 15.0), ("c", "dwell", 10.0))
    assert weights(long_dwell_as_positive([visits])) == {"a": 1}
    assert weights(long_dwell_as_positive([visits], seconds=10)) == {"a": 1, "c": 1}
    assert weights(long_dwell_as_positive([visits], bounce=3)) == {"a": 1, "b": 0}
    with pytest.raises(InputError, match="bounce is 40"):
        long_dwell_as_positive([visits], bounce=40)


def test_the_same_dwell_event_twice_counts_once():
    event = Feedback("a", "dwell", 20.0, NOON)
    twice = LoggedSearch("id", NOON, "q", hits=(LoggedHit("a", 1),), feedback=(event, event))
    assert long_dwell_as_positive([twice]) == []


def test_what_users_say_goes_by_the_clearest_and_latest_word():
    said = search(
        "abcdef",
        ("a", "cited"),
        ("b", "up"),
        ("c", "down"),
        ("d", "rating", 2.0),
        ("e", "rating", 3.0),
        ("e", "rating", 0.0),
        ("f", "rating", 1.0),
        ("f", "down"),
        ("a", "down"),
        ("b", "click"),
        ("x", "rating", 3.0),
    )
    assert weights(rated([said], top=3)) == {"a": 0, "b": 1, "c": 0, "d": 2 / 3, "e": 0, "f": 1 / 3, "x": 1}
    assert weights(rated([said], top=3, relevant_from=2))["f"] == 0
    with pytest.raises(InputError, match="top is 0"):
        rated([said], top=0)
    with pytest.raises(InputError, match="relevant_from is 0"):
        rated([said], top=3, relevant_from=0)


def test_a_grade_above_the_scale_is_an_error_and_not_the_top():
    said = search("ab", ("a", "rating", 3.0), ("a", "rating", 1.0))
    with pytest.raises(InputError, match=r"'a' has the rating 3 in search .*, above the top of the scale, 1: .*--top"):
        rated([said])
    assert weights(rated([said], top=3)) == {"a": 1 / 3}, "the last one counts"


def test_stars_begin_with_one_which_is_no_praise():
    stars = [search("ab", ("a", "rating", 1.0), ("b", "rating", 5.0))]
    with pytest.raises(InputError, match="from 1 to 5, and none is 0.*--relevant-from"):
        rated(stars, top=5)
    assert weights(rated(stars, top=5, relevant_from=4)) == {"a": 0, "b": 1}
    with_none = [*stars, search("c", ("c", "rating", 0.0))]
    assert weights(rated(with_none, top=5)) == {"a": 0.2, "b": 1, "c": 0}


def test_votes_on_spellings_of_one_query_are_averaged():
    votes = clicked_as_positive([clicked("ab", "a", "Green  Tea")]) + unclicked_as_negative(
        [clicked("ab", "b", "green tea"), clicked("ab", "", "green tea"), clicked("a", "a", "black tea")]
    )
    labels = aggregate(votes)
    assert {(label.query, label.passage_id): label.weight for label in labels} == {
        ("Green  Tea", "a"): pytest.approx(1 / 3),
        ("Green  Tea", "b"): 0.5,
        ("black tea", "a"): 1.0,
    }
    assert labels[0].evidence == "click x1, no click x2"
    assert [label.query for label in aggregate(votes, minimum=2, min_share=0.4)] == ["Green  Tea"]


def test_aggregation_wants_possible_limits():
    with pytest.raises(InputError, match="minimum is 0"):
        aggregate([], minimum=0)


TRUTH = 1 / np.arange(1, 9) ** 0.8
"""How likely the simulated users look at ranks 1 to 8."""


def simulated(queries: int, searches: int, *, shuffled: bool) -> list[LoggedSearch]:
    generator = np.random.default_rng(0)
    log = []
    for query in range(queries):
        attraction = generator.beta(1, 2, size=len(TRUTH))
        for _ in range(searches):
            order = generator.permutation(len(TRUTH)) if shuffled else np.argsort(-attraction)
            hit = generator.random(len(TRUTH)) < TRUTH * attraction[order]
            log.append(clicked("".join(map(str, order)), "".join(map(str, order[hit])), f"query {query}"))
    return log


@pytest.mark.parametrize(("queries", "searches"), [(40, 40), (400, 4)])
def test_the_click_model_finds_the_propensities_that_made_the_clicks(queries, searches):
    """Also where each query comes a few times only, when a free attraction per passage would explain everything."""
    model = fit_click_model(simulated(queries, searches, shuffled=True))
    assert model.propensities[0] == 1.0
    np.testing.assert_allclose(model.propensities, TRUTH, atol=0.06)
    assert model.repeated > queries * 7


def test_without_repetitions_propensities_are_the_click_rates_of_the_ranks():
    log = simulated(300, 1, shuffled=False)
    rates = np.array([sum(event.id == s.hits[rank].id for s in log for event in s.feedback) for rank in range(8)]) / 300
    model = fit_click_model(log)
    assert model.repeated == 0
    np.testing.assert_allclose(model.propensities, rates / rates.max(), atol=0.02)


def test_a_log_without_clicks_has_no_click_model():
    with pytest.raises(InputError, match="no clicks on shown hits"):
        fit_click_model([clicked("abc", ""), clicked("abc", "z")])


MODEL = ClickModel((1.0, 0.5, 0.05), {}, 1, 0)


def test_clicks_are_weighed_by_how_unlikely_their_rank_is_looked_at():
    labels = inverse_propensity([clicked("abc", "abc"), clicked("abc", "")], MODEL)
    assert weights(labels) == {"a": 0.5, "b": 1.0, "c": 5.0}, "means of 1, 2 and a clipped 20 over two impressions"
    assert weights(inverse_propensity([clicked("abc", "c")], MODEL, clip=4))["c"] == 4.0


def test_only_what_was_probably_looked_at_is_a_negative():
    assert weights(inverse_propensity([clicked("abc", "")], MODEL)) == {"a": 0}
    assert weights(inverse_propensity([clicked("abc", "")] * 2, MODEL)) == {"a": 0, "b": 0}
    assert weights(inverse_propensity([clicked("abcd", "")] * 18, MODEL)) == {"a": 0, "b": 0, "c": 0, "d": 0}


def test_weighted_clicks_estimate_the_attraction_without_bias():
    log = simulated(40, 60, shuffled=True)
    model = fit_click_model(log)
    labels = {(label.query, label.passage_id): label.weight for label in inverse_propensity(log, model, clip=100)}
    found = np.array([labels.get(pair, 0.0) for pair in model.attraction])
    expected = np.array(list(model.attraction.values()))
    assert abs(found.mean() - expected.mean()) < 0.02
    assert np.corrcoef(found, expected)[0, 1] > 0.9
