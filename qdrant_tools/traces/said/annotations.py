"""What people and judges said of the spans of a trace -> verdicts on its answers, and feedback on documents.

A verdict goes to the answer of the span that it is about; where nothing was retrieved below that span, to the nearest
one above it. It is never said of the documents of that answer: only what names a document is.

Guarantees: of two opinions of one person on one question the later one counts; whatever joins nothing is counted by
its reason. Does not know: what a label means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from qdrant_tools.log.records import LONGEST_COMMENT, MOST_VERDICTS, Answer, Feedback, LoggedSearch, Verdict
from qdrant_tools.log.values import MOST_HITS
from qdrant_tools.traces.records import Annotation, Span, SpanDocument, TraceSettings
from qdrant_tools.traces.report import TraceReport
from qdrant_tools.traces.said.opinions import Opinion, opinions_in, told_of
from qdrant_tools.traces.tree import Tree
from qdrant_tools.traces.trees import Found, pseudonym, search_id


@dataclass(frozen=True)
class Said:
    """An annotation of one trace that says something, and the span that it is about; None: the whole trace."""

    annotation: Annotation
    opinions: tuple[Opinion, ...]
    about: Span | None

    @property
    def is_of_document(self) -> bool:
        return self.annotation.position is not None or self.annotation.document is not None


def said_of(tree: Tree, annotations: Iterable[Annotation], settings: TraceSettings, report: TraceReport) -> list[Said]:
    """The annotations that say something, the latest of each person and question."""
    last: dict[tuple[object, ...], Said] = {}
    every = list(annotations)
    kept = _without_summaries(every)
    for _ in range(len(every) - len(kept)):
        report.unjoin("replaced")
    for annotation in sorted(kept, key=_when):
        place = annotation.span, annotation.position, annotation.document
        key = (*place, annotation.name, annotation.who, annotation.by)
        if key in last:
            annotation = _with_comment(annotation, last[key].annotation)
        opinions = opinions_in(annotation, settings)
        about = None if annotation.span is None else tree.spans.get(annotation.span)
        if isinstance(opinions, str):
            report.unjoin(opinions, told_of(annotation))
        elif annotation.span is not None and about is None:
            report.unjoin("matches nothing", told_of(annotation))
        else:
            if key in last:
                report.unjoin("replaced")
            last[key] = Said(annotation, tuple(opinions), about)
    return list(last.values())


def _with_comment(later: Annotation, earlier: Annotation) -> Annotation:
    """The later one; with the comment of the earlier one, where it is the same out of an export without comments."""
    is_same = (earlier.label, earlier.value, earlier.at) == (later.label, later.value, later.at)
    return replace(later, comment=earlier.comment) if is_same and not later.comment else later


def _without_summaries(annotations: Sequence[Annotation]) -> list[Annotation]:
    """What was said; a summary of it only where that is all there is, as else one person would be two."""
    itself = {(each.span, each.name) for each in annotations if not each.summary}
    return [each for each in annotations if not (each.summary and (each.span, each.name) in itself)]


def spoken_of(tree: Tree, said: Iterable[Said]) -> set[str]:
    """The ids of the spans that verdicts are about: each is an answer of its own."""
    found = {_answering(tree, one.about) for one in said if not one.is_of_document and one.about is not None}
    return {span.id for span in found if span is not None}


def with_annotations(
    tree: Tree, found: Sequence[Found], said: Iterable[Said], report: TraceReport
) -> list[LoggedSearch]:
    """The searches with what was said of them and of their answers."""
    feedback: dict[str, list[Feedback]] = {}
    verdicts: dict[str, list[Verdict]] = {}
    for one in said:
        if one.is_of_document:
            _of_document(tree, found, one, feedback, report)
        else:
            _of_answer(tree, found, one, verdicts, report)
    return [_joined(one, feedback, verdicts, report) for one in found]


def _of_answer(
    tree: Tree, found: Sequence[Found], said: Said, verdicts: dict[str, list[Verdict]], report: TraceReport
) -> None:
    about = _answering(tree, said.about) if said.about is not None else None
    answered = [one for one in found if about is None or _holds(tree, about, one)]
    answers = {_answer_id(one) for one in answered}
    if not answers:
        report.unjoin("matches nothing", told_of(said.annotation))
        return
    if len(answers) > 1:
        report.unjoin("several answers", told_of(said.annotation))
        return
    if said.about is not None and said.about.kind in ("retrieval", "rerank") and answered[0].answered is not said.about:
        report.unjoin("whole list", told_of(said.annotation))
        return
    name = answers.pop()
    who = pseudonym("user", said.annotation.who)
    at = said.annotation.at or answered[0].search.at
    for opinion in said.opinions:
        kind, text = ("score" if opinion.kind == "grade" else opinion.kind), opinion.text[:LONGEST_COMMENT]
        verdicts.setdefault(name, []).append(
            Verdict(kind, opinion.value, at, opinion.by, said.annotation.name[:200], who, text)
        )
        report.verdicts[kind] += 1
        if kind != "comment" and answered[0].search.answer is not None and answered[0].search.answer.searches > 1:
            report.ambiguous += 1


def _of_document(
    tree: Tree, found: Sequence[Found], said: Said, feedback: dict[str, list[Feedback]], report: TraceReport
) -> None:
    annotation = said.annotation
    near = (
        None if said.about is None else next((s for s in (said.about, *tree.above(said.about)) if tree.below(s)), None)
    )
    searches = [one for one in found if near is None or one.span in tree.below(near)]
    name = _document_id(said, searches)
    showing = [one for one in searches if any(hit.id == name for hit in one.search.hits)]
    # what nobody was shown may be graded too, where it is clear for which query
    of = showing or (searches if annotation.document is not None and len(searches) == 1 else [])
    if name is None or len(of) != 1:
        report.unjoin("no such document" if searches else "matches nothing", told_of(annotation))
        return
    at = annotation.at or of[0].search.at
    for opinion in said.opinions:
        if opinion.kind == "grade":
            kind = "judged" if opinion.by == "judge" else "rating"
            feedback.setdefault(of[0].search.id, []).append(Feedback(name, kind, opinion.value, at))
            report.feedback[kind] += 1


def _document_id(said: Said, searches: Sequence[Found]) -> str | None:
    """The id of the document that an annotation names, or that stands at its place of its span's list."""
    position = said.annotation.position
    if position is None:
        return said.annotation.document
    if said.about is not None and said.about.kind == "rerank":
        return _at(said.about.context or (), position)
    for one in searches:
        if said.about is None or said.about.id == one.span.id or said.about.documents == one.span.documents:
            return _at(one.documents, position)
    return None


