"""Snapshot files that nobody's `collection snapshot` wrote, made from one that it did."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

BLOCK = 512
Entry = tuple[tarfile.TarInfo, bytes]


def entries_of(snapshot: Path) -> list[Entry]:
    """The entries of a good snapshot, with their content."""
    with tarfile.open(snapshot) as tar:
        return [(entry, (file.read() if (file := tar.extractfile(entry)) else b"")) for entry in tar]


def file_entry(name: str, content: bytes = b"hostile") -> Entry:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry, content


def link_entry(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


def kind_entry(name: str, kind: bytes) -> Entry:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    return entry, b""


def raw(entries: Iterable[Entry], *, end: bool = True) -> Iterator[bytes]:
    """The archive as blocks, so that a large one is never in memory."""
    for entry, content in entries:
        yield entry.tobuf(tarfile.PAX_FORMAT)
        yield content
        yield bytes(-len(content) % BLOCK)
    if end:
        yield bytes(2 * BLOCK)


def written(path: Path, blocks: Iterable[bytes], level: int = 1) -> Path:
    with gzip.open(path, "wb", compresslevel=level) as file:
        for block in blocks:
            file.write(block)
    return path


def with_extra(good: list[Entry], extra: list[Entry]) -> Iterator[bytes]:
    """The header, the extra entries, then the rest: what comes first could redirect what follows."""
    return raw([*good[:1], *extra, *good[1:]])


def extended_header(records: bytes, kind: bytes = tarfile.XHDTYPE) -> Entry:
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = kind, len(records)
    return entry, records


def record(key: str, value: str) -> bytes:
    """One record of an extended header; its length counts its own digits."""
    body = f" {key}={value}\n".encode()
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def header(**changes: object) -> Entry:
    content = {
        "format": "embed-plus snapshot 1",
        "collection": "docs",
        "where": "",
        "bytes": 0,
        "points": 20,
        **changes,
    }
    return file_entry("snapshot.json", json.dumps(content).encode())


def long_chain(outside: Path) -> list[Entry]:
    """Links whose path grows longer than the system's limit, so that a check of where they lead gives up."""
    part = "d" * 247
    entries: list[Entry] = []
    prefix = ""
    for letter in "abcdefghijklmnop":
        folder = tarfile.TarInfo(f"{prefix}{part}")
        folder.type = tarfile.DIRTYPE
        entries += [(folder, b""), link_entry(f"{prefix}{letter}", part)]
        prefix += f"{letter}/"
    up = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    entries.append(link_entry(up, "../" * 16))
    entries.append(link_entry("escape", f"{up}/..{outside}"))
    return [*entries, file_entry("escape/written", b"hostile")]


def zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        yield bytes(min(size, 1 << 20))
        size -= 1 << 20


def filled(size: int, letter: bytes = b"a") -> Iterator[bytes]:
    block = letter * (1 << 20)
    while size > 0:
        yield block[: min(size, 1 << 20)]
        size -= 1 << 20


def large_entry(name: str, size: int, blocks: Callable[[int], Iterator[bytes]]) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = size
    yield entry.tobuf(tarfile.GNU_FORMAT)
    yield from blocks(size)
    yield bytes(-size % BLOCK)


def gzip_name(path: Path, good: Path, size: int) -> Path:
    """The same archive behind a gzip header with a file name of `size` bytes."""
    content = good.read_bytes()
    end = content.index(b"\0", 10) + 1 if content[3] & 8 else 10
    path.write_bytes(content[:3] + b"\x08" + content[4:10] + b"n" * size + b"\0" + content[end:])
    return path


def members(path: Path, count: int) -> Path:
    """Very many empty gzip streams in one file."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as file:
        file.write(b"")
    path.write_bytes(stream.getvalue() * count)
    return path


def traversals(outside: Path, collection: str) -> dict[str, list[Entry]]:
    """Entries that would write, replace or open something else than a new file of the unpacked folder."""
    secret = outside / "secret.txt"
    shard = f"collections/{collection}/shard"
    up = os.path.relpath(secret, "/")
    return {
        "absolute name": [file_entry(str(secret))],
        "up": [file_entry("../../../../../../../../../../" + up)],
        "up in the middle": [file_entry(f"{shard}/../../../../../../../../../../../{up}")],
        "up by an extended header": [extended_header(record("path", "../" * 12 + up)), file_entry(f"{shard}/x")],
        "backslashes": [file_entry(f"{shard}\\..\\..\\x")],
        "drive letter": [file_entry("C:/x"), file_entry("C:x")],
        "an empty part": [file_entry(f"{shard}//x")],
        "NUL by an extended header": [extended_header(record("path", f"{shard}/x\0y")), file_entry(f"{shard}/x")],
        "a link": [link_entry(f"{shard}/x", str(secret))],
        "a link to a folder, then a file in it": [link_entry(f"{shard}/x", str(outside)), file_entry(f"{shard}/x/y")],
        "a link within": [link_entry(f"{shard}/x", "edge_config.json")],
        "a hard link": [link_entry(f"{shard}/x", str(secret), tarfile.LNKTYPE)],
        "a chain of links longer than a path": long_chain(outside),
        "a link in the place of the lock": [link_entry(".lock", str(secret))],
        "a link in the place of the collections": [link_entry("collections", str(outside))],
        "a device": [kind_entry(f"{shard}/x", tarfile.CHRTYPE)],
        "a pipe": [kind_entry(f"{shard}/x", tarfile.FIFOTYPE)],
        "a sparse file": [kind_entry(f"{shard}/x", tarfile.GNUTYPE_SPARSE)],
        "an unknown kind": [kind_entry(f"{shard}/x", b"Z")],
        "a name twice": [file_entry("manifest.json"), file_entry("manifest.json")],
        "a file in the place of a folder": [file_entry(shard)],
        "a folder in the place of a file": [kind_entry("manifest.json", tarfile.DIRTYPE)],
        "a file without its folder": [file_entry(f"{shard}/none/x")],
        "a foreign file": [file_entry("notes.txt")],
        "a foreign file in the collection": [file_entry(f"collections/{collection}/x.py")],
        "a second collection": [kind_entry("collections/" + "0" * 32, tarfile.DIRTYPE)],
        "a folder of another form": [kind_entry("collections/docs", tarfile.DIRTYPE)],
        "a deep folder": [kind_entry(f"{shard}/" + "/".join("d" * 20), tarfile.DIRTYPE)],
        "a global header": [extended_header(record("path", "x"), tarfile.XGLTYPE)],
        "two extended headers": [extended_header(record("path", "x"))] * 2,
        "an extended header that is none": [extended_header(b"99 path=x\n"), file_entry("x")],
        "a negative length in it": [extended_header(b"-1 path=x\n"), file_entry("x")],
        "a size that is no number": [extended_header(record("size", "-5")), file_entry(f"{shard}/x")],
        "a long name of GNU": [(kind_entry("././@LongLink", tarfile.GNUTYPE_LONGNAME)[0], b"")],
        "no UTF-8": [extended_header(b"15 path=a\xff\xfe.b\n"), file_entry("x")],
    }
