"""A checkpoint of the BERT family, computed by numpy alone: what a graph is compared with where there is no torch.

Nothing that `graph` and `network` compute is used: weights are not folded, every text is computed by itself without
padding or mask, attention by the formulas of Vaswani et al. 2017 (arXiv 1706.03762), and texts are pooled by
`models.pooling`. What both share is the reading of the weights (`weights`) and the tokens of a text; the tests compare
this with transformers. Slow: for measuring, not for serving.

Guarantees: float32 to rounding; the error function is that of Abramowitz and Stegun (1964), 7.1.26, off by at most
1.5e-7. Does not know: ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.encoders.onnx_encoder import cores
from llama_index_embed_plus.encoders.tokens import TokenBatch
from llama_index_embed_plus.export.graph import misfit
from llama_index_embed_plus.export.weights import Array, EncoderWeights, Layer, Linear, Norm, read_weights
from llama_index_embed_plus.models.pooling import ATTENTION, Stretch, apply_head, as_arrays, pool, unit
from llama_index_embed_plus.models.spec import EncoderSpec
from llama_index_embed_plus.models.weights import tensors_of, weight_files
from qdrant_tools.errors import NotSupportedError, PlusError
from qdrant_tools.records import Vectors

_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def _erf(x: Array) -> Array:
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(t)
    for factor in reversed(_ERF):
        series = (series + np.float32(factor)) * t
    return np.asarray(np.copysign(1 - series * np.exp(-size * size), x))


def _sigmoid(x: Array) -> Array:
    # by tanh, which cannot overflow
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + _erf(x / np.float32(np.sqrt(2)))))


def _tanh_gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3))))


def _relu(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0))


def _silu(x: Array) -> Array:
    return np.asarray(x * _sigmoid(x))


def _quick_gelu(x: Array) -> Array:
    return np.asarray(x * _sigmoid(np.float32(1.702) * x))


FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": _quick_gelu,
    "relu": _relu,
    "silu": _silu,
    "swish": _silu,
}
"""transformers' name of an activation -> the function."""


class NumpyBackend:
    """Token batches -> vectors, one text at a time."""

    build = "numpy-fp32"
    budget = 1024

    def __init__(self, folder: Path, spec: EncoderSpec) -> None:
        self._folder, self._spec = folder, spec
        self.workers = cores()
        try:
            self._weights = read_weights(folder / spec.transformer_path)
        except PlusError:
            raise
        except Exception as error:  # odd values of a config are not looked at before they are used
            raise misfit(folder, error) from error
        self._head = [
            as_arrays({k: v for f in weight_files(folder / step.path) for k, v in tensors_of(f).items()})
            for step in spec.head
        ]

    def __call__(self, batch: TokenBatch, *, alone: bool) -> Vectors:
        try:
            rows = [self._embed(ids[mask != 0], batch.prompt_tokens) for ids, mask in zip(batch.ids, batch.mask)]
        except (ValueError, IndexError) as error:  # layers that do not fit each other, words that are not there
            raise misfit(self._folder, error) from error
        return np.asarray(np.stack(rows), np.float32)

    def stretches(self, batch: TokenBatch, stretches: Sequence[Stretch], *, alone: bool) -> Vectors:
        raise NotSupportedError("late chunking is not computed by numpy: use an ONNX build, or backend='torch'")

    def _embed(self, ids: NDArray[np.int64], prompt_tokens: Any) -> Array:
        """ids (t,) -> (dimension,)."""
        states, attention = token_states(self._weights, ids)
        tokens = np.ones((1, len(ids)), np.int64)
        weights = attention[None] if ATTENTION in self._spec.pooling else None
        pooled = pool(states[None], tokens, self._spec.pooling, prompt_tokens=prompt_tokens, attention=weights)
        vectors = apply_head(pooled, self._spec.head, self._head)[:, : self._spec.dimension]
        return np.asarray((unit(vectors) if self._spec.normalize else vectors)[0])


def token_states(weights: EncoderWeights, ids: NDArray[np.int64]) -> tuple[Array, Array]:
    """ids (t,) without padding -> the states of the tokens (t, h), and the last attention (heads, t, t)."""
    first = 0 if weights.padding_id is None else weights.padding_id + 1
    states = _norm(weights.words[ids] + weights.positions[first : first + len(ids)], weights.embedding_norm)
    if weights.projection is not None:
        states = _linear(states, weights.projection)
    bias = np.float32(0) if weights.relative_bias is None else _relative(weights.relative_bias, len(ids))
    attention = np.zeros((weights.heads, len(ids), len(ids)), np.float32)
    for layer in weights.layers:
        states, attention = _layer(layer, states, bias, weights.heads, FUNCTIONS[weights.activation])
    return states, attention


def _layer(
    layer: Layer, states: Array, bias: Any, heads: int, activation: Callable[[Array], Array]
) -> tuple[Array, Array]:
    query, key, value = (
        _linear(states, part).reshape(len(states), heads, -1).swapaxes(0, 1)
        for part in (layer.query, layer.key, layer.value)
    )
    scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(query.shape[2])) + bias
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    attention = shares / shares.sum(axis=2, keepdims=True)
    context = (attention @ value).swapaxes(0, 1).reshape(states.shape)
    states = _norm(_linear(context, layer.output) + states, layer.attention_norm)
    return _norm(_linear(activation(_linear(states, layer.up)), layer.down) + states, layer.output_norm), attention


def _relative(table: Array, length: int) -> Array:
    """(heads, t, t): what is added to the score of each query (rows) and key (columns) by their distance."""
    place = np.arange(length)
    return table[:, place[None, :] - place[:, None] + table.shape[1] // 2]


def _linear(x: Array, linear: Linear) -> Array:
    product = x @ linear.weight
    return product if linear.bias is None else product + linear.bias


def _norm(x: Array, norm: Norm) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(norm.epsilon))
    return np.asarray(centred / spread * norm.gain + norm.shift)
