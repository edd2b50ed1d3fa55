"""Which BM25 and which fusion rank best, and do they on data that chose nothing? On what the defaults rest.

    python benchmarks/hybrid_settings.py --data demo [--data FOLDER ...] [--model all-MiniLM-L6-v2] [--passages N]

`demo` is the docstring corpus of `embed-plus demo`; a FOLDER holds `corpus.jsonl` (_id, title, text), `queries.jsonl`
and `qrels/test.tsv`. `--passages` takes all judged passages and a seeded sample of the others. Each set is indexed with
words and handed to `qdrant_tools.search.tune_words`: nDCG@10 of the vectors alone, of the words alone, of every hybrid
search, and the gain of choosing, out of fold, with its 95 % interval. `elsewhere` is what the choice of one set is
worth on the others, against what there is today. Exact search; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from qdrant_tools import Bm25, CollectionManager, CollectionSettings, connect
from qdrant_tools.records import Encoder, HeldOut, Passage
from qdrant_tools.search import average_length
from qdrant_tools.search.word_tuning import WordTuning, tune_words


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


def ndcg_of(report: WordTuning, setting: str) -> float:
    """What a combination has on a set, by its name."""
    return next(trial.ndcg for trial in report.trials if trial.setting == setting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--passages", type=int)
    arguments = parser.parse_args()
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
