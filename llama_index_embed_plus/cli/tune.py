"""`embed-plus tune`: measure, print a table or JSON, draw, and keep what was chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.collections import managed, print_json
from llama_index_embed_plus.cli.console import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    ConsoleReporter,
    Location,
    Model,
    say,
)
from llama_index_embed_plus.cli.opened import Where
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.tuning import Trial, TuningGrid, TuningReport, apply, tune

app = typer.Typer()

Numbers = Annotated[str | None, typer.Option(help="Values to try, with commas.")]


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
    apply: Annotated[bool, typer.Option(help="Keep the chosen setting with the collection.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw recall against latency; needs the extra 'plot'.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Measure recall and latency of index settings against exact search, and name the cheapest that finds enough."""
    grid = grid_of(hnsw_ef, m, quantization, oversampling)
    asked = Asked(target_recall, k, queries, held_out)
    tune_collection(collection, asked, grid, Where(location, model, backend), keep=apply, plot=plot, as_json=as_json)


@dataclass(frozen=True)
class Asked:
    """What has to be reached, and by which queries."""

    target_recall: float
    k: int
    queries: Path | None
    held_out: int


def grid_of(hnsw_ef: str | None, m: str | None, quantization: str | None, oversampling: str | None) -> TuningGrid:
    """The grid that the options say; what they leave out is the usual one.

    Raises:
        UsageError: a value that is no number, or no kind of quantization.
    """
    given: dict[str, Any] = {}
    if hnsw_ef is not None:
        given["hnsw_ef"] = _values("--hnsw-ef", hnsw_ef, int)
    if m is not None:
        given["m"] = _values("--m", m, int)
    if quantization is not None:
        given["quantization"] = (None, *_values("--quantization", quantization, Quantization))  # type: ignore[arg-type]
    if oversampling is not None:
        given["oversampling"] = _values("--oversampling", oversampling, float)
    return replace(TuningGrid(), **given)


def tune_collection(
    name: str, asked: Asked, grid: TuningGrid, where: Where, *, keep: bool, plot: Path | None, as_json: bool
) -> None:
    """Measure the grid and show it. `keep` stores what was chosen with the collection."""
    with managed(where.location) as manager:
        collection = manager.open(name)
        vectors = None if asked.queries is None else _encoded(collection, asked.queries, where)
        with ConsoleReporter().step(f"tune {name}", None) as advance:
            found = tune(
                collection,
                vectors,
                k=asked.k,
                target_recall=asked.target_recall,
                grid=grid,
                held_out=asked.held_out,
                progress=advance,
            )
        applied = keep and not found.chosen.exact
        if applied:
            with ConsoleReporter().step("apply", None):
                apply(manager, found)
    if plot is not None:
        from llama_index_embed_plus.evaluate.plots.pages import recall_latency

        recall_latency(plot, found)
    if as_json:
        print_json({**found.as_row(), "applied": applied})
        return
    _show(found)
    if plot is not None:
        say(f"wrote {plot}")
    if keep:
        say(f"kept with {found.collection}" if applied else "nothing to keep: search with exact=True")


def _show(found: TuningReport) -> None:
    say(f"{found.collection}: {found.points} points, {found.queries} queries")
    say(f"{'setting':<34}{'recall@' + str(found.k):>10}{'p50 ms':>10}{'p95 ms':>10}{'queries/s':>11}")
    for trial in found.trials:
        mark = " *" if trial == found.chosen else ""
        figures = f"{trial.recall:>10.3f}{trial.p50_ms:>10.3f}{trial.p95_ms:>10.3f}{trial.queries_per_second:>11.0f}"
        say(f"{_label(trial):<34}{figures}{mark}")
    say(found.reason)


def _label(trial: Trial) -> str:
    if trial.exact:
        return "exact"
    quantized = "" if trial.quantization == "none" else f" {trial.quantization} x{trial.oversampling:g}"
    return f"hnsw_ef={trial.hnsw_ef} m={trial.m}{quantized}"


def _encoded(collection: Collection, queries: Path, where: Where) -> Any:
    from llama_index_embed_plus.cli.monitor import read_query_texts
    from llama_index_embed_plus.encoders.open import open_encoder

    encoder = open_encoder(where.model, backend=where.backend)
    collection.check(encoder)
    return encoder.encode_queries(read_query_texts(queries))


def _values(option: str, given: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(each.strip()) for each in given.split(","))
    except (ValueError, InputError) as error:
        raise UsageError(f"{option} is {given!r}: {error}") from error
