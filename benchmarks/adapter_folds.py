"""What does a query adapter gain on a judged collection, when no query that it is measured on taught or chose it?

    python benchmarks/adapter_folds.py --data FOLDER [--data FOLDER ...] [--vectors FOLDER] [--out FILE]

FOLDER is in BEIR's layout (`corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`, all of them), or `demo`. The judged queries
are parted into five folds at random; an adapter is fitted with the default settings on four of them, its own choice
among candidates included, and measured by nDCG@10 on the fifth, by exact search over everything. So each query is
measured once, and chose nothing. The protocols say what is done about queries that share answers:

- `masked`: the answers of the fold that is measured are hidden from the fit and from its rankings;
- `masked, apart`: the same fits, and the answers that these learned from are taken out of the ranking that is measured,
  where they stand in the way of others and answer nothing;
- `dropped`: queries that share an answer with the fold are not fitted on (a collection where fewer than 10 queries are
  left in a fold is left out);
- `shared`: nothing is hidden. True where every passage answers many questions;
- `label-free`: no query is fitted on, the passages alone.

Per collection and over all of their queries together: the gain with its paired 95 % interval, and what was chosen in
each fold. With `--vectors` what was embedded is kept there, a file for each collection. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from csv import DictReader
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.comparison import Change, mean_change
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.fit import FittedMap, fit_map
from llama_index_embed_plus.training.adapter.pseudo import text_of
from llama_index_embed_plus.training.adapter.ranking import judge
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.collections.points import draw_rank
from qdrant_tools.records import Passage

PROTOCOLS = ("masked", "dropped", "shared", "label-free")
APART = "masked, apart"
FOLDS = 5
FEWEST = 10
WITHOUT_TITLE = ("medquad",)  # its titles name the answer

Answers = tuple[tuple[int, ...], ...]
Values = NDArray[np.float64]
NOTHING: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Judged:
    """A collection, its judged queries, and the rows of `stored` that answer each."""

    name: str
    stored: NDArray[np.float32]
    queries: NDArray[np.float32]
    answers: Answers
    pseudo: PseudoQueries

    def of(self, rows: Sequence[int]) -> Answers:
        return tuple(self.answers[row] for row in rows)

    def data(self, rows: Sequence[int]) -> AdapterData:
        queries = self.queries[np.array(rows, np.int64)]
        return AdapterData(self.stored, queries, self.of(rows), np.ones(len(rows)), pseudo=self.pseudo)

    def ndcg(self, rows: Sequence[int], matrix: NDArray[np.float32], hidden: NDArray[np.int64] = NOTHING) -> Values:
        queries = self.queries[np.array(rows, np.int64)]
        return np.asarray(judge(queries, self.stored, self.of(rows), [matrix], (0,), hidden=hidden).ndcg[0])


def read_texts(folder: Path, limit: int | None) -> tuple[list[Passage], list[tuple[str, list[str]]]]:
    """Passages, and queries with the ids of their answers."""
    if folder == Path("demo"):
        corpus = load_docstrings()
        judged = [(q.text, list(split.qrels[q.id])) for split in (corpus.train, corpus.held_out) for q in split.queries]
        return list(corpus.passages), judged[-limit:] if limit else judged
    passages = []
    for row in _rows(folder / "corpus.jsonl"):
        title = "" if folder.name in WITHOUT_TITLE else row.get("title", "")
        passages.append(Passage(row["_id"], f"{title} {row['text']}".strip(), {"title": title} if title else {}))
    ids = {passage.id for passage in passages}
    answers: dict[str, list[str]] = {}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in DictReader(file, delimiter="\t"):
                if int(row["score"]) > 0 and row["corpus-id"] in ids:
                    answers.setdefault(row["query-id"], []).append(row["corpus-id"])
    texts = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    kept = [query for query in texts if query in answers]
    return passages, [(texts[query], answers[query]) for query in kept[:limit]]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def read(folder: Path, arguments: argparse.Namespace) -> Judged:
    kept = arguments.vectors / f"{folder.name}.npz" if arguments.vectors else None
    if kept is None or not kept.exists():
        found = _embedded(*read_texts(folder, arguments.limit), arguments)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, **found)
    else:
        found = dict(np.load(kept))
    of_queries = [tuple(json.loads(str(row))) for row in found["answers"]]
    rows = [row for row, own in enumerate(of_queries) if own][: arguments.limit]
    made = f"pseudo{arguments.seed}"
    return Judged(
        folder.name,
        found["stored"],
        np.ascontiguousarray(found["queries"][rows]),
        tuple(of_queries[row] for row in rows),
        PseudoQueries(found[made], found[f"{made}_rows"].astype(np.int64)),
    )


def _embedded(
    passages: Sequence[Passage], judged: Sequence[tuple[str, list[str]]], arguments: argparse.Namespace
) -> dict[str, Any]:
    place = {passage.id: row for row, passage in enumerate(passages)}
    made: list[tuple[int, str]] = []
    # as `training.adapter.pseudo` makes them from a collection
    for passage in sorted(passages, key=lambda each: draw_rank(each.id, arguments.seed)):
        text = text_of(passage, span=bool(len(made) % 2), seed=arguments.seed)
        if text:
            made.append((place[passage.id], text))
        if len(made) == AdapterSettings().pseudo_queries:
            break
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(arguments.model, Path(folder) / "int8", precision="int8")
        encoder = open_encoder(Path(folder) / "int8")
        encoder.quiet = True
        return {
            "stored": encoder.encode_passages([passage.text for passage in passages]),
            "queries": encoder.encode_queries([text for text, _ in judged]),
            "answers": np.array([json.dumps([place[name] for name in own]) for _, own in judged]),
            f"pseudo{arguments.seed}": encoder.encode_queries([text for _, text in made]),
            f"pseudo{arguments.seed}_rows": np.array([row for row, _ in made]),
        }


def fitted(judged: Judged, protocol: str, left_out: Sequence[int], seed: int) -> FittedMap | None:
    """The adapter of all other queries; None if too few are left."""
    others = np.setdiff1d(np.arange(len(judged.answers)), left_out).tolist()
    settings = AdapterSettings(seed=seed, answers_apart=protocol != "shared")
    if protocol == "label-free":
        return fit_map(judged.data([]), settings)
    if protocol == "dropped":
        own = {row for each in judged.of(left_out) for row in each}
        others = [query for query in others if not own & set(judged.answers[query])]
        return fit_map(judged.data(others), settings) if len(others) >= FEWEST else None
    return fit_map(judged.data(range(len(judged.answers))), settings, left_out=np.array(left_out, np.int64))


def learned_from(judged: Judged, left_out: Sequence[int]) -> NDArray[np.int64]:
    """The answers that a fit without these queries may see."""
    own = {row for each in judged.of(left_out) for row in each}
    return np.array(sorted({row for each in judged.answers for row in each} - own), np.int64)


Measured = dict[str, tuple[Values, Values]]
"""Protocol -> nDCG@10 of each query before and after."""


def measure(judged: Judged, arguments: argparse.Namespace) -> tuple[Measured, dict[str, Counter[str]]]:
    count = len(judged.answers)
    parts = np.array_split(np.random.default_rng(arguments.seed).permutation(count), FOLDS)
    base = np.eye(judged.stored.shape[1], dtype=np.float32)
    values: dict[str, tuple[Values, Values]] = {}
    chosen: dict[str, Counter[str]] = {}

    def note(name: str, rows: Sequence[int], map_: FittedMap, hidden: NDArray[np.int64] = NOTHING) -> None:
        before, after = values.setdefault(name, (np.full(count, np.nan), np.full(count, np.nan)))
        before[rows], after[rows] = judged.ndcg(rows, base, hidden), judged.ndcg(rows, map_.matrix, hidden)
        chosen.setdefault(name, Counter())[map_.chosen.name] += 1
        gain = float((after[rows] - before[rows]).mean())
        print(f"{judged.name} {name:<14} {gain:+.4f} {map_.chosen.name}", file=sys.stderr, flush=True)

    for protocol in arguments.protocols:
        whole = fitted(judged, protocol, range(count), arguments.seed) if protocol == "label-free" else None
        for part in parts:
            rows = sorted(part.tolist())
            map_ = whole or fitted(judged, protocol, rows, arguments.seed)
            if map_ is None:
                print(f"{judged.name} {protocol}: too few are left, left out", file=sys.stderr)
                values.pop(protocol, None)
                break
            note(protocol, rows, map_)
            if protocol == "masked":
                note(APART, rows, map_, learned_from(judged, rows))
    return values, chosen


def change_of(pairs: Sequence[tuple[Values, Values]]) -> Change:
    before, after = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    return mean_change("ndcg@10", *(dict(zip(map(str, range(len(v))), v.tolist())) for v in (before, after)))


def row_of(change: Change, queries: int) -> dict[str, Any]:
    interval = [round(change.low, 4), round(change.high, 4)]
    return {
        "queries": queries,
        "base": round(change.before, 4),
        "gain": round(change.difference, 4),
        "interval": interval,
    }


def main() -> None:
    arguments = _arguments()
    found: dict[str, Any] = {"seed": arguments.seed, "collections": {}, "pooled": {}}
    pooled: dict[str, list[tuple[Values, Values]]] = {}
    for folder in arguments.data:
        started = time.perf_counter()
        judged = read(folder, arguments)
        values, chosen = measure(judged, arguments)
        rows = {name: row_of(change_of([pair]), len(pair[0])) for name, pair in values.items()}
        for name, row in rows.items():
            row["chosen"] = dict(chosen[name])
            print(f"{judged.name:<10} {name:<14} {row['gain']:+.4f} {row['interval']}  base {row['base']:.4f}")
            pooled.setdefault(name, []).append(values[name])
        seconds = round(time.perf_counter() - started, 1)
        found["collections"][judged.name] = {"passages": len(judged.stored), "rows": rows, "seconds": seconds}
    for name, pairs in pooled.items():
        found["pooled"][name] = row = row_of(change_of(pairs), sum(len(pair[0]) for pair in pairs))
        row["mean of collections"] = round(float(np.mean([(after - before).mean() for before, after in pairs])), 4)
        print(f"{'pooled':<10} {name:<14} {row['gain']:+.4f} {row['interval']}  of {row['queries']} queries")
    found["machine"] = f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, action="append")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="its int8 build is made and used")
    parser.add_argument("--protocols", type=lambda given: given.split(","), default=PROTOCOLS)
    parser.add_argument("--limit", type=int, help="only so many judged queries of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
