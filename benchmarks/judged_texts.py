"""Collections with judged queries -> their vectors, texts and answers, and the parts of the queries that test.

What the benchmarks of roads beyond the adapter share. A collection is `demo`, the docstrings of `embed-plus demo`, or a
folder in BEIR's layout, whose name it takes. With train queries (`qrels/train.tsv`) the test queries are the one part
that tests, and train queries that share words or answers with them are left out; without any, five parts of the test
queries test in turn, those that share an answer together as far as that goes.

Guarantees: the same queries, passages and pseudo-queries every time. Does not know: what is fitted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from finetune import read_data
from judged_vectors import pseudo_queries

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.comparison import Change, mean_change
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries, Rows
from llama_index_embed_plus.training.adapter.folds import fold_queries
from llama_index_embed_plus.training.adapter.ranking import judge
from qdrant_tools.records import Passage, Vectors

FOLDS = 5
NOTHING: Rows = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Texts:
    """Passages, queries with the rows of their answers, pseudo-queries with the row of the passage they are made of;
    and the numbers of the test queries, if others are there to train on."""

    passages: Sequence[str]
    queries: Sequence[str]
    answers: tuple[tuple[int, ...], ...]
    pseudo: Sequence[tuple[int, str]]
    test: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Judged:
    """A collection, and the parts of its queries that test in turn."""

    name: str
    texts: Texts
    data: AdapterData
    parts: Sequence[Rows]

    def ndcg(self, matrix: Vectors, part: Rows) -> Mapping[str, float]:
        """nDCG@10 of the queries of a part under a map, over the whole collection."""
        answers = [self.data.answers[query] for query in part.tolist()]
        found = judge(self.data.queries[part], self.data.stored, answers, [matrix], (0,), hidden=NOTHING)
        return dict(zip(map(str, part.tolist()), found.ndcg[0].tolist(), strict=True))


def parser(documentation: str | None) -> argparse.ArgumentParser:
    """The options that these benchmarks have."""
    made = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, action="append", required=True)
    made.add_argument("--model", default="all-MiniLM-L6-v2", help="its int8 build is made and used")
    made.add_argument("--vectors", type=Path, help="a folder in which vectors are kept, to go on with")
    made.add_argument("--passages", type=int, default=6000, help="of sets with train queries, beside all answers")
    made.add_argument("--train-limit", type=int, default=1500)
    made.add_argument("--test-limit", type=int, default=400)
    made.set_defaults(keep_leaks=False)
    return made


def read(arguments: argparse.Namespace) -> Iterator[Judged]:
    """Each of the collections that are asked for."""
    for folder in arguments.data:
        if folder == Path("demo") or (folder / "qrels" / "train.tsv").exists():
            texts = _split(argparse.Namespace(**{**vars(arguments), "data": folder}))
        else:
            texts = _folded(folder)
        found = _vectors(arguments, folder.name, texts)
        made = PseudoQueries(found["pseudo"], np.array([row for row, _ in texts.pseudo]))
        data = AdapterData(found["stored"], found["queries"], texts.answers, np.ones(len(texts.queries)), pseudo=made)
        parts = (
            [np.array(texts.test)] if texts.test else fold_queries(texts.answers, data.everything, folds=FOLDS, seed=0)
        )
        yield Judged(folder.name, texts, data, parts)


def change(before: Mapping[str, float], after: Mapping[str, float]) -> Change:
    return mean_change("ndcg@10", before, after)


def figures(changed: Change) -> list[float]:
    """The difference and its interval."""
    return [round(value, 4) for value in (changed.difference, changed.low, changed.high)]


def _split(arguments: argparse.Namespace) -> Texts:
    data = read_data(arguments)
    place = {key: row for row, key in enumerate(data.passages)}
    train = {**data.splits["train"], **data.splits["dev"]}
    queries = [*train.values(), *data.splits["test"].values()]
    return Texts(
        list(data.passages.values()),
        [text for text, _ in queries],
        tuple(tuple(place[key] for key in ids) for _, ids in queries),
        _pseudo([Passage(key, text) for key, text in data.passages.items()]),
        tuple(range(len(train), len(queries))),
    )


def _folded(folder: Path) -> Texts:
    held_out = read_held_out_files(folder / "queries.jsonl", folder / "qrels" / "test.tsv")
    passages = []
    with (folder / "corpus.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            title = row.get("title") or ""
            passages.append(Passage(row["_id"], f"{title} {row['text']}".strip(), {"title": title} if title else {}))
    place = {passage.id: row for row, passage in enumerate(passages)}
    answers = {query.text: [place[key] for key in held_out.qrels[query.id]] for query in held_out.answerable}
    rows = tuple(tuple(sorted(each)) for each in answers.values())
    return Texts([passage.text for passage in passages], list(answers), rows, _pseudo(passages))


def _pseudo(passages: Sequence[Passage]) -> list[tuple[int, str]]:
    place = {passage.id: row for row, passage in enumerate(passages)}
    return [(place[name], text) for name, text in pseudo_queries(passages, 0)]


def _vectors(arguments: argparse.Namespace, name: str, texts: Texts) -> Mapping[str, Vectors]:
    kept = None if arguments.vectors is None else arguments.vectors / f"{name}.npz"
    if kept is not None and kept.exists():
        return dict(np.load(kept))
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(arguments.model, Path(folder) / "int8", precision="int8")
        encoder = open_encoder(Path(folder) / "int8")
        encoder.quiet = True
        found = {
            "stored": encoder.encode_passages(texts.passages),
            "queries": encoder.encode_queries(texts.queries),
            "pseudo": encoder.encode_queries([text for _, text in texts.pseudo]),
        }
    if kept is not None:
        np.savez(kept, **found)  # type: ignore[arg-type]
    return found
