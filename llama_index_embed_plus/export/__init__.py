"""A checkpoint -> an artifact that serves without torch.

`export_onnx` writes the graph (built from the weights for the BERT family, traced for every other model), measures how
well it agrees with the original, and seals the folder. Guarantees: a graph outside its bound is not written unless
forced; nothing is half-written. Does not know: how graphs are made, see `graph`, `rewrite` and `trace`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from llama_index_embed_plus import artifact, self_check
from llama_index_embed_plus.encoders import Identity, identify, open_encoder
from llama_index_embed_plus.encoders.onnx_encoder import OnnxBackend
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.errors import MissingExtraError, ParityError, UsageError
from llama_index_embed_plus.export.parity import BOUNDS, Embedded, ParityReport, embed, measure, sample_texts
from llama_index_embed_plus.lora_files import is_kept_apart
from llama_index_embed_plus.model_files import onnx_files, write_json
from llama_index_embed_plus.spec import Overrides
from llama_index_embed_plus.tensors import weight_files
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.records import Progress

__all__ = ["ParityReport", "Precision", "export_onnx"]

Precision = Literal["fp32", "int8"]

_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
"""In the order in which they are made."""

FILES: dict[Precision, str] = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}


def export_onnx(
    model: str | Path,
    out_folder: str | Path,
    *,
    precision: Precision = "fp32",
    force: bool = False,
    progress: Progress | None = None,
    overrides: Overrides | None = None,
) -> ParityReport:
    """Write `out_folder`: the model's files, an ONNX graph (ids and mask in, vectors out), reports, the manifest.

    precision: `int8` writes the fp32 graph too, for machines on which int8 does not hold.
    force: seal the artifact even if the graph is outside its bound; the report says so.
    Raises ParityError if it is outside and not forced, and leaves nothing behind; UsageError for an `out_folder` that
    holds something else.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"precision is {precision!r}, expected one of {', '.join(get_args(Precision))}")
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtraError("writing ONNX files", extra="train")
    source = identify(model, backend="torch", overrides=overrides)
    if is_kept_apart(source.folder / source.spec.transformer_path):
        raise NotSupportedError(
            f"{source.folder} keeps its LoRA apart from its base, and an ONNX graph has its weights inside: train with "
            "the LoRA merged (lora.merge), or merge it with peft and save that"
        )
    with artifact.written_whole(Path(out_folder)) as draft:
        artifact.copy_model(source.folder, draft, spec=source.spec)
        if source.adapter is not None:
            source.adapter.save(draft / artifact.ADAPTER)
        texts = sample_texts()
        reference = _reference(model, source, texts, overrides=overrides, progress=progress)
        builds: dict[str, Any] = {}
        checks: dict[str, Any] = {}
        for name in _PRECISIONS[: _PRECISIONS.index(precision) + 1]:
            opset = _write_graph(source, draft, name)
            built = _open(source, draft, name)
            reference = reference or embed(built, texts, progress=progress)  # no torch: the fp32 graph is all there is
            report = measure(built, reference, texts, size=_size(draft / FILES[name]), progress=progress)
            if not report.within and not force:
                raise ParityError(f"{report.summary()}; outside {BOUNDS[name]}, nothing was written (force writes it)")
            builds[built.build] = {"file": FILES[name], "opset": opset, "parity": asdict(report)}
            checks[built.build] = self_check.recorded(built.backend, built.tokenizer)
        # Last of all: the manifest makes the folder an artifact, and seals what stands beside it.
        write_json(draft / self_check.FILE, checks)
        artifact.write_manifest(draft, spec=source.spec, builds=builds, name=source.spec.name)
    return report


def _write_graph(source: Identity, draft: Path, precision: Precision) -> int:
    """Write the graph of one precision and return its opset. int8 of a traced graph needs the fp32 one to be there."""
    from llama_index_embed_plus.export.onnx_writer import save_model

    model = _graph(source, precision, draft / FILES["fp32"])
    (draft / FILES[precision]).parent.mkdir(exist_ok=True)
    save_model(model, draft / FILES[precision])
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _graph(source: Identity, precision: Precision, fp32: Path) -> Any:
    """The graph as `onnx.ModelProto`: built from the weights, else traced, else the one the folder came with."""
    import onnx

    from llama_index_embed_plus.export import graph

    if _has_weights(source) and graph.supports(source.folder, source.spec):
        return graph.build_graph(source.folder, source.spec, precision=precision)
    if precision == "int8":
        from llama_index_embed_plus.export.observe import frame_of
        from llama_index_embed_plus.export.rewrite import quantise

        frame = frame_of(source.folder, source.spec)
        return quantise(onnx.load(fp32), frame=frame)
    existing = next(onnx_files(source.folder), None)
    if _has_weights(source) and (_has_torch() or existing is None):
        from llama_index_embed_plus.export.trace import trace

        return trace(source.folder, source.spec)
    return onnx.load(existing)


def _open(source: Identity, draft: Path, precision: Precision) -> TextEncoder:
    backend = OnnxBackend(draft / FILES[precision], draft, source.spec, build=f"onnx-{precision}")
    encoder = TextEncoder(source.spec, source.space, draft, backend)
    encoder.quiet = True
    return encoder


def _reference(
    model: str | Path,
    source: Identity,
    texts: list[str],
    *,
    overrides: Overrides | None,
    progress: Progress | None,
) -> Embedded | None:
    """What torch makes of the texts; None where there is no torch, or there are no weights for it."""
    if not (_has_torch() and _has_weights(source)):
        return None
    encoder = open_encoder(model, backend="torch", device="cpu", overrides=overrides)
    encoder.quiet = True
    return embed(encoder, texts, progress=progress)


def _has_weights(source: Identity) -> bool:
    return bool(weight_files(source.folder / source.spec.transformer_path))


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def _size(path: Path) -> int:
    """Bytes of a graph with the files beside it that hold its weights."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
