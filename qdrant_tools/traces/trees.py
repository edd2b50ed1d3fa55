"""The spans of one trace -> its searches: what was asked, the list that came back, and the answer made of it.

Guarantees: a search is an outermost retrieval; its id is made of the ids of its trace and span, so that the same span
from another file is the same search, or is that under which the application has logged it. Ranks are the places in the
list, scores stay with whose they are. A query that is not that of the trace's beginning was written by the application,
which today means a language model: `generated`. Users and sessions are replaced by a hash without a key: it keeps names
out of logs and reports, and is no protection against somebody who guesses a name. Does not know: annotations, files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile

from qdrant_tools.log.records import REDACTED, Answer, Feedback, LoggedHit, LoggedSearch
from qdrant_tools.log.values import LONGEST_NAME, MOST_HITS, finite
from qdrant_tools.same import query_key
from qdrant_tools.traces.citations import cited_in
from qdrant_tools.traces.forms.values import query_in
from qdrant_tools.traces.ids import Ids, IdsOfList
from qdrant_tools.traces.records import Span, SpanDocument, TraceSettings
from qdrant_tools.traces.report import HINTS, TraceReport
from qdrant_tools.traces.tree import Tree


@dataclass(frozen=True)
class Found:
    """A search, and the span that it is of; `documents` are those of its hits, in the order of ranks."""

    search: LoggedSearch
    span: Span
    documents: tuple[SpanDocument, ...]
    answered: Span | None
    """The span whose output is the answer."""
    root_failed: bool
    is_logged: bool = False
    """Whether the application says under which id it has logged the search."""


def search_id(trace: str, span: str) -> str:
    """The id of the search that a span is, the same from whatever file."""
    return hashlib.sha256(f"{trace}\0{span}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def pseudonym(what: str, name: str) -> str:
    """A short name that stands for a user or a session; none for none."""
    if not name:
        return ""
    return hashlib.sha256(f"{what}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def searches_in(
    tree: Tree,
    settings: TraceSettings,
    ids: Ids,
    report: TraceReport,
    *,
    spoken_of: Iterable[str] = (),
    written: datetime | None = None,
) -> list[Found]:
    """The searches of a trace, in the order of time.

    spoken_of: ids of spans that somebody judged, so that their output is an answer of its own.
    written: when the files were, which is the time of a search that says none.
    """
    judged = frozenset(spoken_of)
    found = []
    for span in tree.retrievals:
        result = _why_not(tree, span) or _search(tree, span, settings, ids, judged, report, written)
        if isinstance(result, Found):
            found.append(result)
            continue
        report.drop(result)
        if result not in ("inner", "error"):
            report.hint(span.hint or HINTS.get(result, ""))
    answers = {answered.id: _answer(tree, answered, of_it, ids) for answered, of_it in _by_answer(found)}
    return [_with_answer(one, answers.get(one.answered.id if one.answered else "")) for one in found]


def _why_not(tree: Tree, span: Span) -> str | None:
    """The reason why a retrieval is no search, in itself or for where it lies."""
    if span.documents is None:
        if tree.has_outer(span):
            return "inner"
        return "error" if span.failed else "redacted" if span.hidden else "no documents"
    if tree.is_inner(span):
        return "inner"
    if span.failed:
        return "error"
    return "too large" if len(span.documents) > MOST_HITS else None


def _search(
    tree: Tree,
    span: Span,
    settings: TraceSettings,
    ids: Ids,
    judged: frozenset[str],
    report: TraceReport,
    written: datetime | None,
) -> Found | str:
    """The search that a span is, or why it is none."""
    above = tree.above(span)
    logged_as = _logged_as(tree, span)
    query = _query(tree, span, settings)
    if logged_as and span.query is None:
        query = REDACTED  # the log has it; what is above may be another
    if query is None:
        return "redacted" if span.hidden else "no query"
    # what holds it begins earlier, but hardly
    known = next((step.at for step in (span, *above) if step.at is not None), None)
    at = known or written
    if at is None:
        return "no time"
    given = span.documents or ()
    documents, nameless = _named(given, ids)
    if given and not documents:
        return "redacted" if span.hidden and not any(document.text for document in given) else ids.lacking
    hidden = min(span.hidden, sum(document.text is None for document in nameless))
    report.documents_hidden += hidden
    report.documents_without_id += len(nameless) - hidden
    report.documents_repeated += len(given) - len(documents) - len(nameless)
    headless = bool(given) and given[0].position > 0
    report.untimed += known is None
    report.headless += headless
    if headless or known is None:
        report.hint(span.hint)
    generated = query != REDACTED and _is_generated(query, above)
    report.generated += generated
    lists = [documents, *(step.context or () for step in tree.lists_after(span))]
    report.scores_without_number += sum(_is_lost(each.score) for listed in lists for each in listed)
    search = LoggedSearch(
        id=logged_as or search_id(span.trace, span.id),
        at=at,
        query=query,
        redacted=query == REDACTED,
        collection=next((step.collection for step in (span, *above) if step.collection), "")[:LONGEST_NAME],
        hits=tuple(LoggedHit(each.id or "", each.position + 1, finite(each.score)) for each in documents),
        session=pseudonym("session", next((step.session for step in (span, *above) if step.session), "")),
        user=pseudonym("user", next((step.user for step in (span, *above) if step.user), "")),
        generated=generated,
        scored_by=_scored_by(tree, span) if any(finite(each.score) is not None for each in documents) else "",
    )
    search = replace(search, feedback=_reranked(tree.lists_after(span), search, IdsOfList(ids, given)))
    root_failed = any(step.failed for step in above)
    return Found(search, span, documents, _answered(tree, span, judged), root_failed, bool(logged_as))


def _logged_as(tree: Tree, span: Span) -> str:
    """The id under which the application has logged the search itself; a span within says it too."""
    told = {step.search for step in (span, *tree.inside(span)) if step.search}
    return told.pop() if len(told) == 1 else ""


def _is_generated(query: str, above: Sequence[Span]) -> bool:
    """Whether a query is not what the trace began with: a language model's, which also calls tools."""
    users = list(takewhile(lambda step: not step.is_tool or step.parent is None, reversed(above)))
    asked = next((step.query for step in users if step.query is not None), None)
    if asked is None:
        return len(users) < len(above)
    # of JSON that somebody typed, the beginning may have been read as an object with a text in it
    return query_key(asked) not in (query_key(query), query_key(query_in(query) or ""))


