"""`embed-plus index`, `search` and `tune`: files -> a collection, a question -> hits, index settings -> figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, interrupted, print_json, say, show_hits
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    Overwrite,
    check_outputs,
    managed,
    opened,
)
from llama_index_embed_plus.documents import read_passages
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_query_texts
from llama_index_embed_plus.evaluate.retrieval.retrieval import Mode
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Encoder, Passage
from qdrant_tools.search.bm25 import Bm25, average_length
from qdrant_tools.tuning import TuningGrid, TuningReport, TuningTrial

app = typer.Typer()

MEASURED = 1000
"""Passages that say how long passages are."""

Numbers = Annotated[str | None, typer.Option(help="Values to try, with commas.")]


@app.command("index")
def index_command(
    source: Annotated[Path, typer.Argument(help="A folder of text files, a text file, or a .jsonl file.")],
    collection: Annotated[str, typer.Option(help="The collection to fill; made if it is not there.")],
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also read what links in the folder lead to outside it.")
    ] = False,
    lexical: Annotated[bool, typer.Option("--lexical", help="Keep their words too, when the collection is made.")] = (
        False
    ),
    stemming: Annotated[str | None, typer.Option(help="With --lexical: language whose endings do not count.")] = None,
    stop_words: Annotated[str | None, typer.Option(help="With --lexical: language whose stop words no query asks.")] = (
        None
    ),
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Embed passages and add them to a collection. Unchanged passages are skipped."""
    if not lexical and (stemming or stop_words):
        raise UsageError("--stemming and --stop-words say which words are kept: give --lexical too")
    bm25 = Bm25(stemming=stemming, stop_words=stop_words) if lexical else None
    passages = read_passages(source, follow_links=follow_links)
    encoder = open_encoder(model, backend=backend)
    reporter = ConsoleReporter()
    # counted here for the message of an interruption, which leaves no report
    stored = 0
    with managed(location, create=True) as manager:
        if bm25 is not None:
            passages = _with_words(manager, collection, encoder, bm25, passages)
        target = manager.ensure(collection, encoder)
        try:
            with reporter.step(f"index {source}", None) as advance:

                def progress(done: int) -> None:
                    nonlocal stored
                    stored += done
                    advance(done)

                report = target.index(passages, progress=progress)
        except KeyboardInterrupt:
            interrupted(f"{stored} passages are indexed; run the same command again to go on")
        with reporter.step("build hnsw", None):
            target.build_index()
    say(f"{collection}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged")
    if not report.added and not report.updated:
        say("nothing to do: every passage was already indexed")


def _with_words(
    manager: CollectionManager, name: str, encoder: Encoder, bm25: Bm25, passages: Iterator[Passage]
) -> Iterator[Passage]:
    """Make the collection with these words, or check that it has them; returns the passages, all of them."""
    if name in manager.names() or name in manager.aliases():
        has = manager.open(name).lexical
        if has is None or (has.stemming, has.stop_words) != (bm25.stemming, bm25.stop_words):
            kept = "no words" if has is None else f"stemming {has.stemming} and stop words {has.stop_words}"
            raise UsageError(
                f"collection {name!r} was made with {kept}, which cannot be changed: give the options it was made "
                "with, or index into a new collection"
            )
        return passages
    sample = list(islice(passages, MEASURED))
    length = average_length(passage.text for passage in sample)
    manager.ensure(name, encoder, settings=CollectionSettings(lexical=replace(bm25, average_length=length)))
    return chain(sample, passages)


@app.command("search")
def search_command(
    collection: Annotated[str, typer.Argument(help="The collection or alias to search.")],
    question: Annotated[str, typer.Argument(help="What to look for.")],
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 5,
    mode: Annotated[Mode, typer.Option(help="By meaning, by words, or by both.")] = "dense",
    exact: Annotated[bool, typer.Option(help="Search every vector instead of HNSW.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON lines.")] = False,
) -> None:
    """Search a collection and print the hits."""
    if exact and mode != "dense":
        raise UsageError(f"--exact is for --mode dense, not for {mode!r}")
    if mode == "lexical":
        with managed(location) as manager:  # words need no model
            (hits,) = manager.open(collection).search_lexical([question], k=k)
    else:
        with opened(collection, location, model, backend) as (docs, _):
            hits = (
                docs.search(question, k=k, exact=exact) if mode == "dense" else docs.search_hybrid([question], k=k)[0]
            )
    if not as_json:
        show_hits(question, hits)
        return
    for hit in hits:
        print_json(
            {"rank": hit.rank, "score": hit.score, "id": hit.id, "text": hit.text, "metadata": dict(hit.metadata)}
        )


