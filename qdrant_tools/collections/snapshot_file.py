"""The folder of one collection -> a snapshot file, and a snapshot file that somebody else made -> such a folder.

The file is a tar archive with gzip: first `snapshot.json`, which says what it holds, then the location's own files.

Guarantees: nothing of an archive is believed. Only regular files and folders are read, under the names that a location
has, and each is made anew, so that no entry can replace another one or lead elsewhere. An archive cannot take more
memory than a few blocks, nor more of the disk than `Allowance` says; the rest of it is not read then. The checksum of
the whole is compared. Blocks of zeros become holes. What is packed here can be unpacked again. Does not know: the
engine; whether the files make a collection.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from qdrant_tools.errors import DamagedCollectionError, LocationError, NotSupportedError, first_line
from qdrant_tools.files.json_files import open_regular, parse_json

HEADER = "snapshot.json"
FORMAT = "embed-plus snapshot 1"
LEFT_OUT = frozenset({HEADER, ".reserve", ".lock"})
MOST_HEADER = 1 << 16  # bytes; a header has a collection's name and a few numbers
MOST_EXTENDED = 1 << 14  # bytes of a tar entry's extended header, which has a path and a time
MOST_ENTRIES = 20_000
PACKED_ENTRY = 512  # bytes that a file of a collection takes at least when packed, where there are very many
MOST_FILLING = 1 << 20  # bytes of zeros after the last file; tar writes 10 kB
DEEPEST = 12
TAR_BLOCK = 512
BLOCK = 1 << 20
PACKED_BLOCK = 1 << 16
PAGE = 4096
RATIO = 64  # how many times smaller real vectors and payloads may be when packed; a tenth of that is usual
HOLES_RATIO = 250  # and zeros, at the lightest compression, which is what `pack` uses
ZEROS = bytes(BLOCK)
KEPT_FREE = 64 << 20  # bytes of the disk that unpacking leaves free
SPACE_CHECKED = 16 << 20  # bytes written between two looks at the free space

_ROOT_FILES = frozenset({".lock", "manifest.json", "manifest.previous.json"})
_FOLDER = re.compile(r"[0-9a-f]{32}")
_FOLDER_FILES = frozenset({"collection.json", "seal.json", "guard.json", "progress.bin", "touched.bin"})
# what a vector's name, which is part of a file's name, cannot hold either
_FORBIDDEN = re.compile(r'[\x00\x1f<>:"\\|?*]')


@dataclass(frozen=True)
class Allowance:
    """What a file of `packed` bytes may hold. Real data is a few times smaller when packed, holes a thousand times.

    `pages` are bytes of pages that are not all zeros. The engine preallocates files of 32 MB.
    """

    packed: int

    @property
    def pages(self) -> int:
        return (16 << 20) + RATIO * self.packed

    @property
    def one_file(self) -> int:
        return (64 << 20) + RATIO * self.packed

    @property
    def all_files(self) -> int:
        return (512 << 20) + HOLES_RATIO * self.packed

    def allows(self, content: Content) -> bool:
        return (
            content.pages <= self.pages
            and content.largest <= self.one_file
            and content.bytes <= self.all_files
            and content.entries <= MOST_ENTRIES + self.packed // PACKED_ENTRY
        )


@dataclass
class Content:
    """What was packed or unpacked so far."""

    pages: int = 0
    largest: int = 0
    bytes: int = 0
    entries: int = 0

    def begin(self, size: int) -> None:
        self.entries += 1
        self.bytes += size
        self.largest = max(self.largest, size)


# -- packing


def pack(root: Path, header: Mapping[str, Any], draft: Path) -> None:
    """Write the files below `root` to `draft`. Raises `OSError`."""
    content = _packed(root, header, draft, level=1)
    if not Allowance(draft.stat().st_size).allows(content):
        # so many equal vectors or texts that it would not be unpacked again: not compressed, then
        _packed(root, header, draft, level=0)


def _packed(root: Path, header: Mapping[str, Any], draft: Path, *, level: int) -> Content:
    content = Content()
    (root / HEADER).write_text(json.dumps({"format": FORMAT, **header}))
    with tarfile.open(draft, "w:gz", compresslevel=level) as tar:
        # the header first, so that it is found without reading the points
        for path in (root / HEADER, *sorted(path for path in root.rglob("*") if path.name not in LEFT_OUT)):
            entry = tar.gettarinfo(path, path.relative_to(root).as_posix())
            # nothing about the one who made it
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = int(entry.mtime)
            content.begin(entry.size)
            if path.is_dir():
                tar.addfile(entry)
            else:
                with path.open("rb") as file:
                    tar.addfile(entry, _Counted(file, content))
    return content


class _Counted:
    """A file that is read from its beginning; counts its pages that are not all zeros."""

    def __init__(self, file: IO[bytes], content: Content) -> None:
        self._file = file
        self._content = content

    def read(self, size: int = -1, /) -> bytes:
        block = self._file.read(size)
        self._content.pages += sum(len(page) for _, page in _pages(block))
        return block


def _pages(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The pages of a block that are not all zeros, with their offsets."""
    if block == ZEROS[: len(block)]:
        return
    for offset in range(0, len(block), PAGE):
        page = block[offset : offset + PAGE]
        if page != ZEROS[: len(page)]:
            yield offset, page


