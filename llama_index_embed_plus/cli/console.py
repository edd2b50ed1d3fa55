"""What a person sees: lines and JSON on stdout, progress bars and notes on stderr.

Guarantees: stdout carries results only. Does not know: what the steps are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from qdrant_tools.records import Hit
from qdrant_tools.records import Progress as Advance

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text: str, *, style: str | None = None) -> None:
    """Print one line as it is: no markup in it, and not wrapped, so that a pipe gets the line whole."""
    out.print(text, style=style, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print one line to stderr, as it is."""
    err.print(text, markup=False, soft_wrap=True)


def print_json(row: object) -> None:
    """Print one JSON object as one line."""
    # not by rich, which would wrap and colour the line
    print(json.dumps(row, ensure_ascii=False, default=_json_ready))


def shortened(text: str, width: int) -> str:
    """A text as one line of at most `width` characters."""
    line = " ".join(text[: 4 * width].split())  # some queries are megabytes long
    return line if len(line) <= width else line[: width - 3] + "..."


def show_hits(question: str, hits: Sequence[Hit]) -> None:
    """Print a question and its hits, one line each: rank, score, id, and as much of the text as fits."""
    out.print(question, style="bold", markup=False)
    for hit in hits:
        # passages of the demo begin with their id
        text = " ".join(hit.text.removeprefix(hit.id).split())
        line = f"{hit.rank:>3}  {hit.score:.3f}  {hit.id}  {text}"
        out.print(line, markup=False, no_wrap=True, overflow="ellipsis")


class ConsoleReporter:
    """One line per step: a bar while it runs, its duration when it is done."""

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[Advance]:
        started = time.perf_counter()
        with _bar() as bar:
            task = bar.add_task(name, total=total)
            yield lambda done: bar.advance(task, done)
        # not in a `finally`: a step that failed is not done
        err.print(f"[green]done[/] {name} [dim]{time.perf_counter() - started:.1f} s[/]")


@contextmanager
def resumable(message: str) -> Iterator[None]:
    """Ctrl-C inside the block prints one line that says how to go on, and ends with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"interrupted: {message}")
        raise typer.Exit(130) from None  # 128 + 2, the number of SIGINT, as shells have it


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,  # a log file gets one line per step
    )


def _json_ready(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    raise TypeError(f"{type(value).__name__} is not JSON")
