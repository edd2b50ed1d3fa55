"""The encoder of a collection is changed inside the collection: new vectors beside the old ones, then one switch."""

from __future__ import annotations

import numpy as np
import pytest
from httpx import Headers
from promoted import NEW, OLD, THING17, promote_and_die
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect, engine_of
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import MADE_OF_TEXT
from qdrant_tools.collections.points import fetch, point_id, stored_vectors
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import (
    CollectionError,
    CollectionExistsError,
    NotSupportedError,
    SpaceMismatchError,
    UsageError,
)
from qdrant_tools.indexing import IndexReport, content_hash, index_passages
from qdrant_tools.promotion.plan import DiskNeed, vector_name
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.promotion.switch import cleanup, rollback
from qdrant_tools.promotion.verify import Gates
from qdrant_tools.records import HeldOut, Passage, Query
from qdrant_tools.search.dense import search
from qdrant_tools.search.hybrid import search_hybrid

VECTOR = vector_name(NEW.space)


@pytest.fixture
def promotion(manager):
    return Promotion(manager, "docs", NEW, in_place=True)


def vectors(manager):
    return set(manager.describe("docs-1").vectors)


def test_the_plan_says_what_both_ways_take_and_changes_nothing(manager, promotion):
    plan = promotion.plan()
    assert (plan.source, plan.target, plan.kind, plan.vector) == ("docs-1", "docs-1", "in-place", VECTOR)
    assert plan.disk.in_place == 120 * 384 * 4 <= plan.disk.beside
    assert Promotion(manager, "docs", NEW).plan().disk.beside == plan.disk.beside
    assert vectors(manager) == {""}


def test_a_second_collection_that_does_not_fit_is_no_offer():
    assert DiskNeed(beside=10, in_place=4, free=9).scarce
    assert not DiskNeed(beside=10, in_place=4, free=10).scarce
    assert not DiskNeed(beside=10, in_place=4, free=None).scarce, "a server does not tell"


def test_a_whole_promotion_in_one_collection(manager, promotion):
    seen: list[int] = []
    report = promotion.build(batch_size=50, progress=seen.append)
    assert (report.target, report.written, report.complete, sum(seen)) == ("docs-1", 120, True, 120)
    assert search(manager.open("docs", OLD), THING17, OLD)[0].id == "p17", "the old vectors serve until the switch"
    held_out = HeldOut((Query("q", THING17),), {"q": {"p17": 1}})
    verification = promotion.verify(held_out=held_out, before=OLD)
    assert verification.passed and verification.points == 120 and len(verification.checks) == 4
    promotion.switch()
    serving = manager.open("docs", NEW)
    assert (serving.name, serving.layout.vector, serving.hnsw_ef) == ("docs-1", VECTOR, 99)
    assert search(serving, THING17, NEW)[0].id == "p17"
    assert search_hybrid(serving, [THING17], NEW)[0][0].id == "p17"
    expected = NEW.encode_queries([numbered(1)[0].text])[0]
    np.testing.assert_allclose(fetch(serving, ["p0"], with_vectors=True)["p0"].vector, expected, atol=1e-6)
    assert promotion.plan().kind == "nothing" and promotion.switch().differences == 0
    assert cleanup(manager, "docs") == ["docs-1 (vector '')"]
    unnamed = models.Filter(must=[models.HasVectorCondition(has_vector="")])
    if engine_of(manager.client) == "server":  # over HTTP an empty place stays in the configuration
        assert manager.client.count("docs-1", count_filter=unnamed).count == 0
    else:
        assert vectors(manager) == {VECTOR}
    assert cleanup(manager, "docs") == [], "once is enough"
    assert search(manager.open("docs", NEW), THING17, NEW)[0].id == "p17"
    assert manager.describe("docs").dimension == 384


def test_another_encoder_can_follow_and_the_first_come_back(manager, promotion):
    for encoder in (NEW, OLD, NEW):
        step = Promotion(manager, "docs", encoder, in_place=True)
        step.build()
        assert step.verify(Gates(samples=10)).passed
        step.switch()
        cleanup(manager, "docs")
        assert search(manager.open("docs", encoder), THING17, encoder)[0].id == "p17"
    beside = Promotion(manager, "docs", OLD)
    beside.build()
    beside.verify(Gates(samples=10))
    beside.switch()
    assert search(manager.open("docs", OLD), THING17, OLD)[0].id == "p17"


