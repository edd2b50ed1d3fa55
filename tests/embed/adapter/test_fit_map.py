"""The fit on arrays: what it may not see, what it chooses, and that its parts are what they say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.folds import fold_queries, hidden_answers, seen
from llama_index_embed_plus.training.adapter.pseudo import SPAN, text_of
from llama_index_embed_plus.training.adapter.ranking import TEMPERATURES, judge, nearest
from llama_index_embed_plus.training.adapter.unlabelled import fill, whitening
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.metrics import ndcg
from qdrant_tools.records import Passage
from qdrant_tools.validation import unit_rows

NOTHING = np.empty(0, np.int64)
QUICK = AdapterSettings(steps=(2, 6), negatives=200)


def rows(count, dimension=12, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


def turned(answers, *, noise=0.4, seed=0) -> AdapterData:
    """Queries near the first of their answers, turned by one rotation."""
    stored = rows(150, seed=seed)
    turn, _ = np.linalg.qr(np.eye(12) + 0.25 * np.random.default_rng(seed + 1).normal(size=(12, 12)))
    near = stored[[own[0] for own in answers]] + noise * rows(len(answers), seed=seed + 2)
    queries = unit_rows((near @ (turn * np.sign(np.diag(turn)))).astype(np.float32))
    return AdapterData(stored, queries, tuple(answers), np.ones(len(answers)))


def test_every_query_is_in_one_fold_and_those_that_share_an_answer_are_together():
    """Else a passage that was memorised would look like something learned."""
    chain = [(0, 1), (1, 2), (2, 3)]
    answers = [*chain, *((number,) for number in range(4, 13))]
    folds = [set(fold.tolist()) for fold in fold_queries(answers, np.arange(12), folds=4, seed=0)]
    assert sorted(map(len, folds)) == [3, 3, 3, 3] and {0, 1, 2} in folds
    free = [set(fold.tolist()) for fold in fold_queries(answers, np.arange(12), folds=4, seed=0, apart=False)]
    assert sorted(map(len, free)) == [3, 3, 3, 3]


def test_a_group_that_is_larger_than_a_fold_is_cut_and_its_shared_answers_are_hidden():
    answers = [(number, number + 1) for number in range(10)]
    folds = fold_queries(answers, np.arange(10), folds=5, seed=0)
    assert sorted(map(len, folds)) == [2] * 5
    for fold in folds:
        hidden = hidden_answers(answers, fold, apart=True)
        queries, left = seen(answers, np.setdiff1d(np.arange(10), fold), hidden)
        assert not set(hidden.tolist()) & {row for own in left for row in own}
        assert all(left) and not set(queries.tolist()) & set(fold.tolist())
    assert len(hidden_answers(answers, folds[0], apart=False)) == 0


def test_some_queries_alone_can_be_parted():
    folds = fold_queries([(0,), (0,), (1,), (2,), (3,)], np.array([1, 3, 4]), folds=5, seed=0)
    assert sorted(fold.tolist() for fold in folds) == [[1], [3], [4]]


def test_hidden_passages_are_as_the_answers_of_queries_that_are_left_out():
    answers = [(number, number + 60) for number in range(40)]
    data = turned(answers)
    of_two = fit_map(data, QUICK, left_out=np.array([38, 39]))
    others = AdapterData(data.stored, data.queries[:38], data.answers[:38], data.weights[:38])
    by_rows = fit_map(others, QUICK, hidden=np.array([38, 39, 98, 99]))
    np.testing.assert_array_equal(of_two.matrix, by_rows.matrix)
    assert not np.array_equal(by_rows.matrix, fit_map(others, QUICK).matrix), "without them there are fewer negatives"


@pytest.mark.parametrize("apart", [True, False])
def test_queries_that_are_left_out_change_nothing_whatever_they_ask(apart):
    """The map is the same to the bit, whatever the vectors of queries that were left out, and whoever answers them."""
    answers = [(number,) for number in range(60)]
    data, left_out = turned(answers), np.arange(40, 60)
    settings = replace(QUICK, answers_apart=apart)
    fitted = fit_map(data, settings, left_out=left_out)
    queries = data.queries.copy()
    queries[left_out] = rows(20, seed=9)
    other = fit_map(replace(data, queries=queries), settings, left_out=left_out)
    np.testing.assert_array_equal(fitted.matrix, other.matrix)
    assert sorted(fitted.judged.tolist()) == list(range(40))


def test_an_answer_of_a_query_that_is_left_out_is_neither_drawn_to_nor_pushed_away():
    """With answers apart, moving such a passage anywhere changes the map only through the shape of all vectors."""
    data = turned([(number,) for number in range(60)])
    settings = replace(QUICK, candidates=("list", "each"), negatives=150)
    left_out = np.arange(40, 60)
    stored = data.stored.copy()
    stored[40:60] = rows(20, seed=11)
    fitted, other = (fit_map(each, settings, left_out=left_out) for each in (data, replace(data, stored=stored)))
    np.testing.assert_array_equal(fitted.matrix, other.matrix)
    shared = replace(settings, answers_apart=False)
    fitted, other = (fit_map(each, shared, left_out=left_out) for each in (data, replace(data, stored=stored)))
    assert (fitted.matrix != other.matrix).any()


def test_the_map_is_the_mean_of_the_folds_and_better_than_the_identity_on_others():
    data = turned([(number,) for number in range(100)])
    fitted = fit_map(data, QUICK, left_out=np.arange(70, 100))
    assert fitted.chosen.by and fitted.chosen.loss == min(each.loss for each in fitted.candidates)
    eye = np.eye(12, dtype=np.float32)
    before, after = judge(
        data.queries[70:], data.stored, data.answers[70:], [eye, fitted.matrix], (0, 1), hidden=NOTHING
    ).ndcg.mean(axis=1)
    assert after > before + 0.1
    np.testing.assert_allclose(fitted.weight + eye, fitted.matrix, atol=1e-6)


def test_queries_of_more_weight_count_for_more():
    data = turned([(number,) for number in range(60)])
    weights = np.where(np.arange(60) < 30, 1.0, 1e-9)
    fitted = fit_map(replace(data, weights=weights), QUICK)
    for each in fitted.candidates:
        heavy = fitted.judged < 30
        assert each.ndcg == pytest.approx(each.ndcg_of[heavy].mean(), abs=1e-6)


def test_without_labels_the_last_map_that_needs_none_comes_out():
    stored = rows(200)
    data = AdapterData(stored, np.empty((0, 12), np.float32), (), np.empty(0))
    assert fit_map(data, QUICK).chosen.name == "whitened"
    pseudo = PseudoQueries(unit_rows(stored[:50] + 0.5 * rows(50, seed=3)), np.arange(50))
    fitted = fit_map(replace(data, pseudo=pseudo), QUICK)
    assert fitted.chosen.name == "pseudo" and not len(fitted.judged)
    assert [each.name for each in fitted.candidates] == ["identity", "whitened", "pseudo"]


def test_one_query_alone_chooses_among_the_maps_that_need_no_labels():
    data = turned([(3,)])
    assert [each.name for each in fit_map(data, QUICK).candidates] == ["identity", "whitened"]


def test_whitening_flattens_what_all_passages_have_in_common():
    """Of strength a half and without a floor it whitens in full: the covariance becomes a multiple of 1."""
    stored = rows(4000, 6) * np.array([4, 3, 2, 1, 1, 1], np.float32)
    full = whitening(stored, strength=0.5, floor=1e-9)
    covariance = np.cov(stored @ full, rowvar=False)
    np.testing.assert_allclose(covariance / covariance[0, 0], np.eye(6), atol=1e-3)
    soft = np.cov(stored @ whitening(stored, strength=0.19, floor=0.3), rowvar=False)
    spread = [np.linalg.cond(np.cov(stored, rowvar=False)), np.linalg.cond(soft), np.linalg.cond(covariance)]
    assert spread == sorted(spread, reverse=True)


def test_whitening_of_vectors_that_are_all_alike_is_the_identity():
    same = np.repeat(rows(1, 5), 9, axis=0)
    np.testing.assert_allclose(whitening(same, strength=0.19, floor=0.3), np.eye(5), atol=1e-5)


@pytest.mark.parametrize("dimension", [8, 64])
@pytest.mark.parametrize("spectrum", ["flat", "steep", "one common direction"])
def test_whatever_the_spectrum_a_map_of_finite_numbers_comes_out(spectrum, dimension):
    scale = np.ones(dimension) if spectrum == "flat" else 0.5 ** np.arange(dimension)
    common = 5.0 if spectrum == "one common direction" else 0.0
    shift = common * np.eye(1, dimension)
    stored = unit_rows((rows(100, dimension) * scale + shift).astype(np.float32))
    data = AdapterData(
        stored, unit_rows(stored[:30] + 0.3 * rows(30, dimension, seed=4)), tuple((i,) for i in range(30)), np.ones(30)
    )
    fitted = fit_map(data, QUICK)
    assert np.isfinite(fitted.matrix).all() and np.linalg.norm(fitted.matrix, 2) == pytest.approx(1, abs=1e-4)


def test_ndcg_of_many_maps_is_that_of_the_metrics():
    queries, stored = rows(20, seed=1), rows(80, seed=2)
    answers = [(number, number + 1, number + 20) for number in range(20)]
    maps = [np.eye(12, dtype=np.float32), np.eye(12, dtype=np.float32) + 0.2 * rows(12, seed=3)]
    found = judge(queries, stored, answers, maps, (0, 1), hidden=NOTHING).ndcg
    for map_, values in zip(maps, found):
        scores = unit_rows(queries @ map_) @ stored.T
        run = {str(q): {str(d): float(scores[q, d]) for d in range(80)} for q in range(20)}
        expected = ndcg({str(q): {str(d): 1 for d in answers[q]} for q in range(20)}, run)
        np.testing.assert_allclose(values, [expected[str(q)] for q in range(20)], atol=1e-9)


def test_the_loss_of_a_map_is_that_of_its_answers_among_what_was_found():
    queries, stored = rows(20, seed=1), rows(80, seed=2)
    answers = [(number, number + 20) for number in range(20)]
    found = judge(queries, stored, answers, [np.eye(12, dtype=np.float32)], (0,), hidden=NOTHING).losses[-1]
    for place, temperature in enumerate(TEMPERATURES):
        for query, own in enumerate(answers):
            scores = np.exp((stored @ queries[query]).astype(np.float64) / temperature)
            others = scores[[row for row in range(80) if row not in own]].sum()
            expected = np.mean([np.log1p(others / scores[row]) for row in own])
            assert found[place, 0, query] == pytest.approx(expected, rel=1e-4)


def test_a_query_that_everything_answers_has_no_loss():
    everything = tuple(range(30))
    found = judge(rows(1), rows(30, seed=1), [everything], [np.eye(12, dtype=np.float32)], (0,), hidden=NOTHING)
    assert not found.losses.any() and found.ndcg.tolist() == [[1.0]]


def test_clicks_that_follow_the_base_teach_all_the_same():
    """Of every query the base's first hit was clicked where it was right: by its ranks nothing could be better."""
    data = turned([(number,) for number in range(150)], noise=0.5)
    right = (data.queries @ data.stored.T).argmax(axis=1) == np.arange(150)
    learned = np.flatnonzero(right)[: int(right.sum() * 0.8)]
    answers = tuple((int(row),) for row in learned)
    fitted = fit_map(AdapterData(data.stored, data.queries[learned], answers, np.ones(len(learned))), QUICK)
    others = np.setdiff1d(np.arange(150), learned)
    better = (data.queries[others] @ fitted.matrix @ data.stored.T).argmax(axis=1) == others
    assert fitted.candidates[0].ndcg == 1 and fitted.chosen.by and better.sum() > right[others].sum()


