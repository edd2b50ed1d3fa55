"""Single values that callers give: hostile ones in this package's own functions end in a result or in one error."""

from __future__ import annotations

import math
from contextlib import closing

import numpy as np
import pytest
from tiny import WordEncoder, numbered
from zoo import ZOO, leak

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.edge.storage.recover import recover
from qdrant_tools.errors import InputError
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings
from qdrant_tools.promotion.verify import Gates
from qdrant_tools.records import Passage
from qdrant_tools.search.dense import search, search_batch, search_vectors
from qdrant_tools.search.options import SearchOptions
from qdrant_tools.tuning import tune
from qdrant_tools.validation import brief, checked_count, checked_number, unit_rows

ENCODER = WordEncoder("words", dimension=64)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    with closing(connect(tmp_path_factory.mktemp("values"))) as client:
        collection = CollectionManager(client).ensure("docs", ENCODER)
        index_passages(collection, numbered(20), ENCODER)
        yield collection


def passage(**fields):
    return [Passage(**{"id": "x", "text": "a text", "metadata": {}, **fields})]


CALLS = {
    "id of a passage": lambda c, v: index_passages(c, passage(id=v), ENCODER),
    "text of a passage": lambda c, v: index_passages(c, passage(text=v), ENCODER),
    "metadata of a passage": lambda c, v: index_passages(c, passage(metadata=v), ENCODER),
    "value in metadata": lambda c, v: index_passages(c, passage(metadata={"a": v}), ENCODER),
    "batch_size": lambda c, v: index_passages(c, passage(), ENCODER, batch_size=v),
    "on_bad": lambda c, v: index_passages(c, passage(), ENCODER, on_bad=v),
    "query": lambda c, v: search(c, v, ENCODER),
    "queries": lambda c, v: search_batch(c, v, ENCODER),
    "vectors": lambda c, v: search_vectors(c, v),
    "k": lambda c, v: search(c, "a query", ENCODER, k=v),
    "filter": lambda c, v: search(c, "a query", ENCODER, filter={"a": v}),
    "score_threshold": lambda c, v: search(c, "a query", ENCODER, score_threshold=v),
    "diversity": lambda c, v: search(c, "a query", ENCODER, diversity=v),
    "name": lambda c, v: CollectionManager(c.client).open(v, ENCODER),
    "name of a new one": lambda c, v: CollectionManager(c.client).ensure(v, ENCODER),
    "encoder": lambda c, v: CollectionManager(c.client).ensure("other", v),
    "settings": lambda c, v: CollectionManager(c.client).ensure("docs", ENCODER, settings=v),
    "alias": lambda c, v: CollectionManager(c.client).switch_alias(v, "docs"),
    "name of a snapshot": lambda c, v: create_snapshot(c.client, v, None),
    "snapshot": lambda c, v: restore_snapshot(c.client, v, "restored"),
    "location to recover": lambda c, v: recover(v),
    "similarity": lambda c, v: Gates(similarity=v),
    "k of gates": lambda c, v: Gates(k=v),
    "max_drop": lambda c, v: Gates(max_drop=v),
    "margin": lambda c, v: MiningSettings(margin=v),
    "negatives": lambda c, v: MiningSettings(negatives=v),
    "temperature": lambda c, v: MiningSettings(temperature=v),
    "k of tune": lambda c, v: tune(c, k=v) if v is not ZOO["numpy integer"] else None,
}


@pytest.mark.parametrize("what", CALLS)
def test_no_value_raises_a_foreign_error(collection, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some values are names of files
    leaks = {
        label: found
        for label, value in ZOO.items()
        if (found := leak(lambda value=value: CALLS[what](collection, value))) is not None
    }
    assert leaks == {}


@pytest.mark.parametrize("value", [1.5, math.nan, math.inf, True, 0, "2", None])
def test_what_is_no_whole_number_is_no_count(collection, value):
    for call in (
        lambda: checked_count("n", value),
        lambda: index_passages(collection, passage(), ENCODER, batch_size=value),
        lambda: Gates(k=value),
        lambda: MiningSettings(negatives=value),
    ):
        with pytest.raises(InputError, match="expected a whole number of at least 1"):
            call()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), True, "0.5", 10**400], ids=brief)
def test_what_is_no_finite_number_opens_no_gate_and_switches_no_rule_off(value):
    for call in (
        lambda: checked_number("n", value),
        lambda: Gates(max_drop=value),
        lambda: MiningSettings(margin=value),
        lambda: SearchOptions(score_threshold=value),
    ):
        with pytest.raises(InputError, match="expected a finite number"):
            call()


def test_bounds_are_said_as_they_are():
    with pytest.raises(InputError, match=r"^share is 0, expected a finite number above 0 and of at most 1$"):
        checked_number("share", 0, above=0, most=1)
    assert checked_count("n", np.int64(3)) == 3


def test_a_value_is_shown_in_one_short_line():
    assert brief("a\nb") == r"'a\nb'"
    assert brief(np.zeros((2, 2, 2))).count("\n") == 0
    assert len(brief("x" * 100)) == 60
    assert brief(ZOO["stranger"]) == "<Strange>"


def test_unit_rows_have_length_one_and_a_row_of_zeros_stays_one():
    rows = np.array([[3, 4], [0, 0], [1e-30, 0], [1e30, 1e30]], dtype=np.float32)
    unit = unit_rows(rows)
    assert unit.dtype == np.float32 and unit_rows(rows, np.float64).dtype == np.float64
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [1, 0], [0.5**0.5] * 2], rtol=1e-6)
