"""A checkpoint -> an artifact that serves without torch, with a report of how well it agrees with the original.

`export_onnx` writes the graph (built from the weights for the BERT family, traced for every other model), measures it
on real texts against the original, and writes the manifest. The original is computed by torch; without torch, that of
the BERT family by numpy (`reference`), and a graph that came with a model is run as it came.

Guarantees: a graph outside its bound is not written unless forced; nothing is half-written; both builds embed the same
texts, and the figures say nothing about other texts than these. Does not know: how graphs are made (`graph`, `rewrite`,
`trace`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from llama_index_embed_plus.encoders import self_check
from llama_index_embed_plus.encoders.onnx_encoder import OnnxBackend, check_graph
from llama_index_embed_plus.encoders.open import Identity, identify, open_encoder
from llama_index_embed_plus.encoders.text_encoder import Backend, TextEncoder
from llama_index_embed_plus.errors import DamagedModelError, MissingExtraError, ParityError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.files import has_lora, onnx_files, write_json
from llama_index_embed_plus.models.pooling import unit
from llama_index_embed_plus.models.spec import Overrides
from llama_index_embed_plus.models.weights import weight_files
from qdrant_tools.errors import NotSupportedError, PlusError, UsageError, first_line
from qdrant_tools.records import Progress, Vectors

__all__ = ["ParityReport", "Precision", "export_onnx"]

Precision = Literal["fp32", "int8"]

_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
"""In the order in which they are made."""

FILES: dict[Precision, str] = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}

BOUNDS = {
    "fp32": "a largest difference of 1e-4",
    "int8": "cosine 0.999 in the mean and 0.997 at worst, and 1e-5 between a text alone and in a batch",
}

_LONGEST = 800
"""Characters kept of a sample text. They fill the whole window of most models, and more would only take time."""

_MODULES = (
    *("argparse", "asyncio", "collections", "csv", "datetime", "decimal", "email", "functools", "heapq", "io"),
    *("itertools", "json", "logging", "os", "pathlib", "random", "re", "shutil", "socket", "sqlite3", "zipfile"),
)
_OTHER_LANGUAGES = (
    "Der Zug nach München fährt heute zehn Minuten später von Gleis 7 ab.",
    "Les résultats de la recherche sont classés par pertinence décroissante.",
    "El informe anual describe cómo cambiaron los precios durante el año.",
    "東京の天気は明日から雨になるでしょう。",
    "Поиск по документам возвращает десять лучших результатов.",
    "يعيد البحث أفضل عشرة مستندات مرتبة حسب الصلة.",
)


@dataclass(frozen=True)
class ParityReport:
    """How well `build` agrees with `reference` on `texts` texts. Cosines compare the two vectors of one text."""

    build: str
    reference: str
    texts: int
    cosine_mean: float
    cosine_min: float
    cosine_p01: float
    cosine_p50: float
    max_abs_difference: float
    """Largest difference of one component, to the reference."""
    batch_max_abs_difference: float
    """Largest difference of one component, the same build: a text alone against the text in a batch."""
    top10_overlap: float
    """Share of the ten nearest texts that both builds agree on, averaged over all texts."""
    texts_per_second: float
    reference_texts_per_second: float
    bytes: int
    within: bool
    """Whether it is inside the bound of its precision, see BOUNDS."""

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.build} against {self.reference} on {self.texts} texts: cosine {self.cosine_mean:.6f} in the mean, "
            f"{self.cosine_min:.6f} at worst; largest difference {self.max_abs_difference:.1e}, "
            f"{self.batch_max_abs_difference:.1e} between alone and batch; "
            f"ten nearest agree to {self.top10_overlap:.1%}; {self.bytes / 1e6:.1f} MB"
        )


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

    Args:
        precision: `int8` writes the fp32 graph too, for machines on which int8 gives other vectors.
        force: Write the artifact even if the graph is outside its bound. The report says so.

    Raises:
        ParityError: The graph is outside its bound and not forced. Nothing is left behind.
        UsageError: `out_folder` holds something else than an artifact.
        MissingExtraError: A library that writes the graph is not installed.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"precision is {precision!r}, expected one of {', '.join(get_args(Precision))}")
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtraError("writing ONNX files", extra="export")
    source = identify(model, backend="torch", overrides=overrides)
    if has_lora(source.folder / source.spec.transformer_path):
        raise NotSupportedError(
            f"{source.folder} keeps its LoRA apart from its base, and an ONNX graph has its weights inside: train with "
            "the LoRA merged (lora.merge), or merge it with peft and save that"
        )
    with artifact.draft_folder(Path(out_folder)) as draft:
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
            report = measure(built, reference, texts, size=_size(draft / FILES[name]), progress=progress)
            if not report.within and not force:
                raise ParityError(f"{report.summary()}; outside {BOUNDS[name]}, nothing was written (force writes it)")
            builds[built.build] = {"file": FILES[name], "opset": opset, "parity": asdict(report)}
            checks[built.build] = self_check.record(built.backend, built.tokenizer)
        # The manifest comes last: it makes the folder an artifact and holds the hashes of all other files.
        write_json(draft / self_check.FILE, checks)
        origin = artifact.origin_of(source.folder)
        artifact.write_manifest(draft, spec=source.spec, builds=builds, name=source.spec.name, source=origin)
    return report


def _write_graph(source: Identity, draft: Path, precision: Precision) -> int:
    """Write the graph of one precision and return its opset. A traced graph becomes int8 from its fp32 file."""
    from llama_index_embed_plus.export.onnx_writer import save_model

    model = _graph(source, precision, draft / FILES["fp32"])
    (draft / FILES[precision]).parent.mkdir(exist_ok=True)
    save_model(model, draft / FILES[precision])
    # the domain of the standard operators has two spellings
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _graph(source: Identity, precision: Precision, fp32: Path) -> Any:
    """Return the graph as `onnx.ModelProto`: built from the weights, else traced, else the one in the folder."""
    import onnx

    from llama_index_embed_plus.export import graph

    if _has_weights(source) and graph.supports(source.folder, source.spec):
        return graph.build_graph(source.folder, source.spec, precision=precision)
    if precision == "int8":
        from llama_index_embed_plus.export.calibration import frame_of
        from llama_index_embed_plus.export.rewrite import quantise

        frame = frame_of(source.folder, source.spec)
        try:
            return quantise(onnx.load(fp32), frame=frame)
        except PlusError:
            raise
        except Exception as error:  # a graph from somebody else may be anything that onnxruntime runs
            raise NotSupportedError(
                f"{source.folder}: its graph cannot become int8 ({first_line(error)}); export it in fp32"
            ) from error
    existing = next(onnx_files(source.folder), None)
    if _has_weights(source) and (_has_torch() or existing is None):
        from llama_index_embed_plus.export.trace import trace

        return trace(source.folder, source.spec)
    if existing is None:
        raise DamagedModelError(f"{source.folder} holds neither weights nor a graph; fetch it again")
    check_graph(existing)
    try:
        return onnx.load(existing)
    except Exception as error:  # of protobuf, of onnx, or of what a file beside it claims
        raise DamagedModelError(f"{existing} cannot be read by onnx ({first_line(error)}); fetch it again") from error


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
) -> Embedded:
    """Embed the texts with what the graph must agree with: the weights by torch, by numpy, or the graph as it came."""
    if _has_weights(source) and _has_torch():
        # texts are compared one by one, whether the artifact will have late chunking or not
        plain = replace(overrides or Overrides(), late=False)
        # on the CPU, where the graph runs: speeds are compared too
        encoder = open_encoder(model, backend="torch", device="cpu", overrides=plain)
    else:
        encoder = TextEncoder(source.spec, source.space, source.folder, _without_torch(source))
    encoder.quiet = True
    # numpy has a text in each thread already; more threads for its small products would wait for each other
    with threadpool_limits(limits=1, user_api="blas"):
        return embed(encoder, texts, progress=progress)


def _without_torch(source: Identity) -> Backend:
    from llama_index_embed_plus.export import graph
    from llama_index_embed_plus.export.reference import NumpyBackend

    if _has_weights(source) and graph.supports(source.folder, source.spec):
        return NumpyBackend(source.folder, source.spec)
    existing = next(onnx_files(source.folder), None)
    if existing is None and not _has_weights(source):
        raise DamagedModelError(f"{source.folder} holds neither weights nor a graph; fetch it again")
    if existing is None:
        kind = f"a {source.spec.model_type} has to be traced, and exporting it"
        raise MissingExtraError(kind, extra="train")
    return OnnxBackend(existing, source.folder, source.spec, build="onnx-as-it-came")


def _has_weights(source: Identity) -> bool:
    return bool(weight_files(source.folder / source.spec.transformer_path))


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def _size(path: Path) -> int:
    """Return the bytes of a graph, with the files beside it that hold its weights."""
    # model.onnx.data, if there is one, begins with the name of the graph
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


@dataclass(frozen=True, eq=False)
class Embedded:
    """The vectors (n, d) of the texts by one build, with its name and speed."""

    build: str
    vectors: Vectors
    texts_per_second: float


def embed(encoder: TextEncoder, texts: list[str], *, progress: Progress | None = None) -> Embedded:
    """Embed `texts` as passages, and time it."""
    encoder.encode_passages(texts[:4])  # the first call opens sessions and fills caches
    start = time.perf_counter()
    vectors = encoder.encode_passages(texts, progress=progress)
    return Embedded(encoder.build, vectors, len(texts) / (time.perf_counter() - start))


def measure(
    built: TextEncoder,
    reference: Embedded,
    texts: list[str],
    *,
    size: int = 0,
    progress: Progress | None = None,
) -> ParityReport:
    """Embed `texts` and compare the vectors with those of the reference."""
    embedded, expected = embed(built, texts, progress=progress), reference.vectors
    vectors = embedded.vectors
    cosines = np.sum(unit(vectors) * unit(expected), axis=1)
    # Every eighth text again, alone: padding and neighbours must not change its vector.
    alone = np.concatenate([built.encode_passages([text]) for text in texts[::8]])
    difference, drift = _largest(vectors - expected), _largest(alone - vectors[::8])
    if built.build.startswith("onnx-int8"):
        within = cosines.mean() >= 0.999 and cosines.min() >= 0.997 and drift <= 1e-5
    else:
        within = difference <= 1e-4
    return ParityReport(
        build=built.build,
        reference=reference.build,
        texts=len(texts),
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        cosine_p01=float(np.percentile(cosines, 1)),
        cosine_p50=float(np.percentile(cosines, 50)),
        max_abs_difference=difference,
        batch_max_abs_difference=drift,
        top10_overlap=top_overlap(vectors, expected),
        texts_per_second=embedded.texts_per_second,
        reference_texts_per_second=reference.texts_per_second,
        bytes=size,
        within=bool(within),
    )


def top_overlap(vectors: Vectors, expected: Vectors, *, k: int = 10) -> float:
    """Return the share of the `k` nearest other rows on which both sets of vectors (n, d) agree, averaged over rows."""
    k = min(k, len(vectors) - 1)
    if k < 1:
        return 1.0
    near, expected_near = _nearest(vectors, k), _nearest(expected, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(near.tolist(), expected_near.tolist())]))


def sample_texts(limit: int = 160) -> list[str]:
    """Return real texts that every machine has: documentation of the standard library, and other languages."""
    texts: dict[str, None] = {}
    for name in _MODULES:
        module = importlib.import_module(name)
        for member in [module, *(value for _, value in sorted(vars(module).items(), key=lambda item: item[0]))]:
            text = inspect.getdoc(member) if inspect.isroutine(member) or inspect.isclass(member) else None
            if text and len(text) > 20:
                texts.setdefault(text[:_LONGEST])
    step = max(1, len(texts) // limit)
    return [*list(texts)[::step][: limit - len(_OTHER_LANGUAGES)], *_OTHER_LANGUAGES]


def _nearest(vectors: Vectors, k: int) -> NDArray[np.int64]:
    scores = vectors @ vectors.T
    # every text is nearest to itself
    np.fill_diagonal(scores, -np.inf)
    return np.asarray(np.argpartition(-scores, k - 1, axis=1)[:, :k])


def _largest(difference: Vectors) -> float:
    return float(np.abs(difference).max(initial=0.0))
