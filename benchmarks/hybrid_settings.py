"""Which BM25 and which fusion rank best, and do they on data that chose nothing? On what the defaults rest.

    python benchmarks/hybrid_settings.py --data demo [--data FOLDER ...] [--model all-MiniLM-L6-v2] [--passages N]
    python benchmarks/hybrid_settings.py --data demo [--data FOLDER ...] --words
    python benchmarks/hybrid_settings.py --data demo [--data FOLDER ...] [--model all-MiniLM-L6-v2] --fusions

`demo` is the docstring corpus of `embed-plus demo`; a FOLDER holds `corpus.jsonl` (_id, title, text), `queries.jsonl`
and `qrels/test.tsv`. `--passages` takes all judged passages and a seeded sample of the others. Each set is indexed with
words and handed to `qdrant_tools.search.tune_words`: nDCG@10 of the vectors alone, of the words alone, of every hybrid
search, and the gain of choosing, out of fold, with its 95 % interval. `elsewhere` is what the choice of one set is
worth on the others, against what there is today. Exact search; the last line is JSON.

With `--words` no model is opened: nDCG@10 of the words alone, at the mean length of the passages and at the default of
100 words, and what each k1 and b gains over the defaults, with 95 % intervals. Of more than 400 queries 400 are drawn.
With `--fusions` k1 and b are the defaults: nDCG@10 of the vectors, and what each fusion gains over them and over
reciprocal ranks, per set, and as the mean of the sets, whose interval is from queries drawn anew within each set.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from qdrant_tools import Bm25, CollectionManager, CollectionSettings, connect
from qdrant_tools.metrics import mean, ndcg, paired_interval
from qdrant_tools.records import Encoder, HeldOut, Passage, Query
from qdrant_tools.search import Fusion, average_length
from qdrant_tools.search.word_tuning import Ranking, WordCounts, WordTuning, fused, tune_words

K1, B = (0.9, 1.2, 1.6), (0.4, 0.6, 0.75, 0.9)
FUSIONS = {
    "rrf": Fusion(),
    "rrf, words 0.5": Fusion(lexical_weight=0.5),
    "rrf, words 2": Fusion(lexical_weight=2.0),
    "dbsf": Fusion("dbsf"),
}
DRAWS = 2000


def read(data: str, most: int | None) -> tuple[list[Passage], HeldOut]:
    if data == "demo":
        corpus = load_docstrings()
        return list(corpus.passages), HeldOut(corpus.held_out.queries, corpus.held_out.qrels)
    folder = Path(data)
    held_out = read_held_out_files(folder / "queries.jsonl", folder / "qrels" / "test.tsv")
    with (folder / "corpus.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    passages = [Passage(row["_id"], f"{row.get('title') or ''} {row['text']}".strip()) for row in rows]
    passages = [passage for passage in passages if passage.text]
    if most is not None and most < len(passages):
        judged = held_out.relevant
        others = [passage for passage in passages if passage.id not in judged]
        random.Random(0).shuffle(others)
        kept = [passage for passage in passages if passage.id in judged]
        passages = kept + others[: max(0, most - len(kept))]
    return passages, held_out


def tuned(encoder: Encoder, passages: list[Passage], held_out: HeldOut) -> WordTuning:
    words = Bm25(average_length=average_length(passage.text for passage in passages))
    with closing(connect(":memory:")) as client:
        docs = CollectionManager(client).ensure("docs", encoder, settings=CollectionSettings(lexical=words))
        docs.index(passages)
        return tune_words(docs, held_out, encoder)


def words_alone(passages: list[Passage], held_out: HeldOut) -> dict[str, Any]:
    """Every k1 and b at both lengths, against the defaults at the same length."""
    queries = sorted(held_out.answerable, key=lambda query: query.id)
    queries = random.Random(0).sample(queries, min(400, len(queries)))
    texts, ids = [passage.text for passage in passages], [passage.id for passage in passages]
    measured = average_length(texts)
    found: dict[str, Any] = {"passages": len(passages), "queries": len(queries), "average_length": round(measured, 1)}
    for name, length in (("mean length", measured), ("100 words", 100.0)):
        counted = WordCounts(Bm25(average_length=length), texts, [query.text for query in queries])
        values = {(k1, b): _values(counted.rankings(k1, b), ids, queries, held_out) for k1, b in product(K1, B)}
        found[name] = {"default": round(mean(values[1.2, 0.75]), 4)}
        for (k1, b), of_one in values.items():
            gain = paired_interval(values[1.2, 0.75], of_one)
            found[name][f"k1={k1:g} b={b:g}"] = [round(end, 4) for end in (gain.difference, gain.low, gain.high)]
    return found


def _values(
    rankings: Sequence[Ranking], ids: Sequence[str], queries: Sequence[Query], held_out: HeldOut
) -> dict[str, float]:
    run = {
        query.id: {ids[row]: -float(rank) for rank, row in enumerate(rows.tolist())}
        for query, (rows, _) in zip(queries, rankings, strict=True)
    }
    return ndcg({query.id: held_out.qrels[query.id] for query in queries}, run, k=10)


def fusions_alone(encoder: Encoder, passages: list[Passage], held_out: HeldOut) -> dict[str, list[float]]:
    """nDCG@10 of every query by the vectors, by the words, and by each fusion."""
    queries = sorted(held_out.answerable, key=lambda query: query.id)
    texts, ids = [passage.text for passage in passages], [passage.id for passage in passages]
    asked = [query.text for query in queries]
    words = WordCounts(Bm25(average_length=average_length(texts)), texts, asked).rankings(Bm25.k1, Bm25.b)
    scores = encoder.encode_queries(asked) @ encoder.encode_passages(texts).T
    dense = []
    for row in scores.astype(np.float64):
        best = np.argsort(-row, kind="stable")[: Fusion.depth]
        dense.append((best, row[best]))
    both = list(zip(dense, words, strict=True))
    rankings = {"vectors": dense, "words": words} | {
        name: [fused(one, two, fusion) for one, two in both] for name, fusion in FUSIONS.items()
    }
    return {name: list(_values(each, ids, queries, held_out).values()) for name, each in rankings.items()}


def gains(found: dict[str, dict[str, list[float]]], name: str, over: str) -> dict[str, Any]:
    """What `name` gains over another ranking, on each set and in the mean of the sets, with 95 % intervals."""
    differences = {data: np.array(values[name]) - np.array(values[over]) for data, values in found.items()}
    random, rows, drawn = np.random.default_rng(0), {}, []
    for data, each in differences.items():
        means = each[random.integers(0, len(each), (DRAWS, len(each)))].mean(axis=1)
        drawn.append(means)
        rows[data] = [round(float(value), 4) for value in (each.mean(), *np.percentile(means, [2.5, 97.5]))]
    mean = np.mean([each.mean() for each in differences.values()])
    ends = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return rows | {"mean of the sets": [round(float(value), 4) for value in (mean, *ends)]}


def tell_fusions(found: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    told: dict[str, Any] = {
        data: {name: round(float(np.mean(each)), 4) for name, each in values.items()} for data, values in found.items()
    }
    for over in ("vectors", "rrf"):
        told[f"over {over}"] = {name: gains(found, name, over) for name in FUSIONS if name != over}
    return told


def ndcg_of(report: WordTuning, setting: str) -> float:
    """What a combination has on a set, by its name."""
    return next(trial.ndcg for trial in report.trials if trial.setting == setting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--passages", type=int)
    parser.add_argument("--fusions", action="store_true", help="the fusions alone, at the default k1 and b")
    parser.add_argument("--words", action="store_true", help="the words alone, without a model")
    arguments = parser.parse_args()
    if arguments.words:
        alone = {}
        for data in arguments.data:
            alone[Path(data).name] = words_alone(*read(data, arguments.passages))
            print(Path(data).name, alone[Path(data).name], flush=True)
        print(json.dumps(alone))
        return
    encoder = open_encoder(arguments.model)
    encoder.quiet = True
    if arguments.fusions:
        each = {Path(data).name: fusions_alone(encoder, *read(data, arguments.passages)) for data in arguments.data}
        print(json.dumps(tell_fusions(each)))
        return
    reports: dict[str, WordTuning] = {}
    for data in arguments.data:
        name = Path(data).name
        reports[name] = tuned(encoder, *read(data, arguments.passages))
        report = reports[name]
        print(
            name, report.passages, report.queries, f"dense {report.dense:.4f} words {report.words:.4f}", report.reason
        )
        for trial in report.trials:
            print(f"  {trial.setting:<60} {trial.ndcg:.4f}", flush=True)
    elsewhere: dict[str, dict[str, Any]] = {}
    for name, report in reports.items():
        others = {other: each for other, each in reports.items() if other != name}
        elsewhere[name] = {
            other: round(ndcg_of(each, report.chosen.setting) - each.now.ndcg, 4) for other, each in others.items()
        }
    summary = {name: {**report.as_row(), "trials": len(report.trials)} for name, report in reports.items()}
    print(json.dumps({"sets": summary, "elsewhere": elsewhere}))


if __name__ == "__main__":
    main()
