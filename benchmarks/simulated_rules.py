"""Simulated searches, answers, thumbs and clicks -> labels by each rule, next to what people do without one.

- `relevant`: the relevant passages shown under answers with a thumb: what a person would have marked, no rule;
- `copy to all`: thumb up, every passage that was shown. This is what people do;
- `copy to first`: thumb up, the first passage; `copy to cited`: thumb up, the passages that are cited, unchecked;
- `clicks`: the same people see the same lists without answers and click, `noise` of them on something else;
- the rules of `qdrant_tools.debias` for answers, each by itself, and `answers`, all that are on by default.

What the benchmarks `answer_precision.py` and `answer_thumbs.py` share. Does not know: what labels are used for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from simulated_answers import Truth, Users, clicked, thumbed

from qdrant_tools.debias import (
    AnswerSettings,
    Support,
    aggregate,
    clicked_as_positive,
    labels_from_answers,
    ngram_support,
)
from qdrant_tools.debias.support import NGRAMS
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.mining.false_negatives import false_negative_rate
from qdrant_tools.records import Label

Texts = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class Log:
    """One simulation: searches with thumbs on answers, the same as lists with clicks, and the truth."""

    answers: Sequence[LoggedSearch]
    lists: Sequence[LoggedSearch]
    truth: Mapping[str, Truth]

    @classmethod
    def of(cls, searches: Sequence[LoggedSearch], truth: Mapping[str, Truth], users: Users, seed: int) -> Log:
        return cls(thumbed(searches, truth, users, seed), clicked(searches, truth, users, seed), truth)


Rule = Callable[[Log], list[Label]]


def rules_of(texts: Texts, settings: Mapping[str, AnswerSettings]) -> dict[str, Rule]:
    """Name -> the rule: those that are none, clicks, and the rules for answers with each of `settings`."""
    rules: dict[str, Rule] = {
        "relevant": _relevant,
        "clicks": lambda log: clicked_as_positive(log.lists),
        "copy to all": lambda log: _copied(log, lambda s: [hit.id for hit in s.hits]),
        "copy to first": lambda log: _copied(log, lambda s: [hit.id for hit in s.hits[:1]]),
        "copy to cited": lambda log: _copied(log, lambda s: s.answer.cited if s.answer else ()),
    }
    for name, its in settings.items():
        rules[name] = lambda log, its=its: labels_from_answers(log.answers, texts, its)[0]
    return {name: (lambda log, rule=rule: aggregate(rule(log))) for name, rule in rules.items()}


def remembered_words(searches: Iterable[LoggedSearch]) -> Support:
    """The check of support by words, which scores each answer once however many kinds of users see it."""
    query_of = {search.answer.text: search.query for search in searches if search.answer}

    @cache
    def scores(answer: str, passages: tuple[str, ...]) -> Sequence[float]:
        return ngram_support(answer, passages, query=query_of[answer])

    return replace(NGRAMS, judge=lambda answer, passages: scores(answer, tuple(passages)))


def each_rule(support: Support) -> dict[str, AnswerSettings]:
    """The rules for answers that the simulation has something for, each by itself, and those that are on by default."""
    one = {name: AnswerSettings(rules=(name,), support=support) for name in ("one-passage", "supported", "cited")}
    return one | {"answers": AnswerSettings(support=support)}


def precision(labels: Sequence[Sequence[Label]], logs: Sequence[Log]) -> dict[str, Any]:
    """Of the labels of all logs: how many there are in one, and which share is right, with a Wilson interval.

    `coverage` is the share of the answers with a relevant passage on their list for which a label is right.
    """
    counts: Counter[bool] = Counter()
    of, found = 0, 0
    for made, log in zip(labels, logs):
        right = {label.query for label in made if label.weight > 0 and is_right(label, log)}
        counts.update(is_right(label, log) for label in made if label.weight > 0)
        there = [s.query for s in log.answers if any(hit.id in log.truth[s.query].relevant for hit in s.hits)]
        of, found = of + len(there), found + len(right & set(there))
    return {"labels": round(counts.total() / len(logs))} | share(counts) | {"coverage": round(found / max(1, of), 4)}


def share(counts: Counter[bool]) -> dict[str, float]:
    rate = false_negative_rate(counts, source="rule", negatives=counts.total())
    return {"precision": round(rate.rate, 4), "low": round(rate.low, 4), "high": round(rate.high, 4)}


def is_right(label: Label, log: Log) -> bool:
    return label.passage_id in log.truth[label.query].relevant


def _relevant(log: Log) -> list[Label]:
    return [
        Label(search.query, hit.id, 1.0, "relevant")
        for search in log.answers
        if search.answer and search.answer.verdicts
        for hit in search.hits
        if hit.id in log.truth[search.query].relevant
    ]


def _copied(log: Log, passages: Callable[[LoggedSearch], Sequence[str]]) -> list[Label]:
    return [Label(search.query, name, 1.0, "copied") for search in _ups(log) for name in passages(search)]


def _ups(log: Log) -> Iterator[LoggedSearch]:
    """The searches whose answer got a thumb up."""
    return (s for s in log.answers if s.answer and any(v.kind == "thumb" and v.value > 0 for v in s.answer.verdicts))
