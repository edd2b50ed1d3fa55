"""Fitting a query adapter: what it learns, what it must not learn, and what it says of itself."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.evaluate.retrieval.comparison import compare
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.read import read_data
from llama_index_embed_plus.training.adapter.run import fit_adapter
from llama_index_embed_plus.training.settings import AdapterSettings
from llama_index_embed_plus.training.trainer.progress import Meter
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import SpaceMismatchError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, Passage, Query, ScoredText

DIMENSION, PASSAGES = 16, 120
QUICK = AdapterSettings(steps=(4,))


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
    adapter, report = fit_adapter(collection, [example(i) for i in range(90)], encoder)
    held_out = [Query(f"q{i}", str(i)) for i in range(90, PASSAGES)]
    qrels = {f"q{i}": {f"p{i}": 1} for i in range(90, PASSAGES)}
    before = evaluate_retrieval(collection, held_out, qrels, encoder)
    after = evaluate_retrieval(collection, held_out, qrels, AdaptedEncoder(encoder, adapter))
    assert compare(before, after).proves_better
    assert adapter.kind == "full" and report.losses[-1] < report.losses[0]
    assert report.validation.low > 0 and report.validation_queries == 90
    assert report.candidates[report.chosen] == min(report.candidates.values()) < report.candidates["identity"]
    # no passage is long enough for a pseudo-query, and of one answer each the two losses are the same
    assert len(report.candidates) == 12 and not any(name.startswith("each") for name in report.candidates)


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(collection, encoder):
    def fitted(seed):
        settings = AdapterSettings(steps=(1, 4), negatives=60, seed=seed)
        return fit_adapter(collection, [example(i) for i in range(40)], encoder, settings)[0]

    assert fitted(0).build == fitted(0).build != fitted(1).build


def test_what_is_learned_of_wrong_answers_holds_for_no_query_that_was_left_out(collection, encoder):
    wrong = [example(i, positive=(i * 37 + 11) % PASSAGES) for i in range(90)]
    _, learned = fit_adapter(collection, [example(i) for i in range(90)], encoder)
    _, report = fit_adapter(collection, wrong, encoder)
    assert report.validation.difference < 0.1 < learned.validation.difference
    assert report.candidates["identity"] - report.candidates[report.chosen] < 0.5


def test_the_map_has_the_spectral_norm_one(collection, encoder):
    adapter, _ = fit_adapter(collection, [example(i) for i in range(40)], encoder, QUICK)
    assert np.linalg.norm(adapter.weight + np.eye(DIMENSION), 2) == pytest.approx(1, abs=1e-5)


def test_where_nothing_may_be_tried_the_identity_comes_out(collection, encoder):
    adapter, report = fit_adapter(collection, [example(i) for i in range(40)], encoder, AdapterSettings(candidates=()))
    assert not adapter.weight.any() and report.chosen == "identity" and list(report.candidates) == ["identity"]


def test_equal_queries_are_one_with_the_answers_of_all(collection):
    class Shouting(Rotated):
        def encode_queries(self, texts):
            return super().encode_queries([text.strip() for text in texts])

    twice = [example(i) for i in range(20)] + [Example(f" {i}", (ScoredText(f"p{i + 50}", ""),)) for i in range(20)]
    read = read_data(collection, twice, Shouting(), AdapterSettings())
    assert len(read.data.queries) == 20 and (read.pairs, read.examples) == (40, 40)
    assert all(len(rows) == 2 for rows in read.data.answers) and read.data.weights.tolist() == [2.0] * 20


def test_passages_that_are_hidden_from_a_fit_are_neither_its_answers_nor_its_negatives(collection, encoder):
    """As if the collection did not hold them: whoever answers by them has no answer."""
    examples = [example(i) for i in range(40)]
    hidden = ["p3", "p80", "not there"]
    whole, _ = fit_adapter(collection, examples, encoder, QUICK)
    adapter, report = fit_adapter(collection, examples, encoder, QUICK, hidden=hidden)
    assert report.validation_queries == 39
    assert not np.array_equal(adapter.map.weight, whole.map.weight)
    read = read_data(collection, examples, encoder, QUICK, hidden=hidden)
    by_rows = fit_map(read.data, QUICK, hidden=read.hidden)
    assert len(read.hidden) == 2
    np.testing.assert_array_equal(adapter.map.weight, by_rows.weight)


def test_a_sample_of_the_collection_holds_positives_mined_negatives_and_what_queries_find(collection, encoder):
    examples = [
        Example(str(i), (ScoredText(f"p{i}", ""),), (ScoredText(f"p{i + 50}", "", 0.5),)) for i in range(0, 40, 2)
    ]
    read = read_data(collection, examples, encoder, AdapterSettings(max_stored_vectors=45))
    assert (read.pairs, len(read.data.hard)) == (20, 20)
    stored = {row.tobytes() for row in read.data.stored}
    found = collection.search_vectors(encoder.encode_queries(["0", "38"]), k=50)
    wanted = [int(hit.id[1:]) for hits in found for hit in hits] + [*range(0, 40, 2), *range(50, 90, 2)]
    assert all(row.tobytes() in stored for row in collection_rows(collection, wanted))


def collection_rows(collection, numbers):
    found = collection.fetch([f"p{number}" for number in numbers], with_vectors=True)
    return [found[f"p{number}"].vector for number in numbers]


def test_what_cannot_be_fitted_is_one_clear_error(collection, encoder):
    unknown = Example("3", (ScoredText("nowhere", ""),))
    _, report = fit_adapter(collection, [example(1), example(2), unknown], encoder, QUICK)
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
    with pytest.raises(TrainingError, match="no passage of 'numbers' is long enough"):
        fit_adapter(collection, None, encoder)


def test_a_vector_that_is_no_number_is_named(collection):
    class Broken(Rotated):
        def encode_queries(self, texts):
            vectors = super().encode_queries(texts)
            vectors[1, 3] = np.nan
            return vectors

    with pytest.raises(TrainingError, match=r"1 texts hold NaN or infinity, the first is query '1'"):
        fit_adapter(collection, [example(i) for i in range(90)], Broken())


def test_a_loss_that_is_no_number_is_an_error(collection, encoder):
    with pytest.raises(TrainingError, match=r"the loss became .* \(learning_rate is 0.3, temperature 1e-39\)"):
        fit_adapter(collection, [example(i) for i in range(90)], encoder, AdapterSettings(temperature=1e-39))


def test_a_collection_of_another_space_is_refused(collection):
    class Elsewhere(Rotated):
        space = "elsewhere@000000000000"

    with pytest.raises(SpaceMismatchError, match="holds vectors of 'rotated@"):
        fit_adapter(collection, [example(1), example(2)], Elsewhere())


def test_a_new_adapter_takes_the_place_of_the_one_that_serves(collection, encoder):
    """It is fitted for the model's own query vectors, so an encoder that carries one already gives the same."""
    examples = [example(i) for i in range(40)]
    first, _ = fit_adapter(collection, examples, encoder, QUICK)
    serving = AdaptedEncoder(encoder, QueryAdapter(np.eye(DIMENSION, dtype=np.float32)[::-1].copy(), encoder.space))
    second, _ = fit_adapter(collection, examples, serving, QUICK)
    assert second.build == first.build
    replaced = AdaptedEncoder(serving, first).encode_queries(["1", "2"])
    np.testing.assert_array_equal(replaced, AdaptedEncoder(encoder, first).encode_queries(["1", "2"]))


