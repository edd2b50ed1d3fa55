"""`embed-plus benchmark`: find the tasks of a folder, read them all, run them one by one, print a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, say
from llama_index_embed_plus.cli.opened import DEFAULT_MODEL, Backend, Model
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.evaluate.retrieval.report import IdenticalIds
from llama_index_embed_plus.evaluate.tasks.inputs import Role, needs_eval
from llama_index_embed_plus.evaluate.tasks.layouts import Skipped, Task, find_tasks
from llama_index_embed_plus.evaluate.tasks.run import TaskOptions, TaskResult, read_task, run_task
from qdrant_tools.errors import InputError, UsageError, listed
from qdrant_tools.records import Progress, Vectors

app = typer.Typer()

COUNTS = ("passages", "pairs", "test_texts", "texts", "candidates", "queries")
"""The first of these that a report has says how large the task is."""
PROBLEMS = (
    *("unknown_queries", "unknown_passages", "without_relevant", "empty_passages"),
    *("own_passages_ignored", "identical_ids_kept"),
    *("left_out", "unlabelled", "skipped", "unseen", "unconverged", "beyond"),
)
"""Counts that a reader must see when they are not 0."""


@app.command()
def benchmark(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder of data in the layout of a task (queries and judgements, pairs with scores, texts with "
            "labels), or a folder of such folders.",
        ),
    ],
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this task, folder or kind of task; may be given several times. A kind also decides how a file "
            "is read that leaves it open."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of the data is measured.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Only so many rows of each task: for a quick look.")] = None,
    role: Annotated[Role, typer.Option(help="The prompt for texts that are compared with their like.")] = "model",
    titles: Annotated[bool, typer.Option(help="Embed passages with their titles.")] = True,
    identical_ids: Annotated[
        IdenticalIds,
        typer.Option(
            help="A passage with the id of the query: ignore it as BEIR does, keep it, or ignore it if its text is the "
            "query's (auto)."
        ),
    ] = "auto",
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also read what links in the folder point to outside of it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per task.")] = False,
) -> None:
    """Run every task that a folder of data holds and print one figure for each."""
    options = TaskOptions(limit, role, titles, identical_ids)
    tasks, skipped = _chosen(folder, split, set(task or ()), follow_links=follow_links)
    if any(each.kind != "retrieval" for each in tasks):
        needs_eval("the benchmark")
    reporter = ConsoleReporter()
    with reporter.step(f"read {folder}", len(tasks)) as advance:
        # all tasks are read before the model is opened: a bad row in the last one is told at once
        runs = []
        for each in tasks:
            runs.append((each, read_task(each, options)))
            advance(1)
    encoder = open_encoder(model, backend=backend)
    encoder.quiet = True  # how many texts were cut is told at the end
    width = max(map(len, [*(each.name for each in tasks), *(each.name for each in skipped)]))
    if not as_json:
        say(f"{encoder.space} ({encoder.build})")
    for each, run in runs:
        with reporter.step(each.name, None) as advance:
            result = run_task(each, run, _WithProgress(encoder, advance))
        if as_json:
            row = {**result.as_row(), "space": encoder.space, "build": encoder.build, "options": asdict(options)}
            # NaN is not JSON: an error is better than a line that other programs cannot read
            say(json.dumps(row, ensure_ascii=False, allow_nan=False))
        else:
            say(_line(result, options, width))
    for other in skipped:
        row = {"task": other.name, "metric": None, "value": None, "skipped": other.reason}
        say(json.dumps(row) if as_json else f"{other.name:<{width}}  skipped: {other.reason}")
    if encoder.truncated and not as_json:
        say(f"{encoder.truncated} texts were cut at {encoder.spec.max_tokens} tokens")


class _WithProgress:
    """An encoder that moves a progress bar on with every text."""

    def __init__(self, encoder: TextEncoder, progress: Progress) -> None:
        self._encoder, self._progress = encoder, progress
        self.dimension, self.space = encoder.dimension, encoder.space

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encoder.encode_queries(texts, progress=self._progress)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._encoder.encode_passages(texts, progress=self._progress)


def _chosen(folder: Path, split: str, names: set[str], *, follow_links: bool) -> tuple[list[Task], list[Skipped]]:
    """The tasks of these names, or all with the folders that are none.

    Raises:
        UsageError: no task of a name.
        InputError: no task at all.
    """
    tasks, skipped = find_tasks(folder, split=split, follow_links=follow_links, asked=names)
    unknown = sorted(names - {name for task in tasks for name in _names(task)})
    if unknown:
        reasons = "".join(f"; {each.name} is skipped: {each.reason}" for each in skipped[:1])
        there = listed(task.name for task in tasks) or "none"
        raise UsageError(f"{folder} has no task {unknown[0]!r}, but {there}{reasons}")
    if not tasks:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in skipped[:5])
        raise InputError(f"{folder} holds no task: {reasons}")
    if not names:
        return tasks, skipped
    return [task for task in tasks if _names(task) & names], []


def _names(task: Task) -> set[str]:
    """What a task may be called: its full name, its folder, its kind."""
    return {task.name, task.name.rpartition("/")[0], task.kind}


def _line(result: TaskResult, options: TaskOptions, width: int) -> str:
    details = result.details
    size = next(f"{details[name]} {name.replace('_', ' ')}" for name in COUNTS if name in details)
    notes = [f"{details[name]} {name.replace('_', ' ')}" for name in PROBLEMS if details.get(name)]
    if options.limit is not None:
        notes.append(f"limited to {options.limit}")
    return ", ".join([f"{result.task:<{width}}  {result.metric:<9} {result.value:7.4f}  {size}", *notes])
