"""A folder, a file or rows + a collection -> the collection holds their passages, and no stale ones.

Guarantees: as those of `qdrant_tools.sources`. A file that is there and could not be read this time is not gone: its
passages stay. Nothing is made or written if nothing at all could be read. Does not know: the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.tokens import token_counter
from llama_index_embed_plus.documents.passages import CutReport, passages_of
from llama_index_embed_plus.documents.reading import Source
from llama_index_embed_plus.documents.records import CutSettings, Document, ReadSettings, SkippedFile
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import InputError
from qdrant_tools.indexing import IndexReport, OnBad
from qdrant_tools.records import Encoder, Passage, Progress
from qdrant_tools.sources.in_step import SourceReport, check_name, remembered, sync
from qdrant_tools.sources.origin import SourceDocument

SHOWN = 3
"""Skipped files that a message names."""


@dataclass(frozen=True)
class FilesReport:
    """What became of files: what was stored, what was cut, and what was not read."""

    source: str
    stored: SourceReport
    cut: CutReport
    files: int
    """Files that were read."""
    skipped: tuple[SkippedFile, ...] = ()
    cut_before: CutSettings | None = None
    """How the source was cut the last time, if that was otherwise."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What was passed over on purpose: its kind -> how many files and folders."""
    encodings: Mapping[str, int] = field(default_factory=dict)
    """Encodings other than UTF-8 -> how many files."""
    unread_pages: Mapping[str, int] = field(default_factory=dict)
    """Pages of PDFs that were read otherwise: `without text`, `damaged` -> how many."""


class Files:
    """The documents of a folder, a file or rows, cut for an encoder: a stream that is read once.

    Raises:
        InputError: there is no such path, its name cannot name a source, or nothing at all can be read from it.
    """

    def __init__(
        self,
        path: Path | str,
        encoder: Encoder,
        *,
        read: ReadSettings | None = None,
        cut: CutSettings | None = None,
        only: Callable[[str], bool] | None = None,
    ) -> None:
        self.path, self.only = Path(path), only
        self.source = Source(self.path, read, only=only)
        check_name(self.source.name)
        self.settings = cut or CutSettings()
        self.report = CutReport()
        self._cutter = Cutter(token_counter(encoder), self.settings)
        self._unread: set[str] = set()
        self._empty: set[str] = set()
        self._known = 0
        documents = iter(self.source)
        first = next(documents, None)
        if first is None and only is None:
            raise InputError(f"{_shown(self.path)} holds no text to index{self._why()}")
        self._documents = _begun(first, documents)

    @property
    def place(self) -> str:
        """Where the source lies: the folder, or that of the file."""
        return _shown((self.path if self.path.is_dir() else self.path.parent).resolve())

    @property
    def share(self) -> float:
        """About which share of the bytes has been read so far."""
        return self.source.share

    @property
    def skipped(self) -> tuple[SkippedFile, ...]:
        return tuple(self.source.skipped)

    def __iter__(self) -> Iterator[SourceDocument]:
        for document in self._documents:
            yield SourceDocument(document.id, self._passages(document), document.file)
        for file in self.source.skipped:
            if file.reason == "empty":
                # it was read, and holds nothing any more
                name = self._below(file.path)
                self._empty.add(name)
                yield SourceDocument(f"{self.source.name}/{name}", (), name)

    def passages(self) -> Iterator[Passage]:
        """All passages, without their documents."""
        for document in self:
            yield from document.passages

    def unread(self, file: str) -> bool:
        """Whether a file, or a folder above it, is there and was not read so far."""
        skipped = self.source.skipped
        while self._known < len(skipped):
            each = skipped[self._known]
            self._known += 1
            if each.reason not in ("empty", "empty row"):
                self._unread.add(self._below(each.path))
        if not self._unread:
            return False
        return any(str(part) in self._unread for part in (PurePosixPath(file), *PurePosixPath(file).parents))

    def whole(self, file: str) -> bool:
        """Whether all of a file was read, so that what did not come of it is in it no more."""
        return file in self._empty or (file in self.source.read and not self.unread(file))

    def _passages(self, document: Document) -> Iterator[Passage]:
        return passages_of([document], self._cutter, self.report)

    def _below(self, path: str) -> str:
        """The path below the source of what was skipped, without the number of a row; "." for all of the source."""
        root = _shown(self.path if self.path.is_dir() else self.path.parent)
        if root != "." and not path.startswith(f"{root}/"):
            return "."
        name = path if root == "." else path.removeprefix(f"{root}/")
        head, _, tail = name.rpartition(":")
        return head if head and tail.isdecimal() else name

    def _why(self) -> str:
        if not self.source.skipped:
            return ""
        named = ", ".join(f"{each.path} ({each.reason})" for each in self.source.skipped[:SHOWN])
        return f": {len(self.source.skipped)} skipped, such as {named}"


def index_files(
    collection: Collection | None,
    files: Files,
    encoder: Encoder,
    *,
    delete_missing: bool = False,
    moved: bool = False,
    within: Callable[[str], bool] | Iterable[str] | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
    on_bad: OnBad = "raise",
    dry_run: bool = False,
    skip_duplicates: float | None = None,
) -> FilesReport:
    """Store what files hold; see `qdrant_tools.sources.in_step`. Without a collection it is a dry run for a new one.

    A file alone is a part of the source that its folder is: the others of its folder are left as they are.
    """
    source = files.source
    if within is None and not files.path.is_dir():
        within = (files.path.name,)
    if collection is None:
        added = 0
        for _ in files.passages():
            added += 1
            if progress is not None:
                progress(1)
        stored, before = SourceReport(IndexReport(added=added), files.report.documents), None
    else:
        known = remembered(collection).get(source.name)
        before = None if known is None else _settings_of(known.settings)
        stored = sync(
            collection,
            files,
            encoder,
            source=source.name,
            place=files.place,
            moved=moved,
            settings=asdict(files.settings),
            delete_missing=delete_missing,
            unread=files.unread,
            whole=files.whole,
            within=within,
            batch_size=batch_size,
            progress=progress,
            on_bad=on_bad,
            dry_run=dry_run,
            skip_duplicates=skip_duplicates,
        )
    otherwise = before if before != files.settings else None
    return FilesReport(
        source.name,
        stored,
        files.report,
        source.files,
        files.skipped,
        otherwise,
        dict(source.left_out.most_common()),
        dict(source.encodings.most_common()),
        dict(source.unread_pages),
    )


def _shown(path: Path) -> str:
    # bytes that are not UTF-8 as `\\xff`, as the reader of the files names what it skipped
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _settings_of(row: object) -> CutSettings | None:
    try:
        return CutSettings(**row) if isinstance(row, dict) and row else None
    except (TypeError, InputError, ValueError):  # another version's
        return None


def _begun(first: Document | None, rest: Iterator[Document]) -> Iterator[Document]:
    if first is not None:
        yield first
    yield from rest