@app.command("tune")
def tune_command(
    collection: Annotated[str, typer.Argument(help="A collection or alias.")],
    target_recall: Annotated[float, typer.Option(help="Share of the exact neighbours to be found.")] = 0.95,
    k: Annotated[int, typer.Option("-k", help="Among how many hits.")] = 10,
    queries: Annotated[
        Path | None, typer.Option(help="Real queries (text lines, or .jsonl with a text); else stored vectors ask.")
    ] = None,
    held_out: Annotated[int, typer.Option(help="How many stored vectors ask.")] = 200,
    hnsw_ef: Numbers = None,
    m: Numbers = None,
    quantization: Annotated[str | None, typer.Option(help="int8, binary, product, turbo; with commas.")] = None,
    oversampling: Numbers = None,
    keep: Annotated[bool, typer.Option("--apply/--no-apply", help="Keep the chosen setting with the collection.")] = (
        False
    ),
    plot: Annotated[Path | None, typer.Option(help="Draw recall against latency; needs the extra 'plot'.")] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Measure recall and latency of index settings against exact search, and name the cheapest that finds enough."""
    check_outputs(plot, overwrite=overwrite, inputs=[queries])
    grid = grid_of(hnsw_ef, m, quantization, oversampling)
    reporter = ConsoleReporter()
    with managed(location) as manager:
        # without an encoder: stored vectors can ask, and then no model is opened
        docs = manager.open(collection)
        vectors = None
        if queries is not None:
            encoder = open_encoder(model, backend=backend)
            docs.check(encoder)
            vectors = encoder.encode_queries(read_query_texts(queries))
        with reporter.step(f"tune {collection}", None) as advance:
            report = docs.tune(
                vectors, k=k, target_recall=target_recall, grid=grid, held_out=held_out, progress=advance
            )
        # where exact search is chosen, there is no setting of the graph to keep
        applied = keep and not report.chosen.exact
        if applied:
            with reporter.step("apply", None):
                docs.apply_tuning(report)
    if plot is not None:
        from llama_index_embed_plus.evaluate.plots.pages import recall_latency
        from llama_index_embed_plus.evaluate.plots.style import finish

        finish(recall_latency(None, report), plot, overwrite=overwrite)
    if as_json:
        print_json({**report.as_row(), "applied": applied})
        return
    _show(report)
    if plot is not None:
        say(f"wrote {plot}")
    if keep:
        say(f"kept with {report.collection}" if applied else "nothing to keep: search with exact=True")


def grid_of(hnsw_ef: str | None, m: str | None, quantization: str | None, oversampling: str | None) -> TuningGrid:
    """The grid that the options say; what they leave out is the usual one.

    Raises:
        UsageError: a value that is no number, or no kind of quantization.
    """
    values: dict[str, Any] = {}
    if hnsw_ef is not None:
        values["hnsw_ef"] = _values("--hnsw-ef", hnsw_ef, int)
    if m is not None:
        values["m"] = _values("--m", m, int)
    if quantization is not None:
        # None: what the collection has now takes part too
        values["quantization"] = (None, *_values("--quantization", quantization, Quantization))  # type: ignore[arg-type]
    if oversampling is not None:
        values["oversampling"] = _values("--oversampling", oversampling, float)
    return replace(TuningGrid(), **values)


def _values(option: str, text: str, parse: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(parse(value.strip()) for value in text.split(","))
    except (ValueError, InputError) as error:
        raise UsageError(f"{option} is {text!r}: {error}") from error


def _show(report: TuningReport) -> None:
    say(f"{report.collection}: {report.points} points, {report.queries} queries")
    say(f"{'setting':<34}{'recall@' + str(report.k):>10}{'p50 ms':>10}{'p95 ms':>10}{'queries/s':>11}")
    for trial in report.trials:
        mark = " *" if trial == report.chosen else ""
        figures = f"{trial.recall:>10.3f}{trial.p50_ms:>10.3f}{trial.p95_ms:>10.3f}{trial.queries_per_second:>11.0f}"
        say(f"{_label(trial):<34}{figures}{mark}")
    say(report.reason)


def _label(trial: TuningTrial) -> str:
    if trial.exact:
        return "exact"
    quantized = "" if trial.quantization == "none" else f" {trial.quantization} x{trial.oversampling:g}"
    return f"hnsw_ef={trial.hnsw_ef} m={trial.m}{quantized}"
