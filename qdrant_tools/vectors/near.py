"""A collection -> groups of passages that say nearly the same; or new vectors -> what is there already.

Up to `EXACT_UP_TO` passages every vector is compared with every other. In a larger collection the index is asked for
the neighbours of each: memory then holds a page of vectors, and the pairs that are near.

Guarantees: the groups are those of `groups`; nothing is embedded or written. Does not know: encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
from qdrant_client import models

from qdrant_tools.client.gateway import PointId
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import VectorPage, fetch_points, vector_pages
from qdrant_tools.errors import CollectionError
from qdrant_tools.records import Progress, Vectors
from qdrant_tools.search.options import PlainFilter, as_filter
from qdrant_tools.validation import UNIT_TOLERANCE, checked_number, unit_rows
from qdrant_tools.vectors.groups import ROUNDING, Group, exact_groups, graph_groups

EXACT_UP_TO = 50_000
"""Passages. 77 MB of vectors with 384 dimensions, and 200 with 1,024."""
NEIGHBOURS = 32
"""That the index is asked for, for each passage."""
MOST_NEIGHBOURS = 10_000
"""That it is asked for, where all of the first ones are near."""
LOOKED_AT = 8
"""Neighbours of a new passage, of which some may not count."""
WIDE = 128
"""The beam width that finds them."""
MEASURED = 200
"""Passages whose neighbours are also searched exactly, to say what the index missed."""


@dataclass(frozen=True)
class Duplicate:
    """A passage that was not stored, and the one that says nearly the same."""

    passage_id: str
    of: str
    cosine: float


@dataclass(frozen=True)
class DuplicateGroup:
    """Passages near one of them, which may stand for all. `others`: id -> cosine with it, nearest first."""

    kept: str
    others: tuple[tuple[str, float], ...]

    @property
    def size(self) -> int:
        return len(self.others) + 1

    def as_row(self) -> dict[str, object]:
        return {
            "kept": self.kept,
            "size": self.size,
            "others": [{"id": name, "cosine": round(cosine, 6)} for name, cosine in self.others],
        }


@dataclass(frozen=True)
class DuplicateReport:
    """What `duplicates` found: the largest group first."""

    collection: str
    above: float
    passages: int
    """That were looked at."""
    exact: bool
    """Whether each was compared with every other."""
    found_share: float
    """Of the near pairs of a sample that exact search finds, those that the index found; 1 if `exact`."""
    groups: tuple[DuplicateGroup, ...] = field(repr=False)

    @property
    def redundant(self) -> tuple[str, ...]:
        """The ids of all but the representatives: what could be deleted."""
        return tuple(name for group in self.groups for name, _ in group.others)

    def as_row(self) -> dict[str, object]:
        return {
            "collection": self.collection,
            "above": self.above,
            "passages": self.passages,
            "exact": self.exact,
            "found_share": self.found_share,
            "redundant": len(self.redundant),
            "groups": [group.as_row() for group in self.groups],
        }


def duplicates(
    collection: Collection,
    *,
    above: float = 0.95,
    filter: PlainFilter | models.Filter | None = None,
    exact: bool | None = None,
    progress: Progress | None = None,
) -> DuplicateReport:
    """Find groups of passages whose vectors have a cosine of at least `above` with that of one of them.

    exact: compare each with every other; None: up to 50,000 passages. `filter` says which passages are looked at.

    Raises:
        InputError: `above` is not above 0 and at most 1.
    """
    checked_number("above", above, above=0, most=1)
    chosen = as_filter(filter, collection=collection)
    total = collection.gateway.count(chosen)
    if exact is None:
        exact = total <= EXACT_UP_TO
    if exact:
        groups, looked_at, share = _exactly(collection, above, chosen, total, progress)
    else:
        groups, looked_at, share = _by_index(collection, above, chosen, progress)
    ordered = sorted(groups, key=lambda group: (-group.size, group.kept))
    return DuplicateReport(collection.name, above, looked_at, exact, share, tuple(ordered))


def near_known(
    collection: Collection,
    ids: Sequence[str],
    rows: Vectors,
    above: float,
    counting: Callable[[Sequence[PointId]], Set[PointId]],
) -> list[Duplicate | None]:
    """For each new passage the one that it is nearest to, if their cosine is at least `above`: stored, or before it.

    `counting` chooses, of stored points, those that count: not what will be removed.
    """
    exact = collection.gateway.count() <= EXACT_UP_TO
    rankings = collection.gateway.rankings(
        rows,
        [LOOKED_AT] * len(rows),
        using=collection.layout.vector or None,
        params=collection.search_params(hnsw_ef=None if exact else WIDE, exact=exact),
    )
    least = above - ROUNDING
    near = [
        [(point, float(score)) for point, score in zip(points, scores, strict=True) if score >= least]
        for points, scores in rankings
    ]
    there = counting(list(dict.fromkeys(point for each in near for point, _ in each)))
    best = [next((found for found in each if found[0] in there), None) for each in near]
    stored = fetch_points(collection, [found[0] for found in best if found is not None], with_text=False)
    cosines, kept, duplicates = rows @ rows.T, list[int](), list[Duplicate | None]()
    for number, (name, found) in enumerate(zip(ids, best, strict=True)):
        duplicate = None
        if found is not None and found[0] in stored:
            duplicate = Duplicate(name, stored[found[0]].id, min(1.0, found[1]))
        elif before := [other for other in kept if cosines[number, other] >= least]:
            nearest = max(before, key=lambda other: float(cosines[number, other]))
            duplicate = Duplicate(name, ids[nearest], min(1.0, float(cosines[number, nearest])))
        else:
            kept.append(number)
        duplicates.append(duplicate)
    return duplicates


def _exactly(
    collection: Collection, above: float, chosen: models.Filter | None, total: int, progress: Progress | None
) -> tuple[list[DuplicateGroup], int, float]:
    ids: list[str] = []
    rows = np.empty((total, collection.dimension), dtype=np.float32)
    for page in _pages(collection, chosen):
        # somebody may write meanwhile
        page_rows = unit_rows(page.vectors)[: max(0, total - len(ids))]
        rows[len(ids) : len(ids) + len(page_rows)] = page_rows
        ids += page.ids[: len(page_rows)]
        if progress is not None:
            progress(len(page.ids))
    # in the order of their ids, so that the engine's does not decide which of two equal ones stays
    order = sorted(range(len(ids)), key=ids.__getitem__)
    named = [ids[number] for number in order]
    return _named(exact_groups(rows[order], above), named), len(ids), 1.0


def _by_index(
    collection: Collection, above: float, chosen: models.Filter | None, progress: Progress | None
) -> tuple[list[DuplicateGroup], int, float]:
    search = _Neighbours(collection, above, chosen)
    looked_at, found, there = 0, 0, 0
    for page in _pages(collection, chosen):
        _require_unit(collection, page)
        near = search.note(page, NEIGHBOURS)
        if looked_at < MEASURED:
            sample = VectorPage(page.points[:MEASURED], page.ids[:MEASURED], page.vectors[:MEASURED])
            truth = search.near(sample, NEIGHBOURS, exact=True)
            there += sum(len(each) for each in truth)
            found += sum(len(each.keys() & own.keys()) for each, own in zip(truth, near))
        looked_at += len(page.ids)
        if progress is not None:
            progress(len(page.ids))
    # a representative all of whose neighbours are near has more of them
    full = [number for number, _ in search.groups()[0] if number in search.full]
    for start in range(0, len(full), 16):
        search.look_deeper(full[start : start + 16])
    return _named(*search.groups()), looked_at, found / there if there else 1.0


def _require_unit(collection: Collection, page: VectorPage) -> None:
    """Refuse vectors of other lengths: what an index of dot products finds near is no cosine then."""
    if (np.abs(np.linalg.norm(page.vectors, axis=1) - 1) > UNIT_TOLERANCE).any():
        raise CollectionError(
            f"collection {collection.name!r} holds vectors that are not of length 1, and its index knows no cosines: "
            "compare each with every other (exact=True, --exact)"
        )


def _pages(collection: Collection, chosen: models.Filter | None) -> Iterator[VectorPage]:
    return vector_pages(collection, batch_size=MEASURED, filter=chosen)


def _named(groups: Sequence[Group], ids: Sequence[str]) -> list[DuplicateGroup]:
    return [
        DuplicateGroup(ids[number], tuple((ids[other], cosine) for other, cosine in members))
        for number, members in groups
    ]


class _Neighbours:
    """The near pairs that an index finds, as a graph of numbers: memory holds no point that is near nothing."""

    def __init__(self, collection: Collection, above: float, chosen: models.Filter | None) -> None:
        self.collection, self.least, self.chosen = collection, above - ROUNDING, chosen
        self.points: list[PointId] = []
        self.ids: list[str] = []
        self.graph: list[dict[int, float]] = []
        self.full: set[int] = set()
        self._numbers: dict[PointId, int] = {}

    def near(self, page: VectorPage, limit: int, *, exact: bool = False) -> list[dict[PointId, float]]:
        """What is near each vector of a page, but for its own point."""
        rankings = self.collection.gateway.rankings(
            unit_rows(page.vectors),
            [limit + 1] * len(page.points),
            using=self.collection.layout.vector or None,
            # as wide as it is deep: neighbours that are as near as these are the first to be found
            params=self.collection.search_params(hnsw_ef=max(128, 2 * limit), exact=exact),
            query_filter=self.chosen,
        )
        return [
            {
                other: float(score)
                for other, score in zip(points, scores, strict=True)
                if score >= self.least and other != own
            }
            for own, (points, scores) in zip(page.points, rankings, strict=True)
        ]

    def note(self, page: VectorPage, limit: int) -> list[dict[PointId, float]]:
        """Add what is near the points of a page to the graph."""
        found = self.near(page, limit)
        for point, near in zip(page.points, found, strict=True):
            if not near:
                continue
            own = self._number(point)
            if len(near) >= limit:
                self.full.add(own)
            for other, score in near.items():
                number = self._number(other)
                self.graph[own][number] = self.graph[number][own] = score
        return found

    def look_deeper(self, numbers: Sequence[int]) -> None:
        points = [self.points[number] for number in numbers]
        stored = fetch_points(self.collection, points, with_vectors=True, with_text=False)
        there = [(point, stored[point]) for point in points if point in stored and stored[point].vector is not None]
        if there:
            vectors: Vectors = np.array([passage.vector for _, passage in there], dtype=np.float32)
            page = VectorPage([point for point, _ in there], [passage.id for _, passage in there], vectors)
            self.note(page, MOST_NEIGHBOURS)

    def groups(self) -> tuple[list[Group], list[str]]:
        """The groups by the numbers of points, and the ids of these, whose order decides as in an exact comparison."""
        for start in range(len(self.ids), len(self.points), 1000):
            some = self.points[start : start + 1000]
            stored = fetch_points(self.collection, some, with_text=False)
            self.ids += [stored[point].id if point in stored else str(point) for point in some]
        order = sorted(range(len(self.ids)), key=self.ids.__getitem__)
        place = {number: rank for rank, number in enumerate(order)}
        ranked = graph_groups([{place[other]: cosine for other, cosine in self.graph[own].items()} for own in order])
        return [(order[own], tuple((order[n], c) for n, c in others)) for own, others in ranked], self.ids

    def _number(self, point: PointId) -> int:
        number = self._numbers.setdefault(point, len(self.points))
        if number == len(self.points):
            self.points.append(point)
            self.graph.append({})
        return number
