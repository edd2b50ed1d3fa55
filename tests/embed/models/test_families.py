"""Families: facts about published checkpoints, found by exact name, each with its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_embed_plus.models.families import FAMILIES, KNOWN_WEIGHTS, family_of
from llama_index_embed_plus.models.pooling import POOLING_MODES
from llama_index_embed_plus.models.weights import hash_weights, weight_files


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


def test_the_known_weights_are_those_of_the_packaged_checkpoint(minilm):
    assert KNOWN_WEIGHTS[hash_weights(weight_files(minilm))] == "all-MiniLM-L6-v2"
