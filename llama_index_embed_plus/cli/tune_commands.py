"""The body of `embed-plus tune`: measure, print a table or JSON, draw, and keep what was chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama_index_embed_plus.cli.collection_commands import managed, print_json
from llama_index_embed_plus.cli.commands import Where
from llama_index_embed_plus.cli.console import ConsoleReporter, say
from llama_index_embed_plus.errors import UsageError
from qdrant_tools.collection import Collection
from qdrant_tools.errors import InputError
from qdrant_tools.quantization import Quantization
from qdrant_tools.tune import Trial, TuningGrid, TuningReport, apply, tune


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
        from llama_index_embed_plus.evaluate.plots import recall_latency

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
    from llama_index_embed_plus.cli.monitor_commands import read_query_texts
    from llama_index_embed_plus.encoders import open_encoder

    encoder = open_encoder(where.model, backend=where.backend)
    collection.check(encoder)
    return encoder.encode_queries(read_query_texts(queries))


def _values(option: str, given: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(each.strip()) for each in given.split(","))
    except (ValueError, InputError) as error:
        raise UsageError(f"{option} is {given!r}: {error}") from error
