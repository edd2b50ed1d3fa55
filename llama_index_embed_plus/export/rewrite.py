"""Any fp32 ONNX encoder -> the same graph with int8 weights and one activation scale per token.

This is the general path to int8, for graphs that were traced from torch or came from a hub. Each product with constant
weights (MatMul, Gemm) gets one symmetric scale per row of its input, after SmoothQuant's per-channel smoothing, and one
per column of its weights. The table of word embeddings gets one scale per word. Everything else stays as it is.

Guarantees: no scale depends on another row, and integer products are exact in any order, so vectors that did not depend
on the batch or the padding still do not. The model that is passed is not changed. Does not know: what the graph
computes. How faithful the result is has to be measured (`export.measure`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from llama_index_embed_plus.errors import ModelError
from llama_index_embed_plus.export.calibration import Frame, common_words, extreme_words, peaks, sequences, smoothing
from llama_index_embed_plus.export.network import quantise_columns, quantise_words
from llama_index_embed_plus.export.onnx_writer import MICROSOFT
from llama_index_embed_plus.export.weights import Array

IDS = "input_ids"

_PREFIX = "int8/"
_OLDEST_OPSET = 13
_ALPHA = 0.6  # with a scale per row there is less to smooth than with one per tensor
_TINY = np.float32(1e-12)
_CENTRE = np.uint8(128)
_MOVES_ONLY = ("Identity", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Transpose", "Flatten")


def quantise(model: Any, *, frame: Frame | None = None) -> Any:
    """Rewrite `onnx.ModelProto` to int8. Weights kept in other files must have been loaded into it.

    frame: The model's special tokens and its longest text. The fp32 graph is run once over made-up sequences in this
    frame to measure the smoothing. None leaves the smoothing out, which is faster and less faithful.
    Raises ModelError for a graph without constant-weight products, or of an opset before 13.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("", 0) < _OLDEST_OPSET:
        raise ModelError(f"the graph has opset {opsets.get('')}, int8 needs {_OLDEST_OPSET} or later; export it again")
    divisors = {} if frame is None else _smoothing(model, frame)
    rewriter = _Rewriter(model.graph, divisors, axes_as_input=opsets[""] >= 18)
    nodes = [new for node in model.graph.node for new in rewriter.rewrite(node)]
    if not rewriter.products:
        raise ModelError("the graph has no MatMul or Gemm with constant weights; there is nothing to make int8 of")
    constants = [*model.graph.initializer, *rewriter.constants]
    return _assemble(model, _needed(nodes, model.graph), model.graph.output, constants)


def _smoothing(model: Any, frame: Frame) -> dict[str, Array]:
    """Measure the per-channel divisor of every tensor that constant weights multiply."""
    sources, ids = _constants(model.graph), _moved_from(IDS, model.graph)
    readers: dict[str, list[Array]] = {}
    table = None
    for node in model.graph.node:
        product = _product_of(node, sources)
        if product is not None:
            readers.setdefault(node.input[0], []).append(product.weight)
        elif _reads_words(node, sources, ids):
            table = numpy_helper.to_array(sources[node.input[0]])
    if table is None:
        raise ModelError("the graph looks up no table of word embeddings; smoothing cannot be measured, pass no frame")
    names = list(readers)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    tapped = _assemble(model, model.graph.node, outputs, model.graph.initializer)
    texts = sequences(common_words(len(table)), extreme_words(table, _standardised), frame)
    largest = peaks(tapped, names, texts, lambda rows: np.abs(rows).reshape(-1, rows.shape[-1]).max(axis=0))
    return {name: smoothing(largest[name], readers[name], alpha=_ALPHA) for name in names}


def _standardised(table: Array) -> Array:
    """Return embeddings as a normalisation leaves them, which is the first or second step of nearly every network."""
    centred = table - table.mean(axis=1, keepdims=True)
    return np.asarray(centred / (table.std(axis=1, keepdims=True) + _TINY), np.float32)


def _assemble(model: Any, nodes: Iterable[Any], outputs: Iterable[Any], constants: Iterable[Any]) -> Any:
    """Return `model` with other nodes, outputs and constants. Constants that no node reads are left out."""
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, outputs)
    read = {name for node in graph.node for name in _reads(node)} | {output.name for output in graph.output}
    graph.initializer.extend(tensor for tensor in constants if tensor.name in read)
    opsets = {entry.domain: entry.version for entry in model.opset_import} | {MICROSOFT: 1}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )


@dataclass(frozen=True)
class _Product:
    """x @ weight [inputs, outputs] (+ bias). `key` names the weight in this orientation."""

    key: str
    weight: Array
    bias: str | None