def test_a_collection_is_promoted_under_its_own_name_too(manager):
    promotion = Promotion(manager, "docs-1", NEW, in_place=True)
    promotion.build()
    again = Promotion(manager, "docs-1", NEW)
    assert again.plan().kind == "in-place", "what was begun in place goes on in place"
    again.verify()
    again.switch()
    rollback(manager, "docs-1", encoder=OLD)
    assert manager.open("docs-1").space == OLD.space
    assert cleanup(manager, "docs-1") == [f"docs-1 (vector {VECTOR!r})"] and vectors(manager) == {""}


def test_what_is_written_meanwhile_gets_its_vector(manager, promotion):
    promotion.build()
    old = manager.open("docs", OLD)
    index_passages(old, [Passage("p3", "rewritten meanwhile"), Passage("fresh", "a fresh passage")], OLD)
    assert promotion.build().written == 2, "a changed point has lost its new vector"
    promotion.verify()
    index_passages(old, [Passage("last", "written after verify")], OLD)
    assert promotion.switch().written == 1
    serving = manager.open("docs", NEW)
    for query, wanted in (("rewritten meanwhile", "p3"), ("fresh", "fresh"), ("written after verify", "last")):
        assert search(serving, query, NEW)[0].id == wanted
    with pytest.raises(CollectionError, match=f"taken over by the encoder '{NEW.space}'"):
        index_passages(old, [Passage("late", "by a writer that knows the old encoder")], OLD)
    late = Passage("late", "by a writer that knows the old encoder")
    assert index_passages(serving, [late], NEW) == IndexReport(added=1), "stored before, and without the vector"
    assert search(serving, "knows the old encoder", NEW)[0].id == "late"
    assert index_passages(serving, [late], NEW) == IndexReport(unchanged=1)


def test_a_text_that_changes_while_it_is_embedded_gets_no_vector_of_the_old_text(manager, promotion):
    class Slow(WordEncoder):
        def encode_passages(self, texts):
            if not self.encoded:
                index_passages(manager.open("docs", OLD), [Passage("p3", "another text by now")], OLD)
                manager.client.delete("docs-1", [point_id("p4")], wait=True)
            return super().encode_passages(texts)

    slow = Slow("new", dimension=384)
    assert Promotion(manager, "docs", slow, in_place=True).build().complete
    assert slow.encoded.count("another text by now") == 1
    assert promotion.verify(Gates(samples=119)).passed
    promotion.switch()
    assert search(manager.open("docs", NEW), "another text by now", NEW)[0].id == "p3"


def rewrite(client, numbers, text, vector, encoder):
    """As an upsert ends on a server before 1.19 where the segment is indexed: other vectors stay as they were."""
    for number in numbers:
        passage = Passage(f"p{number}", text.format(number))
        payload = {
            "passage_id": passage.id,
            "text": passage.text,
            "metadata": {},
            "content_hash": content_hash(passage),
        }
        client.overwrite_payload("docs-1", payload, points=[point_id(passage.id)], wait=True)
        row = encoder.encode_queries([passage.text])[0].tolist()
        vectors = models.PointVectors(id=point_id(passage.id), vector={vector: row})
        client.update_vectors("docs-1", [vectors], wait=True)


def test_a_vector_of_a_former_text_never_serves_whoever_changed_the_text(manager, promotion, client):
    promotion.build()
    rewrite(client, range(5), "rewritten by others number{}", "", OLD)
    assert promotion.verify(Gates(samples=10)).failed[0] == "points without the new vector is 5, expected 0"
    assert promotion.build().written == 5 and promotion.verify(Gates(samples=120)).passed
    rewrite(client, range(5, 10), "rewritten by others number{}", "", OLD)
    assert promotion.switch().written == 5
    serving = manager.open("docs", NEW)
    found = [search(serving, f"rewritten by others number{number}", NEW)[0].id for number in range(10)]
    assert found == [f"p{number}" for number in range(10)]
    changed = [Passage(f"p{number}", f"rewritten by others number{number}") for number in range(10)]
    assert index_passages(serving, changed, NEW) == IndexReport(unchanged=10)


def test_what_a_writer_of_the_old_vector_left_after_the_switch_is_embedded_when_it_is_indexed_again(
    manager, promotion, client
):
    promotion.build()
    promotion.verify()
    promotion.switch()
    rewrite(client, [7], "rewritten late number{}", "", OLD)
    serving = manager.open("docs", NEW)
    late = [Passage("p7", "rewritten late number7")]
    assert index_passages(serving, late, NEW) == IndexReport(added=1)
    assert search(serving, "rewritten late number7", NEW)[0].id == "p7"
    assert index_passages(serving, late, NEW) == IndexReport(unchanged=1)


