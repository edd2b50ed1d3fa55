"""The small layers that some checkpoints put on the pooled vector: Dense, LayerNorm, and a normalisation in between.

Guarantees: as in `pooling`, the same lines run on numpy arrays and on torch tensors. Equal to the
sentence-transformers modules of the same names.
Does not know: where the weights come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llama_index_embed_plus.pooling import Array, namespace, unit

ACTIVATIONS = ("identity", "tanh", "relu", "sigmoid", "gelu")


@dataclass(frozen=True)
class HeadStep:
    """One layer. `path`: its folder inside the model folder; "" for `normalize`, which has no weights."""

    kind: Literal["dense", "layer_norm", "normalize"]
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
        # numpy has no erf; pooled vectors are few, so a slow one will do.
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
