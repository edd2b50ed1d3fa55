"""Collections that others filled are read, and adopted by the encoder that filled them and by no other."""

from __future__ import annotations

import uuid

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import models
from tiny import WordEncoder, numbered

from qdrant_tools.collections.copying import INCOMPLETE
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import LANGCHAIN, LLAMA_INDEX, OURS, Layout, detect
from qdrant_tools.collections.points import fetch, stored_vectors
from qdrant_tools.errors import CollectionError, InputError, SpaceMismatchError, VectorError
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.records import Label
from qdrant_tools.search.dense import search

TEXTS = [f"passage number {i} about topic{i % 5} and thing{i}" for i in range(40)]
IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, str(i))) for i in range(40)]


@pytest.fixture
def encoder():
    return WordEncoder(dimension=256)


def fill(client, encoder, payload_of, *, name="foreign", vector="", texts=TEXTS, distance=models.Distance.COSINE):
    """What a plain client writes; `payload_of` makes the payload of a number."""
    params = models.VectorParams(size=encoder.dimension, distance=distance)
    client.create_collection(name, vectors_config={vector: params} if vector else params)
    rows = encoder.encode_queries(texts).tolist()
    points = [
        models.PointStruct(id=IDS[i], vector={vector: row} if vector else row, payload=payload_of(i))
        for i, row in enumerate(rows)
    ]
    client.upsert(name, points, wait=True)
    return CollectionManager(client)


def langchain(i):
    return {"page_content": TEXTS[i], "metadata": {"topic": i % 5}}


def plain(i):
    return {"content": TEXTS[i], "topic": i % 5, "url": f"https://example.org/{i}"}


@pytest.mark.parametrize(
    ("payload_of", "vector", "layout"), [(langchain, "", "langchain"), (plain, "", "plain"), (plain, "dense", "plain")]
)
def test_an_adopted_collection_is_searched_filtered_and_mined_like_our_own(client, encoder, payload_of, vector, layout):
    manager = fill(client, encoder, payload_of, vector=vector)
    assert manager.describe("foreign").space is None
    collection = manager.adopt("foreign", encoder)
    assert collection == manager.open("foreign", encoder) and collection.layout.name == layout
    (first, *_) = search(collection, "thing17", encoder, k=3, filter={"topic": 2})
    assert (first.id, first.text, first.metadata["topic"]) == (IDS[17], TEXTS[17], 2)
    assert fetch(collection, [IDS[3], "no such point"])[IDS[3]].text == TEXTS[3]
    ids = [passage_id for ids, _ in stored_vectors(collection, batch_size=16) for passage_id in ids]
    assert sorted(ids) == sorted(IDS)
    settings = MiningSettings(filter={"topic": [1, 2]}, negatives=3)
    (example,) = mine(collection, [Label("passage about topic2 thing7", IDS[7])], encoder, settings=settings).examples
    assert example.positives[0].text == TEXTS[7] and len(example.negatives) == 3
    assert all("topic1" in n.text or "topic2" in n.text for n in example.negatives)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize("metadata", [{}, {"file": "notes.txt", "page": 3}])
