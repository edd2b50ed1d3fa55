"""The proof: a better encoder passes, a worse one, an undecided one and a forgetful one do not, and it says why."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tiny import NoisyEncoder, WordEncoder

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.evaluate.retrieval.comparison import Change, mean_change
from llama_index_embed_plus.training.proof.corpus import SearchCorpus, general_passages
from llama_index_embed_plus.training.proof.forgetting import (
    SimilaritySet,
    correlation_change,
    known_items,
    measure_forgetting,
    spearman,
)
from llama_index_embed_plus.training.proof.plot_data import BIN_EDGES, principal_plane
from llama_index_embed_plus.training.proof.proof import ProofSettings, known_item_ids, prove
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import HeldOut, Passage, Query


class Forgetful(NoisyEncoder):
    """Finds what is asked for, and has lost what passages say of themselves."""

    def __init__(self) -> None:
        super().__init__(1.0, asked=0.5)
        self.space = "forgetful@000000000000"

    def encode_queries(self, texts):
        rows = super().encode_queries(texts)
        return np.where([["asked" in text] for text in texts], rows, rows[:, ::-1]).astype(np.float32)


PASSAGES = tuple(
    Passage(f"p{i}", f"w{i} opens this passage. w{i} then goes on with some more words") for i in range(150)
)
HELDOUT = HeldOut(
    tuple(Query(f"q{i}", f"w{i} asked") for i in range(80)), {f"q{i}": {f"p{i}": 1} for i in range(80)}, PASSAGES
)
BASE = NoisyEncoder(1.0, asked=1.0)


def test_a_better_encoder_is_harmless_and_the_verdict_says_by_how_much():
    proof = prove(BASE, NoisyEncoder(1.0, asked=0.6), HELDOUT)
    ndcg = proof.changes[0]
    assert proof.harmless and not proof.refusals
    assert 0 < ndcg.low < ndcg.difference < ndcg.high
    assert ndcg.difference == pytest.approx(ndcg.after - ndcg.before)
    assert proof.verdict.startswith(f"80 held-out queries: ndcg@10 {ndcg.difference:+.4f}")
    assert [change.metric for change in proof.changes] == ["ndcg@10", "mrr", "recall@10"]


def test_a_worse_encoder_is_refused():
    proof = prove(BASE, NoisyEncoder(1.0, asked=1.6), HELDOUT)
    ndcg = proof.changes[0]
    figures = f"ndcg@10 {ndcg.before:.4f} -> {ndcg.after:.4f}, -"
    assert not proof.harmless and proof.refusals[0].startswith(f"worse on 80 held-out queries: {figures}")


def test_a_difference_that_may_be_luck_is_refused():
    proof = prove(BASE, NoisyEncoder(1.0, asked=1.0, seed=1), HELDOUT, ProofSettings(known_items=0))
    change = proof.changes[0]
    assert change.low < 0 < change.high
    figures = f"ndcg@10 {change.before:.4f} -> {change.after:.4f}, {change.difference:+.4f}"
    assert len(proof.refusals) == 1
    assert proof.refusals[0].startswith(f"not proved better on 80 held-out queries: {figures} (")


def test_an_unchanged_encoder_is_refused_because_nothing_speaks_for_it():
    assert prove(BASE, BASE, HELDOUT).refusals == ("nothing changed on 80 held-out queries",)


def test_with_a_margin_not_worse_is_enough():
    unchanged = prove(BASE, BASE, HELDOUT, ProofSettings(margin=0.01))
    assert unchanged.harmless
    undecided = prove(BASE, NoisyEncoder(1.0, asked=1.0, seed=1), HELDOUT, ProofSettings(margin=0.01, known_items=0))
    assert undecided.refusals[0].startswith("a loss of more than 0.01 is not excluded by 80 held-out queries")
    assert prove(BASE, NoisyEncoder(1.0, asked=1.0, seed=1), HELDOUT, ProofSettings(margin=0.5, known_items=0)).harmless


def test_a_gain_on_the_task_does_not_buy_a_loss_elsewhere():
    proof = prove(BASE, Forgetful(), HELDOUT)
    assert proof.changes[0].low > 0
    assert proof.forgetting is not None and proof.forgetting.change.high < 0
    assert len(proof.refusals) == 1
    assert proof.verdict.startswith("forgetting of more than 0.02 is not excluded by 150 known items: ndcg@10 -")
    assert prove(BASE, Forgetful(), HELDOUT, ProofSettings(known_items=0)).harmless


def test_the_passages_of_known_items_can_be_asked_for_so_that_nothing_is_trained_on_their_beginnings():
    settings, trained = ProofSettings(known_items=60), {f"p{i}" for i in range(30)}
    ids = known_item_ids(HELDOUT, settings, trained=trained)
    proof = prove(BASE, NoisyEncoder(1.0, asked=0.6), HELDOUT, settings, trained=trained)
    assert proof.forgetting.items == len(ids) == 60 and proof.forgetting.trained == len(ids & trained)
    assert {f"p{i}" for i in range(80, 150)} >= ids, "those that answer held-out queries come last"
    assert known_item_ids(HELDOUT, ProofSettings(known_items=0)) == frozenset()


def test_a_handful_of_queries_proves_nothing_however_well_they_do():
    few = replace(HELDOUT, queries=HELDOUT.queries[:5])
    proof = prove(NoisyEncoder(1.0, asked=3.0), NoisyEncoder(1.0, asked=0.1), few)
    assert proof.changes[0].low > 0
    assert proof.refusals[0] == "5 held-out queries are too few to exclude harm, expected at least 20"


def test_of_few_scored_pairs_the_correlations_interval_is_wider_than_the_bootstraps():
    random = np.random.default_rng(3)
    gold = random.normal(size=120)
    before, after = gold + random.normal(size=120), gold + random.normal(size=120)
    few, many = (correlation_change(gold[:n], before[:n], after[:n]) for n in (30, 120))
    assert few.low < few.difference < few.high
    assert few.high - few.low > many.high - many.low
    rows = np.random.default_rng(0).integers(30, size=(2000, 30))
    differences = spearman(gold[rows], after[rows]) - spearman(gold[rows], before[rows])
    low, high = np.percentile(differences, [2.5, 97.5])
    assert few.low <= low + 0.01 and few.high >= high - 0.01


def test_the_figures_are_those_of_an_outside_implementation():
    after = NoisyEncoder(1.0, asked=0.6)
    proof = prove(BASE, after, HELDOUT)
    names = ("nDCG@10", "RR@10", "R@10")
    measures = [ir_measures.parse_measure(name) for name in names]
    for encoder, when in ((BASE, "before"), (after, "after")):
        queries = encoder.encode_queries([query.text for query in HELDOUT.queries])
        passages = encoder.encode_passages([passage.text for passage in PASSAGES])
        run = {
            query.id: dict(zip((passage.id for passage in PASSAGES), map(float, row)))
            for query, row in zip(HELDOUT.queries, queries @ passages.T)
        }
        outside = ir_measures.calc_aggregate(measures, HELDOUT.qrels, run)
        for change, measure in zip(proof.changes, measures):
            assert getattr(change, when) == pytest.approx(outside[measure], abs=1e-9)


def test_wins_and_losses_are_listed_the_largest_first_and_all_queries_are_counted():
    proof = prove(BASE, NoisyEncoder(1.0, asked=0.8, seed=1), HELDOUT)
    gains = [each.after - each.before for each in proof.wins]
    falls = [each.before - each.after for each in proof.losses]
    assert gains == sorted(gains, reverse=True) and falls == sorted(falls, reverse=True)
    assert min(gains) > 0 and min(falls) > 0
    assert len(gains) + len(falls) + proof.same == proof.queries == 80
    assert (sum(gains) - sum(falls)) / 80 == pytest.approx(proof.changes[0].difference)
    assert {change.text for change in proof.wins} == {""}  # they are private, and asked for below
    with_texts = prove(BASE, NoisyEncoder(1.0, asked=0.8, seed=1), HELDOUT, ProofSettings(texts=True))
    assert with_texts.wins[0].text in {query.text for query in HELDOUT.queries}
    assert [change.id for change in with_texts.wins] == [change.id for change in proof.wins]


def test_queries_that_nothing_answers_are_left_out_and_counted():
    extra = (Query("nobody", "w3 asked by nobody"), Query("rejected", "w4 asked in vain"))
    held_out = HeldOut((*HELDOUT.queries, *extra), {**HELDOUT.qrels, "rejected": {"p4": 0}}, PASSAGES)
    proof = prove(BASE, NoisyEncoder(1.0, asked=0.6), held_out)
    assert (proof.queries, proof.unanswerable) == (80, 2)


def test_the_same_data_and_seed_give_the_same_proof():
    assert prove(BASE, NoisyEncoder(1.0, asked=0.8), HELDOUT) == prove(BASE, NoisyEncoder(1.0, asked=0.8), HELDOUT)


@pytest.fixture(scope="module")
def collection():
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("c", BASE)
        index_passages(collection, PASSAGES, BASE)
        yield collection


def test_a_query_adapter_is_proved_on_stored_vectors_and_nothing_is_embedded_for_it(collection):
    rng = np.random.default_rng(0)
    adapter = QueryAdapter((0.3 * rng.normal(size=(24, 24))).astype(np.float32), BASE.space)
    base = NoisyEncoder(1.0, asked=1.0)
    held_out = replace(HELDOUT, passages=())
    proof = prove(base, AdaptedEncoder(base, adapter), held_out, ProofSettings(known_items=0), collection=collection)
    assert base.encoded == [] and proof.passages == proof.passages_in_all == 150
    assert proof.changes[0].before == pytest.approx(prove(base, base, HELDOUT).changes[0].before)
    assert proof.changes[0].difference < 0 and not proof.harmless


def test_another_space_is_proved_on_the_stored_texts(collection):
    after = NoisyEncoder(1.0, asked=0.6)
    over_collection = prove(BASE, after, replace(HELDOUT, passages=()), collection=collection)
    assert over_collection.changes == prove(BASE, after, HELDOUT).changes
    assert over_collection.forgetting == prove(BASE, after, HELDOUT).forgetting
    assert set(after.encoded) > {passage.text for passage in PASSAGES}


@pytest.mark.parametrize("stored", [True, False])
def test_of_many_passages_a_sample_is_searched_that_holds_every_answer(collection, stored):
    held_out = replace(HELDOUT, passages=()) if stored else HELDOUT
    searched = SearchCorpus(held_out, collection if stored else None, most=100, seed=0)
    assert len(searched.ids) == 100 and searched.total == 150 and held_out.relevant <= set(searched.ids)
    again = SearchCorpus(held_out, collection if stored else None, most=100, seed=0)
    assert set(again.ids) == set(searched.ids)
    assert len(SearchCorpus(held_out, None if not stored else collection, most=10, seed=0).ids) == 80


def test_without_passages_or_with_others_the_proof_is_refused(collection):
    with pytest.raises(UsageError, match="give them, or a collection"):
        prove(BASE, BASE, replace(HELDOUT, passages=()))
    with pytest.raises(
        InputError, match="none of the 1 passages that answer held-out queries is in the collection 'c'"
    ):
        prove(BASE, BASE, HeldOut((Query("a", "x"),), {"a": {"unknown": 1}}), collection=collection)
    with pytest.raises(UsageError, match="margin is -0.1, expected 0 or more"):
        ProofSettings(margin=-0.1)


def test_known_items_take_the_query_out_of_the_passage():
    passages = [
        Passage("sentence", "Bees make sweet honey. They gather nectar from flowers all day."),
        Passage("title", "A guide to whales They sleep near the surface of the sea", {"title": "A guide to whales"}),
        Passage("halves", "one two three four five six seven eight nine ten"),
        Passage("short", "too short to split"),
        Passage("again", "Bees make sweet honey. They do it for the whole winter."),
    ]
    items = known_items(passages, most=10)
    assert items is not None
    found = {q.id: (q.text, p.text) for q, p in zip(items.held_out.queries, items.held_out.passages)}
    assert found == {
        "sentence": ("Bees make sweet honey.", "They gather nectar from flowers all day."),
        "title": ("A guide to whales", "They sleep near the surface of the sea"),
        "halves": ("one two three four five", "six seven eight nine ten"),
    }
    assert known_items([passages[3]], most=10) is None
    assert len(known_items(passages, most=1).held_out.queries) == 1


def test_known_items_are_about_other_passages_first_then_those_trained_on():
    searched = SearchCorpus(HELDOUT, None, most=1000, seed=0)
    trained = {f"p{i}" for i in range(80, 120)}
    ids = [passage.id for passage in general_passages(searched, trained, seed=0)]
    assert set(ids[:30]) == {f"p{i}" for i in range(120, 150)} and set(ids[30:70]) == trained
    proof = prove(BASE, NoisyEncoder(1.0, asked=0.6), HELDOUT, ProofSettings(known_items=50), trained=trained)
    assert proof.forgetting is not None and (proof.forgetting.items, proof.forgetting.trained) == (50, 20)


def test_forgetting_that_cannot_be_measured_is_a_refusal_and_can_be_done_without():
    tiny = replace(HELDOUT, passages=tuple(Passage(p.id, p.id) for p in PASSAGES))
    tiny = replace(tiny, queries=tuple(Query(q.id, q.text) for q in tiny.queries))
    better = prove(NoisyEncoder(1.0), NoisyEncoder(0.5), tiny)
    assert better.forgetting is None and "nothing to measure forgetting on" in better.refusals[-1]
    without = prove(NoisyEncoder(1.0), NoisyEncoder(0.5), tiny, ProofSettings(known_items=0))
    assert not any("forgetting" in reason for reason in without.refusals)
    small = prove(BASE, NoisyEncoder(1.0, asked=0.6), HELDOUT, ProofSettings(known_items=10))
    assert small.refusals[0] == "a general set of 10 is too small to exclude forgetting, expected at least 20"


def test_a_similarity_set_is_judged_by_rank_correlation_and_sees_a_query_adapter():
    rng = np.random.default_rng(1)
    pairs = tuple((f"w{i} one", f"w{i if rng.random() < 0.5 else i + 1} two", float(rng.random())) for i in range(60))
    pairs = tuple((a, b, 1.0 if a.split()[0] == b.split()[0] else 0.0) for a, b, _ in pairs)
    general = SimilaritySet(pairs)
    found = measure_forgetting(NoisyEncoder(0.2), NoisyEncoder(2.0), general)
    assert (found.kind, found.items, found.change.metric) == ("similarity", 60, "spearman")
    assert found.change.high < 0
    base = NoisyEncoder(0.2)
    turned = QueryAdapter((2 * rng.normal(size=(24, 24))).astype(np.float32), base.space)
    assert measure_forgetting(base, AdaptedEncoder(base, turned), general).change.difference < 0
    with pytest.raises(InputError, match="at least 2 different, finite scores"):
        SimilaritySet((("a", "b", 1.0), ("c", "d", 1.0)))


def test_a_general_retrieval_set_brings_its_own_passages():
    other = HeldOut(
        tuple(Query(f"g{i}", f"general{i} asked") for i in range(30)),
        {f"g{i}": {f"g{i}": 1} for i in range(30)},
        tuple(Passage(f"g{i}", f"general{i} text") for i in range(30)),
    )
    found = measure_forgetting(NoisyEncoder(0.5), NoisyEncoder(3.0), other)
    assert found.kind == "retrieval" and found.change.high < 0
    with pytest.raises(InputError, match="no passages"):
        measure_forgetting(BASE, BASE, replace(other, passages=()))
    proof = prove(BASE, NoisyEncoder(1.0, asked=0.6), HELDOUT, general=other)
    assert proof.forgetting is not None and proof.forgetting.items == 30


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40))
def test_spearman_is_scipys_ties_included(rows):
    first, second = (np.array(column, float) for column in zip(*rows))
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert spearman(first, second) == 0.0
    else:
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


def test_the_interval_of_a_correlation_covers_a_true_difference_of_zero():
    rng = np.random.default_rng(0)
    gold = rng.normal(size=200)
    before, after = gold + rng.normal(size=200), gold + rng.normal(size=200)
    change = correlation_change(gold, before, after)
    assert change.low < 0 < change.high and change.high - change.low < 0.4
    same = correlation_change(gold, before, before)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_excluding_a_loss_means_that_the_whole_interval_lies_above_it():
    change = Change("m", 0.5, 0.51, 0.01, -0.01, 0.03)
    assert not change.excludes_loss_of(0) and not change.excludes_loss_of(0.01) and change.excludes_loss_of(0.02)
    assert not Change("m", 0.5, 0.5, 0.0, 0.0, 0.0).excludes_loss_of(0)
    means = mean_change("m", {"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 1.0})
    assert (means.before, means.after, means.difference) == (0.5, 1.0, 0.5)


def test_the_pictures_show_both_encoders_on_the_same_pairs():
    proof = prove(BASE, NoisyEncoder(1.0, asked=0.6), HELDOUT)
    before, after = proof.plot_data.before, proof.plot_data.after
    assert sum(before.relevant) == sum(after.relevant) == 80
    assert sum(before.irrelevant) == sum(after.irrelevant) > 1000
    assert (len(before.queries), len(before.passages)) == (len(after.queries), len(after.passages)) == (80, 150)
    centres = (BIN_EDGES[:-1] + BIN_EDGES[1:]) / 2
    gap = [np.average(centres, weights=v.relevant) - np.average(centres, weights=v.irrelevant) for v in (before, after)]
    assert gap[1] > gap[0] > 0.2


def test_the_plane_is_that_of_principal_components():
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(0).normal(size=(40, 7)) * np.arange(1, 8)
    plane, explained = principal_plane(rows)
    outside = PCA(2).fit(rows)
    np.testing.assert_allclose(np.abs(plane), np.abs(outside.transform(rows)), atol=1e-9)
    assert explained == pytest.approx(outside.explained_variance_ratio_.sum())
    assert principal_plane(np.ones((3, 5)))[1] == 1.0
    assert principal_plane(np.ones((1, 5)))[0].shape == (1, 2)


def test_encoders_that_know_words_are_proved_too():
    encoder = WordEncoder(dimension=256)
    assert prove(encoder, encoder, HELDOUT).refusals == ("nothing changed on 80 held-out queries",)
