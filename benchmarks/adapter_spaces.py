"""Does a query adapter help, or harm, in the vector spaces of other encoders?

    python benchmarks/adapter_spaces.py FILE [--change constant|whitened|cut] [--folds 3]

FILE holds vectors of any encoder as `adapter_folds.py --vectors` keeps them: `stored`, `queries`, `answers` (a JSON
list of stored rows for each query), `pseudo0`, `pseudo0_rows`. What `--change` makes of them are spaces of other kinds:

- `constant`: one vector of length 1.5 is added to all, so that cosines are about 0.8, as those of E5 are;
- `whitened`: in full, by the stored vectors;
- `cut`: the first 128 dimensions.

Measured are the default settings by nDCG@10, exact search over everything, with the paired 95 % interval: of the
passages alone, and of judged queries, each measured by a fit on the other folds from which its answers were hidden. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_embed_plus.evaluate.retrieval.comparison import Change, mean_change
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.folds import fold_queries
from llama_index_embed_plus.training.adapter.ranking import judge
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.validation import unit_rows

NOTHING = np.empty(0, np.int64)


def read(path: Path, change: str) -> AdapterData:
    found = np.load(path)
    stored, *others = _changed(change, found["stored"], found["queries"], found["pseudo0"])
    answers = tuple(tuple(dict.fromkeys(json.loads(str(row)))) for row in found["answers"])
    pseudo = PseudoQueries(others[1], found["pseudo0_rows"].astype(np.int64))
    return AdapterData(stored, others[0], answers, np.ones(len(answers)), pseudo=pseudo)


def _changed(change: str, *vectors: Any) -> list[Any]:
    if change == "constant":
        added = unit_rows(np.random.default_rng(0).standard_normal((1, vectors[0].shape[1])).astype(np.float32))
        return [unit_rows(each + 1.5 * added) for each in vectors]
    if change == "whitened":
        values, axes = np.linalg.eigh(np.cov(vectors[0], rowvar=False))
        white = ((axes / np.sqrt(values + 1e-3 * values.mean())) @ axes.T).astype(np.float32)
        return [unit_rows((each - vectors[0].mean(axis=0)) @ white) for each in vectors]
    if change == "cut":
        return [unit_rows(np.ascontiguousarray(each[:, :128])) for each in vectors]
    return list(vectors)


def ndcg(data: AdapterData, matrix: Any) -> Any:
    return judge(data.queries, data.stored, data.answers, [matrix], (0,), hidden=NOTHING).ndcg[0]


def gains(data: AdapterData, folds: int) -> tuple[dict[str, Change], list[str]]:
    before = ndcg(data, np.eye(data.stored.shape[1], dtype=np.float32))
    alone = fit_map(replace(data, queries=data.queries[:0], answers=(), weights=np.empty(0)), AdapterSettings())
    after, chosen = before.copy(), []
    for fold in fold_queries(data.answers, data.everything, folds=folds, seed=0):
        fitted = fit_map(data, AdapterSettings(), left_out=fold)
        after[fold] = ndcg(data, fitted.matrix)[fold]
        chosen.append(fitted.chosen.name)
    values = {"passages alone": ndcg(data, alone.matrix), "judged queries": after}
    return {name: _change(before, each) for name, each in values.items()}, chosen


def _change(before: Any, after: Any) -> Change:
    return mean_change("ndcg@10", *({str(q): float(v) for q, v in enumerate(each)} for each in (before, after)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--change", choices=["none", "constant", "whitened", "cut"], default="none")
    parser.add_argument("--folds", type=int, default=3)
    arguments = parser.parse_args()
    started = time.process_time()
    data = read(arguments.file, arguments.change)
    changes, chosen = gains(data, arguments.folds)
    rows = {}
    for name, change in changes.items():
        print(f"{name:<15} {change.figures}")
        numbers = {"gain": change.difference, "low": change.low, "high": change.high}
        rows[name] = {key: round(value, 4) for key, value in numbers.items()}
    mean = data.stored.mean(axis=0, dtype=np.float64)
    found = {
        "file": arguments.file.name,
        "change": arguments.change,
        "passages": len(data.stored),
        "dimension": data.stored.shape[1],
        "queries": len(data.queries),
        "mean_cosine": round(float(mean @ mean), 3),
        "base": round(changes["passages alone"].before, 4),
        "chosen": chosen,
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    print(json.dumps(found | {"rows": rows}))


if __name__ == "__main__":
    main()
