"""The `[2]` in an answer -> the passage it points at, told by its text and never by its number alone.

The numbers are those of the sources as the language model was given them: split anew, reordered, with ids of their own.
So source 2 is whichever passage of the list has its text.

Guarantees: a source that several passages hold, or none, gives nothing. Does not know: whether the passage says what
the sentence says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qdrant_tools.traces.records import SpanDocument

_CITED = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
SHORTEST = 16
"""Characters of a source that may be looked for in passages: shorter ones are found anywhere."""


def cited_in(answer: str, sources: Sequence[SpanDocument], documents: Iterable[SpanDocument]) -> tuple[str, ...]:
    """The ids of the passages that an answer cites, in the order of the citations.

    sources: the numbered texts that the model saw; `[1]` is at position 0.
    """
    texts = {source.position + 1: _plain(source.text) for source in sources if source.text}
    passages = [(document.id, _plain(document.text)) for document in documents if document.id and document.text]
    found: dict[str, None] = {}
    for number in _numbers(answer):
        source = texts.get(number, "")
        holding = {name for name, text in passages if _is_part(source, text)}
        if len(holding) == 1:
            found[holding.pop()] = None
    return tuple(found)


def _numbers(answer: str) -> list[int]:
    return list(dict.fromkeys(int(part) for match in _CITED.findall(answer) for part in re.split(r"[,;]", match)))


def _is_part(source: str, passage: str) -> bool:
    """Whether one is a piece of the other: passages are split for the prompt, and get headings in it."""
    shorter, longer = sorted((source, passage), key=len)
    return len(shorter) >= SHORTEST and shorter in longer


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())
