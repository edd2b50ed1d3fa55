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
from llama_index_embed_plus.encoders import identify, open_encoder
from llama_index_embed_plus.encoders.onnx_encoder import OnnxBackend
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.errors import MissingExtraError, ParityError, UsageError
from llama_index_embed_plus.export.parity import BOUNDS, Embedded, ParityReport, embed, measure, sample_texts
from llama_index_embed_plus.model_files import write_json
from llama_index_embed_plus.spec import EncoderSpec, Overrides
from qdrant_tools.records import Progress

__all__ = ["ParityReport", "Precision", "export_onnx"]

Precision = Literal["fp32", "int8"]

FILES = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}


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
    with artifact.written_whole(Path(out_folder)) as draft:
        artifact.copy_model(source.folder, draft, spec=source.spec)
        wanted: tuple[Precision, ...] = ("fp32", "int8") if precision == "int8" else ("fp32",)
        texts = sample_texts()
        reference = _reference(model, overrides, texts, progress)
        builds: dict[str, Any] = {}
        checks: dict[str, Any] = {}
        for name in wanted:
            path = draft / FILES[name]
            _write_graph(source.folder, source.spec, path, name)
            backend = OnnxBackend(path, draft, source.spec, build=f"onnx-{name}")
            built = TextEncoder(source.spec, source.space, draft, backend)
            built.quiet = True
            reference = reference or embed(built, texts, progress=progress)  # no torch: the fp32 graph is all there is
            report = measure(built, reference, texts, size=_size(path), progress=progress)
            if not report.within and not force:
                raise ParityError(f"{report.summary()}; outside {BOUNDS[name]}, nothing was written (force writes it)")
            builds[built.build] = {"file": FILES[name], "parity": asdict(report)}
            checks[built.build] = self_check.recorded(backend, built.tokenizer)
        write_json(draft / self_check.FILE, checks)
        artifact.write_manifest(draft, spec=source.spec, builds=builds, name=source.spec.name)
    return report


def _write_graph(folder: Path, spec: EncoderSpec, path: Path, precision: Precision) -> None:
    from llama_index_embed_plus.export import graph
    from llama_index_embed_plus.export.onnx_writer import save_model

    path.parent.mkdir(parents=True, exist_ok=True)
    if graph.supports(folder, spec):
        save_model(graph.build_graph(folder, spec, precision=precision), path)
        return
    from llama_index_embed_plus.export.trace import trace

    if precision == "fp32":
        trace(folder, spec, path)
        return
    raise UsageError(f"int8 is not available for models of type {spec.model_type!r}; export fp32")


def _reference(
    model: str | Path, overrides: Overrides | None, texts: list[str], progress: Progress | None
) -> Embedded | None:
    """What torch makes of the texts; None where torch is not installed."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return None
    encoder = open_encoder(model, backend="torch", device="cpu", overrides=overrides)
    encoder.quiet = True
    return embed(encoder, texts, progress=progress)


def _size(path: Path) -> int:
    """Bytes of a graph with the files beside it that hold its weights."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
