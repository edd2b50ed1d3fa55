"""Queries, judgements, an encoder, and a collection or plain vectors -> every metric per query and in the mean.

Guarantees: every judged query is in the mean, with 0 where nothing was found; what does not fit together (queries
without judgement, judged passages that are not there) is counted in the report. A judged document that was cut stands
where the best of its parts stands (`sources.judged`). Two reports over the same queries are compared by
`compare`. Does not know: how the collection was filled or the encoder trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack, get_args

from qdrant_client import models

from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors
from llama_index_embed_plus.evaluate.retrieval.report import (
    IdenticalIds,
    RetrievalReport,
    judged_as,
    no_judgements,
    own_passages,
    score_run,
    texts_by_id,
    without_own,
)
from qdrant_tools.client.gateway import PointId
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, mismatch, stored_ids
from qdrant_tools.errors import InputError, SpaceMismatchError, UsageError, brief
from qdrant_tools.metrics import ranked
from qdrant_tools.records import Encoder, Hit, Qrels, Query, Run
from qdrant_tools.same import respelled, spelled, unlike_spelling
from qdrant_tools.search.around import DOCUMENT
from qdrant_tools.search.dense import checked_queries, search_batch
from qdrant_tools.search.fusion import Fusion
from qdrant_tools.search.hybrid import search_hybrid, search_lexical
from qdrant_tools.search.neighbours import TIE, nearest_of, recall_at
from qdrant_tools.search.options import PlainFilter
from qdrant_tools.sources.judged import judged_documents, parts_in, search_documents
from qdrant_tools.validation import checked_count

Mode = Literal["dense", "hybrid", "lexical"]
PASSAGES_AT_ONCE = 256
QUERIES_AT_ONCE = 1024


class EvaluationArguments(TypedDict, total=False):
    """The fields of `SearchSettings` as keyword arguments."""

    mode: Mode
    hnsw_ef: int | None
    exact: bool | None
    filter: PlainFilter | models.Filter | None
    fusion: Fusion | None


@dataclass(frozen=True)
class SearchSettings:
    """How a collection is searched while it is measured."""

    mode: Mode = "dense"
    hnsw_ef: int | None = None
    """Beam width in the graph; None is what the collection keeps."""
    exact: bool | None = None
    """Compare with every vector, without HNSW. None: as the collection does."""
    filter: PlainFilter | models.Filter | None = None
    fusion: Fusion | None = None
    """Of the hybrid mode."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(f"mode is {self.mode!r}, expected one of {', '.join(get_args(Mode))}")
        if self.mode != "dense" and (self.exact is not None or self.hnsw_ef is not None):
            raise UsageError(f"exact and hnsw_ef are for the mode 'dense', not for {self.mode!r}")
        if self.mode != "hybrid" and self.fusion is not None:
            raise UsageError(f"fusion is for the mode 'hybrid', not for {self.mode!r}")


