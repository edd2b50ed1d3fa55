"""Evaluation over a collection: every judged query counts, and two systems are compared honestly."""

from __future__ import annotations

from contextlib import closing

import ir_measures
import numpy as np
import pytest

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.plots import before_after
from llama_index_embed_plus.evaluate.retrieval import RetrievalReport, compare, evaluate_retrieval, overlap
from qdrant_tools.collection import CollectionManager
from qdrant_tools.connect import connect
from qdrant_tools.index import index_passages
from qdrant_tools.records import Passage, Query


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
        index_passages(collection, [Passage(f"p{i}", str(i)) for i in range(60)], Noisy(1))
        yield collection


def test_the_figures_are_those_of_an_outside_implementation(collection):
    report = evaluate_retrieval(collection, QUERIES, QRELS, Noisy(1.5))
    measures = [ir_measures.parse_measure(name) for name in ("nDCG@10", "RR@10", "R@10")]
    outside = ir_measures.calc_aggregate(measures, QRELS, report.run)
    ours = report.means()
    for name, measure in zip(("ndcg@10", "mrr", "recall@10"), measures):
        assert ours[name] == pytest.approx(outside[measure], abs=1e-9)
        assert 0 < ours[name] < 1


def test_less_noise_is_proved_better_and_the_same_system_is_not(collection):
    noisy, clear = (evaluate_retrieval(collection, QUERIES, QRELS, Noisy(noise)) for noise in (2.5, 0.5))
    comparison = compare(noisy, clear)
    assert comparison.proves_better
    assert comparison.difference.low <= comparison.difference.difference <= comparison.difference.high
    assert comparison.better + comparison.worse + comparison.same == 60
    assert not compare(noisy, noisy).proves_better


def test_overlap_is_the_share_of_the_exact_top_k():
    exact = RetrievalReport(2, {}, {}, {}, {"a": {"x": 1.0, "y": 0.5}, "b": {"z": 1.0}})
    found = RetrievalReport(2, {}, {}, {}, {"a": {"x": 1.0, "w": 0.5}, "b": {"z": 1.0}})
    assert overlap(found, exact) == 0.75
    assert overlap(exact, exact) == 1.0


def test_queries_without_any_judgement_are_an_error_and_different_reports_are_not_compared(collection):
    with pytest.raises(InputError, match="none of the 1 queries has a judgement"):
        evaluate_retrieval(collection, [Query("x", "1")], QRELS, Noisy(1))
    whole = evaluate_retrieval(collection, QUERIES, QRELS, Noisy(1))
    half = evaluate_retrieval(collection, QUERIES[:30], QRELS, Noisy(1))
    with pytest.raises(InputError, match="cover 60 and 30 queries"):
        compare(whole, half)


def test_the_chart_is_a_png_page(tmp_path):
    means = {"ndcg@10": 0.5, "mrr": 0.4, "recall@10": 0.7}
    path = tmp_path / "chart.png"
    before_after(path, {"base": means, "adapter": means}, differences=[0.2, -0.1, 0.0], title="t")
    assert path.read_bytes().startswith(b"\x89PNG")
