"""A folder, a file or rows -> documents: what may be read is read, and everything else is named with its reason.

Guarantees: the same files give the same documents in the same order, streamed, never all in memory; one file that
cannot be read never ends the run. A document is given when its file has been read to its end, but texts of more than
`AT_ONCE` bytes, which are given while they are read. What a folder's links lead to outside it is not read unless that
is asked for. Does not know: tokens, encoders, collections.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.tokens import token_counter
from llama_index_embed_plus.documents.files.encodings import require_encoding
from llama_index_embed_plus.documents.files.formats import HEAD, Format, format_of, type_of
from llama_index_embed_plus.documents.files.items import Item
from llama_index_embed_plus.documents.files.process import ReaderProcess
from llama_index_embed_plus.documents.files.spool import Spool
from llama_index_embed_plus.documents.files.walking import Found, Walk, shown
from llama_index_embed_plus.documents.passages import CutReport, passages_of
from llama_index_embed_plus.documents.readers.foreign import read_with
from llama_index_embed_plus.documents.readers.plain import PLAIN, plain_blocks
from llama_index_embed_plus.documents.records import Block, CutSettings, Document, ReadSettings, Reason, SkippedFile
from llama_index_embed_plus.documents.row_files import SUFFIXES
from llama_index_embed_plus.documents.rows import documents_of, is_rows
from llama_index_embed_plus.errors import MissingExtraError, UnreadFileError
from qdrant_tools.errors import InputError, PlusError, UsageError, first_line
from qdrant_tools.files.json_files import open_regular
from qdrant_tools.records import Encoder, Passage
from qdrant_tools.validation import is_unicode

logger = logging.getLogger(__name__)

_LONGEST = 500
"""Characters of a fact that a file says of itself."""
AT_ONCE = 1 << 24
"""Bytes of a text that is read as a whole before it is given."""


def require_there(path: Path) -> None:
    """Refuse a path that leads nowhere, before anything is opened for it.

    Raises:
        InputError: there is no such folder or file.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: expected a folder, a file, or rows (.jsonl, .csv, .parquet)")


