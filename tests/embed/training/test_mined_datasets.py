"""What mining gives goes straight into sentence-transformers' trainer, as tuples and as triplets."""

from __future__ import annotations

import pytest
from tiny import WordEncoder, numbered

from llama_index_embed_plus.training.data.columns import to_dataset, to_datasets, to_triplets, to_tuples
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.records import Example, Label, ScoredText

A, B, C = (ScoredText(name, f"text {name}") for name in "abc")
EXAMPLES = [Example("q1", (A, B), (C,)), Example("q2", (A,), (B, C)), Example("q3", (A,))]


def test_tuples_have_one_shape_and_leave_out_what_does_not_fit():
    assert to_tuples(EXAMPLES, negatives=2).to_list() == [
        {"anchor": "q2", "positive": "text a", "negative_1": "text b", "negative_2": "text c"}
    ]
    assert len(to_tuples(EXAMPLES, negatives=1)) == 3 and len(to_tuples(EXAMPLES, negatives=0)) == 4
    assert to_tuples([], negatives=1).column_names == ["anchor", "positive", "negative_1"]


def test_triplets_pair_every_positive_with_every_negative():
    rows = to_triplets(EXAMPLES).to_list()
    assert [(row["anchor"], row["positive"][-1], row["negative"][-1]) for row in rows] == [
        ("q1", "a", "c"),
        ("q1", "b", "c"),
        ("q2", "a", "b"),
        ("q2", "a", "c"),
    ]


def test_every_example_is_in_the_datasets_by_number_of_negatives():
    assert {name: len(rows) for name, rows in to_datasets(EXAMPLES).items()} == {
        "negatives_0": 1,
        "negatives_1": 2,
        "negatives_2": 1,
    }


def test_one_door_gives_either_shape():
    assert to_dataset(EXAMPLES).to_list() == to_tuples(EXAMPLES, negatives=2).to_list()
    assert to_dataset(EXAMPLES, negatives=1).to_list() == to_tuples(EXAMPLES, negatives=1).to_list()
    assert to_dataset(iter(EXAMPLES), shape="triplets").to_list() == to_triplets(EXAMPLES).to_list()
    assert to_dataset([]).column_names == ["anchor", "positive"]
    for wrong in ({"shape": "pairs"}, {"shape": "triplets", "negatives": 2}):
        with pytest.raises(UsageError, match="expected 'tuples', or 'triplets' alone"):
            to_dataset(EXAMPLES, **wrong)


@pytest.fixture(scope="module")
def mined():
    encoder = WordEncoder(dimension=256)
    collection = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    index_passages(collection, numbered(40), encoder)
    labels = [Label(f"passage about topic{i % 7} thing{i}", f"p{i}") for i in range(16)]
    return mine(collection, labels, encoder, settings=MiningSettings(negatives=2, max_share=None))


@pytest.mark.parametrize("shape", ["tuples", "triplets"])
def test_a_trainer_trains_on_mined_examples(mined, shape, tmp_path):
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss, TripletLoss
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = sorted(
        {word for e in mined.examples for text in (e.query, *(p.text for p in e.negatives)) for word in text.split()}
    )
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0} | {word: i for i, word in enumerate(words, 1)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    dataset = to_dataset(mined, shape=shape)
    loss = MultipleNegativesRankingLoss(model) if shape == "tuples" else TripletLoss(model)
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=2, report_to=[], disable_tqdm=True, dataloader_pin_memory=False
    )
    trained = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss).train()
    assert trained.global_step == 2 and trained.training_loss > 0
