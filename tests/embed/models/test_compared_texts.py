"""Texts that are compared with their like: one prompt per task, with its source, in training, evaluation and proof."""

from __future__ import annotations

import json

import numpy as np
import pytest
from models import TEXTS, save_model, save_transformer

from llama_index_embed_plus.encoders.open import describe, open_encoder
from llama_index_embed_plus.evaluate.tasks.inputs import embed
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.spec import Overrides, read_spec, space_of
from llama_index_embed_plus.training.proof.forgetting import SimilaritySet, measure_forgetting
from qdrant_tools.errors import UsageError
from qdrant_tools.records import encode_compared
from qdrant_tools.search.adapters import AdaptedEncoder, Adapter, FullMap

PUBLISHED = {
    "intfloat/e5-base-v2": ("query: ", "query: ", "query: "),
    "nomic-ai/nomic-embed-text-v1.5": ("classification: ", "classification: ", "clustering: "),
    "google/embeddinggemma-300m": (
        "task: sentence similarity | query: ",
        "task: classification | query: ",
        "task: clustering | query: ",
    ),
    "Qwen/Qwen3-Embedding-0.6B": ("Instruct: Retrieve semantically similar text\nQuery:", "", ""),
    "BAAI/bge-base-en-v1.5": ("", "", ""),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_the_prompts_of_its_card_and_names_the_card(name, tmp_path):
    save_model(tmp_path / name)

    spec = read_spec(tmp_path / name)

    found = tuple(spec.compared_prompt(task) for task in ("similarity", "classification", "clustering"))
    assert found == PUBLISHED[name]
    said = spec.sources["compared"]
    assert said.startswith("https://") if spec.compared else said == "as passages: no file and no card says more"


def test_prompts_that_a_model_saved_under_mtebs_names_are_read_and_written(tmp_path):
    prompts = {"query": "ask: ", "document": "read: ", "STS": "same: ", "Clustering": "group: "}
    save_model(tmp_path / "model", prompts=prompts)

    spec = read_spec(tmp_path / "model")
    artifact.copy_model(tmp_path / "model", tmp_path / "copy", spec=spec)

    assert dict(read_spec(tmp_path / "copy").compared) == {"similarity": "same: ", "clustering": "group: "}
    assert spec.sources["compared"] == "config_sentence_transformers.json"
    assert spec.compared_prompt("classification") == "read: ", "where nothing is said, as a passage"
    facts = {fact.name: fact for fact in describe(tmp_path / "model").facts}
    assert facts["compared"].value == {"similarity": "same: ", "clustering": "group: "}


def test_a_familys_prompts_by_task_are_written_for_whoever_reads_the_copy(tmp_path):
    save_transformer(tmp_path / "nomic-ai" / "nomic-embed-text-v1.5")
    spec = read_spec(tmp_path / "nomic-ai" / "nomic-embed-text-v1.5")

    artifact.copy_model(tmp_path / "nomic-ai" / "nomic-embed-text-v1.5", tmp_path / "copy", spec=spec)

    saved = json.loads((tmp_path / "copy" / "config_sentence_transformers.json").read_text())["prompts"]
    assert (saved["STS"], saved["Clustering"]) == ("classification: ", "clustering: ")
    assert (saved["query"], saved["document"]) == ("search_query: ", "search_document: ")


def test_a_model_that_prompts_both_roles_compares_texts_as_queries(tmp_path):
    save_model(tmp_path / "tuned", prompts={"query": "ask: ", "document": "read: "})

    spec = read_spec(tmp_path / "tuned")

    assert spec.compared_prompt("similarity") == "ask: "
    assert spec.sources["compared"] == "as queries: the model has a prompt for both roles"


def test_compared_texts_are_no_part_of_the_space_and_survive_in_the_manifest(tmp_path):
    prompts = {"query": "query : ", "document": "passage : "}
    save_model(tmp_path / "plain", prompts=prompts)
    save_model(tmp_path / "with", prompts={**prompts, "STS": "search : "})

    first, second = read_spec(tmp_path / "plain"), read_spec(tmp_path / "with")
    artifact.write_manifest(tmp_path / "with", spec=second)

    assert space_of(tmp_path / "plain", first) == space_of(tmp_path / "with", second)
    assert dict(read_spec(tmp_path / "with").compared) == {"similarity": "search : "}


def test_the_encoder_evaluation_and_forgetting_use_one_convention_and_no_adapter_touches_it(tmp_path):
    prompts = {"query": "query : ", "document": "passage : ", "STS": "search : ", "Clustering": "document : "}
    theirs = save_model(tmp_path / "model", prompts=prompts)
    encoder = open_encoder(tmp_path / "model", backend="torch")
    turned = AdaptedEncoder(encoder, Adapter(FullMap(np.eye(32, dtype=np.float32)[::-1].copy()), encoder.space))

    wanted = theirs.encode(TEXTS, prompt_name="STS", normalize_embeddings=True)
    grouped = theirs.encode(TEXTS, prompt_name="Clustering", normalize_embeddings=True)

    for one in (encoder, turned):
        np.testing.assert_allclose(encode_compared(one, TEXTS), wanted, atol=1e-5)
        np.testing.assert_allclose(embed(one, TEXTS, task="clustering"), grouped, atol=1e-5)
        np.testing.assert_allclose(embed(one, TEXTS, role="passage"), encoder.encode_passages(TEXTS), atol=1e-6)
    other = save_model(tmp_path / "other", prompts=prompts, seed=1)
    after = open_encoder(tmp_path / "other", backend="torch")
    pairs = SimilaritySet(tuple((a, b, float(i)) for i, (a, b) in enumerate(zip(TEXTS, TEXTS[1:]))))
    found = measure_forgetting(encoder, after, pairs).change
    for model, value in ((theirs, found.before), (other, found.after)):
        vectors = model.encode(TEXTS, prompt_name="STS", normalize_embeddings=True)
        ranks = np.argsort(np.argsort((vectors[:-1] * vectors[1:]).sum(1)))
        assert value == pytest.approx(float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]), abs=1e-6)


@pytest.mark.parametrize("include_prompt", [True, False], ids=["pooled", "left_out"])
def test_a_prompt_that_leaves_no_token_of_a_text_is_refused(tmp_path, include_prompt):
    save_model(tmp_path / "model", prompts={"query": "search the document : "}, include_prompt=include_prompt)
    fits = open_encoder(tmp_path / "model", backend="torch", overrides=Overrides(max_tokens=7))
    one, other = fits.encode_queries(["cat", "river stone"])
    assert not np.allclose(one, other) and np.isfinite(one).all()

    with pytest.raises(UsageError, match="'search the document : ' has 4 tokens, which leaves none of the 4 that fit"):
        open_encoder(tmp_path / "model", backend="torch", overrides=Overrides(max_tokens=6))
