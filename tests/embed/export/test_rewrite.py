"""int8 of any graph: as faithful as a scale per token allows, and one vector per text whatever surrounds it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import one_by_one, open_session, padded, random_rows, run
from models import CONFIGS, VOCABULARY, save_transformer
from onnx import TensorProto, helper, numpy_helper

from llama_index_embed_plus.encoders.onnx_encoder import products_saturate
from llama_index_embed_plus.errors import ModelError
from llama_index_embed_plus.export.calibration import Frame, extreme_words, smoothing
from llama_index_embed_plus.export.rewrite import quantise
from llama_index_embed_plus.export.trace import trace
from llama_index_embed_plus.models.spec import EncoderSpec

ROWS = random_rows(10, longest=40, vocabulary=len(VOCABULARY))
FRAME = Frame((2,), (3,), room=60)


def traced(family, folder):
    save_transformer(folder, family=family)
    return trace(folder, EncoderSpec("tiny", family, 32, 60))


@pytest.fixture(scope="module")
def modernbert(tmp_path_factory):
    return traced("modernbert", tmp_path_factory.mktemp("modernbert"))


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_traced_family_is_invariant_and_near_float32(family, tmp_path):
    model = traced(family, tmp_path)
    int8 = open_session(quantise(model, frame=FRAME))
    alone = one_by_one(int8, ROWS)
    np.testing.assert_allclose(run(int8, padded(ROWS, length=60)), alone, atol=1e-6)
    assert (alone * one_by_one(open_session(model), ROWS)).sum(axis=1).min() > 0.99


def test_the_order_of_the_batch_and_the_number_of_threads_do_not_matter(modernbert):
    model = quantise(modernbert)
    alone = one_by_one(open_session(model), ROWS)
    reversed_batch = run(open_session(model, threads=2), padded(ROWS[::-1]))
    np.testing.assert_allclose(reversed_batch[::-1], alone, atol=1e-6)


def test_smoothing_brings_the_vectors_nearer_to_float32(modernbert):
    weights = {tensor.name: tensor for tensor in modernbert.graph.initializer}
    gains = [name for name in weights if name.endswith("norm.weight")]
    loud = onnx.ModelProto()
    loud.CopyFrom(modernbert)
    for tensor in loud.graph.initializer:
        if tensor.name in gains:  # three channels a hundred times as large as the others, as in real checkpoints
            gain = numpy_helper.to_array(tensor).copy()
            gain[:3] *= 100
            tensor.CopyFrom(numpy_helper.from_array(gain, tensor.name))
    expected = one_by_one(open_session(loud), ROWS)
    plain, smoothed = (one_by_one(open_session(quantise(loud, frame=frame)), ROWS) for frame in (None, FRAME))
    assert (smoothed * expected).sum(axis=1).mean() > (plain * expected).sum(axis=1).mean()


def test_the_weights_take_a_quarter_of_the_space_and_none_is_kept_twice(modernbert):
    int8 = quantise(modernbert)
    large = [tensor for tensor in int8.graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 1]
    assert {tensor.data_type for tensor in large} == {TensorProto.INT8}
    assert int8.graph.initializer and modernbert.graph.initializer
    assert all(tensor.data_type != TensorProto.INT8 for tensor in modernbert.graph.initializer)


def product_graph(*nodes, opset=17, **constants):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "product", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_a_gemm_with_a_transposed_weight_and_a_bias_is_computed_in_int8(opset):
    generator = np.random.default_rng(0)
    weight, bias = (generator.normal(size=shape).astype(np.float32) for shape in ((16, 8), (16,)))
    model = product_graph(
        helper.make_node("Gemm", ["x", "w", "b"], ["embedding"], transB=1), opset=opset, w=weight, b=bias
    )
    x = generator.normal(size=(5, 8)).astype(np.float32) * np.array([[1], [10], [0.01], [0], [1000]], np.float32)
    int8 = quantise(model)
    assert "Gemm" not in {node.op_type for node in int8.graph.node}
    result = open_session(int8).run(None, {"x": x})[0]
    size = np.abs(x).max(axis=1, keepdims=True) + np.abs(bias).max()
    assert (np.abs(result - (x @ weight.T + bias)) / size).max() < 0.05


@pytest.mark.skipif(
    products_saturate(),
    reason="this processor's int8 products saturate, and a weight read twice cannot be made unsigned",
)
def test_one_weight_read_behind_two_inputs_is_quantised_for_each(modernbert):
    weight = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    model = product_graph(
        helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["embedding"]), w=weight
    )
    x = np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32)
    result = open_session(quantise(model)).run(None, {"x": x})[0]
    np.testing.assert_allclose(result, x @ weight @ weight, atol=0.5)


def test_a_product_that_is_no_linear_layer_is_left_alone():
    weight = np.ones((8, 8), np.float32)
    scaled = helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5)
    plain = helper.make_node("MatMul", ["y", "w"], ["embedding"])
    int8 = quantise(product_graph(scaled, plain, w=weight))
    assert [node.op_type for node in int8.graph.node].count("Gemm") == 1


def test_a_graph_without_such_products_or_of_an_old_opset_is_refused():
    with pytest.raises(ModelError, match="nothing to make int8 of"):
        quantise(product_graph(helper.make_node("Relu", ["x"], ["embedding"])))
    node = helper.make_node("MatMul", ["x", "w"], ["embedding"])
    with pytest.raises(ModelError, match="opset 11, int8 needs 13"):
        quantise(product_graph(node, opset=11, w=np.ones((8, 8), np.float32)))
    with pytest.raises(ModelError, match="no table of word embeddings"):
        quantise(product_graph(node, w=np.ones((8, 8), np.float32)), frame=FRAME)


def test_smoothing_evens_out_the_channels_and_keeps_their_mean():
    peak, weight = np.array([100.0, 1.0, 1.0], np.float32), np.ones((3, 4), np.float32)
    divisor = smoothing(peak, [weight], alpha=1.0)
    np.testing.assert_allclose(peak / divisor, np.full(3, 100 ** (1 / 3)), rtol=1e-5)
    np.testing.assert_allclose(smoothing(peak, [weight], alpha=0.0), 1.0, rtol=1e-5)


def test_extreme_words_are_found_in_every_part_of_a_large_vocabulary():
    table = np.random.default_rng(0).uniform(-1, 1, size=(20_000, 3)).astype(np.float32)
    table[[5, 9_000, 19_999], [0, 1, 2]] = 50, -60, 70
    assert extreme_words(table, lambda states: states).tolist() == [5, 9_000, 19_999]
