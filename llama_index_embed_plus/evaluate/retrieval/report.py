"""A run and its judgements -> every metric per query and in the mean, and a count of all that did not fit together.

In Quora, ArguAna and their like every query is one of the passages, under the same id. It is its own best answer, which
nobody asked for: BEIR takes every passage that has its query's id out of the results, and mteb does so where a task
sets `ignore_identical_ids`. In other data ids are plain numbers, and passage 7 has nothing to do with query 7.

Guarantees: every measured query is in every mean, with 0 where nothing was found; by default only what is the query's
own text leaves its results. Does not know: how a run was made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.metrics import mean, measure
from qdrant_tools.records import Qrels, Query, Run
from qdrant_tools.same import query_key, respelled, spelled, unlike_spelling

PerQuery = Mapping[str, float]
"""query id -> value."""

IdenticalIds = Literal["auto", "ignore", "keep"]
"""What becomes of a passage that has the id of the query: `ignore` takes it out of the results, as BEIR does; `keep`
leaves it; `auto` takes it out if its text is the query's, and it is not judged relevant."""


@dataclass(frozen=True)
class Coverage:
    """How queries, judgements and passages fit together. Everything but `queries` is 0 where nothing is odd."""

    queries: int
    """Measured: asked and judged."""
    without_judgement: int = 0
    """Asked, or in the run, but not judged: left out."""
    unknown_queries: int = 0
    """Judged, but not among the queries that were asked: left out."""
    unknown_passages: int = 0
    """Judged for a measured query, but not among the passages that are searched: they count as not found."""
    unknown_example: str = field(default="", compare=False)
    """One of them, and what stands in its place."""
    cut_documents: int = 0
    """Judged documents of which parts are searched: the best part stands for its document, and k counts documents."""
    without_relevant: int = 0
    """Measured queries whose judgements name no relevant passage: 0 in every metric of quality."""
    without_results: int = 0
    """Measured queries for which nothing was found: 0 in every metric."""
    own_passages_ignored: int = 0
    """Measured queries that are passages themselves: these were taken out of their results."""
    identical_ids_kept: int = 0
    """Measured queries that find a passage of their own id, which is not judged relevant and stays a result."""

    def notes(self) -> list[str]:
        """One line for every count that is not 0, for people."""
        lines = {
            "without_judgement": "queries have no judgement and were left out",
            "unknown_queries": "judged queries were not asked and were left out",
            "unknown_passages": "judged passages are not among those that are searched and count as not found",
            "cut_documents": "judged documents were cut: the best part counts as its document, and k counts documents",
            "without_relevant": "queries have no relevant passage in the judgements and score 0",
            "without_results": "queries have no results and score 0",
            "own_passages_ignored": "queries have the id of a passage, which was taken out of their results",
            "identical_ids_kept": "queries find a passage of their own id, which stays (see identical_ids)",
        }
        if self.unknown_example:
            lines["unknown_passages"] += f": {self.unknown_example}"
        return [f"{getattr(self, name)} {line}" for name, line in lines.items() if getattr(self, name)]

    def as_row(self) -> dict[str, int]:
        """The counts, JSON-ready."""
        return {name: value for name, value in asdict(self).items() if name != "unknown_example"}


@dataclass(frozen=True)
class RetrievalReport:
    """Quality of one system. `values` are the metrics of `qdrant_tools.metrics.METRICS` at every cutoff."""

    cutoffs: tuple[int, ...]
    values: Mapping[str, PerQuery]
    """`"ndcg@10"` -> query id -> value, 0 to 1."""
    run: Run
    coverage: Coverage
    texts: Mapping[str, str] = field(default_factory=dict)
    """query id -> text, as far as it is known."""
    name: str = ""

    @property
    def k(self) -> int:
        """The first cutoff: that of the headline."""
        return self.cutoffs[0]

    @property
    def ndcg(self) -> PerQuery:
        return self.values[f"ndcg@{self.k}"]

    @property
    def reciprocal_rank(self) -> PerQuery:
        return self.values[f"mrr@{self.k}"]

    @property
    def recall(self) -> PerQuery:
        return self.values[f"recall@{self.k}"]

    def means(self) -> dict[str, float]:
        """Return the mean over all measured queries of every metric: `"ndcg@10"`, `"mrr@10"`, ..."""
        return {name: mean(values) for name, values in self.values.items()}

    def headline(self) -> dict[str, float]:
        """Return the three means that a summary shows; `"mrr"` is cut at `k` too."""
        return {
            f"ndcg@{self.k}": mean(self.ndcg),
            "mrr": mean(self.reciprocal_rank),
            f"recall@{self.k}": mean(self.recall),
        }

    def of_query(self, query: str) -> dict[str, float]:
        """Return every metric of one query."""
        return {name: values[query] for name, values in self.values.items()}

    def as_row(self) -> dict[str, Any]:
        """The report without its values per query, JSON-ready."""
        return {
            "name": self.name,
            "means": self.means(),
            "counts": self.coverage.as_row(),
            "notes": self.coverage.notes(),
        }


