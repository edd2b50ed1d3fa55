"""Spans that hold a list of documents which another span has found -> steps like any other.

Frameworks that carry a state from step to step (LangGraph, LCEL, pipelines, agents) write the whole list into the
output of every step that it goes through. Where no span is called a retriever, such a list is all that there is of a
retrieval, and the step that had it first has found it; where one is, or a step had it before, it is an echo.

Guarantees: of steps with one list, one stays; a span that its tool calls a retriever always stays. Does not know: what
a search is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from qdrant_tools.traces.records import Span

_LISTS = 64
"""Lists that an echo is looked for among: the latest ones."""
_DEEPEST = 1000


def without_echoes(spans: Iterable[Span]) -> list[Span]:
    """The spans of a trace, in which those that only pass a list on are chains without one."""
    every = list(spans)
    implied = [span for span in every if span.implied and span.documents is not None]
    if not implied:
        return every
    parents = {span.id: span.parent for span in every}
    found = [span for span in every if span.kind == "retrieval" and not span.implied and span.documents]
    named = {name for span in found for name in _names(span)}
    holders = _holders_of(found, parents)
    echoes: set[str] = set()
    lists: deque[Span] = deque(maxlen=_LISTS)
    ends = all(span.until is not None for span in implied)
    for span in sorted(implied, key=lambda span: _order(span, parents, ends)):
        if span.id in holders or named.issuperset(_names(span)) or _is_echo(span, lists):
            echoes.add(span.id)
        else:
            lists.append(span)
    return [replace(span, kind="chain", documents=None, implied=False) if span.id in echoes else span for span in every]


def _is_echo(span: Span, lists: Iterable[Span]) -> bool:
    """Whether a list is one that was found before, a part of it in the same order, or several of them put together.

    In another order it is one only where the same was asked: two searches may find the same documents.
    """
    names, together = _names(span), set[str]()
    for before in lists:
        earlier = _names(before)
        together.update(earlier)
        if _in_order(names, earlier) or (span.query == before.query and set(names) <= set(earlier)):
            return True
    return set(names) <= together and len(names) > max((len(_names(before)) for before in lists), default=0)


def _in_order(names: Sequence[str], earlier: Sequence[str]) -> bool:
    rest = iter(earlier)
    return all(name in rest for name in names)


def _names(span: Span) -> list[str]:
    return [document.id or document.text or "" for document in span.documents or ()]


def _holders_of(found: Iterable[Span], parents: Mapping[str, str | None]) -> set[str]:
    """The ids of all spans above those."""
    holders: set[str] = set()
    for span in found:
        parent = span.parent
        while parent is not None and parent not in holders:
            holders.add(parent)
            parent = parents.get(parent)
    return holders


def _order(span: Span, parents: Mapping[str, str | None], ends: bool) -> tuple[str, int, str, str]:
    """The order in which steps end. Where not all say when: what lies deeper ends first, then what began first."""
    depth, parent = 0, span.parent
    while parent is not None and depth < _DEEPEST:
        depth, parent = depth + 1, parents.get(parent)
    began = "~" if span.at is None else span.at.isoformat()
    ended = span.until.isoformat() if ends and span.until is not None else ""
    return ended, -depth, began, span.id
