"""Encoder weights -> weights that give the same vectors with fewer operations.

Four identities, each exact in real arithmetic:

- scores are divided by sqrt(head size): divide the query weights instead;
- the key bias adds the same number to a whole row of scores, which softmax ignores: drop it;
- attention rows sum to 1, so the value bias passes through: add (value bias) @ (output weight) to the output bias;
- the second feed-forward bias joins the residual: add it to the shift of the norm before, and take (bias @ up weight)
  from the first bias, so that the first product still sees what it saw.

Guarantees: vectors change by rounding only. Does not know: ONNX, quantisation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llama_index_embed_plus.export.weights import Array, EncoderWeights, Layer, Linear


def fold(weights: EncoderWeights) -> EncoderWeights:
    """Apply the four identities to every layer."""
    head_size = weights.hidden_size // weights.heads
    return replace(weights, layers=tuple(_fold_layer(layer, head_size) for layer in weights.layers))


def _fold_layer(layer: Layer, head_size: int) -> Layer:
    root = np.sqrt(np.float32(head_size))
    down_bias = _bias(layer.down)
    return replace(
        layer,
        query=Linear(layer.query.weight / root, _bias(layer.query) / root),
        key=Linear(layer.key.weight, None),
        value=Linear(layer.value.weight, None),
        output=Linear(layer.output.weight, _bias(layer.output) + _bias(layer.value) @ layer.output.weight),
        attention_norm=replace(layer.attention_norm, shift=layer.attention_norm.shift + down_bias),
        up=Linear(layer.up.weight, _bias(layer.up) - down_bias @ layer.up.weight),
        down=Linear(layer.down.weight, None),
    )


def _bias(linear: Linear) -> Array:
    return np.zeros(linear.weight.shape[1], np.float32) if linear.bias is None else linear.bias