def score_run(
    run: Run,
    qrels: Qrels,
    *,
    queries: Sequence[Query] | None = None,
    k: int | Sequence[int] = 10,
    name: str = "",
    unknown_passages: int = 0,
    unknown_example: str = "",
    identical_ids: IdenticalIds = "auto",
    ignored: Collection[str] = (),
    cut_documents: int = 0,
) -> RetrievalReport:
    """Score a run, whoever made it. A judged query that the run has nothing for scores 0.

    queries: what was asked; those without judgement and judgements of others are left out and counted. None:
        everything that is judged is measured.
    k: the cutoff, or several; the first is that of the headline.
    identical_ids: `ignore` takes the passage that has its query's id out of the results; a run has no texts that could
        tell whether it is the query itself, so that `auto` leaves it, and counts.
    ignored: queries whose own passage was taken out already.
    Raises:
        InputError: no query has a judgement, a query id occurs twice, a score or grade is no number, k is below 1.
    """
    cutoffs = tuple(dict.fromkeys([k] if isinstance(k, int) else k))
    texts = texts_by_id(queries or ())
    qrels = judged_as(qrels, texts if queries is not None else run)
    names = dict.fromkeys([*qrels, *run], "") if queries is None else texts
    used = {query: qrels[query] for query in (qrels if queries is None else texts) if qrels.get(query)}
    if not used:
        raise InputError(no_judgements(names, qrels))
    # a query without results stays in the mean, or answering less would raise it
    asked_as = spelled(used, run)
    kept: Run = {query: run[asked_as[query]] if query in asked_as else {} for query in used}
    # a run may spell passages in one way for one query, and in another for the next
    used = {query: respelled({query: used[query]}, spelled(used[query], kept[query]))[query] for query in used}
    found = {query: None for query, scores in kept.items() if query in scores}
    own = own_passages(dict.fromkeys(used, ""), found, qrels, identical_ids)
    kept = without_own(kept, own, k=None)
    return RetrievalReport(
        cutoffs,
        measure(used, kept, cutoffs=cutoffs),
        kept,
        Coverage(
            len(used),
            without_judgement=len(names.keys() - used.keys()),
            unknown_queries=len(qrels.keys() - names.keys()),
            unknown_passages=unknown_passages,
            unknown_example=unknown_example,
            cut_documents=cut_documents,
            without_relevant=sum(all(grade < 1 for grade in grades.values()) for grades in used.values()),
            without_results=sum(not scores for scores in kept.values()),
            own_passages_ignored=len(own.union(ignored).intersection(used)),
            identical_ids_kept=sum(query in kept[query] and not is_relevant(qrels, query) for query in used),
        ),
        {query: texts[query] for query in used if query in texts},
        name,
    )


def judged_as(qrels: Qrels, queries: Collection[str]) -> Qrels:
    """Judgements under the ids that the queries have, if these are composed in another way."""
    names = spelled((query for query in qrels if query not in queries and not query.isascii()), queries)
    return {names.get(query, query): grades for query, grades in qrels.items()} if names else qrels


def no_judgements(queries: Collection[str], qrels: Qrels) -> str:
    """The message where no query is judged."""
    alike = unlike_spelling(qrels, queries)
    example = "" if alike is None else f": the qrels say {brief(alike[0])}, the queries {brief(alike[1])}"
    return f"none of the {len(queries)} queries has a judgement in the {len(qrels)} qrels{example or ': check the ids'}"


def texts_by_id(queries: Sequence[Query]) -> dict[str, str]:
    """Query texts by id.

    Raises:
        InputError: an id occurs twice.
    """
    texts: dict[str, str] = {}
    for query in queries:
        if query.id in texts:
            raise InputError(f"the query id {brief(query.id)} occurs twice: every id names one query")
        texts[query.id] = query.text
    return texts


def own_passages(
    queries: Mapping[str, str], passages: Mapping[str, str | None], qrels: Qrels, rule: IdenticalIds
) -> frozenset[str]:
    """The ids that leave the results of the query that they name.

    passages: the texts of passages that have the id of a query; None where the text is not known.
    Raises:
        UsageError: no such rule.
    """
    if rule not in get_args(IdenticalIds):
        raise UsageError(f"identical_ids is {rule!r}, expected one of {', '.join(get_args(IdenticalIds))}")
    if rule == "keep":
        return frozenset()
    same = queries.keys() & passages.keys()
    if rule == "ignore":
        return frozenset(same)
    return frozenset(
        name for name in same if not is_relevant(qrels, name) and _is_text_of(queries[name], passages[name])
    )


def without_own(run: Run, own: Iterable[str], *, k: int | None) -> Run:
    """The first k results of each query (None: all) as they are given, without its own passage if that is in `own`."""
    ignored = frozenset(own)
    if not ignored:
        return run
    trimmed: dict[str, dict[str, float]] = {}
    for query, scores in run.items():
        others = [found for found in scores.items() if found[0] != query or query not in ignored]
        trimmed[query] = dict(others[:k])
    return trimmed


def is_relevant(qrels: Qrels, name: str) -> bool:
    """Whether the passage of this id is judged relevant for the query of this id."""
    return qrels.get(name, {}).get(name, 0) > 0


def _is_text_of(query: str, passage: str | None) -> bool:
    """Whether a passage is this query, perhaps behind a title that is no longer than it."""
    if passage is None:
        return False
    asked, found = query_key(query), query_key(passage)
    return found == asked or (found.endswith(f" {asked}") and len(found) <= 2 * len(asked) + 1)