class _Rewriter:
    """Rewrites one graph node by node. What several products share is written once."""

    def __init__(self, graph: Any, smoothing: Mapping[str, Array], *, axes_as_input: bool) -> None:
        self.constants: list[Any] = []
        self.products = 0
        self._axes_as_input = axes_as_input
        self._smoothing = smoothing
        self._sources, self._ids = _constants(graph), _moved_from(IDS, graph)
        self._rows: dict[str, tuple[str, str]] = {}
        self._names: set[str] = set()
        self._nodes: list[Any] = []

    def rewrite(self, node: Any) -> list[Any]:
        """Return the nodes that take the place of `node`."""
        self._nodes = []
        product = _product_of(node, self._sources)
        if product is not None:
            self._product(product, node.input[0], node.output[0])
        elif _reads_words(node, self._sources, self._ids):
            self._words(*node.input, output=node.output[0])
        else:
            return [node]
        return self._nodes

    def _product(self, product: _Product, tensor: str, output: str) -> None:
        """Quantise `tensor` by row, multiply integers, scale back."""
        self.products += 1
        steps, row_scale = self._quantised(tensor)
        divisor = self._smoothing.get(tensor)
        weights, scales = quantise_columns(product.weight if divisor is None else product.weight * divisor[:, None])
        # A weight may be read behind several smoothings, so its name alone is not unique.
        name = product.key if divisor is None else f"{product.key}/{tensor}"
        inputs = [steps, self._constant(name, weights), self._constant("one", np.float32(1))]
        inputs += [self._constant(f"{name}.scales", scales), self._constant("centre", _CENTRE)]
        result = self._add("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)
        if product.bias is None:
            self._add("Mul", result, row_scale, output=output)
        else:
            self._add("Add", self._add("Mul", result, row_scale), product.bias, output=output)

    def _quantised(self, tensor: str) -> tuple[str, str]:
        """Return (uint8 steps, scale [..., 1]) of a tensor, by row. They are written before its first reader."""
        if tensor not in self._rows:
            smooth = tensor
            if tensor in self._smoothing:
                divisor = self._constant(f"{tensor}.smoothing", np.float32(1) / self._smoothing[tensor])
                smooth = self._add("Mul", tensor, divisor)
            peak = self._reduce_max(self._add("Abs", smooth))
            floor, step = self._constant("tiny", _TINY), self._constant("step", np.float32(1 / 127))
            scale = self._add("Mul", self._add("Max", peak, floor), step)
            one, centre = self._constant("one", np.float32(1)), self._constant("centre", _CENTRE)
            # divided first: before opset 21, QuantizeLinear takes one scale, or one for each index along one axis
            steps = self._add("QuantizeLinear", self._add("Div", smooth, scale), one, centre)
            self._rows[tensor] = steps, scale
        return self._rows[tensor]

    def _reduce_max(self, tensor: str) -> str:
        # opset 18 made the axes of ReduceMax an input
        if self._axes_as_input:
            return self._add("ReduceMax", tensor, self._constant("last", np.array([-1])), keepdims=1)
        return self._add("ReduceMax", tensor, axes=[-1], keepdims=1)

    def _words(self, table: str, ids: str, *, output: str) -> None:
        steps, scales = quantise_words(numpy_helper.to_array(self._sources[table]))
        rows = self._add("Gather", self._constant(table, steps), ids)
        row_scales = self._add("Gather", self._constant(f"{table}.scales", scales), ids)
        self._add("Mul", self._add("Cast", rows, to=TensorProto.FLOAT), row_scales, output=output)

    def _constant(self, name: str, value: Any) -> str:
        name = _PREFIX + name
        if name not in self._names:
            self._names.add(name)
            self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or f"{_PREFIX}{operator}_{len(self._names)}"
        self._names.add(output)
        self._nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output


def _constants(graph: Any) -> dict[str, Any]:
    """Return name -> TensorProto of every constant: initialisers, Constant nodes, and aliases of both."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if "value" in values:
                constants[node.output[0]] = values["value"]
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _moved_from(name: str, graph: Any) -> set[str]:
    """Return `name` and every tensor that holds its values unchanged, in another shape or type."""
    same = {name}
    for node in graph.node:
        if node.op_type in _MOVES_ONLY and node.input[0] in same:
            same.add(node.output[0])
    return same


def _product_of(node: Any, sources: Mapping[str, Any]) -> _Product | None:
    """Return the node as a product with constant weights, if it is one."""
    if node.op_type not in ("MatMul", "Gemm") or not _is_matrix(sources.get(node.input[1])):
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    name, weight = node.input[1], numpy_helper.to_array(sources[node.input[1]])
    bias = node.input[2] if len(node.input) > 2 else None
    # a weight may be read in both orientations, and the two constants must not share a name
    if attributes.get("transB", 0):
        return _Product(f"{name}.t", np.ascontiguousarray(weight.T), bias)
    return _Product(name, weight, bias)


def _reads_words(node: Any, sources: Mapping[str, Any], ids: Container[str]) -> bool:
    """Whether the node looks up word embeddings."""
    return node.op_type == "Gather" and node.input[1] in ids and _is_matrix(sources.get(node.input[0]))


def _is_matrix(tensor: Any) -> bool:
    return tensor is not None and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2


def _reads(node: Any) -> Iterable[str]:
    """Yield every tensor that a node reads, inside its subgraphs too."""
    yield from node.input
    for attribute in node.attribute:
        # branches and loops read tensors of the graph around them
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                yield from _reads(inner)


def _needed(nodes: list[Any], graph: Any) -> list[Any]:
    """Return the nodes without those whose outputs are not read any more, mostly aliases of weights."""
    read = {output.name for output in graph.output}
    needed = []
    # Backwards, because ONNX nodes are in order: all readers of an output come after the node that makes it.
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            read.update(_reads(node))
            needed.append(node)
    return needed[::-1]
