"""Near-duplicates: groups whose members are near one that stays, by every pair and by the index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tiny import DirectionEncoder

from qdrant_tools.errors import InputError
from qdrant_tools.records import Passage
from qdrant_tools.validation import unit_rows
from qdrant_tools.vectors import near
from qdrant_tools.vectors.groups import ROUNDING, exact_groups, graph_groups


def passages(groups=12, alone=20):
    """`groups` texts of twelve words, each three times with one word changed, and others."""
    made = []
    for group in range(groups):
        words = [f"g{group}w{i}" for i in range(24)]
        made += [Passage(f"g{group}-{i}", " ".join([*words, f"own{i}" if i else "first"])) for i in range(3)]
    return made + [Passage(f"alone-{i}", f"nothing like the others here{i} there{i}") for i in range(alone)]


@pytest.fixture
def docs(manager):
    docs = manager.ensure("duplicates", DirectionEncoder(dimension=256))
    docs.index(passages())
    return docs


def members(report):
    return {frozenset([group.kept, *(name for name, _ in group.others)]) for group in report.groups}


EXPECTED = {frozenset(f"g{group}-{i}" for i in range(3)) for group in range(12)}


def test_planted_groups_are_found_and_nothing_else(docs):
    report = docs.duplicates(above=0.9)
    assert members(report) == EXPECTED
    assert (report.exact, report.found_share, report.passages) == (True, 1.0, 56)
    assert len(report.redundant) == 24 and not {group.kept for group in report.groups} & set(report.redundant)
    stored = docs.fetch(["g0-0", "g0-1"], with_vectors=True)
    cosine = float(stored["g0-0"].vector @ stored["g0-1"].vector)
    group = next(group for group in report.groups if "g0-" in group.kept)
    named = dict(group.others)
    assert any(value == pytest.approx(cosine, abs=1e-3) for value in named.values())


def test_the_index_finds_the_same_groups_as_every_pair(docs):
    docs.build_index()
    by_index = docs.duplicates(above=0.9, exact=False)
    assert members(by_index) == EXPECTED
    assert [group.kept for group in by_index.groups] == [group.kept for group in docs.duplicates(above=0.9).groups]
    assert not by_index.exact and by_index.found_share == 1.0


def test_a_group_larger_than_the_index_is_asked_for_stays_one_group(manager, monkeypatch):
    monkeypatch.setattr(near, "NEIGHBOURS", 4)
    docs = manager.ensure("many", DirectionEncoder())
    docs.index(Passage(f"p{i:02}", "page left blank") for i in range(30))
    (group,) = docs.duplicates(exact=False).groups
    assert group.size == 30


def test_without_the_redundant_ones_nothing_is_found_again_and_each_has_something_near(docs):
    from qdrant_tools.sources.stored import delete_ids

    report = docs.duplicates(above=0.9)
    delete_ids(docs, report.redundant)
    assert docs.duplicates(above=0.9).groups == ()
    assert docs.gateway.count() == 56 - 24


def test_a_filter_says_which_passages_are_looked_at(manager):
    docs = manager.ensure("filtered", DirectionEncoder())
    docs.index(Passage(f"p{i}", "the same text", {"year": 2000 + i % 2}) for i in range(6))
    for exact in (True, False):
        (group,) = docs.duplicates(filter={"year": 2001}, exact=exact).groups
        assert {group.kept, *(name for name, _ in group.others)} == {"p1", "p3", "p5"}


def test_an_empty_collection_has_none(manager):
    docs = manager.ensure("none", DirectionEncoder())
    assert docs.duplicates().groups == docs.duplicates(exact=False).groups == ()


@pytest.mark.parametrize("above", [0, -0.5, 1.5, float("nan"), True])
def test_a_threshold_that_is_no_cosine_is_refused(docs, above):
    with pytest.raises(InputError, match="above is"):
        docs.duplicates(above=above)


def test_the_ends_of_a_chain_are_in_no_group_of_one_another():
    """Connected components would put all of them into one group."""
    angles = np.linspace(0, np.pi / 2, 7)
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    above = float(np.cos(np.pi / 12)) - 1e-4
    groups = exact_groups(chain, above)
    assert len(groups) > 1
    for own, others in groups:
        assert all(float(chain[own] @ chain[other]) >= above - ROUNDING for other, _ in others)


ROWS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.sampled_from([-1.0, -0.5, 0.5, 1.0])
)


@given(ROWS, st.sampled_from([0.3, 0.7, 0.9]))
@settings(max_examples=100, deadline=None)
def test_of_any_vectors_members_are_near_and_representatives_are_not(vectors, above):
    rows = unit_rows(vectors)
    groups = exact_groups(rows, above)
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64)
    named = [number for own, others in groups for number in (own, *(other for other, _ in others))]
    assert len(named) == len(set(named))
    for own, others in groups:
        assert all(cosines[own, other] >= above - 2 * ROUNDING for other, _ in others)
    kept = sorted(set(range(len(rows))) - {other for _, others in groups for other, _ in others})
    between = cosines[np.ix_(kept, kept)]
    np.fill_diagonal(between, -1)
    assert not (between >= above + ROUNDING).any()
    graph = [
        {
            other: float(cosines[own, other])
            for other in np.flatnonzero(cosines[own] >= above - ROUNDING)
            if other != own
        }
        for own in range(len(rows))
    ]
    assert [own for own, _ in graph_groups(graph)] == [own for own, _ in groups]
