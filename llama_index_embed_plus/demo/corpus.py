"""The running interpreter's standard library -> passages, queries and judgements.

A docstring is split after its first sentence: that sentence is a query, the qualified name and the rest are the
passage that answers it. Real text, on every machine, in a different amount per Python version.

Guarantees: the same interpreter gives the same data set in the same order; no module is imported (sources are
parsed); every query is in one split at most, by a hash of its text, so that a query that occurs twice is never on both
sides; no train query asks for a passage that answers a held-out one. Does not know: encoders, collections.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qdrant_tools.errors import InputError
from qdrant_tools.records import Passage, Qrels, Query

TRAIN_SHARE = 0.8
_SKIPPED_MODULES = {"test", "idlelib", "lib2to3", "turtledemo", "antigravity", "this"}
_MIN_QUERY_WORDS, _MIN_PASSAGE_WORDS = 3, 15
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n\s*\n")


@dataclass(frozen=True)
class JudgedQueries:
    """Queries with their judgements: `qrels[query id][passage id] = 1`."""

    queries: tuple[Query, ...]
    qrels: Qrels


@dataclass(frozen=True)
class DocstringCorpus:
    """Passages, and two splits of the queries that share neither a text nor an answer."""

    passages: tuple[Passage, ...]
    train: JudgedQueries
    held_out: JudgedQueries


def load_docstrings(*, library: Path | None = None, limit: int | None = None) -> DocstringCorpus:
    """Read the docstrings under `library` (default: the standard library) into a data set.

    `limit` keeps only the first so many passages: for a quick look. Raises `InputError` if nothing usable is found,
    or too little to train on and to measure by.
    """
    root = library or Path(sysconfig.get_path("stdlib"))
    passages: dict[str, Passage] = {}
    answers: dict[str, list[str]] = {}
    for name, docstring in _docstrings(root):
        split = _query_and_rest(docstring)
        if split is None:
            continue
        query, rest = split
        text = f"{name}\n{rest}"
        # one text under two names is one passage, or a right hit would count as wrong
        same = passages.setdefault(rest, Passage(name, text, {"module": name.split(".")[0]}))
        ids = answers.setdefault(query, [])
        if same.id not in ids:
            ids.append(same.id)
        if limit is not None and len(passages) >= limit:
            break
    if not answers:
        raise InputError(
            f"no usable docstrings under {root}: this needs Python's own library sources, installed with most Pythons"
        )
    held_out = {text: ids for text, ids in answers.items() if not _in_train(text)}
    secret = {passage for ids in held_out.values() for passage in ids}
    trained = {text: ids for text, ids in answers.items() if _in_train(text) and secret.isdisjoint(ids)}
    # said here, before a model is opened for nothing
    if limit is not None and not (trained and held_out):
        raise InputError(
            f"{len(passages)} passages have {len(trained)} queries to train on and {len(held_out)} to measure by, "
            "expected both: give a larger limit (--limit), such as 500"
        )
    return DocstringCorpus(tuple(passages.values()), _split(trained), _split(held_out))


def _docstrings(root: Path) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of every public module, class and function, in a fixed order."""
    for path in _sources(root):
        parts = path.relative_to(root).with_suffix("").parts
        if "test" in parts or "tests" in parts:
            continue
        names = [part for part in parts if part != "__init__"]
        if any(name.startswith("_") for name in names):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old escapes in library sources are not ours to report
                # bytes: a source may say its own encoding
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and deliberately broken files ship with the library
        yield from _walk(tree, ".".join(names))


def _sources(root: Path) -> Iterator[Path]:
    """The files of the library's public modules. Installed packages, which lie among them, are not walked through."""
    for entry in sorted(root.iterdir()):
        name = entry.stem if entry.suffix == ".py" else entry.name
        if name not in sys.stdlib_module_names or name in _SKIPPED_MODULES:
            continue
        yield from sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]


def _walk(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    docstring = ast.get_docstring(node)
    if docstring:
        yield name, docstring
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith(
                "_"
            ):
                yield from _walk(child, f"{name}.{child.name}")


def _query_and_rest(docstring: str) -> tuple[str, str] | None:
    """(first sentence, the rest), or None if either is too short to mean anything."""
    parts = _SENTENCE_END.split(docstring, maxsplit=1)
    if len(parts) < 2:
        return None
    query, rest = (" ".join(part.split()) for part in parts)
    if len(query.split()) < _MIN_QUERY_WORDS or len(rest.split()) < _MIN_PASSAGE_WORDS:
        return None
    return query, rest


def _in_train(query: str) -> bool:
    # the side depends on the text alone, not on what else was read
    return int.from_bytes(hashlib.sha256(query.encode()).digest()[:4]) < TRAIN_SHARE * 2**32


def _split(answers: dict[str, list[str]]) -> JudgedQueries:
    ids = {text: hashlib.sha256(text.encode()).hexdigest()[:12] for text in answers}
    qrels = {ids[text]: dict.fromkeys(passages, 1) for text, passages in answers.items()}
    return JudgedQueries(tuple(Query(name, text) for text, name in ids.items()), qrels)
