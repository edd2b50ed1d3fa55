"""Does a query adapter harm where vectors are spread in odd ways?

    python benchmarks/adapter_spectra.py [--dimensions 64,384,1024] [--passages 2000] [--judged 60] [--held-out 200]

Vectors are made. Facts lie around 100 topics, three passages near each fact; a query is near its fact, which all three
passages answer. How the directions differ in size, the spectrum, is

- `flat`: not at all;
- `steep`: the k-th as k to the power of -0.7, as encoders have it;
- `common`: steep, and one direction that all passages and queries share, so that cosines are about 0.8;
- `whitened`: steep, and then whitened in full.

Queries are `near` their facts, with nothing to learn, or `turned` by one rotation too. Adapters are fitted without
labels, on pseudo-queries that are near a passage, and on the judged queries; both with the default settings. Gains are
in nDCG@10 of queries about other facts, by exact search, with the 95 % interval. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np

from llama_index_embed_plus.evaluate.retrieval.comparison import Change, mean_change
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.ranking import judge
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.records import Vectors
from qdrant_tools.validation import unit_rows

SPECTRA = ("flat", "steep", "common", "whitened")
QUERIES = ("near", "turned")
_SAME_FACT = 3


def made(spectrum: str, kind: str, dimension: int, passages: int, queries: int, *, seed: int = 0) -> AdapterData:
    """Stored vectors, as many queries about different facts, and pseudo-queries."""
    random = np.random.default_rng(seed)
    sizes = np.ones(dimension) if spectrum == "flat" else np.arange(1, dimension + 1) ** -0.7

    def drawn(rows: int) -> Any:
        return random.standard_normal((rows, dimension)) * sizes

    facts = drawn(100)[random.integers(100, size=-(-passages // _SAME_FACT))] + drawn(-(-passages // _SAME_FACT))
    stored = np.repeat(facts, _SAME_FACT, axis=0)[:passages] + 0.7 * drawn(passages)
    asked = random.permutation(passages // _SAME_FACT)[:queries]
    near = facts[asked] + drawn(queries)
    of = random.permutation(passages)[: min(400, passages // 3)]
    pseudo = stored[of] + 0.7 * drawn(len(of))
    if kind == "turned":
        # the rotation moves large directions into small ones
        turn, _ = np.linalg.qr(np.eye(dimension) + random.standard_normal((dimension, dimension)) / dimension**0.5)
        near = near @ (turn * np.sign(np.diag(turn)))
    stored, near, pseudo = _spread(spectrum, sizes, stored, near, pseudo)
    answers = tuple(tuple(range(_SAME_FACT * fact, _SAME_FACT * fact + _SAME_FACT)) for fact in asked.tolist())
    return AdapterData(stored, near, answers, np.ones(queries), pseudo=PseudoQueries(pseudo, of))


def _spread(spectrum: str, sizes: Any, *vectors: Any) -> tuple[Vectors, ...]:
    if spectrum == "common":
        vectors = tuple(each + 2 * np.sqrt(2.5 * (sizes**2).sum()) * np.eye(1, len(sizes)) for each in vectors)
    if spectrum == "whitened":
        values, axes = np.linalg.eigh(np.cov(vectors[0], rowvar=False))
        white = (axes / np.sqrt(np.maximum(values, 1e-6 * values.max()))) @ axes.T
        vectors = tuple((each - vectors[0].mean(axis=0)) @ white for each in vectors)
    return tuple(unit_rows(each.astype(np.float32)) for each in vectors)


def gains(data: AdapterData, judged: int, settings: AdapterSettings) -> dict[str, tuple[Change, str]]:
    """Of a fit without labels, and of one on the first `judged` queries: the change of the others, and the choice."""
    held = np.arange(judged, len(data.queries))
    answers = [data.answers[query] for query in held.tolist()]
    free = replace(data, queries=data.queries[:0], answers=(), weights=np.empty(0))
    found = {"label-free": fit_map(free, settings), "judged": fit_map(data, settings, left_out=held)}
    maps = [np.eye(data.stored.shape[1], dtype=np.float32), *(each.matrix for each in found.values())]
    ndcg = judge(data.queries[held], data.stored, answers, maps, (0, 1, 2), hidden=np.empty(0, np.int64)).ndcg
    before, *after = ({str(q): float(value) for q, value in enumerate(each)} for each in ndcg)
    return {
        name: (mean_change("ndcg@10", before, each), fitted.chosen.name)
        for (name, fitted), each in zip(found.items(), after, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=lambda given: [int(n) for n in given.split(",")], default=[64, 384, 1024])
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--judged", type=int, default=60)
    parser.add_argument("--held-out", type=int, default=200)
    arguments = parser.parse_args()
    started, rows = time.process_time(), []
    for dimension in arguments.dimensions:
        for spectrum in SPECTRA:
            for kind in QUERIES:
                queries = arguments.judged + arguments.held_out
                data = made(spectrum, kind, dimension, arguments.passages, queries)
                for name, (change, chosen) in gains(data, arguments.judged, AdapterSettings()).items():
                    print(f"{dimension:>5} {spectrum:<9} {kind:<7} {name:<11} {change}  {chosen}", flush=True)
                    row = {"dimension": dimension, "spectrum": spectrum, "queries": kind, "fit": name, "chosen": chosen}
                    numbers = {"base": change.before, "gain": change.difference, "low": change.low, "high": change.high}
                    rows.append(row | {key: round(value, 4) for key, value in numbers.items()})
    print(json.dumps({**vars(arguments), "rows": rows, "cpu_seconds": round(time.process_time() - started, 1)}))


if __name__ == "__main__":
    main()
