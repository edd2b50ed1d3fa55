"""Fitting a query adapter: what it learns, what it must not learn, and that its loss is the loss of the paper."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.evaluate.retrieval.comparison import compare
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.training.adapter import fit_adapter, fit_by_folds, validation_folds
from llama_index_embed_plus.training.adapter_data import Pairs, read_pairs
from llama_index_embed_plus.training.adapter_loss import AdapterLoss
from llama_index_embed_plus.training.adapter_maps import AdamW, fitting_map
from llama_index_embed_plus.training.settings import SOURCES, AdapterSettings
from llama_index_embed_plus.training.trainer.progress import Meter
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import SpaceMismatchError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, Passage, Query, ScoredText
from qdrant_tools.search.adapters import MAPS, unfitted

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


def threads_of_blas():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_the_small_products_of_a_fit_take_one_thread_and_later_ones_all_again(collection, encoder):
    seen = []
    with threadpool_limits(limits=2, user_api="blas"):
        assert threads_of_blas() == {2}
        examples = [example(i) for i in range(20)]
        fit_adapter(
            collection,
            examples,
            encoder,
            AdapterSettings(max_epochs=2),
            progress=lambda _: seen.append(threads_of_blas()),
        )
        assert threads_of_blas() == {2}
    assert seen == [{1}, {1}]


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
    assert report.validation_loss[report.best_epoch] == min(report.validation_loss)


@pytest.mark.parametrize("kind", MAPS)
def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(collection, encoder, kind):
    def fitted(seed):
        settings = AdapterSettings(kind=kind, max_epochs=3, sampled=20, batch_size=8, learning_rate=3e-3, seed=seed)
        return fit_adapter(collection, [example(i) for i in range(40)], encoder, settings)[0]

    assert fitted(0).build == fitted(0).build != fitted(1).build


@pytest.mark.parametrize("kind", MAPS)
def test_what_was_fitted_is_what_serves(kind):
    start = unfitted(kind, 24, width=6)
    fitting = fitting_map(start)
    queries = unit_rows(50, 24)
    for moved in (False, True):
        if moved:
            for number, array in enumerate(fitting.parameters.values()):
                array += 0.2 * np.random.default_rng(number).standard_normal(array.shape)
        np.testing.assert_allclose(fitting.fitted()(queries), fitting(queries), atol=1e-6)
        assert np.allclose(fitting(queries), start(queries), atol=1e-6) != moved


def test_a_rotation_is_orthogonal_however_far_it_was_moved():
    fitting = fitting_map(unfitted("orthogonal", 64))
    fitting.parameters["free"] += 3 * np.random.default_rng(0).standard_normal((64, 64))
    rotation = fitting.fitted().arrays()["rotation"]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(64), atol=1e-5)


def test_wrong_answers_teach_nothing_that_is_kept(collection, encoder):
    """Positives that belong to other queries: what is learned of them holds for no query that was left out."""
    wrong = [example(i, positive=(i * 37 + 11) % PASSAGES) for i in range(90)]
    adapter, report = fit_adapter(collection, wrong, encoder, AdapterSettings(max_epochs=10))
    assert report.validation_loss[report.best_epoch] <= report.validation_loss[0]
    if report.best_epoch == 0:
        assert not adapter.weight.any()


def pairs(queries, stored, answers, *, mined=(), weights=None) -> Pairs:
    """Pairs with one row per (query, positive) of `answers`."""
    rows = [(query, positive) for query, positives in enumerate(answers) for positive in positives]
    query, positive = (np.array(column) for column in zip(*rows))
    weight = np.ones(len(rows)) if weights is None else np.array(weights)
    group = tuple(range(len(answers)))
    return Pairs(queries, stored, query, positive, weight, group, tuple(answers), mined or ((),) * len(answers))


def unit_rows(count: int, dimension: int, seed: int = 1):
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_loss_is_infonce_over_the_candidates_that_answer_nothing():
    queries, stored = unit_rows(3, 5), unit_rows(7, 5, seed=2)
    answers, weights = [(4, 5), (0,), (6,)], [1.0, 1.0, 2.0, 0.5]
    fit = AdapterLoss(pairs(queries, stored, answers, weights=weights), AdapterSettings(temperature=0.1))
    fitting = fitting_map(unfitted("full", 5))
    fitting.parameters["weight"] += 0.1 * unit_rows(5, 5, seed=3)

    expected = []
    for q, p in ((0, 4), (0, 5), (1, 0), (2, 6)):
        adapted = queries[q] + queries[q] @ fitting.parameters["weight"]
        scores = stored @ (adapted / np.linalg.norm(adapted)) / 0.1
        against = [p, *(n for n in range(7) if n not in answers[q])]
        expected.append(-np.log(np.exp(scores[p]) / np.exp(scores[against]).sum()))
    loss, _ = fit.loss(fitting, np.arange(4), np.arange(7))
    assert loss == pytest.approx(np.average(expected, weights=weights), abs=1e-5)


def loss_by_torch(fit, kind, parameters, rows, candidates):
    """The loss as torch's own operations spell it, on leaves that collect gradients."""
    given, t = fit.pairs, fit.settings.temperature
    stored, queries = torch.from_numpy(given.stored), torch.from_numpy(given.queries[given.query[rows]])
    p = parameters
    if kind == "orthogonal":
        one, skew = torch.eye(len(p["free"]), dtype=torch.float64), p["free"] - p["free"].T
        mapped = queries @ torch.linalg.solve(one - skew, one + skew)
    else:
        moved = {
            "full": lambda: queries @ p["weight"],
            "low_rank": lambda: (queries @ p["down"]) @ p["up"],
            "mlp": lambda: torch.tanh(queries @ p["down"] + p["bias"]) @ p["up"],
        }[kind]()
        mapped = queries + moved
    adapted = torch.nn.functional.normalize(mapped, dim=1)
    hidden = torch.from_numpy(fit.hidden(rows, candidates))
    own = (adapted * stored[given.positive[rows]]).sum(dim=1, keepdim=True) / t
    scores = torch.cat([own, (adapted @ stored[candidates].T / t).masked_fill(hidden, -torch.inf)], dim=1)
    losses = torch.nn.functional.cross_entropy(scores, torch.zeros(len(rows), dtype=torch.long), reduction="none")
    weights = torch.from_numpy(given.weight[rows])
    return (losses * weights).sum() / weights.sum()