def test_a_collection_of_llama_index_is_read_with_the_text_that_it_embedded(client, encoder, metadata):
    nodes = [
        TextNode(
            text=text,
            id_=node_id,
            metadata=metadata,
            excluded_embed_metadata_keys=["page"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc{i % 4}")},
        )
        for i, (text, node_id) in enumerate(zip(TEXTS, IDS))
    ]
    for node, row in zip(nodes, encoder.encode_queries([node.get_content("embed") for node in nodes]).tolist()):
        node.embedding = row
    QdrantVectorStore(collection_name="nodes", client=client).add(nodes)
    collection = CollectionManager(client).adopt("nodes", encoder)
    assert collection.layout.name == "llama-index"
    hit = search(collection, TEXTS[5], encoder, k=1)[0]
    assert hit.id == IDS[5] and hit.text == nodes[5].get_content("embed")
    assert hit.metadata == {**metadata, "doc_id": "doc1"}
    settings = MiningSettings(document_key="doc_id", max_share=None, negatives=40)
    (example,) = mine(collection, [Label("passage", IDS[5])], encoder, settings=settings).examples
    assert len(example.negatives) == 30, "the other nine parts of doc1 are left out"


def test_a_node_text_without_its_metadata_is_found_to_be_what_was_embedded(client, encoder):
    node = TextNode(text="x", metadata={"file": "notes.txt"})

    def payload_of(i):
        node.text = TEXTS[i]
        return {"_node_content": node.model_dump_json(), "_node_type": "TextNode", "file": "notes.txt"}

    collection = fill(client, encoder, payload_of).adopt("foreign", encoder)
    assert not collection.layout.embedded_metadata
    assert search(collection, TEXTS[5], encoder, k=1)[0].text == TEXTS[5]


def test_another_encoder_is_refused_with_what_was_measured(client, encoder):
    manager = fill(client, encoder, plain)

    class Other(WordEncoder):
        def encode_queries(self, texts):
            return super().encode_queries([text[::-1] for text in texts])

    with pytest.raises(SpaceMismatchError, match=r"was not filled by 'other@.*0% of 32 .*median cosine 0\.\d+"):
        manager.adopt("foreign", Other("other", dimension=256))
    with pytest.raises(CollectionError, match="does not say which encoder"):
        manager.open("foreign")


def test_a_collection_filled_half_by_another_encoder_is_refused(client, encoder):
    wrong = [text if i % 2 else text[::-1] for i, text in enumerate(TEXTS)]
    manager = fill(client, encoder, plain, texts=wrong)
    with pytest.raises(SpaceMismatchError, match="was not filled by"):
        manager.adopt("foreign", encoder)


def test_a_few_edited_texts_do_not_matter(client, encoder):
    edited = [text + " since edited" if i == 3 else text for i, text in enumerate(TEXTS)]
    assert fill(client, encoder, plain, texts=edited).adopt("foreign", encoder).space == encoder.space


def test_the_dimension_and_the_vector_must_be_clear(client, encoder):
    manager = fill(client, encoder, plain, vector="dense")
    with pytest.raises(VectorError, match="no 32-dimensional vector; its vectors: 'dense': 256"):
        manager.adopt("foreign", WordEncoder(dimension=32))
    params = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection("two", vectors_config={"title": params, "body": params})
    client.upsert(
        "two",
        [
            models.PointStruct(
                id=1,
                vector={"title": [1.0] * 256, "body": encoder.encode_queries(TEXTS[:1])[0].tolist()},
                payload=plain(0),
            )
        ],
    )
    with pytest.raises(CollectionError, match="several 256-dimensional vectors .*title.*give a Layout"):
        manager.adopt("two", encoder)
    by_hand = Layout("plain", "body", id="url", text="content", metadata="")
    collection = manager.adopt("two", encoder, layout=by_hand)
    assert search(collection, TEXTS[0], encoder)[0].id == "https://example.org/0"
    assert fetch(collection, ["https://example.org/0"], with_vectors=True)["https://example.org/0"].point_id == 1


def test_distances_that_are_no_similarities_are_refused(client, encoder):
    manager = fill(client, encoder, plain, distance=models.Distance.EUCLID)
    with pytest.raises(CollectionError, match="compares by Euclid"):
        manager.adopt("foreign", encoder)


def test_what_cannot_be_adopted_says_why(client, encoder):
    manager = CollectionManager(client)
    manager.ensure("ours", encoder)
    with pytest.raises(CollectionError, match="already says which encoder"):
        manager.adopt("ours", encoder)
    params = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection("unfinished", vectors_config=params, metadata={INCOMPLETE: {"of": "ours"}})
    with pytest.raises(CollectionError, match="a copy that was interrupted"):
        manager.adopt("unfinished", encoder)
    for wrong in ("64", None, 3.5):
        with pytest.raises(InputError, match="encoder is .*, expected an encoder"):
            manager.adopt("ours", wrong)
    fill(client, encoder, lambda i: {"number": i, "code": f"x{i}"}, name="numbers")
    with pytest.raises(CollectionError, match="none of the payload fields .code, number. looks like a text"):
        manager.adopt("numbers", encoder)
    with pytest.raises(CollectionError, match="has a text in 'body'"):
        manager.adopt("numbers", encoder, layout=Layout("plain", id="", text="body", metadata=""))
    with pytest.raises(InputError, match="samples is 0"):
        manager.adopt("numbers", encoder, layout=Layout(id="", text="code"), samples=0)


@pytest.mark.parametrize("vector", ["", "dense"])
def test_an_empty_collection_that_was_made_by_hand_is_adopted_and_filled(client, encoder, vector):
    params = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection("byhand", vectors_config={vector: params} if vector else params)
    manager = CollectionManager(client)
    with pytest.raises(CollectionError, match="adopt it .*if it is empty"):
        manager.ensure("byhand", encoder)
    with pytest.raises(VectorError, match="no 32-dimensional vector"):
        manager.adopt("byhand", WordEncoder(dimension=32))
    collection = manager.adopt("byhand", encoder)
    index_passages(collection, numbered(5), encoder)
    assert manager.ensure("byhand", encoder) == collection
    assert search(collection, "thing3", encoder, k=1)[0].id == "p3"


def test_an_adopted_collection_is_not_filled_by_us(client, encoder):
    collection = fill(client, encoder, plain).adopt("foreign", encoder)
    with pytest.raises(CollectionError, match="has the layout of 'plain'"):
        index_passages(collection, numbered(1), encoder)


def test_describe_shows_what_was_detected(client, encoder):
    manager = fill(client, encoder, plain, vector="dense")
    described = manager.describe("foreign")
    assert described.layout.text == "content" and described.vectors == ("dense",) and described.status == "green"
    manager.ensure("ours", encoder)
    assert manager.describe("ours").layout == OURS and manager.describe("ours").vectors == ("",)


def test_settings_of_an_adopted_collection_can_be_changed(client, encoder):
    from qdrant_tools.collections.settings import CollectionSettings

    manager = fill(client, encoder, plain)
    layout = manager.adopt("foreign", encoder).layout
    settings = CollectionSettings(hnsw_ef=33)
    assert manager.difference("foreign", settings)["hnsw_ef"] == (128, 33)
    assert manager.ensure("foreign", encoder, settings=settings).hnsw_ef == 33
    assert manager.open("foreign").layout == layout, "the layout is kept"


@pytest.mark.parametrize(
    ("payload", "name", "text"),
    [
        ({"passage_id": "a", "text": "t", "metadata": {}, "content_hash": "x"}, "embed-plus", "text"),
        ({"_node_content": "{}", "doc_id": "d"}, "llama-index", "_node_content"),
        ({"page_content": "t", "metadata": None}, "langchain", "page_content"),
        ({"id": 3, "text": "t"}, "plain", "text"),
        ({"title": "three short words", "summary": "a much longer text of many words"}, "plain", "summary"),
    ],
)
def test_layouts_are_told_by_their_payloads(payload, name, text):
    found = detect([payload] * 3)
    assert (found.name, found.text) == (name, text)
    assert Layout.from_row(found.as_row()) == found


def test_a_payload_that_does_not_fit_its_layout_has_no_text():
    for layout in (OURS, LANGCHAIN, LLAMA_INDEX):
        for payload in (None, {}, {"text": 5, "_node_content": "{", "page_content": None, "metadata": 3}):
            passage = layout.passage(payload, point_id="p")
            assert passage.id == "p" and passage.text == ""
    broken = {"_node_content": '{"text": "t", "metadata": {"a": 1}, "metadata_template": "{other}"}'}
    assert LLAMA_INDEX.passage(broken, point_id="p").text == "t"
