"""Evaluation over a collection: every judged query counts, and two systems are compared honestly."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import WordEncoder, numbered

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.evaluate.plots.pages import before_after
from llama_index_embed_plus.evaluate.retrieval import exact as vectors
from llama_index_embed_plus.evaluate.retrieval.comparison import compare
from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors, embed_passages
from llama_index_embed_plus.evaluate.retrieval.report import Coverage, score_run
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval, overlap
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import InputError, SpaceMismatchError, UsageError, VectorError
from qdrant_tools.indexing import index_passages
from qdrant_tools.metrics import ranked
from qdrant_tools.records import Passage, Query
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.dense import search_batch
from qdrant_tools.search.fusion import Fusion
from qdrant_tools.search.hybrid import search_hybrid, search_lexical


class Noisy:
    """Text '17' is direction 17; a query is its passage's direction plus noise."""

    dimension, space = 24, "noisy@000000000000"

    def __init__(self, noise: float) -> None:
        random = np.random.default_rng(3)
        self.directions = random.normal(size=(60, self.dimension))
        self.queries = self.directions + noise * random.normal(size=(60, self.dimension))

    def encode_passages(self, texts):
        return _unit(self.directions[[int(text) for text in texts]])

    def encode_queries(self, texts):
        return _unit(self.queries[[int(text) for text in texts]])


def _unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


QUERIES = [Query(f"q{i}", str(i)) for i in range(60)]
QRELS = {f"q{i}": {f"p{i}": 1, f"p{(i + 1) % 60}": 0} for i in range(60)}


@pytest.fixture(scope="module")
def collection():
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("c", Noisy(1))
        index_passages(collection, [Passage(f"p{i}", str(i), {"even": i % 2 == 0}) for i in range(60)], Noisy(1))
        yield collection


def test_the_figures_are_those_of_an_outside_implementation(collection):
    report = evaluate_retrieval(collection, QUERIES, QRELS, Noisy(1.5))
    measures = [ir_measures.parse_measure(name) for name in ("nDCG@10", "RR@10", "R@10")]
    outside = ir_measures.calc_aggregate(measures, QRELS, report.run)
    ours = report.headline()
    for name, measure in zip(("ndcg@10", "mrr", "recall@10"), measures):
        assert ours[name] == pytest.approx(outside[measure], abs=1e-9)
        assert 0 < ours[name] < 1


def test_a_real_run_scores_as_trec_eval_scores_it():
    """The real checkpoint on real text, at several cutoffs; grades are made of the passages' modules."""
    corpus = load_docstrings(limit=70)
    encoder = open_encoder("all-MiniLM-L6-v2")
    module = {passage.id: passage.metadata["module"] for passage in corpus.passages}
    qrels = {
        query: {other: 3 if other in grades else int(module[other] in {module[p] for p in grades}) for other in module}
        for split in (corpus.train, corpus.held_out)
        for query, grades in split.qrels.items()
    }
    queries = [*corpus.train.queries, *corpus.held_out.queries]
    passages = embed_passages(corpus.passages, encoder)
    report = evaluate_retrieval(passages, queries, qrels, encoder, k=[10, 1, 50])
    for name, outside in (
        ("ndcg", "nDCG"),
        ("map", "AP"),
        ("precision", "P"),
        ("recall", "R"),
        ("hit_rate", "Success"),
    ):
        for k in (1, 10, 50):
            measure = ir_measures.parse_measure(f"{outside}@{k}")
            theirs = {each.query_id: each.value for each in ir_measures.iter_calc([measure], qrels, report.run)}
            assert report.values[f"{name}@{k}"] == pytest.approx(theirs, abs=1e-9)
    assert len(report.ndcg) > 60 and 0.3 < report.means()["ndcg@10"] < 1


def test_less_noise_is_proved_better_and_the_same_system_is_not(collection):
    noisy, clear = (evaluate_retrieval(collection, QUERIES, QRELS, Noisy(noise)) for noise in (2.5, 0.5))
    comparison = compare(noisy, clear)
    assert comparison.proves_better
    assert comparison.difference.low <= comparison.difference.difference <= comparison.difference.high
    assert comparison.better + comparison.worse + comparison.same == 60
    assert not compare(noisy, noisy).proves_better


def test_overlap_is_the_share_of_the_exact_top_k_and_a_tie_is_as_good():
    qrels = {"a": {"x": 1}, "b": {"z": 1}}

    def run(**scores):
        return score_run({"a": scores, "b": {"z": 1.0}}, qrels, k=2)

    exact = run(x=1.0, y=0.5)
    assert overlap(run(x=1.0, w=0.4), exact) == overlap(run(x=1.0), exact) == 0.75
    assert overlap(run(x=1.0, w=0.5 - 1e-7), exact) == overlap(exact, exact) == 1.0
    assert overlap(run(x=0.8, w=0.5), exact) == 0.75, "scores of another kind tell nothing"
    assert overlap(exact, score_run({"a": {}}, qrels, k=2)) == 0.0


