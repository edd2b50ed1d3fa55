"""Any checkpoint that torch can run -> an ONNX graph, by tracing one run of it.

`PooledEncoder` is traced: transformer, pooling, layers on top, truncation and normalisation, for any number of texts
and tokens. torch's tracing exporter is used and not its successor, which needs another package (onnxscript). Tracing is
enough for encoders: once the mask is given, they have no branches that depend on data.

Guarantees: inputs `input_ids`, `attention_mask` (n, t) int64, and `prompt_tokens` (0-d int64) if the prompt is left out
of the pooling; outputs `embedding` (n, dimension), and `token_states` (t, n, h) if the pooling is the mean. Does not
know: whether the graph is right for other lengths. The parity report of an export tells.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llama_index_embed_plus.errors import MissingExtraError, ModelError
from llama_index_embed_plus.export.graph import gives_states
from llama_index_embed_plus.models.pooling import TOKEN_STATES, pool
from llama_index_embed_plus.models.spec import EncoderSpec
from qdrant_tools.errors import first_line

try:
    import onnx
    import torch
    from transformers import masking_utils

    from llama_index_embed_plus.encoders.torch_encoder import PooledEncoder
except ImportError as error:
    raise MissingExtraError("exporting by tracing", extra="train") from error

OPSET = 17


@contextmanager
def _masks_by_index() -> Iterator[None]:
    """Have transformers build attention masks by broadcasting indices. Its other way, vmap, cannot be traced."""
    expand = getattr(masking_utils, "_non_vmap_expansion_sdpa", None)

    def by_index(function: Any) -> Any:
        return lambda *indices: function(*expand(*indices))  # type: ignore[misc]

    replaced = {
        "_vmap_expansion_sdpa": by_index,
        "TransformGetItemToIndex": nullcontext,
    }
    originals = {name: getattr(masking_utils, name, None) for name in replaced}
    if expand is None or None in originals.values():  # another version of transformers: trace what it does
        yield
        return
    try:
        for name, replacement in replaced.items():
            setattr(masking_utils, name, replacement)
        yield
    finally:
        for name, original in originals.items():
            setattr(masking_utils, name, original)


class _Traced(torch.nn.Module):
    """A PooledEncoder without default arguments, which would become inputs of the graph."""

    def __init__(self, encoder: PooledEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, *inputs: torch.Tensor) -> Any:
        if not gives_states(self.encoder.spec):
            return self.encoder(*inputs)
        states, _ = self.encoder.states(*inputs[:2])
        pooled = pool(states, inputs[1], self.encoder.spec.pooling, prompt_tokens=(*inputs, 0)[2])
        return self.encoder.finish(pooled), states.transpose(0, 1)


def trace(folder: Path, spec: EncoderSpec) -> Any:
    """Trace the model in `folder` as `onnx.ModelProto`. Raises ModelError if torch cannot express it in ONNX."""
    module = _Traced(PooledEncoder(folder, spec)).eval()
    ids = torch.ones(2, 7, dtype=torch.int64)
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0  # traced without padding, a graph might never expect any
    names, inputs = ["input_ids", "attention_mask"], [ids, mask]
    if not spec.include_prompt:
        names.append("prompt_tokens")
        # a tensor, because tracing would make a plain number a constant of the graph
        inputs.append(torch.tensor(1))
    axes = {
        "input_ids": {0: "batch", 1: "tokens"},
        "attention_mask": {0: "batch", 1: "tokens"},
        "embedding": {0: "batch"},
    }
    outputs = ["embedding"]
    if gives_states(spec):
        outputs.append(TOKEN_STATES)
        axes[TOKEN_STATES] = {0: "tokens", 1: "batch"}
    try:
        with warnings.catch_warnings(), torch.inference_mode(), _masks_by_index(), TemporaryDirectory() as scratch:
            warnings.simplefilter("ignore")  # tracing warns of every branch
            path = Path(scratch) / "model.onnx"  # weights beyond 2 GB come as many files beside it
            torch.onnx.export(
                module,
                tuple(inputs),
                str(path),
                input_names=names,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
            # loads the weights too, before their files go
            return onnx.load(path)
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise ModelError(f"{folder}: torch cannot write this model as ONNX ({first_line(error)})") from error
