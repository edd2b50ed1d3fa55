"""Late chunking against plain cutting: the same passages, embedded with the document around them or alone.

    python benchmarks/late_chunking.py --medquad FOLDER --scifact FOLDER [--model MODEL] [--limit 250]

FOLDER holds a set in BEIR layout: `corpus.jsonl` (_id, title, text), `queries.jsonl` (_id, text) and `qrels/test.tsv`
(query-id, corpus-id, score).

- medquad: a document is all answers about one topic, one after the other (the topic's name is the title, which is not
  embedded). A question asks for one of the answers. `answer` ranks answers, by their best passage; `document` ranks
  topics.
- scifact: a document is an abstract; a claim asks for it (`document`).

Passages end where `Cutter` cuts them, and never go across two answers; the same ones are embedded in both ways. The
documents that are asked for, and as many others, are drawn by a seed. nDCG@10 by exact search; `change` is the mean
over questions with a 95 % interval: a bootstrap over documents, as questions about one document are not independent.
all-MiniLM-L6-v2 reads 256 tokens as its authors set it; with 512 it reads positions that it has and was not tuned on.
A checkpoint with a long context is not on this project's machines, so what late chunking gives with windows of 8,192
tokens is not measured here. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.documents.blocks import text_blocks
from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.tokens import token_counter
from llama_index_embed_plus.documents.records import CutSettings
from llama_index_embed_plus.encoders.late import with_late_chunking
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.models.spec import Overrides
from qdrant_tools.files.rows import read_rows
from qdrant_tools.records import Vectors

RESAMPLES = 10_000
DEPTH = 10
LINE = (
    "| {data} | {passage} | {window} | {level} | {plain:.4f} | {late:.4f} | {change:+.4f} ({low:+.4f} to {high:+.4f}) |"
)


@dataclass(frozen=True)
class Data:
    """Documents, each a list of named texts, and questions with the names of the texts that answer them."""

    name: str
    documents: Mapping[str, Sequence[tuple[str, str]]]
    questions: Mapping[str, str]
    answers: Mapping[str, Mapping[str, int]]

    def document_of(self) -> dict[str, str]:
        return {name: document for document, texts in self.documents.items() for name, _ in texts}


def read(folder: Path, limit: int, *, by_title: bool) -> Data:
    """The questions of the test split about `limit` documents, their documents, and as many others."""
    rows = [row.values for row in read_rows(folder / "corpus.jsonl")]
    texts = {str(row["_id"]): str(row["text"]) for row in rows if str(row["text"]).strip()}
    group = {str(row["_id"]): str(row["title"] if by_title else row["_id"]) for row in rows}
    asking = (row.values for row in read_rows(folder / "queries.jsonl"))
    questions = {str(row["_id"]): str(row["text"]) for row in asking}
    answers: dict[str, dict[str, int]] = defaultdict(dict)
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0 and row["corpus-id"] in texts:
                answers[row["query-id"]][row["corpus-id"]] = int(row["score"])
    members: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, text in texts.items():
        members[group[name]].append((name, text))
    order = np.random.default_rng(0)
    # of topics only those with several answers: a document of one answer is hardly longer than a passage
    long = {document for document, texts_of in members.items() if not by_title or len(texts_of) > 2}
    asked = sorted({group[name] for found in answers.values() for name in found} & long)
    asked = [asked[place] for place in order.permutation(len(asked))[:limit]]
    rest = sorted(long - set(asked))
    others = [rest[place] for place in order.permutation(len(rest))[:limit]]
    kept = {query: found for query, found in answers.items() if {group[name] for name in found} <= set(asked)}
    return Data(folder.name, {name: members[name] for name in (*asked, *others)}, {q: questions[q] for q in kept}, kept)


def cut(data: Data, encoder: TextEncoder, tokens: int) -> dict[str, list[tuple[str, str]]]:
    """Document -> its passages, each with the name of the text it is from."""
    cutter = Cutter(token_counter(encoder), CutSettings(max_tokens=tokens))
    return {
        document: [(name, piece.text) for name, text in texts for piece in cutter.cut(text_blocks(text.splitlines()))]
        for document, texts in data.documents.items()
    }


def ndcg(ranked: Sequence[str], wanted: Mapping[str, int]) -> float:
    gains = [wanted.get(name, 0) / np.log2(place + 2) for place, name in enumerate(ranked[:DEPTH])]
    ideal = [gain / np.log2(place + 2) for place, gain in enumerate(sorted(wanted.values(), reverse=True)[:DEPTH])]
    return float(sum(gains) / sum(ideal))


def scores_of(data: Data, queries: Vectors, passages: Vectors, owners: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """nDCG@10 of every question, by answers and by documents: the best passage speaks for them."""
    document_of = data.document_of()
    found: dict[str, list[float]] = {"answer": [], "document": []}
    for question, row in zip(data.questions, queries @ passages.T, strict=True):
        order = [owners[place] for place in np.argsort(-row, kind="stable")[:2000]]
        ranked = list(dict.fromkeys(order))
        wanted = data.answers[question]
        found["answer"].append(ndcg(ranked, wanted))
        documents = list(dict.fromkeys(document_of[name] for name in order))
        found["document"].append(ndcg(documents, {document_of[name]: 1 for name in wanted}))
    return {level: np.array(values) for level, values in found.items()}


def interval(change: NDArray[np.float64], groups: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of the mean change: documents are drawn, with all their questions."""
    names, index = np.unique(np.array(groups), return_inverse=True)
    sums, counts = np.bincount(index, change), np.bincount(index)
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def measure(data: Data, model: str, tokens: int, windows: Sequence[int]) -> list[dict[str, object]]:
    """Plain cutting once, and late chunking with windows of each size."""
    plain = open_encoder(model)
    cutting = cut(data, plain, tokens)
    owners = [name for passages in cutting.values() for name, _ in passages]
    texts = [text for passages in cutting.values() for _, text in passages]
    queries = plain.encode_queries(list(data.questions.values()))
    start = time.perf_counter()
    before = scores_of(data, queries, plain.encode_passages(texts), owners)
    seconds = {"plain": time.perf_counter() - start}
    document_of = data.document_of()
    groups = [document_of[next(iter(data.answers[question]))] for question in data.questions]
    rows: list[dict[str, object]] = []
    for size in windows:
        late = with_late_chunking(open_encoder(model, overrides=Overrides(max_tokens=size)))
        start = time.perf_counter()
        read_together = [w for passages in cutting.values() for w in late.windows([text for _, text in passages])]
        after = scores_of(data, queries, late.encode_windows(read_together), owners)
        seconds["late"] = time.perf_counter() - start
        for level in ("answer", "document") if data.name != "scifact" else ("document",):
            change = after[level] - before[level]
            low, high = interval(change, groups)
            row: dict[str, object] = {
                "data": data.name,
                "documents": len(data.documents),
                "passages": len(texts),
                "questions": len(queries),
                "passage": tokens,
                "window": size,
                "per_window": round(len(texts) / len(read_together), 2),
                "level": level,
                "plain": float(before[level].mean()),
                "late": float(after[level].mean()),
                "change": float(change.mean()),
                "low": low,
                "high": high,
                "seconds": {name: round(value, 1) for name, value in seconds.items()},
            }
            print(LINE.format(**row), flush=True)
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medquad", type=Path)
    parser.add_argument("--scifact", type=Path)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--limit", type=int, default=250, help="documents that are asked for; as many are added")
    parser.add_argument("--passages", type=int, nargs="+", default=[64, 128], help="tokens of a passage at most")
    parser.add_argument("--windows", type=int, nargs="+", default=[256, 512])
    options = parser.parse_args()
    print("| data | passage | window | level | plain | late | change |")
    print("|---|---|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for folder, by_title in ((options.medquad, True), (options.scifact, False)):
        if folder is not None:
            data = read(folder, options.limit, by_title=by_title)
            for tokens in options.passages:
                rows += measure(data, options.model, tokens, options.windows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