def evaluate_retrieval(
    corpus: Collection | PassageVectors,
    queries: Sequence[Query],
    qrels: Qrels,
    encoder: Encoder | None = None,
    *,
    k: int | Sequence[int] = 10,
    name: str = "",
    identical_ids: IdenticalIds = "auto",
    **settings: Unpack[EvaluationArguments],
) -> RetrievalReport:
    """Search for every judged query and score what is found against `qrels`, as trec_eval does.

    corpus: a collection, or vectors, which are always searched exactly.
    encoder: makes the query vectors. None: that of the collection; the mode "lexical" needs none.
    k: the cutoff, or several; the first is that of the headline, the largest is how many passages are asked for.
    name: of the system, for tables and pictures.
    identical_ids: what becomes of a passage that has the id of the query: by default a query that is itself a passage
        does not find itself, as in BEIR and mteb; see `IdenticalIds`. The report counts both.
    settings: how a collection is searched, the fields of `SearchSettings`.
    Raises:
        InputError: no query has a judgement, a query is empty or occurs twice, a grade is no number, k is below 1.
        UsageError: settings that contradict each other, or no encoder where one is needed.
        SpaceMismatchError: the passages were embedded by another encoder.
        VectorError: the encoder returned NaN, zeros, or another shape.
        NotSupportedError: the mode needs lexical vectors and the collection has none.
    """
    depth = max(checked_depth(k))
    how = SearchSettings(**settings)
    if encoder is None and how.mode != "lexical" and isinstance(corpus, Collection):
        encoder = corpus.encoder
    if encoder is None and how.mode != "lexical":
        raise UsageError(f"the mode {how.mode!r} needs an encoder for the queries")
    texts = texts_by_id(queries)
    qrels = judged_as(qrels, texts)
    judged = [query for query in texts if qrels.get(query)]
    if not judged:
        raise InputError(no_judgements(texts, qrels))
    about = sorted({passage for query in judged for passage in qrels[query]})
    names = spelled(about, corpus.places) if isinstance(corpus, PassageVectors) else stored_ids(corpus, about)
    documents = _documents(corpus, [passage for passage in about if passage not in names], names.values())
    names |= documents
    example = _mismatch(corpus, [passage for passage in about if passage not in names])
    if not names:
        raise InputError(
            f"none of the {len(about)} judged passages is among those that are searched: {example}; write the ids of "
            "the judgements as the passages have them"
        )
    qrels = respelled(qrels, names)
    asked = {query: texts[query] for query in judged}
    checked_queries(list(asked.values()))
    own = own_passages(asked, _passages_called(corpus, judged), qrels, identical_ids)
    deeper = depth + bool(own)  # what is taken out makes room for one more
    if isinstance(corpus, PassageVectors):
        if how != SearchSettings():
            raise UsageError(f"vectors are searched exactly, without {how}: give a collection")
        run = _search_vectors(corpus, judged, list(asked.values()), encoder, k=deeper, documents=bool(documents))
    else:
        run = _search_collection(corpus, judged, list(asked.values()), encoder, how, deeper, documents=bool(documents))
    return score_run(
        without_own(run, own, k=depth),
        qrels,
        queries=queries,
        k=k,
        name=name,
        unknown_passages=len(about) - len(names),
        unknown_example=example,
        identical_ids="keep",
        ignored=own,
        cut_documents=len(documents),
    )


def overlap(approximate: RetrievalReport, exact: RetrievalReport) -> float:
    """Return recall@k of one run against an exact one: the mean share of the exact top k that was found.

    A passage that is not among the exact ones counts if it scores as the last of them: it ties. Where the two runs
    score one passage differently (compressed vectors without rescoring), scores cannot tell, and the ids alone count.
    """
    queries = [query for query, scores in exact.run.items() if scores]
    if not queries:
        return 0.0
    runs = [(approximate.run.get(query, {}), exact.run[query]) for query in queries]
    # the cutoff of the exact run; a shorter list is all there was to find
    k = max(len(best) for _, best in runs)
    right = [nearest_of([(passage, best[passage]) for passage in ranked(best)], k, depth=k) for _, best in runs]

    def scores(doubtful: Mapping[int, Sequence[PointId]]) -> dict[int, dict[PointId, float]]:
        # a query that is left out here counts by its ids alone
        comparable = {number: ids for number, ids in doubtful.items() if _alike(*runs[number])}
        return {number: {name: runs[number][0][str(name)] for name in ids} for number, ids in comparable.items()}

    return recall_at(k, [ranked(scored) for scored, _ in runs], right, scores)


