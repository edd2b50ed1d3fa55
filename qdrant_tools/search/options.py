"""The options of a search as one frozen value, and plain dicts as filters on metadata.

Guarantees: validated when made; every option reaches the engine; every condition of a filter must hold, and a value
that no condition can express is refused. A plain filter finds the same with a payload index and without one, but for
the engine's own exceptions (docs/collections.md). Does not know: queries, clients.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

import numpy as np
from qdrant_client import models

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import Layout
from qdrant_tools.errors import EngineError, InputError
from qdrant_tools.fields import (
    LARGEST_WHOLE_DOUBLE,
    Field,
    moment_in,
    payload_path,
    plain_value,
    shown,
    steps_in,
    steps_of,
)
from qdrant_tools.validation import brief, checked_count, checked_number, checked_text

logger = logging.getLogger(__name__)

MMR_CANDIDATES = 100
"""Nearest passages among which `diversity` chooses, or ten times `k` if that is more."""


class SearchKwargs(TypedDict, total=False):
    """The fields of `SearchOptions` as keyword arguments."""

    k: int
    hnsw_ef: int | None
    exact: bool | None
    filter: PlainFilter | models.Filter | None
    score_threshold: float | None
    diversity: float | None
    fields: Sequence[Field] | None
    text: bool


@dataclass(frozen=True)
class SearchOptions:
    """The options of `search`, `search_batch`, `search_vectors` and `search_groups`."""

    k: int = 10
    """Hits (or groups) at most."""
    hnsw_ef: int | None = None
    """Beam width in the graph; None is the collection's own."""
    exact: bool | None = None
    """Compare with every vector instead, as `:memory:` always does. None: as the collection does."""
    filter: PlainFilter | models.Filter | None = None
    """`{"field": value, [values] or {"gte": bound}}` on the metadata, or a Qdrant filter on the payload; see
    `as_filter`."""
    score_threshold: float | None = None
    """Leave out hits that score less."""
    diversity: float | None = None
    """0 to 1: choose hits that are near the query and far from each other (maximal marginal relevance, Carbonell and
    Goldstein, SIGIR 1998); 0 looks at the query alone. Hits then come in the order in which they were chosen."""
    fields: Sequence[Field] | None = None
    """Metadata fields of the hits, a name or a tuple of names each; None is all of them."""
    text: bool = True
    """Whether hits have their text."""

    def __post_init__(self) -> None:
        checked_count("k", self.k)
        if self.hnsw_ef is not None:
            checked_count("hnsw_ef", self.hnsw_ef)
        if self.score_threshold is not None:
            checked_number("score_threshold", self.score_threshold)
        if self.diversity is not None:
            checked_number("diversity", self.diversity, least=0, most=1)
        # a string is a sequence too: its letters would become fields
        if isinstance(self.fields, str):
            raise InputError(f"fields is the string {brief(self.fields)}, expected a list of metadata fields")
        for field in self.fields or ():
            if any(isinstance(step, int) for step in steps_of(field, "a field of fields")):
                raise InputError(
                    f"fields has {brief(field)}, and engines return no single place of a list: leave the number out"
                )

    def request(self, collection: Collection) -> models.QueryRequest:
        """The engine's request, without its query."""
        return models.QueryRequest(
            using=collection.layout.vector or None,
            filter=as_filter(self.filter, collection=collection),
            params=collection.search_params(hnsw_ef=self.hnsw_ef, exact=self.exact),
            score_threshold=self.score_threshold,
            limit=self.k,
            with_payload=self.payload(collection),
        )

    def query(self, vector: list[float]) -> list[float] | models.NearestQuery:
        """The engine's query for a vector."""
        if self.diversity is None:
            return vector
        candidates = max(MMR_CANDIDATES, 10 * self.k)
        mmr = models.Mmr(diversity=self.diversity, candidates_limit=candidates)
        return models.NearestQuery(nearest=vector, mmr=mmr)

    def payload(self, collection: Collection) -> bool | list[str]:
        """Which fields of the payload to ask for."""
        if self.fields is None and self.text:
            return True
        layout = collection.layout
        names = [payload_path([layout.id])] if layout.id else []
        if self.text:
            names.append(payload_path([layout.text]))
        if self.fields is None:
            if not layout.metadata:
                raise InputError(f"text=False needs fields here: the layout {layout.name!r} has no field for metadata")
            names.append(payload_path([layout.metadata]))
        else:
            refuse_paths(collection, self.fields)
            names += map(layout.metadata_field, self.fields)
        return names or False


