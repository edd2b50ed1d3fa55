"""A row of a file -> the form in which it is written; or why none.

Guarantees: a form is told by its certain signs in a row, never by a file's name. Does not know: what a row means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from qdrant_tools.errors import InputError, UsageError, brief, listed
from qdrant_tools.files.rows import Row
from qdrant_tools.traces.forms.all import AMONG_OTHERS, FORMS, TOOLS
from qdrant_tools.traces.forms.unread import why_unread
from qdrant_tools.traces.records import BegunForm, TraceForm

ROWS_LOOKED_AT = 1000
"""From then on, a row with the fields of an earlier one has its form: to look at each takes as long as to read it."""


class FormOfRows:
    """The form of each row of a file. `seen` counts the rows by it."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._forms = [form.begin() if isinstance(form, BegunForm) else form for form in (*FORMS, *AMONG_OTHERS)]
        self._by_fields: dict[tuple[str, ...], TraceForm] = {}
        self._rows = 0

    @property
    def fields(self) -> list[tuple[str, ...]]:
        """The names of the fields of the rows, each combination once, as far as they are not too many."""
        return list(self._by_fields)

    def of(self, row: Row) -> TraceForm:
        """Raises `InputError` for a row of none."""
        self._rows += 1
        fields = tuple(row.values)
        form = self._by_fields.get(fields)
        if form is None or (self._rows < ROWS_LOOKED_AT and not form.recognises(row.values)):
            form = next((form for form in self._forms if form.recognises(row.values)), None)
        if form is None:
            raise InputError(f"{row.where}: {why_none(row)}")
        if len(self._by_fields) < ROWS_LOOKED_AT:
            self._by_fields[fields] = form
        self.seen[form.name] += 1
        return form


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
    unread = why_unread([row.values])
    if unread is not None:
        return unread
    return (
        f"a row that no known tool writes: its fields are {listed(map(str, row.values)) or 'none'}; "
        f"known are {', '.join(form_names())}; for other logs say which column is what (log import --columns)"
    )
