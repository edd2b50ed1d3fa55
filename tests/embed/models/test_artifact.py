"""Artifacts: whole or not there, readable by sentence-transformers, checked when they are opened."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from models import TEXTS, save_model, save_transformer
from sentence_transformers import SentenceTransformer

from llama_index_embed_plus.encoders import self_check
from llama_index_embed_plus.encoders.adapter import QueryAdapter
from llama_index_embed_plus.encoders.open import identify, open_encoder
from llama_index_embed_plus.encoders.text_encoder import Runtime
from llama_index_embed_plus.errors import DamagedModelError, ParityError
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.config_writer import write_config
from llama_index_embed_plus.models.files import write_json
from llama_index_embed_plus.models.spec import Overrides, read_spec
from qdrant_tools.errors import UsageError

PROMPTS = {"query": "query : ", "document": "a "}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    save_model(folder / "model", prompts=PROMPTS)
    export_onnx(folder / "model", folder / "sealed")
    return folder / "sealed"


@pytest.fixture
def sealed(made, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(made, tmp_path / "sealed")


def test_the_manifest_lists_every_file_with_its_hash(sealed):
    manifest = artifact.verify(sealed)

    files = {path.relative_to(sealed).as_posix() for path in sealed.rglob("*") if path.is_file()}
    assert set(manifest.sha256) == files - {"embed_plus.json"}
    assert set(manifest.builds) == {"torch-fp32", "onnx-fp32"}
    assert manifest.builds["onnx-fp32"]["parity"]["within"]
    assert manifest.space == identify(sealed).space


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "config.json", "1_Pooling/config.json"])
def test_a_file_that_was_exchanged_is_named(sealed, name):
    with (sealed / name).open("ab") as stream:
        stream.write(b" ")

    with pytest.raises(DamagedModelError, match=f"{name} is not the file that the manifest lists"):
        open_encoder(sealed)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "modules.json"])
def test_a_file_that_is_missing_is_named(sealed, name):
    (sealed / name).unlink()

    with pytest.raises(DamagedModelError, match=f"{name} is missing"):
        open_encoder(sealed)


def test_exchanged_weights_are_found_when_they_are_used(sealed, tmp_path):
    save_transformer(tmp_path / "other", seed=5)
    shutil.copy(tmp_path / "other" / "model.safetensors", sealed)

    open_encoder(sealed)  # the graph is the one that the manifest lists
    with pytest.raises(DamagedModelError, match="was written as bert-32@.* but holds bert-32@"):
        open_encoder(sealed, backend="torch")


def test_an_artifact_without_its_weights_still_serves(sealed):
    space = identify(sealed).space
    (sealed / "model.safetensors").unlink()

    encoder = open_encoder(sealed)

    assert (encoder.build, encoder.space) == ("onnx-fp32", space)


def test_a_path_in_the_manifest_that_leads_out_is_refused(sealed):
    manifest = json.loads((sealed / "embed_plus.json").read_text())
    manifest["builds"]["onnx-fp32"]["file"] = "../model.onnx"
    (sealed / "embed_plus.json").write_text(json.dumps(manifest))

    with pytest.raises(DamagedModelError, match=r"names '../model.onnx', expected a path inside the folder"):
        open_encoder(sealed)


def test_a_link_that_leads_out_is_refused(sealed, tmp_path):
    shutil.move(sealed / "config.json", tmp_path / "config.json")
    os.symlink(tmp_path / "config.json", sealed / "config.json")

    with pytest.raises(DamagedModelError, match="config.json is a link to .*, outside its folder"):
        open_encoder(sealed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "has format 99, this version reads 1"),
        ({"space": None}, "names no space or weights"),
        ({"builds": 3}, "builds is 3, expected an object"),
        ({"spec": {}}, "the spec cannot be read"),
        ({"spec": {"colour": "red"}}, "unknown fields .'colour'.; it was written by a newer version"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why(sealed, change, said):
    manifest = {**json.loads((sealed / "embed_plus.json").read_text()), **change}
    (sealed / "embed_plus.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))

    with pytest.raises(DamagedModelError, match=said):
        open_encoder(sealed)


def test_sentence_transformers_reads_an_artifact_and_gives_the_same_vectors(sealed):
    theirs, ours = SentenceTransformer(str(sealed), device="cpu"), open_encoder(sealed)

    np.testing.assert_allclose(theirs.encode_query(TEXTS), ours.encode_queries(TEXTS), atol=1e-5)
    np.testing.assert_allclose(theirs.encode_document(TEXTS), ours.encode_passages(TEXTS), atol=1e-5)


def test_the_pooling_config_is_written_in_the_old_and_the_new_form(sealed):
    config = json.loads((sealed / "1_Pooling" / "config.json").read_text())

    assert (config["pooling_mode"], config["pooling_mode_mean_tokens"], config["pooling_mode_cls_token"]) == (
        "mean",
        True,
        False,
    )


def test_overrides_are_written_into_the_artifacts_files(tmp_path):
    save_transformer(tmp_path / "model")
    overrides = Overrides(pooling="cls", query_prompt="search : ", max_tokens=12, include_prompt=False, truncate_dim=8)
    export_onnx(tmp_path / "model", tmp_path / "sealed", overrides=overrides)
    ours = open_encoder(tmp_path / "sealed")
    (tmp_path / "sealed" / "embed_plus.json").unlink()

    assert read_spec(tmp_path / "sealed") == ours.spec, "the files alone say what the manifest says"
    theirs = SentenceTransformer(str(tmp_path / "sealed"), device="cpu")
    vectors = np.concatenate([theirs.encode_query([text], normalize_embeddings=True) for text in TEXTS])
    np.testing.assert_allclose(vectors, ours.encode_queries(TEXTS), atol=1e-5)


def test_facts_that_hung_on_a_folders_name_survive_a_copy(tmp_path):
    folder = save_transformer(tmp_path / "e5-small-v2")

    artifact.copy_model(folder, tmp_path / "copy")

    assert read_spec(tmp_path / "copy").query_prompt == "query: "


def test_files_that_already_say_so_are_left_alone(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}

    write_config(copy, read_spec(copy))

    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


def test_a_copy_leaves_out_pickles_code_and_other_runtimes(tmp_path):
    folder = save_transformer(tmp_path / "model")
    (folder / "onnx").mkdir()
    for name in ("pytorch_model.bin", "modeling.py", "onnx/config.json"):
        (folder / name).write_text("{}")

    artifact.copy_model(folder, tmp_path / "copy")

    copied = {path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= copied
    assert not {"pytorch_model.bin", "modeling.py"} & copied
    assert not (tmp_path / "copy" / "onnx").exists()


def test_a_failure_half_way_leaves_nothing_and_the_old_artifact_as_it_was(sealed):
    before = artifact.read_manifest(sealed)

    with pytest.raises(RuntimeError), artifact.draft_folder(sealed) as draft:
        (draft / "config.json").write_text("{}")
        raise RuntimeError

    assert artifact.verify(sealed) == before
    assert [path.name for path in sealed.parent.iterdir()] == ["sealed"]


def test_an_artifact_is_replaced_in_one_step(sealed):
    with artifact.draft_folder(sealed) as draft:
        (draft / "new.txt").write_text("new")

    assert [path.name for path in sealed.iterdir()] == ["new.txt"]
    assert [path.name for path in sealed.parent.iterdir()] == ["sealed"]


def test_a_folder_that_holds_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")

    with (
        pytest.raises(UsageError, match="photos' exists and is no artifact; give a new folder"),
        artifact.draft_folder(tmp_path / "photos"),
    ):
        pass


def test_prompts_and_lengths_may_be_overridden_on_a_graph_but_not_its_pooling(sealed):
    changed = open_encoder(sealed, overrides=Overrides(query_prompt="search : ", max_tokens=12))

    assert changed.build == "onnx-fp32"
    assert changed.space != identify(sealed).space
    with pytest.raises(UsageError, match="has other pooling, .* inside; use backend='torch'"):
        open_encoder(sealed, backend="onnx", overrides=Overrides(pooling="cls"))
    assert open_encoder(sealed, overrides=Overrides(pooling="cls"), device="cpu").build == "torch-fp32"


def test_an_adapter_in_an_artifact_maps_queries_and_leaves_passages(sealed):
    plain = open_encoder(sealed)
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    adapter = QueryAdapter(weight, plain.space)
    adapter.save(sealed / "adapter")
    artifact.write_manifest(sealed)

    adapted = open_encoder(sealed)

    assert (adapted.build, adapted.space) == ("onnx-fp32+adapter", plain.space)
    np.testing.assert_array_equal(adapted.encode_passages(TEXTS), plain.encode_passages(TEXTS))
    np.testing.assert_allclose(adapted.encode_queries(TEXTS), adapter(plain.encode_queries(TEXTS)), atol=1e-6)


def test_an_adapter_of_another_space_is_refused(sealed):
    QueryAdapter.identity(32, "other@0123456789ab").save(sealed / "adapter")
    artifact.write_manifest(sealed)

    with pytest.raises(DamagedModelError, match="was fitted in other@0123456789ab, this model is bert-32@"):
        open_encoder(sealed)


def spoil(sealed, build, *, noise):
    """Record other vectors than the build gives: what a processor that saturates looks like from here."""
    checks = json.loads((sealed / self_check.FILE).read_text())
    vectors = np.asarray(checks["onnx-fp32"]["vectors"])
    noisy = vectors + np.random.default_rng(0).normal(size=vectors.shape) * noise
    checks[build] = {"ids": checks["onnx-fp32"]["ids"], "vectors": noisy.tolist()}
    write_json(sealed / self_check.FILE, checks)


def test_a_build_that_gives_other_vectors_here_falls_back_to_fp32_and_says_so(sealed, caplog):
    shutil.copy(sealed / "onnx/model.onnx", sealed / "onnx/model_int8.onnx")
    spoil(sealed, "onnx-int8", noise=0.05)
    artifact.write_manifest(sealed, builds={"onnx-int8": {"file": "onnx/model_int8.onnx"}})

    assert open_encoder(sealed).build == "onnx-fp32"
    assert "the onnx-int8 build gives other vectors here than where it was made" in caplog.text
    assert "the fp32 build is used instead" in caplog.text
    with pytest.raises(ParityError, match="onnx-int8 build gives other vectors here"):
        open_encoder(sealed, runtime=Runtime(on_mismatch="error"))


def test_a_build_that_only_rounds_otherwise_is_used(sealed, caplog):
    shutil.copy(sealed / "onnx/model.onnx", sealed / "onnx/model_int8.onnx")
    spoil(sealed, "onnx-int8", noise=0.001)
    artifact.write_manifest(sealed, builds={"onnx-int8": {"file": "onnx/model_int8.onnx"}})

    assert open_encoder(sealed).build == "onnx-int8"
    assert open_encoder(sealed, backend="onnx-fp32").build == "onnx-fp32"
    assert not caplog.records


def test_when_fp32_too_is_other_there_is_an_error_with_the_way_out(sealed):
    spoil(sealed, "onnx-fp32", noise=0.05)
    artifact.write_manifest(sealed)

    with pytest.raises(ParityError, match="use backend='torch', or export it again on this machine"):
        open_encoder(sealed)


def test_the_recorded_vectors_lie_beside_the_graphs(sealed):
    assert self_check.FILE == "onnx/self_check.json"
    assert self_check.FILE in artifact.read_manifest(sealed).sha256
