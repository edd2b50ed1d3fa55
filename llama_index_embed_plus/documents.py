"""A folder of text files, or a JSONL file -> passages.

A text file is cut at blank lines into passages of at most `MAX_WORDS` words, `path#n`; a JSONL row is one passage as
it is: `{"id", "text", "metadata"}`, or BEIR's `{"_id", "title", "text"}`.

Guarantees: the same files give the same passages in the same order, streamed, never all in memory; a bad row is an
error with file and line. Does not know: tokens, encoders, collections.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError
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
    first = next(passages, None)
    if first is None:
        kinds = " ".join(sorted(TEXT_SUFFIXES | {".jsonl"}))
        raise InputError(f"{source} holds no text to index: expected files with text in them, ending in {kinds}")

    def everything() -> Iterator[Passage]:
        yield first
        yield from passages

    return everything()


def _of_folder(folder: Path) -> Iterator[Passage]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix.lower() in TEXT_SUFFIXES | {".jsonl"}:
            yield from _of_file(path, folder)


def _of_file(path: Path, root: Path) -> Iterator[Passage]:
    if path.suffix.lower() == ".jsonl":
        yield from _of_jsonl(path)
        return
    name = path.relative_to(root).as_posix()
    for number, text in enumerate(cut(_read_text(path))):
        yield Passage(f"{name}#{number}", text, {"source": name, "part": number})


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): convert it, or move it elsewhere") from error


def _of_jsonl(path: Path) -> Iterator[Passage]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row(line, f"{path}:{number}")


def _row(line: bytes, where: str) -> Passage:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); expected one object per line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: a {type(row).__name__}, expected an object with 'id' and 'text'")
    passage_id = row.get("id", row.get("_id"))
    text = _titled(row)
    if not isinstance(passage_id, str) or not passage_id:
        raise InputError(f"{where}: id is {passage_id!r}, expected a non-empty string")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: text is {text!r}, expected a non-empty string")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: metadata is a {type(metadata).__name__}, expected an object")
    return Passage(passage_id, text, metadata)


def _titled(row: Mapping[str, Any]) -> Any:
    """BEIR keeps the title apart and every system embeds `title text`."""
    title, text = row.get("title"), row.get("text")
    if isinstance(title, str) and title.strip() and isinstance(text, str):
        return f"{title} {text}".strip()
    return text


def cut(text: str, *, max_words: int = MAX_WORDS) -> Iterator[str]:
    """Cut a text at blank lines into parts of at most `max_words` words; a longer paragraph is cut between words."""
    held: list[str] = []
    held_words = 0
    for paragraph in re.split(r"\n\s*\n", text):
        words = paragraph.split()
        if not words:
            continue
        if held and held_words + len(words) > max_words:
            yield "\n\n".join(held)
            held, held_words = [], 0
        if len(words) > max_words:
            for start in range(0, len(words), max_words):
                yield " ".join(words[start : start + max_words])
            continue
        held.append(paragraph.strip())
        held_words += len(words)
    if held:
        yield "\n\n".join(held)
