"""A small file that somebody else made -> its text, or the JSON value in it.

Guarantees: a pipe, a device, a file above its limit, text that is not UTF-8, and JSON that is damaged, nested too deep
or full of digits is one error with the path; none takes longer or more memory than the limit allows. Does not know:
what the values mean; files of rows, which `files` reads line by line.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from qdrant_tools.errors import InputError, PlusError, first_line

MOST_BYTES = 1 << 24
"""Configurations, manifests and reports are kilobytes; the files of the largest of them are below a megabyte."""
DEEPEST = 64
MOST_VALUES = 1_500_000
"""A value takes up to a hundred bytes, and needs one character of the text. A large tokenizer has a million."""


def read_text(path: Path, *, most: int = MOST_BYTES, error: type[PlusError] = InputError) -> str:
    """The text of a UTF-8 file of at most `most` bytes.

    Raises:
        FileNotFoundError: there is no such file.
        `error`: it cannot be read, is no regular file, is larger, or is not UTF-8.
    """
    try:
        with open_regular(path, error) as file:
            # not read at all if it says itself that it is larger; one that grows meanwhile is found by the extra byte.
            # In blocks, because room for all that is asked for would be made beforehand.
            size, blocks = os.fstat(file.fileno()).st_size, []
            while size <= most and (block := file.read(1 << 20)):
                blocks.append(block)
                size = sum(map(len, blocks))
    except FileNotFoundError:
        raise
    except OSError as reason:
        raise error(f"cannot read {path}: {reason.strerror}") from reason
    if size > most:
        raise error(f"{path} is larger than {most:,} bytes: this is no such file")
    try:
        text = b"".join(blocks).decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not UTF-8 text (byte {reason.start}){why_not_utf8(reason.object)}") from reason
    # ASCII in UTF-16 is UTF-8 too, with a NUL before or behind every character
    if text.count("\0") * 4 > len(text) > 0:
        raise error(f"{path} is not UTF-8 text, but UTF-16 without its mark: convert it")
    return text


def why_not_utf8(beginning: bytes) -> str:
    """What a file that is not UTF-8 seems to be, and what to do, for the end of a message."""
    if beginning[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ': it is UTF-16, the "Unicode text" of Excel: save it as UTF-8 ("CSV UTF-8" there)'
    if beginning[:2] == b"\x1f\x8b":
        return ": it is compressed, unpack it"
    if beginning[:2] == b"PK":
        return ": it is a workbook or a zip file, export its table as CSV"
    return ": convert it, if it is of Windows: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW_FILE"


def open_regular(path: str | Path, error: type[PlusError] = InputError) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        `error`: it is a folder, or a pipe or a device, which may never answer and never end.
        OSError: it cannot be opened.
    """
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever; O_BINARY is of Windows
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{path} is no regular file: save what it gives to a file first, and name that")
    return open(descriptor, "rb")


def read_json(
    path: Path,
    *,
    most: int = MOST_BYTES,
    most_values: int = MOST_VALUES,
    unique: bool = False,
    error: type[PlusError] = InputError,
) -> Any:
    """The JSON value in a file. Raises as `read_text` and `parse_json`."""
    text = read_text(path, most=most, error=error)
    return parse_json(text, str(path), most_values=most_values, unique=unique, error=error)


def parse_json(
    text: str | bytes,
    where: str,
    *,
    most_values: int = MOST_VALUES,
    unique: bool = False,
    error: type[PlusError] = InputError,
) -> Any:
    """The value of a JSON text; `where` names it in messages.

    unique: Two values under one key are refused; otherwise the last one counts, as everywhere in Python.

    Raises:
        `error`: it is no JSON, holds a number of thousands of digits or more than `most_values` values, or is nested
            more than 64 levels deep.
    """
    if has_more_values(text, most_values):
        raise error(f"{where} holds more than {most_values:,} values: this is no such file")
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats if unique else None)
    # ValueError also for a number of more than 4,300 digits; RecursionError for a depth beyond Python's stack
    except (ValueError, RecursionError) as reason:
        raise error(f"{where} is no JSON ({first_line(reason)})") from reason
    if deeper(value, DEEPEST):
        raise error(f"{where} is nested more than {DEEPEST} levels deep: make it flatter")
    return value


def has_more_values(text: str | bytes, most: int) -> bool:
    """Whether a JSON text holds more values than that, found out without reading them."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return sum(map(text.count, (",", ":", "[", "{"))) > most and _outside_texts(text) > most


def _outside_texts(text: str) -> int:
    # a text that is never closed runs to the end, and nothing is tried twice: this is linear
    bare = re.sub(r'"(?:[^"\\]++|\\.)*+"?', "", text, flags=re.DOTALL)
    return sum(map(bare.count, (",", ":", "[", "{")))


def deeper(value: Any, levels: int) -> bool:
    """Whether values lie more than `levels` inside one another; layer by layer, so that no recursion is needed."""
    layer = _holders([value])
    while layer and levels:
        layer = _holders(part for holder in layer for part in (holder.values() if isinstance(holder, dict) else holder))
        levels -= 1
    return bool(layer)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands in it twice")
    return value


def _holders(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]
