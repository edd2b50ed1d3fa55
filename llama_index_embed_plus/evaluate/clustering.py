"""Texts with labels -> how much the clusters of their vectors agree with the labels.

Guarantees: mteb's protocol with its seeds: mini-batch k-means on random samples, as many clusters as labels, and the
mean V-measure. Labels are flat: of mteb's hierarchical ones this is one level. Does not know: files.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.errors import InputError, UsageError
from llama_index_embed_plus.evaluate.inputs import Label, Role, checked_labels, embed, needs_eval
from qdrant_tools.records import Encoder


@dataclass(frozen=True)
class ClusteringSettings:
    """mteb's defaults. Where its tasks embed a share of a large set, give that share of the texts."""

    experiments: int = 10
    sample: int = 16_384
    """Texts per experiment, drawn with replacement."""
    batch_size: int = 512
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("experiments", "sample", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True)
class ClusteringReport:
    """V-measure, 0 to 1: the harmonic mean of homogeneity (a cluster has one label) and completeness (a label is in
    one cluster); over the experiments."""

    v_measure: float
    deviation: float
    """Standard deviation over the experiments."""
    v_measures: tuple[float, ...]
    labels: int
    texts: int


def clustering(
    encoder: Encoder,
    texts: Sequence[str],
    labels: Sequence[Label],
    *,
    settings: ClusteringSettings | None = None,
    role: Role = "passage",
) -> ClusteringReport:
    """Cluster the vectors of texts and compare with their labels.

    Rosenberg and Hirschberg, "V-Measure: A conditional entropy-based external cluster evaluation measure", 2007.

    Raises:
        InputError: texts and labels of different lengths, a missing label, fewer than two labels or too few drawn.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("clustering")
    settings = settings or ClusteringSettings()
    known = checked_labels(labels, count=len(texts))
    kinds = {label: code for code, label in enumerate(dict.fromkeys(known))}
    if len(kinds) < 2:
        raise InputError(f"labels: only {list(kinds)}, expected at least two different ones")
    if settings.sample < len(kinds):
        raise UsageError(f"sample is {settings.sample}, expected at least one text for each of {len(kinds)} labels")
    coded = np.asarray([kinds[label] for label in known], np.int64)
    values = _v_measures(embed(encoder, texts, role=role), coded, len(kinds), settings)
    return ClusteringReport(float(np.mean(values)), float(np.std(values)), tuple(values), len(kinds), len(texts))


def _v_measures(vectors: np.ndarray, labels: np.ndarray, clusters: int, settings: ClusteringSettings) -> list[float]:
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    model = MiniBatchKMeans(clusters, batch_size=settings.batch_size, n_init=1, random_state=settings.seed)
    generator = random.Random(settings.seed)
    found = []
    for _ in range(settings.experiments):
        rows = generator.choices(range(len(labels)), k=settings.sample)
        found.append(float(v_measure_score(labels[rows], model.fit_predict(vectors[rows]))))
    return found
