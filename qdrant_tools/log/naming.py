"""The names of a foreign log's columns: as a person writes them, and as a file seems to have them.

Guarantees: what is written and not understood is refused with the keys that there are; a suggestion is only that, and
reads nothing by itself. Does not know: what a cell means (`columns`), which rows are one search (`readers`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError, UsageError, first_line, listed
from qdrant_tools.files.json_files import parse_json, read_json
from qdrant_tools.files.rows import Row
from qdrant_tools.foreign import is_missing
from qdrant_tools.log.columns import LogColumns
from qdrant_tools.log.records import KINDS
from qdrant_tools.log.rows import rows_of_log
from qdrant_tools.unread import words_in_name
from qdrant_tools.validation import brief, number_in

LOOKED_AT = 50
"""Rows that say what a file seems to be."""
KEYS = tuple(field.name for field in fields(LogColumns) if field.name != "feedback") + tuple(KINDS)
EXAMPLE = "query=term session=visit at=time zone=UTC hits=shown click=clicked"
_SEPARATOR = re.compile(r"""(?:^|(?<=[\s,]))separator=(?:'([^']+)'|"([^"]+)"|([^\s,]+|,(?=\s|$)))""")
"""A sign that may be one of those that part the pairs, or that a shell leaves in its quotes."""
_PLAIN = re.compile(r"[^\s,='\"]+")
# in the order of how sure they are
_WORDS: Mapping[str, tuple[str, ...]] = {
    "query": ("query", "queries", "question", "term", "terms", "q", "keyword", "keywords", "phrase", "search", "text")
    + ("suchbegriff", "suchanfrage", "anfrage", "frage", "suche", "requete", "recherche", "consulta", "busqueda"),
    "at": ("timestamp", "time", "when", "at", "ts", "datetime", "date", "created")
    + ("zeitpunkt", "zeit", "datum", "horodatage", "heure", "fecha", "hora"),
    "session": ("session", "sess", "visit", "conversation", "sid", "visitor", "user", "client", "uid")
    + ("sitzung", "besuch", "besucher", "nutzer", "benutzer", "visiteur", "utilisateur", "sesion", "usuario"),
    "hits": ("hits", "results", "shown", "documents", "docs", "retrieved", "impressions", "ranking", "items", "ids")
    + ("treffer", "ergebnisse", "resultats", "resultados"),
    "hit": ("doc", "document", "hit", "passage", "result", "item", "url", "article", "product", "page", "id")
    + ("dokument", "artikel", "treffer", "documento"),
    "rank": ("rank", "position", "pos", "place", "rnk", "rang", "platz"),
    "score": ("score", "similarity"),
    "click": ("click", "clicked", "clicks", "klick", "klicks", "geklickt", "angeklickt", "clic", "clics"),
    "dwell": ("dwell",),
    "rating": ("rating", "stars", "grade"),
    "up": ("up", "like", "liked", "helpful", "thumb", "thumbs", "upvote"),
    "search": ("search", "query", "request", "event", "trace", "span", "qid"),
}


def written_columns(text: str, *, zone: str | None = None) -> LogColumns:
    """The columns in `query=term at=time click=clicked` (parted by spaces or commas), in JSON, or in a file of JSON.

    The kinds of feedback are keys like the others. `zone` goes before what the text says.

    Raises:
        UsageError: neither, or a key that there is not.
        InputError: what the keys say cannot be.
    """
    row = _written(text)
    unknown = sorted(row.keys() - {*KEYS, "feedback"})
    if unknown:
        raise UsageError(f"the columns have {brief(unknown)}, expected some of {', '.join(KEYS)}, as in: {EXAMPLE}")
    feedback = row.pop("feedback", {})
    if not isinstance(feedback, Mapping):
        raise UsageError(f"feedback is {brief(feedback)}, expected the column of each of {', '.join(KINDS)}")
    # numbers of the command line are texts
    if str(row.get("rank_from")) in ("0", "1"):
        row["rank_from"] = int(row["rank_from"])
    told = {kind: row.pop(kind) for kind in KINDS if kind in row}
    return LogColumns(**row | {"feedback": {**feedback, **told}} | ({} if zone is None else {"zone": zone}))


