"""How likely a rank is looked at, from passages that changed places; and what a click counts by that."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from qdrant_tools.debias import clicked_as_positive, fit_click_model
from qdrant_tools.log.records import Feedback, LoggedHit, LoggedSearch
from qdrant_tools.mining.looks import CLIP, fit_looks, with_debiased
from qdrant_tools.mining.origins import origins_by_query
from qdrant_tools.records import CLICKS, RATINGS, Label

AT = datetime(2026, 1, 1, tzinfo=UTC)


def search(number, query, order, clicked):
    hits = tuple(LoggedHit(passage, rank) for rank, passage in enumerate(order, start=1))
    return LoggedSearch(
        f"s{number}", AT, query, hits=hits, feedback=tuple(Feedback(p, "click", 1.0, AT) for p in clicked)
    )


def simulated(queries, *, twice, seed=0):
    """A good ranking of ten; rank r is looked at by 1 / r of the users; asked twice, hits changed places."""
    random, found = np.random.default_rng(seed), []
    for query in range(queries):
        names = [f"{query}-{i}" for i in range(10)]
        answer = names[min(10, random.geometric(0.6)) - 1]
        for time in range(2 if twice else 1):
            order = [names[i] for i in np.argsort(np.arange(10) + (random.normal(0, 1.5, 10) if time else 0))]
            likely = [(0.9 if name == answer else 0.03) / rank for rank, name in enumerate(order, start=1)]
            clicked = [name for name, p in zip(order, likely) if random.random() < p]
            found.append(search(len(found), f"query {query}", order, clicked))
    return found


def test_looks_are_told_by_passages_that_changed_places_however_good_the_ranking_was():
    searches = simulated(1200, twice=True)
    looks = fit_looks(searches)
    assert looks.estimate[1] == pytest.approx(1 / 2, abs=0.12) and looks.estimate[2] == pytest.approx(1 / 3, abs=0.12)
    assert all(upper >= middle for upper, middle in zip(looks.likely, looks.estimate))
    assert list(looks.likely) == sorted(looks.likely, reverse=True) and looks.likely[0] == 1
    assert looks.at(50) == looks.likely[-1] > 0 and looks.clicks > 100
    # the click model takes the good ranking for a steep one, and would flatter whatever differs from it
    assert fit_click_model(searches).propensities[2] < looks.estimate[2] / 2


def test_a_log_in_which_nothing_changed_places_tells_nothing():
    assert fit_looks(simulated(300, twice=False)) is None
    assert fit_looks([]) is None


def test_a_click_counts_by_its_rank_and_at_most_so_much():
    looks = fit_looks(simulated(1200, twice=True))
    order = [f"p{i}" for i in range(40)]
    searches = [search(1, "which", order, ["p0", "p2", "p39"]), search(2, "Which", order, ["p0"])]
    labels = with_debiased([*clicked_as_positive(searches), Label("other", "x")], searches, looks)
    weights = {label.passage_id: label.debiased for label in labels}
    assert weights["p0"] == 1.0 and weights["x"] is None
    assert weights["p2"] == pytest.approx(1 / looks.at(3) / 2)  # one of two impressions
    assert weights["p39"] <= CLIP / 2


def test_the_evidence_of_labels_says_which_feedback_they_are_of():
    labels = [
        Label("a", "p", 1.0, "click x3", 2.0),
        Label("b", "p", 1.0, "rating"),
        Label("c", "p", 1.0, "judged"),
        Label("d", "p", 1.0, "click"),
        Label("D", "q", 1.0, "judged"),
        Label("e", "p", 0.0, "click"),
    ]
    origins = origins_by_query(labels)
    assert {key: origin.evidence for key, origin in origins.items()} == {"a": CLICKS, "b": RATINGS}
    assert origins["a"].debiased == {"p": 2.0}
