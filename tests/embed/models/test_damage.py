"""Damage: whatever one value of one file becomes, opening a model ends in vectors or in one error of our own."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
from models import TEXTS, save_model
from sentence_transformers.base.modules import Dense

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.export.export import export_onnx
from qdrant_tools.errors import PlusError

ODD = [None, "x", -1, 0, 3.5, [], {}, [1, 2], {"a": 1}, True, 10**9, "../x"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A sentence-transformers folder and an artifact."""
    folder = tmp_path_factory.mktemp("damage")
    save_model(folder / "model", prompts={"query": "query : ", "document": "a "}, extra=[Dense(32, 16)])
    export_onnx(folder / "model", folder / "artifact")
    return [folder / "model", folder / "artifact"]


def mutated(value, rng: random.Random):
    """`value` with one thing somewhere inside it replaced or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return [*value[:i], mutated(value[i], rng), *value[i + 1 :]]
    return rng.choice(ODD)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_a_spoiled_file_never_ends_in_a_foreign_error(models, tmp_path, seed):
    rng = random.Random(seed)
    opened = refused = 0
    for i in range(30):
        copy = shutil.copytree(rng.choice(models), tmp_path / str(i))
        file = rng.choice(sorted(copy.rglob("*.json")))
        if rng.random() < 0.2:
            file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])
        else:
            file.write_text(json.dumps(mutated(json.loads(file.read_text()), rng)))
        try:
            vectors = open_encoder(copy, device="cpu").encode_queries(TEXTS)
            assert np.isfinite(vectors).all(), file
            opened += 1
        except PlusError as error:
            assert "\n" not in str(error), file
            refused += 1

    assert opened > 0
    assert refused > 0


@pytest.mark.parametrize("kept", [0, 4, 8, 9, 100, 2000])
def test_weights_cut_off_anywhere_are_named(models, tmp_path, kept):
    copy = shutil.copytree(models[0], tmp_path / "model")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])

    with pytest.raises(PlusError, match="model.safetensors"):
        open_encoder(copy, device="cpu")
