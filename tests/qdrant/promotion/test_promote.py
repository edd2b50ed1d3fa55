"""The encoder of an alias is changed without a moment in which the alias serves nothing."""

from __future__ import annotations

import time

import numpy as np
import pytest
from promoted import NEW, OLD, THING17, promote_and_die
from qdrant_client import models
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.copying import copy_collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import fetch, stored_vectors
from qdrant_tools.collections.retirement import LOCK_SECONDS, mark_retired
from qdrant_tools.errors import CollectionError, CollectionExistsError, CollectionNotFoundError, UsageError
from qdrant_tools.indexing import IndexReport, index_passages
from qdrant_tools.promotion import switch
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.promotion.switch import cleanup, rollback
from qdrant_tools.promotion.sync import sync
from qdrant_tools.promotion.verify import Gates
from qdrant_tools.records import HeldOut, Passage, Query
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.dense import search
from qdrant_tools.search.fusion import Fusion

TARGET = f"docs-{NEW.space.partition('@')[2]}"


@pytest.fixture
def promotion(manager):
    return Promotion(manager, "docs", NEW)


def texts(collection):
    found = {}
    for ids, _ in stored_vectors(collection):
        found.update({each.id: each.text for each in fetch(collection, ids).values()})
    return found


def test_the_plan_says_what_will_be_done_and_changes_nothing(manager, promotion):
    plan = promotion.plan()
    assert (plan.source, plan.target, plan.kind) == ("docs-1", TARGET, "re-embed")
    assert (plan.from_space, plan.to_space, plan.points, plan.phase) == (OLD.space, NEW.space, 120, None)
    assert manager.names() == ["docs-1"]


def test_a_whole_promotion(manager, promotion):
    manager.open("docs").keep_fusion(Fusion(lexical_weight=2.0))
    seen: list[int] = []
    report = promotion.build(batch_size=50, progress=seen.append)
    assert (report.written, report.deleted, report.complete, report.passes) == (120, 0, True, 2)
    assert sum(seen) == 240, "two passes over everything"
    assert manager.open("docs").name == "docs-1", "the old collection serves until the switch"
    verification = promotion.verify()
    assert verification.passed and verification.points == 120
    promotion.switch()
    serving = manager.open("docs", NEW)
    assert serving.name == TARGET and serving.hnsw_ef == 99 and serving.lexical == Bm25()
    assert serving.fusion == Fusion(lexical_weight=2.0), "what was kept goes along"
    assert search(serving, "thing17", NEW)[0].id == "p17"
    expected = NEW.encode_queries([numbered(1)[0].text])[0]
    np.testing.assert_allclose(fetch(serving, ["p0"], with_vectors=True)["p0"].vector, expected, atol=1e-6)
    assert promotion.plan().kind == "nothing"
    assert promotion.switch().differences == 0, "switching again is no error"
    assert cleanup(manager, "docs") == ["docs-1"]
    assert manager.names() == [TARGET]


def test_what_is_written_meanwhile_is_carried_over(manager, promotion):
    old = manager.open("docs-1")

    def write_once(count):
        if "late" not in fetch(old, ["late"]):
            index_passages(old, [Passage("late", "a late passage"), Passage("p0", "changed text")], OLD)
            old.client.delete("docs-1", [fetch(old, ["p1"])["p1"].point_id] if fetch(old, ["p1"]) else [])

    promotion.build(batch_size=200, progress=write_once)
    promotion.verify()
    index_passages(old, [Passage("later", "a still later passage")], OLD)
    NEW.encoded.clear()
    carried = promotion.switch()
    assert (carried.written, carried.deleted) == (1, 0) and NEW.encoded == ["a still later passage"]
    assert texts(manager.open("docs")) == texts(old)
    assert {"late", "later"} <= texts(old).keys() and "p1" not in texts(old)


