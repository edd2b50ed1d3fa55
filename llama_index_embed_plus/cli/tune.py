"""`embed-plus tune`: settings of an index, or of words and fusion -> figures, and what to choose.

Does not know: how they are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, print_json, resumable, say
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
)
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_query_texts
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from qdrant_tools.client.connect import refuse_read_only
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.search.hybrid import lexical_of
from qdrant_tools.search.word_tuning import WordTuning, tune_words
from qdrant_tools.tuning import TuningGrid, TuningReport, TuningTrial

app = typer.Typer()

Numbers = Annotated[str | None, typer.Option(help="Values to try, with commas; without it, the usual ones.")]


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
            help="Judgements of the --queries, BEIR's TSV or TREC's qrels: choose k1 and b of BM25 and the fusion of a "
            "hybrid search by them, instead of the settings of the index."
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
    keep: Annotated[bool, typer.Option("--apply/--no-apply", help="Keep what is chosen with the collection.")] = (
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
    """Measure recall and latency of index settings against exact search, and name the cheapest that finds enough. With
    --qrels: measure what BM25's k1 and b and the fusions of a hybrid search are worth, and name the best."""
    if qrels is not None:
        of_index = {"hnsw-ef": hnsw_ef, "m": m, "quantization": quantization, "oversampling": oversampling}
        given = [name for name, value in {**of_index, "plot": plot}.items() if value is not None]
        if queries is None or given:
            way = f"leave out --{given[0]}" if given else "give --queries too, rows with an id and a text"
            raise UsageError(f"--qrels chooses the words and the fusion of a hybrid search: {way}")
        _tune_words(collection, (queries, qrels), location, model, backend, k, keep=keep, as_json=as_json)
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
    collection: str,
    judged: tuple[Path, Path],
    location: str,
    model: str,
    backend: Backend,
    k: int,
    *,
    keep: bool,
    as_json: bool,
) -> None:
    """Choose BM25 and the fusion by judged queries, print what is proved, and keep it if that is asked for."""
    held_out, reporter = read_held_out_files(*judged), ConsoleReporter()
    with managed(location) as manager:
        docs, read_only = manager.open(collection), is_read_only(manager)
        lexical_of(docs)  # without words no model is opened
        if keep:
            refuse_read_only(manager.client)
        encoder = open_encoder(model, backend=backend)
        with reporter.step(f"tune {collection}", None):
            report = tune_words(docs, held_out, encoder, k=k)
        applied = keep and report.proved
        if applied:
            _apply(docs, report, reporter)
    if as_json:
        print_json({**report.as_row(), "applied": applied})
        return
    _show_words(report)
    if applied:
        say(f"kept with {report.collection}: every hybrid search uses it")
    elif keep:
        say(f"nothing was changed in {report.collection}")
    elif report.proved:
        words = ("--queries", judged[0], "--qrels", judged[1], "--apply")
        command = command_of("tune", collection, *words, location=location, model=model)
        next_step(changing_step(command, collection, location, read_only=read_only))


def _apply(docs: Collection, report: WordTuning, reporter: ConsoleReporter) -> None:
    with (
        resumable("by vectors it is searched as before; `embed-plus collection add-lexical` counts its words anew"),
        reporter.step(f"keep {report.chosen.setting}", None, "passages") as advance,
    ):
        docs.apply_word_tuning(report, progress=advance)


def _show_words(report: WordTuning) -> None:
    say(f"{report.collection}: {report.passages} passages, {report.queries} judged queries, nDCG@{report.k}")
    say(f"{'by vectors alone':<64}{report.dense:>8.4f}")
    say(f"{'by words alone, as they are':<64}{report.words:>8.4f}")
    hybrid = [trial for trial in report.trials if trial.fusion is not None]
    for trial in dict.fromkeys([*hybrid[:5], report.now]):
        mark = " now" if trial == report.now else ""
        say(f"{trial.setting:<64}{trial.ndcg:>8.4f}{mark}")
    say(report.reason)


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