def _query(tree: Tree, span: Span, settings: TraceSettings) -> str | None:
    above = [step.query for step in tree.above(span) if step.query and step.query.strip()]
    own = span.query if span.query and span.query.strip() else None
    if settings.query == "root" and above and len(tree.below(tree.above(span)[-1])) == 1:
        return above[-1]
    # a framework's inner span was asked the same, and has no list whose attributes pushed the query out
    inner = (step.query for step in tree.inside(span) if step.kind == "retrieval" and step.documents is None)
    own = own or next((query for query in inner if query and query.strip()), None)
    # what was cut in the span was cut above it too
    return own if own is not None or (span.cut and not span.dropped) else next(iter(above), None)


def _named(documents: Iterable[SpanDocument], ids: Ids) -> tuple[tuple[SpanDocument, ...], list[SpanDocument]]:
    """The documents whose id is known, each once at its first place, in the order of places; and those without one."""
    named: dict[str, SpanDocument] = {}
    nameless = []
    places: set[int] = set()
    for document in sorted(documents, key=lambda document: document.position):
        name = ids.of(document)
        if not name or len(name) > LONGEST_NAME:
            nameless.append(document)
        elif name not in named and document.position not in places:
            places.add(document.position)
            named[name] = replace(document, id=name)
    return tuple(named.values()), nameless


def _scored_by(tree: Tree, span: Span) -> str:
    """Whose the scores of a list are."""
    inside = tree.inside(span)
    if any(other.kind == "rerank" and other.context is not None for other in inside):
        return "reranker"
    own = _ids(span.documents)
    lists = {_ids(other.documents) for other in inside if other.kind == "retrieval" and other.documents} - {own}
    return "fusion" if len(lists) > 1 or "fusion" in span.name.lower() else "retriever"


