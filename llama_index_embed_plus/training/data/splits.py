"""Queries or training examples -> train, dev and test; and a refusal when held-out queries have leaked into train.

Near-duplicates stay together. Two questions are the same if `same.query_key` says so, if an encoder puts their vectors
at least as close as a threshold, or if they share a positive (unless `by_passage` is off). Sameness is passed on: a
group is a connected component (union-find, Tarjan 1975), so that no member of one group is the same as a member of
another. A leak is the same thing across the border; see `find_leaks`.

Guarantees: every item lands in exactly one part. The same items and seed give the same parts in whatever order the
items come; with `asked`, the later ones are held out. A split passes `check_leak` with the settings it was made with.
Memory is one block of similarities, never all pairs at once. Does not know: how well a model does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, Literal, TypeVar

from llama_index_embed_plus.errors import LeakError
from llama_index_embed_plus.training.data.groups import Groups, group_texts, near_pairs
from llama_index_embed_plus.training.data.records import Distilled, JudgedPair, LabelledText, ScoredPair, TrainingRow
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Encoder, Example, HeldOut, Qrels, Query, ScoredText
from qdrant_tools.same import id_key, query_key
from qdrant_tools.sources.judged import document_of

Item = TypeVar("Item", Query, Example)

SAME = 0.95
"""Two queries whose vectors have at least this cosine are one question."""
_SHOWN = 3


@dataclass(frozen=True)
class SplitSettings:
    """How to split. Shares are of the queries; what is left is for training."""

    dev: float = 0.1
    test: float = 0.1
    seed: int = 0
    similarity: float = SAME
    """Two queries whose vectors have at least this cosine are one question; used if an encoder is given."""
    by_passage: bool = True
    """Queries that share a positive stay together. Where one passage answers much of the log, few groups are left."""

    def __post_init__(self) -> None:
        if min(self.dev, self.test) < 0 or self.dev + self.test >= 1 or not 0 < self.similarity <= 1:
            raise UsageError(f"{self}: expected shares of at least 0 that leave some for training, similarity up to 1")


@dataclass(frozen=True)
class Asked:
    """When a query was asked first, in which session and by whom; "" where nobody knows, or where it may not matter."""

    at: datetime
    session: str = ""
    user: str = ""


@dataclass(frozen=True)
class Split(Generic[Item]):
    """The parts, each in the order of the input. `groups` is how many sets of near-duplicates there were."""

    train: tuple[Item, ...]
    dev: tuple[Item, ...]
    test: tuple[Item, ...]
    groups: int


def split_queries(
    items: Sequence[Item],
    settings: SplitSettings | None = None,
    *,
    qrels: Qrels | None = None,
    encoder: Encoder | None = None,
    asked: Sequence[Asked] | None = None,
) -> Split[Item]:
    """Split queries or examples into train, dev and test.

    Whole groups are taken in an order that the seed decides, first for test, then for dev, as long as they fit into
    the share; a group larger than a share is trained on. `qrels` says which passages answer a `Query`; an `Example`
    says so itself.

    asked: of each item. Then queries of one session, and of one user, stay together too, and the latest groups are for
    test, those before them for dev: a model is measured on what came after that which it has seen. A group is as old as
    its first query.

    Raises:
        InputError: a share above 0 got no query, as the groups are too few or too large; or `asked` is not about each
            item.
    """
    settings = settings or SplitSettings()
    texts = [_text(item) for item in items]
    questions, same_question = _one_question(items, settings, qrels, encoder)
    if asked is not None:
        if len(asked) != len(items):
            raise InputError(f"{len(asked)} say when they were asked, of {len(items)} queries: expected one for each")
        people = ((i, (kind, getattr(one, kind))) for i, one in enumerate(asked) for kind in ("session", "user"))
        same_question.join_equal((i, key) for i, key in people if key[1])
    groups = sorted(same_question.members(), key=lambda members: _draw(members, texts, settings.seed))
    if asked is not None:
        times = [one.at for one in asked]
        # the order that the seed decides stays among groups of one time
        groups.sort(key=lambda members: min(times[member] for member in members), reverse=True)
    part = ["train"] * len(items)
    for name, share in (("test", settings.test), ("dev", settings.dev)):
        size = max(1, round(share * len(items))) if share else 0
        if not _fill(part, groups, name, size) and share:
            raise _no_query(
                f"no query for the {name} part: {len(items)} queries are {len(groups)} groups of near-duplicates, of "
                f"which none of up to {size} queries is left; raise {name}={share:g}, similarity or give more queries",
                joined=len(questions) - len(groups),
            )
    train, dev, test = (
        tuple(item for item, where in zip(items, part) if where == name) for name in ("train", "dev", "test")
    )
    return Split(train, dev, test, len(groups))


def fold_queries(
    items: Sequence[Item],
    folds: int,
    settings: SplitSettings | None = None,
    *,
    qrels: Qrels | None = None,
    encoder: Encoder | None = None,
    cut: bool = False,
) -> list[int]:
    """The fold of each item, from 0: groups stay together, as in `split_queries`, and folds are about equally large.

    cut: groups that are larger than a fold, and hang together by shared answers, are cut. `shared_answers` then says
    what must be kept from the others.

    Raises:
        InputError: there are fewer groups than folds, or one of them is more than half of the queries.
    """
    settings = settings or SplitSettings()
    questions, same_question = _one_question(items, settings, qrels, encoder)
    texts = [_text(item) for item in items]
    groups = same_question.members()
    if cut:
        groups = list(_cut(groups, questions, most=-(-len(items) // folds)))
    groups = sorted(groups, key=lambda members: (-len(members), _draw(members, texts, settings.seed)))
    if len(groups) < folds or 2 * len(groups[0]) > len(items):
        largest = len(groups[0]) if groups else 0
        raise _no_query(
            f"{len(items)} queries make no {folds} folds: they are {len(groups)} groups of near-duplicates, the "
            f"largest of {largest}; expected at least {folds}, none with more than half of the queries",
            joined=len(questions) - len(groups),
        )
    fold, sizes = [0] * len(items), [0] * folds
    for members in groups:
        smallest = sizes.index(min(sizes))
        sizes[smallest] += len(members)
        for member in members:
            fold[member] = smallest
    return fold


def _one_question(
    items: Sequence[Item], settings: SplitSettings, qrels: Qrels | None, encoder: Encoder | None
) -> tuple[list[list[int]], Groups]:
    """The members of each question, and the groups that stay together: questions that share an answer are joined."""
    texts = [_text(item) for item in items]
    vectors = encoder.encode_queries(texts) if encoder is not None and texts else None
    groups = group_texts(texts, vectors, similarity=settings.similarity)
    questions = groups.members()
    if settings.by_passage:
        groups.join_equal((i, key) for i, item in enumerate(items) for key in _passages_of(item, qrels or {}))
    return questions, groups


def _cut(groups: list[list[int]], questions: list[list[int]], *, most: int) -> Iterator[list[int]]:
    """The groups, those of more than `most` cut into their questions."""
    question_of = {member: question for question in questions for member in question}
    for group in groups:
        if len(group) <= most:
            yield group
        else:
            yield from (question_of[member] for member in group if question_of[member][0] == member)


def shared_answers(train: Sequence[Example], left_out: Sequence[Example]) -> tuple[list[Example], frozenset[str]]:
    """The examples without the answers that they share with those left out, and the ids of these answers.

    Examples that have no other answer are dropped.
    """
    named = {key for example in left_out for positive in example.positives for key in _keys(positive)}
    shared = [p for example in train for p in example.positives if not named.isdisjoint(_keys(p))]
    keys, ids = {key for positive in shared for key in _keys(positive)}, {positive.id for positive in shared}
    # of one text under two ids both are hidden
    ids |= {p.id for example in left_out for p in example.positives if not keys.isdisjoint(_keys(p))}
    kept = [replace(one, positives=tuple(p for p in one.positives if p.id not in ids)) for one in train]
    return [example for example in kept if example.positives], frozenset(ids)


def _no_query(problem: str, *, joined: int) -> InputError:
    """What is wrong with the groups, and how to let queries be apart that only share an answer."""
    error = InputError(problem)
    if joined <= 0:
        return error
    error.args = (f"{problem}; {joined} more groups without by_passage, which joins queries that share an answer",)
    error.on_command_line = (
        f"{problem}; --shared-passages makes {joined} more: it lets queries that share an answer be apart"
    )
    return error


@dataclass(frozen=True)
class Leak:
    """One training example that knows a held-out query. `row` counts training examples from 0."""

    kind: Literal["same query", "near query", "same passage"]
    row: int
    train_query: str
    held_out_query: str
    held_out_id: str = ""


def find_leaks(
    train: Sequence[Example],
    held_out: HeldOut,
    *,
    encoder: Encoder | None = None,
    similarity: float = SAME,
    passages: bool = True,
) -> list[Leak]:
    """Find the training examples that give held-out queries away, by three rules; at most one leak per rule and row.

    same query: its query is a spelling of a held-out one (`same.query_key`). near query: `encoder` puts the two at
    least `similarity` close; without an encoder this rule is not applied. same passage: one of its positives, by id or
    by text, answers a held-out query, so that it is a question about a held-out passage; `passages=False` allows that,
    for collections where every passage answers many questions.

    Only queries that are measured count: what has no judged answer can be given away by nobody.
    """
    found: dict[tuple[str, int], Leak] = {}
    for leak in _all_leaks(train, held_out, encoder, similarity, passages=passages):
        found.setdefault((leak.kind, leak.row), leak)
    return list(found.values())


def without_leaked_queries(
    train: Sequence[Example],
    held_out: HeldOut,
    *,
    encoder: Encoder | None = None,
    similarity: float = SAME,
    passages: bool = True,
) -> tuple[HeldOut, int]:
    """Return the held-out queries that no training example knows, and how many others were measured before.

    For a model that is trained already: its examples cannot be taken back, the queries can. Rules as in `find_leaks`.

    Raises:
        LeakError: every query that has an answer is known.
    """
    leaks = _all_leaks(train, held_out, encoder, similarity, passages=passages)
    known = {leak.held_out_id for leak in leaks}
    if not known:
        return held_out, 0
    left = [query for query in held_out.measured if query.id not in known]
    if not any(query in left for query in held_out.answerable):  # a sample too needs one that has an answer
        raise LeakError(f"training knows all {len(held_out.measured)} held-out queries: give other ones")
    return replace(held_out, queries=tuple(left)), len(known)


def _all_leaks(
    train: Sequence[Example], held_out: HeldOut, encoder: Encoder | None, similarity: float, *, passages: bool
) -> Iterator[Leak]:
    """Every leak: also several held-out queries that one example knows."""
    yield from _same_queries(train, held_out)
    if encoder is not None:
        yield from _near_queries(train, held_out, encoder, similarity)
    if passages:
        yield from _same_passages(train, held_out)


def check_leak(
    train: Sequence[Example],
    held_out: HeldOut,
    *,
    encoder: Encoder | None = None,
    similarity: float = SAME,
    passages: bool = True,
) -> None:
    """Refuse training data that gives held-out queries away; the rules are those of `find_leaks`.

    Raises:
        LeakError: with the number of leaks by rule, and examples.
    """
    leaks = find_leaks(train, held_out, encoder=encoder, similarity=similarity, passages=passages)
    refuse_leaks(leaks, len(train))


def refuse_leaks(leaks: Sequence[Leak], examples: int) -> None:
    """Raise `LeakError` if there are any, found in so many examples."""
    if not leaks:
        return
    counts = {kind: sum(leak.kind == kind for leak in leaks) for kind in ("same query", "near query", "same passage")}
    by_kind = ", ".join(f"{count} by {kind}" for kind, count in counts.items() if count)
    samples = "; ".join(f"{leak.train_query[:80]!r} ~ {leak.held_out_query[:80]!r}" for leak in _shown(leaks))
    raise LeakError(
        f"{len({leak.row for leak in leaks})} of {examples} training examples give held-out queries away "
        f"({by_kind}), such as {samples}: let the leaks go (--drop-leaks), or hold other queries out (--heldout-share)"
        + (", or allow other questions about held-out passages (--shared-passages)" if counts["same passage"] else "")
    )


def as_questions(rows: Iterable[TrainingRow]) -> list[Example]:
    """Return what `find_leaks` looks at for training rows of any kind.

    Either side of a pair with a score may be the query, and its sides belong together if the score is above 0;
    a text without more may itself be a held-out query. `row` of a leak then counts these questions.
    """
    questions: list[Example] = []
    for row in rows:
        if isinstance(row, Example):
            questions.append(row)
        elif isinstance(row, Distilled):
            # no id: compared by its words
            questions.append(Example(row.query, (ScoredText("", row.positive),), synthetic=row.synthetic))
        elif isinstance(row, ScoredPair):
            for query, answer in ((row.first, row.second), (row.second, row.first)):
                questions.append(Example(query, (ScoredText("", answer),) if row.score > 0 else ()))
        elif isinstance(row, JudgedPair):
            questions.append(Example(row.query, (row.passage,) if row.score > 0 else ()))
        else:
            questions.append(Example(row.text if isinstance(row, LabelledText) else row, ()))
    return questions


def without_leaks(
    train: Sequence[Example],
    held_out: HeldOut,
    *,
    encoder: Encoder | None = None,
    similarity: float = SAME,
    passages: bool = True,
) -> tuple[list[Example], list[Leak]]:
    """Return the examples that give nothing away, and what was wrong with the others."""
    leaks = find_leaks(train, held_out, encoder=encoder, similarity=similarity, passages=passages)
    dropped = {leak.row for leak in leaks}
    return [example for row, example in enumerate(train) if row not in dropped], leaks


def _shown(leaks: Sequence[Leak]) -> list[Leak]:
    """A few leaks, of every rule one if possible."""
    # reversed, so that the first leak of each rule is the one that is kept
    first = {leak.kind: leak for leak in reversed(leaks)}
    return [*reversed(first.values()), *(leak for leak in leaks if leak is not first[leak.kind])][:_SHOWN]


def _same_queries(train: Sequence[Example], held_out: HeldOut) -> Iterator[Leak]:
    asked: dict[str, list[Query]] = {}
    for query in held_out.measured:
        asked.setdefault(query_key(query.text), []).append(query)
    for row, example in enumerate(train):
        for query in asked.get(query_key(example.query), ()):
            yield Leak("same query", row, example.query, query.text, query.id)


def _near_queries(train: Sequence[Example], held_out: HeldOut, encoder: Encoder, similarity: float) -> Iterator[Leak]:
    """Those that differ in their words; the others are found without an encoder."""
    measured = held_out.measured
    if not train or not measured:
        return
    left = encoder.encode_queries([example.query for example in train])
    right = encoder.encode_queries([query.text for query in measured])
    for row, column, _ in near_pairs(left, right, similarity=similarity):
        query = measured[column]
        if query_key(train[row].query) != query_key(query.text):
            yield Leak("near query", row, train[row].query, query.text, query.id)


def _same_passages(train: Sequence[Example], held_out: HeldOut) -> Iterator[Leak]:
    by_id: dict[str, list[Query]] = {}
    for query in held_out.answerable:
        for passage, grade in held_out.qrels[query.id].items():
            if grade > 0:
                by_id.setdefault(id_key(passage), []).append(query)
    by_text: dict[str, list[Query]] = {}
    for given in held_out.passages:
        if asking := by_id.get(id_key(given.id)):
            by_text.setdefault(query_key(given.text), []).extend(asking)
    for row, example in enumerate(train):
        for positive in example.positives:
            named = id_key(positive.id)
            queries = by_id.get(named) or by_id.get(document_of(named)) or []
            if not queries and positive.text:
                queries = by_text.get(query_key(positive.text), [])
            for query in queries:
                yield Leak("same passage", row, example.query, query.text, query.id)


def _fill(part: list[str], groups: Sequence[Sequence[int]], name: str, wanted: int) -> int:
    """Move whole groups from train to the part `name` while they fit into `wanted` and leave something to train on."""
    left, taken = part.count("train"), 0
    for members in groups:
        # groups move as a whole, so the first member tells where a group is
        if part[members[0]] == "train" and len(members) <= wanted - taken and len(members) < left - taken:
            taken += len(members)
            for member in members:
                part[member] = name
    return taken


def _text(item: Query | Example) -> str:
    return item.text if isinstance(item, Query) else item.query


def _passages_of(item: Query | Example, qrels: Qrels) -> list[tuple[str, str]]:
    """What names the passages that answer an item: their ids, and their words where these are known."""
    if isinstance(item, Query):
        return [("id", id_key(passage)) for passage, grade in qrels.get(item.id, {}).items() if grade > 0]
    return [key for positive in item.positives for key in _keys(positive)]


def _keys(positive: ScoredText) -> list[tuple[str, str]]:
    of_text = [("text", query_key(positive.text))] if positive.text else []
    return [("id", id_key(positive.id)), *of_text]


def _draw(members: Sequence[int], texts: Sequence[str], seed: int) -> bytes:
    """Where a group stands in the draw: by its words alone, so that the order of the rows does not matter."""
    words = min(query_key(texts[member]) for member in members)
    return hashlib.sha256(f"{seed}\0{words}".encode(errors="surrogatepass")).digest()
