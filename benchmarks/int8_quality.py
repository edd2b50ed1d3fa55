"""What int8 costs in quality: fp32 and int8 of one checkpoint on a retrieval set, a similarity set, or both.

`--data` is a folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv): nDCG@10 and recall@100 by exact
search, with the 95 % interval of the difference over queries. `--sts` is a tab-separated file with the columns
sentence1, sentence2, score: Spearman's correlation. For all-MiniLM-L6-v2, published: SciFact 0.6451, STS-Benchmark
0.8203. The last line is one JSON document.

    python benchmarks/int8_quality.py --data FOLDER --sts FILE [--model all-MiniLM-L6-v2]
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm  # type: ignore[import-untyped]

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.export.export import export_onnx
from qdrant_tools.metrics import mean, ndcg, paired_bootstrap, recall
from qdrant_tools.records import Run, Vectors

Encoders = Mapping[str, TextEncoder]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def retrieval(folder: Path, encoders: Encoders) -> dict[str, Any]:
    """nDCG@10 and recall@100 of each encoder, and whether they differ."""
    qrels: dict[str, dict[str, int]] = {}
    for row in table(folder / "qrels" / "test.tsv"):
        qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    queries = {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl") if row["_id"] in qrels}
    corpus = {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows(folder / "corpus.jsonl")}
    passages = {name: encode(name, encoder, list(corpus.values())) for name, encoder in encoders.items()}
    runs = {
        name: best(list(queries), encoder.encode_queries(list(queries.values())), list(corpus), passages[name])
        for name, encoder in encoders.items()
    }
    gains = {name: ndcg(qrels, run) for name, run in runs.items()}
    interval = paired_bootstrap(gains["fp32"], gains["int8"])
    cosine = (passages["fp32"] * passages["int8"]).sum(axis=1)
    return {
        "ndcg@10": {name: round(mean(values), 4) for name, values in gains.items()},
        "recall@100": {name: round(mean(recall(qrels, run, k=100)), 4) for name, run in runs.items()},
        "difference": round(interval.difference, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "cosine_mean": round(float(cosine.mean()), 5),
        "cosine_min": round(float(cosine.min()), 5),
        "documents": len(corpus),
        "queries": len(queries),
    }


def encode(name: str, encoder: TextEncoder, texts: list[str]) -> Vectors:
    with tqdm(total=len(texts), desc=name, unit="text") as bar:
        return encoder.encode_passages(texts, progress=bar.update)


def best(query_ids: list[str], queries: Vectors, passage_ids: list[str], passages: Vectors, *, k: int = 100) -> Run:
    """The k nearest passages of every query, by exact search."""
    run = {}
    for query, scores in zip(query_ids, queries @ passages.T, strict=True):
        found = np.argpartition(-scores, k)[:k]
        run[query] = {passage_ids[i]: float(scores[i]) for i in found}
    return run


def similarity(path: Path, encoders: Encoders) -> dict[str, float]:
    """Spearman's correlation of cosine and human score."""
    pairs = table(path)
    expected = [float(row["score"]) for row in pairs]
    found = {}
    for name, encoder in encoders.items():
        left, right = (encoder.encode_passages([row[column] for row in pairs]) for column in ("sentence1", "sentence2"))
        cosine = (left.astype(np.float64) * right).sum(axis=1)
        found[name] = round(float(spearmanr(cosine, expected).statistic), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sts", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("llama_index_embed_plus").setLevel(logging.ERROR)  # that long texts are cut is known here
    result: dict[str, Any] = {"model": arguments.model}
    with tempfile.TemporaryDirectory() as scratch:
        artifact = Path(scratch) / "artifact"
        export_onnx(arguments.model, artifact, precision="int8", force=True)
        encoders = {
            "fp32": open_encoder(artifact, backend="onnx-fp32"),
            "int8": open_encoder(artifact, backend="onnx-int8"),
        }
        if arguments.data:
            result["retrieval"] = retrieval(arguments.data, encoders)
        if arguments.sts:
            result["spearman"] = similarity(arguments.sts, encoders)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
