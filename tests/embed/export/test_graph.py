"""The graph built from the weights gives the vectors of transformers and sentence-transformers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import CONFIGS, one_by_one, open_session, padded, random_model, random_rows, run, states_of
from safetensors.torch import load_file, save_file

from llama_index_embed_plus.errors import DamagedModelError, ModelError
from llama_index_embed_plus.export.calibration import Frame, frame_of
from llama_index_embed_plus.export.graph import build_graph, supports
from llama_index_embed_plus.export.onnx_writer import save_model
from llama_index_embed_plus.export.weights import read_weights
from llama_index_embed_plus.models.pooling import POOLING_MODES, HeadStep, pool, unit
from llama_index_embed_plus.models.spec import EncoderSpec

ROWS = random_rows(7, longest=60)


def spec_of(config, **more):
    return EncoderSpec("tiny", config.model_type, config.hidden_size, 60, **more)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A random BERT: (folder, transformers model)."""
    folder = tmp_path_factory.mktemp("bert")
    return folder, random_model(CONFIGS["bert"](), folder)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_agrees_with_transformers(family, tmp_path):
    config = CONFIGS[family]()
    model = random_model(config, tmp_path)
    session = open_session(build_graph(tmp_path, spec_of(config)))
    batch = padded(ROWS, padding_id=config.pad_token_id or 0)
    expected = unit(pool(states_of(model, batch), batch["attention_mask"], ("mean",)))
    np.testing.assert_allclose(run(session, batch), expected, atol=1e-5)


@pytest.mark.parametrize(
    "activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu", "silu"]
)
def test_every_activation_agrees_with_transformers(activation, tmp_path):
    config = CONFIGS["bert"](hidden_act=activation)
    model = random_model(config, tmp_path)
    session = open_session(build_graph(tmp_path, spec_of(config)))
    batch = padded(ROWS)
    expected = unit(pool(states_of(model, batch), batch["attention_mask"], ("mean",)))
    np.testing.assert_allclose(run(session, batch), expected, atol=1e-5)


def test_mpnet_buckets_distances_up_to_its_longest_text_as_transformers_does(tmp_path):
    config = CONFIGS["mpnet"](max_position_embeddings=514)
    model = random_model(config, tmp_path)
    distance = torch.arange(-513, 514)
    buckets = model.encoder.relative_position_bucket(distance, num_buckets=config.relative_attention_num_buckets)
    expected = model.encoder.relative_attention_bias.weight[buckets].T.detach().numpy()
    np.testing.assert_array_equal(read_weights(tmp_path).relative_bias, expected)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_every_pooling_agrees_with_its_definition(mode, normalize, bert):
    folder, model = bert
    session = open_session(build_graph(folder, spec_of(model.config, pooling=(mode,), normalize=normalize)))
    batch = padded(ROWS, length=64)
    with torch.no_grad():
        out = model(**{k: torch.from_numpy(v) for k, v in batch.items()}, output_attentions=True)
    states, attention = out.last_hidden_state.numpy(), out.attentions[-1].numpy()
    expected = pool(states, batch["attention_mask"], (mode,), attention=attention)
    np.testing.assert_allclose(run(session, batch), unit(expected) if normalize else expected, atol=1e-5)


@pytest.mark.parametrize(
    "modes", [("cls",), ("mean",), ("max",), ("weightedmean",), ("lasttoken",), ("cls", "max", "mean")]
)
def test_the_prompt_can_be_left_out_of_the_pooling(modes, bert):
    folder, model = bert
    spec = replace(spec_of(model.config, pooling=modes, include_prompt=False), dimension=48 * len(modes))
    session = open_session(build_graph(folder, spec))
    batch = padded([[5, 6, 7, *row] for row in ROWS])
    states = states_of(model, batch)
    for prompt_tokens in (0, 3):
        expected = unit(pool(states, batch["attention_mask"], modes, prompt_tokens=prompt_tokens))
        vectors = run(session, batch, prompt_tokens=prompt_tokens)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_pooling_projection_norm_and_truncation_agree_with_sentence_transformers(mode, bert, tmp_path):
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    folder, model = bert
    torch.manual_seed(3)
    dense = Dense(48, 32, activation_function=torch.nn.Tanh())
    norm = LayerNorm(32)
    torch.nn.init.normal_(norm.norm.weight, 1.0, 0.2)
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "3_LayerNorm").mkdir()
    dense.save(str(tmp_path / "2_Dense"))
    norm.save(str(tmp_path / "3_LayerNorm"))
    # The transformer stays in its own folder, as transformer_path allows: here beside the layers, through a link.
    (tmp_path / "0_Transformer").symlink_to(folder)
    head = (HeadStep("dense", "2_Dense", "tanh"), HeadStep("layer_norm", "3_LayerNorm"))
    spec = EncoderSpec(
        "tiny", "bert", 20, 60, pooling=(mode,), head=head, truncate_dim=20, transformer_path="0_Transformer"
    )
    batch = padded(ROWS)
    features = {"token_embeddings": torch.from_numpy(states_of(model, batch))}
    features["attention_mask"] = torch.from_numpy(batch["attention_mask"])
    with torch.no_grad():
        for module in (Pooling(48, pooling_mode=mode), dense, norm):
            features = module(features)
    expected = torch.nn.functional.normalize(features["sentence_embedding"][:, :20], dim=1).numpy()
    np.testing.assert_allclose(run(open_session(build_graph(tmp_path, spec)), batch), expected, atol=1e-5)


