"""A row whose candidates are a list inside of it -> a query with the candidates that answer it, and those that do not.

Two shapes: a list of objects, each with a text and what it is worth, as FEVER-like sets hold the evidences of a claim;
or an object of lists of equal length, as MS MARCO holds passages and which of them were selected. Evidence that
supports a claim and evidence that refutes it both answer it; "not enough info" does not.

Guarantees: a candidate without a text, or whose worth is neither yes nor no nor a whole grade, is refused with its row.
Does not know: encoders, other layouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index_embed_plus.evaluate.tasks.scores import RerankingQuery
from qdrant_tools.errors import InputError, brief
from qdrant_tools.files.rows import Row
from qdrant_tools.foreign import as_flag

ASKED = ("query", "anchor", "question", "claim")
LISTS = ("candidates", "evidences", "passages", "documents", "contexts", "ctxs")
TEXTS = ("text", "passage", "passage_text", "evidence", "document", "content")
WORTH = ("label", "evidence_label", "relevance", "relevant", "is_relevant", "is_selected", "grade")
_VERDICTS = {"supports": True, "refutes": True, "not_enough_info": False}


@dataclass(frozen=True)
class Nested:
    """The names of the query, of the list, and inside of it of a text and its worth; `others` are not read."""

    query: str
    candidates: str
    text: str
    worth: str
    others: tuple[str, ...] = ()


def nested_in(values: Mapping[str, Any]) -> Nested | None:
    """Where the candidates of a row are, None if it has none or leaves open which field is what."""
    queries = [name for name in ASKED if isinstance(values.get(name), str)]
    lists = [(name, _fields(values[name])) for name in LISTS if _fields(values.get(name))]
    if len(queries) != 1 or len(lists) != 1:
        return None
    name, fields = lists[0]
    texts, worth = ([field for field in known if field in fields] for known in (TEXTS, WORTH))
    if len(texts) != 1 or len(worth) != 1:
        return None
    others = tuple(field for field in fields if field not in (texts[0], worth[0]))
    return Nested(queries[0], name, texts[0], worth[0], others)


def candidates_of(row: Row, nested: Nested) -> RerankingQuery:
    """The query of a row and its candidates.

    Raises:
        InputError: with file and line.
    """
    positives: list[str] = []
    negatives: list[str] = []
    for number, (text, worth) in enumerate(_entries(row, nested), start=1):
        what = f"{row.where}: {nested.candidates} {number}"
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{what}: {nested.text} is {brief(text)}, expected a non-empty text")
        (positives if _answers(what, nested.worth, worth) else negatives).append(text)
    return RerankingQuery(row.text(nested.query), tuple(positives), tuple(negatives))


def _fields(value: object) -> Sequence[str]:
    """The names inside of candidates, () if they are none."""
    if isinstance(value, Mapping) and value and all(isinstance(each, list) for each in value.values()):
        return tuple(map(str, value))
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return tuple(map(str, value[0]))
    return ()


def _entries(row: Row, nested: Nested) -> Iterator[tuple[object, object]]:
    value = row.values.get(nested.candidates)
    if isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
        yield from ((each.get(nested.text), each.get(nested.worth)) for each in value)
        return
    texts, worth = (value.get(name) for name in (nested.text, nested.worth)) if isinstance(value, Mapping) else (0, 0)
    if not isinstance(texts, list) or not isinstance(worth, list) or len(texts) != len(worth):
        raise InputError(f"{row.where}: {nested.candidates} is {brief(value)}, expected candidates as in the first row")
    yield from zip(texts, worth)


def _answers(what: str, name: str, value: object) -> bool:
    if isinstance(value, str) and (word := value.strip().lower().replace(" ", "_")) in _VERDICTS:
        return _VERDICTS[word]
    if isinstance(value, int) and not isinstance(value, bool):
        return value > 0
    try:
        flag = as_flag(name, value)
    except InputError:
        flag = None
    if flag is None:
        raise InputError(
            f"{what}: {name} is {brief(value)}, expected yes or no, a whole grade, or one of {', '.join(_VERDICTS)}"
        )
    return flag
