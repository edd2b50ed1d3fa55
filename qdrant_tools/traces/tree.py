"""The spans of one trace -> who is below whom, which retrievals are outermost, and what is above them.

A framework writes several spans for one retrieval: a public method and the one it calls, a fusion and the retrievals
that it fuses. The outermost one with a list is what the application asked for. Where the spans between were left out of
the file, what lies in what is told by the times.

Guarantees: of spans that name each other as their parents, the earliest is the outermost. What began after an answer
was given is no part of it: some instrumentations leave a span open behind a stream, and put whatever the process does
next below it; nor is an item of a batch a part of the item before it. Does not know: searches, annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import groupby

from qdrant_tools.traces.records import Span

MOST_DEEP = 300
"""Spans above one another that are looked at, and the root: nobody's application is deeper."""

MOST_LISTS = 100
"""A reranker that may have had more of them tells nothing of one, and all with all would take hours."""


_FEW = 8
CIRCLE_HINT = "spans name each other as their parents: the earliest of them is taken for the outermost"


class Tree:
    """The spans of a trace, by id. `circles` counts those in which spans name each other as their parents."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = {span.id: span for span in _below_the_whole(list(spans))}
        first = _first_in_circles(self.spans)
        self.circles = len(first)
        self.spans.update((id, replace(self.spans[id], parent=None)) for id in first)
        asking = [span for span in self.spans.values() if span.kind in ("chain", "retrieval") and span.at is not None]
        late = [span for span in asking if _is_late(span, self._holder(span)) or self._is_next_item(span)]
        self.spans.update((span.id, replace(span, parent=None)) for span in late)
        self._above: dict[str, tuple[Span, ...]] = {}
        self._last_words: dict[str, str] = {}

    def above(self, span: Span) -> tuple[Span, ...]:
        """The spans that a span lies in, the nearest first."""
        if span.id not in self._above:
            self._above[span.id] = tuple(self._climb(span))
        return self._above[span.id]

    def _climb(self, span: Span) -> Iterator[Span]:
        seen = {span.id}
        while span.parent is not None and span.parent not in seen:
            parent = self.spans.get(span.parent)
            if parent is None or len(seen) > MOST_DEEP:
                # spans are missing in between, or left out, but hardly ever the root
                yield from (root for root in self.roots[:1] if len(self.roots) == 1 and root.id not in seen)
                return
            seen.add(parent.id)
            yield parent
            span = parent

    def _holder(self, span: Span) -> Span | None:
        """The step that a span lies in, past a few that say no more than that they are there."""
        above: Span | None = span
        for _ in range(_FEW):
            above = self.spans.get((above.parent if above is not None else None) or "")
            if above is None or above.kind != "other":
                return above
        return None

    def _is_next_item(self, span: Span) -> bool:
        """Whether a step lies in the item before it of a batch, whose items LangChain begins and ends in one order.

        Its tools take for its parent whatever was begun last. What lies in a step ends before it.
        """
        parent = self.spans.get(span.parent or "")
        if parent is None or span.name != parent.name or span.until is None or parent.until is None:
            return False
        is_another = None not in (span.query, parent.query) and span.query != parent.query
        return is_another and bool(span.answer and parent.answer) and span.until > parent.until

    @cached_property
    def roots(self) -> list[Span]:
        """The spans without a parent."""
        return [span for span in self.spans.values() if span.parent is None]

    @cached_property
    def retrievals(self) -> list[Span]:
        """All spans of retrievals, in the order of time."""
        found = [span for span in self.spans.values() if span.kind == "retrieval"]
        return sorted(found, key=_when)

    @cached_property
    def outermost(self) -> list[Span]:
        """The retrievals with a list that are in no other one with a list."""
        return [span for span in self.retrievals if span.documents is not None and not self.is_inner(span)]

    def is_inner(self, span: Span) -> bool:
        """Whether a retrieval is a part of another one, which has a list."""
        above = self.above(span)
        if any(other.kind == "retrieval" and other.documents is not None for other in above):
            return True
        # where the chain to the root is broken, times say what lies in what
        return self.is_broken(span) and span.id in self._held

    def is_broken(self, span: Span) -> bool:
        """Whether a step above a span is not there."""
        return any(step.parent is not None and step.parent not in self.spans for step in (span, *self.above(span)))

    @cached_property
    def _held(self) -> frozenset[str]:
        """The retrievals that ran within the time of another one that has a list, and not the other way round."""
        held: set[str] = set()
        timed = [(span.at, span.until, span) for span in self.retrievals if span.at is not None and span.until]
        earlier: datetime | None = None
        for _, group in groupby(sorted(timed, key=lambda one: one[0]), key=lambda one: one[0]):
            together = list(group)
            latest = max((until for _, until, span in together if span.documents is not None), default=None)
            for _, until, span in together:
                if (earlier is not None and until <= earlier) or (latest is not None and until < latest):
                    held.add(span.id)
            earlier = max((end for end in (earlier, latest) if end is not None), default=None)
        return frozenset(held)

    def has_outer(self, span: Span) -> bool:
        """Whether a retrieval lies in or around another one that has a list."""
        return self.is_inner(span) or bool(self.below(span))

    def lists_after(self, span: Span) -> list[Span]:
        """The rerankers and postprocessors that a retrieval's list went through, in the order of time."""
        return [step for step, of in self._lists if span.id in of]

    @cached_property
    def _lists(self) -> list[tuple[Span, frozenset[str]]]:
        """The rerankers outside of retrievals, each with the retrievals whose lists it had."""
        found = []
        inside = {span.id for span in self.outermost}
        rerankers = [step for step in self.spans.values() if step.kind == "rerank" and step.context is not None]
        for step in sorted(rerankers, key=_when):
            above = self.above(step)
            if any(other.id in inside for other in above):
                continue
            # those of the nearest span that holds both
            near = next((below for other in above if (below := self.below(other))), [])
            if len(near) > MOST_LISTS:
                continue
            found.append((step, frozenset(span.id for span in near)))
        return found

    def below(self, span: Span) -> list[Span]:
        """The outermost retrievals that a span holds, itself among them."""
        return self._below.get(span.id, [])

    @cached_property
    def _below(self) -> dict[str, list[Span]]:
        found: dict[str, list[Span]] = {}
        for span in self.outermost:
            for holder in (span, *self.above(span)):
                found.setdefault(holder.id, []).append(span)
        return found

    def inside(self, span: Span) -> list[Span]:
        """All spans below a span, itself not among them."""
        found: list[Span] = []
        todo, seen = [span.id], {span.id}
        while todo:
            for child in self._children.get(todo.pop(), ()):
                if child.id not in seen:
                    seen.add(child.id)
                    found.append(child)
                    todo.append(child.id)
        return found

    def last_words(self, span: Span) -> str:
        """What a language model said last below a span."""
        if span.id not in self._last_words:
            said = [step for step in self.inside(span) if step.kind == "llm" and step.answer]
            last = max(
                said, key=lambda step: (step.at is not None, step.at.isoformat() if step.at else ""), default=None
            )
            self._last_words[span.id] = "" if last is None else last.answer or ""
        return self._last_words[span.id]

    @cached_property
    def _children(self) -> dict[str, list[Span]]:
        found: dict[str, list[Span]] = {}
        for span in self.spans.values():
            if span.parent is not None:
                found.setdefault(span.parent, []).append(span)
        return found