Steps = tuple[str | int | None, ...]
PlainFilter = Mapping[Any, Any]
"""Metadata field (`fields.Field`) -> the value it must have, a list that must contain its value, or its bounds."""

BOUNDS = ("gt", "gte", "lt", "lte")
LEAST_MATCHED, LARGEST_MATCHED = -(2**63), 2**63 - 1
"""What engines match exactly."""


def as_filter(conditions: PlainFilter | models.Filter | None, *, collection: Collection) -> models.Filter | None:
    """Translate `{"field": value}`, `{"field": [values]}` and `{"field": {"gte": bound}}`; all of them must hold. A
    Qdrant filter passes as it is.

    A field is a name, whatever is in it, or a tuple of names for what lies inside a value: ("author", "name"). Numbers
    are equal if their values are: 2020 finds 2020.0. A boolean is no number. Dates and times find the same moment in
    any spelling of RFC 3339; one without a zone is UTC.

    Raises:
        InputError: a field that is no name, or that no passage has while the path that it would be leads somewhere;
            a value of another type, bounds between which nothing lies; with the way to say it.
    """
    if conditions is None or isinstance(conditions, models.Filter):
        return conditions
    if not isinstance(conditions, Mapping):
        raise InputError(f"filter is a {type(conditions).__name__}, expected a dict or a qdrant_client Filter")
    must = [condition(collection.layout, field, value) for field, value in conditions.items()]
    refuse_paths(collection, conditions)
    return models.Filter(must=must) if must else None


def refuse_paths(collection: Collection, fields: Iterable[Field], *, way_out: str = "write {}") -> None:
    """Raise `InputError` for a name that no passage has, and that read as a path would lead to something.

    Paths are what names were in earlier releases, and are in Qdrant's own filters.
    """
    for field in fields:
        meant = steps_in(field) if isinstance(field, str) else None
        if meant is None or len(meant) < 2:
            continue
        layout = collection.layout
        if occurs(collection, layout.metadata_field(field)):
            continue
        for steps in (meant, *_through_lists(meant)):
            if occurs(collection, layout.metadata_field(steps)):
                raise InputError(
                    f"no passage of {collection.name!r} has a metadata field {brief(field)}, but some have a value "
                    f"inside another one there: a name is only a name, so for that {way_out.format(steps)}"
                )
        # as in the engine's paths, which begin with the field that all metadata are in
        inside = str(field).removeprefix(f"{layout.metadata}.")
        if layout.metadata and inside not in ("", field) and occurs(collection, layout.metadata_field(inside)):
            raise InputError(
                f"no passage of {collection.name!r} has a metadata field {brief(field)}, but some have "
                f"{brief(inside)}: names begin inside {layout.metadata!r}, so write {inside!r}"
            )


def _through_lists(steps: Steps) -> Iterator[Steps]:
    """The same way if one of the values on it is in a list. Of long ways only the beginning is tried."""
    for place in range(1, min(len(steps), 4)):
        if isinstance(steps[place - 1], str) and isinstance(steps[place], str):
            yield (*steps[:place], None, *steps[place:])


def occurs(collection: Collection, path: str, among: models.Filter | None = None) -> bool:
    """Whether a point, of those that match `among`, has something at a path of the payload."""
    absent = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
    there = models.Filter(must=[among] if among is not None else None, must_not=[absent])
    try:
        # not tried again, as no search is
        return bool(collection.gateway.query(None, query_filter=there, limit=1, with_payload=False))
    except EngineError:  # a server's strict mode may refuse to look where no index is
        return False