def test_rolling_back_serves_no_vector_of_a_former_text(manager, promotion, client):
    promotion.build()
    promotion.verify()
    promotion.switch()
    rewrite(client, range(3), "rewritten since number{}", VECTOR, NEW)
    with pytest.raises(CollectionError, match=f"3 points of 'docs-1' have no vector of '{OLD.space}'"):
        rollback(manager, "docs")
    assert rollback(manager, "docs", encoder=OLD).written == 3
    serving = manager.open("docs", OLD)
    assert [search(serving, f"rewritten since number{n}", OLD)[0].id for n in range(3)] == ["p0", "p1", "p2"]


def test_a_text_that_is_changed_in_a_payload_that_is_written_back_is_found_before_the_switch(
    manager, promotion, client
):
    promotion.build()
    client.set_payload("docs-1", {"text": "another text by hand"}, points=[point_id("p9")], wait=True)
    failed = promotion.verify(Gates(samples=10)).failed
    assert failed[0] == "points whose text has changed since is 1, expected 0"
    assert promotion.build().written == 1 and promotion.verify(Gates(samples=10)).passed
    promotion.switch()
    assert search(manager.open("docs", NEW), "another text by hand", NEW)[0].id == "p9"


def test_rolling_back_embeds_what_was_written_since(manager, promotion):
    promotion.build()
    promotion.verify()
    promotion.switch()
    index_passages(manager.open("docs", NEW), [Passage("since", "written since then")], NEW)
    with pytest.raises(CollectionError, match=f"1 points of 'docs-1' have no vector of '{OLD.space}'"):
        rollback(manager, "docs")
    with pytest.raises(SpaceMismatchError):
        rollback(manager, "docs", encoder=NEW)
    assert rollback(manager, "docs", encoder=OLD).written == 1
    assert search(manager.open("docs", OLD), "written since then", OLD)[0].id == "since"
    with pytest.raises(CollectionError, match="was not switched"):
        rollback(manager, "docs", encoder=OLD)
    assert promotion.build().complete and promotion.verify().passed
    promotion.switch()
    rollback(manager, "docs", force=True)
    assert manager.open("docs").space == OLD.space


def test_nothing_is_switched_that_was_not_built_and_verified(manager, promotion):
    for step in (promotion.verify, promotion.switch):
        with pytest.raises(CollectionError, match=f"vector '{VECTOR}' of collection 'docs-1' is not built yet"):
            step()
    promotion.build()
    with pytest.raises(CollectionError, match="has not passed verify"):
        promotion.switch()
    promotion.switch(force=True)
    assert manager.open("docs").space == NEW.space


def test_verify_finds_points_without_and_with_wrong_vectors(manager, promotion, client):
    promotion.build()
    client.delete_vectors("docs-1", [VECTOR], [point_id("p3")], wait=True)
    wrong = models.PointVectors(id=point_id("p4"), vector={VECTOR: NEW.encode_queries(["nonsense"])[0].tolist()})
    client.update_vectors("docs-1", [wrong], wait=True)
    verification = promotion.verify(Gates(samples=120))
    assert {check.name for check in verification.checks if not check.passed} == {
        "points without the new vector",
        "cosine of sampled vectors",
    }


def test_one_promotion_at_a_time(manager, promotion):
    promotion.build()
    third = WordEncoder("third", dimension=64)
    for other in (Promotion(manager, "docs", third), Promotion(manager, "docs", third, in_place=True)):
        with pytest.raises(CollectionError, match="is in another promotion of 'docs'.*cleanup"):
            other.plan()
    cleanup(manager, "docs")
    assert Promotion(manager, "docs", third).plan().kind == "re-embed"
    with pytest.raises(UsageError, match="target is 'elsewhere'"):
        Promotion(manager, "docs", third, in_place=True, target="elsewhere")


def test_a_vector_of_somebody_else_is_not_touched(manager, promotion, client):
    dense = models.DenseVectorConfig(size=384, distance=models.Distance.COSINE)
    client.create_vector_name("docs-1", VECTOR, models.DenseVectorNameConfig(dense=dense))
    with pytest.raises(CollectionExistsError, match="not part of this promotion"):
        promotion.build()


def test_a_server_that_is_too_old_says_so(manager, promotion, monkeypatch):
    def unknown(*args, **kwargs):
        raise UnexpectedResponse(404, "Not Found", b"", Headers())

    monkeypatch.setattr(manager.client, "create_vector_name", unknown)
    with pytest.raises(NotSupportedError, match=r"Qdrant 1\.18 and newer can"):
        promotion.build()
    cleanup(manager, "docs")
    assert Promotion(manager, "docs", NEW).build().written == 120


