"""Queries that were made -> those that are worth training on, spread over the documents.

Guarantees: what is kept does not depend on the order in which passages come; memory is bounded by the limit. Does not
know: how queries are made, vectors.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import regex

from llama_index_embed_plus.documents.languages import UNKNOWN, language_of
from llama_index_embed_plus.training.synthesis.records import GENERATED, RULES, Made, SynthesisSettings
from llama_index_embed_plus.training.synthesis.texts import length, script
from qdrant_tools.collections.points import draw_rank
from qdrant_tools.same import query_key

SPARE = 4
"""So many times the documents that the limit needs are looked at: most queries of some are dropped."""
LONGEST_QUERY = 500
ANSWER_WORDS = 8
"""Of what is left of a passage, at least."""
_ADDRESS = regex.compile(r"https?://|www\.|\S@\S+\.\w|\w+(?:/\w+){2,}|\{\{|</?\w+>|\\\w+\{")
_RANK = {rule: place for place, rule in enumerate((GENERATED, *RULES))}


def unfit(query: str, settings: SynthesisSettings) -> str:
    """Why a query is none that a person could have asked; "" if it may be one."""
    words = length(query)
    if words < settings.min_words:
        return "too short"
    if words > settings.max_words or len(query) > LONGEST_QUERY:
        return "too long"
    visible = [character for character in query if not character.isspace()]
    if sum(character.isalpha() or not character.isascii() for character in visible) < 0.6 * len(visible):
        return "no words"
    return "address or markup" if _ADDRESS.search(query) else ""


def other_script(query: str, passage: str) -> bool:
    """Whether a query is written in another script than its passage."""
    asked, answered = script(query), script(passage)
    han = {"Han", "Kana"}
    return bool(asked and answered and asked != answered and not {asked, answered} <= han)


def other_language(questions: str, passage: str) -> bool:
    """Whether the questions about a passage, taken together, surely are in another language."""
    if other_script(questions, passage):
        return True
    asked, answered = language_of(questions), language_of(passage)
    return UNKNOWN not in (asked, answered) and asked != answered


class Selection:
    """Takes queries in any order, and gives them spread over the documents: one of each, then a second one, ..."""

    def __init__(self, settings: SynthesisSettings) -> None:
        self.settings = settings
        self._documents: defaultdict[str, list[Made]] = defaultdict(list)
        self._most = None if settings.limit is None else SPARE * settings.limit
        self._border: bytes | None = None
        """Documents that are drawn later than this one are not needed."""

    def add(self, made: Made) -> None:
        if self._border is not None and draw_rank(made.document, self.settings.seed) > self._border:
            return
        queries = self._documents[made.document]
        queries.append(made)
        if self._most is not None:
            if len(queries) > 2 * self._most:
                self._documents[made.document] = self._in_order(queries)[: self._most]
            if len(self._documents) > 2 * self._most:
                self._thin(self._most)

    def ordered(self) -> tuple[list[Made], Counter[str]]:
        """The queries in the order in which they are to be taken, and how many were dropped as they ask for passages of
        several documents, or twice for one."""
        owners: dict[str, set[str]] = defaultdict(set)
        for document, queries in self._documents.items():
            for made in queries:
                owners[query_key(made.query)].add(document)
        dropped: Counter[str] = Counter()
        taken: set[str] = set()
        rounds: list[list[Made]] = []
        for document in sorted(self._documents, key=lambda name: draw_rank(name, self.settings.seed)):
            fit: list[Made] = []
            for made in self._in_order(self._documents[document]):
                key = query_key(made.query)
                reason = "several documents" if len(owners[key]) > 1 else "repeated" if key in taken else ""
                dropped[reason] += 1
                if not reason:
                    taken.add(key)
                    fit.append(made)
            rounds.append(fit)
        del dropped[""]
        return [made for turn in zip_longest(*rounds) for made in turn if made is not None], dropped

    def drawn(self) -> list[Made]:
        """The first of each document, then the second ones, ..., whatever they say."""
        documents = sorted(self._documents, key=lambda name: draw_rank(name, self.settings.seed))
        turns = zip_longest(*(self._in_order(self._documents[document]) for document in documents))
        return [made for turn in turns for made in turn if made is not None]

    def _in_order(self, queries: Sequence[Made]) -> list[Made]:
        """The rules in turns, and those of one rule as they are drawn."""
        by_rule: defaultdict[str, list[Made]] = defaultdict(list)
        for made in sorted(queries, key=lambda made: draw_rank(f"{made.passage_id}\0{made.query}", self.settings.seed)):
            by_rule[made.rule].append(made)
        rules = sorted(by_rule, key=lambda rule: _RANK[rule])
        turns = zip_longest(*(by_rule[rule] for rule in rules))
        return [made for turn in turns for made in turn if made is not None]

    def _thin(self, most: int) -> None:
        first = sorted(self._documents, key=lambda name: draw_rank(name, self.settings.seed))[:most]
        self._border = draw_rank(first[-1], self.settings.seed)
        self._documents = defaultdict(list, {name: self._documents[name] for name in first})


def in_blocks(items: Sequence[Made], size: int) -> Iterator[Sequence[Made]]:
    return (items[start : start + size] for start in range(0, len(items), size))
