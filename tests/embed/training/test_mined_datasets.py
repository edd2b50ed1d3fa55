"""What mining gives goes straight into sentence-transformers' trainer, as rows for ranking and as triplets."""

from __future__ import annotations

import pytest
from tiny import WordEncoder, numbered

from llama_index_embed_plus.training import ColumnSettings, TrainingData, datasets_for
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.records import Example, Label, ScoredText

A, B, C = (ScoredText(name, f"text {name}") for name in "abc")
EXAMPLES = [Example("q1", (A, B), (C,)), Example("q2", (A,), (B, C)), Example("q3", (A,))]
DATA = TrainingData.of(EXAMPLES)


def test_ranking_rows_hold_every_example_in_a_data_set_by_its_number_of_negatives():
    datasets = datasets_for("multiple_negatives", DATA)
    assert {name: len(rows) for name, rows in datasets.items()} == {
        "negatives_0": 1,
        "negatives_1": 2,
        "negatives_2": 1,
    }
    assert datasets["negatives_2"].to_list() == [
        {"anchor": "q2", "positive": "text a", "negative_1": "text b", "negative_2": "text c"}
    ]


def test_at_most_so_many_negatives_are_taken():
    datasets = datasets_for("multiple_negatives", DATA, ColumnSettings(negatives=1))
    assert {name: len(rows) for name, rows in datasets.items()} == {"negatives_0": 1, "negatives_1": 3}


def test_triplets_pair_every_positive_with_every_negative():
    rows = datasets_for("triplet", DATA.with_negatives())["triplets"].to_list()
    assert [(row["anchor"], row["positive"][-1], row["negative"][-1]) for row in rows] == [
        ("q1", "a", "c"),
        ("q1", "b", "c"),
        ("q2", "a", "b"),
        ("q2", "a", "c"),
    ]


@pytest.fixture(scope="module")
def mined():
    encoder = WordEncoder(dimension=256)
    collection = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    index_passages(collection, numbered(40), encoder)
    labels = [Label(f"passage about topic{i % 7} thing{i}", f"p{i}") for i in range(16)]
    return mine(collection, labels, encoder, settings=MiningSettings(negatives=2, max_share=None))


@pytest.mark.parametrize("name", ["multiple_negatives", "triplet"])
def test_a_trainer_of_ones_own_trains_on_mined_examples(mined, name, tmp_path):
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
    datasets = datasets_for(name, TrainingData.of(mined))
    loss = MultipleNegativesRankingLoss(model) if name == "multiple_negatives" else TripletLoss(model)
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=2, report_to=[], disable_tqdm=True, dataloader_pin_memory=False
    )
    trained = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=datasets, loss=loss).train()
    assert trained.global_step == 2 and trained.training_loss > 0
