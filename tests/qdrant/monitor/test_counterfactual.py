"""Estimating another encoder from logged clicks, on simulated users whose taste is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from tiny import client_of

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.debias import ClickModel, fit_click_model
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import Feedback, LoggedHit, LoggedSearch
from qdrant_tools.monitor import estimate_candidate
from qdrant_tools.monitor.counterfactual import GAINS
from qdrant_tools.records import Passage

NOW = datetime(2025, 6, 30, tzinfo=UTC)
SPACE = "taste@000000000001"
LOOKS = tuple(1 / rank for rank in range(1, 9))
QUERIES, PASSAGES, DIMENSION = 40, 120, 16
LUCK = np.random.default_rng(7)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


WANTED = unit(LUCK.standard_normal((QUERIES, DIMENSION)))
"""What the user who asks query number i has in mind."""
TEXTS = unit(LUCK.standard_normal((PASSAGES, DIMENSION)))
RELEVANT = [set(np.argsort(-TEXTS @ wanted)[:8].tolist()) for wanted in WANTED]


class Guess:
    """An encoder that knows what users want, up to some noise; `turned` is a space of its own."""

    def __init__(self, noise, *, turned=False):
        self.dimension, self.space = DIMENSION, "turned@000000000002" if turned else SPACE
        rng = np.random.default_rng(int(noise * 100))
        self.queries = unit(WANTED + noise * rng.standard_normal(WANTED.shape))
        self.turn = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0] if turned else np.eye(DIMENSION)
        self.embedded = 0

    def encode_queries(self, texts):
        return unit(np.stack([self.queries[int(text.split()[-1])] for text in texts]) @ self.turn)

    def encode_passages(self, texts):
        self.embedded += len(texts)
        return unit(np.stack([TEXTS[int(text.split()[-1])] for text in texts]) @ self.turn)


GOOD, BAD = Guess(0.05), Guess(1.2)


def ranked(vector, among):
    return sorted(among, key=lambda passage: -float(TEXTS[passage] @ vector))


@pytest.fixture(scope="module")
def log():
    """800 searches, ranked by a system that is noisy in another way each time; users look by rank and click on what
    they want."""
    rng = np.random.default_rng(11)
    searches = []
    for number in range(800):
        query = int(rng.integers(QUERIES))
        seen = ranked(WANTED[query] + 0.25 * rng.standard_normal(DIMENSION), range(PASSAGES))[: len(LOOKS)]
        hits = tuple(LoggedHit(f"p{passage}", rank) for rank, passage in enumerate(seen, start=1))
        events = tuple(
            Feedback(f"p{passage}", "click", 1.0, NOW)
            for passage, look in zip(seen, LOOKS)
            if passage in RELEVANT[query] and rng.random() < look
        )
        searches.append(LoggedSearch(f"s{number}", NOW, f"query {query}", "docs", SPACE, hits, events))
    return searches


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    for client in client_of("memory", tmp_path_factory.mktemp("taste")):
        collection = CollectionManager(client).ensure("docs", GOOD)
        index_passages(collection, [Passage(f"p{i}", f"passage {i}") for i in range(PASSAGES)], GOOD)
        yield collection


def truth(log, vectors=None):
    """The mean gain of a relevant hit that was shown, as logged, or ranked by the vectors of an encoder's queries."""
    gains = []
    for search in log:
        query, seen = int(search.query.split()[-1]), [int(hit.id[1:]) for hit in search.hits]
        order = seen if vectors is None else ranked(vectors[query], seen)
        gains += [GAINS["dcg"](order.index(passage) + 1) for passage in seen if passage in RELEVANT[query]]
    return float(np.mean(gains))


KNOWN = ClickModel(LOOKS, {}, 0, 0)


def test_the_estimate_orders_two_encoders_as_the_truth_does(log, collection):
    assert truth(log, GOOD.queries) > truth(log) > truth(log, BAD.queries)
    good, bad = (estimate_candidate(log, KNOWN, each, collection) for each in (GOOD, BAD))
    assert good.verdict == "better" and bad.verdict == "worse"


def test_with_propensities_fitted_to_the_clicks_the_order_of_candidates_holds(log, collection):
    # The fitted ones are too steep, as those of a good ranking are: they flatter whatever differs from it, so that only
    # candidates can be compared with each other.
    model = fit_click_model(log)
    good, bad = (estimate_candidate(log, model, each, collection) for each in (GOOD, BAD))
    assert good.low > bad.high


