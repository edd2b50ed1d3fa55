"""Users, thumbs and clicks with known relevance: what `answer_thumbs.py` measures rules on.

A search shows the passages that the encoder ranks first, and an answerer makes an answer of one of them: of one that
is relevant if there is one and it does not misread, else of any. The answer is the sentences of that passage that share
most words with the question, worded anew (some words left out, some from the question put in), sometimes with a
sentence of another passage, behind a phrase that every answer has. It cites the passages it was made from, mostly;
some citations are of a wrong passage, and some of one more. Where nothing relevant was shown, it sometimes says that
it does not know.

Guarantees: everything is drawn by the seed and the query alone, so that two rates or two kinds of users see the same
answers. Does not know: rules.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from qdrant_tools.log.records import Answer, Feedback, LoggedHit, LoggedSearch, Verdict
from qdrant_tools.records import Hit

START = datetime(2026, 9, 1, tzinfo=UTC)
LEADS = ("According to the documentation, ", "Here is what I found: ", "", "Yes. ")
REFUSAL = "I'm sorry, the provided context does not answer that."
LOOKED_AT = (1.0, 0.7, 0.5, 0.4, 0.3)
"""How likely a rank is looked at, of users who click; those below as the last."""

Pleased = Literal["context", "answer"]


@dataclass(frozen=True)
class World:
    """How answers come about. Shares are of all answers.

    shown: passages in the prompt; alone: with one passage instead, as behind a reranker.
    misread: made from a passage drawn at random although a relevant one was shown.
    refused: "I do not know", where nothing relevant was shown.
    mixed: with a sentence of another passage. uncited, overcited: without a citation; with one more, at random.
    miscited: of the citations, those of another passage than the text was made from. As many as in the engines of 2023
    did not support their sentence (arXiv 2304.09848).
    dropped, echoed: words of the answer that are left out, or replaced by one of the question.
    """

    shown: int = 5
    alone: float = 0.1
    misread: float = 0.2
    refused: float = 0.3
    mixed: float = 0.3
    uncited: float = 0.2
    overcited: float = 0.3
    miscited: float = 0.25
    dropped: float = 0.15
    echoed: float = 0.1
    people: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Users:
    """Who gives thumbs or clicks: on which share of the searches, and how often the opposite of what they mean.

    pleased: by an answer if the relevant passage was among those shown (`context`), whatever the answer says, or only
    if the answer was made of it (`answer`).
    """

    rate: float
    noise: float
    pleased: Pleased = "context"


def answered(query: str, hits: Sequence[Hit], relevant: Collection[str], world: World) -> tuple[Answer, str | None]:
    """The answer to a query, and the passage that it was made from; None of a refusal."""
    draw = random.Random(f"{world.seed}|{query}")
    context = hits[: 1 if draw.random() < world.alone else world.shown]
    right = [hit for hit in context if hit.id in relevant]
    if not right and draw.random() < world.refused:
        return Answer(query, REFUSAL, 1, tuple(hit.id for hit in context)), None
    source = draw.choice(right) if right and draw.random() >= world.misread else draw.choice(context)
    sentences = _best_sentences(source.text, query, 2)
    others = [hit for hit in context if hit.id != source.id]
    used = [source]
    if others and draw.random() < world.mixed:
        used.append(draw.choice(others))
        sentences += _best_sentences(used[1].text, query, 1)
    text = draw.choice(LEADS) + " ".join(_reworded(sentence, query, draw, world) for sentence in sentences)
    names = tuple(hit.id for hit in context)
    return Answer(query, text, 1, names, _citations([hit.id for hit in used], names, draw, world)), source.id


def _citations(used: Sequence[str], context: Sequence[str], draw: random.Random, world: World) -> tuple[str, ...]:
    if draw.random() < world.uncited:
        return ()
    cited = []
    for name in used:
        others = [other for other in context if other != name]
        cited.append(draw.choice(others) if others and draw.random() < world.miscited else name)
    if draw.random() < world.overcited:
        cited.append(draw.choice(context))
    return tuple(dict.fromkeys(cited))


def thumbed(
    searches: Sequence[LoggedSearch], truth: Mapping[str, Truth], users: Users, seed: int
) -> list[LoggedSearch]:
    """The searches, some of them with a thumb; of the others nobody said anything."""
    found = []
    for search in searches:
        draw = random.Random(f"{seed}|thumb|{search.query}")
        given, said = draw.random() < users.rate, draw.random() >= users.noise
        answer, known = search.answer, truth[search.query]
        if not given or answer is None:
            found.append(search)
            continue
        right = known.relevant & set(answer.context)
        content = bool(right) if users.pleased == "context" else known.source in right
        verdict = Verdict("thumb", float(content == said), search.at, "person", "user_feedback", search.user)
        found.append(replace(search, answer=replace(answer, verdicts=(verdict,))))
    return found


def clicked(
    searches: Sequence[LoggedSearch], truth: Mapping[str, Truth], users: Users, seed: int
) -> list[LoggedSearch]:
    """The same searches as a list that people click in: each rank is looked at or not, and a relevant hit opened.

    With `noise` another hit that is looked at is opened instead.
    """
    found = []
    for search in searches:
        draw = random.Random(f"{seed}|click|{search.query}")
        given = draw.random() < users.rate
        seen = [hit.id for hit in search.hits if draw.random() < LOOKED_AT[min(hit.rank, len(LOOKED_AT)) - 1]]
        opened = [name for name in seen if name in truth[search.query].relevant]
        others = [name for name in seen if name not in opened]
        if draw.random() < users.noise:
            opened = [draw.choice(others)] if others else []
        if given:
            events = tuple(Feedback(name, "click", 1.0, search.at) for name in opened)
            found.append(replace(search, feedback=events, answer=None))
    return found


@dataclass(frozen=True)
class Truth:
    """What nobody in a real system knows: the relevant passages of a query, and what its answer was made from."""

    relevant: frozenset[str]
    source: str | None


def searched(
    queries: Sequence[str], results: Sequence[Sequence[Hit]], relevant: Mapping[str, Collection[str]], world: World
) -> tuple[list[LoggedSearch], dict[str, Truth]]:
    """Searches with answers and no feedback, in the order of time, and the truth of each query."""
    searches, truth = [], {}
    for number, (query, hits) in enumerate(zip(queries, results)):
        answer, source = answered(query, hits, relevant[query], world)
        truth[query] = Truth(frozenset(relevant[query]), source)
        shown = hits[: len(answer.context)]
        draw = random.Random(f"{world.seed}|user|{query}")
        user = f"user-{draw.randrange(world.people)}"
        searches.append(
            LoggedSearch(
                f"search-{number}",
                START + timedelta(minutes=number),
                query,
                hits=tuple(LoggedHit(hit.id, hit.rank, hit.score) for hit in shown),
                session=f"{user}-{number // 200}",
                user=user,
                answer=answer,
            )
        )
    return searches, truth


def _best_sentences(text: str, query: str, most: int) -> list[str]:
    asked = set(_words(query))
    sentences = [part.strip() for part in re.split(r"(?<=[.!?;:])\s+|\n+", text) if len(part.split()) > 3] or [text]
    best = sorted(range(len(sentences)), key=lambda at: -len(asked & set(_words(sentences[at]))))[:most]
    return [sentences[at] for at in sorted(best)]


def _reworded(sentence: str, query: str, draw: random.Random, world: World) -> str:
    asked, words = _words(query), []
    for word in sentence.split():
        chance = draw.random()
        if chance < world.dropped:
            continue
        words.append(draw.choice(asked) if asked and chance < world.dropped + world.echoed else word)
    return " ".join(words)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