def _at(documents: Iterable[SpanDocument], position: int) -> str | None:
    return next((document.id for document in documents if document.position == position), None)


def _answering(tree: Tree, about: Span) -> Span | None:
    """The span itself, or the nearest around it in which something was retrieved."""
    return next((span for span in (about, *tree.above(about)) if tree.below(span)), None)


def _holds(tree: Tree, about: Span, one: Found) -> bool:
    if one.answered is not None and one.answered.id == about.id:
        return True
    return any(span.id == one.span.id for span in tree.below(about))


def _answer_id(one: Found) -> str:
    return one.search.id if one.search.answer is None else one.search.answer.id


def _joined(
    one: Found, feedback: dict[str, list[Feedback]], verdicts: dict[str, list[Verdict]], report: TraceReport
) -> LoggedSearch:
    search = one.search
    answer, said = search.answer, tuple(verdicts.get(_answer_id(one), ())[-MOST_VERDICTS:])
    if said:
        answer = answer or Answer(search_id(one.span.trace, one.span.id))
        answer = replace(answer, verdicts=said)
    report.answers += answer is not None
    events = (*search.feedback, *feedback.get(search.id, ()))[:MOST_HITS]
    return replace(search, feedback=tuple(sorted(events, key=lambda event: event.at)), answer=answer)


def _when(annotation: Annotation) -> tuple[bool, datetime | bool]:
    # those without a time first: they are the older ones, or all
    return annotation.at is not None, annotation.at or False
