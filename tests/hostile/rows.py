"""Files of rows that nobody would write by mistake: too long, too many, too deep, ambiguous, or no text at all."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

from qdrant_tools.files.rows import LONGEST_ROW, MOST_BLANK_LINES, MOST_COLUMNS, MOST_VALUES

MEGABYTE = 1 << 20
Write = Callable[[Path], object]


def text(content: str) -> Write:
    return lambda path: path.write_text(content, encoding="utf-8")


def data(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def sparse(size: int, start: bytes = b"") -> Write:
    """A file of `size` bytes that takes no room on the disk: zeros behind `start`."""

    def write(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, size)

    return write


def repeated(part: bytes, size: int, start: bytes = b"") -> Write:
    """`part` over and over behind `start`, `size` bytes in all, without holding them."""

    def write(path: Path) -> None:
        block = part * (MEGABYTE // len(part))
        with path.open("wb") as file:
            file.write(start)
            for _ in range(size // len(block)):
                file.write(block)

    return write


def padded(values: int, value: str) -> str:
    return '{"id": "a", "text": "b", "metadata": [' + f"{value}," * (values - 1) + value + "]}"


# what no reader of rows accepts, whatever it expects
JSONL: dict[str, Write] = {
    "four gigabytes without a line end": sparse(4 << 30, b'{"id": "'),
    "a text of 13 megabytes": text('{"id": "a", "text": "' + "x" * (LONGEST_ROW + MEGABYTE) + '"}'),
    "one wide character among 10 million": text('{"id": "\U0001f600", "text": "' + "x" * 10_000_000 + '"}'),
    "many empty lists": text(padded(MOST_VALUES, "[]")),
    "many empty objects": text(padded(MOST_VALUES, "{}")),
    "many numbers": text(padded(MOST_VALUES + 1, "1")),
    "many keys": text("{" + ",".join(f'"{i:x}":0' for i in range(MOST_VALUES + 1)) + "}"),
    "deep lists": text('{"id": ' + "[" * 100_000),
    "closed deep lists": text('{"id": "a", "text": "b", "metadata": ' + "[" * 100 + "]" * 100 + "}"),
    "closed deep objects": text('{"id": "a", "text": "b", "metadata": ' + '{"a":' * 900 + "1" + "}" * 901),
    "quotes that never end": text('{"id": "' + '\\"' * 3_000_000 + "," * MOST_VALUES),
    "a number of 5,000 digits": text('{"id": ' + "9" * 5000 + "}"),
    "one key twice": text('{"id": "a", "id": "b", "text": "c"}'),
    "one key twice below": text('{"id": "a", "text": "c", "metadata": {"x": 1, "x": 2}}'),
    "a list": text('["id", "text"]'),
    "a text": text('"id"'),
    "a number": text("9" * 4000),
    "blank lines": repeated(b"\n", MOST_BLANK_LINES + 2 * MEGABYTE),
    "lines of spaces": repeated(b" \t \n", 4 * MOST_BLANK_LINES + 2 * MEGABYTE),
    "zeros": data(b"\0" * 1000),
    "compressed": data(gzip.compress(b'{"id": "a", "text": "b"}\n')),
    "UTF-16": data('{"id": "a", "text": "b"}\n'.encode("utf-16")),
    "Latin-1": data(b'{"id": "\xe4", "text": "b"}'),
    "half a character": data(b'{"id": "a", "text": "\xf0\x9f"}'),
    "CSV": text("id,text\na,b\n"),
    "markup": text("<html></html>"),
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nowhere": lambda path: path.symlink_to("gone"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}
CSV: dict[str, Write] = {
    "four gigabytes without a line end": sparse(4 << 30, b"id,text\na,"),
    "a quote that is never closed": repeated(b"a,b\nc,d\n", 2 * LONGEST_ROW, b'id,text\n"'),
    "a quote around a gigabyte of nothing": sparse(1 << 30, b'id,text\na,"'),
    "a row of many quoted lines": text('id,text\n"' + "x\n" * 7_000_000),
    "a row of many commas": text("id,text\n" + "," * (MOST_VALUES + 1)),
    "many columns": text(",".join(f"c{i}" for i in range(1_000_000)) + "\n"),
    "some too many columns": text(",".join(f"c{i}" for i in range(MOST_COLUMNS + 1)) + "\n1\n"),
    "one column twice": text("id,text,id\na,b,c\n"),
    "a wide row": text("id,text\na,b,c\n"),
    "blank lines": repeated(b"\n", MOST_BLANK_LINES + 2 * MEGABYTE),
    "empty rows": repeated(b",\n", 2 * MOST_BLANK_LINES + 2 * MEGABYTE, b"id,text\n"),
    "a quote inside a cell": text('id,text\na"b,c"d\n"a"b,c\n'),
    "compressed": data(gzip.compress(b"id,text\na,b\n")),
    "UTF-16": data("id,text\na,b\n".encode("utf-16")),
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
TSV: dict[str, Write] = {
    "four gigabytes without a line end": sparse(4 << 30, b"id\ttext\na\t"),
    "many columns": text("\t".join(f"c{i}" for i in range(1_000_000)) + "\n"),
    "only tabs": repeated(b"\t", 11 * MEGABYTE, b"id"),
    "one column twice": text("id\ttext\tid\na\tb\tc\n"),
    "a wide row": text("id\ttext\na\tb\tc\n"),
    "a row of a million cells": text("id\ttext\n" + "a\t" * 1_000_000 + "\n"),
    "blank lines": repeated(b"\n", MOST_BLANK_LINES + 2 * MEGABYTE),
    "compressed": data(gzip.compress(b"id\ttext\na\tb\n")),
    "UTF-16": data("id\ttext\na\tb\n".encode("utf-16")),
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
}
ROWS = {
    f"{suffix}: {name}": (suffix, write)
    for suffix, kinds in (("jsonl", JSONL), ("csv", CSV), ("tsv", TSV))
    for name, write in kinds.items()
}
NUMBERS = {
    "an integer beyond floats": "1" + "0" * 400,
    "5,000 digits": "9" * 5000,
    "millions of digits": "9" * 2_000_000,
    "beyond floats": "1e400",
    "no number": "nan",
    "infinite": "infinity",
    "negative infinity": "-inf",
    "underscores": "1_000",
    "hexadecimal": "0x10",
    "other digits": "\u0661\u0662",
    "fullwidth digits": "\uff11",
    "many exponents": "1e" + "9" * 300,
    "two numbers": "1 2",
    "nothing": "-",
}
"""Texts that Python reads as numbers, or nearly, and no column of numbers holds."""
