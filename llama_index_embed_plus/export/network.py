"""Folded encoder weights -> the ONNX nodes that turn token ids into token states, in float32 or in int8.

`Network` says what is computed, `Float32` and `Int8` say how numbers are multiplied. A tensor that is to be multiplied
becomes an `Operand`: by `per_tensor` at the taps (input of the attention, its context, input of the feed-forward part),
by `per_token` behind the activation function. `matmul` multiplies it with weights.

Tensors are sequence-major, [S, B, H] for S tokens of B texts: FusedMatMul then reads q, k and v of every head without a
transpose. Scores are [B, heads, S, S].

int8: weights are symmetric with one scale per output column, word embeddings with one scale per word. A tap has one
scale per tensor, measured once (`calibration`), after SmoothQuant (Xiao et al. 2023) has moved the outlier channels
into the weights. The output of the activation function differs too much between tokens for that, and has one scale per
token.

Guarantees: padding is masked with -1e9 before the softmax, so it adds exact zeros; no scale depends on the batch, and
integer products are exact in any order, so a text has one int8 vector whatever surrounds it. Does not know: pooling,
files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.export.onnx_writer import GraphWriter, int64
from llama_index_embed_plus.export.weights import Array, EncoderWeights, Layer, Linear, Norm

IDS, MASK = "input_ids", "attention_mask"
# Finite: (mask - 1) * inf is NaN for every real token.
_MASKED = np.float32(1e9)


TapKind = Literal["qkv", "context", "up", "projection"]
"""Input of q, k and v; attention context; input of the feed-forward part; input of the embedding projection."""

Tap = tuple[int, TapKind]
"""A tensor with one scale: (layer number, kind). The embedding projection counts as layer -1."""

# onnxruntime's fast kernels multiply unsigned activations by signed weights, so 0 is step 128
_CENTRE = np.uint8(128)
_TINY = 1e-12
# shares of the largest weight of a column that are tried as the end of its scale
_CLIPPED_TO = np.linspace(1.0, 0.8, 21)


@dataclass(frozen=True)
class Range:
    """A calibrated tap: `scale` is one int8 step of x / smoothing. smoothing [channels] has geometric mean 1."""

    scale: float
    smoothing: Array


@dataclass(frozen=True)
class Operand:
    """A tensor ready to be multiplied. A quantised one is uint8 with `scale` and `zero_point`.

    `row_scale` names a tensor [..., 1] that multiplies the product; `smoothing` multiplies the rows of the weights.
    """

    tensor: str
    scale: float = 1.0
    zero_point: np.uint8 = _CENTRE
    smoothing: Array | None = None
    row_scale: str | None = None

    def with_tensor(self, tensor: str) -> Operand:
        """Return the same quantisation of `tensor`: this one after a reshape, transpose or slice."""
        return Operand(tensor, self.scale, self.zero_point, self.smoothing, self.row_scale)


@dataclass(frozen=True)
class Activation:
    """An activation function: onnxruntime's kernel and the lowest value it can return.

    `zero_point` is the uint8 step that stands for 0 when its output is quantised. Few steps are needed below 0.
    """

    operator: str
    lowest: float
    zero_point: int
    alpha: float | None = None
    fused: bool = True

    def __call__(self, graph: GraphWriter, tensor: str) -> str:
        if not self.fused:
            return graph(self.operator, tensor)
        return graph.microsoft(self.operator, tensor, **({} if self.alpha is None else {"alpha": self.alpha}))


_TANH_GELU = Activation("FastGelu", -0.1701, 16)
ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": Activation("Gelu", -0.1701, 16),  # erf; minimum -0.16998 at x = -0.7518
    "gelu_new": _TANH_GELU,
    "gelu_fast": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "quick_gelu": Activation("QuickGelu", -0.1640, 16, alpha=1.702),  # minimum -0.2785 / 1.702
    "relu": Activation("Relu", 0.0, 0, fused=False),
    # x * sigmoid(x) is QuickGelu with alpha 1; minimum -0.2785 at x = -1.278
    "silu": Activation("QuickGelu", -0.2785, 24, alpha=1.0),
    "swish": Activation("QuickGelu", -0.2785, 24, alpha=1.0),
}
"""transformers' name of an activation -> how to compute it."""


