"""Data sets with judged queries -> their vectors and answers as arrays, embedded once.

A data set is `demo`, the docstrings of `embed-plus demo`, or a folder in BEIR's layout: `corpus.jsonl`,
`queries.jsonl`, `qrels/*.tsv`. Cranfield, CISI, CACM, NPL, SciFact and others can be had so. All judged queries are
taken, those of the train part and those of the test part. Encoder: the int8 build of `--model`.

Guarantees: the same data give the same arrays. Does not know: how queries are parted, what is fitted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from csv import DictReader
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from judged_data import WITHOUT_TITLE, rows_of

from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.fit import FittedMap, fit_map
from llama_index_embed_plus.training.adapter.pseudo import text_of
from llama_index_embed_plus.training.adapter.ranking import judge
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.collections.points import draw_rank
from qdrant_tools.records import Passage

Numbers = np.ndarray
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class JudgedVectors:
    """Stored vectors, queries and their answers, rows of `stored`; pseudo-queries with seed 0."""

    stored: Numbers
    queries: Numbers
    answers: tuple[tuple[int, ...], ...]
    pseudo: PseudoQueries

    @cached_property
    def base(self) -> Numbers:
        """nDCG@10 of every query without a map."""
        matrix = np.eye(self.stored.shape[1], dtype=np.float32)
        return np.asarray(self.ndcg([matrix], range(len(self.queries)))[0])

    def ndcg(self, maps: Sequence[Numbers], rows: Sequence[int]) -> Numbers:
        """nDCG@10, (maps, rows), by exact search."""
        answers = [self.answers[row] for row in rows]
        found = judge(self.queries[list(rows)], self.stored, answers, maps, range(len(maps)), hidden=_NOTHING)
        return np.asarray(found.ndcg)

    def gains(self, matrix: Numbers, rows: Sequence[int]) -> Numbers:
        """What a map adds to nDCG@10 of each of the queries."""
        return np.asarray(self.ndcg([matrix], rows)[0] - self.base[list(rows)])

    def fit(self, rows: Sequence[int], unseen: Sequence[int], settings: AdapterSettings) -> FittedMap:
        """Fit a map on queries; what answers unseen ones too is hidden from it, if the settings keep answers apart."""
        mine = {answer for row in rows for answer in self.answers[row]}
        answers = [self.answers[row] for row in rows]
        # an unseen query gives away only what the fit would be told; its other answers are there as any passage is
        answers += [tuple(each for each in self.answers[row] if each in mine) for row in unseen]
        queries = self.queries[[*rows, *unseen]]
        data = AdapterData(self.stored, queries, tuple(answers), np.ones(len(answers)), pseudo=self.pseudo)
        return fit_map(data, settings, left_out=np.arange(len(rows), len(answers)))


def read_vectors(data: Path, model: str, kept: Path | None) -> JudgedVectors:
    """Read a data set; `kept` is the file that holds its arrays, and is written if it is not there."""
    if kept is not None and kept.exists():
        found = dict(np.load(kept))
    else:
        found = _embedded(*(_demo() if data == Path("demo") else _beir(data)), model)
        if kept is not None:
            np.savez(kept, **found)  # type: ignore[arg-type]
    ends = np.cumsum(found["lengths"]).tolist()
    answers = tuple(
        tuple(found["answers"][start:end].tolist()) for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )
    pseudo = PseudoQueries(found["pseudo"], found["pseudo_rows"])
    return JudgedVectors(found["stored"], found["queries"], answers, pseudo)


Judgements = dict[str, tuple[str, list[str]]]
"""Query id -> (text, ids of its answers)."""


def _demo() -> tuple[list[Passage], Judgements]:
    corpus = load_docstrings()
    splits = (corpus.train, corpus.held_out)
    judged = {query.id: (query.text, list(split.qrels[query.id])) for split in splits for query in split.queries}
    return list(corpus.passages), judged


def _beir(folder: Path) -> tuple[list[Passage], Judgements]:
    texts = {row["_id"]: row["text"] for row in rows_of(folder / "queries.jsonl")}
    passages: dict[str, Passage] = {}
    for row in rows_of(folder / "corpus.jsonl"):
        title = "" if folder.name in WITHOUT_TITLE else row.get("title", "")
        passages[row["_id"]] = Passage(row["_id"], f"{title} {row['text']}".strip(), {"title": title} if title else {})
    judged: Judgements = {}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in DictReader(file, delimiter="\t"):
                query, passage = row["query-id"], row["corpus-id"]
                if int(row["score"]) > 0 and passage in passages and query in texts:
                    answers = judged.setdefault(query, (texts[query], []))[1]
                    answers += [passage] if passage not in answers else []
    return list(passages.values()), judged


def _embedded(passages: list[Passage], judged: Judgements, model: str) -> dict[str, Numbers]:
    place = {passage.id: row for row, passage in enumerate(passages)}
    made = pseudo_queries(passages, 0)
    answers = [[place[name] for name in names] for _, names in judged.values()]
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, Path(folder) / "int8", precision="int8")
        encoder = open_encoder(Path(folder) / "int8")
        encoder.quiet = True
        return {
            "stored": encoder.encode_passages([passage.text for passage in passages]),
            "queries": encoder.encode_queries([text for text, _ in judged.values()]),
            "pseudo": encoder.encode_queries([text for _, text in made]),
            "pseudo_rows": np.array([place[name] for name, _ in made], np.int64),
            "answers": np.array([row for rows in answers for row in rows], np.int64),
            "lengths": np.array([len(rows) for rows in answers], np.int64),
        }


def pseudo_queries(passages: Sequence[Passage], seed: int) -> list[tuple[str, str]]:
    """As `training.adapter.pseudo` makes them from a collection: (passage id, text)."""
    made: list[tuple[str, str]] = []
    for passage in sorted(passages, key=lambda passage: draw_rank(passage.id, seed)):
        text = text_of(passage, span=bool(len(made) % 2), seed=seed)
        if text:
            made.append((passage.id, text))
        if len(made) == AdapterSettings().pseudo_queries:
            break
    return made