# -- unpacking


def unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Make the new `folder` from a snapshot file; returns its header.

    Raises:
        LocationError: there is no such file, or no room on the disk.
        NotSupportedError: it is no snapshot of the embedded engine, or of another format.
        DamagedCollectionError: it holds something else than a location's files, or too much of them.
    """
    try:
        with _opened(file) as packed:
            reader = _Reader(packed)
            entries = _entries(reader)
            header = _header(file, reader, entries)
            folder.mkdir(mode=0o700)
            _Unpacking(reader, folder, Allowance(os.fstat(packed.fileno()).st_size)).take(entries)
            return header
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise LocationError(f"no space left on the disk to unpack snapshot '{file}': free some") from error
        raise DamagedCollectionError(
            f"snapshot '{file}' is damaged or no snapshot ({first_line(error)}): use another"
        ) from error


def _opened(file: Path) -> BinaryIO:
    try:
        return open_regular(file, DamagedCollectionError)
    except FileNotFoundError as error:
        raise LocationError(f"no snapshot file '{file}'") from error


def _header(file: Path, reader: _Reader, entries: Iterator[_Entry]) -> dict[str, Any]:
    first = next(entries, None)
    if first is None or first.name != HEADER or first.is_folder:
        raise NotSupportedError(
            f"'{file}' is no snapshot of the embedded engine: a server's snapshot goes to a server by its URL; "
            "to bring a collection here, connect to that server and use copy_collection"
        )
    if first.size > MOST_HEADER:
        raise ValueError(f"its {HEADER} has {first.size} bytes, expected at most {MOST_HEADER}")
    header = parse_json(reader.exactly(first.size), HEADER)
    reader.skip_padding(first.size)
    if not isinstance(header, dict):
        raise ValueError(f"its {HEADER} holds no object")
    if header.get("format") != FORMAT:
        raise NotSupportedError(f"'{file}' has another format than {FORMAT!r}: upgrade")
    return header


class _Reader:
    """The bytes of a file, unpacked if it is packed. Never more of them than asked for are in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        # "gunzip" makes a plain archive of it
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if is_packed else None

    def some(self, most: int) -> bytes:
        """Up to `most` bytes; none at the end, whose checksum is right. Raises `zlib.error`, `EOFError`."""
        if self._inflate is None:
            return self._file.read(most)
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(PACKED_BLOCK)
            if not packed:
                raise EOFError("it ends too early")
            if block := self._inflate.decompress(packed, most):
                return block
        if self._inflate.unused_data or self._file.read(1):
            raise ValueError("something follows its end")
        return b""

    def exactly(self, size: int) -> bytes:
        """So many bytes; for small pieces. Raises `EOFError`."""
        read = bytearray()
        while len(read) < size:
            block = self.some(size - len(read))
            if not block:
                raise EOFError("it ends too early")
            read += block
        return bytes(read)

    def skip_padding(self, size: int) -> None:
        """Content of so many bytes is filled up to a whole number of blocks."""
        self.exactly(-size % TAR_BLOCK)


@dataclass(frozen=True)
class _Entry:
    """One file or folder of an archive. The file's content follows in the reader, and its taker reads all of it."""

    name: str
    size: int
    is_folder: bool


