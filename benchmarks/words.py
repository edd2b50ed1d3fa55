"""Do the words of this version find as much as those of the earlier one, and at what speed are they found?

    python benchmarks/words.py --data FOLDER/scifact [--repeats 5] [--stemming english] [--stop-words english]

FOLDER/scifact is in BEIR's layout: nDCG@10 of BM25 on its test queries, in the embedded engine, with the average length
measured. The speed is that of words per megabyte (UTF-8) of the same passages, old and new in turn, the fastest of
`repeats`: as they come, and with every letter in Cyrillic, where nothing is ASCII. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_embed_plus.documents import read_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
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


def quality(data: Path, passages: Sequence[Passage], bm25: Bm25) -> float:
    """nDCG@10 on the test queries."""
    encoder = NoModel()
    with tempfile.TemporaryDirectory() as folder, closing(connect(folder)) as client:
        settings = CollectionSettings(lexical=bm25, m=0)
        collection = CollectionManager(client).ensure("corpus", encoder, settings=settings)
        collection.index(passages)
        qrels = read_qrels(data / "qrels" / "test.tsv")
        queries = [query for query in read_queries(data / "queries.jsonl") if query.id in qrels]
        return evaluate_retrieval(collection, queries, qrels, k=10, mode="lexical").means()["ndcg@10"]


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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stemming", default=None)
    parser.add_argument("--stop-words", default=None)
    given = parser.parse_args()
    passages = list(read_passages(given.data / "corpus.jsonl"))
    texts = [passage.text for passage in passages]
    lengths = {
        "old": np.mean([len(letters(text)) for text in texts]),
        "new": np.mean([split(text).length for text in texts]),
    }
    figures: dict[str, Any] = {
        "old": quality(given.data, passages, Bm25(average_length=float(lengths["old"]), tokenizer=EARLIER)),
        "new": quality(given.data, passages, Bm25(average_length=float(lengths["new"]))),
    }
    figures["within"] = abs(figures["new"] - figures["old"]) <= WITHIN
    if given.stemming or given.stop_words:
        bm25 = Bm25(average_length=float(lengths["new"]), stemming=given.stemming, stop_words=given.stop_words)
        figures["language"] = quality(given.data, passages, bm25)
    ways = {"old": letters, "new": split}
    cyrillic = [text.casefold().translate(CYRILLIC) for text in texts]
    for name, sample in (("as they come", texts), ("in Cyrillic", cyrillic)):
        rates = speed(sample, ways, given.repeats)
        print(f"{name}: old {rates['old']:.1f} MB/s, new {rates['new']:.1f} MB/s")
        figures[f"MB/s {name}"] = {way: round(rate, 1) for way, rate in rates.items()}
    print(f"nDCG@10: old {figures['old']:.4f}, new {figures['new']:.4f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
