"""A file, packed by gzip or not -> its bytes, and how far it was read.

Guarantees: memory is that of one block. A packed file that was cut gives what can be unpacked, and says that it was
cut; one that is damaged is an error. Does not know: what the bytes mean.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from qdrant_tools.errors import InputError, first_line
from qdrant_tools.files.json_files import open_regular

_BLOCK = 1 << 18


class Unpacked(io.RawIOBase):
    """The bytes of a file; `stream` reads them in blocks.

    Raises:
        InputError: it is no regular file, or no packed one though its name says so.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_regular(path)
        is_packed = self._file.read(2) == b"\x1f\x8b"
        self._file.seek(0)
        self._bytes: Any = gzip.GzipFile(fileobj=self._file) if is_packed else self._file
        self.last = b""
        """The last byte that was read."""
        self.position = 0
        self.cut = self.at_end = False
        self.stream = cast(BinaryIO, io.BufferedReader(self, _BLOCK))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._bytes.seek(offset, whence))

    def tell(self) -> int:
        return int(self._bytes.tell())

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        try:
            # one block at a time: of a file that was cut, what came before the cut is not lost
            block = self._bytes.read1(len(view))
        except EOFError:
            block, self.cut = b"", True
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{self._path} is no file of gzip that can be unpacked ({first_line(error)}): write it again"
            ) from error
        view[: len(block)] = block
        self.last = block[-1:] or self.last
        self.at_end = not block
        self.position = self._file.tell()
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._bytes.close()
            self._file.close()
        super().close()


def unpacked(path: Path) -> BinaryIO:
    """A file to read, unpacked on the way. Raises as `Unpacked`, and where a packed file was cut."""
    return _Whole(path).stream


class _Whole(Unpacked):
    """A packed file that must not have been cut."""

    def readinto(self, buffer: object) -> int:
        count = super().readinto(buffer)
        if self.cut:
            raise InputError(f"{self._path} was cut: what is packed in it goes on behind its end; write it again")
        return count
