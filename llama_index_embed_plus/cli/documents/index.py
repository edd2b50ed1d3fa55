"""`embed-plus index`: files -> passages -> a collection that holds what the files hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from llama_index_embed_plus.cli.console import interrupted, next_step
from llama_index_embed_plus.cli.documents.indexed import show
from llama_index_embed_plus.cli.documents.job import Job, Search, run_job
from llama_index_embed_plus.cli.documents.options import (
    Above,
    AsJsonWithSkipped,
    ChunkTokens,
    ContextOption,
    DeleteMissing,
    DryRun,
    Encoding,
    Exact,
    Exclude,
    Filled,
    FollowLinks,
    HnswEf,
    IdField,
    Include,
    Late,
    Lexical,
    MinTokens,
    Moved,
    Overlap,
    SkipDuplicates,
    SourceName,
    SourcePath,
    Strict,
    TextField,
    Tuned,
    Watch,
    Whole,
    settings_of,
)
from llama_index_embed_plus.cli.documents.watching import keep_in_step
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    command_of,
    managed,
)
from llama_index_embed_plus.cli.words import K1, B, FusionOption, Stemming, StopWords, Words, fusion_of
from llama_index_embed_plus.documents.reading import require_there
from llama_index_embed_plus.encoders.late import suited, with_late_chunking
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from qdrant_tools.client.connect import MEMORY, is_url
from qdrant_tools.errors import LocationBusyError, LocationError, UsageError
from qdrant_tools.records import Progress
from qdrant_tools.validation import checked_number

app = typer.Typer()


@app.command("index")
def index_command(
    collection: Filled,
    path: SourcePath,
    source: SourceName = None,
    moved: Moved = False,
    include: Include = None,
    exclude: Exclude = None,
    follow_links: FollowLinks = False,
    encoding: Encoding = None,
    id_field: IdField = None,
    text_field: TextField = None,
    chunk_tokens: ChunkTokens = None,
    min_tokens: MinTokens = None,
    overlap: Overlap = 0,
    context: ContextOption = "none",
    whole: Whole = False,
    delete_missing: DeleteMissing = False,
    watch: Watch = False,
    dry_run: DryRun = False,
    strict: Strict = False,
    lexical: Lexical = False,
    stemming: Stemming = None,
    stop_words: StopWords = None,
    k1: K1 = None,
    b: B = None,
    fusion: FusionOption = None,
    late: Late = False,
    exact: Exact = False,
    hnsw_ef: HnswEf = None,
    tune: Tuned = True,
    skip_duplicates: SkipDuplicates = False,
    above: Above = 0.95,
    as_json: AsJsonWithSkipped = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Bring a collection in step with files: embed what is new or changed, remove what changed files have no more."""
    words, fuse = Words(stemming, stop_words, k1, b), fusion_of(fusion)
    if not lexical and (words.given or fuse is not None):
        raise UsageError(f"{[*words.asked, '--fusion'][0]} says how passages are found by words: give --lexical too")
    search = Search(exact, hnsw_ef, tune)
    twice = above if skip_duplicates else None
    _check(path, location, above=twice, watch=watch, dry_run=dry_run, strict=strict)
    read, cut = settings_of(
        source=source,
        include=include,
        exclude=[*(exclude or ()), *_own_files(path, location)],
        follow_links=follow_links,
        encoding=encoding,
        id_field=id_field,
        text_field=text_field,
        chunk_tokens=chunk_tokens,
        min_tokens=min_tokens,
        overlap=overlap,
        context=context,
        whole=whole,
    )
    require_there(path)  # before seconds go into opening a model
    encoder = open_encoder(model, backend=backend)
    encoder = _suited(with_late_chunking(encoder) if late else encoder, collection, location)
    job = Job(
        path,
        collection,
        location,
        read,
        cut,
        words if lexical else None,
        fuse,
        encoder,
        delete_missing or watch,
        moved,
        dry_run,
        search,
        twice,
    )
    if watch:
        keep_in_step(job, as_json=as_json)
        return
    with _stoppable() as progress:
        report, found = run_job(job, job.files(), progress)
    show(job, report, found, as_json=as_json)
    if not as_json:
        next_step(_next(job, model))
    if report.stored.passages.failed or (strict and (report.skipped or report.unread_pages.get("damaged"))):
        raise typer.Exit(1)


def _check(path: Path, location: str, *, above: float | None, watch: bool, dry_run: bool, strict: bool) -> None:
    """Raise `UsageError` for options that contradict each other, before a model is opened."""
    if location == MEMORY and not dry_run:
        raise UsageError(
            "--location :memory: keeps nothing when the command ends, so nothing could be searched: give a folder or a "
            "server, or --dry-run to see what would be indexed"
        )
    if above is not None and dry_run:
        raise UsageError("a dry run embeds nothing, and knows no near-duplicates: leave out --skip-duplicates")
    if above is not None:
        checked_number("--above", above, above=0, most=1)
    if watch and (dry_run or strict or not path.is_dir()):
        raise UsageError("--watch goes on with every change of a folder: give a folder, no --dry-run and no --strict")


def _suited(encoder: TextEncoder, collection: str, location: str) -> TextEncoder:
    """The encoder, with late chunking if the collection is there and has it: the option is for its first run."""
    try:
        with managed(location) as manager:
            if collection in manager.names() or collection in manager.aliases():
                return suited(encoder, manager.open(collection).space)
    except LocationBusyError:
        raise
    except LocationError:
        pass  # nothing is there yet
    return encoder


def _next(job: Job, model: str) -> str:
    if job.dry_run:
        return command_of("index", job.collection, job.path, location=job.location, model=model)
    return command_of("search", job.collection, "your question", location=job.location, model=model)


@contextmanager
def _stoppable() -> Iterator[Progress]:
    """Progress for a run that Ctrl-C ends with a line that says how to go on."""
    # counted here for the message of an interruption, which leaves no report
    stored = 0

    def progress(done: int) -> None:
        nonlocal stored
        stored += done

    try:
        yield progress
    except KeyboardInterrupt:
        interrupted(f"{stored} passages are indexed; run the same command again to go on")


def _own_files(path: Path, location: str) -> list[str]:
    """A pattern for the folder of the collections, if it lies in the folder that is read."""
    if location == MEMORY or is_url(location) or not path.is_dir():
        return []
    own, root = Path(location).resolve(), path.resolve()
    return [f"/{own.relative_to(root).as_posix()}/"] if own != root and own.is_relative_to(root) else []
