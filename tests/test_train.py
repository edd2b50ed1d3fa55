"""Training the whole encoder or LoRA: tiny random models, few examples, the real library."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from models import TEXTS, save_model, save_transformer
from sentence_transformers import SentenceTransformer

from llama_index_embed_plus import artifact
from llama_index_embed_plus.encoders import open_encoder
from llama_index_embed_plus.errors import TrainingError, UsageError
from llama_index_embed_plus.train.loop import _Trainer
from llama_index_embed_plus.train.settings import LoraSettings, Projection, TrainSettings
from llama_index_embed_plus.train.train import train
from qdrant_tools.records import Example, ScoredText

WORDS = ("cat", "dog", "bird", "tree", "river", "stone", "red", "blue")
QUICK = {"batch_size": 4, "max_tokens": 16, "learning_rate": 1e-3}


def examples(negatives: int = 1) -> list[Example]:
    return [
        Example(
            f"what is the {word}",
            (ScoredText(word, f"the {word} runs and sleeps"),),
            tuple(ScoredText(f"{word}-{i}", f"not the {word} " + "slow " * (i + 1)) for i in range(negatives)),
        )
        for word in WORDS
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(folder, prompts={"query": "query : ", "document": "passage : "})
    return folder


def vectors(folder) -> np.ndarray:
    return open_encoder(folder, backend="torch").encode_passages(TEXTS)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_changes_the_encoder_and_sentence_transformers_reads_the_result(base, tmp_path, method):
    train(base, examples(), tmp_path / "tuned", TrainSettings(method=method, epochs=2, **QUICK))
    tuned = open_encoder(tmp_path / "tuned", backend="torch")
    assert tuned.space != open_encoder(base).space
    assert np.abs(vectors(base) - vectors(tmp_path / "tuned")).max() > 1e-3
    theirs = SentenceTransformer(str(tmp_path / "tuned"), device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(tuned.encode_passages(TEXTS), theirs, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]  # no checkpoint, no scratch
