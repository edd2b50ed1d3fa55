"""`embed-plus search` and `tune`: a question -> hits, settings -> figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, note, print_json, say
from llama_index_embed_plus.cli.documents.hits import (
    Shown,
    are_repeated,
    by_document,
    by_field,
    row_of,
    show_hits,
    show_stretches,
    why_nothing,
)
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    Overwrite,
    changing_step,
    check_outputs,
    check_picture,
    command_of,
    is_read_only,
    managed,
    opened,
)
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_query_texts
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from llama_index_embed_plus.evaluate.retrieval.retrieval import Mode
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.records import HeldOut, Hit
from qdrant_tools.search.hybrid import lexical_of
from qdrant_tools.search.written import read_field, written_filter
from qdrant_tools.sources.stored import with_origins
from qdrant_tools.tuning import TuningGrid, TuningReport, TuningTrial

app = typer.Typer()

Numbers = Annotated[str | None, typer.Option(help="Values to try, with commas; without it, the usual ones.")]


@app.command("search")
def search_command(
    collection: Annotated[str, typer.Argument(help="The collection or alias to search.")],
    question: Annotated[str, typer.Argument(help="What to look for.")],
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits, or documents, are printed.")] = 5,
    mode: Annotated[
        Mode, typer.Option(help="How to search: by meaning (dense), by words (lexical), or by both (hybrid).")
    ] = "dense",
    exact: Annotated[
        bool | None,
        typer.Option(help="Compare with every vector, or walk the HNSW graph; without it, as the collection does."),
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Only where metadata are like this: author=Ann, year>=2020; may be given again."),
    ] = None,
    grouped: Annotated[bool, typer.Option("--by-document", help="Each document once, by its best passage.")] = False,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Show each value of this metadata field once, by its best passage: author, ('author', 'id')."
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print the whole text of each hit.")] = False,
    around: Annotated[int, typer.Option(min=0, help="Print so many passages before and after each hit too.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON lines.")] = False,
) -> None:
    """Search a collection and print where each hit comes from, and the sentences nearest to the question."""
    if exact is not None and mode != "dense":
        raise UsageError(f"--exact and --no-exact are for --mode dense, not for {mode!r}")
    if grouped and group_by is not None:
        raise UsageError("--by-document and --group-by say two ways to group: give one of them")
    # words need no model
    with managed(location) if mode == "lexical" else opened(collection, location, model, backend) as door:
        docs = door.open(collection) if isinstance(door, CollectionManager) else door[0]
        wanted = written_filter(conditions or (), docs)

        def find(depth: int) -> list[Hit]:
            if mode == "dense":
                return with_origins(docs, docs.search(question, k=depth, exact=exact, filter=wanted))
            search = docs.search_lexical if mode == "lexical" else docs.search_hybrid
            return with_origins(docs, search([question], k=depth, filter=wanted)[0])

        if group_by is not None:
            shown = by_field(find, k, read_field(group_by))
        else:
            shown = by_document(find, k) if grouped else [Shown(hit) for hit in find(k)]
        stretches = docs.around([item.hit for item in shown], around) if around and shown else []
        nothing = "" if shown else why_nothing(docs, conditions or (), wanted)
    if nothing:
        (note if as_json else say)(nothing)
    elif as_json:
        stretch_of = {hit.id: stretch for stretch in stretches for hit in stretch.hits}
        for rank, item in enumerate(shown, start=1):
            print_json(row_of(rank, item, question, stretch_of.get(item.hit.id), around))
    elif stretches:
        show_stretches(question, stretches, shown)
    else:
        show_hits(question, shown, full=full)
        if not grouped and group_by is None and are_repeated([item.hit for item in shown]):
            say("a document stands here more than once: --by-document shows each once")


@app.command("tune")
def tune_command(
    collection: Annotated[str, typer.Argument(help="A collection or alias.")],
    target_recall: Annotated[float, typer.Option(help="The share of the exact neighbours that must be found.")] = 0.95,
    k: Annotated[int, typer.Option("-k", help="How many hits are looked at.")] = 10,
    queries: Annotated[
        Path | None, typer.Option(help="Real queries (text lines, or .jsonl with a text); else stored vectors ask.")
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(
            help="Judgements of the --queries, BEIR's TSV or TREC's qrels: choose BM25 and the fusion of a hybrid "
            "search by them, instead of the settings of the index."
        ),
    ] = None,
    held_out: Annotated[int, typer.Option(help="How many stored vectors ask, where there are no --queries.")] = 200,
    hnsw_ef: Numbers = None,
    m: Numbers = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            help="Quantizations to try, with commas: int8, binary, product, turbo. Without it, the collection's own."
        ),
    ] = None,
    oversampling: Numbers = None,
    keep: Annotated[bool, typer.Option("--apply/--no-apply", help="Keep the chosen setting with the collection.")] = (
        False
    ),
    plot: Annotated[
        Path | None, typer.Option(help="Draw recall against latency as a PNG; needs the extra 'plot'.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Measure recall and latency of index settings against exact search, and name the cheapest that finds enough."""
    if qrels is not None:
        of_index = {
            "hnsw-ef": hnsw_ef,
            "m": m,
            "quantization": quantization,
            "oversampling": oversampling,
            "plot": plot,
        }
        given = [name for name, value in of_index.items() if value is not None] + ["apply"] * keep
        if queries is None or given:
            way = f"leave out --{given[0]}" if given else "give --queries too, rows with an id and a text"
            raise UsageError(f"--qrels chooses the words and the fusion of a hybrid search: {way}")
        _tune_words(collection, read_held_out_files(queries, qrels), location, model, backend, k, as_json=as_json)
        return
    check_outputs(plot, overwrite=overwrite, inputs=[queries])
    check_picture(plot)
    grid = grid_of(hnsw_ef, m, quantization, oversampling)
    reporter = ConsoleReporter()
    with managed(location) as manager:
        # without an encoder: stored vectors can ask, and then no model is opened
        docs, read_only = manager.open(collection), is_read_only(manager)
        vectors = None
        if queries is not None:
            encoder = open_encoder(model, backend=backend)
            docs.check(encoder)
            vectors = encoder.encode_queries(read_query_texts(queries))
        with reporter.step(f"tune {collection}", None) as advance:
            report = docs.tune(
                vectors, k=k, target_recall=target_recall, grid=grid, held_out=held_out, progress=advance
            )
        if keep:
            with reporter.step("apply", None):
                docs.apply_tuning(report)
    if as_json:
        print_json({**report.as_row(), "applied": keep})
    else:
        _show(report)
    if plot is not None:
        from llama_index_embed_plus.evaluate.plots.pages import recall_latency
        from llama_index_embed_plus.evaluate.plots.style import finish

        finish(recall_latency(None, report), plot, overwrite=overwrite)
    if as_json:
        return
    if plot is not None:
        say(f"wrote {plot}")
    if not keep and not report.chosen.exact:
        command = command_of("tune", collection, "--target-recall", target_recall, "--apply", location=location)
        next_step(changing_step(command, collection, location, read_only=read_only))
    if keep:
        say(f"kept with {report.collection}: every search uses it")


