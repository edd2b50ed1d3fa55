"""Fitting a query adapter: what it learns, what it must not learn, and that its loss is the loss of the paper."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import torch

from llama_index_embed_plus.encoders.adapter import MAPS, AdaptedEncoder, QueryAdapter, unfitted
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.evaluate.retrieval.comparison import compare
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.training.adapter import AdapterFit, fit_adapter, module_of
from llama_index_embed_plus.training.adapter_data import Pairs, read_pairs
from llama_index_embed_plus.training.settings import SOURCES, AdapterSettings
from llama_index_embed_plus.training.trainer.progress import Meter
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import SpaceMismatchError, UsageError
from qdrant_tools.indexing import index_passages
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


@pytest.mark.parametrize("kind", MAPS)
def test_an_adapter_of_any_kind_fitted_on_some_queries_is_better_on_others(collection, encoder, kind):
    settings = AdapterSettings(kind=kind, width=DIMENSION, batch_size=8, learning_rate=3e-3)
    adapter, report = fit_adapter(collection, [example(i) for i in range(90)], encoder, settings)
    held_out = [Query(f"q{i}", str(i)) for i in range(90, PASSAGES)]
    qrels = {f"q{i}": {f"p{i}": 1} for i in range(90, PASSAGES)}
    before = evaluate_retrieval(collection, held_out, qrels, encoder)
    after = evaluate_retrieval(collection, held_out, qrels, AdaptedEncoder(encoder, adapter))
    assert compare(before, after).proves_better
    assert adapter.kind == kind and report.best_epoch > 0 and report.losses[-1] < report.losses[0]
    assert report.validation_mrr[report.best_epoch] == max(report.validation_mrr)


@pytest.mark.parametrize("kind", MAPS)
def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(collection, encoder, kind):
    def fitted(seed):
        settings = AdapterSettings(kind=kind, max_epochs=3, sampled=20, batch_size=8, learning_rate=3e-3, seed=seed)
        return fit_adapter(collection, [example(i) for i in range(40)], encoder, settings)[0]

    assert fitted(0).build == fitted(0).build != fitted(1).build


@pytest.mark.parametrize("kind", MAPS)
def test_what_torch_fits_is_what_numpy_serves(kind):
    start = unfitted(kind, 24, width=6)
    module = module_of(start)
    queries = np.random.default_rng(0).standard_normal((50, 24)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for moved in (False, True):
        if moved:
            with torch.no_grad():
                for number, weights in enumerate(module.parameters()):
                    weights += 0.2 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(number))
        theirs = module(torch.from_numpy(queries)).detach().numpy()
        np.testing.assert_allclose(module.fitted()(queries), theirs, atol=1e-6)
        assert np.allclose(theirs, queries, atol=1e-6) != moved


def test_a_rotation_is_orthogonal_however_far_it_was_moved():
    module = module_of(unfitted("orthogonal", 64))
    with torch.no_grad():
        module.free += 3 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    rotation = module.fitted().arrays()["rotation"]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(64), atol=1e-5)


def test_wrong_answers_teach_nothing_that_is_kept(collection, encoder):
    """Positives that belong to other queries: no epoch beats the identity for long, and the best state is returned."""
    wrong = [example(i, positive=(i * 37 + 11) % PASSAGES) for i in range(90)]
    adapter, report = fit_adapter(collection, wrong, encoder, AdapterSettings(max_epochs=10))
    assert report.validation_mrr[report.best_epoch] >= report.validation_mrr[0]
    if report.best_epoch == 0:
        assert not adapter.weight.any()


def pairs(queries, stored, answers, *, mined=(), weights=None) -> Pairs:
    """Pairs with one row per (query, positive) of `answers`."""
    rows = [(query, positive) for query, positives in enumerate(answers) for positive in positives]
    query, positive = (torch.tensor(column) for column in zip(*rows))
    weight = torch.ones(len(rows)) if weights is None else torch.tensor(weights)
    group = tuple(range(len(answers)))
    return Pairs(queries, stored, query, positive, weight, group, tuple(answers), mined or ((),) * len(answers))


def unit_rows(count: int, dimension: int, seed: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dimension, generator=random), dim=1)


def test_the_loss_is_infonce_over_the_candidates_that_answer_nothing():
    queries, stored = unit_rows(3, 5), unit_rows(7, 5, seed=2)
    answers, weights = [(4, 5), (0,), (6,)], [1.0, 1.0, 2.0, 0.5]
    fit = AdapterFit(pairs(queries, stored, answers, weights=weights), AdapterSettings(temperature=0.1))
    module = module_of(unfitted("full", 5))
    with torch.no_grad():
        module.weight += 0.1 * unit_rows(5, 5, seed=3)

    expected = []
    for q, p in ((0, 4), (0, 5), (1, 0), (2, 6)):
        adapted = (queries[q] + queries[q] @ module.weight).detach().numpy()
        scores = stored.numpy() @ (adapted / np.linalg.norm(adapted)) / 0.1
        against = [p, *(n for n in range(7) if n not in answers[q])]
        expected.append(-np.log(np.exp(scores[p]) / np.exp(scores[against]).sum()))
    loss = fit.loss(module, torch.arange(4), torch.arange(7)).item()
    assert loss == pytest.approx(np.average(expected, weights=weights), abs=1e-5)


def test_positives_and_their_near_duplicates_are_never_negatives():
    stored = torch.eye(4)
    stored[3] = torch.tensor([0.99, np.sqrt(1 - 0.99**2), 0, 0])  # nearly the same as passage 0
    fit = AdapterFit(pairs(unit_rows(2, 4), stored, [(0, 2), (1,)]), AdapterSettings(same_passage_similarity=0.95))
    rows, everything = torch.arange(3), torch.arange(4)
    assert fit.hidden(rows, everything, stored).tolist() == [
        [True, False, True, True],
        [True, False, True, True],
        [False, True, False, False],
    ]
    some = torch.tensor([1, 3])
    assert fit.hidden(rows, some, stored[some]).tolist() == [[False, True], [False, True], [True, False]]


@pytest.mark.parametrize(
    ("negatives", "candidates"),
    [(("in_batch",), {0, 1}), (("mined",), {7, 8}), (("in_batch", "mined"), {0, 1, 7, 8}), (SOURCES, set(range(10)))],
)
def test_negatives_come_from_where_the_settings_say(negatives, candidates):
    given = pairs(unit_rows(3, 4), unit_rows(10, 4), [(0,), (1,), (2,)], mined=((7,), (8,), (9,)))
    assert (
        set(AdapterFit(given, AdapterSettings(negatives=negatives)).candidates(torch.tensor([0, 1])).tolist())
        == candidates
    )


def test_of_a_large_collection_a_batch_sees_a_sample_that_changes():
    given = pairs(unit_rows(3, 4), unit_rows(500, 4), [(0,), (1,), (2,)])
    fit = AdapterFit(given, AdapterSettings(sampled=20))
    first, second = (set(fit.candidates(torch.tensor([0, 1])).tolist()) for _ in range(2))
    assert first != second and first & second >= {0, 1} and len(first) <= 22


def test_equal_queries_share_their_answers_and_are_on_one_side(collection, encoder):
    class Shouting(Rotated):
        def encode_queries(self, texts):
            return super().encode_queries([text.strip() for text in texts])

    twice = [example(i) for i in range(20)] + [Example(f" {i}", (ScoredText(f"p{i + 50}", ""),)) for i in range(20)]
    read = read_pairs(collection, twice, Shouting(), most=1000, seed=0)
    assert read.group == (*range(20), *range(20)) and all(len(known) == 2 for known in read.known)
    fit = AdapterFit(read, AdapterSettings(validation_share=0.5))
    sides = [{read.group[q] for q in read.query[rows].tolist()} for rows in (fit.train_rows, fit.valid_rows)]
    assert sides[0] | sides[1] == set(range(20)) and not sides[0] & sides[1]


def test_memory_does_not_grow_with_queries_times_stored_vectors():
    """A mask of 20,000 queries times 100,000 stored vectors would be 2,000 megabytes."""
    code = """