def test_hidden_passages_are_in_no_ranking():
    queries, stored = rows(4, seed=1), rows(30, seed=2)
    best = (queries @ stored.T).argmax(axis=1)
    assert not set(best.tolist()) & set(nearest(queries, stored, 5, hidden=np.unique(best)).ravel().tolist())
    one = [np.eye(12, dtype=np.float32)]
    others = np.setdiff1d(np.unique(best), best[:1])
    second = int((queries[0] @ stored.T).argsort()[-2])
    hidden = np.union1d(others, best[:1])
    assert judge(queries[:1], stored, [(second,)], one, (0,), hidden=np.setdiff1d(hidden, [second])).ndcg[0, 0] == 1


def test_candidates_hold_the_first_part_whole_and_no_hidden_row():
    first, second = np.array([5, 6, 7]), np.array([1, 2, 7, 3])
    assert set(fill([first, second], 20, most=2, seed=0).tolist()) == {5, 6, 7}
    filled = fill([first, second], 20, most=10, seed=0, hidden=np.array([2, 19]))
    assert {1, 3, 5, 6, 7} <= set(filled.tolist()) and len(filled) == 10 and not {2, 19} & set(filled.tolist())


def test_pseudo_queries_are_titles_first_words_and_spans():
    text = " ".join(f"w{number}" for number in range(40))
    assert text_of(Passage("a", text), span=False, seed=0) == " ".join(f"w{number}" for number in range(SPAN))
    titled = Passage("a", text, {"title": "How bees dance"})
    assert text_of(titled, span=False, seed=0) == "How bees dance"
    assert text_of(Passage("a", text, {"title": "Bees"}), span=False, seed=0).startswith("w0 ")
    spans = {text_of(Passage(str(number), text), span=True, seed=0) for number in range(20)}
    assert len(spans) > 10 and all(each in text and len(each.split()) == SPAN for each in spans)
    assert (
        text_of(titled, span=True, seed=0) == text_of(titled, span=True, seed=0) != text_of(titled, span=True, seed=1)
    )
    short = " ".join("abcdefghijkl")
    assert text_of(Passage("a", short), span=True, seed=0) == "a b c d e f"
    assert text_of(Passage("a", "one two three"), span=False, seed=0) == ""
    assert text_of(Passage("a", "蜜蜂跳舞告诉同伴花在哪里的方向"), span=False, seed=0) == "蜜蜂跳舞告诉同伴花在"


