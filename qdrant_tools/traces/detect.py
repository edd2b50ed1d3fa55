"""The first rows of a file -> the form in which it is written; or why none.

Guarantees: a form is told by its certain signs in a row, never by a file's name. Does not know: what a row means.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from qdrant_tools.errors import InputError, UsageError, brief, listed
from qdrant_tools.files.rows import Row
from qdrant_tools.traces.files.rows import TraceFile
from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.records import BegunForm, TraceForm

ROWS_LOOKED_AT = 20


class FormOfRows:
    """The form of each row of a file: mostly that of the row before."""

    def __init__(self, name: str | None = None) -> None:
        forms = FORMS if name is None else forms_named(name)
        self.forms = [form.begin() if isinstance(form, BegunForm) else form for form in forms]
        self.seen: dict[str, int] = {}
        self._last: TraceForm | None = None

    def of(self, row: Row) -> TraceForm:
        """Raises `InputError` for a row of none."""
        if self._last is None or not self._last.recognises(row.values):
            self._last = next((form for form in self.forms if form.recognises(row.values)), None)
        if self._last is None:
            raise InputError(f"{row.where}: {why_none(row)}")
        self.seen[self._last.name] = self.seen.get(self._last.name, 0) + 1
        return self._last


def forms_named(name: str) -> Sequence[TraceForm]:
    """The forms of one tool. Raises `UsageError` for a name of none."""
    found = [form for form in FORMS if form.name == name]
    if not found:
        raise UsageError(f"format is {brief(name)}, expected auto or one of {', '.join(form_names())}")
    return found


def form_names() -> list[str]:
    """The names of all forms."""
    return list(dict.fromkeys(form.name for form in FORMS))


def form_of(path: str | Path) -> str | None:
    """The name of the form of the first row that has one; None if none of the first rows has."""
    rows = islice(TraceFile(path).rows(), ROWS_LOOKED_AT)
    found = (form.name for row in rows for form in FORMS if form.recognises(row.values))
    return next(found, None)


def why_none(row: Row) -> str:
    """What a row of no form has, and what can be done."""
    return (
        f"a row that no known tool writes: its fields are {listed(map(str, row.values)) or 'none'}; "
        f"known are {', '.join(form_names())}; for other logs say which column is what (log import --columns)"
    )
