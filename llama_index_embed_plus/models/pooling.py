"""Token states and a mask -> one vector per text: pooling, the layers that some checkpoints put on top, unit length.

torch, the ONNX backend and the tests share this one definition; `export/graph.py` writes the same as ONNX nodes, and is
tested against it. Only operations that numpy and torch spell alike are
used, so the same lines run on arrays and on tensors, traced or not.

Guarantees: results are equal to the sentence-transformers modules Pooling, Dense and LayerNorm; they do not depend on
padding: not on its side, its amount, or what the padded states hold. Does not know: models, tokenizers, files.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from qdrant_tools.errors import UsageError

MEAN, CLS, MAX = "mean", "cls", "max"
MEAN_SQRT, WEIGHTED, LAST, ATTENTION = "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "attention"

TOKEN_STATES = "token_states"
"""The output of a graph that holds the states of all tokens, (t, n, h)."""

POOLING_MODES = (CLS, MAX, MEAN, MEAN_SQRT, WEIGHTED, LAST, ATTENTION)
"""Names as sentence-transformers 6 writes them, in the order in which several are joined; `attention` is ours."""

Array = Any
"""A numpy array or a torch tensor. Shapes are given as (n texts, t tokens, h states)."""

Stretch = tuple[int, int, int]
"""Row of a batch, its first token, and the one behind its last."""


def namespace(array: Array) -> Any:
    """The library whose functions take `array`: numpy, or torch without importing it here."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def pool(
    states: Array, mask: Array, modes: tuple[str, ...], *, prompt_tokens: Any = 0, attention: Array | None = None
) -> Array:
    """Pool `states` (n, t, h) under `mask` (n, t; 1 = token) into (n, h * len(modes)).

    prompt_tokens: how many of the first real tokens are left out (0: none). Int or 0-d array.
    attention: (n, heads, t, t) of the last layer, for the mode `attention` only.
    Raises UsageError for an unknown mode, or `attention` without attention.
    """
    xp = namespace(states)
    tokens = mask != 0
    position = xp.cumsum(tokens * xp.ones_like(mask), 1)  # 1 for the first real token, whatever side is padded
    kept = tokens & (position > prompt_tokens)
    pooled = [_pool_one(mode, states, kept, position, _weights(xp, mode, attention, tokens)) for mode in modes]
    return pooled[0] if len(pooled) == 1 else xp.concatenate(pooled, 1)


def _pool_one(mode: str, states: Array, kept: Array, position: Array, weights: Array | None) -> Array:
    xp = namespace(states)
    # `where` and not a product, because padded states may hold NaN.
    if mode == MAX:
        return xp.amax(xp.where(kept[..., None], states, -xp.inf), 1)
    # A token is picked by a sum over a mask: unlike an index, that can be traced for any batch.
    if mode == CLS:
        return _sum(xp.where((kept & (position == _first(xp, kept, position)))[..., None], states, 0.0))
    if mode == LAST:
        last = xp.amax(xp.where(kept, position, 0), 1)[:, None]
        return _sum(xp.where((kept & (position == last))[..., None], states, 0.0))
    if mode in (MEAN, MEAN_SQRT):
        weight = xp.where(kept, xp.ones_like(states[..., 0]), 0.0)
    elif mode == WEIGHTED:
        weight = xp.where(kept, _cast(position, states), 0.0)
    elif mode == ATTENTION and weights is not None:
        weight = xp.where(kept, weights, 0.0)
    else:
        raise UsageError(f"pooling mode is {mode!r}, expected one of {', '.join(POOLING_MODES)}")
    # If every token of a text is left out, its vector is zero, as in sentence-transformers.
    total = xp.clip(weight.sum(1), 1e-9, None)[:, None]
    summed = _sum(xp.where(kept[..., None], states, 0.0) * weight[..., None])
    return summed / (xp.sqrt(total) if mode == MEAN_SQRT else total)


def pool_stretches(states: Array, stretches: Sequence[Stretch]) -> Array:
    """Return (m, h): the mean of `states` (n, t, h) over each stretch of tokens."""
    # made contiguous first: the order of a sum must not depend on the batch around it
    means = [(states[row, start:stop] + 0.0).sum(0) / (stop - start) for row, start, stop in stretches]
    return namespace(states).stack(means)


