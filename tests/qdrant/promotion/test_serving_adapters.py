"""What was promoted is what serves: whoever opens the alias with the base model searches with the promoted adapter."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from promoted import OLD
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.adapters import ADAPTERS, adapter_in, adapter_not_kept, row_of
from qdrant_tools.collections.copying import copy_collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import CollectionError, InputError
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.promotion.switch import cleanup, rollback
from qdrant_tools.search.adapters import MAPS, AdaptedEncoder, Adapter, OrthogonalMap, unfitted

QUERY = "passage number 17 about thing17"


@pytest.fixture
def manager(client):
    """An alias `docs` of the collection `docs-1`, which 20 passages fill by the old encoder."""
    manager = CollectionManager(client)
    manager.ensure("docs-1", OLD).index(numbered(20))
    manager.switch_alias("docs", "docs-1")
    return manager


def adapter_to(asked: str, found: str, space: str = OLD.space) -> Adapter:
    """The reflection that takes the vector of one text to that of another."""
    one, other = OLD.encode_queries([asked, found])
    step = (one - other) / np.linalg.norm(one - other)
    return Adapter(OrthogonalMap((np.eye(len(one)) - 2 * np.outer(step, step)).astype(np.float32)), space)


TURNED = adapter_to(QUERY, "passage number 3 about topic3 and thing3")
OTHER = adapter_to(QUERY, "passage number 5 about topic5 and thing5")


def first(manager, encoder=OLD, name="docs") -> str:
    return manager.open(name, encoder).search(QUERY, k=1)[0].id


def promote(manager, adapter) -> Promotion:
    promotion = Promotion(manager, "docs", AdaptedEncoder(OLD, adapter))
    promotion.build()
    promotion.switch(force=True)
    return promotion


def test_the_base_model_searches_with_the_adapter_that_was_promoted_and_without_it_after_a_rollback(manager, caplog):
    assert first(manager) == "p17"
    promote(manager, TURNED)
    with caplog.at_level(logging.WARNING):
        assert first(manager) == "p3" == first(manager, AdaptedEncoder(OLD, TURNED))
        hit = manager.open("docs", OLD).search_batch([QUERY], k=1)[0][0]
    assert hit.id == "p3" and not caplog.records
    rollback(manager, "docs")
    assert first(manager) == "p17"


def test_a_rollback_from_one_adapter_to_another_serves_the_first(manager):
    promote(manager, TURNED)
    promote(manager, OTHER)
    assert first(manager) == "p5"
    rollback(manager, "docs")
    assert first(manager) == "p3"


def test_an_open_collection_goes_on_with_the_adapter_it_was_opened_with(manager):
    promote(manager, TURNED)
    before = manager.open("docs", OLD)
    promote(manager, OTHER)
    assert (before.search(QUERY, k=1)[0].id, first(manager)) == ("p3", "p5")


def test_exactly_one_encoder_is_what_with_encoder_takes(manager):
    promote(manager, TURNED)
    assert manager.open("docs").with_encoder(OLD).search(QUERY, k=1)[0].id == "p17"


def test_another_adapter_than_the_one_that_serves_is_used_and_said_once(manager, caplog):
    promote(manager, TURNED)
    with caplog.at_level(logging.WARNING):
        assert first(manager, AdaptedEncoder(OLD, OTHER)) == "p5"
        first(manager, AdaptedEncoder(OLD, OTHER))
    (record,) = caplog.records
    assert TURNED.build in record.getMessage() and OTHER.build in record.getMessage()


def test_an_encoder_that_knows_adapters_stays_what_it_is(manager):
    class Knowing(WordEncoder):
        adapter: Adapter | None = None

        def encode_queries(self, texts):
            vectors = super().encode_queries(texts)
            return vectors if self.adapter is None else self.adapter(vectors)

        def encode_passages(self, texts):
            return WordEncoder.encode_queries(self, texts)

    base = Knowing("old", dimension=256)
    promote(manager, TURNED)
    served = manager.open("docs", base)
    assert type(served.encoder) is Knowing and served.search(QUERY, k=1)[0].id == "p3"
    assert base.adapter is None and first(manager, base) == "p3"


def test_a_collection_made_for_an_encoder_with_an_adapter_serves_with_that(manager, caplog):
    with caplog.at_level(logging.WARNING):
        docs = manager.ensure("own", AdaptedEncoder(OLD, TURNED))
        docs.index(numbered(20))
        assert first(manager, OLD, "own") == "p3" and docs.adapter == TURNED.build
    assert not caplog.records


def test_adapters_are_kept_out_of_the_list_of_collections_and_their_place_is_reserved(manager):
    promote(manager, TURNED)
    assert manager.names() == ["docs-1"]
    with pytest.raises(InputError, match="give another name"):
        manager.ensure(ADAPTERS, OLD)
    with pytest.raises(InputError, match="give another name"):
        manager.switch_alias(ADAPTERS, "docs-1")


def test_cleanup_forgets_the_adapters_that_nothing_serves_with(manager):
    promote(manager, TURNED)
    promote(manager, OTHER)
    assert cleanup(manager, "docs") == [TURNED.build]
    assert first(manager) == "p5"


def test_a_copy_serves_with_the_same_adapter(manager):
    promote(manager, TURNED)
    target = connect(":memory:")
    copy_collection(manager.client, "docs-1", target, "copied")
    assert first(CollectionManager(target), OLD, "copied") == "p3"


def test_an_adapter_that_is_lost_is_known_by_its_build(manager):
    assert adapter_not_kept(manager.client, "docs-1") is None
    promote(manager, TURNED)
    assert adapter_not_kept(manager.client, "docs-1") is None
    manager.client.delete_collection(ADAPTERS)
    assert adapter_not_kept(manager.client, "docs-1") == TURNED.build


def test_an_adapter_that_is_not_kept_is_told_with_the_way_out_and_kept_by_promoting_again(manager, caplog):
    promotion = promote(manager, TURNED)
    manager.client.delete_collection(ADAPTERS)
    with caplog.at_level(logging.WARNING):
        assert first(manager) == "p17"
    assert TURNED.build in caplog.text and "embed-plus promote run docs-1 --model FOLDER" in caplog.text
    promotion.switch()
    assert first(manager) == "p3"


@pytest.mark.parametrize("client", ["memory"], indirect=True)
@pytest.mark.parametrize("exchange", ["weights", "space", "kind", "data", "shape", "nothing"])
def test_what_was_exchanged_in_place_of_the_adapter_is_refused(manager, exchange):
    promote(manager, TURNED)
    row = row_of(TURNED)
    match exchange:
        case "weights":
            row = row_of(OTHER)
        case "space":
            row["space"] = "another@000000000000"
        case "kind":
            row["kind"] = "unheard-of"
        case "data":
            row["arrays"]["rotation"]["data"] = "?" * 40
        case "shape":
            row["arrays"]["rotation"]["shape"] = [1 << 40, 2]
        case "nothing":
            row = {"build": TURNED.build}
    (point,), _ = manager.client.scroll(ADAPTERS)
    manager.client.overwrite_payload(ADAPTERS, row, points=[point.id], wait=True)
    with pytest.raises(CollectionError, match="promote it again, or roll back"):
        first(manager)
    rollback(manager, "docs")
    assert first(manager) == "p17"


@pytest.mark.parametrize("kind", MAPS)
def test_an_adapter_of_any_kind_comes_back_as_it_was_kept(kind):
    start = unfitted(kind, 8, width=3, seed=1)
    adapter = Adapter(start, OLD.space)
    again = adapter_in(row_of(adapter))
    assert (again.build, again.space, again.kind) == (adapter.build, adapter.space, kind)
    for name, array in start.arrays().items():
        assert np.array_equal(again.map.arrays()[name], array)


def test_an_adapter_too_large_to_be_kept_is_promoted_with_a_warning(manager, caplog, monkeypatch):
    monkeypatch.setattr("qdrant_tools.collections.adapters.MOST_BYTES", 1000)
    with caplog.at_level(logging.WARNING):
        promote(manager, TURNED)
    assert TURNED.build in caplog.text and "every application has to open" in caplog.text
    assert manager.open("docs").adapter == TURNED.build


def test_another_process_finds_the_adapter_in_the_folder(tmp_path):
    client = connect(tmp_path / "data")
    manager = CollectionManager(client)
    manager.ensure("docs-1", OLD).index(numbered(20))
    manager.switch_alias("docs", "docs-1")
    promote(manager, TURNED)
    client.close()
    again = connect(tmp_path / "data")
    assert first(CollectionManager(again)) == "p3"
    again.close()
