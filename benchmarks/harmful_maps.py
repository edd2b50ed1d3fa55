"""How often does the proof keep a map that harms?

    python benchmarks/harmful_maps.py --data demo FOLDER ... [--draws 500] [--queries 20,30,50,75,150,300]

For each data set (see `judged_vectors.py`) maps of queries are made that nobody fitted, or that were fitted on what is
wrong: `random`, I + s R / |R| with R of random numbers; `damped`, directions of the stored vectors taken away; `wrong`,
fitted on the answers of other queries. Of each the gain in nDCG@10 on all judged queries is taken as the truth. Those
that lose there are drawn as they come, and so are the queries that prove: so many, with replacement, so that the truth
is the mean of what they are drawn from.

`kept` is the share of draws whose interval lies above 0, as proofs use it (`qdrant_tools.metrics.paired_interval`): of
all harmful maps, and of those that lose less than half a point, the hardest to tell. The proof's second question, what
was forgotten, is not asked. `null` is the share where the truth is 0: queries are drawn with probabilities
exp(t * gain), with t so that the mean gain of a map is 0. There a 95 % interval promises 2.5 %.

Seeded; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from judged_vectors import JudgedVectors, Numbers, read_vectors

from llama_index_embed_plus.training.adapter.arrays import AdapterData
from llama_index_embed_plus.training.adapter.descent import Objective, descend
from llama_index_embed_plus.training.adapter.unlabelled import fill
from qdrant_tools.metrics import paired_interval

SMALL = 0.005
STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.4)
DAMPED = (4, 16, 64)
STEPS = (1, 4, 16)
RESAMPLES = 1000


def maps(bench: JudgedVectors, repeats: int) -> Iterator[tuple[str, Numbers]]:
    dimension = bench.stored.shape[1]
    unit = np.eye(dimension, dtype=np.float32)
    _, directions = np.linalg.eigh(np.cov(bench.stored, rowvar=False))
    for count in DAMPED:
        for part in (directions[:, :count], directions[:, -count:]):
            yield "damped", np.asarray(unit - 0.5 * part @ part.T, np.float32)
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        noise = random.normal(size=(dimension, dimension)).astype(np.float32)
        for strength in STRENGTHS:
            yield "random", unit + strength * noise * np.float32(np.sqrt(dimension)) / np.linalg.norm(noise)
        for weight in wrong(bench, random):
            yield "wrong", unit + weight


def wrong(bench: JudgedVectors, random: np.random.Generator) -> list[Numbers]:
    """Fitted on 40 queries with answers of other ones, after each number of steps."""
    rows = random.permutation(len(bench.queries))[:40].tolist()
    answers = [bench.answers[row] for row in [*rows[1:], rows[0]]]
    own = np.array(sorted({answer for each in answers for answer in each}), np.int64)
    candidates = fill([own], len(bench.stored), most=len(own) + 500, seed=int(random.integers(1 << 30)))
    data = AdapterData(bench.stored, bench.queries[rows], tuple(answers), np.ones(len(rows)))
    objective = Objective.of(data.queries, data.stored, answers, data.weights, candidates, same=0.95)
    weights, _ = descend(objective, "list", steps=STEPS, rate=0.3, temperature=0.05)
    return weights


def is_kept(differences: Numbers) -> bool:
    # no interval lies above 0 then, and most draws end here
    if differences.mean() <= differences.std(ddof=1) / np.sqrt(len(differences)):
        return False
    after = {str(row): float(value) for row, value in enumerate(differences)}
    return paired_interval(dict.fromkeys(after, 0.0), after, resamples=RESAMPLES).low > 0


def balance(gains: Numbers) -> Numbers:
    """The probability of each query by which the mean gain is 0."""
    low, high = -1000.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        powers = middle * gains
        chances: Numbers = np.exp(powers - powers.max())
        chances /= chances.sum()
        low, high = (middle, high) if chances @ gains < 0 else (low, middle)
    return chances


def measured(gains: Numbers, queries: int, draws: int) -> dict[str, Any]:
    """gains: (maps, queries) in nDCG@10."""
    random, truth = np.random.default_rng(queries), gains.mean(axis=1)
    harmful = gains[truth < 0]
    moved = gains[(gains.max(axis=1) > 0) & (gains.min(axis=1) < 0)]
    small = harmful[harmful.mean(axis=1) > -SMALL]

    def share(of: Numbers, chances: Numbers) -> float | None:
        if not len(of):
            return None
        kept = 0
        for row in random.integers(len(of), size=draws).tolist():
            kept += is_kept(random.choice(of[row], queries, p=chances[row]))
        return kept / draws

    alike, level = np.full_like(gains, 1 / gains.shape[1]), np.array([balance(each) for each in moved])
    return {
        "queries": queries,
        "harmful": share(harmful, alike),
        "small": share(small, alike),
        "null": share(moved, level),
    }


def main() -> None:
    arguments = _arguments()
    found = []
    for data in arguments.data:
        kept = None if arguments.work is None else arguments.work / f"{data.name}.npz"
        bench = read_vectors(data, arguments.model, kept)
        rows = np.random.default_rng(0).permutation(len(bench.queries))[: arguments.most].tolist()
        made = [(name, bench.gains(matrix, rows)) for name, matrix in maps(bench, arguments.repeats)]
        gains = np.array([gain for _, gain in made])
        truth = gains.mean(axis=1)
        row = {
            "data": data.name,
            "maps": len(made),
            "harmful": int((truth < 0).sum()),
            "small": int(((truth < 0) & (truth > -SMALL)).sum()),
            "worst": round(float(truth.min()), 4),
            "best": round(float(truth.max()), 4),
            "kept": [measured(gains, queries, arguments.draws) for queries in arguments.queries],
        }
        found.append(row)
        print(row, file=sys.stderr, flush=True)
    print(json.dumps(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument(
        "--queries", type=lambda given: [int(n) for n in given.split(",")], default=[20, 30, 50, 75, 150, 300]
    )
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=6, help="how many random maps there are of each kind")
    parser.add_argument("--most", type=int, default=400, help="judged queries that the truth is taken from")
    parser.add_argument("--work", type=Path, help="where vectors are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