def test_a_writer_of_the_old_collection_is_told_to_open_the_alias_again(manager, promotion):
    old = manager.open("docs", OLD)
    promotion.build()
    promotion.verify()
    promotion.switch()
    with pytest.raises(CollectionError, match=f"replaced by '{TARGET}'.*open the alias again"):
        index_passages(old, [Passage("too late", "text")], OLD)
    assert index_passages(manager.open("docs", NEW), [Passage("too late", "text")], NEW).added == 1


def test_nothing_is_switched_that_was_not_built_and_verified(manager, promotion):
    with pytest.raises(CollectionError, match="not built yet"):
        promotion.verify()
    with pytest.raises(CollectionError, match="not built yet"):
        promotion.switch(force=True)
    promotion.build()
    with pytest.raises(CollectionError, match="has not passed verify"):
        promotion.switch()
    assert manager.open("docs").name == "docs-1"
    promotion.switch(force=True)
    assert manager.open("docs").name == TARGET


def test_verify_finds_vectors_of_another_encoder_and_points_that_are_missing(manager, promotion, client):
    promotion.build()
    wrong = np.eye(1, 384, dtype=np.float32)[0].tolist()
    some = fetch(manager.open(TARGET), [f"p{i}" for i in range(100)]).values()
    vectors = [models.PointVectors(id=each.point_id, vector={"": wrong}) for each in some]
    client.update_vectors(TARGET, vectors)
    # of 120 points 100 are equal by now: whichever ten of them a search returns, it has lost nothing
    verification = promotion.verify(Gates(samples=60, recall=1.0))
    assert [check.name for check in verification.checks if not check.passed] == ["cosine of sampled vectors"]
    with pytest.raises(CollectionError, match="cosine of sampled vectors is"):
        promotion.switch()
    client.delete(TARGET, [each.point_id for each in some])
    assert {"points", "differing points"} <= {check.name for check in promotion.verify().checks if not check.passed}


def test_held_out_queries_are_a_gate(manager, promotion):
    promotion.build()
    # each passage's own text: it alone has a cosine of 1, under both encoders, and nothing hangs on who wins a tie
    queries = tuple(Query(f"q{i}", numbered(20)[i].text) for i in range(20))
    held_out = HeldOut(queries, {f"q{i}": {f"p{i}": 1} for i in range(20)})
    verified = promotion.verify(held_out=held_out, before=OLD)
    assert verified.passed and [check.value for check in verified.checks if "nDCG" in check.name] == [1.0]
    better = promotion.verify(held_out=held_out, before=Backwards("old", dimension=256))
    assert better.passed, "better than what served before"
    worse = Promotion(manager, "docs", Backwards("worse", dimension=256))
    worse.build()
    assert [each.split(" ")[0] for each in worse.verify(held_out=held_out, before=OLD).failed] == ["nDCG@10"]
    assert worse.verify(Gates(max_drop=1.0), held_out=held_out, before=OLD).passed


class Backwards(WordEncoder):
    """An encoder whose queries mean something else."""

    def encode_queries(self, texts):
        return super().encode_queries([f"{text[::-1]} nothing" for text in texts])

    def encode_passages(self, texts):
        return WordEncoder.encode_queries(self, texts)


def test_rolling_back_is_one_step_and_carries_back_what_was_written_since(manager, promotion):
    promotion.build()
    promotion.verify()
    promotion.switch()
    index_passages(manager.open("docs", NEW), [Passage("new", "written since")], NEW)
    with pytest.raises(CollectionError, match="1 points .* written or deleted since .* give the encoder"):
        rollback(manager, "docs")
    assert rollback(manager, "docs", encoder=OLD).written == 1
    serving = manager.open("docs", OLD)
    assert serving.name == "docs-1" and fetch(serving, ["new"])["new"].text == "written since"
    assert index_passages(serving, [Passage("again", "writes go on")], OLD).added == 1
    again = promotion.build()
    assert again.written == 1, "and forward again, embedding only what is new"
    promotion.verify()
    promotion.switch()
    assert manager.open("docs", NEW).name == TARGET
    cleanup(manager, "docs")
    with pytest.raises(CollectionError, match="no way back"):
        rollback(manager, "docs")