class Source:
    """The documents of a folder, a file or rows. What was not read is in `skipped` once they have been iterated."""

    def __init__(
        self, path: Path, settings: ReadSettings | None = None, *, only: Callable[[str], bool] | None = None
    ) -> None:
        """only: whether a file is to be read now, by its path below the source; the others are passed over unsaid.

        Raises `InputError` if there is no such folder or file, or if the settings cannot be used.
        """
        require_there(path)
        self.path, self.settings, self.only = path, settings or ReadSettings(), only
        self.name = self.settings.name or _name_of(path)
        self.encoding = require_encoding(self.settings.encoding) if self.settings.encoding else None
        self.files = 0
        """Files read so far."""
        self.read: set[str] = set()
        """Those of them that were read to their end, by their paths below the source."""
        self.skipped: list[SkippedFile] = []
        self.unread_pages: Counter[str] = Counter()
        """Pages of PDFs that were read otherwise: `without text` (pictures, or empty) and `damaged`."""
        self.left_out: Counter[str] = Counter()
        """What was passed over as a kind: hidden files, `node_modules`, what patterns leave out ..."""
        self.encodings: Counter[str] = Counter()
        """How many texts were in another encoding than UTF-8."""
        self._bytes, self._bytes_read = 0, 0.0

    @property
    def share(self) -> float:
        """About which share of the bytes has been read; 0 before anything is, and 1 at the end."""
        return min(self._bytes_read / self._bytes, 1.0) if self._bytes else 0.0

    def __iter__(self) -> Iterator[Document]:
        self.files, self.skipped, self.left_out, self.encodings = 0, [], Counter(), Counter()
        self.unread_pages.clear()
        self.read = set()
        with ReaderProcess(self.settings.patience) as process:
            files = [file for file in self._found() if self.only is None or self.only(file.name)]
            sizes = [_size(file.path) for file in files]
            self._bytes, self._bytes_read, before = sum(sizes), 0.0, 0
            for file, size in zip(files, sizes, strict=True):
                self._bytes_read = float(before)
                before += size
                try:
                    for document in self._documents(file, process):
                        yield replace(document, file=file.name)
                    self.files += 1
                    self.read.add(file.name)
                except UnreadFileError as error:
                    if not self.path.is_dir():
                        if error.reason == "no field":
                            # it names the file and the line itself
                            raise
                        raise InputError(f"{shown(file.path)} is not read ({error.reason}): {error}") from error
                    self._skip(file.path, error.reason, str(error))
                except UsageError:
                    # what was asked for is wrong for every file
                    raise
                except PlusError as error:
                    if not self.path.is_dir():
                        raise
                    missing = isinstance(error, MissingExtraError)
                    self._skip(file.path, "needs an extra" if missing else "damaged", str(error))
                except OSError as error:
                    if not self.path.is_dir():
                        raise InputError(f"cannot read {shown(file.path)}: {error.strerror}") from error
                    gone = isinstance(error, FileNotFoundError)
                    self._skip(file.path, "unreadable", "it is gone" if gone else str(error.strerror))
            self._bytes_read = float(before)

    def counts(self) -> dict[Reason, int]:
        """How many files were skipped for each reason, the most frequent first."""
        return dict(Counter(each.reason for each in self.skipped).most_common())

    def require_complete(self) -> None:
        """Raise `InputError` if anything was skipped; to be called when the documents have been iterated."""
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts().items())
            first = self.skipped[0]
            raise InputError(
                f"{len(self.skipped)} of {self.path} not read ({reasons}), the first {first.path}: {first.reason}, "
                f"{first.detail or 'no more is known'}"
            )

    def _found(self) -> list[Found]:
        if not self.path.is_dir():
            return [Found(self.path, self.path.name)]
        walk = Walk(self.path, self.settings)
        files = walk.files()
        self.skipped, self.left_out = walk.skipped, walk.left_out
        return files

    def _documents(self, file: Found, process: ReaderProcess) -> Iterator[Document]:
        if not is_unicode(file.name):
            raise UnreadFileError("name", "its name is not UTF-8, and ids are made of names: rename it")
        if self._is_rows(file.path):
            bad = None if file.path == self.path else self.skipped.append
            told = self.skipped.append
            name = f"{self.name}/{file.name}"
            documents = documents_of(file.path, self.settings, name=name, on_bad=bad, on_empty=told)
            yield from self._counted(file.path, documents)
            return
        for _ in range(2):
            before = _stamp(file.path)
            try:
                document = self._document(file, process)
            except UnreadFileError:
                # half a file is damaged, until it is whole
                if _stamp(file.path) == before:
                    raise
                continue
            if isinstance(document.blocks, _Streamed) or _stamp(file.path) == before:
                yield document
                return
        raise UnreadFileError("changed", "it changes while it is read: index again when it is complete")

    def _counted(self, path: Path, rows: Iterable[Document]) -> Iterator[Document]:
        """The documents of a file of rows, whose share says how many of its lines were read."""
        per_row = None
        for row in rows:
            if per_row is None:  # not before: what is no file of rows, a pipe say, has been refused by now
                per_row = _size(path) / max(_lines(path), 1)
            yield row
            self._bytes_read += per_row

    def _is_rows(self, path: Path) -> bool:
        asked = (self.settings.id_field, self.settings.text_field) != (None, None)
        suffix = path.suffix.lower()
        if suffix in self.settings.readers:
            return False
        return is_rows(path, self.settings) or (path == self.path and asked and suffix in SUFFIXES)

    def _document(self, file: Found, process: ReaderProcess) -> Document:
        with _open(file.path) as stream:
            status = os.fstat(stream.fileno())
            head = stream.read(HEAD)
        if not head:
            raise UnreadFileError("empty", "it has no bytes")
        own = self.settings.readers.get(file.path.suffix.lower())
        kind = format_of(file.path, head) if own is None else Format("", type_of(file.path))
        facts = _facts(self.name, file, status, kind)
        if own is not None:
            return self._collected(file, facts, _own_items(own, file.path))
        if kind.reader not in PLAIN:
            return self._collected(file, facts, process.read(kind.reader, file.path, self.encoding))
        if status.st_size > AT_ONCE:
            return self._streamed(file, kind, facts)
        with _open(file.path) as stream:
            # reading takes the memory that is asked for, however short the file is
            most = min(os.fstat(stream.fileno()).st_size, AT_ONCE) + 1
            encoding, blocks = plain_blocks(kind.reader, BytesIO(stream.read(most)), self.encoding)
        return self._made(file, facts, encoding.note, blocks)

    def _made(self, file: Found, facts: dict[str, Any], note: str | None, blocks: Iterable[Block]) -> Document:
        blocks = iter(blocks)
        first = next(blocks, None)
        if first is None:
            raise UnreadFileError("empty", "it has no text")
        if note:
            self.encodings[note] += 1
            facts["encoding"] = note
        return Document(f"{self.name}/{file.name}", chain([first], blocks), facts)

    def _collected(self, file: Found, facts: dict[str, Any], items: Iterable[Item]) -> Document:
        spool = Spool()
        more: dict[str, Any] = {}
        for item in items:
            if isinstance(item, Block):
                spool.append(item)
            else:
                more.update(
                    (name, value[:_LONGEST] if isinstance(value, str) else value) for name, value in item.items()
                )
        if not spool:
            raise UnreadFileError("empty", "it has no text")
        if note := more.get("encoding"):
            self.encodings[note] += 1
        for name, fact in (("without text", "pages_without_text"), ("damaged", "damaged_pages")):
            if count := more.get(fact):
                self.unread_pages[name] += count
        # what a file says of itself does not hide where it is
        return Document(f"{self.name}/{file.name}", spool, {**more, **facts})

    def _streamed(self, file: Found, kind: Format, facts: dict[str, Any]) -> Document:
        before = _stamp(file.path)
        stream = _open(file.path)
        try:
            encoding, blocks = plain_blocks(kind.reader, stream, self.encoding)
            document = self._made(file, facts, encoding.note, blocks)
        except BaseException:
            stream.close()
            raise

        def rest() -> Iterator[Block]:
            with stream:
                try:
                    yield from document.blocks
                except (UnreadFileError, OSError) as error:
                    self._skip(file.path, "changed", f"only its beginning was read: {first_line(error)}")
                    return
            if _stamp(file.path) != before:
                self._skip(file.path, "changed", "it changed while it was read: index again when it is complete")

        return Document(document.id, _Streamed(rest()), facts)

    def _skip(self, path: Path, reason: Reason, detail: str = "") -> None:
        self.skipped.append(SkippedFile(shown(path), reason, detail))


