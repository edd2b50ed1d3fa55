"""Answers, and what was said of them -> votes for passages, by rules that ask for more than a thumb.

A thumb is about a whole answer, and most of the passages in its prompt are noise: a language model reads the list as a
whole (arXiv 2510.21440). So each rule asks for a second, independent sign, votes for a passage of one search, and has a
weight: how likely a passage is relevant that it alone votes for. `answer_labels.py` makes labels of the votes.

The weights of `supported` and `cited` were measured in a simulation (`benchmarks/answer_precision.py`, demo corpus);
that of `one-passage` is not higher than the first, as nothing there is answered from what the model knew before; the
others are guesses. For your own log all of them are guesses until `audit_rules` has measured them.

Nothing speaks against a passage but a person who says so of that passage. A thumb down may be about the tone, the
writing, the age of the documents or a missing one; silence, a low rank and a missing citation are the norm.

Guarantees: deterministic; there is no vote for a query that a redaction took away; what gives none has a reason. Does
not know: collections (the texts of passages are asked for), encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice

from qdrant_tools.debias.click_rules import rated, shown
from qdrant_tools.debias.support import NGRAMS, Support, says_nothing, score_of
from qdrant_tools.debias.unanswered import is_refusal, thumbs_of
from qdrant_tools.errors import UsageError
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.same import id_key, query_key
from qdrant_tools.validation import brief

__all__ = ["RULES", "AnswerSettings", "AnswerVote", "votes_from_answers"]

Texts = Callable[[Sequence[str]], Mapping[str, str]]
"""Ids of passages -> their texts; ids that are not there are not in the result."""

AT_ONCE = 256
"""Searches whose texts are asked for together."""


def labelled(read: Read, settings: AnswerSettings) -> Iterator[tuple[str, float]]:
    """A person said of this passage that it is relevant, or that it is not.

    The only direct sign, and the only one that speaks against a passage. How grades and thumbs on hits are read:
    `rated`. What a click log's citations say counts by `cited` only.
    """
    said = tuple(event for event in read.search.feedback if event.kind in ("up", "down", "rating"))
    if said:
        only = replace(read.search, feedback=said)
        for label in rated([only], top=settings.top, relevant_from=settings.relevant_from):
            yield label.passage_id, label.weight


def one_passage(read: Read, settings: AnswerSettings) -> Iterator[tuple[str, float]]:
    """A thumb up, and the language model saw one passage: there is nothing else that the answer was made from.

    It can still be an answer from what the model knew before. No published figure; traces of rerankers that leave one
    passage are the usual case.
    """
    if read.liked and len(read.context) == 1:
        yield read.context[0], 1.0


def supported(read: Read, settings: AnswerSettings) -> Iterator[tuple[str, float]]:
    """A thumb up, and this passage supports the answer where others do not (`Support`).

    Two independent signs: the person says that the answer is right, the text that it is that of the passage. Checks by
    overlap favour long passages and answers that quote.
    """
    if read.liked:
        yield from ((passage, 1.0) for passage in read.supporting())


def cited(read: Read, settings: AnswerSettings) -> Iterator[tuple[str, float]]:
    """The answer cites this passage, and the passage supports it; nobody had to give a thumb.

    Of the citations of engines in 2023, 74.5 % supported their sentence (arXiv 2304.09848), and up to 57 % are made up
    afterwards (ICTIR 2025, doi 10.1145/3731120.3744592), which for a retriever matters less than support does. An
    answer that a person liked less than not counts for nothing.
    """
    if read.search.answer is not None and not read.disliked:
        names = {id_key(passage) for passage in read.search.answer.cited}
        if names:
            yield from ((passage, 1.0) for passage in read.supporting() if id_key(passage) in names)


def judged(read: Read, settings: AnswerSettings) -> Iterator[tuple[str, float]]:
    """A language model calls this passage relevant for the query, with a grade of at least `judged_from`.

    Such judges rank systems as people do but are more lenient (arXiv 2411.08275) and swayed by length and shared words
    (arXiv 2602.17170); one that also evaluates what is trained here goes in a circle (arXiv 2412.17156).
    """
    yield from ((name, 1.0) for name, grade in read.grades().items() if grade >= settings.judged_from)


def reformulated(read: Read, settings: AnswerSettings) -> Iterator[tuple[str, float]]:
    """The next query of the session was answered well by this passage, so it answers this one, which was not liked.

    Off by default: the user may have moved on to another question.
    """
    if not read.liked and read.followed_by is not None:
        yield from ((passage, 1.0) for passage in read.followed_by)


Rule = Callable[["Read", "AnswerSettings"], Iterator[tuple[str, float]]]
RULES: Mapping[str, tuple[Rule, float, str]] = {
    "labelled": (labelled, 1.0, "rating by a person"),
    "supported": (supported, 0.8, "thumb up, support"),
    "one-passage": (one_passage, 0.8, "thumb up, one passage"),
    "judged": (judged, 0.5, "judge"),
    "cited": (cited, 0.6, "citation, support"),
    "reformulated": (reformulated, 0.2, "thumb up, reformulation"),
}
"""Name -> the rule, how surely a passage that it alone votes for is relevant, and what a label says of its evidence."""
OF_ANSWERS = ("supported", "one-passage", "cited", "reformulated")
"""The rules that say from which passage an answer comes; `labelled` and `judged` say something of each passage."""


@dataclass(frozen=True)
class AnswerSettings:
    """How answers become labels.

    rules: those that vote; all but `reformulated` by default. weights: of rules, measured instead of guessed
    (`RuleAudit.weights`). support: how it is checked that a passage supports an answer.
    ambiguous: also take answers that were made of several searches, of which nobody knows which one was good.
    top, relevant_from: the grades of persons' labels, as in `rated`.
    judged_from, judged_below: the grades of a language model from which a passage is relevant, and below which no other
    rule but a person's label counts.
    session: how long after a query another one of its session is a reformulation.
    """

    rules: tuple[str, ...] = ("labelled", "supported", "one-passage", "judged", "cited")
    weights: Mapping[str, float] = field(default_factory=dict)
    support: Support = NGRAMS
    ambiguous: bool = False
    top: float = 1.0
    relevant_from: float | None = None
    judged_from: float = 0.75
    judged_below: float = 0.25
    session: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        for name in (*self.rules, *self.weights):
            if name not in RULES:
                raise UsageError(f"there is no rule {brief(name)} for answers, expected some of {', '.join(RULES)}")
        odd = [weight for weight in self.weights.values() if not 0 <= weight <= 1]
        if odd or not self.top > 0 or not 0 <= self.judged_below <= self.judged_from <= 1:
            raise UsageError(
                f"weights {brief(odd)}, top {self.top}, judged_from {self.judged_from}, judged_below "
                f"{self.judged_below}: expected weights and grades from 0 to 1, the second one lower, a top above 0"
            )

    def weight(self, rule: str) -> float:
        return self.weights.get(rule, RULES[rule][1])


@dataclass(frozen=True)
class AnswerVote:
    """What one rule says of a passage of one search. `voters` are the known people behind it, none for a program."""

    rule: str
    search: str
    query: str
    passage_id: str
    value: float
    voters: tuple[str, ...] = ()


@dataclass
class Read:
    """A search as the rules look at it."""

    search: LoggedSearch
    texts: Mapping[str, str]
    settings: AnswerSettings
    context: tuple[str, ...] = ()
    liked: tuple[str, ...] = ()
    """The people whose last thumb is up, "" of whom nobody knows; none if as many are against."""
    disliked: bool = False
    followed_by: tuple[str, ...] | None = None
    reason: str = ""
    """Why the answer gives nothing."""
    _supporting: tuple[str, ...] | None = None

    @classmethod
    def of(cls, search: LoggedSearch, texts: Mapping[str, str], settings: AnswerSettings) -> Read:
        read = cls(search, texts, settings)
        if search.answer is None:
            read.reason = "no answer"
            return read
        read.context = tuple(dict.fromkeys(search.answer.context)) or tuple(shown(search))
        thumbs = thumbs_of(search)
        ups, downs = [thumb for thumb in thumbs if thumb.value], [thumb for thumb in thumbs if not thumb.value]
        if search.answer.searches > 1 and not settings.ambiguous:
            read.context, read.reason = (), "several searches behind one answer"
        elif is_refusal(search.answer.text):
            read.context, read.reason = (), "the answer is a refusal"
        if len(ups) > len(downs):
            read.liked = tuple(dict.fromkeys(thumb.who or search.user for thumb in ups)) if read.context else ()
        read.disliked = bool(downs) and len(downs) >= len(ups)
        if not read.reason and read.disliked:
            read.reason = "people disagree" if ups else "thumb down"
        return read

    def supporting(self) -> tuple[str, ...]:
        """The passages that support the answer."""
        if self._supporting is None:
            self._supporting = self._supported()
        return self._supporting

    def _supported(self) -> tuple[str, ...]:
        answer = self.search.answer
        known = [passage for passage in self.context if passage in self.texts]
        if answer is None or not self.context:
            return ()
        if not answer.text:
            self.reason = "the answer's text is not known"
        elif not known:
            self.reason = "its passages are not in the collection"
        elif says_nothing(self.search.query, answer.text):
            self.reason = "the answer says no more than the query, yes or no"
        else:
            texts = [self.texts[passage] for passage in known]
            places = score_of(self.settings.support, self.search.query, answer.text, texts)
            self.reason = "" if places else "no passage supports the answer more than others"
            return tuple(known[place] for place in places)
        return ()

    def grades(self) -> dict[str, float]:
        """The last grade that a language model gave each passage."""
        return {event.id: event.value for event in self.search.feedback if event.kind == "judged"}


def votes_from_answers(
    searches: Iterable[LoggedSearch], texts: Texts, settings: AnswerSettings | None = None
) -> Iterator[AnswerVote | str]:
    """Yield the votes of every search, or the reason why it has none.

    texts: ids -> texts of the passages, such as those of a collection.
    """
    settings = settings or AnswerSettings()
    for read in _read_in_order(searches, texts, settings):
        if read.search.redacted:
            yield "the query is redacted"
            continue
        votes = list(_votes_of(read, settings))
        yield from votes
        if not votes:
            yield read.reason or "nobody said anything"


def _votes_of(read: Read, settings: AnswerSettings) -> Iterator[AnswerVote]:
    search, grades = read.search, read.grades()
    for name in settings.rules:
        # whoever is behind a query that a language model wrote has been counted for another
        voters = read.liked if name in OF_ANSWERS and not search.generated else ()
        for passage, value in RULES[name][0](read, settings):
            if name in OF_ANSWERS and grades.get(passage, 1.0) < settings.judged_below:
                read.reason = "a judge calls the passage irrelevant"
                continue
            yield AnswerVote(name, search.id, search.query, passage, value, voters)


def _read_in_order(searches: Iterable[LoggedSearch], texts: Texts, settings: AnswerSettings) -> Iterator[Read]:
    """Searches with their texts, some hundred at a time; with `reformulated`, each with what answered the next one."""
    source = iter(searches)
    while block := list(islice(source, AT_ONCE)):
        ids = {name: None for search in block for name in _passages(search)}
        found = texts(list(ids)) if ids else {}
        reads = [Read.of(search, found, settings) for search in block]
        if "reformulated" in settings.rules:
            _follow(reads, settings)
        yield from reads


def _passages(search: LoggedSearch) -> Iterable[str]:
    """The passages whose texts a rule may ask for."""
    if search.answer is None or not (search.answer.text and (search.answer.verdicts or search.answer.cited)):
        return ()
    return search.answer.context or [hit.id for hit in search.hits]


def _follow(reads: Sequence[Read], settings: AnswerSettings) -> None:
    """Give every search what answered the next one of its session; within one block, which misses a few at its edge."""
    before: dict[str, Read] = {}
    for read in reads:
        session = read.search.session
        last = before.get(session) if session else None
        if last is not None and read.liked and _is_reformulation(last.search, read.search, settings.session):
            last.followed_by = read.supporting() or (read.context if len(read.context) == 1 else None)
        before[session] = read


def _is_reformulation(first: LoggedSearch, second: LoggedSearch, within: timedelta) -> bool:
    soon = timedelta(0) <= second.at - first.at <= within
    return soon and query_key(first.query) != query_key(second.query)
