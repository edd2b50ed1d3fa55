"""A folder of text files, or a JSONL file -> passages.

A text file is cut at blank lines into passages of at most `MAX_WORDS` words, with ids `path#n`. A JSONL row is one
passage: `{"id", "text", "metadata"}`, or BEIR's `{"_id", "title", "text"}`. Its other fields become metadata.

Guarantees: the same files give the same passages in the same order, streamed, never all in memory; a bad row is an
error with file and line. What a folder's links lead to outside it is not read unless that is asked for, and what is
left out is logged. Does not know: tokens, encoders, collections.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import regex

from qdrant_tools.errors import InputError, brief
from qdrant_tools.files import Row, read_rows
from qdrant_tools.json_files import read_text
from qdrant_tools.records import Passage
from qdrant_tools.search.words import spaceless
from qdrant_tools.trees import allowed_roots, require_inside
from qdrant_tools.validation import is_unicode

logger = logging.getLogger(__name__)

TEXT_SUFFIXES = frozenset({".txt", ".md", ".rst", ".text", ".markdown"})
MAX_WORDS = 180
"""About 240 tokens of English: most sentence encoders read 256 or more."""
_STOPS = r"\u3002\uff01\uff1f\uff0e\u17d4\u104b"
# up to and with what ends a sentence where no space follows it
_SENTENCE = regex.compile(rf"[^{_STOPS}]+[{_STOPS}\p{{Pe}}\p{{Pf}}]*+|.")
_CHARACTER = regex.compile(r"\P{M}\p{M}*+|\p{M}++")
_FIELDS = ("id", "_id", "title", "text", "metadata")
MOST_BYTES = 1 << 26
"""Of a text file, which is read as a whole. War and Peace has 3 MB."""


def read_passages(source: Path, *, follow_links: bool = False) -> Iterator[Passage]:
    """Yield the passages of a folder, a text file or a `.jsonl` file.

    `follow_links`: also read what the links in a folder lead to outside it.

    Raises `InputError` if `source` does not exist or holds no text, and for the first row that cannot be read.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist: expected a folder of text files, a text file or a .jsonl file")
    left_out: list[Path] = []
    if source.is_dir():
        files = sorted(_files_of(source, left_out, follow_links=follow_links))
        passages: Iterator[Passage] = chain.from_iterable(_of_file(path, source) for path in files)
    else:
        passages = _of_file(source, source.parent)
    if left_out:
        logger.warning("%s: %s", source, _said_of(left_out))
    # read at once: an empty source is an error of this call, not of the caller's loop
    first = next(passages, None)
    if first is None:
        kinds = " ".join(sorted(TEXT_SUFFIXES | {".jsonl"}))
        raise InputError(f"{source} holds no text to index: expected files with text in them, ending in {kinds}")

    return chain([first], passages)


def _said_of(left_out: list[Path]) -> str:
    return (
        f"{len(left_out)} left out, the first is {str(left_out[0])!r}: links that leave the folder "
        "(follow_links=True, or index --follow-links, reads them), or what cannot be read"
    )


def _files_of(folder: Path, left_out: list[Path], *, follow_links: bool) -> Iterator[Path]:
    """The files below a folder that may hold text; those that are not to be read go into `left_out`."""
    allowed = allowed_roots(folder)
    folders, seen = [folder], {os.path.realpath(folder)}
    while folders:
        current = folders.pop()
        try:
            entries = list(os.scandir(current))
        except OSError:
            left_out.append(current)
            continue
        for entry in entries:
            path = Path(entry.path)
            # by the names below the folder only: the folder itself may be a hidden one
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False) or (follow_links and os.path.isdir(path)):
                # a linked folder may hold itself
                if (real := os.path.realpath(path)) not in seen:
                    seen.add(real)
                    folders.append(path)
            elif entry.is_symlink() and not follow_links:
                # a link to a folder inside is another name of what is read anyway
                if not _leads_inside(path, allowed):
                    left_out.append(path)
                elif _may_hold_text(path):
                    yield path
            elif _may_hold_text(path):
                if os.path.isfile(path):
                    yield path
                else:
                    left_out.append(path)


