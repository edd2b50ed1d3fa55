"""Folded encoder weights -> the ONNX nodes that turn token ids into token states.

Tensors run sequence-major, [S, B, H] for S tokens of B texts: FusedMatMul then reads q, k and v of every head without a
transpose. Scores are [B, heads, S, S].

Guarantees: one network for fp32 and int8, which differ only in the `Arithmetic`. Padding is masked with -1e9 before the
softmax, so that it adds exact zeros.
Does not know: how numbers are multiplied, pooling, files.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llama_index_embed_plus.export.arithmetic import ACTIVATIONS, Arithmetic, Operand, Place
from llama_index_embed_plus.export.onnx_writer import int64
from llama_index_embed_plus.export.weights import EncoderWeights, Layer, Linear, Norm

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