def test_what_another_program_wrote_keeps_its_payloads(client):
    manager = CollectionManager(client)
    params = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection("theirs", {"text-dense": params})
    rows = OLD.encode_queries([passage.text for passage in numbered(30)]).tolist()
    payloads = [{"page_content": passage.text, "metadata": {"n": i}} for i, passage in enumerate(numbered(30))]
    points = [
        models.PointStruct(id=i, vector={"text-dense": row}, payload=payload)
        for i, (row, payload) in enumerate(zip(rows, payloads, strict=True))
    ]
    client.upsert("theirs", points, wait=True)
    manager.adopt("theirs", OLD)
    promotion = Promotion(manager, "theirs", NEW, in_place=True)
    promotion.build()
    assert promotion.verify(Gates(samples=20)).passed
    promotion.switch()
    assert search(manager.open("theirs", NEW), THING17, NEW)[0].metadata == {"n": 17}
    stored = [record.payload or {} for record in client.scroll("theirs", limit=100)[0]]
    assert all(payload.pop(MADE_OF_TEXT)["vectors"] == ["text-dense", VECTOR] for payload in stored)
    assert stored == payloads, "but for the note"


def test_the_index_of_a_quantized_collection_is_built_for_the_new_vector(tmp_path):
    client = connect(tmp_path / "qdrant")
    manager = CollectionManager(client)
    settings = CollectionSettings(quantization=Quantization("int8", oversampling=2.0), on_disk=True, datatype="float16")
    index_passages(manager.ensure("docs", OLD, settings=settings), numbered(800), OLD)
    promotion = Promotion(manager, "docs", NEW, in_place=True)
    promotion.build()
    assert promotion.verify(Gates(samples=50, recall=0.0)).passed, "how good the graph is does not matter here"
    promotion.switch()
    cleanup(manager, "docs")
    described = manager.describe("docs")
    assert described.indexed_vectors >= 800 and described.settings.quantization == settings.quantization
    assert described.settings.on_disk and described.settings.datatype == "float16"
    client.close()


class Refused(WordEncoder):
    refusal = "its training made it worse on the held-out queries"


@pytest.mark.parametrize("in_place", [False, True])
def test_an_encoder_that_its_training_refuses_is_promoted_by_force_only(manager, in_place):
    promotion = Promotion(manager, "docs", Refused("new", dimension=384), in_place=in_place)
    assert promotion.plan().refusal == Refused.refusal
    with pytest.raises(CollectionError, match="'docs' keeps its encoder: its training made it worse.*or force"):
        promotion.build()
    assert manager.names() == ["docs-1"] and vectors(manager) == {""}
    promotion.build(force=True)
    promotion.verify()
    with pytest.raises(CollectionError, match="keeps its encoder"):
        promotion.switch()
    promotion.switch(force=True)
    assert manager.open("docs").space == NEW.space


KILLS = [
    ("create_vector_name", "before", 1, OLD),
    ("create_vector_name", "after", 1, OLD),
    ("update_vectors", "after", 2, OLD),
    ("update_collection", "before", 1, OLD),  # built, not yet written down
    ("update_collection", "after", 3, OLD),  # the lock of the switch is taken
    ("update_collection", "before", 3, OLD),  # all but the switch itself
    ("update_collection", "after", 3, NEW),  # switched
    ("delete_vector_name", "after", 1, NEW),
]


def test_killed_at_any_step_the_collection_serves_and_the_next_run_goes_on(tmp_path):
    location = tmp_path / "qdrant"
    client = connect(location)
    manager = CollectionManager(client)
    index_passages(manager.ensure("docs-1", OLD), numbered(300), OLD)
    manager.switch_alias("docs", "docs-1")
    client.close()
    for method, moment, nth, serving in KILLS:
        promote_and_die(location, method, moment, nth, in_place=True)
        client = connect(location)
        collection = CollectionManager(client).open("docs", serving)
        assert client.count("docs").count == 300
        assert search(collection, THING17, serving, k=1)[0].id == "p17"
        assert sum(len(ids) for ids, _ in stored_vectors(collection)) == 300
        client.close()
    client = connect(location)
    manager = CollectionManager(client)
    assert cleanup(manager, "docs") == [] and vectors(manager) == {VECTOR}
    assert index_passages(manager.open("docs", NEW), numbered(300), NEW) == IndexReport(unchanged=300)
    client.close()
