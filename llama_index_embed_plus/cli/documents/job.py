"""What one call of `embed-plus index` is to do, as often as it does it -> done, with a line that says how far it is.

Guarantees: a dry run makes nothing. Does not know: how the result is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from llama_index_embed_plus.cli.console import changing_line
from llama_index_embed_plus.cli.opened import command_of, managed
from llama_index_embed_plus.cli.words import Words
from llama_index_embed_plus.documents.records import CutSettings, ReadSettings
from llama_index_embed_plus.documents.sync.files import Files, FilesReport, index_files
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import LocationBusyError, LocationError, UsageError
from qdrant_tools.records import Progress
from qdrant_tools.search.bm25 import Bm25, average_length
from qdrant_tools.search.choosing import SearchReport
from qdrant_tools.search.fusion import Fusion

MEASURED = 1000
"""Passages that say how long passages are."""


@dataclass(frozen=True)
class Search:
    """What the options say of later searches: how they are made, or that nothing is to be chosen."""

    exact: bool
    hnsw_ef: int | None
    tune: bool

    def __post_init__(self) -> None:
        if (self.exact and self.hnsw_ef) or (not self.tune and (self.exact or self.hnsw_ef)):
            raise UsageError("--exact, --hnsw-ef and --no-tune say three ways to search: give one of them")

    def choose(self, collection: Collection) -> SearchReport | None:
        if not self.tune:
            return None
        return collection.choose_search(exact=self.exact or None, hnsw_ef=self.hnsw_ef)


@dataclass(frozen=True)
class Job:
    """What one call of the command is to do, as often as it does it."""

    path: Path
    collection: str
    location: str
    read: ReadSettings
    cut: CutSettings
    words: Words | None
    fusion: Fusion | None
    encoder: TextEncoder
    delete_missing: bool
    moved: bool
    dry_run: bool
    search: Search
    skip_duplicates: float | None

    def files(self, only: Callable[[str], bool] | None = None) -> Files:
        return Files(self.path, self.encoder, read=self.read, cut=self.cut, only=only)


def run_job(
    job: Job, files: Files, progress: Progress, *, within: Callable[[str], bool] | None = None
) -> tuple[FilesReport, SearchReport | None]:
    """Do it once, for the files `within`: what was done, and how later searches are made, unless nothing was chosen."""
    found = None
    with _target(job) as target, changing_line(f"index {job.path}") as tell:
        started, done = time.perf_counter(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(count)
            tell(_progress(done, time.perf_counter() - started, files.share))

        report = index_files(
            target,
            files,
            job.encoder,
            delete_missing=job.delete_missing,
            moved=job.moved,
            within=within,
            progress=advance,
            on_bad="count",
            dry_run=job.dry_run,
            skip_duplicates=job.skip_duplicates,
        )
        if target is not None and not job.dry_run:
            tell("building hnsw")
            target.build_index(choose=False)
            tell("measuring what a search finds")
            found = job.search.choose(target)
    return report, found


def _progress(done: int, seconds: float, share: float) -> str:
    """How many passages are stored, how fast, how much of the files was read for that, and how long the rest takes."""
    told = f"{done:,} passages, {done / max(seconds, 1e-9):,.0f}/s"
    if not 0 < share < 1:
        return told
    left = round(seconds * (1 - share) / share)
    return f"{told}, {share:.0%} of the files, {left // 60}:{left % 60:02d} left"


@contextmanager
def _target(job: Job) -> Iterator[Collection | None]:
    """The collection; None for a dry run for one that would be made."""
    with ExitStack() as opened:
        try:
            manager = opened.enter_context(managed(job.location, create=not job.dry_run))
        except LocationError as error:
            if isinstance(error, LocationBusyError) or not job.dry_run:
                raise
            yield None
            return
        if job.dry_run:
            there = job.collection in manager.names() or job.collection in manager.aliases()
            yield manager.open(job.collection, job.encoder) if there else None
            return
        if job.words is not None:
            _require_words(manager, job, job.words)
        target = manager.ensure(job.collection, job.encoder)
        yield target if job.fusion is None else target.keep_fusion(job.fusion)


def _require_words(manager: CollectionManager, job: Job, words: Words) -> None:
    """Make the collection with these words, or check that it has them."""
    if job.collection in manager.names() or job.collection in manager.aliases():
        _require_same_words(job, words, manager.open(job.collection).lexical)
        return
    # read once more for that: how long passages are must be known before the first is stored
    length = average_length(passage.text for passage in islice(job.files().passages(), MEASURED))
    settings = CollectionSettings(lexical=replace(words.bm25, average_length=length))
    manager.ensure(job.collection, job.encoder, settings=settings)


def _require_same_words(job: Job, words: Words, has: Bm25 | None) -> None:
    add = ("collection add-lexical", job.collection, *words.asked)
    if has is None:
        raise UsageError(
            f"collection {job.collection!r} keeps no words yet: embed-plus {command_of(*add, location=job.location)} "
            "adds them, embedding nothing again; then index without --lexical"
        )
    if words.differ_from(has):
        again = command_of(*add, "--again", location=job.location)
        raise UsageError(
            f"collection {job.collection!r} was made with stemming {has.stemming}, stop words {has.stop_words}, k1 "
            f"{has.k1:g} and b {has.b:g}: leave out what differs, or have its words counted anew, embedding nothing: "
            f"embed-plus {again}"
        )