def test_queries_without_any_judgement_are_an_error_and_different_reports_are_not_compared(collection):
    with pytest.raises(InputError, match="none of the 1 queries has a judgement"):
        evaluate_retrieval(collection, [Query("x", "1")], QRELS, Noisy(1))
    whole = evaluate_retrieval(collection, QUERIES, QRELS, Noisy(1))
    half = evaluate_retrieval(collection, QUERIES[:30], QRELS, Noisy(1))
    with pytest.raises(InputError, match="cover 60 and 30 queries"):
        compare(whole, half)


def test_what_does_not_fit_together_is_counted(collection):
    queries = [*QUERIES[:4], Query("unjudged", "5")]
    qrels = {"q0": {"p0": 1, "gone": 1}, "q1": {"p1": 0}, "q2": {"p2": 2}, "never asked": {"p3": 1}, "q3": {}}
    report = evaluate_retrieval(collection, queries, qrels, Noisy(0.1))
    assert report.coverage == Coverage(
        3, without_judgement=2, unknown_queries=1, unknown_passages=1, without_relevant=1, without_results=0
    )
    assert report.recall == {"q0": 0.5, "q1": 0.0, "q2": 1.0}
    assert report.coverage.notes()[0] == "2 queries have no judgement and were left out"
    assert len(report.coverage.notes()) == 4


def test_several_cutoffs_are_those_of_separate_reports(collection):
    report = evaluate_retrieval(collection, QUERIES, QRELS, Noisy(2), k=[3, 1, 20])
    assert report.k == 3 and len(report.values) == 21
    for k in (1, 3, 20):
        alone = evaluate_retrieval(collection, QUERIES, QRELS, Noisy(2), k=k)
        assert {name: report.values[name] for name in alone.values} == alone.values


def test_plain_vectors_give_what_the_collection_gives(collection):
    passages = embed_passages([Passage(f"p{i}", str(i)) for i in range(60)], Noisy(1))
    stored = evaluate_retrieval(collection, QUERIES, QRELS, Noisy(2), k=[10, 3])
    plain = evaluate_retrieval(passages, QUERIES, QRELS, Noisy(2), k=[10, 3])
    assert plain.values == stored.values
    assert plain.run["q7"] == pytest.approx(stored.run["q7"], abs=1e-6)


def test_a_filter_keeps_other_passages_out(collection):
    report = evaluate_retrieval(collection, QUERIES, QRELS, Noisy(0.1), k=5, filter={"even": True})
    assert report.coverage.without_results == 0
    assert {passage for scores in report.run.values() for passage in scores} == {f"p{i}" for i in range(0, 60, 2)}
    assert report.recall["q4"] == 1.0 and report.recall["q5"] == 0.0