def test_an_unfinished_promotion_can_be_given_up(manager, promotion):
    promotion.build()
    assert cleanup(manager, "docs") == [TARGET]
    assert manager.names() == ["docs-1"] and manager.open("docs", OLD)


def test_cleanup_drops_only_what_its_promotion_made_or_replaced(manager, promotion, tmp_path, caplog):
    promotion.build()
    promotion.verify()
    promotion.switch()
    there = CollectionManager(connect(tmp_path / "another"))
    there.ensure("docs-1", OLD)
    copy_collection(manager.client, TARGET, there.client, TARGET)
    there.switch_alias("docs", TARGET)
    assert cleanup(there, "docs") == [] and there.names() == sorted(["docs-1", TARGET])
    there.client.close()
    manager.drop("docs-1")
    manager.ensure("docs-1", OLD)
    mark_retired(manager.client, "docs-1", successor=TARGET)
    assert cleanup(manager, "docs") == [] and manager.names() == sorted(["docs-1", TARGET])
    assert "'docs-1' is left: nothing proves" in caplog.text


def test_a_copy_of_what_was_retired_takes_writes(manager, promotion):
    promotion.build()
    promotion.verify()
    promotion.switch()
    copy_collection(manager.client, "docs-1", manager.client, "kept")
    assert index_passages(manager.open("kept", OLD), [Passage("more", "written into the copy")], OLD).added == 1


def test_promotions_one_after_the_other_are_tidied_up_in_any_order_of_names(manager, promotion):
    last = WordEncoder("last", dimension=320)
    for each in (promotion, Promotion(manager, "docs", last, target="a-last")):
        each.build()
        each.verify()
        each.switch()
    Promotion(manager, "docs", WordEncoder("never", dimension=64), target="b-never").build()
    assert cleanup(manager, "docs") == sorted(["b-never", "docs-1", TARGET])
    assert manager.names() == ["a-last"]


def test_a_collection_that_is_no_alias_says_what_to_do_once(manager):
    with pytest.raises(CollectionError, match="embed-plus collection alias docs-1-live docs-1"):
        Promotion(manager, "docs-1", NEW).plan()
    manager.switch_alias("docs-1-live", "docs-1")
    assert Promotion(manager, "docs-1-live", NEW).plan().source == "docs-1"
    with pytest.raises(CollectionNotFoundError, match="no alias 'nothing'"):
        Promotion(manager, "nothing", NEW).plan()


def test_a_taken_name_is_not_touched(manager):
    manager.ensure("mine", NEW)
    with pytest.raises(CollectionExistsError, match="'mine' is there already"):
        Promotion(manager, "docs", NEW, target="mine").build()


def test_a_point_without_a_text_is_named(manager, promotion, client):
    client.set_payload("docs-1", {"text": " "}, points=[fetch(manager.open("docs"), ["p7"])["p7"].point_id])
    with pytest.raises(CollectionError, match="has no text"):
        promotion.build()
    assert manager.open("docs").name == "docs-1"


class Adapted(WordEncoder):
    """The old encoder with another way to embed queries."""

    class adapter:  # noqa: N801
        build = "adapter@0123456789ab"

    def encode_queries(self, texts):
        return super().encode_queries([f"{text} passage" for text in texts])

    def encode_passages(self, texts):
        return WordEncoder.encode_queries(self, texts)


