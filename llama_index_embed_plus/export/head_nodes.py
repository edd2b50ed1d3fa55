"""Token states -> finished vectors, as ONNX nodes: pooling, layers on top, truncation, normalisation.

The same modes and layers as `pooling.py` and `head.py`, which define them; tests hold the two together.

Guarantees: padded states are multiplied by 0 or masked, so they count for nothing. Texts are padded on the right.
Does not know: the transformer before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.export.onnx_writer import GraphWriter, int64
from llama_index_embed_plus.export.weights import Array
from llama_index_embed_plus.head import HeadStep
from llama_index_embed_plus.pooling import ATTENTION, CLS, LAST, MAX, MEAN_SQRT, WEIGHTED
from llama_index_embed_plus.spec import EncoderSpec
from llama_index_embed_plus.tensors import tensors_of, weight_files

PROMPT_TOKENS = "prompt_tokens"
"""Scalar int64 input of graphs whose pooling leaves the prompt out: how many tokens that are."""

_SHORTEST = np.float32(1e-12)
_FEWEST = np.float32(1e-9)
_LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's


def reads_first_only(spec: EncoderSpec) -> bool:
    """True if the pooling looks at nothing but the first token's state."""
    return spec.pooling == (CLS,) and spec.include_prompt


class HeadWriter:
    """Writes the head of one spec behind `states` [S, B, H] under `mask` [B, S].

    `shares` [B, heads, S, S]: the last layer's attention, for pooling mode `attention`.
    """

    def __init__(self, graph: GraphWriter, states: str, mask: str, *, shares: str = "") -> None:
        self.graph, self.states, self.shares, self.mask = graph, states, shares, mask

    def write(self, folder: Path, spec: EncoderSpec) -> str:
        """Write everything; returns the name of the vectors [B, spec.dimension], "embedding"."""
        graph = self.graph
        if reads_first_only(spec):
            vectors = graph("Squeeze", self.states, int64(0))
        else:
            vectors = self._join(spec.pooling, prompt_left_out=not spec.include_prompt)
        for step in spec.head:
            vectors = self._step(vectors, step, folder)
        if spec.truncate_dim is not None:
            vectors = graph("Slice", vectors, int64(0), int64(spec.truncate_dim), int64(1))
        if spec.normalize:
            return self._unit(vectors, output="embedding")
        return graph("Identity", vectors, output="embedding")

    def _join(self, modes: Sequence[str], *, prompt_left_out: bool) -> str:
        graph = self.graph
        self.tokens = self.kept = graph.to_float(graph.to_bool(self.mask))
        self.position = graph("CumSum", self.tokens, np.int64(1))  # 1, 2, ... on tokens
        self.first: str | np.float32 = np.float32(1)
        if prompt_left_out:
            prompt = graph.to_float(PROMPT_TOKENS)
            self.first = graph("Add", prompt, np.float32(1))
            self.kept = graph("Mul", self.tokens, graph.to_float(graph("Greater", self.position, prompt)))
        pooled = [self._pool(mode) for mode in modes]
        return pooled[0] if len(pooled) == 1 else graph("Concat", *pooled, axis=1)

    def _pool(self, mode: str) -> str:
        graph = self.graph
        if mode == MAX:
            kept = graph.to_bool(self._column(self.kept))
            return graph("ReduceMax", graph("Where", kept, self.states, np.float32(-np.inf)), int64(0), keepdims=0)
        if mode == CLS:
            return self._sum(self._only(self.first))
        if mode == LAST:
            numbers = graph("Mul", self.position, self.kept)
            return self._sum(self._only(graph("ReduceMax", numbers, int64(1), keepdims=1)))
        weight = self._weight(mode)
        total = graph("Max", graph("ReduceSum", weight, int64(1), keepdims=1), _FEWEST)
        return graph("Div", self._sum(weight), graph("Sqrt", total) if mode == MEAN_SQRT else total)

    def _weight(self, mode: str) -> str:
        """Weight of each token in a weighted mean, [B, S]."""
        graph = self.graph
        if mode == WEIGHTED:
            return graph("Mul", self.kept, self.position)
        if mode == ATTENTION:
            # Received from every head and every real token; the number of heads cancels in the mean.
            attending = graph("Unsqueeze", self.tokens, int64(1, 3))
            received = graph("ReduceSum", graph("Mul", self.shares, attending), int64(1, 2), keepdims=0)
            return graph("Mul", self.kept, received)
        return self.kept

    def _only(self, position: str | np.float32) -> str:
        """Weight 1 on the kept token at `position`, 0 elsewhere."""
        return self.graph("Mul", self.kept, self.graph.to_float(self.graph("Equal", self.position, position)))

    def _sum(self, weight: str) -> str:
        """Sum of the states [S, B, H] under weights [B, S]: [B, H]."""
        return self.graph("ReduceSum", self.graph("Mul", self.states, self._column(weight)), int64(0), keepdims=0)

    def _column(self, weight: str) -> str:
        """[B, S] -> [S, B, 1]."""
        return self.graph("Unsqueeze", self.graph("Transpose", weight, perm=[1, 0]), int64(2))

    def _step(self, vectors: str, step: HeadStep, folder: Path) -> str:
        if step.kind == "normalize":
            return self._unit(vectors)
        tensors = _read(folder / step.path)
        if step.kind == "layer_norm":
            gain, shift = tensors["norm.weight"], tensors["norm.bias"]
            return self.graph("LayerNormalization", vectors, gain, shift, axis=-1, epsilon=_LAYER_NORM_EPSILON)
        return self._dense(vectors, step, tensors)

    def _dense(self, vectors: str, step: HeadStep, tensors: dict[str, Array]) -> str:
        out = self.graph("MatMul", vectors, tensors["linear.weight"].T)
        if "linear.bias" in tensors:
            out = self.graph("Add", out, tensors["linear.bias"])
        out = self._activate(out, step.activation)
        if not step.residual:
            return out
        if "residual.weight" in tensors:
            vectors = self.graph("MatMul", vectors, tensors["residual.weight"].T)
        return self.graph("Add", out, vectors)

    def _activate(self, vectors: str, name: str) -> str:
        if name == "identity":
            return vectors
        return self.graph({"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "gelu": "Gelu"}[name], vectors)

    def _unit(self, vectors: str, *, output: str | None = None) -> str:
        length = self.graph("Max", self.graph("ReduceL2", vectors, int64(1), keepdims=1), _SHORTEST)
        return self.graph("Div", vectors, length, output=output)


def _read(folder: Path) -> dict[str, Array]:
    """The tensors of one layer by name."""
    files = weight_files(folder)
    if not files:
        raise DamagedModelError(f"{folder / 'model.safetensors'} is missing; modules.json names this layer")
    return {name: tensor.read() for file in files for name, tensor in tensors_of(file).items()}
