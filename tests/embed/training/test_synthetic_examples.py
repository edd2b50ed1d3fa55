"""Queries that nobody asked, beside real ones: read, weighed, drawn, held out last, and kept from what is held out."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import save_model
from tiny import WordEncoder

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import LeakError, TrainingError
from llama_index_embed_plus.training.adapter.read import read_data
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.records import Distilled, TrainingData
from llama_index_embed_plus.training.data.splits import SplitSettings
from llama_index_embed_plus.training.data.synthetic import hold_out, is_synthetic, mixed
from llama_index_embed_plus.training.proof.proof import ProofSettings
from llama_index_embed_plus.training.proof.report import read_report
from llama_index_embed_plus.training.run import train
from llama_index_embed_plus.training.settings import AdapterSettings, TrainSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.mining.file import mine_to_jsonl, read_examples
from qdrant_tools.records import SYNTHETIC, Example, HeldOut, Label, Passage, Query, ScoredText

WORDS = ("cat", "dog", "bird", "tree", "river", "stone", "red", "blue", "slow", "fast", "one", "two")
PASSAGES = [Passage(f"p{i}", f"the {word} runs and sleeps") for i, word in enumerate(WORDS)]


def example(i: int, query: str = "", *, synthetic: bool = False, weight: float = 1.0) -> Example:
    passage = PASSAGES[i]
    return Example(query or f"what is {WORDS[i]}", (ScoredText(passage.id, passage.text),), (), weight, synthetic)


def rows(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.mark.parametrize(
    ("row", "synthetic"),
    [
        (example(0, synthetic=True).as_row(), True),
        (example(0).as_row(), False),
        ({"query": "who runs", "positive": "the cat runs", "synthetic": True}, True),
        ({"query": "who runs", "positive": "the cat runs", "synthetic": "no"}, False),
        ({"query": "who runs", "positive": "the cat runs", "negative": "a dog sleeps", "synthetic": "True"}, True),
        ({"query": "who runs", "pos": ["the cat runs"], "neg": ["a dog sleeps"], "synthetic": 1}, True),
        (Distilled("who runs", "the cat runs", ("a dog sleeps",), (2.5,), True).as_row(), True),
        (Distilled("who runs", "the cat runs", ("a dog sleeps", "a tree"), (2.5, 1.5)).as_row(), False),
    ],
)
def test_rows_of_every_kind_with_queries_say_whether_somebody_asked(tmp_path, row, synthetic):
    data = read_training_data(rows(tmp_path / "rows.jsonl", row))
    assert [is_synthetic(found) for found in data.rows] == [synthetic] and data.ignored == ()


def test_margins_that_are_written_are_read_back(tmp_path):
    written = (
        Distilled("who runs", "the cat runs", ("a dog sleeps", "a tree"), (2.5, -1.5), True),
        Distilled("who sleeps", "the dog sleeps", ("a stone",), (0.25,)),
    )
    data = read_training_data(rows(tmp_path / "rows.jsonl", *(row.as_row() for row in written)))
    assert (data.kind, data.rows) == ("distillation", written)


def test_a_field_of_that_name_that_says_something_else_is_refused_with_a_way_out(tmp_path):
    row = {"query": "who runs", "positive": "the cat runs", "synthetic": "by a model"}
    with pytest.raises(InputError, match="'synthetic' is 'by a model', expected true or false.*--ignore"):
        read_training_data(rows(tmp_path / "rows.jsonl", row))
    assert len(read_training_data(tmp_path / "rows.jsonl", ignore=["synthetic"])) == 1


MIXED = [example(i, weight=2.0) for i in range(3)] + [example(i, f"{WORDS[i]} runs", synthetic=True) for i in range(12)]


def test_weights_are_multiplied_beside_real_examples_only():
    data = mixed(TrainingData.of(MIXED), 0.25, weighted=True)
    assert [row.weight for row in data.rows] == [2.0] * 3 + [0.25] * 12 and data.left_out == 0
    for alone in (MIXED[:3], MIXED[3:]):
        assert mixed(TrainingData.of(alone), 0.25, weighted=True).rows == tuple(alone)
    without = mixed(TrainingData.of(MIXED), 0.0, weighted=True)
    assert without.rows == tuple(MIXED[:3]) and without.left_out == 12
    assert mixed(TrainingData.of(MIXED[3:]), 0.0, weighted=True).rows == tuple(MIXED[3:]), "0 means nothing alone"


@given(weight=st.floats(0, 0.99), seed=st.integers(0, 100), kind=st.sampled_from(["examples", "margins"]))
def test_without_weights_a_share_is_drawn_that_depends_on_no_order(weight, seed, kind):
    made = [example(i % 12, f"query {i}", synthetic=i >= 40) for i in range(400)]
    if kind == "margins":
        made = [Distilled(e.query, e.positives[0].text, ("a tree",), (1.0,), e.synthetic) for e in made]
    data = mixed(TrainingData.of(made), weight, weighted=False, seed=seed)
    assert data.rows[:40] == tuple(made[:40]) and data.left_out == 400 - len(data)
    assert abs((len(data) - 40) / 360 - weight) < 0.15  # 5.7 standard deviations
    backwards = mixed(TrainingData.of(made[::-1]), weight, weighted=False, seed=seed)
    assert backwards.rows == data.rows[::-1]
    more = mixed(TrainingData.of(made), min(0.99, weight + 0.1), weighted=False, seed=seed)
    assert set(data.rows) <= set(more.rows)


def test_rows_cannot_be_drawn_more_than_once():
    with pytest.raises(UsageError, match="synthetic_weight is 3, and this loss takes no weights"):
        mixed(TrainingData.of(MIXED), 3.0, weighted=False)
    with pytest.raises(UsageError, match="synthetic_weight"):
        TrainSettings(synthetic_weight=-0.5)
    with pytest.raises(UsageError, match="synthetic_weight"):
        TrainSettings(synthetic_weight=float("nan"))


def test_real_queries_alone_are_held_out_where_there_are_any():
    left, held_out = hold_out(MIXED, SplitSettings(dev=0.0, test=0.4))
    assert not held_out.synthetic and len(held_out.queries) == 1
    assert sum(row.synthetic for row in left) == 12 and sum(not row.synthetic for row in left) == 2
    left, held_out = hold_out(MIXED[3:], SplitSettings(dev=0.0, test=0.4))
    assert held_out.synthetic and len(held_out.queries) + len(left) == 12
    assert not HeldOut.of_examples(MIXED).synthetic and len(HeldOut.of_examples(MIXED).queries) == 3
    assert HeldOut.of_examples(MIXED[3:]).synthetic


def test_mining_keeps_the_mark_and_a_query_that_somebody_asked_has_none(tmp_path):
    encoder = WordEncoder(dimension=256)
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("docs", encoder)
        collection.index(PASSAGES)
        labels = [
            Label("what is cat", "p0", 1.0, "click"),
            Label("What is cat?", "p0", 1.0, SYNTHETIC),
            Label("dog runs", "p1", 1.0, SYNTHETIC),
            Label("dog runs", "p2", 0.0, "click"),
        ]
        settings = MiningSettings(negatives=2, depth=8, max_share=None, duplicate_similarity=None)
        found = {e.query: e.synthetic for e in mine(collection, iter(labels), encoder, settings=settings).examples}
        assert found == {"what is cat": False, "dog runs": True}
        file = tmp_path / "mined.jsonl"
        mine_to_jsonl(collection, iter(labels), encoder, path=file, settings=settings)
        assert {e.query: e.synthetic for e in read_examples(file)} == found
        with pytest.raises(UsageError, match="was begun with other labels"):
            asked = [replace(label, evidence="click") for label in labels]
            mine_to_jsonl(collection, asked, encoder, path=file, settings=settings)


@pytest.fixture
def base(tmp_path):
    save_model(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def docs(base):
    with closing(connect(":memory:")) as client:
        encoder = open_encoder(base, device="cpu")
        collection = CollectionManager(client).ensure("docs", encoder)
        collection.index(PASSAGES)
        yield collection


HELD = HeldOut((Query("q0", "search for one"), Query("q1", "search for two")), {"q0": {"p10": 1}, "q1": {"p11": 1}})
FAST = TrainSettings(
    method="adapter",
    adapter=AdapterSettings(steps=(2,)),
    proof=ProofSettings(known_items=0),
    leak_similarity=None,
    synthetic_weight=0.25,
)


def test_synthetic_examples_that_know_a_held_out_query_are_left_out_and_counted(base, docs, tmp_path):
    told = [*MIXED, example(4, "Search for ONE", synthetic=True)]
    report = train(base, told, tmp_path / "out", FAST, held_out=HELD, collection=docs)
    # passages p10 and p11 answer held-out queries; the last row asks one of them
    assert {name: report.data[name] for name in ("examples", "real", "synthetic", "synthetic_leaks")} == {
        "examples": 13,
        "real": 3,
        "synthetic": 10,
        "synthetic_leaks": 3,
    }
    assert report.settings["synthetic_weight"] == 0.25 and read_report(tmp_path / "out") == report
    assert "| synthetic | 10 |" in (tmp_path / "out" / "README.md").read_text()
    shared = train(base, told, tmp_path / "shared", replace(FAST, passages_apart=False), held_out=HELD, collection=docs)
    assert shared.data["synthetic_leaks"] == 1, "other questions about held-out passages are allowed"


def test_a_real_example_that_knows_a_held_out_query_is_refused_as_ever(base, docs, tmp_path):
    with pytest.raises(LeakError, match="1 of 16 training examples give held-out queries away .1 by same query"):
        train(base, [*MIXED, example(4, "search for one")], tmp_path / "out", FAST, held_out=HELD, collection=docs)
    of_answers = [example(i, f"{WORDS[i]} it is", synthetic=True) for i in (10, 11)]
    with pytest.raises(LeakError, match="all 2 examples are synthetic and know held-out queries.*--shared-passages"):
        train(base, of_answers, tmp_path / "out", FAST, held_out=HELD, collection=docs)


def test_an_adapter_weighs_them_in_its_loss_and_where_it_chooses(docs):
    encoder = docs.required_encoder()
    data = mixed(TrainingData.of(MIXED), 0.25, weighted=True)
    read = read_data(docs, data.examples, encoder, AdapterSettings())
    assert read.data.weights.tolist() == [2.0] * 3 + [0.25] * 12


def test_zero_leaves_them_out_of_training_as_if_they_were_not_there(base, docs, tmp_path):
    none = replace(FAST, synthetic_weight=0.0)
    mixture = train(base, MIXED, tmp_path / "mixture", none, collection=docs)
    alone = train(base, MIXED[:3], tmp_path / "alone", none, collection=docs)
    assert mixture.losses == alone.losses and mixture.data["left_out"] == 12 and mixture.data["synthetic"] == 0
    with pytest.raises(TrainingError, match="0 of 1 examples have a positive"):
        train(base, [example(0, weight=0.0)], tmp_path / "none", none, collection=docs)


def test_a_loss_that_takes_no_weights_gets_a_share(base, tmp_path):
    taught = [
        Distilled(f"query {i} {WORDS[i % 12]}", PASSAGES[i % 12].text, (PASSAGES[(i + 1) % 12].text,), (1.0,), i > 3)
        for i in range(24)
    ]
    settings = TrainSettings(loss="margin_mse", batch_size=8, max_tokens=16, synthetic_weight=0.5)
    report = train(base, TrainingData.of(taught), tmp_path / "out", settings)
    assert report.data["real"] == 4 and 3 <= report.data["synthetic"] <= 17
    assert report.data["rows"] == report.data["real"] + report.data["synthetic"] == 24 - report.data["left_out"]
