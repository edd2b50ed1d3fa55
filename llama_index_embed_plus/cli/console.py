"""What a person sees: lines, tables and JSON on stdout, progress bars, questions and notes on stderr.

Guarantees: stdout carries results only. Nothing that is printed steers the terminal or is read as markup, whoever wrote
it: what would do so is shown as an escape, and JSON holds the same values. What goes to stderr has no keys in it.
Does not know: what the steps are.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from qdrant_tools.errors import UNSEEN_BEYOND_ASCII, visible, without_keys
from qdrant_tools.records import Hit
from qdrant_tools.records import Progress as Advance

out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

_UNSEEN_IN_JSON = re.compile(f"[{UNSEEN_BEYOND_ASCII}\u200c\u200d]")


def say(text: str = "", *, style: str | None = None) -> None:
    """Print one line, not wrapped, so that a pipe gets the line whole."""
    out.print(Text(visible(text), style or ""), soft_wrap=True)


def note(text: str) -> None:
    """Print one line to stderr, without the keys of URLs."""
    err.print(Text(visible(without_keys(text))), soft_wrap=True)


def ask(question: str) -> bool:
    """Ask a person on stderr; no if nobody is there to answer."""
    # a script has nobody to ask
    return sys.stdin is not None and sys.stdin.isatty() and typer.confirm(visible(without_keys(question)), err=True)


def print_json(row: object, *, indent: int | None = None) -> None:
    """Print one JSON object, on one line without `indent`."""
    # an encoding without all characters would replace some by what is no JSON
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    line = json.dumps(row, ensure_ascii=ascii_only, indent=indent, default=_json_ready)
    # not by rich, which would wrap and colour the line
    print(_UNSEEN_IN_JSON.sub(lambda match: json.dumps(match[0])[1:-1], line))


def shortened(text: str, width: int) -> str:
    """A text as one line of at most `width` characters."""
    line = " ".join(text[: 4 * width].split())  # some queries are megabytes long
    return line if len(line) <= width else line[: width - 3] + "..."


def show_hits(question: str, hits: Sequence[Hit]) -> None:
    """Print a question and its hits, one line each: rank, score, id, and as much of the text as fits."""
    out.print(Text(visible(question), "bold"))
    for hit in hits:
        # passages of the demo begin with their id
        text = shortened(hit.text.removeprefix(hit.id), 1000)
        line = f"{hit.rank:>3}  {hit.score:.3f}  {hit.id}  {text}"
        out.print(Text(visible(line)), no_wrap=True, overflow="ellipsis")


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, numbers: Sequence[int] = ()
) -> None:
    """Print a table with lines around it; `numbers` are the columns that stand to the right."""
    table = Table(title=None if title is None else visible(title), title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(Text(visible(column)), justify="right" if place in numbers else "left")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    out.print(table)


class ConsoleReporter:
    """One line per step: a bar while it runs, its duration when it is done."""

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[Advance]:
        started = time.perf_counter()
        with _bar(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
            task = bar.add_task(_shown(name), total=total)
            yield lambda done: bar.advance(task, done)
        # not in a `finally`: a step that failed is not done
        _done(name, time.perf_counter() - started)


@contextmanager
def changing_line(name: str) -> Iterator[Callable[[str], None]]:
    """One line that changes while a step runs: the name, and what the block says last. A log file gets none."""
    started = time.perf_counter()
    with _bar() as bar:
        task = bar.add_task(_shown(name))
        yield lambda text: bar.update(task, description=_shown(f"{name}  {text}"))
    _done(name, time.perf_counter() - started)


@contextmanager
def resumable(message: str) -> Iterator[None]:
    """Ctrl-C inside the block prints one line that says how to go on, and ends with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted(message)


def interrupted(message: str) -> NoReturn:
    """Say how to go on, and end with the exit code of an interruption."""
    note(f"interrupted: {message}")
    raise typer.Exit(130) from None  # 128 + 2, the number of SIGINT, as shells have it


def is_terminal() -> bool:
    """Whether a person watches stderr."""
    return err.is_terminal


def _shown(name: str) -> str:
    return visible(without_keys(name))


def _done(name: str, seconds: float) -> None:
    err.print(Text.assemble(("done", "green"), f" {_shown(name)} ", (f"{seconds:.1f} s", "dim")), soft_wrap=True)


def _bar(*columns: Any) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *columns,
        console=err,
        transient=True,
        disable=not err.is_terminal,  # a log file gets one line per step
        # rich would obey the escapes in what libraries print meanwhile
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _json_ready(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return str(value)  # a path
