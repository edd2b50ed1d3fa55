"""`embed-plus classify`: a few labelled passages -> the label of every passage, and how often it is right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, print_json, say, show_table
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    CollectionName,
    Location,
    Overwrite,
    changing_step,
    check_outputs,
    command_of,
    is_read_only,
    managed,
)
from llama_index_embed_plus.cli.vectors.options import AsJson, Out, Seed, Write, next_search, show_written
from qdrant_tools.files.written import write_rows
from qdrant_tools.vectors.classes import Classification, classify, read_labels
from qdrant_tools.vectors.written import check_field

app = typer.Typer()


@app.command("classify")
def classify_command(
    collection: CollectionName,
    labels: Annotated[
        Path,
        typer.Option(metavar="FILE", help='A few labelled passages: rows {"id", "label"} as JSONL, CSV or TSV.'),
    ],
    seed: Seed = 0,
    write: Write = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Learn labels from a few labelled passages, say how often they are right, and label every passage. No model is
    needed: logistic regression on the stored vectors, measured by cross-validation."""
    check_outputs(out, overwrite=overwrite, inputs=[labels])
    given = read_labels(labels)
    reporter = ConsoleReporter()
    with managed(location) as manager:
        docs, read_only = manager.open(collection), is_read_only(manager)
        if write is not None:
            check_field(docs, write)
        with reporter.step(f"learn {len(given):,} labels", None):
            found = classify(docs, given, seed=seed)
        if not as_json:
            _show(found)
        count, written = docs.gateway.count(), 0
        if out is not None:
            with reporter.step(f"write {out}", count) as advance:
                write_rows(out, _rows(found, advance), overwrite=overwrite)
        if write is not None:
            with reporter.step(f"write {write}", count) as advance:
                written = found.write(write, progress=advance)
    if as_json:
        print_json(found.as_row() | {"written": written})
        return
    show_written(collection, out, write, written, "label")
    if write is not None:
        next_search(collection, write, found.majority, location)
    elif out is None:
        command = command_of("classify", collection, "--labels", str(labels), "--write", "label", location=location)
        next_step(changing_step(command, collection, location, read_only=read_only))


def _show(found: Classification) -> None:
    low, high = found.interval
    say(
        f"accuracy {found.accuracy:.3f}, 95 % interval {low:.3f} to {high:.3f}: {found.right:,} of {found.of:,} "
        f"labelled passages were right when they were held out ({found.folds} parts)"
    )
    verdict = "better" if found.is_better else "not proved better"
    say(f"always saying {found.majority!r} is right in {found.majority_share:.3f}: the labels learned are {verdict}")
    rows = [
        [
            each.label,
            f"{each.given:,}",
            f"{each.recall:.2f}",
            "-" if each.precision is None else f"{each.precision:.2f}",
        ]
        for each in found.labels
    ]
    show_table(["label", "given", "found again", "right where said"], rows, numbers=(1, 2, 3))


def _rows(found: Classification, advance: Any) -> Iterator[dict[str, Any]]:
    for page in found.predicted(progress=advance):
        for name, label, probability in zip(page.ids, page.labels, page.probabilities, strict=True):
            yield {"id": name, "label": label, "probability": round(probability, 6), "given": name in found.given}