class Arithmetic(ABC):
    """How `Network` multiplies."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph

    @abstractmethod
    def word_embeddings(self, table: Array, ids: str) -> str:
        """Look up word embeddings: [..., width] for ids [...]."""

    @abstractmethod
    def per_tensor(self, tensor: str, tap: Tap, *, smoothed: bool = False) -> Operand:
        """Read a tensor at a tap. `smoothed`: it has already been divided by the smoothing."""

    @abstractmethod
    def per_token(self, tensor: str, activation: Activation, width: int) -> Operand:
        """Read the output [S, B, width] of an activation function."""

    @abstractmethod
    def matmul(self, operand: Operand, linear: Linear, name: str) -> str:
        """operand @ weight + bias, as float."""

    def smoothing(self, tap: Tap) -> Array | None:
        """Return the divisor of the input that `per_tensor(..., smoothed=True)` expects. None: no divisor."""
        return None


class Float32(Arithmetic):
    """Plain float32. Collects in `taps` the tensor at each tap, so that calibration can measure it."""

    def __init__(self, graph: GraphWriter) -> None:
        super().__init__(graph)
        self.taps: dict[Tap, str] = {}

    def word_embeddings(self, table: Array, ids: str) -> str:
        return self.graph("Gather", self.graph.constant(table, "words"), ids)

    def per_tensor(self, tensor: str, tap: Tap, *, smoothed: bool = False) -> Operand:
        self.taps[tap] = tensor
        return Operand(tensor)

    def per_token(self, tensor: str, activation: Activation, width: int) -> Operand:
        return Operand(tensor)

    def matmul(self, operand: Operand, linear: Linear, name: str) -> str:
        product = self.graph("MatMul", operand.tensor, self.graph.constant(linear.weight, name))
        return product if linear.bias is None else self.graph("Add", product, linear.bias)


class Int8(Arithmetic):
    """int8 weights and activations. MatMulIntegerToFloat applies scales and bias after its integer product."""

    def __init__(self, graph: GraphWriter, ranges: Mapping[Tap, Range]) -> None:
        super().__init__(graph)
        self.ranges = ranges

    def word_embeddings(self, table: Array, ids: str) -> str:
        steps, scales = quantise_words(table)
        rows = self.graph.to_float(self.graph("Gather", self.graph.constant(steps, "words"), ids))
        return self.graph("Mul", rows, self.graph("Gather", self.graph.constant(scales, "word_scales"), ids))

    def per_tensor(self, tensor: str, tap: Tap, *, smoothed: bool = False) -> Operand:
        calibrated = self.ranges[tap]
        if not smoothed:
            tensor = self.graph("Mul", tensor, (1 / calibrated.smoothing).astype(np.float32))
        steps = self.graph("QuantizeLinear", tensor, np.float32(calibrated.scale), _CENTRE)
        return Operand(steps, calibrated.scale, smoothing=calibrated.smoothing)

    def per_token(self, tensor: str, activation: Activation, width: int) -> Operand:
        graph, zero = self.graph, activation.zero_point
        # no Abs: how far below 0 a value can lie is known, see `floor`
        peak = graph("ReduceMax", tensor, int64(-1), keepdims=1)
        # The `zero` steps below 0 must reach down to the minimum of the function.
        floor = -activation.lowest * (255 - zero) / zero if zero else _TINY
        scale = graph("Mul", graph("Max", peak, np.float32(floor)), np.float32(1 / (255 - zero)))
        # QuantizeLinear wants a zero point for every scale
        zeros = graph.filled(graph("Shape", scale), np.uint8(zero))
        # One block per token: of the QuantizeLinear forms with a scale per row, only this one has a fast kernel.
        steps = graph("QuantizeLinear", tensor, scale, zeros, axis=2, block_size=width)
        return Operand(steps, 1.0, np.uint8(zero), row_scale=scale)

    def matmul(self, operand: Operand, linear: Linear, name: str) -> str:
        weight = linear.weight if operand.smoothing is None else linear.weight * operand.smoothing[:, None]
        steps, scales = quantise_columns(weight)
        weights = self.graph.constant(steps, name)
        inputs = (operand.tensor, weights, np.float32(operand.scale), scales, operand.zero_point)
        if operand.row_scale is None:
            # the empty name leaves out the zero point of the weights, which are symmetric
            bias = () if linear.bias is None else ("", linear.bias)
            return self.graph.microsoft("MatMulIntegerToFloat", *inputs, *bias)
        # The row scale comes after the kernel, so the bias must come after it, too.
        product = self.graph("Mul", self.graph.microsoft("MatMulIntegerToFloat", *inputs), operand.row_scale)
        return product if linear.bias is None else self.graph("Add", product, linear.bias)

    def smoothing(self, tap: Tap) -> Array | None:
        return self.ranges[tap].smoothing


def quantise_columns(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Return int8 steps and one symmetric scale per output column of weight [inputs, outputs]: steps * scales ~ weight.

    The scale of a column has the smallest squared error among those that clip up to a fifth of its range.
    """
    whole = np.maximum(np.abs(weight).max(axis=0), _TINY) / 127
    steps, scales, least = np.empty(weight.shape, np.int8), whole.astype(np.float32), np.full(whole.shape, np.inf)
    for share in _CLIPPED_TO:
        # rounded to float32 first: the error is that of the scale as it is stored
        candidate = (whole * share).astype(np.float32)
        rounded = np.clip(np.rint(weight / candidate), -127, 127)
        error = np.square(rounded * candidate - weight).sum(axis=0)
        better = error < least
        steps[:, better], scales[better], least[better] = rounded[:, better], candidate[better], error[better]
    return steps, scales


