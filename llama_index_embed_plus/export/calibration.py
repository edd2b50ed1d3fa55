"""The fp32 network of an encoder -> the scale and smoothing of every tap, measured on made-up token sequences.

No text is needed: the largest magnitude of a channel behind a normalisation or inside the attention hardly depends on
what a text says. Three kinds of sequences reach it: random words at every length, one word repeated, and the words
whose embeddings are extreme in some channel. The last are often the most frequent ones (in all-MiniLM-L6-v2 the full
stop and the comma), which random words miss. Nothing is clipped: special tokens carry outliers that a percentile would
cut off, with large errors in every vector.

Guarantees: the same model gives the same figures (fixed seed, one sequence at a time); ranges have room above what was
measured where text reaches further. Does not know: pooling, the int8 graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.encoders.onnx_encoder import cores, feed, input_names, open_session, providers
from llama_index_embed_plus.encoders.tokens import TokenBatch, Tokenizer
from llama_index_embed_plus.export.network import IDS, MASK, Float32, Network, Range, Tap, TapKind
from llama_index_embed_plus.export.onnx_writer import GraphWriter, save_model
from llama_index_embed_plus.export.weights import Array, EncoderWeights, Linear
from llama_index_embed_plus.models.spec import EncoderSpec

# What agreed best with fp32 at each tap of all-MiniLM-L6-v2; the projection, which it lacks, follows the others.
_ALPHA: Mapping[TapKind, float] = {"qkv": 1.0, "context": 0.75, "up": 0.75, "projection": 0.75}
# Room above the measured range. Attention over random tokens is flatter than over text, so its context is smaller.
_HEADROOM: Mapping[TapKind, float] = {"context": 1.5}
LONGEST = 200
"""Words in the longest random sequence, if the model takes as many."""

_CHUNK = 8192


def calibrate(weights: EncoderWeights, frame: Frame) -> dict[Tap, Range]:
    """Measure the range at every tap of folded `weights`, with the model's special tokens around made-up sequences."""
    padding = weights.padding_id or 0
    words = np.setdiff1d(common_words(len(weights.words)), [padding])
    extremes = np.setdiff1d(extreme_words(weights.words, lambda table: embedded(weights, table)), [padding])
    # where padding has a position of its own, words are numbered from the one after it
    positions = len(weights.positions) - (0 if weights.padding_id is None else weights.padding_id + 1)
    frame = replace(frame, room=min(frame.room, LONGEST, positions - len(frame.before) - len(frame.after)))

    graph = GraphWriter()
    arithmetic = Float32(graph)
    Network(weights, arithmetic).states()
    names = list(dict.fromkeys(arithmetic.taps.values()))
    tapped = graph.model(dict.fromkeys(names), inputs=(IDS, MASK))
    texts = sequences(words, extremes, frame)
    largest = peaks(tapped, names, texts, _channel_peak)
    return {tap: _range(largest[name], _readers(weights, tap), tap[1]) for tap, name in arithmetic.taps.items()}


def embedded(weights: EncoderWeights, table: Array) -> Array:
    """Return word embeddings [n, width] as the first layer reads them, at an average position."""
    states, norm = table + weights.positions.mean(axis=0), weights.embedding_norm
    states = states - states.mean(axis=1, keepdims=True)
    deviation = np.sqrt((states * states).mean(axis=1, keepdims=True) + norm.epsilon)
    return np.asarray(states / deviation * norm.gain + norm.shift, np.float32)


def _channel_peak(tensor: Array) -> Array:
    """[S, B, H] -> [H]; the attention context [B, heads, S, size] -> [heads * size]."""
    axes = (0, 2) if tensor.ndim == 4 else (0, 1)
    return np.asarray(np.abs(tensor).max(axis=axes).reshape(-1), np.float32)


def _readers(weights: EncoderWeights, tap: Tap) -> list[Linear]:
    """Return the products that read the activation at `tap`."""
    number, kind = tap
    if kind == "projection":
        return [] if weights.projection is None else [weights.projection]
    layer = weights.layers[number]
    return {"qkv": [layer.query, layer.key, layer.value], "context": [layer.output], "up": [layer.up]}[kind]


def _range(peak: Array, readers: list[Linear], kind: TapKind) -> Range:
    divisor = smoothing(peak, [linear.weight for linear in readers], alpha=_ALPHA[kind])
    scale = float((np.maximum(peak, 1e-3) / divisor).max()) * _HEADROOM.get(kind, 1.0) / 127
    return Range(scale, divisor)


