"""`embed-plus benchmark`: its options.

The body of `embed-plus benchmark`: find the tasks, read them all, run them one by one, print a table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embed_plus.cli.console import DEFAULT_MODEL, Backend, ConsoleReporter, Model, say
from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.evaluate.tasks.inputs import needs_eval
from llama_index_embed_plus.evaluate.tasks.run import (
    Job,
    Skipped,
    Task,
    TaskOptions,
    TaskResult,
    find_tasks,
    read_task,
    run_task,
)
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Progress, Vectors

app = typer.Typer()


@app.command()
def benchmark(
    folder: Annotated[Path, typer.Argument(help="A folder of data, or of folders of data; see docs/tasks.md.")],
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
    task: Annotated[
        list[str] | None, typer.Option(help="Only this task, folder or kind of task; may be given several times.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of the data is measured.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Only so many rows of each task: for a quick look.")] = None,
    role: Annotated[
        Literal["query", "passage"], typer.Option(help="The prompt for texts that are compared with their like.")
    ] = "passage",
    titles: Annotated[bool, typer.Option(help="Embed passages with their titles.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per task.")] = False,
) -> None:
    """Run every task that a folder of data holds and print one figure for each."""
    from llama_index_embed_plus.evaluate.tasks.run import TaskOptions

    wanted = Wanted(folder, split, tuple(task or ()), TaskOptions(limit, role, titles))
    run_benchmark(wanted, model, backend, as_json=as_json)


COUNTS = ("passages", "pairs", "test_texts", "texts", "candidates", "queries")
"""The first of these that a report has says how large the task is."""
TROUBLES = (
    *("unknown_queries", "unknown_passages", "without_relevant", "empty_passages"),
    *("left_out", "skipped", "unseen", "unconverged", "beyond"),
)
"""Counts that a reader must see when they are not 0."""


@dataclass(frozen=True)
class Wanted:
    """Which tasks are to be run, and how."""

    folder: Path
    split: str
    names: tuple[str, ...]
    options: TaskOptions


def run_benchmark(wanted: Wanted, model: str, backend: BackendName, *, as_json: bool) -> None:
    """Print one row per task as soon as it is measured, and the folders that were skipped.

    Raises:
        UsageError: no task of the names that were given, or none at all.
    """
    tasks, skipped = _chosen(wanted)
    if any(task.kind != "retrieval" for task in tasks):
        needs_eval("the benchmark")
    reporter = ConsoleReporter()
    with reporter.step(f"read {wanted.folder}", len(tasks)) as advance:
        jobs = [(task, _read(task, wanted.options, advance)) for task in tasks]
    encoder = open_encoder(model, backend=backend)
    encoder.quiet = True  # how many texts were cut is told at the end
    width = max(len(name) for name in [*(task.name for task in tasks), *(each.name for each in skipped)])
    if not as_json:
        say(f"{encoder.space} ({encoder.build})")
    for task, job in jobs:
        with reporter.step(task.name, None) as advance:
            result = run_task(task, job, _Watched(encoder, advance))
        _show(result, encoder, wanted.options, as_json=as_json, width=width)
    for each in skipped:
        row = {"task": each.name, "metric": None, "value": None, "skipped": each.reason}
        say(json.dumps(row) if as_json else f"{each.name:<{width}}  skipped: {each.reason}")
    if encoder.truncated and not as_json:
        say(f"{encoder.truncated} texts were cut at {encoder.spec.max_tokens} tokens")


class _Watched:
    """An encoder that tells a progress bar of the texts it has done."""

    def __init__(self, encoder: TextEncoder, progress: Progress) -> None:
        self._encoder, self._progress = encoder, progress
        self.dimension, self.space = encoder.dimension, encoder.space

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encoder.encode_queries(texts, progress=self._progress)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._encoder.encode_passages(texts, progress=self._progress)


def _chosen(wanted: Wanted) -> tuple[list[Task], list[Skipped]]:
    tasks, skipped = find_tasks(wanted.folder, split=wanted.split)
    known = {name for task in tasks for name in _names(task)}
    odd = next((name for name in wanted.names if name not in known), None)
    if odd is not None:
        raise UsageError(f"{wanted.folder} has no task {odd!r}, but {', '.join(task.name for task in tasks) or 'none'}")
    if not tasks:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in skipped)
        raise InputError(f"{wanted.folder} holds no task: {reasons}")
    if not wanted.names:
        return tasks, skipped
    return [task for task in tasks if _names(task) & set(wanted.names)], []


def _names(task: Task) -> set[str]:
    """What a task may be called: its full name, its folder, its kind."""
    return {task.name, task.name.rpartition("/")[0], task.kind}


def _read(task: Task, options: TaskOptions, advance: Progress) -> Job:
    job = read_task(task, options)
    advance(1)
    return job


def _show(result: TaskResult, encoder: TextEncoder, options: TaskOptions, *, as_json: bool, width: int) -> None:
    if as_json:
        row = {**result.as_row(), "space": encoder.space, "build": encoder.build, "options": asdict(options)}
        say(json.dumps(row, ensure_ascii=False, allow_nan=False))
        return
    size = next(f"{result.details[name]} {name.replace('_', ' ')}" for name in COUNTS if name in result.details)
    notes = [f"{result.details[name]} {name.replace('_', ' ')}" for name in TROUBLES if result.details.get(name)]
    if options.limit is not None:
        notes.append(f"limited to {options.limit}")
    line = f"{result.task:<{width}}  {result.metric:<9} {result.value:7.4f}  {size}"
    say(", ".join([line, *notes]))
