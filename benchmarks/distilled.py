"""Does an adapter learn from the hybrid ranking, without labels: words and vectors teach the vectors alone?

    python benchmarks/distilled.py --data FOLDER [--data demo ...] [--vectors FOLDER] [--out FILE]

`judged_texts.py` says which collections, and which of their queries test; no fit sees these. The teacher is BM25
(its defaults, the mean length measured) and the vectors under the label-free map, fused by DBSF. The student is a
linear map on top of the label-free one: steps down the gradient of the cross-entropy between the teacher's first 20
passages, weighted by the softmax of their fused scores / 0.1, and its own softmax of cosines / 0.05 over up to 2,500
passages. It learns from

- `pseudo`: the pseudo-queries of the label-free map;
- `asked`: the queries that do not test, as a log without clicks holds them.

Columns: nDCG@10 of the base, gains over it of the label-free map and of the teacher, then per kind of queries and
number of steps the gain over the label-free map; 95 % intervals. Exact search; the last line is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from judged_texts import Judged, change, figures, parser, read
from threadpoolctl import threadpool_limits

from llama_index_embed_plus.training.adapter.arrays import Rows
from llama_index_embed_plus.training.adapter.ranking import DEPTH, nearest
from llama_index_embed_plus.training.adapter.unlabelled import by_pseudo_queries, fill, whitening
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.metrics import ndcg
from qdrant_tools.records import Vectors
from qdrant_tools.search.bm25 import Bm25, average_length
from qdrant_tools.search.fusion import Fusion
from qdrant_tools.search.word_tuning import Ranking, WordCounts, fused
from qdrant_tools.validation import unit_rows

STEPS = (1, 2, 4, 8, 16, 32)
TAUGHT, SOFTNESS, RANKED = 20, 0.1, 100
FUSION = Fusion(method="dbsf")


@dataclass(frozen=True, eq=False)
class Taught:
    """Mapped queries, and per query the teacher's first passages, as rows, with their shares."""

    queries: Vectors
    rows: Rows
    shares: Vectors


def rankings(queries: Vectors, stored: Vectors) -> Iterator[Ranking]:
    rows = nearest(queries, stored, RANKED)
    for query, found in zip(queries, rows, strict=True):
        yield found, (stored[found] @ query).astype(np.float64)


def taught(queries: Vectors, teacher: Sequence[Ranking]) -> Taught:
    rows = np.stack([found[:TAUGHT] for found, _ in teacher])
    scores = np.stack([values[:TAUGHT] for _, values in teacher]) / SOFTNESS
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return Taught(queries, rows, shares.astype(np.float32))


def distil(lesson: Taught, stored: Vectors, settings: AdapterSettings) -> Iterator[tuple[int, Vectors]]:
    """W after each of `STEPS`, of the map x -> unit(x + x W)."""
    near = nearest(lesson.queries, stored, 5)
    first = np.unique(lesson.rows[:, :3])
    parts = [first, lesson.rows.T.ravel(), near.T.ravel()]
    candidates = fill(parts, len(stored), most=settings.negatives, seed=settings.seed)
    place = np.full(len(stored), -1)
    place[candidates] = np.arange(len(candidates))
    columns = place[lesson.rows]
    shares = np.where(columns < 0, 0, lesson.shares)
    shares /= shares.sum(axis=1, keepdims=True)
    columns, row = np.where(columns < 0, 0, columns), np.arange(len(columns))[:, None]
    chosen, weight = stored[candidates], np.zeros((stored.shape[1],) * 2, np.float32)
    for step in range(1, max(STEPS) + 1):
        mapped = lesson.queries + lesson.queries @ weight
        length = np.linalg.norm(mapped, axis=1, keepdims=True)
        unit = mapped / length
        scores = unit @ chosen.T / settings.temperature
        np.exp(scores - scores.max(axis=1, keepdims=True), out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        np.subtract.at(scores, (row, columns), shares)
        direction = scores @ chosen / (settings.temperature * len(mapped))
        direction -= (direction * unit).sum(axis=1, keepdims=True) * unit
        weight -= settings.learning_rate * (lesson.queries.T @ (direction / length))
        if step in STEPS:
            yield step, weight.copy()


def of_rankings(judged: Judged, part: Rows, found: Sequence[Ranking]) -> dict[str, float]:
    """nDCG@10 of whole rankings."""
    qrels = {str(query): {str(row): 1 for row in judged.data.answers[query]} for query in part.tolist()}
    run = {
        str(query): {str(row): -float(rank) for rank, row in enumerate(rows[:DEPTH].tolist())}
        for query, (rows, _) in zip(part.tolist(), found, strict=True)
    }
    return ndcg(qrels, run, k=DEPTH)


def measured(judged: Judged, settings: AdapterSettings) -> dict[str, object]:
    data, texts = judged.data, judged.texts
    assert data.pseudo is not None
    white = whitening(data.stored, strength=settings.whitening, floor=settings.whitening_floor)
    start = by_pseudo_queries(data.stored, data.pseudo, white, settings)
    words = Bm25(average_length=average_length(texts.passages))
    counted = WordCounts(words, texts.passages, [*texts.queries, *(text for _, text in texts.pseudo)])
    vectors = np.asarray(unit_rows(np.concatenate([data.queries, data.pseudo.vectors]) @ start), np.float32)
    by_words = counted.rankings(words.k1, words.b)
    teacher = [fused(one, two, FUSION) for one, two in zip(rankings(vectors, data.stored), by_words, strict=True)]
    count = len(texts.queries)
    values: dict[str, dict[str, float]] = {}
    everything = np.arange(len(vectors))
    for part in judged.parts:
        values.setdefault("base", {}).update(judged.ndcg(np.eye(len(white), dtype=np.float32), part))
        values.setdefault("label-free", {}).update(judged.ndcg(start, part))
        values.setdefault("teacher", {}).update(of_rankings(judged, part, [teacher[query] for query in part]))
    for name, parts in {"pseudo": [np.concatenate(judged.parts)], "asked": judged.parts}.items():
        for part in parts:
            others = everything[count:] if name == "pseudo" else np.setdiff1d(data.everything, part)
            lesson = taught(vectors[others], [teacher[query] for query in others])
            for step, weight in distil(lesson, data.stored, settings):
                of = judged.ndcg(start + start @ weight, part)
                values.setdefault(f"{name} {step}", {}).update(of)
    return summary(values)


def summary(values: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    base, start = values["base"], values["label-free"]
    found: dict[str, object] = {"queries": len(base), "base": round(float(np.mean(list(base.values()))), 4)}
    for name, each in values.items():
        if name != "base":
            found[name] = figures(change(base if name in ("label-free", "teacher") else start, each))
    return found


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--out", type=Path)
    arguments = made.parse_args()
    found: dict[str, object] = {}
    for judged in read(arguments):
        started = time.process_time()
        with threadpool_limits(limits=1, user_api="blas"):
            found[judged.name] = measured(judged, AdapterSettings())
        print(judged.name, json.dumps(found[judged.name]), f"{time.process_time() - started:.0f} s", file=sys.stderr)
        if arguments.out:
            arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