def _entries(reader: _Reader) -> Iterator[_Entry]:
    """The entries up to the end of the archive, which is read to the end of the file."""
    extended: dict[str, bytes] = {}
    while (block := reader.exactly(TAR_BLOCK)) != ZEROS[:TAR_BLOCK]:
        # one block of 512 bytes, with a checksum; tarfile's own loop would read what follows without a limit
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        if entry.type == tarfile.XHDTYPE and not extended:
            if not 0 < entry.size <= MOST_EXTENDED:
                raise ValueError(f"an extended header has {entry.size} bytes, expected at most {MOST_EXTENDED}")
            extended = _records(reader.exactly(entry.size))
            reader.skip_padding(entry.size)
            continue
        if not (entry.isreg() and entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) and not entry.isdir():
            raise ValueError(f"{entry.name[:200]!r} is no regular file and no folder")
        name = extended["path"].decode() if "path" in extended else entry.name
        size = _number(extended["size"]) if "size" in extended else entry.size
        if size < 0 or (entry.isdir() and size):
            raise ValueError(f"{name[:200]!r} has {size} bytes")
        yield _Entry(name, size, entry.isdir())
        extended = {}
    # tar fills a file up with zeros, to a whole number of its records
    filled = 0
    while rest := reader.some(BLOCK):
        filled += len(rest)
        if filled > MOST_FILLING or rest != ZEROS[: len(rest)]:
            raise ValueError("something follows its last file")


def _records(content: bytes) -> dict[str, bytes]:
    """The records of an extended header: "length key=value", each with its line end."""
    records = {}
    while content:
        digits = content.partition(b" ")[0]
        length = _number(digits)
        record, end = content[len(digits) + 1 : length - 1], content[length - 1 : length]
        key, equals, value = record.partition(b"=")
        if not equals or end != b"\n":
            raise ValueError("an extended header cannot be read")
        records[key.decode()] = value
        content = content[length:]
    return records


def _number(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,15}", digits):
        raise ValueError(f"{digits[:20]!r} is no number")
    return int(digits)


class _Unpacking:
    """The files of an archive on their way into a folder."""

    def __init__(self, reader: _Reader, folder: Path, allowance: Allowance) -> None:
        self._reader = reader
        self._folder = folder
        self._allowance = allowance
        self._content = Content()
        self._collection = ""
        self._unchecked = SPACE_CHECKED

    def take(self, entries: Iterator[_Entry]) -> None:
        for entry in entries:
            self._content.begin(entry.size)
            self._require_allowed()
            place = self._place(entry)
            if place is None:  # the folder itself
                continue
            if entry.is_folder:
                (self._folder / place).mkdir(mode=0o700)
            else:
                self._write(self._folder / place, entry.size)

    def _require_allowed(self) -> None:
        if not self._allowance.allows(self._content):
            raise ValueError(
                f"it holds more than {self._allowance.packed:,} packed bytes do in any collection; if it is yours and "
                "holds many equal rows, unpack it with gunzip and restore that file"
            )

    def _place(self, entry: _Entry) -> PurePosixPath | None:
        """Where an entry goes; None for the folder itself. Raises `ValueError` for a name that no location has."""
        parts = tuple(entry.name.removeprefix("./").rstrip("/").split("/"))
        if entry.is_folder and parts in ((".",), ("",)):
            return None
        if not all(_is_name(part) for part in parts) or not self._is_ours(parts, is_folder=entry.is_folder):
            raise ValueError(f"it holds {entry.name[:200]!r}, which is no file of a collection")
        return PurePosixPath(*parts)

    def _is_ours(self, parts: tuple[str, ...], *, is_folder: bool) -> bool:
        if len(parts) == 1:
            return parts[0] == "collections" if is_folder else parts[0] in _ROOT_FILES
        if parts[0] != "collections" or not _FOLDER.fullmatch(parts[1]):
            return False
        self._collection = self._collection or parts[1]
        if parts[1] != self._collection or len(parts) > DEEPEST:
            return False
        if len(parts) == 2:
            return is_folder
        if len(parts) == 3:
            return parts[2] == "shard" if is_folder else parts[2] in _FOLDER_FILES
        return parts[2] == "shard"

    def _write(self, path: Path, size: int) -> None:
        # O_EXCL: an entry of the same name, also one that only this file system takes for the same, is an error
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            at = 0
            while at < size:
                block = self._reader.exactly(min(BLOCK, size - at))
                for offset, page in _pages(block):
                    self._count(len(page))
                    file.seek(at + offset)
                    file.write(page)
                at += len(block)
            file.truncate(size)
        self._reader.skip_padding(size)

    def _count(self, written: int) -> None:
        self._content.pages += written
        self._unchecked += written
        if self._content.pages > self._allowance.pages:
            self._require_allowed()
        if self._unchecked >= SPACE_CHECKED:
            self._unchecked = 0
            if shutil.disk_usage(self._folder).free < KEPT_FREE + SPACE_CHECKED:
                raise OSError(errno.ENOSPC, "no space left on the disk")


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and not _FORBIDDEN.search(part) and len(part.encode()) <= 255
