"""Fitting a query adapter: what it learns, what it must not learn, and that its loss is the loss of the paper."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch

from llama_index_embed_plus.adapter import AdaptedEncoder
from llama_index_embed_plus.errors import TrainingError, UsageError
from llama_index_embed_plus.evaluate.retrieval import compare, evaluate_retrieval
from llama_index_embed_plus.train.fit_adapter import AdapterSettings, _allowed, _Fit, _Rows, fit_adapter
from qdrant_tools.collection import CollectionManager
from qdrant_tools.connect import connect
from qdrant_tools.index import index_passages
from qdrant_tools.records import Example, Passage, Query, ScoredText

DIMENSION, PASSAGES = 16, 120


class Rotated:
    """Passage i is a random direction; query i is the same direction, turned by one fixed rotation."""

    dimension = DIMENSION
    space = "rotated@000000000000"

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.passages = random.normal(size=(PASSAGES, DIMENSION))
        self.passages /= np.linalg.norm(self.passages, axis=1, keepdims=True)
        turn, _ = np.linalg.qr(np.eye(DIMENSION) + 0.35 * random.normal(size=(DIMENSION, DIMENSION)))
        self.turn = turn * np.sign(np.diag(turn))

    def encode_passages(self, texts):
        return self.passages[[int(text) for text in texts]].astype(np.float32)

    def encode_queries(self, texts):
        return (self.passages[[int(text) for text in texts]] @ self.turn).astype(np.float32)


def example(i: int, *, positive: int | None = None, weight: float = 1.0) -> Example:
    return Example(str(i), (ScoredText(f"p{i if positive is None else positive}", ""),), weight=weight)


@pytest.fixture(scope="module")
def encoder():
    return Rotated()


@pytest.fixture(scope="module")
def collection(encoder):
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("numbers", encoder)
        index_passages(collection, [Passage(f"p{i}", str(i)) for i in range(PASSAGES)], encoder)
        yield collection


def test_an_adapter_fitted_on_some_queries_is_better_on_others(collection, encoder):
    adapter, report = fit_adapter(collection, [example(i) for i in range(90)], encoder, AdapterSettings(batch_size=8))
    heldout = [Query(f"q{i}", str(i)) for i in range(90, PASSAGES)]
    qrels = {f"q{i}": {f"p{i}": 1} for i in range(90, PASSAGES)}
    before = evaluate_retrieval(collection, heldout, qrels, encoder)
    after = evaluate_retrieval(collection, heldout, qrels, AdaptedEncoder(encoder, adapter))
    assert compare(before, after).proves_better
    assert report.best_epoch > 0 and report.losses[-1] < report.losses[0]
    assert report.validation_mrr[report.best_epoch] == max(report.validation_mrr)


def test_the_same_seed_gives_the_same_adapter(collection, encoder):
    settings = AdapterSettings(max_epochs=3)
    first, second = (fit_adapter(collection, [example(i) for i in range(40)], encoder, settings)[0] for _ in range(2))
    np.testing.assert_array_equal(first.weight, second.weight)


def test_wrong_answers_teach_nothing_that_is_kept(collection, encoder):
    """Positives that belong to other queries: no epoch beats the identity for long, and the best state is returned."""
    wrong = [example(i, positive=(i * 37 + 11) % PASSAGES) for i in range(90)]
    adapter, report = fit_adapter(collection, wrong, encoder, AdapterSettings(max_epochs=10))
    assert report.validation_mrr[report.best_epoch] >= report.validation_mrr[0]
    if report.best_epoch == 0:
        assert not adapter.weight.any()


def test_the_loss_is_infonce_over_all_stored_vectors():
    random = torch.Generator().manual_seed(1)
    queries, stored = (torch.nn.functional.normalize(torch.randn(n, 5, generator=random), dim=1) for n in (3, 7))
    rows = _Rows(torch.tensor([0, 1, 2]), torch.tensor([4, 0, 6]), torch.tensor([1.0, 2.0, 0.5]))
    allowed = torch.ones(3, 7, dtype=torch.bool)
    allowed[0, [4, 5]] = False  # passage 5 is another positive of query 0
    allowed[1, 0] = allowed[2, 6] = False
    fit = _Fit(queries, stored, rows, allowed, AdapterSettings(temperature=0.1))
    weight = 0.1 * torch.randn(5, 5, generator=random)

    expected = []
    for q, p in ((0, 4), (1, 0), (2, 6)):
        adapted = (queries[q] + queries[q] @ weight).numpy()
        scores = stored.numpy() @ (adapted / np.linalg.norm(adapted)) / 0.1
        against = [p, *np.flatnonzero(allowed[q].numpy())]
        expected.append(-np.log(np.exp(scores[p]) / np.exp(scores[against]).sum()))
    loss = fit.loss(weight, torch.tensor([0, 1, 2])).item()
    assert loss == pytest.approx(np.average(expected, weights=[1.0, 2.0, 0.5]), abs=1e-5)


def test_positives_and_their_near_duplicates_are_never_negatives():
    stored = np.eye(4, dtype=np.float32)
    stored[3] = [0.99, np.sqrt(1 - 0.99**2), 0, 0]  # nearly the same as passage 0
    rows = _Rows(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), torch.ones(3))
    assert _allowed(rows, 2, stored, similarity=0.95).tolist() == [
        [False, True, False, False],
        [True, False, True, True],
    ]


def test_a_sample_of_the_collection_always_holds_positives_and_mined_negatives(collection, encoder):
    examples = [
        Example(str(i), (ScoredText(f"p{i}", ""),), (ScoredText(f"p{i + 50}", "", 0.5),)) for i in range(0, 40, 2)
    ]
    settings = AdapterSettings(max_stored_vectors=45, max_epochs=2)
    _, report = fit_adapter(collection, examples, encoder, settings)
    assert (report.train_pairs, report.skipped_examples) == (20, 0)


def test_examples_the_collection_does_not_hold_are_counted_and_too_few_are_an_error(collection, encoder):
    unknown = Example("3", (ScoredText("nowhere", ""),))
    _, report = fit_adapter(collection, [example(1), example(2), unknown], encoder, AdapterSettings(max_epochs=1))
    assert report.skipped_examples == 1
    with pytest.raises(TrainingError, match=r"0 of 1 examples .* 'numbers'"):
        fit_adapter(collection, [unknown], encoder)


def test_a_loss_that_is_no_number_is_an_error(collection):
    class Broken(Rotated):
        def encode_queries(self, texts):
            return super().encode_queries(texts) * np.float32("nan")

    with pytest.raises(TrainingError, match="the loss became nan"):
        fit_adapter(collection, [example(i) for i in range(90)], Broken())


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"learning_rate": -1}, {"validation_share": 1.0}])
def test_impossible_settings_are_refused_at_once(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        AdapterSettings(**bad)