def quantise_words(table: Array) -> tuple[NDArray[np.int8], Array]:
    """Return int8 steps of word embeddings [words, width] and one symmetric scale per word, [words, 1]."""
    steps, scales = quantise_columns(table.T)
    return np.ascontiguousarray(steps.T), scales[:, None]


class Network:
    """Writes one network into `arithmetic.graph`."""

    def __init__(self, weights: EncoderWeights, arithmetic: Arithmetic) -> None:
        self.weights, self.arithmetic, self.graph = weights, arithmetic, arithmetic.graph
        self.activation = ACTIVATIONS[weights.activation]
        self.head_size = weights.hidden_size // weights.heads
        self.attention = ""
        """Attention of the layer written last, [B, heads, Q, S]."""

    def states(self, *, first_only: bool = False) -> str:
        """Write all layers and return the token states [S, B, H].

        `first_only`: only the first token is read afterwards, so the last layer computes nothing else: [1, B, H].
        """
        states = self._embeddings()
        bias = self._score_bias()
        last = len(self.weights.layers) - 1
        for number, layer in enumerate(self.weights.layers):
            states = self._layer(layer, number, states, bias, first_only=first_only and number == last)
        return states

    def _embeddings(self) -> str:
        graph, weights = self.graph, self.weights
        ids = graph("Transpose", IDS, perm=[1, 0])
        states = graph("Add", self.arithmetic.word_embeddings(weights.words, ids), self._positions(ids))
        states = self._norm(states, weights.embedding_norm)
        if weights.projection is None:
            return states
        operand = self.arithmetic.per_tensor(states, (-1, "projection"))
        return self.arithmetic.matmul(operand, weights.projection, "projection")

    def _positions(self, ids: str) -> str:
        """Return position embeddings, [S, 1, width], or [S, B, width] if they depend on which tokens are padding."""
        graph, padding = self.graph, self.weights.padding_id
        table = graph.constant(self.weights.positions, "positions")
        if padding is None:
            length = graph("Shape", ids, start=0, end=1)
            return graph("Unsqueeze", graph("Slice", table, int64(0), length, int64(0)), int64(1))
        real = graph.to_int64(graph("Not", graph("Equal", ids, np.int64(padding))))
        # times `real`: padding gets position padding_id, as in transformers
        number = graph("Mul", graph("CumSum", real, np.int64(0)), real)
        return graph("Gather", table, graph("Add", number, np.int64(padding)))

    def _score_bias(self) -> str:
        """Return what is added to the scores: -1e9 on padding, and the relative position bias if there is one."""
        graph, table = self.graph, self.weights.relative_bias
        padding = graph("Mul", graph("Sub", graph.to_float(MASK), np.float32(1)), _MASKED)
        bias = graph("Unsqueeze", padding, int64(1, 2))
        if table is None:
            return bias
        length = graph("Squeeze", graph("Shape", MASK, start=1, end=2), int64(0))
        position = graph("Range", np.int64(0), length, np.int64(1))
        distance = graph("Sub", graph("Unsqueeze", position, int64(0)), graph("Unsqueeze", position, int64(1)))
        # the middle column belongs to distance 0
        index = graph("Add", distance, np.int64(table.shape[1] // 2))
        return graph("Add", graph("Gather", graph.constant(table, "relative_bias"), index, axis=1), bias)

    def _layer(self, layer: Layer, number: int, states: str, bias: str, *, first_only: bool) -> str:
        graph, arithmetic = self.graph, self.arithmetic
        keys = arithmetic.per_tensor(states, (number, "qkv"))
        queries = keys
        if first_only:
            states = graph.first(states, axis=0)
            queries = keys.with_tensor(graph.first(keys.tensor, axis=0))
        context = self._attend(layer, number, queries, keys, bias)
        attended = arithmetic.matmul(context, layer.output, f"layer{number}.output")
        states = self._norm(graph("Add", attended, states), layer.attention_norm)

        middle = arithmetic.matmul(arithmetic.per_tensor(states, (number, "up")), layer.up, f"layer{number}.up")
        middle = self.activation(graph, middle)
        rows = arithmetic.per_token(middle, self.activation, layer.up.weight.shape[1])
        out = arithmetic.matmul(rows, layer.down, f"layer{number}.down")
        return self._norm(graph("Add", out, states), layer.output_norm)

    def _attend(self, layer: Layer, number: int, queries: Operand, keys: Operand, bias: str) -> Operand:
        """Write multi-head attention of `queries` [Q, B, H] over `keys` [S, B, H]; return the context [Q, B, H]."""
        graph = self.graph
        tap: Tap = (number, "context")
        smoothing = self.arithmetic.smoothing(tap)
        value = layer.value
        # The context is a mean of values: dividing these by its smoothing costs nothing. `fold` took away their bias.
        if smoothing is not None:
            value = replace(value, weight=value.weight / smoothing)
        q = self._heads(queries, layer.query, f"layer{number}.query")
        k = self._heads(keys, layer.key, f"layer{number}.key")
        v = self._heads(keys, value, f"layer{number}.value")
        scores = graph.microsoft("FusedMatMul", q, k, transBatchA=1, transBatchB=1, transB=1)
        self.attention = graph("Softmax", graph("Add", scores, bias), axis=-1)
        context = graph.microsoft("FusedMatMul", self.attention, v, transBatchB=1)  # [B, heads, Q, head size]
        # Quantised before the transpose, which then moves bytes instead of floats.
        operand = self.arithmetic.per_tensor(context, tap, smoothed=True)
        merged = graph("Transpose", operand.tensor, perm=[2, 0, 1, 3])
        return operand.with_tensor(graph.reshape(merged, 0, 0, self.weights.hidden_size))

    def _heads(self, operand: Operand, linear: Linear, name: str) -> str:
        product = self.arithmetic.matmul(operand, linear, name)
        return self.graph.reshape(product, 0, 0, self.weights.heads, self.head_size)

    def _norm(self, tensor: str, norm: Norm) -> str:
        return self.graph("LayerNormalization", tensor, norm.gain, norm.shift, axis=-1, epsilon=norm.epsilon)