class _Streamed:
    """Blocks that are read from their file when they are asked for."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[Block]:
        return self._blocks


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except InputError as error:
        raise UnreadFileError("unreadable", "it is a pipe, a socket or a device") from error


def _own_items(reader: Any, path: Path) -> Iterator[Item]:
    try:
        yield from read_with(reader, path)
    except (PlusError, OSError):
        raise
    except Exception as error:  # of a user's reader, which one file must not let end the run
        raise UnreadFileError("damaged", f"its reader stumbled over it: {first_line(error)}") from error


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _facts(source: str, file: Found, status: os.stat_result, kind: Format) -> dict[str, Any]:
    """What LlamaIndex says of a file too, and where it lies in its source."""
    facts = {
        "source": source,
        "file_path": file.name,
        "file_name": file.path.name,
        "file_type": kind.type,
        "file_size": status.st_size,
        "last_modified_date": datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%d"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def read_passages(
    source: Path | str,
    encoder: Encoder | None = None,
    *,
    read: ReadSettings | None = None,
    cut: CutSettings | None = None,
    report: CutReport | None = None,
    whole_rows: bool = False,
) -> Iterator[Passage]:
    """Yield the passages of a folder, a file or rows, cut to what `encoder` reads. What is not read is warned of.

    whole_rows: a row is one passage, however long, as judgements name it; files are cut all the same. Without an
        encoder there are rows only.

    Raises:
        InputError: there is no such file, it holds no text, or (for a single file) it cannot be read; or it is no file
            of rows, and there is no encoder to cut it for.
    """
    documents = Source(Path(source), read)
    cutter = None if encoder is None else Cutter(token_counter(encoder), cut or CutSettings())
    passages = (
        passages_of(documents, cutter, report)
        if cutter is not None and not whole_rows
        else (passage for document in documents for passage in _with_whole_rows(document, cutter, report))
    )
    first = next(passages, None)
    if first is None:
        raise InputError(f"{source} holds no text to index")
    yield first
    yield from passages
    if documents.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in documents.counts().items())
        logger.warning(
            "%s: %d files or rows were not read (%s), such as %s",
            *(source, len(documents.skipped), counts, documents.skipped[0].path),
        )


def _with_whole_rows(document: Document, cutter: Cutter | None, report: CutReport | None) -> Iterable[Passage]:
    if document.text is not None:
        return [Passage(document.id, document.text, document.metadata)]
    if cutter is None:
        raise InputError(
            f"{document.id} is a text, and which passages it has depends on an encoder: give rows (.jsonl, .csv or "
            ".parquet, with the ids that are judged), or an encoder to cut it for"
        )
    return passages_of([document], cutter, report)


def _name_of(path: Path) -> str:
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return folder.name or "root"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it says why
        return 0


def _lines(path: Path) -> int:
    """Lines of a text, which is what a row takes in most files; a gigabyte takes a second."""
    try:
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0
