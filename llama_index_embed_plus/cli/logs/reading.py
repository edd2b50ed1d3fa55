"""The options that say how files of searches are read, which `log import` and `improve` share.

Guarantees: what they say is checked before a file is opened. Does not know: what is done with the searches.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo
from typing import Annotated, Literal

import typer

from qdrant_tools.clicks.records import ClickSettings
from qdrant_tools.foreign import as_zone
from qdrant_tools.traces.records import TraceSettings


@dataclass(frozen=True)
class ReadingOptions:
    """How the rows of a file are understood."""

    form: Annotated[
        str,
        typer.Option(
            "--format", help="What wrote the files, such as openinference, phoenix or ubi; auto tells it by their rows."
        ),
    ] = "auto"
    id_field: Annotated[
        str | None,
        typer.Option("--id", help="The metadata field of a document that has its id; the tool's own if not given."),
    ] = None
    match: Annotated[
        Literal["id", "text"],
        typer.Option(
            help="How documents of traces are found in the collection: text is for one that was indexed anew."
        ),
    ] = "id"
    query: Annotated[
        Literal["retriever", "root"],
        typer.Option(
            help="Whose query a search of a trace gets: root is what the user asked, before it was rewritten."
        ),
    ] = "retriever"
    thumb: Annotated[
        str | None, typer.Option(help="The name of the annotation that is a user's thumb on an answer.")
    ] = None
    up: Annotated[str | None, typer.Option(help="Labels, scores or actions that mean yes, as 'good,5'.")] = None
    down: Annotated[str | None, typer.Option(help="Labels, scores or actions that mean no, as 'bad,1'.")] = None
    judge: Annotated[
        str | None, typer.Option(help="The name of the annotation with which a language model grades.")
    ] = None
    click: Annotated[
        str | None,
        typer.Option(help="Actions of a click log that are a click, as 'click,open'; the usual ones if not given."),
    ] = None
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="A service, project, environment or tag whose traces are no users'; what calls itself an evaluation "
            "if not given."
        ),
    ] = None
    timezone: Annotated[
        str | None, typer.Option(help="The zone of times that name none: UTC, +02:00, Europe/Berlin.")
    ] = None

    @property
    def zone(self) -> tzinfo | None:
        """The zone. Raises `InputError`: there is none of this name."""
        return None if self.timezone is None else as_zone("--timezone", self.timezone)

    def of_traces(self, zone: tzinfo | None) -> TraceSettings:
        """What they say of traces."""
        left_out = tuple(self.leave_out or ())
        return TraceSettings(
            self.id_field, self.match, self.query, self.thumb, _words(self.up), _words(self.down), self.judge,
            left_out, zone,
        )  # fmt: skip

    def of_clicks(self, zone: tzinfo | None) -> ClickSettings:
        """What they say of click logs."""
        return ClickSettings(_words(self.click), _words(self.up), _words(self.down), zone)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
