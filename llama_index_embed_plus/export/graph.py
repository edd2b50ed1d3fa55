"""A BERT-family checkpoint folder -> an ONNX graph, straight from the weights: token ids in, finished vectors out.

`build_graph(folder, spec, precision="fp32" | "int8")` needs numpy, onnx and, for int8, onnxruntime; no torch and no
calibration text. The graph reads `input_ids` and `attention_mask` [batch, sequence] int64, padded on the right, and,
if the pooling leaves the prompt out, `prompt_tokens` (int64 scalar); it gives `embedding` [batch, dimension] float32,
pooled, projected, truncated and normalised as the spec says.

Guarantees: fp32 agrees with the original to 1e-5. int8: a text has the same vector alone, padded, in any batch, order
and number of threads, because no scale depends on another row and no reduction order on padding.
Does not know: prompts, texts, sessions at serving time.

Load the graph with ORT_ENABLE_BASIC: it is fused by hand already, and higher levels may create SkipLayerNormalization,
whose CPU kernel is several times slower than Add + LayerNormalization.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from llama_index_embed_plus.errors import ModelError
from llama_index_embed_plus.export.arithmetic import ACTIVATIONS, Arithmetic, Float32, Int8
from llama_index_embed_plus.export.calibrate import calibrate
from llama_index_embed_plus.export.fold import fold
from llama_index_embed_plus.export.head_nodes import PROMPT_TOKENS, HeadWriter, reads_first_only
from llama_index_embed_plus.export.network import IDS, MASK, Network
from llama_index_embed_plus.export.observe import frame_of
from llama_index_embed_plus.export.onnx_writer import GraphWriter
from llama_index_embed_plus.export.tensor_names import activation_name, read_config, why_not
from llama_index_embed_plus.export.weights import read_weights
from llama_index_embed_plus.spec import EncoderSpec

Precision = Literal["fp32", "int8"]


def supports(folder: Path, spec: EncoderSpec) -> bool:
    """True if `build_graph` can build this model; other models are exported by tracing them."""
    return _why_not(folder / spec.transformer_path) is None


def build_graph(folder: Path, spec: EncoderSpec, *, precision: Precision = "fp32") -> Any:
    """Build the encoder in `folder` as `onnx.ModelProto`.

    Raises ModelError where `supports` says no, DamagedModelError for a missing or contradicting file.
    """
    inner = folder / spec.transformer_path
    reason = _why_not(inner)
    if reason is not None:
        raise ModelError(f"{folder}: {reason}; no graph can be built from its weights, export it by tracing instead")
    weights, graph = fold(read_weights(inner)), GraphWriter()
    arithmetic: Arithmetic = Float32(graph)
    if precision == "int8":
        arithmetic = Int8(graph, calibrate(weights, frame_of(folder, spec)))
    network = Network(weights, arithmetic)
    states = network.states(first_only=reads_first_only(spec))
    vectors = HeadWriter(graph, states, MASK, shares=network.shares).write(folder, spec)
    scalars = () if spec.include_prompt else (PROMPT_TOKENS,)
    return graph.model({vectors: ["batch", spec.dimension]}, inputs=(IDS, MASK), scalars=scalars)


def _why_not(inner: Path) -> str | None:
    """None if the network in `inner` can be built, else the reason."""
    config = read_config(inner)
    activation = activation_name(config)
    if activation not in ACTIVATIONS and why_not(config) is None:
        return f"activation {activation!r} is not one of {', '.join(sorted(ACTIVATIONS))}"
    return why_not(config)