def _may_hold_text(path: Path) -> bool:
    return path.suffix.lower() in TEXT_SUFFIXES | {".jsonl"}


def _leads_inside(link: Path, allowed: tuple[Path, ...]) -> bool:
    if os.path.isdir(link):
        return any(Path(os.path.realpath(link)).is_relative_to(root) for root in allowed)
    try:
        require_inside(link, allowed)
    except InputError:
        # a broken link to no text is no loss
        return not os.path.exists(link) and not _may_hold_text(link)
    return True


def _of_file(path: Path, root: Path) -> Iterator[Passage]:
    if path.suffix.lower() == ".jsonl":
        yield from map(_passage, read_rows(path))
        return
    name = path.relative_to(root).as_posix()
    if not is_unicode(name):
        raise InputError(f"the name of {str(path)!r} is no Unicode text, expected one for the ids: rename the file")
    for number, text in enumerate(cut(_read_text(path))):
        yield Passage(f"{name}#{number}", text, {"source": name, "part": number})


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path} has {size:,} bytes, expected a text of at most {MOST_BYTES:,}: split it")
        text = read_text(path, most=MOST_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _passage(row: Row) -> Passage:
    metadata = row.values.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError(f"{row.where}: metadata is a {type(metadata).__name__}, expected an object")
    if len({str(row.values[name]) for name in ("id", "_id") if name in row.values}) > 1:
        raise InputError(
            f"{row.where}: id is {brief(row.values['id'])} and _id {brief(row.values['_id'])}: leave one out"
        )
    # a row with neither is an error about `id`, this project's own name
    name = row.text("id" if "id" in row.values or "_id" not in row.values else "_id")
    return Passage(name, _titled(row), {**_other_fields(row, metadata), **metadata})


def _other_fields(row: Row, metadata: dict[str, Any]) -> dict[str, Any]:
    """What a row says beside its text: metadata too, whatever it is called."""
    others = {name: value for name, value in row.values.items() if name not in _FIELDS}
    for name, value in others.items():
        if name in metadata and metadata[name] != value:
            raise InputError(
                f"{row.where}: {brief(name)} is {brief(value)}, and {brief(metadata[name])} in its metadata: "
                "leave one out"
            )
    return others


def _titled(row: Row) -> str:
    """Return `title text`, as every system embeds BEIR's passages."""
    title, text = row.values.get("title"), row.text("text")
    if title is not None and not isinstance(title, str):
        raise InputError(f"{row.where}: title is {brief(title)}, expected a text")
    return f"{title} {text}".strip() if title and title.strip() else text


def cut(text: str, *, max_words: int = MAX_WORDS) -> Iterator[str]:
    """Cut a text at blank lines into parts of at most `max_words` words. A longer paragraph is cut between words.

    Where words have no spaces between them (Chinese, Japanese, Thai, ...) each character counts as a word, and a cut
    is made at the end of a sentence if there is one.
    """
    part: list[str] = []
    part_words = 0
    for paragraph in re.split(r"\n\s*\n", text):
        words = [word for piece in paragraph.split() for word in _units(piece, max_words)]
        if not words:
            continue
        count = sum(length for _, length in words)
        if part and part_words + count > max_words:
            yield "\n\n".join(part)
            part, part_words = [], 0
        if count > max_words:
            yield from _filled(words, max_words)
            continue
        part.append(paragraph.strip())
        part_words += count
    if part:
        yield "\n\n".join(part)


def _units(piece: str, most: int) -> Iterator[tuple[str, int]]:
    """What a piece of text without spaces may be cut into, each with the words that it counts for."""
    count = spaceless(piece)
    if count <= 1:
        yield f" {piece}", 1
        return
    space = " "
    for sentence in _SENTENCE.findall(piece):
        characters = _CHARACTER.findall(sentence)
        for start in range(0, len(characters), most):
            unit = "".join(characters[start : start + most])
            yield space + unit, max(1, spaceless(unit))
            space = ""


def _filled(words: Iterable[tuple[str, int]], most: int) -> Iterator[str]:
    part, count = "", 0
    for word, length in words:
        if part and count + length > most:
            yield part.strip()
            part, count = "", 0
        part += word
        count += length
    yield part.strip()