def _tune_words(
    collection: str, held_out: HeldOut, location: str, model: str, backend: Backend, k: int, *, as_json: bool
) -> None:
    """Choose BM25 and the fusion by judged queries, and print what is proved."""
    from qdrant_tools.search.word_tuning import tune_words

    with managed(location) as manager:
        docs = manager.open(collection)
        lexical_of(docs)  # without words no model is opened
        encoder = open_encoder(model, backend=backend)
        with ConsoleReporter().step(f"tune {collection}", None):
            report = tune_words(docs, held_out, encoder, k=k)
    if as_json:
        print_json(report.as_row())
        return
    say(f"{report.collection}: {report.passages} passages, {report.queries} judged queries, nDCG@{report.k}")
    say(f"{'by vectors alone':<64}{report.dense:>8.4f}")
    say(f"{'by words alone, as they are':<64}{report.words:>8.4f}")
    hybrid = [trial for trial in report.trials if trial.fusion is not None]
    for trial in dict.fromkeys([*hybrid[:5], report.now]):
        mark = " now" if trial == report.now else ""
        say(f"{trial.setting:<64}{trial.ndcg:>8.4f}{mark}")
    say(report.reason)
    if report.proved:
        say(
            "in Python: CollectionSettings(lexical=Bm25(...)) when a collection is made, search_hybrid(..., fusion=...)"
        )


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
    except InputError as error:
        raise UsageError(f"{option} is {brief(text)}: {error}") from error
    except ValueError as error:
        example = "1.5,2" if parse is float else "64,128"
        raise UsageError(f"{option} is {brief(text)}, expected numbers with commas, such as {example}") from error


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
