"""Texts with labels -> how well vectors tell the labels apart: by a classifier, and by clusters.

Classification: a logistic regression learns from a few random texts per label and labels the test texts; the mean over
several experiments. Clustering: mini-batch k-means on random samples, with as many clusters as labels; the mean
V-measure. Labels are flat: of mteb's hierarchical ones this is one level. The label -1 says that a text has none.

Guarantees: mteb's protocols with their seeds and draws, so that published figures come out to the last digit.
Does not know: files.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_index_embed_plus.evaluate.tasks.inputs import Integers, Label, Role, checked_labels, embed, needs_eval
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.records import Encoder, Vectors


@dataclass(frozen=True)
class ClassificationSettings:
    """mteb's defaults; some of its tasks say 16 or 32 texts per label."""

    samples_per_label: int = 8
    experiments: int = 10
    max_iter: int = 100
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("samples_per_label", "experiments", "max_iter"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True)
class ClassificationReport:
    """Means over the experiments. F1 is the mean over labels, `f1_weighted` weighs a label by its test texts."""

    accuracy: float
    f1: float
    f1_weighted: float
    ap: float | None
    """Average precision of the predicted labels, with two labels only, as mteb computes it."""
    accuracies: tuple[float, ...]
    labels: int
    train_texts: int
    """Different training texts over all experiments."""
    test_texts: int
    unseen: int
    """Test texts whose label no training text has: they count as wrong."""
    unconverged: int
    """Experiments in which the regression stopped at `max_iter`."""


def classification(
    encoder: Encoder,
    train: tuple[Sequence[str], Sequence[Label]],
    test: tuple[Sequence[str], Sequence[Label]],
    *,
    settings: ClassificationSettings | None = None,
    role: Role = "model",
) -> ClassificationReport:
    """Label test texts by logistic regression on vectors; `train` and `test` are texts and their labels.

    Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", 2022, section 3.2.

    Raises:
        InputError: texts and labels of different lengths, a missing label, fewer than two labels to train on.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("classification")
    settings = settings or ClassificationSettings()
    train_labels = checked_labels(train[1], count=len(train[0]), what="training labels")
    test_labels = checked_labels(test[1], count=len(test[0]), what="test labels")
    if len(set(train_labels)) < 2:
        raise InputError(
            f"training labels: only {brief(sorted(set(train_labels)))}, expected at least two different ones"
        )
    if type(train_labels[0]) is not type(test_labels[0]):
        raise InputError(
            f"training labels such as {brief(train_labels[0])}, test labels such as {brief(test_labels[0])}"
        )
    codes = {label: code for code, label in enumerate(sorted({*train_labels, *test_labels}))}
    coded_train = np.asarray([codes[label] for label in train_labels], np.int64)
    coded_test = np.asarray([codes[label] for label in test_labels], np.int64)
    experiments = draws(train_labels, settings)
    # a training set may be large and each experiment draws few of its texts: only those are embedded
    used = sorted(set().union(*experiments))
    row_of = {index: row for row, index in enumerate(used)}
    train_vectors = embed(
        encoder, [train[0][index] for index in used], role=role, task="classification", what="training texts"
    )
    test_vectors = embed(encoder, test[0], role=role, task="classification", what="test texts")
    results = [
        _experiment(train_vectors[[row_of[i] for i in rows]], coded_train[rows], test_vectors, coded_test, settings)
        for rows in experiments
    ]
    means = {name: float(np.mean([result[name] for result in results])) for name in ("accuracy", "f1", "f1_weighted")}
    return ClassificationReport(
        **means,
        ap=None if results[0]["ap"] is None else float(np.mean([result["ap"] for result in results])),
        accuracies=tuple(result["accuracy"] for result in results),
        labels=len(set(train_labels)),
        train_texts=len(used),
        test_texts=len(test_labels),
        unseen=int((~np.isin(coded_test, coded_train)).sum()),
        unconverged=sum(result["stopped"] for result in results),
    )


def draws(labels: Sequence[Label], settings: ClassificationSettings) -> list[list[int]]:
    """For each experiment, the rows to train on: the first few of every label in an order that is shuffled each time.

    Each order is the one before, shuffled anew with the same seed: that is how mteb's published figures were drawn.
    """
    order = list(range(len(labels)))
    experiments = []
    for _ in range(settings.experiments):
        np.random.RandomState(settings.seed).shuffle(order)  # a new generator each time, as in mteb
        counts: Counter[Label] = Counter()
        chosen = []
        for row in order:
            if counts[labels[row]] < settings.samples_per_label:
                counts[labels[row]] += 1
                chosen.append(row)
        experiments.append(chosen)
    return experiments


def _experiment(
    train: Vectors, train_labels: Integers, test: Vectors, test_labels: Integers, settings: ClassificationSettings
) -> dict[str, Any]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score, f1_score

    model = LogisticRegression(max_iter=settings.max_iter, random_state=settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # few texts per label are meant
        model.fit(train, train_labels)
    predicted = model.predict(test)
    binary = len(np.unique(test_labels)) == 2
    positive = int(test_labels.max())  # of two labels, the one that sorts last
    return {
        "accuracy": float((predicted == test_labels).mean()),
        "f1": float(f1_score(test_labels, predicted, average="macro")),
        "f1_weighted": float(f1_score(test_labels, predicted, average="weighted")),
        # mteb scores the predicted labels, not their probabilities
        "ap": float(average_precision_score(test_labels == positive, predicted)) if binary else None,
        "stopped": bool(np.max(model.n_iter_) >= settings.max_iter),
    }


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
    unlabelled: int
    """Texts with the label -1, which are left out."""


def clustering(
    encoder: Encoder,
    texts: Sequence[str],
    labels: Sequence[Label],
    *,
    settings: ClusteringSettings | None = None,
    role: Role = "model",
) -> ClusteringReport:
    """Cluster the vectors of texts and compare with their labels.

    Rosenberg and Hirschberg, "V-Measure: A conditional entropy-based external cluster evaluation measure", 2007.

    Raises:
        InputError: texts and labels of different lengths, a missing label, fewer than two labels or too few drawn.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("clustering")
    settings = settings or ClusteringSettings()
    checked = checked_labels(labels, count=len(texts))
    # in a table the number is text
    kept = [row for row, label in enumerate(checked) if label not in (-1, "-1")]
    codes = {label: code for code, label in enumerate(dict.fromkeys(checked[row] for row in kept))}
    if len(codes) < 2:
        raise InputError(f"labels: only {brief(list(codes))}, expected at least two different ones")
    if settings.sample < len(codes):
        raise UsageError(f"sample is {settings.sample}, expected at least one text for each of {len(codes)} labels")
    coded = np.asarray([codes[checked[row]] for row in kept], np.int64)
    values = _v_measures(
        embed(encoder, [texts[row] for row in kept], role=role, task="clustering"), coded, len(codes), settings
    )
    return ClusteringReport(
        float(np.mean(values)), float(np.std(values)), tuple(values), len(codes), len(kept), len(texts) - len(kept)
    )


def _v_measures(vectors: np.ndarray, labels: np.ndarray, clusters: int, settings: ClusteringSettings) -> list[float]:
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    model = MiniBatchKMeans(clusters, batch_size=settings.batch_size, n_init=1, random_state=settings.seed)
    # one generator for all experiments: each draws another sample
    generator = random.Random(settings.seed)
    values = []
    for _ in range(settings.experiments):
        rows = generator.choices(range(len(labels)), k=settings.sample)
        values.append(float(v_measure_score(labels[rows], model.fit_predict(vectors[rows]))))
    return values