def test_a_query_adapter_is_promoted_without_embedding_anything(manager):
    encoder = Adapted("old", dimension=256)
    promotion = Promotion(manager, "docs", encoder)
    assert (promotion.plan().kind, promotion.plan().target) == ("adapter", "docs-1")
    assert promotion.build().written == 0
    with pytest.raises(UsageError, match="held-out queries"):
        promotion.verify()
    held_out = HeldOut((Query("q", "thing17"),), {"q": {"p17": 1}})
    with pytest.raises(UsageError, match="before=encoder"):
        promotion.verify(held_out=held_out)
    assert promotion.verify(held_out=held_out, before=OLD).passed
    promotion.switch()
    assert manager.open("docs", encoder).adapter == "adapter@0123456789ab" == manager.describe("docs").adapter
    other = Adapted("old", dimension=256)
    other.adapter = type("adapter", (), {"build": "adapter@other"})
    with pytest.raises(CollectionError, match="has not passed verify"):
        Promotion(manager, "docs", other).switch()
    assert promotion.plan().kind == "nothing"
    rollback(manager, "docs")
    assert manager.open("docs").adapter is None and manager.names() == ["docs-1"]


def test_what_llamaindex_wrote_keeps_its_payloads_and_its_vector_name(client):
    params = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection("notes", vectors_config={"text-dense": params})
    rows = WordEncoder.encode_queries(OLD, [f"note number note{i}" for i in range(30)])
    client.upsert(
        "notes",
        [
            models.PointStruct(
                id=i, vector={"text-dense": row.tolist()}, payload={"content": f"note number note{i}", "n": i}
            )
            for i, row in enumerate(rows)
        ],
    )
    manager = CollectionManager(client)
    manager.adopt("notes", OLD)
    manager.switch_alias("live", "notes")
    promotion = Promotion(manager, "live", NEW)
    promotion.build()
    assert promotion.verify().passed
    promotion.switch()
    hit = search(manager.open("live", NEW), "note number note7", NEW, k=1)[0]
    assert (hit.point_id, hit.text, hit.metadata) == (7, "note number note7", {"n": 7})
    assert manager.describe("live").vectors == ("text-dense",)


def test_all_other_vectors_are_copied_as_they_are(client):
    params = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection("notes", vectors_config=params, sparse_vectors_config={"own": models.SparseVectorParams()})
    words = models.SparseVector(indices=[3, 5], values=[0.25, 0.5])
    row = OLD.encode_queries(["a note"])[0].tolist()
    client.upsert("notes", [models.PointStruct(id=1, vector={"": row, "own": words}, payload={"text": "a note"})])
    manager = CollectionManager(client)
    manager.adopt("notes", OLD)
    manager.switch_alias("live", "notes")
    promotion = Promotion(manager, "live", NEW)
    promotion.build()
    promotion.verify()
    promotion.switch()
    assert client.retrieve("live", [1], with_vectors=True)[0].vector["own"] == words


def test_a_lock_that_lapsed_makes_the_last_pass_again(manager, promotion, monkeypatch):
    promotion.build()
    promotion.verify()
    clock, pages = [time.time()], []
    scroll = type(manager.client).scroll

    def slow_at_first(self, *args, **kwargs):
        clock[0] += 0 if pages else LOCK_SECONDS
        pages.append(args)
        return scroll(self, *args, **kwargs)

    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(type(manager.client), "scroll", slow_at_first)
    promotion.switch()
    assert len(pages) == 2 * 2, "a page of each collection, twice"
    assert manager.open("docs").name == TARGET


KILLS = [
    ("create_collection", "after", 1, "docs-1"),
    ("upsert", "after", 3, "docs-1"),
    ("upsert", "before", 2, "docs-1"),
    ("update_collection", "before", 2, "docs-1"),  # verified, not yet written down
    ("update_collection_aliases", "before", 1, "docs-1"),
    ("update_collection_aliases", "after", 1, TARGET),
]


