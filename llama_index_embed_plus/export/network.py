"""Folded encoder weights -> the ONNX nodes that turn token ids into token states.

Tensors run sequence-major, [S, B, H] for S tokens of B texts: FusedMatMul then reads q, k and v of every head without a
transpose. Scores are [B, heads, S, S].

Guarantees: one network for fp32 and int8, which differ only in the `Arithmetic`. Padding is masked with -1e9 before the
softmax, so that it adds exact zeros.
Does not know: how numbers are multiplied, pooling, files.

How the products of the network are computed: in float32, or in int8 with scales that no other text can move.

The graph (graph.py) says *what* is multiplied; `Float32` and `Int8` say how. A tensor about to be multiplied is read
through `static` (attention input, attention context, feed-forward input) or `rows` (feed-forward middle) and comes back
as an `Operand`, which `product` multiplies with weights.

int8 in one paragraph. Weights: symmetric, one scale per output column. Activations that leave a layer normalisation or
the attention: one scale per tensor, measured once (calibrate.py), after SmoothQuant's per-channel smoothing (Xiao et
al. 2023) has moved the outlier channels into the weights. The activation function's output, whose range differs from
token to token too much for that: one scale per token. Word embeddings: one scale per word.

Guarantees: no scale depends on the batch, its padding or its order, and integer products are exact in any order, so a
text has one vector whatever surrounds it.
Does not know: layers, pooling, files.
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
_MASKED = np.float32(1e9)


class Network:
    """Writes one network into `arithmetic.graph`."""

    def __init__(self, weights: EncoderWeights, arithmetic: Arithmetic) -> None:
        self.weights, self.arithmetic, self.graph = weights, arithmetic, arithmetic.graph
        self.activation = ACTIVATIONS[weights.activation]
        self.head_size = weights.hidden_size // weights.heads
        self.shares = ""
        """Attention of the layer written last, [B, heads, Q, S]."""

    def states(self, *, first_only: bool = False) -> str:
        """Write all layers; returns the token states [S, B, H].

        `first_only`: nothing but the first token is read afterwards, so the last layer computes only that: [1, B, H].
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
        states = graph("Add", self.arithmetic.words(weights.words, ids), self._positions(ids))
        states = self._norm(states, weights.embedding_norm)
        if weights.projection is None:
            return states
        operand = self.arithmetic.static(states, (-1, "projection"))
        return self.arithmetic.product(operand, weights.projection, "projection")

    def _positions(self, ids: str) -> str:
        """Position embeddings, [S, 1, width], or [S, B, width] where they depend on which tokens are padding."""
        graph, padding = self.graph, self.weights.padding_id
        table = graph.constant(self.weights.positions, "positions")
        if padding is None:
            length = graph("Shape", ids, start=0, end=1)
            return graph("Unsqueeze", graph("Slice", table, int64(0), length, int64(0)), int64(1))
        real = graph.to_int64(graph("Not", graph("Equal", ids, np.int64(padding))))
        number = graph("Mul", graph("CumSum", real, np.int64(0)), real)
        return graph("Gather", table, graph("Add", number, np.int64(padding)))

    def _score_bias(self) -> str:
        """What is added to the scores: -1e9 on padding, and the relative position bias if there is one."""
        graph, table = self.graph, self.weights.relative_bias
        padding = graph("Mul", graph("Sub", graph.to_float(MASK), np.float32(1)), _MASKED)
        bias = graph("Unsqueeze", padding, int64(1, 2))
        if table is None:
            return bias
        length = graph("Squeeze", graph("Shape", MASK, start=1, end=2), int64(0))
        position = graph("Range", np.int64(0), length, np.int64(1))
        distance = graph("Sub", graph("Unsqueeze", position, int64(0)), graph("Unsqueeze", position, int64(1)))
        index = graph("Add", distance, np.int64(table.shape[1] // 2))
        return graph("Add", graph("Gather", graph.constant(table, "relative_bias"), index, axis=1), bias)

    def _layer(self, layer: Layer, number: int, states: str, bias: str, *, first_only: bool) -> str:
        graph, arithmetic = self.graph, self.arithmetic
        read = arithmetic.static(states, (number, "qkv"))
        asked = read
        if first_only:
            states = graph.first(states, axis=0)
            asked = read.moved(graph.first(read.tensor, axis=0))
        context = self._attention(layer, number, asked, read, bias)
        attended = arithmetic.product(context, layer.output, f"layer{number}.output")
        states = self._norm(graph("Add", attended, states), layer.attention_norm)

        middle = arithmetic.product(arithmetic.static(states, (number, "up")), layer.up, f"layer{number}.up")
        middle = self.activation(graph, middle)
        rows = arithmetic.rows(middle, self.activation, layer.up.weight.shape[1])
        out = arithmetic.product(rows, layer.down, f"layer{number}.down")
        return self._norm(graph("Add", out, states), layer.output_norm)

    def _attention(self, layer: Layer, number: int, asked: Operand, read: Operand, bias: str) -> Operand:
        """Multi-head attention of `asked` [Q, B, H] over `read` [S, B, H]: the context [Q, B, H], to be multiplied."""
        graph = self.graph
        place: Place = (number, "context")
        smoothing = self.arithmetic.smoothing(place)
        value = layer.value
        if smoothing is not None:  # dividing the context by its smoothing costs nothing here
            value = replace(value, weight=value.weight / smoothing)
        q = self._heads(asked, layer.query, f"layer{number}.query")
        k = self._heads(read, layer.key, f"layer{number}.key")
        v = self._heads(read, value, f"layer{number}.value")
        scores = graph.microsoft("FusedMatMul", q, k, transBatchA=1, transBatchB=1, transB=1)
        self.shares = graph("Softmax", graph("Add", scores, bias), axis=-1)
        context = graph.microsoft("FusedMatMul", self.shares, v, transBatchB=1)  # [B, heads, Q, head size]
        # Quantised first, the transpose moves bytes instead of floats.
        operand = self.arithmetic.static(context, place, smoothed=True)
        merged = graph("Transpose", operand.tensor, perm=[2, 0, 1, 3])
        return operand.moved(graph.reshape(merged, 0, 0, self.weights.hidden_size))

    def _heads(self, operand: Operand, linear: Linear, name: str) -> str:
        product = self.arithmetic.product(operand, linear, name)
        return self.graph.reshape(product, 0, 0, self.weights.heads, self.head_size)

    def _norm(self, tensor: str, norm: Norm) -> str:
        return self.graph("LayerNormalization", tensor, norm.gain, norm.shift, axis=-1, epsilon=norm.epsilon)


Site = Literal["qkv", "context", "up", "projection"]
"""Where a static scale applies: input of q, k and v; attention context; feed-forward input; embedding projection."""

Place = tuple[int, Site]
"""(layer number, site); the embedding projection counts as layer -1."""

_CENTRE = np.uint8(128)
_TINY = 1e-12
_SHARES = np.linspace(1.0, 0.8, 21)


@dataclass(frozen=True)
class Range:
    """A calibrated site: `scale` is one int8 step of x / smoothing; smoothing [channels] has geometric mean 1."""

    scale: float
    smoothing: Array


@dataclass(frozen=True)
class Operand:
    """A tensor ready to be multiplied. Quantised: uint8 with `scale` and `zero_point`; `row_scale` names a tensor
    [..., 1] that multiplies the product; `smoothing` multiplies the rows of the weights."""

    tensor: str
    scale: float = 1.0
    zero_point: np.uint8 = _CENTRE
    smoothing: Array | None = None
    row_scale: str | None = None

    def moved(self, tensor: str) -> Operand:
        """The same quantisation after a reshape, transpose or slice."""
        return Operand(tensor, self.scale, self.zero_point, self.smoothing, self.row_scale)


@dataclass(frozen=True)
class Activation:
    """An activation function: onnxruntime's kernel and the lowest value it can return.

    `zero_point` is the uint8 step that stands for 0 when its output is quantised: few steps are needed below.
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
    "silu": Activation("QuickGelu", -0.2785, 24, alpha=1.0),
    "swish": Activation("QuickGelu", -0.2785, 24, alpha=1.0),
}
"""transformers' name of an activation -> how to compute it."""


class Arithmetic(ABC):
    """What graph.py needs of a precision."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph

    @abstractmethod
    def words(self, table: Array, ids: str) -> str:
        """Look up word embeddings: [..., width] for ids [...]."""

    @abstractmethod
    def static(self, tensor: str, place: Place, *, smoothed: bool = False) -> Operand:
        """Read a tensor at a calibrated site. `smoothed`: it has already been divided by the smoothing."""

    @abstractmethod
    def rows(self, tensor: str, activation: Activation, width: int) -> Operand:
        """Read the output [S, B, width] of an activation function."""

    @abstractmethod
    def product(self, operand: Operand, linear: Linear, name: str) -> str:
        """operand @ weight + bias, as float."""

    def smoothing(self, place: Place) -> Array | None:
        """What `static(..., smoothed=True)` expects its input to have been divided by; None: nothing."""
        return None


class Float32(Arithmetic):
    """Plain float32. Fills `taps` with the tensor that each site reads, so that calibration can look at it."""

    def __init__(self, graph: GraphWriter) -> None:
        super().__init__(graph)
        self.taps: dict[Place, str] = {}

    def words(self, table: Array, ids: str) -> str:
        return self.graph("Gather", self.graph.constant(table, "words"), ids)

    def static(self, tensor: str, place: Place, *, smoothed: bool = False) -> Operand:
        self.taps[place] = tensor
        return Operand(tensor)

    def rows(self, tensor: str, activation: Activation, width: int) -> Operand:
        return Operand(tensor)

    def product(self, operand: Operand, linear: Linear, name: str) -> str:
        product = self.graph("MatMul", operand.tensor, self.graph.constant(linear.weight, name))
        return product if linear.bias is None else self.graph("Add", product, linear.bias)


class Int8(Arithmetic):
    """int8 weights and activations; scales and bias ride in MatMulIntegerToFloat's epilogue."""

    def __init__(self, graph: GraphWriter, ranges: Mapping[Place, Range]) -> None:
        super().__init__(graph)
        self.ranges = ranges

    def words(self, table: Array, ids: str) -> str:
        steps, scales = quantise_words(table)
        rows = self.graph.to_float(self.graph("Gather", self.graph.constant(steps, "words"), ids))
        return self.graph("Mul", rows, self.graph("Gather", self.graph.constant(scales, "word_scales"), ids))

    def static(self, tensor: str, place: Place, *, smoothed: bool = False) -> Operand:
        found = self.ranges[place]
        if not smoothed:
            tensor = self.graph("Mul", tensor, (1 / found.smoothing).astype(np.float32))
        steps = self.graph("QuantizeLinear", tensor, np.float32(found.scale), _CENTRE)
        return Operand(steps, found.scale, smoothing=found.smoothing)

    def rows(self, tensor: str, activation: Activation, width: int) -> Operand:
        graph, zero = self.graph, activation.zero_point
        peak = graph("ReduceMax", tensor, int64(-1), keepdims=1)
        # The scale must also reach down to the function's minimum, with the `zero` steps there are below 0.
        floor = -activation.lowest * (255 - zero) / zero if zero else _TINY
        scale = graph("Mul", graph("Max", peak, np.float32(floor)), np.float32(1 / (255 - zero)))
        zeros = graph.filled(graph("Shape", scale), np.uint8(zero))
        # One block per token: the only QuantizeLinear with a scale per row that has a fast kernel.
        steps = graph("QuantizeLinear", tensor, scale, zeros, axis=2, block_size=width)
        return Operand(steps, 1.0, np.uint8(zero), row_scale=scale)

    def product(self, operand: Operand, linear: Linear, name: str) -> str:
        weight = linear.weight if operand.smoothing is None else linear.weight * operand.smoothing[:, None]
        steps, scales = quantise_columns(weight)
        weights = self.graph.constant(steps, name)
        read = (operand.tensor, weights, np.float32(operand.scale), scales, operand.zero_point)
        if operand.row_scale is None:
            bias = () if linear.bias is None else ("", linear.bias)
            return self.graph.microsoft("MatMulIntegerToFloat", *read, *bias)
        # The row scale comes after the kernel, so the bias cannot ride in it.
        product = self.graph("Mul", self.graph.microsoft("MatMulIntegerToFloat", *read), operand.row_scale)
        return product if linear.bias is None else self.graph("Add", product, linear.bias)

    def smoothing(self, place: Place) -> Array | None:
        return self.ranges[place].smoothing


def quantise_columns(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Weight [inputs, outputs] -> int8 steps and one symmetric scale per output column: steps * scales ~ weight.

    The scale of a column is the one with the smallest squared error among those that clip up to a fifth of its range.
    """
    whole = np.maximum(np.abs(weight).max(axis=0), _TINY) / 127
    steps, scales, least = np.empty(weight.shape, np.int8), whole.astype(np.float32), np.full(whole.shape, np.inf)
    for share in _SHARES:
        tried = (whole * share).astype(np.float32)
        rounded = np.clip(np.rint(weight / tried), -127, 127)
        error = np.square(rounded * tried - weight).sum(axis=0)
        better = error < least
        steps[:, better], scales[better], least[better] = rounded[:, better], tried[better], error[better]
    return steps, scales


def quantise_words(table: Array) -> tuple[NDArray[np.int8], Array]:
    """Word embeddings [words, width] -> int8 steps and one symmetric scale per word, [words, 1]."""
    steps, scales = quantise_columns(table.T)
    return np.ascontiguousarray(steps.T), scales[:, None]
