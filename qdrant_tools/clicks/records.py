"""What every click log says in its own words, in ours: somebody asked, and somebody did something with a hit.

A form (a module beside this one) turns each row of a file into these; `joining.py` makes searches of them.

Guarantees: frozen. Does not know: files, the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Asked:
    """A search. What was done in it names it by `key`.

    `hits` is the list as it was shown, () if nothing was found, None if the row does not say; `first` is the rank of
    its first hit, above 1 on a later page. `query` is None where a row has the list without the words; a `part` is
    what was seen of the list, whose other parts are in other rows.
    """

    key: str
    query: str | None
    at: datetime | None = None
    hits: tuple[str, ...] | None = None
    first: int = 1
    session: str = ""
    user: str = ""
    index: str = ""
    part: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """An action on one or several hits of a search. `ids` of one hit may be several names of it, with `same_hit`."""

    key: str
    action: str
    ids: tuple[str, ...]
    at: datetime | None = None
    ranks: tuple[int, ...] = ()
    seconds: float | None = None
    same_hit: bool = False
    query: str | None = None
    """Where the row of an action repeats the query; `hits` likewise."""
    hits: tuple[str, ...] | None = None
    session: str = ""
    user: str = ""
    index: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A grade of a passage for a query, out of a list of judgements. `kind` is "rating" or "judged"."""

    query: str
    grades: tuple[tuple[str, float], ...]
    kind: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is read and says nothing of a search, and why: it is counted under these words."""

    reason: str


Entry = Asked | Done | Judged | Skipped


@dataclass(frozen=True)
class ClickSettings:
    """How actions are understood; the options of `log import`.

    click: the names of the actions that are a click; those that certainly are one in the form, if empty.
    up, down: the names of the actions that say that a hit is right or wrong, such as a purchase. None by themselves.
    zone: the zone of times that name none.
    """

    click: tuple[str, ...] = ()
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    zone: tzinfo | None = None


class ClickForm(Protocol):
    """One way in which searches and clicks are written: one such object for each in the modules of the forms."""

    @property
    def name(self) -> str:
        """As in `--format`."""
        ...

    @property
    def clicks(self) -> frozenset[str]:
        """The names of its actions that certainly are a click, in lower case."""
        ...

    @property
    def joined_by(self) -> Literal["id", "time"]:
        """What tells whose action it is: the id of the search, or the time in a session (`key` is that of it then)."""
        ...

    @property
    def hint(self) -> str:
        """Which file to name beside, where actions name searches that no file has."""
        ...

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of this form. Only certain signs count: two forms never claim one row."""
        ...

    def read(self, row: Mapping[str, Any], settings: ClickSettings) -> Iterable[Entry]:
        """What a row says.

        Raises:
            InputError: the row is damaged; the message names the field and the value.
        """
        ...