@dataclass(frozen=True)
class Frame:
    """The special token ids `before` and `after` the words, and the `room` for words between them."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    room: int = LONGEST


def frame_of(folder: Path, spec: EncoderSpec) -> Frame:
    """Return the frame that the model's tokenizer puts around a text. It is empty if the folder has no tokenizer."""
    inner = folder / spec.transformer_path
    if not any((inner / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return Frame(room=spec.max_tokens)
    tokenizer = Tokenizer(inner, spec.max_tokens, append_eos=spec.append_eos)
    return Frame(tuple(tokenizer.opening.tolist()), tuple(tokenizer.closing.tolist()), tokenizer.room)


def sequences(words: NDArray[np.int64], extremes: NDArray[np.int64], frame: Frame) -> Iterator[NDArray[np.int64]]:
    """Yield made-up sequences [1, length] from the ids in `words` and `extremes`."""
    for ids in _bodies(np.random.default_rng(0), words, extremes, longest=min(LONGEST, frame.room)):
        sequence = np.array([[*frame.before, *ids[: frame.room], *frame.after]], dtype=np.int64)
        if sequence.size:
            yield sequence


def _bodies(
    generator: np.random.Generator, words: NDArray[np.int64], extremes: NDArray[np.int64], *, longest: int
) -> Iterator[NDArray[np.int64]]:
    # length 0 is a text of special tokens alone
    for length in [*range(min(9, longest))] * 6 + np.linspace(1, longest, 64).astype(int).tolist():
        yield generator.choice(words, length)
    for length in np.linspace(2, longest, 6).astype(int).tolist() * 3:
        yield np.repeat(generator.choice(words, 1), length)
        yield np.repeat(generator.choice(extremes, 1), length)
    for length in (3, 10, 40, 120):
        yield from np.array_split(generator.permutation(extremes), math.ceil(len(extremes) / length))


def common_words(vocabulary: int) -> NDArray[np.int64]:
    """Return ids to draw random words from, without the first ones: they are special or were never trained."""
    return np.arange(min(1000, vocabulary // 2), vocabulary)


def extreme_words(table: Array, embed: Callable[[Array], Array]) -> NDArray[np.int64]:
    """Return the words whose embedding, as `embed` turns table rows [n, width] into it, is largest in some channel."""
    # by chunks, as the embedded table may be large: the extremes are among those of the chunks
    words = np.arange(0)
    for start in range(0, len(table), _CHUNK):
        words = np.concatenate([words, start + _largest(embed(table[start : start + _CHUNK]))])
    return np.unique(words[_largest(embed(table[words]))])


def _largest(states: Array) -> NDArray[np.int64]:
    """Return the rows that hold the largest magnitude of some column."""
    return np.unique(np.abs(states).argmax(axis=0))


def peaks(
    model: Any, names: Sequence[str], texts: Iterable[NDArray[np.int64]], reduce: Callable[[Array], Array]
) -> dict[str, Array]:
    """Run `model` over `texts` and return, for each of its outputs `names`, the maximum of `reduce(output)`."""
    maxima: dict[str, Array] = {}
    with TemporaryDirectory() as folder:  # through a file, because a graph in memory cannot be larger than 2 GB
        path = save_model(model, Path(folder) / "model.onnx")[0]
        session = open_session(path, cores(), providers=providers(None), int8=False)
        inputs = input_names(session, "the graph")
        # one at a time: in a padded batch, states of padding would be measured as well
        for ids in texts:
            batch = TokenBatch(ids, np.ones_like(ids))
            for name, tensor in zip(names, session.run(names, feed(inputs, batch)), strict=True):
                peak = reduce(tensor)
                maxima[name] = np.maximum(maxima[name], peak) if name in maxima else peak
    return maxima


def smoothing(peak: Array, weights: Sequence[Array], *, alpha: float) -> Array:
    """Return the divisor [channels] of an activation that `weights` [channels, outputs] read. Its geometric mean is 1.

    SmoothQuant (Xiao et al. 2023), equation 4: activation^alpha / weight^(1 - alpha), of the largest magnitudes.
    alpha 1 moves all of the unevenness between channels into the weights, 0 none of it.
    """
    weight = np.max([np.abs(matrix).max(axis=1) for matrix in weights], axis=0)
    # The lower limits keep channels that are always 0 from dividing by 0.
    divisor = np.maximum(peak, 1e-3) ** alpha / np.maximum(weight, 1e-5) ** (1 - alpha)
    return np.asarray(divisor / np.exp(np.log(divisor).mean()), np.float32)
