"""A zip file that holds a document -> may it be unpacked?

Guarantees: decided by its directory alone, before anything is unpacked. What a part unpacks to is never more than its
entry says: Python's zip reader stops there. Does not know: what the parts are.
"""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring

from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import first_line

MOST_UNPACKED = 1 << 29
MOST_PART = 1 << 28
MOST_PARTS = 20_000
MOST_DIRECTORY = 1 << 23
_END = (1 << 16) + 200
MOST_RATIO = 200
"""Text packs ten to thirty times, and a sheet of equal cells a hundred times."""
SMALL = 1 << 23
"""A part that may be packed as densely as it likes."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file whose directory is no larger than that of a document.

    Raises:
        UnreadFileError: it is larger.
        zipfile.BadZipFile, OSError: as `zipfile` does.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END))
        end = file.read(_END)
    if _directory_bytes(end) > MOST_DIRECTORY:
        raise UnreadFileError("too large", f"it says that it holds more than {MOST_PARTS:,} parts")
    return zipfile.ZipFile(path)


def _directory_bytes(end: bytes) -> int:
    """What the last record of a zip file says of its directory, which is read whole when it is opened."""
    at, wide = end.rfind(b"PK\5\6"), end.rfind(b"PK\6\6")
    size = int(struct.unpack_from("<I", end, at + 12)[0]) if 0 <= at <= len(end) - 16 else 0
    if 0 <= wide <= len(end) - 48:
        size = max(size if size < 0xFFFFFFFF else 0, int(struct.unpack_from("<Q", end, wide + 40)[0]))
    return size


def require_small(path: Path) -> None:
    """Raise `UnreadFileError` unless a zip file unpacks to what a document may be."""
    with open_zip(path) as archive:
        parts = archive.infolist()
    total = sum(part.file_size for part in parts)
    if len(parts) > MOST_PARTS or total > MOST_UNPACKED or any(_is_bomb(part) for part in parts):
        raise UnreadFileError(
            "too large", f"it unpacks to {total:,} bytes in {len(parts):,} parts: more than a document may have"
        )
    if any(part.flag_bits & 1 for part in parts):
        raise UnreadFileError("encrypted", "its parts are encrypted: save it without a password")


def _is_bomb(part: zipfile.ZipInfo) -> bool:
    return part.file_size > MOST_PART or part.file_size > max(SMALL, MOST_RATIO * part.compress_size)


def parsed_xml(content: bytes) -> Element:
    """The root of an XML file of a stranger.

    Raises:
        UnreadFileError: it is no XML, or declares entities, with which a kilobyte becomes a gigabyte.
    """
    # in UTF-16 the declaration has a NUL behind or before every letter
    if b"<!ENTITY" in content.replace(b"\0", b""):
        raise UnreadFileError("damaged", "its XML declares entities, which no document needs")
    try:
        return fromstring(content)
    except (ParseError, ValueError, LookupError) as error:
        raise UnreadFileError("damaged", f"its XML is broken: {first_line(error)}") from error