def _is_lost(score: float | None) -> bool:
    return score is not None and finite(score) is None


def _ids(documents: Iterable[SpanDocument] | None) -> tuple[str | None, ...]:
    return tuple(document.id or document.text for document in documents or ())


def _reranked(lists: Sequence[Span], search: LoggedSearch, ids: Ids) -> tuple[Feedback, ...]:
    """The scores of the last reranker: those that are not what came in."""
    current = {hit.id: hit.score for hit in search.hits}
    events: tuple[Feedback, ...] = ()
    for span in lists:
        scores = {name: finite(each.score) for each in span.context or () if (name := ids.of(each)) in current}
        known = {name: score for name, score in scores.items() if name and score is not None}
        # the same numbers, rounded by a tool
        if all((before := current[name]) is not None and abs(score - before) < 1e-6 for name, score in known.items()):
            continue
        events = tuple(Feedback(name, "reranked", score, span.at or search.at) for name, score in known.items())
        current.update(known)
    return events


def _answered(tree: Tree, span: Span, judged: frozenset[str]) -> Span | None:
    """The span whose output is the answer: the nearest that somebody judged, else the outermost with an output."""
    above = (span, *tree.above(span))
    outermost = next((step for step in reversed(above) if step.answer), None) or _streaming(tree, above)
    spoken = next((step for step in above if step.id in judged), None)
    if spoken is None or spoken.answer or outermost is None:
        return spoken or outermost
    return outermost if tree.below(spoken) == tree.below(outermost) else spoken


def _streaming(tree: Tree, above: Sequence[Span]) -> Span | None:
    """The outermost span, where only a language model's span has the answer, because it was streamed."""
    root = above[-1]
    return root if not root.failed and tree.last_words(root) else None


def _by_answer(found: Iterable[Found]) -> list[tuple[Span, list[Found]]]:
    """The spans that are answers, each with the searches that it was made of."""
    groups: dict[str, tuple[Span, list[Found]]] = {}
    for one in found:
        if one.answered is not None:
            groups.setdefault(one.answered.id, (one.answered, []))[1].append(one)
    return list(groups.values())


def _answer(tree: Tree, answered: Span, of_it: Sequence[Found], ids: Ids) -> Answer:
    """The answer of one or several searches, with what the language model saw for it."""
    text = answered.answer or tree.last_words(answered)
    sources = [step.context for step in tree.inside(answered) if step.kind == "llm" and step.context]
    seen = sources[-1] if sources else None
    documents = [document for one in of_it for document in one.documents]
    return Answer(
        id=search_id(answered.trace, answered.id),
        text=text,
        searches=max(len([span for span in tree.below(answered) if span.documents]), 1),
        context=_context(tree, of_it, ids),
        cited=cited_in(text, seen, documents) if seen and text else (),
    )


def _context(tree: Tree, found: Sequence[Found], ids: Ids) -> tuple[str, ...]:
    """What the language model saw of these searches; () if that is not known of all of them."""
    names: dict[str, None] = {}
    for one in found:
        lists = tree.lists_after(one.span)
        of = IdsOfList(ids, one.span.documents or ())
        last = [of.of(document) for document in lists[-1].context or ()] if lists else _named_by_answer(tree, one, of)
        if not last or None in last:
            return ()
        names.update(dict.fromkeys(name for name in last if name is not None))
    return tuple(names)


def _with_answer(one: Found, answer: Answer | None) -> Found:
    return one if answer is None else replace(one, search=replace(one.search, answer=answer))


def _named_by_answer(tree: Tree, one: Found, ids: Ids) -> list[str | None]:
    """The passages that the nearest answer names as its sources, if all are hits: engines that split make new ids."""
    named = next((step.context for step in tree.above(one.span) if step.kind == "chain" and step.context), ())
    found = [ids.of(document) for document in named]
    return found if {hit.id for hit in one.search.hits}.issuperset(found) else []
