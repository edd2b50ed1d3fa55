"""What a person sees: lines, tables and JSON on stdout, progress bars, questions and notes on stderr.

Guarantees: stdout carries results only. Nothing that is printed steers the terminal or is read as markup, whoever wrote
it: what would do so is shown as an escape, and JSON holds the same values. What goes to stderr has no keys in it.
Does not know: what the steps are.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from qdrant_tools.errors import UNSEEN_BEYOND_ASCII, visible, without_keys
from qdrant_tools.records import Progress as Advance

out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

IN_A_PIPE = 200
"""Columns where there is no terminal."""
TOLD_EVERY = 30.0
"""Seconds between two lines on one step where no bar is shown."""
MIN_WIDTH = 20
"""Columns of a text, however narrow the terminal is."""

_UNSEEN_IN_JSON = re.compile(f"[{UNSEEN_BEYOND_ASCII}\u200c\u200d]")


def say(text: str = "", *, style: str | None = None) -> None:
    """Print one line, not wrapped, so that a pipe gets the line whole."""
    out.print(Text(visible(text), style or ""), soft_wrap=True)


def note(text: str) -> None:
    """Print one line to stderr, without the keys of URLs."""
    err.print(Text(visible(without_keys(text))), soft_wrap=True)


def next_step(command: str) -> None:
    """Print the last line of a command to stderr: the command that leads on, without `embed-plus`."""
    note(f"next: embed-plus {command}")


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


def width() -> int:
    """The columns of the terminal; in a pipe, where nobody's screen is narrow, `IN_A_PIPE`."""
    return out.width if out.is_terminal or "COLUMNS" in os.environ else IN_A_PIPE


def heading(before: str, text: str, behind: str = "") -> None:
    """Print one line that begins something: what stands out between what does not. Not wrapped."""
    out.print(Text.assemble(visible(before), (visible(text), "bold cyan"), (visible(behind), "dim")), soft_wrap=True)


def paragraph(
    text: str, *, margin: str = "", most: int | None = None, marked: Sequence[str] = (), faint: bool = False
) -> None:
    """Print a text, wrapped at the width of the terminal behind a margin.

    `most`: so many lines, the last of which then ends in dots. `marked`: words that stand out.
    """
    columns = max(MIN_WIDTH, width() - len(margin))
    shown = Text(visible(text, lines=True).strip("\n").expandtabs(4), "dim" if faint else "")
    words = [re.escape(visible(word)) for word in marked if len(word) > 2 or not word.isascii()]
    if words:
        shown.highlight_regex(re.compile(rf"(?i)(?<!\w)(?:{'|'.join(words)})(?!\w)"), "bold")
    lines = list(shown.wrap(out, columns))
    for number, line in enumerate(lines[:most], start=1):
        line.rstrip()
        if number == most and len(lines) > number:
            line = _with_dots(line, columns)
        out.print(Text.assemble((margin, "dim"), line), soft_wrap=True)


def _with_dots(line: Text, columns: int) -> Text:
    while line.cell_len > columns - 4 and " " in line.plain:
        line = line[: line.plain.rindex(" ")]
    line.truncate(columns - 4)
    return Text.assemble(line, "" if line.plain.endswith("...") else " ...")


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, numbers: Sequence[int] = ()
) -> None:
    """Print a table with lines around it; `numbers` are the columns that stand to the right."""
    table = Table(title=None if title is None else visible(title), title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(Text(visible(column)), justify="right" if place in numbers else "left")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    # rich would fold it at 80 columns, which no pipe has
    (out if width() == out.width else Console(highlight=False, markup=False, emoji=False, width=width())).print(table)


class ConsoleReporter:
    """One line per step: a bar while it runs, its duration when it is done."""

    @contextmanager
    def step(self, name: str, total: int | None, unit: str = "") -> Iterator[Advance]:
        started = time.perf_counter()
        counted, sometimes = _Counted(total, unit), _Sometimes(name)
        with _bar(BarColumn(), TextColumn("{task.fields[told]}", markup=False), TimeElapsedColumn()) as bar:
            task = bar.add_task(_shown(name), total=total, told="")

            def advance(done: int) -> None:
                told = counted.add(done)
                bar.update(task, advance=done, told=told)
                sometimes.tell(told)

            yield advance
        # not in a `finally`: a step that failed is not done
        _done(name, time.perf_counter() - started)


class _Counted:
    """How much is done -> how much of how many, how fast, and for how long yet."""

    def __init__(self, total: int | None, unit: str) -> None:
        self._total, self._unit = total, f" {unit}" if unit else ""
        self._done, self._started = 0, time.perf_counter()

    def add(self, done: int) -> str:
        self._done += done
        seconds = max(time.perf_counter() - self._started, 1e-9)
        rate = self._done / seconds
        told = f"{self._done:,}{'' if self._total is None else f' of {self._total:,}'}{self._unit}"
        told = f"{told}, {rate:,.0f}/s" if rate >= 10 else f"{told}, {rate:.1f}/s"
        if self._total is None or not rate:
            return told
        left = round(max(self._total - self._done, 0) / rate)
        return f"{told}, {left // 60}:{left % 60:02d} left"


class _Sometimes:
    """A line on stderr every `TOLD_EVERY` seconds where no bar is shown, so that a log file says how far a step is."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, time.perf_counter()

    def tell(self, text: str) -> None:
        now = time.perf_counter()
        if not err.is_terminal and now - self._last >= TOLD_EVERY:
            self._last = now
            note(f"{self._name}  {text}")


@contextmanager
def changing_line(name: str) -> Iterator[Callable[[str], None]]:
    """One line that changes while a step runs: the name, and what the block says last. A log file gets few of them."""
    started, sometimes = time.perf_counter(), _Sometimes(name)
    with _bar() as bar:
        task = bar.add_task(_shown(name))

        def tell(text: str) -> None:
            bar.update(task, description=_shown(f"{name}  {text}"))
            sometimes.tell(text)

        yield tell
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
