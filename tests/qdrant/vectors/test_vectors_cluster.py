"""Clusters: planted groups are found, named by their words, the same for a seed, and written where filters see them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from tiny import DirectionEncoder

from qdrant_tools.errors import InputError
from qdrant_tools.records import Passage
from qdrant_tools.validation import unit_rows
from qdrant_tools.vectors.kmeans import counts_to_try, kmeans, nearest, silhouette

TOPICS = {
    "bees": "bees make honey inside their hive",
    "whales": "whales sing below dark ocean waves",
    "trains": "trains run along rails between towns",
}


def passages(each=30):
    draws = np.random.default_rng(0)
    return [
        Passage(f"{topic}-{i}", " ".join([*draws.choice(words.split(), 4, replace=False), f"extra{i}"]), {"n": i})
        for topic, words in TOPICS.items()
        for i in range(each)
    ]


@pytest.fixture
def docs(manager):
    docs = manager.ensure("clusters", DirectionEncoder())
    docs.index(passages())
    return docs


def topics(found):
    """For each cluster, how many passages of each topic are in it."""
    counts = [Counter() for _ in found.clusters]
    for page in found.assigned():
        for name, number in zip(page.ids, page.numbers.tolist(), strict=True):
            counts[number][name.partition("-")[0]] += 1
    return counts


def test_the_number_of_planted_groups_is_found_and_each_is_named_by_its_words(docs):
    found = docs.cluster()
    assert [cluster.size for cluster in found.clusters] == [30, 30, 30] and found.total == found.sampled == 90
    assert max(found.tried, key=found.tried.get) == 3
    for cluster, counts in zip(found.clusters, topics(found), strict=True):
        ((topic, count),) = counts.items()
        assert count == 30
        assert set(cluster.name.split(", ")) <= set(TOPICS[topic].split())
        assert len(cluster.central) == 3 and all(name.startswith(topic) for name in cluster.central)


def test_the_same_seed_gives_the_same_clusters_and_a_given_number_is_kept(docs):
    first, second = docs.cluster(7, seed=3), docs.cluster(7, seed=3)
    assert first.as_row() == second.as_row() and len(first.clusters) == 7
    assert sum(cluster.size for cluster in first.clusters) == 90


def test_a_sample_says_where_the_clusters_lie_and_all_passages_go_there(docs):
    from qdrant_tools.vectors import cluster

    found = cluster(docs, 3, sample=30)
    assert (found.sampled, found.total) == (30, 90)
    assert all(len(counts) == 1 for counts in topics(found))


def test_written_names_are_metadata_that_a_filter_finds_and_that_change_nothing_for_who_indexes_again(docs):
    found = docs.cluster(3)
    assert found.write("topic") == 90
    name = found.clusters[0].name
    hits = docs.search("bees honey", k=90, filter={"topic": name})
    assert len(hits) == 30 and {hit.metadata["topic"] for hit in hits} == {name}
    assert all("n" in hit.metadata for hit in hits)
    report = docs.index(passages())
    assert (report.unchanged, report.added, report.updated, report.refreshed) == (90, 0, 0, 0)
    assert docs.fetch(["bees-0"])["bees-0"].metadata["topic"]
    assert found.write("topic") == 90, "and may be written again"


def test_a_name_stays_when_only_metadata_change_and_goes_with_a_text_that_changes(docs):
    docs.cluster(3).write("topic")
    label = docs.fetch(["bees-0"])["bees-0"].metadata["topic"]
    own = {passage.id: passage for passage in passages()}
    report = docs.index([Passage("bees-0", own["bees-0"].text, {"n": 99}), Passage("bees-1", "another text")])
    assert (report.refreshed, report.updated) == (1, 1)
    stored = docs.fetch(["bees-0", "bees-1"])
    assert dict(stored["bees-0"].metadata) == {"n": 99, "topic": label}
    assert dict(stored["bees-1"].metadata) == {}
    again = docs.index([Passage("bees-0", own["bees-0"].text, {"n": 99})])
    assert again.unchanged == 1


def test_a_document_that_gets_such_a_field_of_its_own_keeps_its_own(docs):
    docs.cluster(3).write("topic")
    text = docs.fetch(["bees-0"])["bees-0"].text
    docs.index([Passage("bees-0", text, {"topic": "mine"})])
    assert dict(docs.fetch(["bees-0"])["bees-0"].metadata) == {"topic": "mine"}


def test_a_field_of_the_documents_is_never_written_over(docs):
    found = docs.cluster(3)
    with pytest.raises(InputError, match="field 'n' of their own"):
        found.write("n")
    with pytest.raises(InputError, match="field is ''"):
        found.write("")


def test_two_fields_stand_side_by_side(docs):
    docs.cluster(2).write("coarse")
    docs.cluster(6).write("fine")
    own = {passage.id: passage for passage in passages()}
    docs.index([Passage("bees-0", own["bees-0"].text, {"n": 1})])
    assert set(docs.fetch(["bees-0"])["bees-0"].metadata) == {"n", "coarse", "fine"}


def test_too_few_vectors_and_odd_numbers_are_refused(manager):
    docs = manager.ensure("few", DirectionEncoder())
    docs.index(["one", "two"])
    with pytest.raises(InputError, match="holds 2 vectors, expected at least 4"):
        docs.cluster()
    with pytest.raises(InputError, match="count is 1"):
        docs.cluster(1)


def test_equal_vectors_make_no_more_clusters_than_there_are(manager):
    docs = manager.ensure("equal", DirectionEncoder())
    docs.index(Passage(f"p{i}", f"text{i % 2}") for i in range(8))
    assert [cluster.size for cluster in docs.cluster(5).clusters] == [4, 4]
    assert len({cluster.name for cluster in docs.cluster(5).clusters}) == 2


def test_kmeans_is_as_good_as_scikit_learns_on_unit_vectors():
    from sklearn.cluster import KMeans

    draws = np.random.default_rng(1)
    rows = unit_rows(draws.normal(size=(5, 16))[draws.integers(5, size=400)] + draws.normal(scale=0.5, size=(400, 16)))
    centres, numbers = kmeans(rows, 5)
    theirs = KMeans(5, n_init=4, random_state=0).fit(rows)
    ours = float(nearest(rows, centres)[1].mean())
    assert ours >= float(nearest(rows, unit_rows(theirs.cluster_centers_))[1].mean()) - 0.002
    assert np.bincount(numbers).min() > 0


def test_the_silhouette_is_the_mean_of_its_definition():
    rows = unit_rows(np.random.default_rng(2).normal(size=(50, 8)))
    centres, numbers = kmeans(rows, 4)
    distances = 1 - rows.astype(np.float64) @ centres.T
    expected = []
    for row, own in zip(distances, numbers, strict=True):
        a, b = row[own], np.delete(row, own).min()
        expected.append((b - a) / max(a, b))
    assert silhouette(rows, centres) == pytest.approx(np.mean(expected), abs=1e-5)


def test_numbers_of_clusters_reach_the_square_root():
    assert counts_to_try(16, 32) == [2, 3, 4]
    assert counts_to_try(10**6, 32)[-1] == 32
    assert counts_to_try(4, 32) == [2]
