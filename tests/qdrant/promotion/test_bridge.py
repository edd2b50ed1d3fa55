"""A map between two encoders' spaces lets the new queries search the old vectors, and its cost is measured."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import ENGINES, WordEncoder, client_of, numbered

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, NotSupportedError, SpaceMismatchError
from qdrant_tools.indexing import index_passages
from qdrant_tools.promotion.bridge import BridgedEncoder, BridgeSample, draw_sample, fit_bridge, measure_bridge
from qdrant_tools.search.dense import search

OLD = WordEncoder("old", dimension=64)


class Turned(WordEncoder):
    """The old encoder's vectors, turned by an orthogonal matrix (and padded by dimensions that are empty)."""

    def __init__(self, name="turned", dimension=64, noise=0.0):
        super().__init__(name, dimension)
        rng = np.random.default_rng(3)
        self.turn = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0][:64].astype(np.float32)
        self.noise = noise

    def encode_queries(self, texts):
        vectors = OLD.encode_queries(texts) @ self.turn
        if self.noise:
            seeds = [sum(text.encode()) for text in texts]
            vectors = vectors + self.noise * np.stack(
                [np.random.default_rng(seed).normal(size=self.dimension) / self.dimension**0.5 for seed in seeds]
            )
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def encode_passages(self, texts):
        return self.encode_queries(texts)


@pytest.fixture(params=ENGINES)
def collection(request, tmp_path):
    for client in client_of(request.param, tmp_path):
        collection = CollectionManager(client).ensure("docs", OLD)
        index_passages(collection, numbered(400), OLD)
        yield collection


@pytest.mark.parametrize("dimension", [64, 80])
def test_a_turned_space_is_turned_back_exactly_also_from_another_dimension(collection, dimension):
    new = Turned(dimension=dimension)
    bridge = fit_bridge(draw_sample(collection, new))
    assert bridge.weight.shape == (dimension, 64)
    queries = [passage.text for passage in numbered(20)]
    np.testing.assert_allclose(bridge(new.encode_queries(queries)), OLD.encode_queries(queries), atol=2e-2)
    hit = search(collection, numbered(18)[17].text, BridgedEncoder(new, bridge), k=1)[0]
    assert hit.id == "p17"


def test_the_recall_against_a_full_reembedding_is_measured(collection):
    queries = [f"about topic{i % 7} and thing{i}" for i in range(30)]
    sample = draw_sample(collection, Turned())
    _, report = measure_bridge(sample, queries, Turned(), old=OLD, k=5)
    assert report.bridged > 0.95 and report.unbridged > 0.99
    _, noisy = measure_bridge(draw_sample(collection, Turned(noise=0.7)), queries, Turned(noise=0.7), k=5)
    assert noisy.bridged < report.bridged and noisy.unbridged is None
    assert noisy.as_row()["bridged"] == noisy.bridged and (noisy.fitted_on, noisy.sample) == (200, 200)


def test_a_low_rank_map_follows_what_is_stretched_which_an_orthogonal_one_cannot():
    rng = np.random.default_rng(0)
    old = rng.normal(size=(2000, 16)).astype(np.float32)
    old /= np.linalg.norm(old, axis=1, keepdims=True)
    new = (old * np.linspace(1, 6, 16) + 0.1).astype(np.float32)
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    sample = BridgeSample(("",) * 2000, old, new, "old", "new")

    def error(**how):
        return float((1 - (fit_bridge(sample, **how)(new) * old).sum(axis=1)).mean())

    assert error(method="low-rank", rank=16, ridge=1e-6) < error(method="procrustes") / 2
    assert error(method="low-rank", rank=4) > error(method="low-rank", rank=12)


def test_the_sample_is_drawn_from_the_whole_collection(collection):
    sample = draw_sample(collection, Turned(), size=50, seed=1)
    assert len(sample.texts) == len(set(sample.ids)) == 50
    by_id = {passage.id: passage.text for passage in numbered(400)}
    assert [by_id[name] for name in sample.ids] == list(sample.texts)
    np.testing.assert_allclose(sample.old, OLD.encode_queries(sample.texts), atol=1e-6)


def test_a_bridge_is_for_queries_of_the_encoder_it_was_fitted_for(collection):
    bridge = fit_bridge(draw_sample(collection, Turned(), size=50))
    with pytest.raises(SpaceMismatchError, match="fit it again"):
        BridgedEncoder(WordEncoder("other"), bridge)
    with pytest.raises(NotSupportedError, match="for queries"):
        index_passages(collection, numbered(1, start=1000), BridgedEncoder(Turned(), bridge))


@pytest.mark.parametrize("wrong", [{"method": "mlp"}, {"rank": 3}, {"method": "low-rank", "rank": 999}])
def test_what_cannot_be_fitted_is_refused(collection, wrong):
    with pytest.raises(InputError, match="expected|leave it out"):
        fit_bridge(draw_sample(collection, Turned(), size=20), **wrong)