def _alike(scores: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether two runs give the passages that both hold the same scores, to rounding."""
    room = TIE * max(map(abs, others.values()), default=0.0)
    return all(abs(scores[name] - others[name]) <= room for name in scores.keys() & others.keys())


def checked_depth(k: int | Sequence[int]) -> list[int]:
    """The cutoffs as a list.

    Raises:
        InputError: one of them is no whole number of at least 1, or there is none.
    """
    # a float or None goes on as it is, to be refused by `checked_count`
    cutoffs = [k] if isinstance(k, int) or not isinstance(k, Sequence) else list(k)
    for cutoff in cutoffs or [0]:  # an empty list is refused as 0 would be
        checked_count("k", cutoff)
    return cutoffs


def _search_collection(
    collection: Collection,
    names: Sequence[str],
    texts: Sequence[str],
    encoder: Encoder | None,
    how: SearchSettings,
    k: int,
    *,
    documents: bool,
) -> Run:
    run: dict[str, dict[str, float]] = {}
    # ids and scores of some queries at a time: a text that answers every query would be kept once for each of them
    for start in range(0, len(names), QUERIES_AT_ONCE):
        block = texts[start : start + QUERIES_AT_ONCE]
        hits_of_queries = _hits_of(collection, block, encoder, how, k, documents=documents)
        for name, hits in zip(names[start : start + len(block)], hits_of_queries, strict=True):
            run[name] = _as_run(hits)
    return run


def _hits_of(
    collection: Collection,
    texts: Sequence[str],
    encoder: Encoder | None,
    how: SearchSettings,
    k: int,
    *,
    documents: bool = False,
    fields: Sequence[str] = (),
) -> list[list[Hit]]:
    """Hits that carry nothing but their ids, which are those of documents where that is asked for."""
    if documents:

        def find(places: Sequence[int], depth: int) -> list[list[Hit]]:
            block = [texts[place] for place in places]
            return _hits_of(collection, block, encoder, how, depth, fields=(DOCUMENT,))

        return search_documents(find, len(texts), k)
    # the caller lets no other mode come without an encoder: the second half is for the type checker
    if how.mode == "lexical" or encoder is None:
        return search_lexical(collection, texts, k=k, filter=how.filter, fields=fields, text=False)
    if how.mode == "hybrid":
        return search_hybrid(
            collection, texts, encoder, k=k, filter=how.filter, fusion=how.fusion, fields=fields, text=False
        )
    return search_batch(
        collection,
        texts,
        encoder,
        k=k,
        hnsw_ef=how.hnsw_ef,
        exact=how.exact,
        filter=how.filter,
        fields=fields,
        text=False,
    )


def _as_run(hits: Sequence[Hit]) -> dict[str, float]:
    """The best score of every passage; in collections that others filled, several points may be one passage."""
    scores: dict[str, float] = {}
    for hit in hits:
        scores.setdefault(hit.id, hit.score)  # hits come best first
    return scores


def _search_vectors(
    passages: PassageVectors,
    names: Sequence[str],
    texts: Sequence[str],
    encoder: Encoder | None,
    *,
    k: int,
    documents: bool,
) -> Run:
    if encoder is None:
        raise UsageError("vectors have no words to search by: the mode 'lexical' needs a collection")
    if passages.space and encoder.space != passages.space:
        raise SpaceMismatchError(
            f"the passages are vectors of {passages.space!r}, this encoder makes {encoder.space!r}: embed them with it"
        )
    search = passages.search_documents if documents else passages.search
    return search(names, encoder.encode_queries(texts), k=k) if names else {}


def _documents(corpus: Collection | PassageVectors, missing: Sequence[str], passages: Iterable[str]) -> dict[str, str]:
    """The judged ids that are documents, of which only parts are searched."""
    if not missing:
        return {}
    parts = corpus.parts() if isinstance(corpus, PassageVectors) else parts_in(corpus)
    return judged_documents(parts, missing, frozenset(passages))


def _passages_called(corpus: Collection | PassageVectors, ids: Sequence[str]) -> dict[str, str | None]:
    """The texts of the passages that have these ids."""
    if isinstance(corpus, PassageVectors):
        return corpus.texts_of(ids)
    blocks = (ids[start : start + PASSAGES_AT_ONCE] for start in range(0, len(ids), PASSAGES_AT_ONCE))
    return {name: passage.text for block in blocks for name, passage in fetch(corpus, block).items()}


def _mismatch(corpus: Collection | PassageVectors, missing: Sequence[str]) -> str:
    """One id that is not among the passages, and what these have in its place."""
    if isinstance(corpus, Collection) or not missing:
        return mismatch(corpus, missing) if isinstance(corpus, Collection) else ""
    alike = unlike_spelling(missing, corpus.ids)
    name, have = (alike[0], brief(alike[1])) if alike else (missing[0], f"ids such as {brief(corpus.ids[0])}")
    return f"{brief(name)} is not among the passages, which have {have}"
