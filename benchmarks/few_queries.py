"""Few judged queries: what does a proof make of them that holds some out, and one by cross-fitting?

    python benchmarks/few_queries.py --data demo FOLDER ... [--queries 20,45,75,150] [--draws 10] [--work FOLDER]
    python benchmarks/few_queries.py --data demo FOLDER ... --whole [--queries 75]

A FOLDER is in BEIR's layout, see `judged_vectors.py`. For each draw a part of the judged queries, a third but at most
400, measures the truth, and so many of the others are drawn. No fit is told what answers one of those that it is
measured by. From the same draw come two adapters:

- `held out`: a fifth of the queries is held out and decides, the adapter is fitted on the others;
- `cross-fitted`: every query decides, ranked by one of 5 adapters that did not see it; what serves is fitted on all.

`kept` is the share of draws in which the proof lets the adapter serve (its interval lies above 0, of 20 queries or
more), `truth` what the adapter gains in nDCG@10 on the queries that measure it, and `estimate` the gain that the proof
saw. `harmful` is the share of all draws in which an adapter is kept that loses there, and `surely` that of those whose
loss is significant; `refused`, of the adapters that gain at least 0.01 there, the share that is not kept.

With `--whole` there is one fit: the gain of all judged queries, or of at most so many, by cross-fitting. `power` is how
often a proof sees it that has fewer: from the gains of these queries so many are drawn, with replacement; a fifth of
them decides, or all. This holds the map as it is, which of fewer queries would be a weaker one.

Exact search; seeded. What is in the folder `--work` is not made again: vectors, and draws that are done. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from judged_vectors import JudgedVectors, Numbers, read_vectors

from llama_index_embed_plus.training.adapter.folds import fold_queries
from llama_index_embed_plus.training.proof.proof import ProofSettings
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.metrics import paired_interval

FOLDS, SHARE, MOST_OF_TRUTH = 5, 0.2, 400
LEAST = ProofSettings().min_queries
WORTH = 0.01
SIZES, POWER_DRAWS = (20, 45, 75, 150, 300), 500


def interval(gains: Numbers, resamples: int = 10_000) -> dict[str, float]:
    after = {str(row): float(gain) for row, gain in enumerate(gains)}
    found = paired_interval(dict.fromkeys(after, 0.0), after, resamples=resamples)
    return {"gain": found.difference, "low": found.low, "high": found.high}


def is_clear(gains: Numbers) -> bool:
    """Whether an interval may lie above 0; of most draws that have no gain it is known without one."""
    return len(gains) >= LEAST and bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)))


def proved(gains: Numbers, resamples: int = 10_000) -> dict[str, Any]:
    found = interval(gains, resamples)
    return {**found, "queries": len(gains), "kept": len(gains) >= LEAST and found["low"] > 0}


def cross_fitted(bench: JudgedVectors, rows: Sequence[int], truth: Sequence[int], seed: int) -> Numbers:
    """What each query gains by a map that did not see it."""
    settings, gains = AdapterSettings(seed=seed), np.zeros(len(bench.queries))
    for fold in fold_queries(bench.answers, np.array(rows), folds=FOLDS, seed=seed):
        left_out = fold.tolist()
        rest = [row for row in rows if row not in set(left_out)]
        gains[left_out] = bench.gains(bench.fit(rest, [*left_out, *truth], settings).matrix, left_out)
    return gains[list(rows)]


def drawn(bench: JudgedVectors, queries: int, seed: int) -> dict[str, Any]:
    """One draw: what both proofs say, and what is true of both adapters."""
    order = np.random.default_rng(seed).permutation(len(bench.queries)).tolist()
    parted = min(MOST_OF_TRUTH, len(order) // 3)
    truth, rows = order[:parted], sorted(order[parted : parted + queries])
    settings = AdapterSettings(seed=seed)
    # a fold of so many is what is held out
    held_out = fold_queries(bench.answers, np.array(rows), folds=round(1 / SHARE), seed=seed)[0].tolist()
    rest = [row for row in rows if row not in set(held_out)]
    tried, served = (
        bench.fit(rest, [*held_out, *truth], settings),
        bench.fit(rows, truth, settings),
    )
    return {
        "held out": {
            **proved(bench.gains(tried.matrix, held_out)),
            "truth": interval(bench.gains(tried.matrix, truth)),
        },
        "cross-fitted": {
            **proved(cross_fitted(bench, rows, truth, seed)),
            "truth": interval(bench.gains(served.matrix, truth)),
            "chosen": served.chosen.name,
        },
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kept = [row for row in rows if row["kept"]]
    truths = np.array([row["truth"]["gain"] for row in rows])
    helpful = [row for row in rows if row["truth"]["gain"] >= WORTH]
    return {
        "draws": len(rows),
        "kept": len(kept) / len(rows),
        "harmful": sum(row["truth"]["gain"] < 0 for row in kept) / len(rows),
        "surely": sum(row["truth"]["high"] < 0 for row in kept) / len(rows),
        "helpful": len(helpful),
        "refused": sum(not row["kept"] for row in helpful) / max(1, len(helpful)),
        "truth": round(float(truths.mean()), 4),
        "estimate": round(float(np.mean([row["gain"] for row in rows])), 4),
    }


def draws(bench: JudgedVectors, name: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The draws of one data set, those that were made before too."""
    path = None if arguments.work is None else arguments.work / f"{name}-few.jsonl"
    known: dict[tuple[int, int], dict[str, Any]] = {}
    if path is not None and path.exists():
        with path.open() as file:
            known = {(row["n"], row["seed"]): row for row in map(json.loads, file)}
    left = len(bench.queries) - min(MOST_OF_TRUTH, len(bench.queries) // 3)
    for seed in range(arguments.draws):
        for queries in arguments.queries:
            if queries > left:
                continue
            if (queries, seed) not in known:
                known[queries, seed] = {"data": name, "n": queries, "seed": seed, **drawn(bench, queries, seed)}
                if path is not None:
                    with path.open("a") as file:
                        file.write(json.dumps(known[queries, seed]) + "\n")
            yield known[queries, seed]


def whole(bench: JudgedVectors, most: int | None, kept: Path | None) -> dict[str, Any]:
    """What all queries, or so many, gain by cross-fitting; the gain of each is kept in a file."""
    rows = sorted(np.random.default_rng(0).permutation(len(bench.queries))[:most].tolist())
    if kept is not None and kept.exists():
        gains = np.load(kept)
    else:
        gains = cross_fitted(bench, rows, [], 0)
        if kept is not None:
            np.save(kept, gains)
    found = {**proved(gains), "base": float(bench.base[rows].mean()), "passages": len(bench.stored)}
    return {**found, "power": {queries: power(gains, queries) for queries in SIZES}}


def power(gains: Numbers, queries: int) -> dict[str, float]:
    """The share of draws of so many queries in which each kind of proof keeps the map."""
    random, kept = np.random.default_rng(queries), {"held out": 0, "cross-fitted": 0}
    for _ in range(POWER_DRAWS):
        some = random.choice(gains, queries)
        for name, deciding in (("held out", some[: round(SHARE * queries)]), ("cross-fitted", some)):
            kept[name] += is_clear(deciding) and proved(deciding, 1000)["kept"]
    return {name: count / POWER_DRAWS for name, count in kept.items()}


def main() -> None:
    arguments = _arguments()
    found: list[dict[str, Any]] = []
    for data in arguments.data:
        kept = None if arguments.work is None else arguments.work / f"{data.name}.npz"
        bench = read_vectors(data, arguments.model, kept)
        if arguments.whole:
            most = max(arguments.queries or [0]) or None
            gains = None if arguments.work is None else arguments.work / f"{data.name}-{most or 'all'}.npy"
            found.append({"data": data.name, **whole(bench, most, gains)})
            print(found[-1], flush=True)
            continue
        rows = list(draws(bench, data.name, arguments))
        for queries in sorted({row["n"] for row in rows}):
            of = [row for row in rows if row["n"] == queries]
            both = {name: summary([row[name] for row in of]) for name in ("held out", "cross-fitted")}
            found.append({"data": data.name, "queries": queries, **both})
            print(found[-1], file=sys.stderr, flush=True)
    print(json.dumps(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--queries", type=lambda given: [int(n) for n in given.split(",")])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    if not arguments.whole and arguments.queries is None:
        arguments.queries = [20, 45, 75, 150]
    return arguments


if __name__ == "__main__":
    main()
