"""The int8 graph: one vector per text whatever surrounds it, and faithful to float32."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import CONFIGS, one_by_one, open_session, padded, random_model, random_rows, run
from onnx import TensorProto, helper, numpy_helper

from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.encoders.tokens import Tokenizer
from llama_index_embed_plus.export.calibration import Frame, common_words, embedded, extreme_words, sequences
from llama_index_embed_plus.export.graph import build_graph
from llama_index_embed_plus.export.network import quantise_columns
from llama_index_embed_plus.export.weights import read_weights
from llama_index_embed_plus.models.pooling import POOLING_MODES
from llama_index_embed_plus.models.spec import EncoderSpec

MINILM = EncoderSpec("minilm", "bert", 384, 256)


@pytest.fixture(scope="module")
def int8_graph(minilm):
    return build_graph(minilm, MINILM, precision="int8")


@pytest.fixture(scope="module")
def int8(int8_graph):
    return open_session(int8_graph)


@pytest.fixture(scope="module")
def rows(minilm):
    """Token ids of real docstrings, and a few odd texts."""
    texts = [passage.text for passage in load_docstrings(limit=180).passages[::3]] + ["csv", "日本語の文書"]
    return [ids.tolist() for ids in Tokenizer(minilm, 256).cut(texts).ids]


@pytest.fixture(scope="module")
def alone(int8, rows):
    return one_by_one(int8, rows)


def test_int8_is_faithful_to_float32_on_real_text(minilm, rows, alone):
    float32 = one_by_one(open_session(build_graph(minilm, MINILM)), rows)
    cosine = (alone * float32).sum(axis=1)
    assert cosine.mean() >= 0.999
    assert cosine.min() >= 0.997


@pytest.mark.parametrize("size", [3, 30])
def test_a_text_has_the_same_vector_in_any_batch(size, int8, rows, alone):
    order = np.random.default_rng(size).permutation(len(rows))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        np.testing.assert_array_equal(run(int8, padded([rows[i] for i in batch])), alone[batch])


@pytest.mark.parametrize("length", [257, 512])
def test_padding_does_not_change_a_vector(length, int8, rows, alone):
    np.testing.assert_array_equal(run(int8, padded(rows[:12], length=length)), alone[:12])


def test_the_number_of_threads_does_not_change_a_vector(int8_graph, rows, alone):
    threaded = open_session(int8_graph, threads=2)
    np.testing.assert_array_equal(run(threaded, padded(rows[:64])), alone[:64])
    np.testing.assert_array_equal(one_by_one(threaded, rows[:16]), alone[:16])


def test_what_lies_under_the_padding_does_not_change_a_vector(int8, rows, alone):
    batch = padded(rows[:24], length=300)
    noise = np.random.default_rng(0).integers(0, 30000, batch["input_ids"].shape)
    batch["input_ids"] = np.where(batch["attention_mask"] == 1, batch["input_ids"], noise)
    np.testing.assert_array_equal(run(int8, batch), alone[:24])


def test_building_twice_gives_the_same_graph(tmp_path):
    random_model(CONFIGS["bert"](), tmp_path)
    first, second = (build_graph(tmp_path, EncoderSpec("tiny", "bert", 48, 60), precision="int8") for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_calibration_reaches_every_length_and_the_extreme_words(minilm):
    weights = read_weights(minilm)
    extremes = extreme_words(weights.words, lambda table: embedded(weights, table))
    assert 1012 in extremes  # the full stop
    made = list(sequences(common_words(30522), extremes, Frame((101,), (102,), room=510)))
    assert all(ids[0, 0] == 101 and ids[0, -1] == 102 for ids in made)
    assert {ids.shape[1] for ids in made} >= {2, 3, 4, 10, 202}
    assert set(extremes.tolist()) <= set(np.concatenate(made, axis=1)[0].tolist())


def test_int8_is_a_quarter_of_the_size(int8_graph):
    assert int8_graph.ByteSize() < 24e6


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_is_invariant_and_near_float32(family, activation, tmp_path):
    config = CONFIGS[family](**{"activation" if family == "distilbert" else "hidden_act": activation})
    random_model(config, tmp_path)
    spec = EncoderSpec("tiny", family, 48, 60)
    float32, int8 = (open_session(build_graph(tmp_path, spec, precision=p)) for p in ("fp32", "int8"))
    rows = random_rows(12, longest=70)
    alone = one_by_one(int8, rows)
    padding = config.pad_token_id or 0
    np.testing.assert_array_equal(run(int8, padded(rows, padding_id=padding, length=90)), alone)
    assert (alone * one_by_one(float32, rows)).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_every_pooling_is_invariant_and_near_float32(mode, tmp_path):
    random_model(CONFIGS["bert"](), tmp_path)
    spec = EncoderSpec("tiny", "bert", 48, 60, pooling=(mode,))
    float32, int8 = (open_session(build_graph(tmp_path, spec, precision=p)) for p in ("fp32", "int8"))
    rows = random_rows(12, longest=70)
    alone = one_by_one(int8, rows)
    np.testing.assert_allclose(run(int8, padded(rows, length=90)), alone, atol=1e-6)
    assert (alone * one_by_one(float32, rows)).sum(axis=1).min() > 0.98


def test_products_of_bytes_are_exact_on_every_processor(tmp_path):
    """The largest products there are: sums of 16 bits would saturate."""
    weight = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w")
    product = helper.make_node("MatMulInteger", ["x", "w"], ["sums"])
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, 64])]
    outputs = [helper.make_tensor_value_info("sums", TensorProto.INT32, [None, 16])]
    model = helper.make_model(
        helper.make_graph([product], "product", inputs, outputs, [weight]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    sums = open_session(model).run(None, {"x": np.full((4, 64), 255, np.uint8)})[0]
    assert (sums == 255 * 127 * 64).all()


def test_a_column_is_clipped_only_where_that_lowers_its_squared_error():
    weight = np.random.default_rng(1).normal(size=(20_000, 16)).astype(np.float32)
    weight[0] = 5  # an outlier that would make every other step coarser
    steps, scales = quantise_columns(weight)
    whole = np.abs(weight).max(axis=0) / 127
    error = np.square(steps * scales - weight).sum(axis=0)
    assert (scales < whole).all()
    assert (error < np.square(np.rint(weight / whole) * whole - weight).sum(axis=0)).all()


def test_columns_are_quantised_to_within_half_a_step():
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    weight[:, 3] = 0
    steps, scales = quantise_columns(weight)
    assert steps.dtype == np.int8
    assert np.abs(steps).max() == 127
    assert (np.abs(steps * scales - weight) <= scales / 2 + 1e-7).all()