import torch
from llama_index_embed_plus.encoders.adapter import unfitted
from llama_index_embed_plus.training.adapter_data import (Pairs, read_pairs)
from llama_index_embed_plus.training.adapter import AdapterFit
from llama_index_embed_plus.training.settings import AdapterSettings
torch.set_num_threads(1)
n, m = 20_000, 100_000
queries, stored = (torch.nn.functional.normalize(torch.randn(rows, 8), dim=1) for rows in (n, m))
known = tuple((i,) for i in range(n))
pairs = Pairs(queries, stored, torch.arange(n), torch.arange(n), torch.ones(n), tuple(range(n)), known, ((),) * n)
settings = AdapterSettings(max_epochs=1, batch_size=512, sampled=1000, max_validation=200)
peak = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) / 1024
before = peak()
AdapterFit(pairs, settings).run(unfitted("full", 8))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 500, "megabytes"


def test_a_sample_of_the_collection_always_holds_positives_and_mined_negatives(collection, encoder):
    examples = [
        Example(str(i), (ScoredText(f"p{i}", ""),), (ScoredText(f"p{i + 50}", "", 0.5),)) for i in range(0, 40, 2)
    ]
    settings = AdapterSettings(max_stored_vectors=45, max_epochs=2)
    _, report = fit_adapter(collection, examples, encoder, settings)
    assert (report.train_pairs, report.skipped_examples) == (20, 0)


