"""Two builds of one model and real texts -> how far apart their vectors are.

Guarantees: both see the same texts; the figures say nothing about other texts than these.
Does not know: how either computes.
"""

from __future__ import annotations

import importlib
import inspect
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from qdrant_tools.records import Progress, Vectors

BOUNDS = {
    "fp32": "a largest difference of 1e-4",
    "int8": "cosine 0.999 in the mean and 0.997 at worst, and 1e-5 between a text alone and in a batch",
}

_LONGEST = 800
"""Characters kept of a sample text: enough for most models' whole window, without spending the time on few texts."""

_MODULES = ("argparse", "asyncio", "collections", "csv", "datetime", "decimal", "email", "functools", "heapq", "io")
_MORE_MODULES = (
    "itertools",
    "json",
    "logging",
    "os",
    "pathlib",
    "random",
    "re",
    "shutil",
    "socket",
    "sqlite3",
    "zipfile",
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


@dataclass(frozen=True, eq=False)
class Embedded:
    """What one build made of the texts: its name, the vectors (n, d), and its speed."""

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
    """Embed `texts` and compare with what the reference made of them."""
    embedded, expected = embed(built, texts, progress=progress), reference.vectors
    vectors = embedded.vectors
    cosines = np.sum(unit_rows(vectors) * unit_rows(expected), axis=1)
    # Every eighth text again by itself: padding and neighbours must not change it.
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
    """Share of the `k` nearest other rows that the two sets of vectors (n, d) agree on, averaged over rows."""
    k = min(k, len(vectors) - 1)
    if k < 1:
        return 1.0
    near, expected_near = _nearest(vectors, k), _nearest(expected, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(near.tolist(), expected_near.tolist())]))


def sample_texts(limit: int = 160) -> list[str]:
    """Real texts that every machine has: documentation of the standard library, and a few other languages."""
    texts: dict[str, None] = {}
    for name in _MODULES + _MORE_MODULES:
        module = importlib.import_module(name)
        for member in [module, *(value for _, value in sorted(vars(module).items(), key=lambda item: item[0]))]:
            text = inspect.getdoc(member) if inspect.isroutine(member) or inspect.isclass(member) else None
            if text and len(text) > 20:
                texts.setdefault(text[:_LONGEST])
    step = max(1, len(texts) // limit)
    return [*list(texts)[::step][: limit - len(_OTHER_LANGUAGES)], *_OTHER_LANGUAGES]


def _nearest(vectors: Vectors, k: int) -> NDArray[np.int64]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.asarray(np.argpartition(-scores, k - 1, axis=1)[:, :k])


def unit_rows(vectors: Vectors) -> Vectors:
    """Rows scaled to unit length."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _largest(difference: Vectors) -> float:
    return float(np.abs(difference).max(initial=0.0))