def _written(text: str) -> dict[str, Any]:
    if not text.lstrip().startswith("{"):
        sign = _SEPARATOR.search(text)
        rest = text if sign is None else f"{text[: sign.start()]} {text[sign.end() :]}"
        pairs = [part for part in re.split(r"[\s,]+", rest.strip()) if part]
        if pairs and all("=" in part[1:] for part in pairs) and not Path(text).is_file():
            row: dict[str, Any] = dict(part.split("=", 1) for part in pairs)
            return row if sign is None else row | {"separator": next(filter(None, sign.groups()))}
    try:
        row = parse_json(text, "it") if text.lstrip().startswith("{") else read_json(Path(text))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the columns are {brief(text)}, expected {EXAMPLE!r}, JSON, or a file of JSON: {first_line(error)}"
        ) from error
    if not isinstance(row, dict):
        raise UsageError(f"the columns are {brief(row)}, expected an object with some of {', '.join(KEYS)}")
    return row


def as_written(columns: Mapping[str, str]) -> str:
    """Keys and columns as `written_columns` reads them: in short, or as JSON where a name does not allow that."""
    if all(_PLAIN.fullmatch(name) for name in columns.values()):
        return " ".join(f"{key}={name}" for key, name in columns.items())
    return json.dumps(dict(columns), ensure_ascii=False)


def why_unknown(path: str | Path) -> tuple[str, str]:
    """What to say of a log whose columns nobody has named: its columns and the keys, and columns that may be meant.

    Raises:
        InputError: the file cannot be read as rows.
    """
    rows = list(islice(rows_of_log(path), LOOKED_AT))
    if not rows:
        raise InputError(
            f"{path} has no rows, expected searches; without any: embed-plus synthesize COLLECTION --out examples.jsonl"
        )
    names = list(dict.fromkeys(name for row in rows for name in _names(row.values)))
    return (
        f"{path} is the log of another system: say which of its columns is what. It has {listed(names) or 'no columns'}"
        f"; the keys are {', '.join(KEYS)}",
        as_written(suggested(rows, names)),
    )


def suggested(rows: Iterable[Row], names: Iterable[str]) -> dict[str, str]:
    """Key -> column, as a log seems to mean them; "COLUMN" for the query where no name tells it."""
    values = {name: [_at(row.values, name) for row in rows] for name in names}
    found: dict[str, str] = {}

    def take(key: str, *, only: Iterable[str]) -> None:
        free = [name for name in only if name not in found.values()]
        for word in _WORDS[key]:
            column = next((name for name in free if word in words_in_name(name)), None)
            if column is not None:
                found[key] = column
                return

    lists = [name for name, cells in values.items() if any(map(_is_list, cells))]
    identifying = [name for name in values if {"id", "qid", "sid", "uid", "uuid", "guid"} & set(words_in_name(name))]
    single = [name for name in values if name not in lists]
    take("query", only=[name for name in single if name not in identifying])
    take("at", only=[name for name in single if any(map(_is_time, values[name]))])
    take("session", only=single)
    for kind in ("click", "dwell", "rating", "up"):
        take(kind, only=values)
    take("hits", only=lists)
    _take_by_content(found, values, lists, single)
    if "hits" not in found:
        for key in ("rank", "score"):
            take(key, only=single)
        take("search", only=identifying)
        take("hit", only=single)
    else:
        found |= _inside(values[found["hits"]])
    if "at" in found:
        found |= _written_times(values[found["at"]])
    return {"query": "COLUMN"} | found


