"""Export: every family, every pooling, with everything on top inside the graph; nothing written that does not agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers
from models import CONFIGS, DECODERS, TEXTS, save_model, save_transformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import LayerNorm

from llama_index_embed_plus.encoders.onnx_encoder import OnnxBackend
from llama_index_embed_plus.encoders.open import identify, open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.errors import ModelError, ParityError
from llama_index_embed_plus.export import export as parity
from llama_index_embed_plus.export import graph, onnx_writer
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.export.trace import trace
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.pooling import POOLING_MODES, unit
from llama_index_embed_plus.models.spec import Overrides
from qdrant_tools.errors import UsageError

PROMPTS = {"query": "query : ", "document": "a "}
LONG = [" ".join(TEXTS), *TEXTS]


def traced(folder: Path, **overrides) -> tuple[TextEncoder, TextEncoder]:
    """(the encoder run by torch, the same traced and run by onnxruntime)."""
    found = identify(folder, overrides=Overrides(**overrides))
    onnx_writer.save_model(trace(folder, found.spec), folder / "traced.onnx")
    backend = OnnxBackend(folder / "traced.onnx", folder, found.spec)
    return (
        open_encoder(folder, device="cpu", overrides=Overrides(**overrides)),
        TextEncoder(found.spec, found.space, folder, backend),
    )


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_can_be_traced(tmp_path, family):
    """With what is hardest to record: the prompt left out of the pooling, layers on top, texts of unlike length."""
    pooling = "lasttoken" if family in DECODERS else "weightedmean"
    extra = [Dense(32, 16), LayerNorm(16)]
    save_model(tmp_path / "m", family=family, pooling=pooling, include_prompt=False, prompts=PROMPTS, extra=extra)

    original, exported = traced(tmp_path / "m")
    together = exported.encode_queries(LONG)

    np.testing.assert_allclose(together, original.encode_queries(LONG), atol=1e-5)
    np.testing.assert_allclose(np.concatenate([exported.encode_queries([text]) for text in LONG]), together, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_every_pooling_can_be_traced(tmp_path, pooling):
    save_transformer(tmp_path / "m", family="modernbert")

    original, exported = traced(tmp_path / "m", pooling=pooling, truncate_dim=8)

    graph_of = onnx.load(tmp_path / "m" / "traced.onnx").graph
    assert [node.name for node in graph_of.input] == ["input_ids", "attention_mask"]
    # the states of single tokens too, where the pooling allows late chunking
    states = ["token_states"] if pooling == "mean" else []
    assert [node.name for node in graph_of.output] == ["embedding", *states]

    np.testing.assert_allclose(exported.encode_passages(LONG), original.encode_passages(LONG), atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_export_is_an_artifact_that_serves(tmp_path, family, precision):
    save_model(tmp_path / "model", family=family, prompts=PROMPTS)

    report = export_onnx(tmp_path / "model", tmp_path / "out", precision=precision, force=True)
    encoder = open_encoder(tmp_path / "out")

    assert (encoder.build, encoder.space) == (f"onnx-{precision}", identify(tmp_path / "model").space)
    manifest = artifact.verify(tmp_path / "out")
    assert manifest.builds[encoder.build]["parity"]["cosine_min"] == report.cosine_min
    assert manifest.builds[encoder.build]["opset"] >= 17
    assert {"onnx", "onnxruntime", "torch", "transformers"} <= set(manifest.made_by)
    assert report.batch_max_abs_difference < 1e-5
    cosines = np.sum(encoder.encode_queries(TEXTS) * open_encoder(tmp_path / "model").encode_queries(TEXTS), axis=1)
    assert cosines.min() > (0.99 if precision == "int8" else 0.999999)


def test_an_export_outside_its_bound_is_not_written_unless_forced(tmp_path, monkeypatch):
    save_model(tmp_path / "model")
    build_graph = graph.build_graph
    monkeypatch.setattr(graph, "build_graph", lambda folder, spec, precision: spoiled(build_graph(folder, spec)))

    with pytest.raises(ParityError, match="outside a largest difference of 1e-4, nothing was written"):
        export_onnx(tmp_path / "model", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model-transformer"]

    report = export_onnx(tmp_path / "model", tmp_path / "out", force=True)
    assert not report.within
    assert not artifact.verify(tmp_path / "out").builds["onnx-fp32"]["parity"]["within"]


def spoiled(model):
    """The same graph with one weight matrix scaled."""
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1.5, tensor.name))
            return model
    raise AssertionError("no weights in the graph")


def test_weights_beyond_the_size_of_one_file_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_writer, "_SINGLE_FILE_BYTES", 1000)
    save_model(tmp_path / "model", family="modernbert")

    export_onnx(tmp_path / "model", tmp_path / "out")

    assert (tmp_path / "out/onnx/model.onnx.data").stat().st_size > 10_000
    assert open_encoder(tmp_path / "out").build == "onnx-fp32"
    with (tmp_path / "out/onnx/model.onnx.data").open("r+b") as stream:
        stream.write(b"other")
    with pytest.raises(ModelError, match=r"model.onnx.data is not the file that the manifest lists"):
        open_encoder(tmp_path / "out")


def test_a_hubs_onnx_file_is_pooled_here_without_torch(tmp_path):
    """As hubs carry them: token states as output, token types as a third input, no weights beside it."""
    save_model(tmp_path / "model", pooling="weightedmean", prompts=PROMPTS, extra=[Dense(32, 16)], include_prompt=False)
    expected = open_encoder(tmp_path / "model").encode_queries(LONG)
    hub_export(tmp_path / "model", token_types=True)
    (tmp_path / "model" / "model.safetensors").unlink()
    code = (
        "import sys, numpy\n"
        "from llama_index_embed_plus.encoders.open import open_encoder\n"
        f"encoder = open_encoder({str(tmp_path / 'model')!r})\n"
        f"numpy.save({str(tmp_path / 'vectors.npy')!r}, encoder.encode_queries({LONG!r}))\n"
        "assert encoder.build == 'onnx-fp32'\n"
        "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules)\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)

    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=1e-5)


class States(torch.nn.Module):
    """What hub exports compute: token states."""

    def __init__(self, folder):
        super().__init__()
        self.model = transformers.AutoModel.from_pretrained(folder).eval()

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state


def hub_export(folder: Path, *, token_types: bool) -> None:
    """Write `onnx/model.onnx` with the inputs and outputs that hub exports have."""
    (folder / "onnx").mkdir()
    names = ["input_ids", "attention_mask", "token_type_ids"][: 3 if token_types else 2]
    ones = torch.ones(2, 7, dtype=torch.int64)
    with pytest.warns(Warning), torch.inference_mode():
        torch.onnx.export(
            States(folder).eval(),
            (ones, ones, ones * 0)[: len(names)],
            str(folder / "onnx" / "model.onnx"),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in [*names, "last_hidden_state"]},
            opset_version=17,
            dynamo=False,
        )


def test_a_hubs_onnx_file_can_be_sealed_into_an_artifact_and_made_int8(tmp_path):
    save_model(tmp_path / "model", family="modernbert", prompts=PROMPTS)
    hub_export(tmp_path / "model", token_types=False)
    expected = open_encoder(tmp_path / "model", backend="onnx").encode_queries(TEXTS)
    (tmp_path / "model" / "model.safetensors").unlink()

    report = export_onnx(tmp_path / "model", tmp_path / "out", precision="int8", force=True)

    assert report.reference == "onnx-as-it-came"
    fp32 = open_encoder(tmp_path / "out", backend="onnx-fp32")
    np.testing.assert_allclose(fp32.encode_queries(TEXTS), expected, atol=1e-6)
    assert open_encoder(tmp_path / "out").build == "onnx-int8"


def test_the_report_measures_what_it_says():
    expected = unit(np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))

    assert parity.top_overlap(expected, expected) == 1.0
    assert parity.top_overlap(expected, expected[::-1].copy()) < 1.0
    assert parity.top_overlap(expected[:1], expected[:1]) == 1.0, "one text has no neighbours to disagree about"


def test_the_sample_texts_are_many_different_and_real():
    texts = parity.sample_texts()

    assert len(texts) == len(set(texts)) >= 100
    assert sum("東京" in text for text in texts) == 1
    assert max(map(len, texts)) <= 800


def test_exporting_onto_an_artifact_replaces_it_and_keeps_its_adapter(tmp_path):
    from llama_index_embed_plus.encoders.adapter import QueryAdapter

    save_model(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "out")
    adapter = QueryAdapter(np.eye(32, dtype=np.float32)[::-1].copy(), identify(tmp_path / "out").space)
    adapter.save(tmp_path / "out" / "adapter")
    artifact.write_manifest(tmp_path / "out")

    export_onnx(tmp_path / "out", tmp_path / "out", precision="int8", force=True)

    assert open_encoder(tmp_path / "out").build == "onnx-int8+adapter"
    assert json.loads((tmp_path / "out/adapter/adapter.json").read_text())["build"] == adapter.build


def test_a_precision_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(UsageError, match="precision is 'int4', expected one of fp32, int8"):
        export_onnx(tmp_path, tmp_path / "out", precision="int4")


def test_a_graph_that_cannot_be_opened_is_named(tmp_path):
    save_model(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "out")
    (tmp_path / "out" / "onnx" / "model.onnx").unlink()
    (tmp_path / "model" / "onnx").mkdir()
    (tmp_path / "model" / "onnx" / "model.onnx").write_bytes(b"not a graph")

    with pytest.raises(ModelError, match=r"model.onnx cannot be opened by onnxruntime"):
        open_encoder(tmp_path / "model", backend="onnx")
    with pytest.raises(ModelError, match=r"onnx/model.onnx is missing"):
        open_encoder(tmp_path / "out")
