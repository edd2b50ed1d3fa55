"""How often does cross-fitting call a map better where there is nothing to learn?

    python benchmarks/cross_fit_null.py [--draws 300] [--chosen]

Queries, passages and answers are drawn anew in each draw, without anything in common: unit vectors of 24 dimensions, 60
queries, 200 passages, of which 4 at random answer each query. So most answers are shared, all queries hang together,
folds are cut, and no map can be better but by chance. Each query is ranked by one of 5 maps that were fitted without
its fold; these have most of their queries in common, so that their results depend on each other.

`better` and `worse` are the shares of draws in which the interval of the gain in nDCG@10, as proofs use it, lies above
and below 0; 2.5 % each is what a 95 % interval promises. The map is taken as it is fitted, or, with `--chosen`, as the
fit chooses it: then it is the identity wherever a map is not better on queries that it did not see. `gain` is the mean,
and `error` its standard error. Two rules of what is hidden from the fit on the other folds:

- `shared`: the answers of the fold that also answer other queries. This is the rule of `cross_fit`.
- `all`: every answer of the fold.

Seeded; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
from judged_vectors import Numbers

from llama_index_embed_plus.training.adapter.arrays import AdapterData
from llama_index_embed_plus.training.adapter.descent import Objective, descend
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.folds import Answers, fold_queries, seen
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.metrics import paired_interval
from qdrant_tools.validation import unit_rows

DIMENSION, QUERIES, PASSAGES, ANSWERS, FOLDS, STEPS = 24, 60, 200, 4, 5, 8
CHOSEN = AdapterSettings(candidates=("list",), steps=(2, STEPS), folds=3)
DISCOUNT = 1 / np.log2(np.arange(2, 12))
RULES = ("shared", "all")


def ndcg(queries: Numbers, stored: Numbers, answers: Answers) -> Numbers:
    top = np.argsort(-(queries @ stored.T), axis=1)[:, : len(DISCOUNT)]
    found = [float((DISCOUNT * np.isin(row, own)).sum()) for row, own in zip(top, answers)]
    return np.asarray(np.array(found) / DISCOUNT[:ANSWERS].sum())


def fitted(
    stored: Numbers, queries: Numbers, answers: Answers, rest: Numbers, hidden: Numbers, chosen: bool
) -> Numbers:
    """A map that was fitted on some of the queries, without what is hidden."""
    rows, left = seen(answers, rest, hidden)
    data = AdapterData(stored, queries[rows], tuple(map(tuple, left)), np.ones(len(rows)))
    if chosen:
        return fit_map(data, CHOSEN, hidden=hidden).matrix
    candidates = np.setdiff1d(np.arange(len(stored)), hidden)
    objective = Objective.of(data.queries, stored, left, data.weights, candidates, same=0.95)
    (weight,), _ = descend(objective, "list", steps=(STEPS,), rate=0.3, temperature=0.05)
    return np.eye(stored.shape[1], dtype=np.float32) + weight


def gains(seed: int, rule: str, chosen: bool) -> Numbers:
    """What each query of one draw gains by a map that did not see it."""
    random = np.random.default_rng(seed)
    stored = unit_rows(random.normal(size=(PASSAGES, DIMENSION)).astype(np.float32))
    queries = unit_rows(random.normal(size=(QUERIES, DIMENSION)).astype(np.float32))
    answers = [random.choice(PASSAGES, ANSWERS, replace=False).tolist() for _ in range(QUERIES)]
    found, before = np.zeros(QUERIES), ndcg(queries, stored, answers)
    for fold in fold_queries(answers, np.arange(QUERIES), folds=FOLDS, seed=seed):
        rest = np.setdiff1d(np.arange(QUERIES), fold)
        of_fold, of_rest = (np.unique([answers[query] for query in part]) for part in (fold, rest))
        hidden = of_fold if rule == "all" else np.intersect1d(of_fold, of_rest)
        matrix = fitted(stored, queries, answers, rest, hidden, chosen)
        found[fold] = ndcg(unit_rows(queries[fold] @ matrix), stored, [answers[query] for query in fold]) - before[fold]
    return found


def summary(draws: Sequence[Numbers]) -> dict[str, float]:
    found = []
    for each in draws:
        after = {str(row): float(gain) for row, gain in enumerate(each)}
        found.append(paired_interval(dict.fromkeys(after, 0.0), after, resamples=1000))
    means = np.array([interval.difference for interval in found])
    return {
        "draws": len(found),
        "changed": float(np.mean([each.any() for each in draws])),
        "better": float(np.mean([interval.low > 0 for interval in found])),
        "worse": float(np.mean([interval.high < 0 for interval in found])),
        "gain": round(float(means.mean()), 5),
        "error": round(float(means.std(ddof=1) / np.sqrt(len(means))), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--chosen", action="store_true")
    parser.add_argument("--rules", type=lambda given: given.split(","), default=RULES)
    arguments = parser.parse_args()
    found = {}
    for rule in arguments.rules:
        found[rule] = summary([gains(seed, rule, arguments.chosen) for seed in range(arguments.draws)])
        print(rule, found[rule], flush=True)
    print(json.dumps({"chosen": arguments.chosen, **found}))


if __name__ == "__main__":
    main()
