"""What trains is what serves: for every family the tokens of training, of serving and of sentence-transformers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from published_tokenizers import PUBLISHED, save_published
from sentence_transformers import SentenceTransformer

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.tokens import Tokenizer
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.spec import Overrides, read_spec, space_of
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.trainer.setup import open_trainable, save_trained

TEXTS = [
    "The museum opens at nine.",
    "a",
    "Über dem Fluss liegt 12 die Altstadt,  mit ihren   Gässchen",
    "mean(x)\n  # 3",
]
WITHOUT_CLOSING = [name for name, made in PUBLISHED.items() if made.tokens != made.serves]


def tokens_of(model):
    read = model.preprocess(TEXTS)
    return [ids[mask.bool()].tolist() for ids, mask in zip(read["input_ids"], read["attention_mask"], strict=True)]


def opened(tmp_path, name):
    """A published folder, the model that trains, and the folder that it is saved to."""
    folder = save_published(tmp_path / "published", name)
    settings = TrainSettings(device="cpu", pooling=PUBLISHED[name].pooling)
    (tmp_path / "copy").mkdir()
    trained = open_trainable(folder, tmp_path / "copy", settings, device="cpu")
    (tmp_path / "saved").mkdir()
    return folder, trained, tmp_path / "saved", settings


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_trains_is_what_serves_and_what_sentence_transformers_reads(name, tmp_path):
    made = PUBLISHED[name]
    folder, trained, saved, settings = opened(tmp_path, name)
    before = open_encoder(folder, backend="torch", overrides=Overrides(pooling=made.pooling))
    served = [ids.tolist() for ids in before.tokenizer.cut(TEXTS).ids]
    opening, closing = (before.tokenizer.opening.tolist(), before.tokenizer.closing.tolist())
    framed = [before.tokenizer._tokenizer.id_to_token(ids[0]) if ids else "" for ids in (opening, closing)]

    trains = tokens_of(trained.model)
    spec = save_trained(trained, saved, settings)
    artifact.write_manifest(saved, spec=spec, name=spec.name)
    after, theirs = open_encoder(saved, backend="torch"), SentenceTransformer(str(saved), device="cpu")

    assert tuple(framed) == made.serves, "the tokens that its card puts around a text"
    assert trains == served
    assert tokens_of(theirs) == served
    assert [ids.tolist() for ids in after.tokenizer.cut(TEXTS).ids] == served
    vectors = before.encode_passages(TEXTS)
    np.testing.assert_allclose(after.encode_passages(TEXTS), vectors, atol=1e-5)
    np.testing.assert_allclose(trained.model.encode(TEXTS), vectors, atol=1e-5)
    np.testing.assert_allclose(theirs.encode(TEXTS), vectors, atol=1e-5, err_msg="short texts beside long ones too")


@pytest.mark.parametrize("name", WITHOUT_CLOSING)
def test_a_copy_says_in_its_tokenizer_what_is_put_around_a_text_and_keeps_its_space(name, tmp_path):
    folder = save_published(tmp_path / "published", name)
    spec = read_spec(folder)
    published = json.loads((folder / "tokenizer.json").read_text())["post_processor"]

    artifact.copy_model(folder, tmp_path / "copy", spec=spec)

    assert space_of(tmp_path / "copy", spec) == space_of(folder, spec)
    (tmp_path / "copy" / "tokenizer_config.json").unlink()  # nothing else is needed to read it so
    served = [ids.tolist() for ids in Tokenizer(folder, 40).cut(TEXTS).ids]
    assert [ids.tolist() for ids in Tokenizer(tmp_path / "copy", 40).cut(TEXTS).ids] == served
    assert json.loads((tmp_path / "copy" / "tokenizer.json").read_text())["post_processor"] != published


def test_a_closing_token_that_only_the_card_names_is_written_too_and_keeps_the_space(tmp_path):
    folder = save_published(tmp_path / "nvidia" / "NV-Embed-v2", "e5-mistral (mistral)")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "add_eos_token": False}))
    spec = read_spec(folder)
    assert spec.append_eos, "by the family of the name"

    artifact.copy_model(folder, tmp_path / "copy", spec=spec)
    artifact.copy_model(tmp_path / "copy", tmp_path / "again", spec=spec)

    served = [ids.tolist() for ids in Tokenizer(folder, 40, append_eos=True).cut(TEXTS).ids]
    for copy in (tmp_path / "copy", tmp_path / "again"):
        assert [ids.tolist() for ids in Tokenizer(copy, 40).cut(TEXTS).ids] == served
        assert space_of(copy, spec) == space_of(folder, spec)


def test_a_tokenizer_that_already_adds_its_tokens_is_left_as_it_is(tmp_path):
    folder = save_published(tmp_path / "published", "Qwen3-Embedding (qwen3)")

    artifact.copy_model(folder, tmp_path / "copy", spec=read_spec(folder))

    assert (tmp_path / "copy" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_collection_of_the_published_folder_is_searched_by_its_artifact(tmp_path):
    folder = save_published(tmp_path / "published", "gte-Qwen2 (qwen2)")
    shutil.copytree(folder, tmp_path / "draft")

    manifest = artifact.write_manifest(tmp_path / "draft", spec=read_spec(folder))

    assert manifest.space == space_of(folder, read_spec(folder))