def condition(layout: Layout, field: Field, value: Any) -> models.Condition:
    """The condition of a plain filter on one field. Raises `InputError`."""
    what = f"filter on {shown(steps_of(field, 'filter field'))}"
    path = layout.metadata_field(field)
    if isinstance(value, Mapping):
        return within(path, value, what)
    if isinstance(value, np.ndarray) and value.ndim:
        value = list(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return any_of(path, list(value), what)
    return equal(path, value, what)


def equal(path: str, value: Any, what: str) -> models.Condition:
    """That a value, or one in a list, is `value`: the same number in any type, the same moment in any spelling."""
    plain = _comparable(value, what)
    if isinstance(plain, bool):
        return models.FieldCondition(key=path, match=models.MatchValue(value=plain))
    if isinstance(plain, str):
        # not MatchValue: an index of numbers or dates takes a text that looks like a UUID for a number
        return models.FieldCondition(key=path, match=models.MatchAny(any=[plain]))
    if isinstance(plain, datetime):
        return models.FieldCondition(key=path, range=models.DatetimeRange(gte=plain, lte=plain))
    return _same_number(path, plain, what)


def _same_number(path: str, number: int | float, what: str) -> models.Condition:
    if isinstance(number, float) and not (number.is_integer() and LEAST_MATCHED <= number <= LARGEST_MATCHED):
        # engines read what has many digits, in a payload or a request, with an error of some units in the last place
        return models.FieldCondition(key=path, range=_about(number, number))
    whole = int(number)
    if abs(whole) <= LARGEST_WHOLE_DOUBLE:
        # a match finds 2020.0 for 2020 only where the field has an index of integers
        return models.FieldCondition(key=path, range=models.Range(gte=whole, lte=whole))
    if not LEAST_MATCHED <= whole <= LARGEST_MATCHED:
        raise InputError(f"{what} is {whole}, and engines match no integer beyond 64 bits: store it as a string")
    return models.FieldCondition(key=path, match=models.MatchValue(value=whole))


def any_of(path: str, values: Sequence[Any], what: str) -> models.Condition:
    """That a value, or one in a list, is one of `values`, which are of one kind."""
    plain: list[Any] = [_comparable(value, what) for value in values]
    kinds = {_kind(value) for value in plain}
    if len(kinds) != 1:
        raise InputError(
            f"{what} is {brief(values)}, expected values of one kind ({' or '.join(KINDS)}), at least one of them"
        )
    if kinds == {"strings"}:
        return models.FieldCondition(key=path, match=models.MatchAny(any=plain))
    if kinds == {"numbers"}:
        if len(plain) > MOST_NUMBERS:
            return _one_integer_of(path, plain, what)
        return _one_number_of(path, sorted(set(plain)), what)
    return models.Filter(should=[equal(path, value, what) for value in dict.fromkeys(plain)])


def _one_integer_of(path: str, numbers: Sequence[Any], what: str) -> models.Condition:
    if any(not float(number).is_integer() or not LEAST_MATCHED <= number <= LARGEST_MATCHED for number in numbers):
        raise InputError(
            f"{what} is a list of {len(numbers):,} numbers, and one of them is no integer: give bounds, or at most "
            f"{MOST_NUMBERS:,} numbers"
        )
    logger.warning(
        "%s is a list of %s numbers: where they are stored with a fraction, as in 2020.0, only an index of integers "
        "finds them; give at most %s, or bounds",
        what,
        f"{len(numbers):,}",
        f"{MOST_NUMBERS:,}",
    )
    return models.FieldCondition(key=path, match=models.MatchAny(any=[int(number) for number in numbers]))


def _one_number_of(path: str, numbers: Sequence[Any], what: str) -> models.Filter:
    """One of several numbers in their order: halved again and again, so that a value is compared with few of them."""
    if len(numbers) <= NUMBERS_AT_ONCE:
        return models.Filter(should=[_same_number(path, number, what) for number in numbers])
    middle = len(numbers) // 2
    halves: list[models.Condition] = [_one_number_of(path, half, what) for half in (numbers[:middle], numbers[middle:])]
    between = models.FieldCondition(key=path, range=_about(float(numbers[0]), float(numbers[-1])))
    return models.Filter(must=[between, models.Filter(should=halves)])


def _about(low: float, high: float) -> models.Range:
    """From one number to another, and a little further."""
    most = sys.float_info.max
    return models.Range(gte=max(-most, low - 8 * math.ulp(low)), lte=min(most, high + 8 * math.ulp(high)))


def within(path: str, bounds: Mapping[Any, Any], what: str) -> models.Condition:
    """That a number lies between numbers, or a time between times. Raises `InputError`."""
    unknown = [name for name in bounds if name not in BOUNDS]
    if unknown or not bounds:
        raise InputError(
            f"{what} has {brief(unknown[0]) if unknown else 'no bounds'}, expected {', '.join(BOUNDS)} and a bound for "
            "each; the value inside another one is reached by a tuple of names as field: ('author', 'name')"
        )
    plain: dict[str, Any] = {name: _bound(value, f"{what}: {name}") for name, value in bounds.items()}
    kinds = sorted({_kind(bound) for bound in plain.values()})
    if len(kinds) > 1:
        raise InputError(f"{what} is {brief(dict(bounds))}: {kinds[0]} and {kinds[1]} are not compared")
    if _is_empty(plain):
        raise InputError(
            f"{what} is {brief(dict(bounds))}, and nothing lies there: are the bounds the wrong way round?"
        )
    if kinds == ["times"]:
        return models.FieldCondition(key=path, range=models.DatetimeRange(**plain))
    return models.FieldCondition(key=path, range=models.Range(**plain))


def _is_empty(bounds: Mapping[str, Any]) -> bool:
    """Whether nothing can lie between bounds, which are of one kind."""
    lower = [(bounds[name], name == "gt") for name in ("gt", "gte") if name in bounds]
    upper = [(bounds[name], name == "lt") for name in ("lt", "lte") if name in bounds]
    return any(low > high or (low == high and (above or below)) for low, above in lower for high, below in upper)


MOST_NUMBERS = 1000
"""In a list that are looked for one by one; for more a server needs seconds."""
NUMBERS_AT_ONCE = 4
"""Engines read the payload again for every range: more numbers than these are searched by halves."""
KINDS = ("strings", "numbers", "booleans", "times")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "booleans"
    return "strings" if isinstance(value, str) else "times" if isinstance(value, datetime) else "numbers"


def _comparable(value: Any, what: str) -> bool | int | float | str | datetime:
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        raise InputError(
            f"{what} is or holds {brief(value)}, expected a string, number, boolean, date or time there; conditions "
            "of other kinds can be given as a qdrant_client Filter"
        )
    try:
        plain = plain_value(value)
    except InputError as error:
        raise InputError(f"{what} is {brief(value)}: {error}") from error
    if plain is None:
        raise InputError(
            f"{what} is None, expected a string, number, boolean, date or time, a list of those, or bounds; a "
            "qdrant_client Filter with IsEmptyCondition finds where a field is missing"
        )
    return checked_text(what, plain) if isinstance(plain, str) else plain


_EXPECTED = "expected a number, a date or an RFC 3339 time, such as 30, 2024-01-31 or 2024-01-31T09:00:00Z"


def _bound(value: Any, what: str) -> int | float | datetime:
    plain = _comparable(value, what)
    if isinstance(plain, str):
        moment = moment_in(plain)
        if moment is None:
            raise InputError(f"{what} is {brief(value)}, {_EXPECTED}")
        return moment
    if isinstance(plain, bool):
        raise InputError(f"{what} is {plain}, {_EXPECTED}")
    if isinstance(plain, int) and int(float(plain)) != plain:
        raise InputError(f"{what} is {plain}, and engines compare doubles: the nearest one is {int(float(plain))}")
    return plain
