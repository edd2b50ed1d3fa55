"""A folder of data -> the tasks that can be run on it, recognised by the files and columns that are there.

========================  ==========================================================================================
retrieval                 `corpus.jsonl` (`_id`, `text`, perhaps `title`), `queries.jsonl` (`_id`, `text`) and
                          `qrels/SPLIT.tsv` (`query-id`, `corpus-id`, `score`), as BEIR has them
similarity                two texts and `score`
pair_classification       two texts and `label`: 1 and 0, or `entailment` and `contradiction`, others are left out
bitext_mining             two texts and nothing else that is known
reranking                 `query` (or `anchor`), `positive`, `negative`: a text or a list of texts
classification            `text` and `label`, in the file of the split and in one of the same name with `train`
clustering                `text` and `label`, in the file of the split
summarisation             `human_summaries`, `machine_summaries`, `relevance`: lists
duplicates                `text` and `group`: texts of one group say the same
========================  ==========================================================================================

Every task but retrieval is one file: `SPLIT.jsonl`, `.tsv` or `.csv`, or `something_SPLIT.jsonl`. Two texts are
`sentence1` and `sentence2`, `sent1` and `sent2`, `text1` and `text2`, `premise` and `hypothesis`, `question1` and
`question2`, or `source` and `target`.

Guarantees: a folder whose data fits none of these is listed with the reason. Does not know: the rows of the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qdrant_tools.errors import InputError
from qdrant_tools.files import read_rows

PAIRS = (
    *(("sentence1", "sentence2"), ("sent1", "sent2"), ("text1", "text2")),
    *(("premise", "hypothesis"), ("question1", "question2"), ("source", "target")),
)
QUERIES = ("query", "anchor")
BEIR = ("corpus.jsonl", "queries.jsonl")
SUFFIXES = (".jsonl", ".tsv", ".csv")


@dataclass(frozen=True)
class Task:
    """One task that a folder holds. `name` is its path below the benchmark folder and its kind."""

    name: str
    kind: str
    split: str
    file: Path
    """The file of the split; of retrieval the judgements."""
    train: Path | None = None
    """The texts that classification learns from."""


@dataclass(frozen=True)
class Skipped:
    """A folder with data that no task could be made of."""

    name: str
    reason: str


def find_tasks(folder: Path, *, split: str = "test") -> tuple[list[Task], list[Skipped]]:
    """Look into a folder and the folders below it, in the order of their names.

    Raises:
        InputError: it is no folder, or holds no data at all.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: expected one that holds data, or folders of data")
    entries = list(_walk(folder, folder, split))
    if not entries:
        raise InputError(f"{folder} holds no data: expected files ending in {', '.join(SUFFIXES)}")
    tasks = [entry for entry in entries if isinstance(entry, Task)]
    return tasks, [entry for entry in entries if isinstance(entry, Skipped)]


def _walk(folder: Path, root: Path, split: str) -> Iterator[Task | Skipped]:
    name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
    yield from _tasks(folder, name, split)
    if _is_beir(folder):
        return  # the folder of judgements below belongs to it
    for below in sorted(folder.iterdir()):
        # a link to a folder above would be walked for ever
        looping = below.is_symlink() and below.resolve() in (folder.resolve(), *folder.resolve().parents)
        if below.is_dir() and not below.name.startswith(".") and not looping:
            yield from _walk(below, root, split)


def _is_beir(folder: Path) -> bool:
    return all((folder / name).is_file() for name in BEIR)


def _tasks(folder: Path, name: str, split: str) -> Iterator[Task | Skipped]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)
    if not files:
        return
    if _is_beir(folder):
        qrels = folder / "qrels" / f"{split}.tsv"
        if qrels.is_file():
            yield Task(f"{name}/retrieval", "retrieval", split, qrels)
        else:
            yield Skipped(name, f"has {' and '.join(BEIR)} but no qrels/{split}.tsv")
        return
    # a whole part of the name: `latest.csv` is no file of the split `test`
    of_split = [path for path in files if split in re.split(r"[_\-.]", path.stem)]
    if not of_split:
        yield Skipped(name, f"no file of the split {split!r}: {', '.join(path.name for path in files[:5])}")
    for path in of_split:
        yield from _of_file(path, name, split)


def _of_file(path: Path, name: str, split: str) -> Iterator[Task | Skipped]:
    columns = columns_of(path)
    label = name if path.stem == split else f"{name}/{path.stem}"
    kinds = list(_kinds(columns))
    if not kinds:
        yield Skipped(label, f"{path.name} has the columns {', '.join(sorted(columns)) or 'of no row'}: no known task")
    for kind in kinds:
        if kind != "classification":
            yield Task(f"{label}/{kind}", kind, split, path)
            continue
        train = path.with_name(re.sub(rf"(?<![^_\-.]){re.escape(split)}(?![^_\-.])", "train", path.name))
        # the same file if the split is `train` itself: nothing is left to test on
        if train == path or not train.is_file() or not {"text", "label"} <= columns_of(train):
            yield Skipped(f"{label}/{kind}", f"{path.name} has labels, but no {train.name} to learn them from")
        else:
            yield Task(f"{label}/{kind}", kind, split, path, train)


def _kinds(columns: frozenset[str]) -> Iterator[str]:
    if pair_columns(columns) is not None:
        yield "similarity" if "score" in columns else "pair_classification" if "label" in columns else "bitext_mining"
    elif {"text", "label"} <= columns:
        yield from ("classification", "clustering")
    elif {"text", "group"} <= columns:
        yield "duplicates"
    elif {"human_summaries", "machine_summaries", "relevance"} <= columns:
        yield "summarisation"
    elif query_column(columns) is not None and {"positive", "negative"} <= columns:
        yield "reranking"


def columns_of(path: Path) -> frozenset[str]:
    """The columns of the first row; none if the file is empty."""
    return frozenset(next((row.values for row in read_rows(path)), {}))


def pair_columns(columns: frozenset[str]) -> tuple[str, str] | None:
    """The names of the two texts, if there are two."""
    return next((pair for pair in PAIRS if set(pair) <= columns), None)


def query_column(columns: frozenset[str]) -> str | None:
    """The name of the query, if there is one."""
    return next((name for name in QUERIES if name in columns), None)