@pytest.mark.parametrize("kind", MAPS)
def test_every_step_is_the_one_that_torch_takes(kind):
    """Gradients against autograd and steps against torch's AdamW, in double precision, far from the identity."""
    random = np.random.default_rng(3)
    queries, stored = (unit_rows(count, 12, seed=count).astype(np.float64) for count in (9, 40))
    weights = random.uniform(0.2, 2.0, 10).tolist()
    given = pairs(queries, stored, [(1, 30), *((number,) for number in range(2, 10))], weights=weights)
    fit = AdapterLoss(given, AdapterSettings(kind=kind, temperature=0.07))
    fitting = fitting_map(unfitted(kind, 12, width=5))
    for name, array in fitting.parameters.items():
        fitting.parameters[name] = array + 0.3 * random.standard_normal(array.shape)
    theirs = {name: torch.tensor(array, requires_grad=True) for name, array in fitting.parameters.items()}
    ours, adam = AdamW(fitting.parameters, 0.05, 0.1), torch.optim.AdamW(theirs.values(), lr=0.05, weight_decay=0.1)
    for step in range(6):
        rows, candidates = random.permutation(10)[:7], np.unique(random.integers(40, size=25))
        adam.zero_grad()
        expected = loss_by_torch(fit, kind, theirs, rows, candidates)
        expected.backward()
        loss, gradients = fit.loss(fitting, rows, candidates)
        assert loss == pytest.approx(expected.item(), rel=1e-10)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, theirs[name].grad.numpy(), rtol=1e-8, atol=1e-12, err_msg=f"{step}")
        ours.step(gradients)
        adam.step()
        for name, array in fitting.parameters.items():
            np.testing.assert_allclose(array, theirs[name].detach().numpy(), rtol=1e-8, atol=1e-12)


def test_positives_and_their_near_duplicates_are_never_negatives():
    stored = np.eye(4, dtype=np.float32)
    stored[3] = [0.99, np.sqrt(1 - 0.99**2), 0, 0]  # nearly the same as passage 0
    fit = AdapterLoss(pairs(unit_rows(2, 4), stored, [(0, 2), (1,)]), AdapterSettings(same_passage_similarity=0.95))
    rows, everything = np.arange(3), np.arange(4)
    assert fit.hidden(rows, everything).tolist() == [
        [True, False, True, True],
        [True, False, True, True],
        [False, True, False, False],
    ]
    some = np.array([1, 3])
    assert fit.hidden(rows, some).tolist() == [[False, True], [False, True], [True, False]]


@pytest.mark.parametrize(
    ("negatives", "candidates"),
    [(("in_batch",), {0, 1}), (("mined",), {7, 8}), (("in_batch", "mined"), {0, 1, 7, 8}), (SOURCES, set(range(10)))],
)
def test_negatives_come_from_where_the_settings_say(negatives, candidates):
    given = pairs(unit_rows(3, 4), unit_rows(10, 4), [(0,), (1,), (2,)], mined=((7,), (8,), (9,)))
    drawn = AdapterLoss(given, AdapterSettings(negatives=negatives)).candidates(
        np.array([0, 1]), np.random.default_rng(0)
    )
    assert set(drawn.tolist()) == candidates


def test_of_a_large_collection_a_batch_sees_a_sample_that_changes():
    given = pairs(unit_rows(3, 4), unit_rows(500, 4), [(0,), (1,), (2,)])
    objective, random = AdapterLoss(given, AdapterSettings(sampled=20)), np.random.default_rng(0)
    first, second = (set(objective.candidates(np.array([0, 1]), random).tolist()) for _ in range(2))
    assert first != second and first & second >= {0, 1} and len(first) <= 22


