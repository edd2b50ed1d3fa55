"""The fp32 network of a BERT-family model -> the static scale and smoothing of every quantised activation.

Guarantees: ranges hold what made-up sequences reach (observe.py), with room to spare where text reaches further.
Does not know: pooling, the int8 graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from llama_index_embed_plus.export import observe
from llama_index_embed_plus.export.arithmetic import Float32, Place, Range, Site
from llama_index_embed_plus.export.network import IDS, MASK, Network
from llama_index_embed_plus.export.observe import LONGEST, Frame
from llama_index_embed_plus.export.onnx_writer import GraphWriter
from llama_index_embed_plus.export.weights import Array, EncoderWeights, Linear

_ALPHA: Mapping[Site, float] = {"qkv": 1.0, "context": 0.75, "up": 0.75, "projection": 0.75}
# Room above the measured range. Attention over random tokens is flatter than over text, so its context is smaller.
_HEADROOM: Mapping[Site, float] = {"context": 1.5}


def calibrate(weights: EncoderWeights, frame: Frame) -> dict[Place, Range]:
    """Measure the ranges of folded `weights`, with the model's special tokens around made-up sequences."""
    padding = weights.padding_id or 0
    words = np.setdiff1d(observe.common_words(len(weights.words)), [padding])
    extremes = np.setdiff1d(observe.extreme_words(weights.words, lambda table: embedded(weights, table)), [padding])
    positions = len(weights.positions) - (0 if weights.padding_id is None else weights.padding_id + 1)
    frame = replace(frame, room=min(frame.room, LONGEST, positions - len(frame.before) - len(frame.after)))

    graph = GraphWriter()
    arithmetic = Float32(graph)
    Network(weights, arithmetic).states()
    names = list(dict.fromkeys(arithmetic.taps.values()))
    tapped = graph.model(dict.fromkeys(names), inputs=(IDS, MASK))
    texts = observe.sequences(words, extremes, frame)
    peaks = observe.peaks(tapped, names, texts, _channel_peak)
    return {place: _range(peaks[name], _readers(weights, place), place[1]) for place, name in arithmetic.taps.items()}


def embedded(weights: EncoderWeights, table: Array) -> Array:
    """Word embeddings [n, width] as the first layer reads them, at an average position."""
    states, norm = table + weights.positions.mean(axis=0), weights.embedding_norm
    states = states - states.mean(axis=1, keepdims=True)
    deviation = np.sqrt((states * states).mean(axis=1, keepdims=True) + norm.epsilon)
    return np.asarray(states / deviation * norm.gain + norm.shift, np.float32)


def _channel_peak(tensor: Array) -> Array:
    """[S, B, H] -> [H]; the attention context [B, heads, S, size] -> [heads * size]."""
    axes = (0, 2) if tensor.ndim == 4 else (0, 1)
    return np.asarray(np.abs(tensor).max(axis=axes).reshape(-1), np.float32)


def _readers(weights: EncoderWeights, place: Place) -> list[Linear]:
    """The products that read the activation at `place`."""
    number, site = place
    if site == "projection":
        return [] if weights.projection is None else [weights.projection]
    layer = weights.layers[number]
    return {"qkv": [layer.query, layer.key, layer.value], "context": [layer.output], "up": [layer.up]}[site]


def _range(peak: Array, readers: list[Linear], site: Site) -> Range:
    divisor = observe.smoothing(peak, [linear.weight for linear in readers], alpha=_ALPHA[site])
    scale = float((np.maximum(peak, 1e-3) / divisor).max()) * _HEADROOM.get(site, 1.0) / 127
    return Range(scale, divisor)