def _below_the_whole(spans: Sequence[Span]) -> Iterable[Span]:
    """The spans; where the trace itself is one of them, as some tools write it, what has no parent lies in that."""
    if all(span.id != span.trace for span in spans):
        return spans
    return [
        replace(span, parent=span.trace) if span.parent is None and span.id != span.trace else span for span in spans
    ]


def _first_in_circles(spans: Mapping[str, Span]) -> list[str]:
    """Of each circle of parents, the id of its earliest span."""
    found, seen = [], set[str]()
    for id in spans:
        way: dict[str, None] = {}
        step: str | None = id
        while step is not None and step in spans and step not in seen and step not in way:
            way[step] = None
            step = spans[step].parent
        if step is not None and step in way:
            ids = list(way)
            found.append(min((spans[each] for each in ids[ids.index(step) :]), key=_when).id)
        seen.update(way)
    return found


def _is_late(span: Span, parent: Span | None) -> bool:
    """Whether a step with a question of its own began when that which it is said to lie in had given its answer."""
    if parent is None or parent.answer is None or parent.until is None or span.at is None:
        return False
    if span.query is not None and span.query == parent.query:
        return False
    # tools that write fewer digits have cut the rest
    slack = timedelta(milliseconds=1) if parent.until.microsecond else timedelta(seconds=1)
    return span.at >= parent.until + slack


def _when(span: Span) -> tuple[bool, str, str]:
    return span.at is None, "" if span.at is None else span.at.isoformat(), span.id