def test_equal_queries_share_their_answers_and_are_in_one_fold(collection, encoder):
    class Shouting(Rotated):
        def encode_queries(self, texts):
            return super().encode_queries([text.strip() for text in texts])

    twice = [example(i) for i in range(20)] + [Example(f" {i}", (ScoredText(f"p{i + 50}", ""),)) for i in range(20)]
    read = read_pairs(collection, twice, Shouting(), most=1000, seed=0)
    assert read.group == (*range(20), *range(20)) and all(len(known) == 2 for known in read.known)
    folds = [
        {read.group[q] for q in read.query[rows].tolist()} for rows in validation_folds(read, AdapterSettings(folds=3))
    ]
    assert set.union(*folds) == set(range(20)) and sum(map(len, folds)) == 20 and all(len(fold) > 5 for fold in folds)


def test_queries_that_share_an_answer_are_in_one_fold():
    """Else a passage that was memorised would look like something learned."""
    chain = [(0, 1), (1, 2), (2, 3)]
    alone = [(number,) for number in range(4, 13)]
    given = pairs(unit_rows(12, 4), unit_rows(13, 4), [*chain, *alone])
    folds = [set(given.query[rows].tolist()) for rows in validation_folds(given, AdapterSettings(folds=4))]
    assert sorted(map(len, folds)) == [3, 3, 3, 3] and {0, 1, 2} in folds
    joined = pairs(unit_rows(6, 4), unit_rows(7, 4), [(number, number + 1) for number in range(6)])
    by_query = [set(joined.query[rows].tolist()) for rows in validation_folds(joined, AdapterSettings(folds=3))]
    assert sorted(map(len, by_query)) == [2, 2, 2], "where all queries are joined, each counts by itself"


def test_of_many_queries_only_as_many_are_left_out_as_are_needed_to_choose():
    given = pairs(unit_rows(100, 4), unit_rows(100, 4), [(number,) for number in range(100)])
    assert [len(rows) for rows in validation_folds(given, AdapterSettings(max_validation=25))] == [20, 20]
    _, history = fit_by_folds(AdapterLoss(given, AdapterSettings(max_validation=25, max_epochs=1)), unfitted("full", 4))
    assert history.validation_queries == 24


def test_clicks_that_follow_the_base_teach_all_the_same():
    """Of every query the base's first hit was clicked, right or not: by its ranks nothing could be better than it."""
    encoder, random = Rotated(), np.random.default_rng(5)
    numbers = np.arange(PASSAGES)
    # near their passages, but turned, so that the base is often wrong
    queries = encoder.encode_queries([str(number) for number in numbers])
    stored = encoder.passages.astype(np.float32)
    right = (queries @ stored.T).argmax(axis=1) == numbers
    learned = random.permutation(np.flatnonzero(right))[: int(right.sum() * 0.7)]
    given = pairs(queries[learned], stored, [(int(number),) for number in learned])
    fitted, history = fit_by_folds(
        AdapterLoss(given, AdapterSettings(learning_rate=3e-3, batch_size=8)), unfitted("full", DIMENSION)
    )
    others = np.setdiff1d(numbers, learned)
    better = (fitted(queries[others]) @ stored.T).argmax(axis=1) == others
    assert history.best > 0 and better.sum() > right[others].sum()


def test_memory_does_not_grow_with_queries_times_stored_vectors():
    """A mask of 10,000 queries times 50,000 stored vectors would be 500 megabytes."""
    code = """
import numpy as np
from qdrant_tools.search.adapters import unfitted
from llama_index_embed_plus.training.adapter_data import Pairs
from llama_index_embed_plus.training.adapter import fit_by_folds
from llama_index_embed_plus.training.adapter_loss import AdapterLoss
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.validation import unit_rows
n, m = 10_000, 50_000
queries, stored = (unit_rows(np.random.default_rng(0).standard_normal((rows, 8), np.float32)) for rows in (n, m))
known = tuple((i,) for i in range(n))
pairs = Pairs(queries, stored, np.arange(n), np.arange(n), np.ones(n), tuple(range(n)), known, ((),) * n)
settings = AdapterSettings(max_epochs=1, batch_size=512, sampled=1000, max_validation=200)
peak = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) / 1024
before = peak()
fit_by_folds(AdapterLoss(pairs, settings), unfitted("full", 8))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 250, "megabytes"


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
    with pytest.raises(TrainingError, match="1 of 1 examples .* expected at least 2: mine more searches") as few:
        fit_adapter(collection, [example(1)], encoder)
    assert "embed-plus mine COLLECTION LOG --out EXAMPLES" in few.value.on_command_line
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


def test_one_query_is_always_left_to_learn_from_and_one_to_judge_by():
    folds = validation_folds(pairs(unit_rows(2, 4), unit_rows(3, 4), [(0,), (1,)]), AdapterSettings())
    assert sorted(rows.tolist() for rows in folds) == [[0], [1]]


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
    assert [row for row in shown if row[0] == 1][0][2] == {"validation loss": report.validation_loss[1]}


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": 0},
        {"learning_rate": -1},
        {"folds": 1},
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
