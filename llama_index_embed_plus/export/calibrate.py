"""The fp32 network and made-up token sequences -> the static scale and smoothing of every quantised activation.

No text is needed: what is measured is the largest magnitude of each channel behind a layer normalisation or inside the
attention. Three kinds of sequences reach it: random words at every length, one word repeated, and the words whose
embeddings are extreme in some channel. The last are often the most frequent ones (in all-MiniLM-L6-v2 the full stop
and the comma), which random words miss. Nothing is clipped: the special tokens carry outliers that a percentile would
cut off, with large errors in every vector.

Guarantees: the same model gives the same ranges (fixed seed, one sequence at a time).
Does not know: pooling, the int8 graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from llama_index_embed_plus.export.arithmetic import Float32, Place, Range, Site
from llama_index_embed_plus.export.network import IDS, MASK, Network
from llama_index_embed_plus.export.onnx_writer import GraphWriter
from llama_index_embed_plus.export.weights import Array, EncoderWeights, Linear

LONGEST = 200
"""Words in the longest random sequence, if the model takes as many."""

_EXTREMES = 2
# SmoothQuant's alpha: 1 moves all of the unevenness between channels into the weights, 0 none of it.
_ALPHA: Mapping[Site, float] = {"qkv": 1.0, "context": 0.75, "up": 0.75, "projection": 0.75}
# Room above the measured range. Attention over random tokens is flatter than over text, so its context is smaller.
_HEADROOM: Mapping[Site, float] = {"context": 1.5}


def calibrate(weights: EncoderWeights, *, around: tuple[list[int], list[int]]) -> dict[Place, Range]:
    """Measure the ranges of folded `weights`. `around`: special token ids before and after a text."""
    peaks = _peaks(weights, sequences(weights, around=around))
    return {place: _range(peak, _readers(weights, place), place[1]) for place, peak in peaks.items()}


def sequences(
    weights: EncoderWeights, *, around: tuple[list[int], list[int]], seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """The calibration sequences, each [1, length], special tokens included."""
    before, after = around
    generator = np.random.default_rng(seed)
    room = len(weights.positions) - (weights.padding_id or 0) - 1 - len(before) - len(after)
    vocabulary = np.setdiff1d(np.arange(len(weights.words)), [weights.padding_id or 0])
    for words in _word_sequences(generator, vocabulary, extreme_words(weights), longest=min(LONGEST, room)):
        ids = np.array([[*before, *words[:room], *after]], dtype=np.int64)
        if ids.size:
            yield ids


def _word_sequences(
    generator: np.random.Generator, vocabulary: NDArray[np.int64], extremes: NDArray[np.int64], *, longest: int
) -> Iterator[NDArray[np.int64]]:
    for length in [*range(min(9, longest))] * 6 + np.linspace(1, longest, 64).astype(int).tolist():
        yield generator.choice(vocabulary, length)
    for length in np.linspace(2, longest, 6).astype(int).tolist() * 3:
        yield np.repeat(generator.choice(vocabulary, 1), length)
    for length in (10, 40, 120):
        yield from np.array_split(generator.permutation(extremes), math.ceil(len(extremes) / length))


def extreme_words(weights: EncoderWeights) -> NDArray[np.int64]:
    """The words whose embedding, as the first layer sees it, is among the largest of the vocabulary in some channel."""
    states = weights.words + weights.positions.mean(axis=0)
    states = states - states.mean(axis=1, keepdims=True)
    deviation = np.sqrt((states * states).mean(axis=1, keepdims=True) + weights.embedding_norm.epsilon)
    states = np.abs(states / deviation * weights.embedding_norm.gain + weights.embedding_norm.shift)
    found: NDArray[np.int64] = np.unique(np.argpartition(states, -_EXTREMES, axis=0)[-_EXTREMES:])
    return np.setdiff1d(found, [weights.padding_id or 0])


def _peaks(weights: EncoderWeights, texts: Iterable[NDArray[np.int64]]) -> dict[Place, Array]:
    """Largest magnitude of each channel, by place."""
    graph = GraphWriter()
    arithmetic = Float32(graph)
    Network(weights, arithmetic).states()
    names = list(dict.fromkeys(arithmetic.taps.values()))
    session = _session(graph.model(dict.fromkeys(names), inputs=(IDS, MASK)))
    peaks: dict[str, Array] = {}
    for ids in texts:
        for name, tensor in zip(names, session.run(names, {IDS: ids, MASK: np.ones_like(ids)}), strict=True):
            peak = _channel_peak(tensor)
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return {place: peaks[name] for place, name in arithmetic.taps.items()}


def _channel_peak(tensor: Array) -> Array:
    """[S, B, H] -> [H]; the attention context [B, heads, S, size] -> [heads * size]."""
    axes = (0, 2) if tensor.ndim == 4 else (0, 1)
    peak: Array = np.abs(tensor).max(axis=axes).reshape(-1)
    return peak


def _readers(weights: EncoderWeights, place: Place) -> list[Linear]:
    """The products that read the activation at `place`."""
    number, site = place
    if site == "projection":
        return [] if weights.projection is None else [weights.projection]
    layer = weights.layers[number]
    return {"qkv": [layer.query, layer.key, layer.value], "context": [layer.output], "up": [layer.up]}[site]


def _range(peak: Array, readers: list[Linear], site: Site) -> Range:
    """SmoothQuant: smoothing = activation^alpha / weight^(1 - alpha) per channel, then one scale for all of them."""
    activation = np.maximum(peak, 1e-3)
    weight = np.max([np.abs(linear.weight).max(axis=1) for linear in readers], axis=0)
    smoothing = activation ** _ALPHA[site] / np.maximum(weight, 1e-5) ** (1 - _ALPHA[site])
    smoothing = (smoothing / np.exp(np.log(smoothing).mean())).astype(np.float32)
    scale = float((activation / smoothing).max()) * _HEADROOM.get(site, 1.0) / 127
    return Range(scale, smoothing)


def _session(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