def test_every_fit_is_told_and_the_validation_at_the_end(collection, encoder):
    shown = []
    meter = Meter(QUICK.fits, show=lambda meter: shown.append((meter.steps, dict(meter.metrics))))
    _, report = fit_adapter(collection, [example(i) for i in range(40)], encoder, QUICK, progress=meter)
    assert meter.steps == QUICK.fits == 10
    assert shown[-1][1] == {"loss out of fold": report.candidates[report.chosen]}


def test_a_fit_needs_no_torch(tmp_path):
    """From a collection to an adapter, with examples and without, in a process where torch cannot be imported."""
    code = f"""
import sys
sys.modules["torch"] = None
from contextlib import closing
import numpy as np
from qdrant_tools import CollectionManager, Example, Passage, connect
from qdrant_tools.records import ScoredText
from llama_index_embed_plus import fit_adapter
words = "one two three four five six seven eight nine ten red blue green cat dog bird sun moon sea hill".split()
random = np.random.default_rng(0)
directions = dict(zip(words, random.normal(size=(len(words), 8))))
class Words:
    dimension, space = 8, "words@000000000000"
    def encode_passages(self, texts):
        rows = np.array([sum((directions[w] for w in t.split()), np.full(8, 0.3)) for t in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    encode_queries = encode_passages
texts = [" ".join(random.permutation(words)[:12]) for _ in range(60)]
with closing(connect({str(tmp_path / "here")!r})) as client:
    docs = CollectionManager(client).ensure("docs", Words())
    docs.index([Passage(str(i), text) for i, text in enumerate(texts)])
    examples = [Example(" ".join(t.split()[3:6]), (ScoredText(str(i), t),)) for i, t in enumerate(texts[:20])]
    for given in (examples, None):
        adapter, report = fit_adapter(docs, given)
        adapter.save({str(tmp_path)!r} / __import__("pathlib").Path(str(given is None)))
        print(report.chosen, len(report.pseudo))
assert not any(name.split(".")[0] == "torch" and module for name, module in sys.modules.items())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # a third of the passages is spared for known items
    assert done.stdout.splitlines()[-1] == "pseudo 40"
    assert QueryAdapter.load(tmp_path / "True").dimension == 8


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": 0},
        {"learning_rate": -1},
        {"folds": 1},
        {"candidates": ("quadratic",)},
        {"steps": ()},
        {"steps": (4, 2)},
        {"steps": (0,)},
        {"whitening": -1},
        {"pseudo_queries": 0},
        {"spared": -1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_at_once(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        AdapterSettings(**bad)
