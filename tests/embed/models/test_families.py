"""Families: facts about published checkpoints, found by exact name, each with its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import save_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from llama_index_embed_plus.encoders.open import describe, open_encoder
from llama_index_embed_plus.models.families import FAMILIES, KNOWN_WEIGHTS, family_of
from llama_index_embed_plus.models.pooling import POOLING_MODES
from llama_index_embed_plus.models.weights import hash_weights, weight_files
from qdrant_tools.errors import UsageError


def test_every_fact_has_a_published_source():
    for family in FAMILIES:
        assert family.source.startswith("https://"), family.names


def test_every_pooling_is_one_that_is_computed():
    assert {family.pooling for family in FAMILIES} - {None} <= set(POOLING_MODES)


def test_no_checkpoint_is_listed_twice():
    names = [name for family in FAMILIES for name in family.names]

    assert len(names) == len({name.lower() for name in names})


@pytest.mark.parametrize(
    "folder",
    [
        "cache/models--BAAI--bge-small-en-v1.5/snapshots/5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
        "models/BAAI/bge-small-en-v1.5",
        "models/bge-small-en-v1.5",
        "models/BGE-small-en-v1.5",
    ],
)
def test_a_checkpoint_is_known_by_its_place_in_the_cache_or_its_folder(folder):
    family = family_of(Path(folder))

    assert family is not None
    assert family.query_prompt == "Represent this sentence for searching relevant passages: "


@pytest.mark.parametrize(
    "folder",
    [
        "cache/models--somebody--bge-small-en-v1.5/snapshots/5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
        "models/bge-small-en-v1.5-finetuned",
        "models/x",
    ],
)
def test_somebody_elses_copy_and_a_fine_tuned_one_are_not_the_published_checkpoint(folder):
    assert family_of(Path(folder)) is None


@pytest.mark.parametrize("name", ["msmarco-bert-base-dot-v5", "msmarco-distilbert-dot-v5"])
def test_the_dot_models_of_msmarco_pool_by_mean(name):
    family = family_of(Path("sentence-transformers") / name)

    assert family is not None and family.pooling == "mean" and family.for_dot


@pytest.mark.parametrize(
    "name",
    [
        *("sentence-transformers/multi-qa-mpnet-base-dot-v1", "sentence-transformers/msmarco-bert-base-dot-v5"),
        *("facebook/contriever", "facebook/contriever-msmarco"),
    ],
)
def test_a_model_trained_for_the_dot_product_is_made_unit_length_and_that_is_told(name, tmp_path, caplog):
    save_model(tmp_path / name)

    vectors = open_encoder(tmp_path / name, backend="torch").encode_queries(["a dog"])

    assert np.linalg.norm(vectors) == pytest.approx(1.0, abs=1e-5)
    assert "normalize=True is always here, and it was trained for the dot product" in caplog.text
    notes = describe(tmp_path / name).notes
    assert "it was trained for the dot product; here the lengths of its vectors are left out" in notes


def test_a_folder_that_says_dot_product_itself_is_told_too_and_one_that_ends_in_normalize_is_not(tmp_path, caplog):
    model = save_model(tmp_path / "model")
    model.similarity_fn_name = "dot"
    model.save(str(tmp_path / "dot"), create_model_card=False)
    SentenceTransformer(modules=[*model, Normalize()], similarity_fn_name="dot").save(
        str(tmp_path / "unit"), create_model_card=False
    )

    open_encoder(tmp_path / "unit", backend="torch")
    assert "dot product" not in caplog.text
    open_encoder(tmp_path / "dot", backend="torch")
    assert "trained for the dot product of vectors of any length (config_sentence_transformers.json)" in caplog.text


@pytest.mark.parametrize("name", ["nomic-ai/nomic-embed-text-v2-moe", "Snowflake/snowflake-arctic-embed-m-v2.0"])
def test_a_model_whose_architecture_is_its_own_code_says_so(name, tmp_path):
    save_model(tmp_path / name)

    with pytest.raises(UsageError, match="code in its own repository .* allow it in Python with Runtime"):
        open_encoder(tmp_path / name, backend="torch")


def test_the_known_weights_are_those_of_the_packaged_checkpoint(minilm):
    assert KNOWN_WEIGHTS[hash_weights(weight_files(minilm))] == "all-MiniLM-L6-v2"