def test_with_the_true_propensities_the_estimate_is_the_truth(log, collection):
    for encoder in (GOOD, BAD):
        found = estimate_candidate(log, KNOWN, encoder, collection)
        real = truth(log, encoder.queries) - truth(log)
        assert found.low <= real <= found.high
        assert found.candidate == pytest.approx(truth(log, encoder.queries), abs=0.02)
        assert found.logged == pytest.approx(truth(log), abs=0.02)


def test_the_interval_is_one_of_sessions_where_they_are_known(log, collection):
    """Five searches of one session that are one and the same say no more than one of them."""
    alone = estimate_candidate(log, KNOWN, GOOD, collection)
    five = [
        replace(search, id=f"{search.id}-{number}", session=f"session of {search.id}")
        for search in log
        for number in range(5)
    ]
    together = estimate_candidate(five, KNOWN, GOOD, collection)
    assert (together.searches, together.independent) == (5 * alone.searches, alone.searches)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    unaware = estimate_candidate([replace(search, session="") for search in five], KNOWN, GOOD, collection)
    assert unaware.high - unaware.low < 0.6 * (alone.high - alone.low)


def test_unweighted_clicks_flatter_the_ranking_that_made_them(log, collection):
    naive = estimate_candidate(log, KNOWN, GOOD, collection, clip=1.0)
    weighted = estimate_candidate(log, KNOWN, GOOD, collection)
    assert naive.logged > truth(log) + 0.1 > weighted.logged
    assert naive.clipped == naive.clicks and weighted.effective < weighted.clicks


def test_a_candidate_of_another_space_embeds_the_hits_once_and_ranks_the_same(log, collection):
    same, turned = Guess(0.05), Guess(0.05, turned=True)
    first, second = (estimate_candidate(log, KNOWN, each, collection) for each in (same, turned))
    assert second.candidate == pytest.approx(first.candidate, abs=1e-3)
    shown = {hit.id for search in log if search.feedback for hit in search.hits}
    assert same.embedded == 0 and turned.embedded == len(shown)


def test_the_interval_covers_what_it_should(log, collection):
    real = truth(log, BAD.queries) - truth(log)
    parts = [log[start : start + 100] for start in range(0, 800, 100)]
    covered = [estimate_candidate(part, KNOWN, BAD, collection) for part in parts]
    assert sum(each.low <= real <= each.high for each in covered) >= 6


def test_what_cannot_be_used_is_counted(log, collection, tmp_path):
    odd = [
        LoggedSearch("a", NOW, "redacted:", "docs", SPACE, log[0].hits, log[0].feedback, redacted=True),
        LoggedSearch("b", NOW, "  ", "docs", SPACE, log[0].hits, log[0].feedback),
        LoggedSearch("c", NOW, "query 1", "docs", SPACE, log[0].hits),
        LoggedSearch("d", NOW, "query 1", "docs", SPACE, (LoggedHit("p1", 1),), (Feedback("p1", "click", 1.0, NOW),)),
        LoggedSearch(
            "e", NOW, "query 1", "docs", SPACE, tuple(LoggedHit(f"gone{i}", i + 1) for i in range(3)),
            (Feedback("gone1", "click", 1.0, NOW),),
        ),
    ]  # fmt: skip
    usable = [search for search in log if search.feedback][:20]
    found = estimate_candidate([*usable, *odd], KNOWN, GOOD, collection)
    assert found.searches == 20
    assert found.left_out == {
        "redacted": 1, "empty": 1, "without_click": 1, "too_few_hits": 2, "gone_hits": 3, "gone_clicked": 1,
    }  # fmt: skip
    with pytest.raises(LogError, match="none of these searches"):
        estimate_candidate(odd, KNOWN, GOOD, collection)


def test_the_same_feedback_twice_counts_once(log, collection):
    doubled = [
        LoggedSearch(s.id, s.at, s.query, s.collection, s.space, s.hits, s.feedback + s.feedback) for s in log[:50]
    ]
    assert estimate_candidate(doubled, KNOWN, GOOD, collection) == estimate_candidate(log[:50], KNOWN, GOOD, collection)


def test_settings_that_make_no_sense_are_refused(log, collection):
    for wrong in ({"gain": "map"}, {"clip": 0.5}):
        with pytest.raises(InputError, match="expected one of dcg, mrr and at least 1"):
            estimate_candidate(log, KNOWN, GOOD, collection, **wrong)
