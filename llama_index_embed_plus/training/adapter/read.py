"""Training examples, or none, and a collection -> what an adapter is fitted on, as arrays.

Guarantees: every positive and mined negative that the collection holds is among the stored vectors; of a collection
that is larger than may be held, what its index finds for the queries too, and a seeded sample of the others. Equal
queries are one, with the positives of all and the sum of their weights. Memory is that of the vectors, 4 bytes *
dimension * (queries + stored), with room for a quarter more where the collection has more. Does not know: losses.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries, Rows
from llama_index_embed_plus.training.adapter.pseudo import pseudo_queries
from llama_index_embed_plus.training.proof.proof import ProofSettings
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import VectorSample, draw_rank, mismatch, sample_vectors
from qdrant_tools.records import Encoder, Example, Vectors
from qdrant_tools.same import id_spellings, query_key, spelled

logger = logging.getLogger(__name__)
_FOUND = 50
"""Passages that the index is asked for per query, where not all vectors are held."""


@dataclass(frozen=True, eq=False)
class ReadExamples:
    """What was read: `pairs` of a query and a positive, from so many `examples` that have one in the collection, and
    the passages that pseudo-queries were made of; `hidden` are stored rows."""

    data: AdapterData
    pairs: int
    examples: int
    pseudo: tuple[str, ...]
    hidden: Rows


def read_data(
    collection: Collection,
    examples: Sequence[Example] | None,
    encoder: Encoder,
    settings: AdapterSettings,
    known_items: Container[str] | None = None,
    hidden: Iterable[str] = (),
) -> ReadExamples:
    """Take the vectors of examples from the collection, with others up to `settings.max_stored_vectors` in all.

    known_items: ids of passages that no pseudo-query is made of, at most a third of all; None: `settings.spared` of
    those that no example names. hidden: ids of passages that the fit must not use.

    Raises TrainingError: the collection is empty or a vector has something other than numbers in it; of examples, fewer
    than 2 have a weight above 0 and a positive that the collection holds, or all of their queries are the same.
    """
    labelled, examples = examples is not None, examples or ()
    if labelled and not examples:
        raise TrainingError("there are no examples: mine some from a retrieval log, or label a few queries")
    weighted = [example for example in examples if example.weight > 0]
    queries = _encoded(encoder, [example.query for example in weighted])
    sample = _stored(collection, examples, queries, settings)
    place = {passage_id: row for row, passage_id in enumerate(sample.ids)}
    index = {name: place[passage_id] for name, passage_id in spelled(_labelled(examples), place).items()}
    usable = [row for row, example in enumerate(weighted) if any(p.id in index for p in example.positives)]
    if labelled:
        _check_examples(collection, examples, index, [weighted[row] for row in usable])
    read = _merged([weighted[row] for row in usable], index, queries[usable], sample.vectors)
    spared = _of_proof(sample.ids, _labelled(examples), settings.spared) if known_items is None else known_items
    pseudo = _pseudo(collection, _others(sample.ids, spared), place, encoder, settings)
    if pseudo is None and not labelled:
        raise TrainingError(
            f"no passage of {collection.name!r} is long enough to make a query of, and there are no examples: "
            "give labelled queries"
        )
    made = () if pseudo is None else tuple(sample.ids[row] for row in pseudo.passage.tolist())
    data = AdapterData(sample.vectors, *read, pseudo)
    gone = np.array(sorted(place[name] for name in spelled(set(hidden), place).values()), np.int64)
    return ReadExamples(data, sum(map(len, data.answers)), len(usable), made, gone)


def _encoded(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    if not texts:
        return np.empty((0, encoder.dimension), np.float32)
    vectors = np.ascontiguousarray(encoder.encode_queries(texts), np.float32)
    _check(vectors, [f"query {text[:60]!r}" for text in texts], "the encoder is damaged")
    return vectors


def _merged(
    examples: Sequence[Example], index: Mapping[str, int], queries: Vectors, stored: Vectors
) -> tuple[Vectors, tuple[tuple[int, ...], ...], np.ndarray, tuple[int, ...]]:
    """The vectors, answers and weights of distinct queries, and all mined negatives."""
    numbers: dict[str, int] = {}
    first: list[int] = []
    answers: list[dict[int, None]] = []
    weights: list[float] = []
    hard: dict[int, None] = {}
    for row, example in enumerate(examples):
        number = numbers.setdefault(query_key(example.query), len(numbers))
        if number == len(first):
            first.append(row)
            answers.append({})
            weights.append(0.0)
        answers[number].update(dict.fromkeys(index[p.id] for p in example.positives if p.id in index))
        weights[number] += example.weight
        hard.update(dict.fromkeys(index[n.id] for n in example.negatives if n.id in index))
    return queries[first], tuple(map(tuple, answers)), np.array(weights, np.float64), tuple(hard)


def _of_proof(ids: Sequence[str], named: Container[str], most: int) -> set[str]:
    """What a proof that is made later, with its default seed, asks for first: passages that no example names."""
    return set(_drawn(name for name in ids if name not in named)[:most])


def _others(ids: Sequence[str], spared: Container[str]) -> list[str]:
    """The ids that pseudo-queries may be made of: all but the spared ones, of which a third of all is the most."""
    gone = set(_drawn(name for name in ids if name in spared)[: len(ids) // 3])
    return [name for name in ids if name not in gone]


def _drawn(ids: Iterable[str]) -> list[str]:
    return sorted(ids, key=lambda name: draw_rank(name, ProofSettings().seed))


def _pseudo(
    collection: Collection, ids: Sequence[str], place: Mapping[str, int], encoder: Encoder, settings: AdapterSettings
) -> PseudoQueries | None:
    if "pseudo" not in settings.candidates:
        return None
    made = list(pseudo_queries(collection, ids, count=settings.pseudo_queries, seed=settings.seed))
    if not made:
        return None
    rows = np.array([place[passage_id] for passage_id, _ in made], np.int64)
    return PseudoQueries(_encoded(encoder, [text for _, text in made]), rows)


def _check_examples(
    collection: Collection, examples: Sequence[Example], index: Mapping[str, int], usable: Sequence[Example]
) -> None:
    answers = [positive.id for example in examples for positive in example.positives]
    missing = [name for name in dict.fromkeys(answers) if name not in index]
    if len(usable) < 2:
        example_of = f" ({mismatch(collection, missing)})" if missing else ""
        problem = (
            f"{len(usable)} of {len(examples)} examples have a positive that collection {collection.name!r} holds "
            f"(and a weight above 0){example_of}, expected at least 2"
        )
        if len(usable) == len(examples):
            raise TrainingError(problem).with_way_out(
                python="mine more searches with clicks",
                command="mine COLLECTION LOG --out EXAMPLES again, once there are some hundred searches with clicks "
                "(embed-plus log stats LOG counts them)",
            )
        raise TrainingError(f"{problem}: index the positives, or check that the ids are passage ids")
    if 2 * len(missing) > len(set(answers)):
        several = f"{len(missing)} of {len(set(answers))} positives"
        logger.warning("%s are not in the collection: %s", several, mismatch(collection, missing))
    if len({query_key(example.query) for example in usable}) < 2:
        raise TrainingError(
            f"all {len(usable)} queries are {usable[0].query[:60]!r}: an adapter needs different queries to learn from"
        )


def _check(vectors: Vectors, names: Sequence[str], way_out: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise TrainingError(
            f"the vectors of {len(bad)} texts hold NaN or infinity, the first is {names[bad[0]]}: {way_out}"
        )


def _labelled(examples: Sequence[Example]) -> set[str]:
    return {text.id for example in examples for text in (*example.positives, *example.negatives)}


def _stored(
    collection: Collection, examples: Sequence[Example], queries: Vectors, settings: AdapterSettings
) -> VectorSample:
    """Every positive and mined negative, what the queries find, and as many other stored vectors as fit."""
    # of every id as it may be spelled: those that are not there are drawn by nobody
    wanted = {name for passage_id in _labelled(examples) for name in id_spellings(passage_id)}
    most = settings.max_stored_vectors
    if len(queries) and collection.gateway.count() > most:
        wanted |= {hit.id for hits in collection.search_vectors(queries, k=_FOUND, text=False) for hit in hits}
    sample = sample_vectors(collection, most, seed=settings.seed, always=wanted)
    if not sample.ids:
        raise TrainingError(f"collection {collection.name!r} is empty: index passages before fitting an adapter")
    _check(sample.vectors, [f"passage {name!r}" for name in sample.ids], f"index it again in {collection.name!r}")
    return sample
