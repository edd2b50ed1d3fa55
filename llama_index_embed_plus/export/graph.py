"""A BERT-family checkpoint folder -> an ONNX graph, straight from the weights: token ids in, finished vectors out.

`build_graph(folder, spec, precision="fp32" | "int8")` needs numpy, onnx and, for int8, onnxruntime; no torch and no
calibration text. The graph reads `input_ids` and `attention_mask` [batch, sequence] int64, padded on the right, and,
if the pooling leaves the prompt out, `prompt_tokens` (int64 scalar). It gives `embedding` [batch, dimension] float32:
pooled, projected, truncated and normalised as the spec says. `models.pooling` defines what that means. If the pooling
is the mean, `token_states` [sequence, batch, hidden] are given too, which costs nothing where nobody fetches them.

Weights are folded first, by four identities that are exact in real arithmetic:

- scores are divided by sqrt(head size): divide the query weights instead;
- the key bias adds the same number to a whole row of scores, which softmax ignores: drop it;
- attention rows sum to 1, so the value bias passes through: add (value bias) @ (output weight) to the output bias;
- the second feed-forward bias joins the residual: add it to the shift of the norm before, and subtract
  (bias @ up weight) from the first bias, so that the first product still sees what it saw.

Load the graph with ORT_ENABLE_BASIC. It is fused by hand already, and higher levels may create SkipLayerNormalization,
whose CPU kernel is several times slower than Add + LayerNormalization.

Guarantees: fp32 agrees with the original to 1e-5; padded states count for nothing. int8: a text has the same vector
alone, padded, in any batch, order and number of threads, because no scale depends on another row and no reduction order
on padding. Does not know: prompts, texts, sessions at serving time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llama_index_embed_plus.errors import DamagedModelError, ModelError
from llama_index_embed_plus.export.calibration import calibrate, frame_of
from llama_index_embed_plus.export.network import ACTIVATIONS, IDS, MASK, Arithmetic, Float32, Int8, Network
from llama_index_embed_plus.export.onnx_writer import GraphWriter, int64
from llama_index_embed_plus.export.weights import (
    Array,
    EncoderWeights,
    Layer,
    Linear,
    activation_name,
    read_weights,
    unsupported_reason,
)
from llama_index_embed_plus.models.files import require_json
from llama_index_embed_plus.models.pooling import (
    ATTENTION,
    CLS,
    LAST,
    MAX,
    MEAN,
    MEAN_SQRT,
    TOKEN_STATES,
    WEIGHTED,
    HeadStep,
)
from llama_index_embed_plus.models.spec import EncoderSpec
from llama_index_embed_plus.models.weights import tensors_of, weight_files
from qdrant_tools.errors import PlusError, first_line

Precision = Literal["fp32", "int8"]


def supports(folder: Path, spec: EncoderSpec) -> bool:
    """Whether `build_graph` can build this model. Other models are exported by tracing them."""
    return _unsupported_reason(folder / spec.transformer_path) is None


def build_graph(folder: Path, spec: EncoderSpec, *, precision: Precision = "fp32") -> Any:
    """Build the encoder in `folder` as `onnx.ModelProto`.

    Raises ModelError where `supports` says no, DamagedModelError for a missing or contradicting file.
    """
    inner = folder / spec.transformer_path
    reason = _unsupported_reason(inner)
    if reason is not None:
        raise ModelError(f"{folder}: {reason}; no graph can be built from its weights, export it by tracing instead")
    try:
        return _build(folder, spec, precision)
    except PlusError:
        raise
    except Exception as error:  # odd values of a config are not looked at before they are used
        raise misfit(folder, error) from error


def misfit(folder: Path, error: Exception) -> DamagedModelError:
    """Return the error for a folder whose config and weights made no network."""
    return DamagedModelError(
        f"{folder}: its config.json does not fit its weights ({first_line(error)}); fetch it again"
    )


def _build(folder: Path, spec: EncoderSpec, precision: Precision) -> Any:
    inner = folder / spec.transformer_path
    weights, graph = fold(read_weights(inner)), GraphWriter()
    arithmetic: Arithmetic = Float32(graph)
    if precision == "int8":
        arithmetic = Int8(graph, calibrate(weights, frame_of(folder, spec)))
    network = Network(weights, arithmetic)
    # With first-token pooling, the last layer computes one token instead of all.
    states = network.states(first_only=reads_first_only(spec))
    if gives_states(spec):
        states = graph.renamed(states, TOKEN_STATES)
    vectors = HeadWriter(graph, states, MASK, attention=network.attention).write(folder, spec)
    scalars = () if spec.include_prompt else (PROMPT_TOKENS,)
    outputs: dict[str, Sequence[str | int]] = {vectors: ["batch", spec.dimension]}
    if gives_states(spec):
        outputs[states] = ["sequence", "batch", weights.hidden_size]
    return graph.model(outputs, inputs=(IDS, MASK), scalars=scalars)


def _unsupported_reason(inner: Path) -> str | None:
    """Say why the network in `inner` cannot be built. None: it can."""
    config = require_json(inner, "config.json")
    activation = activation_name(config)
    if activation not in ACTIVATIONS and unsupported_reason(config) is None:
        return f"activation {activation!r} is not one of {', '.join(sorted(ACTIVATIONS))}"
    return unsupported_reason(config)


def fold(weights: EncoderWeights) -> EncoderWeights:
    """Apply the four identities to every layer. Vectors change by rounding only."""
    head_size = weights.hidden_size // weights.heads
    return replace(weights, layers=tuple(_fold_layer(layer, head_size) for layer in weights.layers))


def _fold_layer(layer: Layer, head_size: int) -> Layer:
    root = np.sqrt(np.float32(head_size))
    down_bias = _bias(layer.down)
    return replace(
        layer,
        query=Linear(layer.query.weight / root, _bias(layer.query) / root),
        # softmax ignores what is added to a whole row of scores
        key=Linear(layer.key.weight, None),
        value=Linear(layer.value.weight, None),
        output=Linear(layer.output.weight, _bias(layer.output) + _bias(layer.value) @ layer.output.weight),
        # the second feed-forward bias comes in with the residual; `up` takes it out of its own input again
        attention_norm=replace(layer.attention_norm, shift=layer.attention_norm.shift + down_bias),
        up=Linear(layer.up.weight, _bias(layer.up) - down_bias @ layer.up.weight),
        down=Linear(layer.down.weight, None),
    )


def _bias(linear: Linear) -> Array:
    return np.zeros(linear.weight.shape[1], np.float32) if linear.bias is None else linear.bias


PROMPT_TOKENS = "prompt_tokens"
"""Scalar int64 input of graphs whose pooling leaves the prompt out: the number of its tokens."""

_SHORTEST = np.float32(1e-12)
_FEWEST = np.float32(1e-9)
_LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's


def reads_first_only(spec: EncoderSpec) -> bool:
    """Whether the pooling reads nothing but the state of the first token."""
    # without the prompt, the first token that counts is a later one
    return spec.pooling == (CLS,) and spec.include_prompt


def gives_states(spec: EncoderSpec) -> bool:
    """Whether the graph gives the states of all tokens too: passages can be pooled out of a longer text."""
    return spec.pooling == (MEAN,)


class HeadWriter:
    """Writes the head of one spec behind `states` [S, B, H] under `mask` [B, S].

    `attention` [B, heads, S, S]: that of the last layer, for the pooling mode `attention`.
    """

    def __init__(self, graph: GraphWriter, states: str, mask: str, *, attention: str = "") -> None:
        self.graph, self.states, self.attention, self.mask = graph, states, attention, mask

    def write(self, folder: Path, spec: EncoderSpec) -> str:
        """Write everything and return the name of the vectors [B, spec.dimension], "embedding"."""
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
        """Return the weight of each token in a weighted mean, [B, S]."""
        graph = self.graph
        if mode == WEIGHTED:
            return graph("Mul", self.kept, self.position)
        if mode == ATTENTION:
            # Attention received from every head and real token. The number of heads cancels in the mean.
            attending = graph("Unsqueeze", self.tokens, int64(1, 3))
            received = graph("ReduceSum", graph("Mul", self.attention, attending), int64(1, 2), keepdims=0)
            return graph("Mul", self.kept, received)
        return self.kept

    def _only(self, position: str | np.float32) -> str:
        """Return weight 1 on the kept token at `position`, 0 elsewhere."""
        return self.graph("Mul", self.kept, self.graph.to_float(self.graph("Equal", self.position, position)))

    def _sum(self, weight: str) -> str:
        """Return the sum [B, H] of the states [S, B, H] under weights [B, S]."""
        # a product will do: in this network the states of padding are finite
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
        # Gelu belongs to the standard operators since opset 20
        return self.graph({"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "gelu": "Gelu"}[name], vectors)

    def _unit(self, vectors: str, *, output: str | None = None) -> str:
        length = self.graph("Max", self.graph("ReduceL2", vectors, int64(1), keepdims=1), _SHORTEST)
        return self.graph("Div", vectors, length, output=output)


def _read(folder: Path) -> dict[str, Array]:
    """Return the tensors of one layer by name."""
    files = weight_files(folder)
    if not files:
        raise DamagedModelError(f"{folder / 'model.safetensors'} is missing; modules.json names this layer")
    return {name: tensor.read() for file in files for name, tensor in tensors_of(file).items()}