def _cast(array: Array, like: Array) -> Array:
    return array.to(like.dtype) if hasattr(array, "to") else array.astype(like.dtype)


def _first(xp: Any, kept: Array, position: Array) -> Array:
    """Return (n, 1): the position of the first kept token, beyond every position if none is kept."""
    return xp.amin(xp.where(kept, position, 2**31 - 1), 1)[:, None]


def _sum(states: Array) -> Array:
    return states.sum(1)


def _weights(xp: Any, mode: str, attention: Array | None, tokens: Array) -> Array | None:
    """Return (n, t): the attention that each token receives, averaged over heads and over the real tokens that attend.

    This is attention pooling without parameters. With uniform attention it is the mean.
    """
    if mode != ATTENTION:
        return None
    if attention is None:
        raise UsageError(
            "pooling mode 'attention' needs the last layer's attention; use backend='torch' or another pooling"
        )
    received = xp.where(tokens[:, None, :, None], attention, 0.0)
    return received.sum(2).sum(1) / attention.shape[1]


def unit(vectors: Array) -> Array:
    """Scale rows to unit length, like torch's `normalize`. A row of zeros stays zero."""
    xp = namespace(vectors)
    length = xp.sqrt((vectors * vectors).sum(1))[:, None]
    return vectors / xp.clip(length, 1e-12, None)


ACTIVATIONS = ("identity", "tanh", "relu", "sigmoid", "gelu")


HeadKind = Literal["dense", "layer_norm", "normalize"]


@dataclass(frozen=True)
class HeadStep:
    """One layer on top of the pooling. `path`: its folder in the model folder; "" for `normalize`."""

    kind: HeadKind
    path: str = ""
    activation: str = "identity"
    residual: bool = False


Weights = Mapping[str, Array]
"""The tensors of one step as its file names them: `linear.weight` (out, in), `linear.bias`, `norm.weight`, ..."""


def apply_head(vectors: Array, steps: Sequence[HeadStep], weights: Sequence[Weights]) -> Array:
    """Run `vectors` (n, h) through `steps`; `weights[i]` belongs to `steps[i]`."""
    for step, tensors in zip(steps, weights, strict=True):
        if step.kind == "normalize":
            vectors = unit(vectors)
        elif step.kind == "layer_norm":
            vectors = _layer_norm(vectors, tensors)
        else:
            vectors = _dense(vectors, step, tensors)
    return vectors


def _dense(vectors: Array, step: HeadStep, tensors: Weights) -> Array:
    out = vectors @ tensors["linear.weight"].T
    if "linear.bias" in tensors:
        out = out + tensors["linear.bias"]
    out = _activate(out, step.activation)
    if not step.residual:
        return out
    return out + (vectors @ tensors["residual.weight"].T if "residual.weight" in tensors else vectors)


def _activate(vectors: Array, name: str) -> Array:
    xp = namespace(vectors)
    if name == "tanh":
        return xp.tanh(vectors)
    if name == "relu":
        return xp.clip(vectors, 0.0, None)
    if name == "sigmoid":
        return 1.0 / (1.0 + xp.exp(-vectors))
    if name == "gelu":
        # numpy has no erf. There are few pooled vectors, so a slow one will do.
        erf = xp.erf if hasattr(xp, "erf") else np.vectorize(math.erf, otypes=[np.float32])
        return 0.5 * vectors * (1.0 + erf(vectors / math.sqrt(2.0)))
    return vectors


def _layer_norm(vectors: Array, tensors: Weights) -> Array:
    xp = namespace(vectors)
    centred = vectors - vectors.mean(1)[:, None]
    spread = xp.sqrt((centred * centred).mean(1)[:, None] + 1e-5)  # torch.nn.LayerNorm's epsilon
    return centred / spread * tensors["norm.weight"] + tensors["norm.bias"]


def as_arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Read every tensor of a head layer into memory."""
    return {name: tensor.read() for name, tensor in tensors.items()}