def test_what_cannot_be_fitted_is_one_clear_error(collection, encoder):
    unknown = Example("3", (ScoredText("nowhere", ""),))
    _, report = fit_adapter(collection, [example(1), example(2), unknown], encoder, AdapterSettings(max_epochs=1))
    assert (report.skipped_examples, report.stored_vectors) == (1, PASSAGES)
    with pytest.raises(TrainingError, match=r"0 of 1 examples .* 'numbers'"):
        fit_adapter(collection, [unknown], encoder)
    with pytest.raises(TrainingError, match="there are no examples"):
        fit_adapter(collection, [], encoder)
    with pytest.raises(TrainingError, match="1 of 1 examples .* expected at least 2"):
        fit_adapter(collection, [example(1)], encoder)
    with pytest.raises(TrainingError, match="1 of 2 examples .* weight above 0"):
        fit_adapter(collection, [example(1), example(2, weight=0)], encoder)
    with pytest.raises(TrainingError, match="all 3 queries are '7'"):
        fit_adapter(collection, [example(7, positive=i) for i in range(3)], encoder)
    with pytest.raises(TrainingError, match="'mined' alone, and no example has any"):
        fit_adapter(collection, [example(1), example(2)], encoder, AdapterSettings(negatives=("mined",)))


def test_a_vector_that_is_no_number_is_named(collection):
    class Broken(Rotated):
        def encode_queries(self, texts):
            vectors = super().encode_queries(texts)
            vectors[1, 3] = np.nan
            return vectors

    with pytest.raises(TrainingError, match=r"1 texts hold NaN or infinity, the first is query '1'"):
        fit_adapter(collection, [example(i) for i in range(90)], Broken())


def test_a_loss_that_is_no_number_is_an_error(collection, encoder):
    with pytest.raises(TrainingError, match=r"the loss became nan \(learning_rate is 0.0003, temperature 1e-39\)"):
        fit_adapter(collection, [example(i) for i in range(90)], encoder, AdapterSettings(temperature=1e-39))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_one_query_is_always_left_to_learn_from_and_one_to_judge_by(share):
    fit = AdapterFit(pairs(unit_rows(2, 4), unit_rows(3, 4), [(0,), (1,)]), AdapterSettings(validation_share=share))
    assert (len(fit.train_rows), len(fit.valid_rows)) == (1, 1)


def test_a_collection_of_another_space_is_refused(collection):
    class Elsewhere(Rotated):
        space = "elsewhere@000000000000"

    with pytest.raises(SpaceMismatchError, match="holds vectors of 'rotated@"):
        fit_adapter(collection, [example(1), example(2)], Elsewhere())


def test_a_new_adapter_takes_the_place_of_the_one_that_serves(collection, encoder):
    """It is fitted for the model's own query vectors, so an encoder that carries one already gives the same."""
    examples, settings = [example(i) for i in range(40)], AdapterSettings(max_epochs=2)
    first, _ = fit_adapter(collection, examples, encoder, settings)
    serving = AdaptedEncoder(encoder, QueryAdapter(np.eye(DIMENSION, dtype=np.float32)[::-1].copy(), encoder.space))
    second, _ = fit_adapter(collection, examples, serving, settings)
    assert second.build == first.build
    replaced = AdaptedEncoder(serving, first).encode_queries(["1", "2"])
    np.testing.assert_array_equal(replaced, AdaptedEncoder(encoder, first).encode_queries(["1", "2"]))


def test_every_epoch_is_told_with_its_loss_and_validation_figure(collection, encoder):
    shown = []
    meter = Meter(3, show=lambda meter: shown.append((meter.steps, meter.mean_loss, dict(meter.metrics))))
    settings = AdapterSettings(max_epochs=3)
    _, report = fit_adapter(collection, [example(i) for i in range(40)], encoder, settings, progress=meter)
    assert meter.steps == 3 and meter.mean_loss == pytest.approx(np.mean(report.losses))
    assert [row for row in shown if row[0] == 1][0][2] == {"validation mrr": report.validation_mrr[1]}


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": 0},
        {"learning_rate": -1},
        {"validation_share": 1.0},
        {"kind": "quadratic"},
        {"width": 0},
        {"negatives": ()},
        {"negatives": ("elsewhere",)},
        {"weight_decay": -1},
    ],
)
def test_impossible_settings_are_refused_at_once(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        AdapterSettings(**bad)