def test_memory_does_not_grow_with_queries_times_stored_vectors():
    """Scores of 5,000 queries and 50,000 stored vectors would be 1,000 megabytes."""
    code = """
import numpy as np
from llama_index_embed_plus.training.adapter.arrays import AdapterData
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.validation import unit_rows
n, m = 5_000, 50_000
queries, stored = (unit_rows(np.random.default_rng(0).standard_normal((rows, 8), np.float32)) for rows in (n, m))
data = AdapterData(stored, queries, tuple((i,) for i in range(n)), np.ones(n))
peak = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) / 1024
before = peak()
fit_map(data, AdapterSettings(candidates=("list",), steps=(1,), folds=2))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 600, "megabytes"


def test_mined_negatives_change_nothing_where_all_passages_are_compared_with_anyway():
    """The guide to mining says so: which negatives were mined matters to the adapter in larger collections alone."""
    data = turned([(number,) for number in range(40)])
    plain, mined = (fit_map(each, QUICK) for each in (data, replace(data, hard=(60, 70, 80, 90))))
    losses = [[each.loss for each in fitted.candidates] for fitted in (plain, mined)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    few = replace(QUICK, negatives=60)
    plain, mined = (fit_map(each, few) for each in (data, replace(data, hard=(60, 70, 80, 90))))
    assert [each.loss for each in plain.candidates] != pytest.approx([each.loss for each in mined.candidates], abs=1e-4)
