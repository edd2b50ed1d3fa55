"""ONNX graphs of strangers: no file outside, no other operators, no end without an end; one line, and no noise."""

from __future__ import annotations

import os
import shutil

import numpy as np
import onnx
import pytest
from models import TEXTS, save_model
from onnx import TensorProto, helper, numpy_helper

from llama_index_embed_plus.encoders.onnx_encoder import check_graph
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.export.export import export_onnx
from qdrant_tools.errors import NotSupportedError, PlusError

node = helper.make_node


def graph(nodes, *weights, output="last_hidden_state", inputs=("input_ids", "attention_mask"), opset=17, domain=""):
    """A graph of those nodes, with the inputs and the output of an encoder unless it says otherwise."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        initializer=list(weights),
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(made, opset_imports=opsets)


def array(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def claim(*dims, content=b"abcd"):
    """A weight that claims another size than it has."""
    return onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=content)


def beside(location, **more):
    """A weight that lies in another file."""
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        weight.external_data.add(key=key, value=str(value))
    return weight


def loop():
    """2**62 rounds of nothing."""
    body = helper.make_graph(
        [node("Identity", ["c"], ["co"]), node("Identity", ["v"], ["vo"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("co", TensorProto.BOOL, []),
            helper.make_tensor_value_info("vo", TensorProto.FLOAT, None),
        ],
    )
    return graph(
        [
            node("Cast", ["input_ids"], ["f"], to=TensorProto.FLOAT),
            node("Loop", ["m", "go", "f"], ["last_hidden_state"], body=body),
        ],
        array("m", np.int64(2**62)),
        array("go", np.bool_(True)),
    )


WEIGHT = node("Identity", ["w"], ["last_hidden_state"])
CAST = node("Cast", ["input_ids"], ["last_hidden_state"], to=TensorProto.FLOAT)
FILLED = node("ConstantOfShape", ["s"], ["last_hidden_state"])

GRAPHS = {
    "garbage": lambda: b"\x08\x07garbage" * 1000,
    "nothing": lambda: b"",
    "a weight of 4 TB": lambda: graph([WEIGHT], claim(10**6, 10**6)),
    "a weight of a negative size": lambda: graph([WEIGHT], claim(-5)),
    "an absolute path": lambda: graph([WEIGHT], beside("/etc/passwd")),
    "a path that leads out": lambda: graph([WEIGHT], beside("../../outside/secret.txt")),
    "a device": lambda: graph([WEIGHT], beside("/dev/zero")),
    "a file that is gone": lambda: graph([WEIGHT], beside("gone")),
    "an offset beyond the file": lambda: graph([WEIGHT], beside("model.onnx", offset=10**15, length=8)),
    "a length beyond the file": lambda: graph([WEIGHT], beside("model.onnx", offset=0, length=10**15)),
    "an operator of a library": lambda: graph(
        [node("Evil", ["input_ids"], ["last_hidden_state"], domain="evil.ops")], domain="evil.ops"
    ),
    "an opset of the future": lambda: graph([CAST], opset=999),
    "other inputs": lambda: graph([node("Cast", ["x"], ["last_hidden_state"], to=1)], inputs=("x",)),
    "another output": lambda: graph([node("Cast", ["input_ids"], ["logits"], to=1)], output="logits"),
    "an output without states": lambda: graph([CAST]),
    "vectors of another width": lambda: graph([node("Cast", ["input_ids"], ["embedding"], to=1)], output="embedding"),
    "an output of terabytes": lambda: graph([FILLED], array("s", np.array([10**4, 10**4, 10**5], np.int64))),
    "a loop": loop,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "model"
    save_model(folder)
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    return folder


@pytest.fixture
def model(good, tmp_path):
    """A folder without weights: its graph is all there is."""
    return shutil.copytree(good, tmp_path / "received")


def place(folder, made):
    (folder / "onnx" / "model.onnx").write_bytes(made if isinstance(made, bytes) else made.SerializeToString())


@pytest.mark.parametrize("made", GRAPHS.values(), ids=GRAPHS)
def test_a_hostile_graph_is_one_error_and_prints_nothing(model, outside, tmp_path, capfd, made):
    place(model, made())
    for call in (lambda: open_encoder(model).encode_queries(TEXTS), lambda: export_onnx(model, tmp_path / "out")):
        capfd.readouterr()
        with pytest.raises(PlusError) as refusal:
            call()
        assert "\n" not in str(refusal.value)
        assert capfd.readouterr().err == ""
    assert not (tmp_path / "out").exists()


def test_weights_beside_a_graph_are_no_link_that_leads_out(model, outside, tmp_path):
    place(model, graph([WEIGHT], beside("data.bin")))
    (model / "onnx" / "data.bin").symlink_to(outside.secret)
    for call in (lambda: open_encoder(model), lambda: export_onnx(model, tmp_path / "out")):
        with pytest.raises(DamagedModelError, match=r"data\.bin is a link"):
            call()


@pytest.mark.parametrize("made", ["a loop", "garbage", "other inputs"])
def test_a_hostile_graph_is_refused_by_the_commands(model, tmp_path, refused, made):
    place(model, GRAPHS[made]())
    refused("export", model, "--out", tmp_path / "out", like=("describe", "--help"))


@pytest.mark.parametrize("written", [b'"\x04Loop', b"\xa2\x00\x84\x80\x00Scan"])
@pytest.mark.parametrize("before", [0, (1 << 22) - 3, 1 << 22])
def test_a_loop_is_found_wherever_it_stands_and_however_it_is_written(tmp_path, written, before):
    (tmp_path / "a.onnx").write_bytes(b"\0" * before + written)
    with pytest.raises(NotSupportedError, match="has loops"):
        check_graph(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(b"\0" * before + written[:-1])
    check_graph(tmp_path / "a.onnx")


def test_a_graph_beyond_what_protobuf_holds_is_not_read(tmp_path):
    with (tmp_path / "a.onnx").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(DamagedModelError, match="expected at most"):
        check_graph(tmp_path / "a.onnx")
    os.unlink(tmp_path / "a.onnx")


def test_functions_that_call_each_other_twice_are_refused_before_they_are_copied(tmp_path):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    calls = [
        helper.make_function(
            *("mine", f"f{i}", ["a"], ["c"]),
            [node(f"f{i + 1}", ["a"], ["b"], domain="mine"), node(f"f{i + 1}", ["b"], ["c"], domain="mine")],
            opsets,
        )
        for i in range(30)
    ]
    last = helper.make_function("mine", "f30", ["a"], ["c"], [node("Abs", ["a"], ["c"])], opsets)
    words = array("w", np.ones((64, 32), np.float32))
    nodes = [node("Gather", ["w", "input_ids"], ["x"]), node("f0", ["x"], ["last_hidden_state"], domain="mine")]
    made = graph(nodes, words, domain="mine")
    made.functions.extend([*calls, last])
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(NotSupportedError, match="functions of its own"):
        check_graph(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 40, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0b", b"\x09\x00"]
)
def test_what_is_no_graph_is_left_to_the_library(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    check_graph(tmp_path / "model.onnx")
