"""Where there is no torch: checkpoints of the BERT family are exported and opened, and compared with numpy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import CONFIGS, padded, random_model, random_rows, states_of
from light import run_light
from models import save_model

from llama_index_embed_plus.encoders.tokens import TokenBatch
from llama_index_embed_plus.export import export
from llama_index_embed_plus.export.network import ACTIVATIONS
from llama_index_embed_plus.export.reference import FUNCTIONS, NumpyBackend
from llama_index_embed_plus.models.pooling import POOLING_MODES, pool, unit
from llama_index_embed_plus.models.spec import EncoderSpec

ROWS = random_rows(7, longest=60)


def spec_of(config, **more):
    return EncoderSpec("tiny", config.model_type, config.hidden_size, 60, **more)


def by_numpy(folder, spec, batch, *, prompt_tokens=0):
    tokens = TokenBatch(batch["input_ids"], batch["attention_mask"], prompt_tokens)
    return NumpyBackend(folder, spec)(tokens, alone=True)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_numpy_computes_every_family_as_transformers_does(family, tmp_path):
    config = CONFIGS[family]()
    model = random_model(config, tmp_path)
    batch = padded(ROWS, padding_id=config.pad_token_id or 0)
    expected = unit(pool(states_of(model, batch), batch["attention_mask"], ("mean",)))
    np.testing.assert_allclose(by_numpy(tmp_path, spec_of(config), batch), expected, atol=1e-5)


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"swish"}))
def test_numpy_computes_every_activation_as_transformers_does(activation, tmp_path):
    config = CONFIGS["bert"](hidden_act=activation)
    model = random_model(config, tmp_path)
    batch = padded(ROWS)
    expected = unit(pool(states_of(model, batch), batch["attention_mask"], ("mean",)))
    np.testing.assert_allclose(by_numpy(tmp_path, spec_of(config), batch), expected, atol=1e-5)


def test_numpy_knows_every_activation_that_a_graph_can_be_built_with():
    assert set(FUNCTIONS) == set(ACTIVATIONS)


def test_the_error_function_is_exact_to_the_bound_that_is_stated():
    x = np.linspace(-6, 6, 4001, dtype=np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(FUNCTIONS["gelu"](x) - exact).max() < 1e-6


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_numpy_pools_in_every_way(mode, tmp_path):
    config = CONFIGS["bert"]()
    model = random_model(config, tmp_path)
    batch = padded(ROWS, length=64)
    with torch.no_grad():
        out = model(**{k: torch.from_numpy(v) for k, v in batch.items()}, output_attentions=True)
    states, attention = out.last_hidden_state.numpy(), out.attentions[-1].numpy()
    expected = unit(pool(states, batch["attention_mask"], (mode,), attention=attention))
    np.testing.assert_allclose(by_numpy(tmp_path, spec_of(config, pooling=(mode,)), batch), expected, atol=1e-5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random BERT with a tokenizer, as sentence-transformers saves it."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder)
    return folder


def test_an_export_without_torch_says_what_it_was_compared_with(tiny, tmp_path):
    done = run_light(
        f"from llama_index_embed_plus import export_onnx\n"
        f"report = export_onnx({str(tiny)!r}, {str(tmp_path / 'out')!r}, precision='int8', force=True)\n"
        "print(report.reference, report.within)"
    )
    assert done.stdout.split()[0] == "numpy-fp32", done.stderr
    manifest = json.loads((tmp_path / "out" / "embed_plus.json").read_text())
    fp32 = manifest["builds"]["onnx-fp32"]["parity"]
    assert fp32["reference"] == "numpy-fp32" and fp32["within"] and 0 < fp32["max_abs_difference"] < 1e-5
    assert manifest["builds"]["onnx-int8"]["parity"]["reference"] == "numpy-fp32"


def test_with_torch_and_without_the_same_graph_is_written(tiny, tmp_path):
    export.export_onnx(tiny, tmp_path / "with")
    done = run_light(
        f"from llama_index_embed_plus import export_onnx\nexport_onnx({str(tiny)!r}, {str(tmp_path / 'without')!r})"
    )
    assert done.returncode == 0, done.stderr
    graphs = [(tmp_path / name / "onnx" / "model.onnx").read_bytes() for name in ("with", "without")]
    assert graphs[0] == graphs[1]


def test_a_graph_that_is_wrong_is_refused_without_torch_too(tiny, tmp_path):
    """The comparison can fail: the graph is disturbed behind the back of what it is compared with."""
    done = run_light(
        "from dataclasses import replace\n"
        "from llama_index_embed_plus.export import graph\n"
        "from llama_index_embed_plus import export_onnx\n"
        "fold = graph.fold\n"
        "def wrong(weights):\n"
        "    weights = fold(weights)\n"
        "    return replace(weights, words=weights.words * 1.01)\n"
        "graph.fold = wrong\n"
        f"export_onnx({str(tiny)!r}, {str(tmp_path / 'out')!r})"
    )
    assert done.returncode == 1 and "ParityError: onnx-fp32 against numpy-fp32" in done.stderr
    assert not (tmp_path / "out").exists()


def test_weights_are_opened_without_torch_and_give_the_vectors_of_torch(tiny):
    texts = ["a b c", "one two", "x " * 40]
    code = (
        "import json\nfrom llama_index_embed_plus import open_encoder\n"
        f"encoder = open_encoder({str(tiny)!r})\n"
        f"print(json.dumps([encoder.build, encoder.space, encoder.encode_passages({texts!r}).tolist()]))"
    )
    without, with_torch = run_light(code), subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (build, space, vectors), (build_by_torch, space_by_torch, expected) = (
        json.loads(done.stdout) for done in (without, with_torch)
    )
    assert (build, build_by_torch) == ("onnx-fp32", "torch-fp32") and space == space_by_torch
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_what_is_missing_is_named_with_the_lightest_way_out(tiny, tmp_path):
    code = f"from llama_index_embed_plus import open_encoder\nopen_encoder({str(tiny)!r})"
    assert "[export]'" in run_light(code, *("onnx",)).stderr
    export = f"from llama_index_embed_plus import export_onnx\nexport_onnx({str(tiny)!r}, 'out')"
    assert "writing ONNX files needs the extra 'export'" in run_light(export, *("onnx",)).stderr

    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    config = json.loads((tiny / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "modernbert"}))
    code = code.replace(str(tiny), str(other))
    assert "[train]'" in run_light(code).stderr


@pytest.mark.parametrize("odd", [{"layer_norm_eps": "small"}, {"num_attention_heads": 3}, {"hidden_act": 7}])
@pytest.mark.parametrize("call", ["open_encoder({0!r})", "export_onnx({0!r}, 'out')"])
def test_odd_values_of_a_config_are_one_error_without_torch_too(tiny, tmp_path, odd, call):
    other = shutil.copytree(tiny, tmp_path / "other")
    config = json.loads((tiny / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | odd))
    name = call.partition("(")[0]
    done = run_light(f"from llama_index_embed_plus import {name}\n{call.format(str(other))}", folder=tmp_path)
    last = done.stderr.rstrip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("llama_index_embed_plus.errors."), last
    assert not (tmp_path / "out").exists()
