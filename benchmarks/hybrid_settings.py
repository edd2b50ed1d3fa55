"""Which BM25 and which fusion rank best, and do they on data that chose nothing? On what the defaults rest.

    python benchmarks/hybrid_settings.py --data demo [--data FOLDER ...] [--model all-MiniLM-L6-v2] [--passages N]
    python benchmarks/hybrid_settings.py --data demo [--data FOLDER ...] --words

`demo` is the docstring corpus of `embed-plus demo`; a FOLDER holds `corpus.jsonl` (_id, title, text), `queries.jsonl`
and `qrels/test.tsv`. `--passages` takes all judged passages and a seeded sample of the others. Each set is indexed with
words and handed to `qdrant_tools.search.tune_words`: nDCG@10 of the vectors alone, of the words alone, of every hybrid
search, and the gain of choosing, out of fold, with its 95 % interval. `elsewhere` is what the choice of one set is
worth on the others, against what there is today. Exact search; the last line is JSON.

With `--words` no model is opened: nDCG@10 of the words alone, at the mean length of the passages and at the default of
100 words, and what each k1 and b gains over the defaults, with 95 % intervals. Of more than 400 queries 400 are drawn.
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

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from qdrant_tools import Bm25, CollectionManager, CollectionSettings, connect
from qdrant_tools.metrics import mean, ndcg, paired_interval
from qdrant_tools.records import Encoder, HeldOut, Passage, Query
from qdrant_tools.search import average_length
from qdrant_tools.search.word_tuning import Ranking, WordCounts, WordTuning, tune_words

K1, B = (0.9, 1.2, 1.6), (0.4, 0.6, 0.75, 0.9)


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


def ndcg_of(report: WordTuning, setting: str) -> float:
    """What a combination has on a set, by its name."""
    return next(trial.ndcg for trial in report.trials if trial.setting == setting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--passages", type=int)
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