def _take_by_content(
    found: dict[str, str], values: Mapping[str, Sequence[Any]], lists: Sequence[str], single: Sequence[str]
) -> None:
    """Fill in what no name tells, in whatever language the names are: times, lists, parts of lists, and texts."""
    times = [name for name in single if name not in found.values() and all(map(_is_time, values[name]))]
    if "at" not in found and len(times) == 1:
        found["at"] = times[0]
    unnamed = [name for name in lists if name not in found.values()]
    if unnamed and "hits" not in found:
        found["hits"] = max(unnamed, key=lambda name: sum(len(str(cell)) for cell in values[name]))
    if "hits" in found and "click" not in found:
        shown = [_words(cell) for cell in values[found["hits"]]]
        parts = {name: [_words(cell) for cell in values[name]] for name in values if name not in found.values()}
        clicked = [name for name, cells in parts.items() if any(cells) and all(map(frozenset.issubset, cells, shown))]
        if len(clicked) == 1:
            found["click"] = clicked[0]
    texts = [name for name in single if name not in found.values() and any(" " in str(cell) for cell in values[name])]
    if "query" not in found and texts:
        found["query"] = max(texts, key=lambda name: sum(len(str(cell)) for cell in values[name]))


def _inside(cells: Iterable[Any]) -> dict[str, str]:
    """The columns of the objects in a list of hits."""
    listed_hits = next((cell for cell in cells if isinstance(cell, list) and cell), [None])
    if not isinstance(listed_hits[0], Mapping):
        return {}
    names = _names(listed_hits[0])
    found: dict[str, str] = {}
    for key in ("hit", "rank", "score"):
        likely = (name for word in _WORDS[key] for name in names if word in words_in_name(name))
        column = next((name for name in likely if name not in found.values()), None)
        if column is not None:
            found[key] = column
    # an object that has an id is told by it, whatever else it names
    return found | {"hit": "id"} if "id" in names else found


def _words(cell: Any) -> frozenset[str]:
    return frozenset() if is_missing(cell) else frozenset(re.findall(r"\w+", str(cell)))


def _names(values: Mapping[Any, Any], prefix: str = "") -> list[str]:
    """The names of a row, with those inside of objects behind a dot."""
    names = []
    for name, value in values.items():
        where = f"{prefix}{name}"
        deep = isinstance(value, Mapping) and bool(value) and where.count(".") < 4
        names += _names(value, f"{where}.") if deep else [where]
    return [name for name in names if name]


def _at(values: Mapping[Any, Any], path: str) -> Any:
    found: Any = values
    if path in values:
        return values[path]
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _is_list(value: Any) -> bool:
    if isinstance(value, str):
        text = value.strip()
        # a comma is in many a text; ids have no spaces
        return text[:1] in ("[", "{") or "|" in text or ("," in text and " " not in text.replace(", ", ","))
    return isinstance(value, list)


def _is_time(value: Any) -> bool:
    return bool(_per_second(value)) or (isinstance(value, str) and bool(re.search(r"\d{1,2}:\d{2}", value)))


def _per_second(value: Any) -> str:
    """The unit of a moment that is a number, if it is one."""
    number = number_in(value) if isinstance(value, str) else value
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        for unit, low in (("seconds", 1e9), ("milliseconds", 1e12), ("microseconds", 1e15), ("nanoseconds", 1e18)):
            if low * 0.6 <= number < low * 4:
                return unit
    return ""


def _written_times(cells: Iterable[Any]) -> dict[str, str]:
    seen = [cell for cell in cells if not is_missing(cell)]
    unit = _per_second(seen[0]) if seen else ""
    if unit:
        return {"at_format": unit}
    order = next(filter(None, map(_order, seen)), "")
    without_zone = [cell for cell in seen if not re.search(r"(Z|UTC|GMT|[+-]\d{2}:?\d{2})$", str(cell).strip())]
    return ({"at_format": order} if order else {}) | ({"zone": "UTC"} if without_zone else {})


def _order(cell: Any) -> str:
    """Whether the day or the month stands first in a date of numbers, where one of them tells."""
    found = re.match(r"(\d{1,2})([./-])(\d{1,2})\2\d{4}\b", str(cell).strip())
    if found is None or (int(found[1]) <= 12 and int(found[3]) <= 12 and found[2] != "."):
        return ""
    # no country puts points between and the month first
    return "month-first" if int(found[3]) > 12 else "day-first"