def test_killed_at_any_step_the_alias_serves_and_the_next_run_goes_on(tmp_path):
    location = tmp_path / "qdrant"
    client = connect(location)
    manager = CollectionManager(client)
    index_passages(manager.ensure("docs-1", OLD), numbered(300), OLD)
    manager.switch_alias("docs", "docs-1")
    client.close()
    for method, moment, nth, serving in KILLS:
        promote_and_die(location, method, moment, nth, in_place=False)
        client = connect(location)
        collection = CollectionManager(client).open("docs", OLD if serving == "docs-1" else NEW)
        assert collection.name == serving and client.count("docs").count == 300
        encoder = OLD if serving == "docs-1" else NEW
        assert search(collection, THING17, encoder, k=1)[0].id == "p17"
        client.close()
    client = connect(location)
    manager = CollectionManager(client)
    Promotion(manager, "docs", NEW).switch()
    assert cleanup(manager, "docs") == ["docs-1"]
    assert index_passages(manager.open("docs", NEW), numbered(300), NEW) == IndexReport(unchanged=300)
    client.close()


def killed(*args, **kwargs):
    raise KeyboardInterrupt


def later(monkeypatch):
    """The time when every mark that ends has ended."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LOCK_SECONDS + 1)


def test_a_switch_that_was_killed_while_it_copied_does_not_stop_writers_for_long(manager, promotion, monkeypatch):
    promotion.build()
    promotion.verify()
    with monkeypatch.context() as copying:
        copying.setattr(switch, "sync", killed)
        with pytest.raises(KeyboardInterrupt):
            promotion.switch()
    writer = manager.open("docs", OLD)
    with pytest.raises(CollectionError, match="being replaced"):
        index_passages(writer, [Passage("meanwhile", "text")], OLD)
    later(monkeypatch)
    assert index_passages(writer, [Passage("meanwhile", "text")], OLD).unchanged == 1
    promotion.switch()
    assert "meanwhile" in texts(manager.open("docs"))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_switch_and_a_rollback_that_were_killed_beside_the_alias_operation_lose_no_acknowledged_write(
    manager, promotion, monkeypatch, moment
):
    move = CollectionManager.switch_alias

    def move_and_die(*args):
        if moment == "after":
            move(*args)
        raise KeyboardInterrupt

    def die_in(step):
        with monkeypatch.context() as dying:
            dying.setattr(CollectionManager, "switch_alias", move_and_die)
            with pytest.raises(KeyboardInterrupt):
                step()

    promotion.build()
    promotion.verify()
    writer = manager.open("docs", OLD)
    index_passages(writer, [Passage("first", "by a writer of the old one")], OLD)
    die_in(promotion.switch)
    later(monkeypatch)
    with pytest.raises(CollectionError, match="a switch or rollback was interrupted: call that again"):
        index_passages(writer, [Passage("refused", "by a writer of the old one")], OLD)
    promotion.switch()
    writer = manager.open("docs", NEW)
    assert writer.name == TARGET and "first" in texts(writer)
    index_passages(writer, [Passage("second", "by a writer of the new one")], NEW)
    die_in(lambda: rollback(manager, "docs", encoder=OLD))
    with pytest.raises(CollectionError, match="a switch or rollback was interrupted: call that again"):
        index_passages(writer, [Passage("refused", "by a writer of the new one")], NEW)
    if moment == "before":
        rollback(manager, "docs", encoder=OLD)
    assert manager.open("docs").name == "docs-1" and {"first", "second"} <= texts(manager.open("docs")).keys()
    assert index_passages(manager.open("docs", OLD), [Passage("third", "writes go on")], OLD).added == 1


def test_an_alias_that_somebody_else_moves_during_the_switch_stays_where_they_put_it(manager, promotion, monkeypatch):
    other = manager.ensure("theirs", OLD)
    index_passages(other, numbered(3), OLD)
    promotion.build()
    promotion.verify()

    def copied_while_others_switch(*args, **kwargs):
        manager.switch_alias("docs", "theirs")
        return sync(*args, **kwargs)

    monkeypatch.setattr(switch, "sync", copied_while_others_switch)
    with pytest.raises(CollectionError, match="changed by somebody else.*not to 'docs-1' any more, but to 'theirs'"):
        promotion.switch()
    assert manager.open("docs").name == "theirs"
    assert index_passages(manager.open("docs-1", OLD), [Passage("on", "it takes writes")], OLD).added == 1