def test_minilm_agrees_with_sentence_transformers(minilm):
    from sentence_transformers import SentenceTransformer

    original = SentenceTransformer(str(minilm), device="cpu")
    texts = [
        "How do I read a CSV file?",
        "csv",
        "Return a reader object that iterates over lines. " * 12,
        "æøå 😀 \u202eabc",
    ]
    batch = {k: v.numpy() for k, v in original.preprocess(texts).items() if isinstance(v, torch.Tensor)}
    session = open_session(build_graph(minilm, EncoderSpec("minilm", "bert", 384, 256)))
    vectors = run(session, {name: batch[name] for name in ("input_ids", "attention_mask")})
    np.testing.assert_allclose(vectors, original.encode(texts), atol=1e-6)


def test_fp32_vectors_do_not_depend_on_the_batch(bert):
    folder, model = bert
    session = open_session(build_graph(folder, spec_of(model.config)))
    np.testing.assert_allclose(run(session, padded(ROWS, length=100)), one_by_one(session, ROWS), atol=1e-6)


def test_a_model_of_another_family_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    spec = EncoderSpec("tiny", "gpt2", 48, 60)
    assert not supports(tmp_path, spec)
    with pytest.raises(ModelError, match="'gpt2' is not one of .*export it by tracing"):
        build_graph(tmp_path, spec)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"hidden_act": "mish"}, "activation 'mish'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "decoder"),
        ({"auto_map": {"AutoModel": "modeling.Other"}}, "code of its own"),
    ],
)
def test_a_variant_that_would_give_wrong_vectors_is_refused(more, named, bert, tmp_path):
    folder, model = bert
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | more))
    assert not supports(tmp_path, spec_of(model.config))
    with pytest.raises(ModelError, match=named):
        build_graph(tmp_path, spec_of(model.config))


def test_weights_that_contradict_the_config_are_named(bert, tmp_path):
    folder, model = bert
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(
        DamagedModelError, match="intermediate.dense.weight has shape .80, 48., config.json implies 96 x 48"
    ):
        build_graph(tmp_path, spec_of(model.config))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(DamagedModelError, match="lack .*layer.3.attention"):
        build_graph(tmp_path, spec_of(model.config))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(DamagedModelError, match="hold .*layer.2.attention.* a bert of 2 layers"):
        build_graph(tmp_path, spec_of(model.config))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 5}))
    with pytest.raises(DamagedModelError, match="48 is not a multiple of 5"):
        build_graph(tmp_path, spec_of(model.config))


def test_a_folder_without_config_or_weights_is_named(bert, tmp_path):
    folder, model = bert
    with pytest.raises(DamagedModelError, match="config.json is missing"):
        supports(tmp_path, spec_of(model.config))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DamagedModelError, match="is no JSON"):
        supports(tmp_path, spec_of(model.config))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(DamagedModelError, match="model.safetensors is missing"):
        build_graph(tmp_path, spec_of(model.config))


def test_bfloat16_weights_and_old_tensor_names_are_read(bert, tmp_path):
    folder, model = bert
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    old = {"weight": "gamma", "bias": "beta"}
    renamed = {
        "bert."
        + name.replace("LayerNorm." + name.rpartition(".")[2], "LayerNorm." + old[name.rpartition(".")[2]]): tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    batch = padded(ROWS)
    expected = unit(pool(states_of(model, batch), batch["attention_mask"], ("mean",)))
    np.testing.assert_allclose(
        run(open_session(build_graph(tmp_path, spec_of(model.config))), batch), expected, atol=1e-5
    )


def test_the_special_tokens_around_a_text_come_from_the_tokenizer(minilm, tmp_path):
    spec = EncoderSpec("minilm", "bert", 384, 256)
    assert frame_of(minilm, spec) == Frame((101,), (102,), room=254)
    for name in ("vocab.txt", "config.json"):
        (tmp_path / name).write_text((minilm / name).read_text())
    assert frame_of(tmp_path, spec) == Frame((101,), (102,), room=254)
    (tmp_path / "vocab.txt").unlink()
    assert frame_of(tmp_path, spec) == Frame((), (), room=256)


def test_weights_beyond_the_limit_of_one_file_are_kept_beside_it(bert, tmp_path, monkeypatch):
    folder, model = bert
    graph = build_graph(folder, spec_of(model.config))
    batch, expected = padded(ROWS), run(open_session(graph), padded(ROWS))
    assert [path.name for path in save_model(graph, tmp_path / "small.onnx")] == ["small.onnx"]
    monkeypatch.setattr("llama_index_embed_plus.export.onnx_writer._SINGLE_FILE_BYTES", 1000)
    files = save_model(graph, tmp_path / "model.onnx")
    assert [path.name for path in files] == ["model.onnx", "model.onnx.data"]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(files[0]), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(run(session, batch), expected, atol=1e-6)
