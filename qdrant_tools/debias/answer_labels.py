"""Votes of the rules for answers -> one label for each query and passage, with a weight: how likely it is right.

Of several rules for a pair the one with the most weight counts, as they look at the same answers. People who are known
as different raise it: n of them leave a doubt of (1 - weight) ** n. An answer comes from few of the passages of its
prompt, so the passages of one query compete, those of one answer and those of several: with the odds
`o = (1 - weight) ** -n - 1` of each, a passage has the weight `o / (1 + sum of the odds)`. A passage that nothing
competes with keeps its own weight; of two with a weight of 0.8 each has 0.44.

What was said of the passage itself, by a person (`labelled`) or a language model (`judged`), competes with nothing.

Guarantees: deterministic; one query has one vote for a passage from each user, however often they ask; several people
count as independent only if they are known as such; searches without a label are counted by their reason. Does not
know: how votes come about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qdrant_tools.debias.answer_rules import (
    OF_ANSWERS,
    RULES,
    AnswerSettings,
    AnswerVote,
    Texts,
    votes_from_answers,
)
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.records import Label
from qdrant_tools.same import id_key, query_key

__all__ = ["AnswerCounts", "labels_from_answers"]

MOST_VOTERS = 3
"""Users who raise a weight: more of them say nothing new."""
CERTAIN = 1 - 1e-9
"""The most that counts in odds."""

ByRule = dict[str, list[AnswerVote]]


@dataclass(frozen=True)
class AnswerCounts:
    """What was made of the searches: labels by rule (the one with the most weight), and searches without by reason."""

    searches: int = 0
    labelled: int = 0
    rules: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        return {
            "searches": self.searches,
            "labelled": self.labelled,
            "rules": dict(self.rules),
            "reasons": dict(self.reasons),
        }


def labels_from_answers(
    searches: Iterable[LoggedSearch], texts: Texts, settings: AnswerSettings | None = None
) -> tuple[list[Label], AnswerCounts]:
    """One label per (query, passage) of all searches, and what became of them.

    texts: ids -> texts of the passages, such as those of a collection. People who differ on a passage give no label;
    one who says that it is not relevant gives a label of weight 0, whatever the other rules say. A rule whose weight is
    0 gives none.

    Raises:
        UsageError: there is no such rule.
    """
    settings = settings or AnswerSettings()
    queries: dict[str, dict[str, ByRule]] = {}
    reasons: Counter[str] = Counter()
    with_votes: set[str] = set()
    unheard: set[str] = set()
    for vote in votes_from_answers(searches, texts, settings):
        if isinstance(vote, str):
            reasons[vote] += 1
            continue
        if settings.weight(vote.rule) == 0:  # a label of weight 0 would say that the passage is not relevant
            unheard.add(vote.search)
            continue
        with_votes.add(vote.search)
        passages = queries.setdefault(query_key(vote.query), {})
        passages.setdefault(id_key(vote.passage_id), {}).setdefault(vote.rule, []).append(vote)
    if unheard - with_votes:
        reasons["the rule has a weight of 0"] = len(unheard - with_votes)
    labels, rules = [], Counter[str]()
    for passages in queries.values():
        for found in _labels_of_query(list(passages.values()), settings):
            if found is None:
                reasons["people disagree about a passage"] += 1
            else:
                rules[found[0]] += 1
                labels.append(found[1])
    return labels, AnswerCounts(len(with_votes) + reasons.total(), len(with_votes), dict(rules), dict(reasons))


def _labels_of_query(passages: Sequence[ByRule], settings: AnswerSettings) -> Iterable[tuple[str, Label] | None]:
    """For each passage of one query the rule that decides, and the label; None if people disagree."""
    odds = [0.0 if "labelled" in by_rule else _odds(by_rule, settings) for by_rule in passages]
    whole = 1 + sum(odds)
    query = next(iter(passages[0].values()))[0].query
    for by_rule, own in zip(passages, odds):
        said = by_rule.get("labelled")
        yield _of_persons(query, said, settings) if said else _of_rules(query, by_rule, own / whole, settings)


def _of_persons(query: str, said: Sequence[AnswerVote], settings: AnswerSettings) -> tuple[str, Label] | None:
    mean = sum(vote.value for vote in said) / len(said)
    if 0 < mean < 0.5 and any(vote.value == 0 for vote in said):
        return None
    weight = settings.weight("labelled") * mean
    return "labelled", Label(query, said[0].passage_id, weight, _evidence("labelled", said))


def _of_rules(query: str, by_rule: ByRule, share: float, settings: AnswerSettings) -> tuple[str, Label]:
    """`share` is what the competing passages of the query leave to this one, by its strongest rule for answers."""
    weights = {rule: _raised(rule, votes, settings) for rule, votes in by_rule.items()}
    strongest = max((rule for rule in weights if rule in OF_ANSWERS), key=lambda rule: weights[rule], default="")
    weights = {rule: weight for rule, weight in weights.items() if rule not in OF_ANSWERS}
    if strongest:
        weights[strongest] = share
    rule = max(weights, key=lambda rule: weights[rule])
    return rule, Label(query, by_rule[rule][0].passage_id, weights[rule], _evidence(rule, by_rule[rule]))


def _odds(by_rule: ByRule, settings: AnswerSettings) -> float:
    """How much more likely than not one of these votes makes a passage the one that the answer comes from."""
    raised = (_raised(rule, votes, settings) for rule, votes in by_rule.items() if rule in OF_ANSWERS)
    likely = min(CERTAIN, max(raised, default=0.0))
    return likely / (1 - likely)


def _raised(rule: str, votes: Sequence[AnswerVote], settings: AnswerSettings) -> float:
    return 1 - (1 - settings.weight(rule)) ** _people(votes)


def _people(votes: Sequence[AnswerVote]) -> int:
    """How many are known to be different people, at least 1."""
    return min(MOST_VOTERS, max(1, len({who for vote in votes for who in vote.voters if who})))


def _evidence(rule: str, votes: Sequence[AnswerVote]) -> str:
    people = _people(votes)
    return RULES[rule][2] if people == 1 else f"{RULES[rule][2]} x{people}"
