"""A row of a file -> the form in which it is written; or why none.

Guarantees: a form is told by its certain signs in a row, never by a file's name. Does not know: what a row means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qdrant_tools.errors import InputError, UsageError, brief, listed
from qdrant_tools.files.rows import Row
from qdrant_tools.traces.forms.all import FORMS, TOOLS
from qdrant_tools.traces.records import BegunForm, TraceForm


class FormOfRows:
    """The form of each row of a file: mostly that of the row before. `seen` counts them by name."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self._forms = [form.begin() if isinstance(form, BegunForm) else form for form in FORMS]
        self._last: TraceForm | None = None

    def of(self, row: Row) -> TraceForm:
        """Raises `InputError` for a row of none."""
        if self._last is None or not self._last.recognises(row.values):
            self._last = next((form for form in self._forms if form.recognises(row.values)), None)
        if self._last is None:
            raise InputError(f"{row.where}: {why_none(row)}")
        self.seen[self._last.name] = self.seen.get(self._last.name, 0) + 1
        return self._last


def form_names() -> list[str]:
    """The names of all forms."""
    return list(dict.fromkeys(form.name for form in FORMS))


def check_form(name: str) -> None:
    """Raises `UsageError` for a name of no form."""
    if name not in form_names():
        raise UsageError(f"format is {brief(name)}, expected auto or one of {', '.join(form_names())}")


def form_of(rows: Iterable[Mapping[str, Any]], *, known: bool = True) -> str | None:
    """The name of the form of the first row that has one; None if none of the rows has.

    known: only forms of tools count, and none of rows that merely look like searches or steps.
    """
    forms = TOOLS if known else FORMS
    return next((form.name for row in rows for form in forms if form.recognises(row)), None)


def why_none(row: Row) -> str:
    """What a row of no form has, and what can be done."""
    return (
        f"a row that no known tool writes: its fields are {listed(map(str, row.values)) or 'none'}; "
        f"known are {', '.join(form_names())}; for other logs say which column is what (log import --columns)"
    )