@settings(max_examples=60, deadline=None)
@given(data=st.data(), k=st.sampled_from([1, 3, 10, 200]))
def test_the_search_of_vectors_is_exact_with_ties_as_in_trec_eval(data, k):
    """Few directions, so that many passages are equally near, over several blocks."""
    count = data.draw(st.integers(1, 60))
    directions = np.eye(4, dtype=np.float32) * 3
    rows = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    ids = data.draw(st.permutations([f"d{i}" for i in range(count)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "PASSAGES_AT_ONCE", 16)
        patch.setattr(vectors, "QUERIES_AT_ONCE", 2)
        query = np.array([[4, 3, 2, 1], [1, 1, 2, 2], [1, 2, 3, 4]], np.float32)
        found = PassageVectors(ids, directions[rows]).search(["a", "b", "c"], query, k=k)
    cosines = (query / np.linalg.norm(query, axis=1, keepdims=True)) @ np.eye(4, dtype=np.float32)[rows].T
    for name, scores in zip(("a", "b", "c"), cosines):
        full = {passage: float(score) for passage, score in zip(ids, scores)}
        assert list(found[name]) == ranked(full)[:k]
        assert found[name] == pytest.approx({each: full[each] for each in found[name]}, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_differ_by_rounding_are_cut_by_the_larger_id(seed):
    noise = np.random.default_rng(seed).uniform(0, 3e-7, (12, 4)).astype(np.float32)
    passages = PassageVectors([f"d{i:02}" for i in range(12)], np.ones((12, 4), np.float32) + noise)
    (found,) = passages.search(["q"], np.ones((1, 4)), k=3).values()
    assert list(found) == ["d11", "d10", "d09"] and len(set(found.values())) == 1


def test_vectors_that_cannot_be_compared_are_refused(collection):
    with pytest.raises(VectorError, match="passage vectors: row 1 holds NaN"):
        PassageVectors(["a", "b"], np.array([[1.0, 0.0], [float("nan"), 1.0]]))
    with pytest.raises(InputError, match="'a' occurs 2 times"):
        PassageVectors(["a", "a"], np.eye(2))
    with pytest.raises(VectorError, match="shape"):
        PassageVectors(["a"], np.eye(2))
    with pytest.raises(SpaceMismatchError, match="another@"):
        evaluate_retrieval(PassageVectors(["p1"], np.eye(24)[:1], "another@0"), QUERIES, QRELS, Noisy(1))
    nan = Noisy(1)
    nan.queries = nan.queries * np.nan
    with pytest.raises(VectorError, match="NaN"):
        evaluate_retrieval(collection, QUERIES, QRELS, nan)


def test_settings_that_cannot_be_honoured_are_refused(collection):
    plain = PassageVectors(["p1"], np.eye(24)[:1])
    for searched, arguments, message in (
        (collection, {"mode": "sparse"}, "mode is 'sparse'"),
        (collection, {"mode": "hybrid", "exact": True}, "exact and hnsw_ef"),
        (collection, {"fusion": Fusion()}, "fusion is for the mode 'hybrid'"),
        (plain, {"exact": True}, "vectors are searched exactly"),
        (collection, {"k": 0}, "k is 0"),
        (collection, {"k": []}, "k is 0"),
        (collection, {"k": "10"}, "k is '1'"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_retrieval(searched, QUERIES, QRELS, Noisy(1), **arguments)
    with pytest.raises(UsageError, match="needs an encoder"):
        evaluate_retrieval(replace(collection, encoder=None), QUERIES, QRELS)
    with pytest.raises(InputError, match="query is ' '"):
        evaluate_retrieval(collection, [Query("q1", " ")], QRELS, Noisy(1))
    with pytest.raises(InputError, match="'q1' occurs twice"):
        evaluate_retrieval(collection, [Query("q1", "1")] * 2, QRELS, Noisy(1))


def test_a_collection_is_asked_by_its_own_encoder_unless_another_is_given(collection):
    noisy = collection.with_encoder(Noisy(3))
    own, other = evaluate_retrieval(noisy, QUERIES, QRELS), evaluate_retrieval(noisy, QUERIES, QRELS, Noisy(0))
    assert own.ndcg == evaluate_retrieval(collection, QUERIES, QRELS, Noisy(3)).ndcg != other.ndcg


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A collection with vectors of words and BM25, in the embedded engine."""
    with closing(connect(tmp_path_factory.mktemp("words"))) as client:
        collection = CollectionManager(client).ensure("w", WordEncoder(), settings=CollectionSettings(lexical=Bm25()))
        index_passages(collection, numbered(300), WordEncoder())
        build_index(collection)
        yield collection


def test_dense_hybrid_lexical_and_exact_are_measured_as_they_are_searched(words):
    queries = [Query(f"q{i}", f"thing{i} about topic{i % 7}") for i in range(0, 300, 10)]
    qrels = {f"q{i}": {f"p{i}": 1} for i in range(0, 300, 10)}
    found = {
        "dense": search_batch(words, [q.text for q in queries], WordEncoder(), k=5, hnsw_ef=16),
        "exact": search_batch(words, [q.text for q in queries], WordEncoder(), k=5, exact=True),
        "hybrid": search_hybrid(words, [q.text for q in queries], WordEncoder(), k=5),
        "lexical": search_lexical(words, [q.text for q in queries], k=5),
    }
    arguments = {"dense": {"hnsw_ef": 16}, "exact": {"exact": True}, "hybrid": {"mode": "hybrid"}}
    for name, hits in found.items():
        if name == "lexical":
            report = evaluate_retrieval(words, queries, qrels, k=5, mode="lexical")
        else:
            report = evaluate_retrieval(words, queries, qrels, WordEncoder(), k=5, **arguments[name])
        run = {query.id: {hit.id: hit.score for hit in each} for query, each in zip(queries, hits)}
        assert report.run == run
        assert report.ndcg == score_run(run, qrels, k=5).ndcg
    assert np.mean(list(report.ndcg.values())) == 1.0  # BM25 finds the one passage that has the word


def test_the_chart_is_a_png_page(tmp_path):
    means = {"ndcg@10": 0.5, "mrr": 0.4, "recall@10": 0.7}
    path = tmp_path / "chart.png"
    before_after(path, {"base": means, "adapter": means}, differences=[0.2, -0.1, 0.0], title="t")
    assert path.read_bytes().startswith(b"\x89PNG")
