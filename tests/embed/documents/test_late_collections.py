"""Late chunking in collections: a passage's vector follows its window, and nobody gets another one unnoticed."""

from __future__ import annotations

import numpy as np
import pytest
from models import save_model

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.encoders.late import with_late_chunking
from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import NotSupportedError, SpaceMismatchError
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.records import Passage
from qdrant_tools.search.adapters import unfitted
from qdrant_tools.sources.windows import LATE_WINDOW

SENTENCES = [
    "the cat sleeps under the tree .",
    "a dog runs fast over the stone .",
    "what is the river ?",
    "the blue bird is in the tree .",
    "one slow dog and two red birds .",
    "not all stone is red .",
    "the river runs under the stone .",
    "a search for one document .",
]


class Counting:
    """An encoder that says how many passages it read."""

    def __init__(self, base):
        self.base, self.read, self.late = base, 0, base.late
        self.space, self.dimension = base.space, base.dimension
        self.windows, self.encode_queries = base.windows, base.encode_queries
        self.encode_passages = base.encode_passages

    def encode_windows(self, windows):
        self.read += sum(map(len, windows))
        return self.base.encode_windows(windows)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late") / "model"
    save_model(folder)
    return open_encoder(folder, device="cpu")


@pytest.fixture
def late(plain):
    return Counting(with_late_chunking(plain))


@pytest.fixture
def manager(tmp_path):
    with_client = connect(tmp_path / "collections", create=True)
    yield CollectionManager(with_client)
    with_client.close()


def document(name: str, texts, **metadata) -> list[Passage]:
    return [
        Passage(f"{name}#{text[:12]}-{part}", text, {"document": name, "part": part, **metadata})
        for part, text in enumerate(texts)
    ]


def vectors_of(collection) -> dict[str, np.ndarray]:
    pages = collection.gateway.pages(batch_size=100, with_payload=["passage_id"], with_vectors=True)
    return {record.payload["passage_id"]: np.asarray(record.vector, np.float32) for page in pages for record in page}


def expected(encoder, documents) -> dict[str, np.ndarray]:
    found = {}
    for passages in documents:
        rows = encoder.base.encode_windows(list(encoder.base.windows([passage.text for passage in passages])))
        found |= {passage.id: row for passage, row in zip(passages, rows, strict=True)}
    return found


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, row in wanted.items():
        np.testing.assert_allclose(found[name], row, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_every_passage_has_the_vector_of_its_window_and_again_nothing_is_read(manager, late, batch_size):
    documents = [document("a", SENTENCES), document("b", SENTENCES[:1]), document("c", SENTENCES[::-1])]
    stream = [passage for passages in documents for passage in passages]
    docs = manager.ensure("docs", late)

    report = docs.index(stream, batch_size=batch_size)

    assert report.added == len(stream) == late.read
    assert_same(vectors_of(docs), expected(late, documents))
    again = docs.index(stream, batch_size=256)
    assert again.unchanged == len(stream) and late.read == len(stream)


def test_an_edit_reads_its_window_again_and_no_other(manager, late):
    texts = [f"{SENTENCES[number % 8]} {SENTENCES[(number // 8) % 8]}" for number in range(40)]
    before = document("a", texts)
    docs = manager.ensure("docs", late)
    docs.index(before)
    late.read = 0
    changed = [*before[:20], Passage("a#new", "the fast cat is not red .", {"document": "a", "part": 20}), *before[20:]]

    report = docs.index(changed)

    assert report.added == 1 and 1 <= report.updated <= 8
    assert late.read == report.added + report.updated
    assert_same(vectors_of(docs), expected(late, [changed]))


def test_the_same_text_with_another_neighbour_gets_another_vector(manager, late):
    docs = manager.ensure("docs", late)
    docs.index(document("a", ["the cat sleeps .", "a dog runs ."]))
    before = vectors_of(docs)

    report = docs.index(document("a", ["the cat sleeps .", "a bird runs ."])[:1] + document("a", ["x", "a bird ."])[1:])

    assert (report.added, report.updated) == (1, 1)
    after = vectors_of(docs)
    first = "a#the cat slee-0"
    assert np.abs(after[first] - before[first]).max() > 1e-4


def test_where_only_metadata_changed_the_vector_is_kept(manager, late):
    docs = manager.ensure("docs", late)
    docs.index(document("a", SENTENCES[:3]))
    late.read = 0

    report = docs.index(document("a", SENTENCES[:3], owner="x"))

    assert report.refreshed == 3 and late.read == 0
    (hit,) = docs.search(SENTENCES[0], k=1)
    assert hit.metadata["owner"] == "x" and LATE_WINDOW in hit.metadata


def test_an_interrupted_run_goes_on_and_ends_like_one_that_was_not(manager, late):
    documents = [document(name, SENTENCES) for name in "abcd"]
    stream = [passage for passages in documents for passage in passages]

    def dies():
        yield from stream[:19]
        raise KeyboardInterrupt

    docs = manager.ensure("docs", late)
    with pytest.raises(KeyboardInterrupt):
        docs.index(dies(), batch_size=4)
    docs.index(stream, batch_size=4)

    assert_same(vectors_of(docs), expected(late, documents))


def test_bad_passages_are_counted_and_are_in_no_window(manager, late):
    good = document("a", SENTENCES[:4])
    docs = manager.ensure("docs", late)

    report = docs.index([good[0], Passage("", "no id"), good[1], {"id": "x"}, *good[2:]], on_bad="count")

    assert (report.added, report.failed) == (4, 2)
    assert_same(vectors_of(docs), expected(late, [good]))


def test_what_has_no_document_is_read_alone(manager, late, plain):
    docs = manager.ensure("docs", late)
    docs.index(SENTENCES[:3])
    found = np.stack(list(vectors_of(docs).values()))
    wanted = plain.encode_passages(SENTENCES[:3])
    assert sorted(np.round(found.sum(1), 4)) == sorted(np.round(wanted.sum(1), 4))


def test_a_collection_is_filled_with_late_chunking_or_without(manager, late, plain):
    manager.ensure("late", late).index(document("a", SENTENCES[:3]))
    manager.ensure("plain", plain).index(document("a", SENTENCES[:3]))

    with pytest.raises(SpaceMismatchError):
        manager.open("late", plain)
    with pytest.raises(SpaceMismatchError):
        manager.open("plain", late)


def test_a_query_adapter_does_not_keep_passages_from_being_read_with_others(manager, late):
    adapted = AdaptedEncoder(late.base, QueryAdapter(unfitted("full", 32, width=4, seed=0), late.space))
    documents = [document("a", SENTENCES)]
    docs = manager.ensure("docs", adapted)

    docs.index(documents[0])

    assert_same(vectors_of(docs), expected(late, documents))


def test_a_promotion_to_late_chunking_is_refused_and_one_away_from_it_is_not(manager, late, plain, tmp_path):
    docs = manager.ensure("plain", plain)
    docs.index(document("a", SENTENCES))
    manager.switch_alias("serving", "plain")
    with pytest.raises(NotSupportedError, match="index the documents into a new collection and switch the alias"):
        Promotion(manager, "serving", late)
    assert manager.names() == ["plain"]

    manager.ensure("late", late).index(document("a", SENTENCES))
    manager.switch_alias("away", "late")
    promotion = Promotion(manager, "away", plain)
    promotion.build()
    promotion.switch(force=True)
    away = manager.open("away", plain)
    assert_same(
        vectors_of(away),
        dict(zip([p.id for p in document("a", SENTENCES)], plain.encode_passages(SENTENCES), strict=True)),
    )
