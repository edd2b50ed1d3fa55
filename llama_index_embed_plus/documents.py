"""A folder of text files, or a JSONL file -> passages.

A text file is cut at blank lines into passages of at most `MAX_WORDS` words, with ids `path#n`. A JSONL row is one
passage: `{"id", "text", "metadata"}`, or BEIR's `{"_id", "title", "text"}`.

Guarantees: the same files give the same passages in the same order, streamed, never all in memory; a bad row is an
error with file and line. Does not know: tokens, encoders, collections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from qdrant_tools.errors import InputError
from qdrant_tools.files import Row, read_rows
from qdrant_tools.records import Passage

TEXT_SUFFIXES = frozenset({".txt", ".md", ".rst", ".text", ".markdown"})
MAX_WORDS = 180
"""About 240 tokens of English: most sentence encoders read 256 or more."""


def read_passages(source: Path) -> Iterator[Passage]:
    """Yield the passages of a folder, a text file or a `.jsonl` file.

    Raises `InputError` if `source` does not exist or holds no text, and for the first row that cannot be read.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist: expected a folder of text files, a text file or a .jsonl file")
    passages = _of_folder(source) if source.is_dir() else _of_file(source, source.parent)
    # read at once: an empty source is an error of this call, not of the caller's loop
    first = next(passages, None)
    if first is None:
        kinds = " ".join(sorted(TEXT_SUFFIXES | {".jsonl"}))
        raise InputError(f"{source} holds no text to index: expected files with text in them, ending in {kinds}")

    return chain([first], passages)


def _of_folder(folder: Path) -> Iterator[Passage]:
    # sorted, because file systems list in any order
    for path in sorted(folder.rglob("*")):
        # below the folder only: the folder itself may lie inside a hidden one
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix.lower() in TEXT_SUFFIXES | {".jsonl"}:
            yield from _of_file(path, folder)


def _of_file(path: Path, root: Path) -> Iterator[Passage]:
    if path.suffix.lower() == ".jsonl":
        yield from map(_passage, read_rows(path))
        return
    name = path.relative_to(root).as_posix()
    for number, text in enumerate(cut(_read_text(path))):
        yield Passage(f"{name}#{number}", text, {"source": name, "part": number})


def _read_text(path: Path) -> str:
    try:
        # some editors on Windows put a byte order mark first; utf-8-sig leaves it out
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): convert it, or move it elsewhere") from error


def _passage(row: Row) -> Passage:
    metadata = row.values.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError(f"{row.where}: metadata is a {type(metadata).__name__}, expected an object")
    # a row with neither is an error about `id`, this project's own name
    name = row.text("id" if "id" in row.values or "_id" not in row.values else "_id")
    return Passage(name, _titled(row), metadata)


def _titled(row: Row) -> str:
    """Return `title text`, as every system embeds BEIR's passages."""
    title, text = row.values.get("title"), row.text("text")
    return f"{title} {text}".strip() if isinstance(title, str) and title.strip() else text


def cut(text: str, *, max_words: int = MAX_WORDS) -> Iterator[str]:
    """Cut a text at blank lines into parts of at most `max_words` words. A longer paragraph is cut between words."""
    part: list[str] = []
    part_words = 0
    for paragraph in re.split(r"\n\s*\n", text):
        words = paragraph.split()
        if not words:
            continue
        if part and part_words + len(words) > max_words:
            yield "\n\n".join(part)
            part, part_words = [], 0
        if len(words) > max_words:
            for start in range(0, len(words), max_words):
                yield " ".join(words[start : start + max_words])
            continue
        part.append(paragraph.strip())
        part_words += len(words)
    if part:
        yield "\n\n".join(part)
