"""Canaries: queries whose answers are known notice when the collection stops finding them."""

from __future__ import annotations

import json
import re

import pytest
from tiny import WordEncoder, client_of, numbered

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import point_id
from qdrant_tools.errors import InputError, SpaceMismatchError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.monitor import Canary, freeze_canaries, read_canaries, run_canaries, write_canaries
from qdrant_tools.search.adapters import AdaptedEncoder, Adapter
from qdrant_tools.search.dense import search_batch

QUERIES = ["passage about topic1", "thing7", "number 12"]


@pytest.fixture(params=["memory", "edge"])
def collection(request, tmp_path):
    for client in client_of(request.param, tmp_path):
        collection = CollectionManager(client).ensure("docs", WordEncoder())
        index_passages(collection, numbered(40), WordEncoder())
        yield collection


def test_what_was_frozen_is_found_again(collection, tmp_path):
    frozen = freeze_canaries(collection, [*QUERIES, QUERIES[0]], WordEncoder(), k=5)
    assert [canary.query for canary in frozen] == QUERIES and all(len(canary.expected) == 5 for canary in frozen)
    write_canaries(tmp_path / "canaries.jsonl", frozen)
    assert read_canaries(tmp_path / "canaries.jsonl") == frozen
    report = run_canaries(collection, frozen, WordEncoder(), k=5)
    assert report.passed and report.mean == 1.0


def test_lost_passages_fail_the_canary_and_are_told_from_those_ranked_lower(collection):
    canaries = [Canary("thing7", ("p7", "p30")), Canary("thing9", ("p9",))]
    lost = run_canaries(collection, canaries, WordEncoder(), k=3)
    assert lost.results[0].query == "thing7" and lost.results[0].missing == ("p30",) and not lost.results[0].gone
    assert not lost.passed and lost.mean == 0.75 and lost.failed == ()
    collection.client.delete(collection.name, [point_id("p7")])
    worse = run_canaries(collection, canaries, WordEncoder(), k=3)
    assert worse.results[0].gone == ("p7",) and worse.failed == ("thing7",)
    assert json.loads(json.dumps(worse.as_row()))["passed"] is False


def test_limits_say_what_passes(collection):
    canaries = [Canary("thing7", ("p7", "p30"))]
    assert run_canaries(collection, canaries, WordEncoder(), k=3, mean_at_least=0.5, each_at_least=0.5).passed
    assert not run_canaries(collection, canaries, WordEncoder(), k=3, mean_at_least=0.5, each_at_least=0.6).passed


def test_canaries_of_another_space_are_refused(collection):
    frozen = [Canary("thing7", ("p7",), "elsewhere@000000000000")]
    with pytest.raises(SpaceMismatchError, match="freeze the canaries again"):
        run_canaries(collection, frozen, WordEncoder())
    with pytest.raises(SpaceMismatchError):
        run_canaries(collection, [Canary("thing7", ("p7",))], WordEncoder("other"))


def test_canaries_are_bound_to_the_adapter_that_froze_them_also_those_of_a_candidate(collection, tmp_path):
    base, candidate = WordEncoder(), AdaptedEncoder(WordEncoder(), Adapter.identity(64, WordEncoder().space))
    for encoder, other in ((base, candidate), (candidate, base)):
        frozen = freeze_canaries(collection, QUERIES, encoder, k=5)
        write_canaries(tmp_path / "canaries.jsonl", frozen)
        assert run_canaries(collection, read_canaries(tmp_path / "canaries.jsonl"), encoder, k=5).passed
        with pytest.raises(SpaceMismatchError, match=r"frozen with .*adapter.* asked with .*adapter"):
            run_canaries(collection, frozen, other)


def test_canaries_are_run_as_they_were_frozen(collection, monkeypatch):
    asked: list[tuple[int, bool]] = []

    def recorded(collection, queries, encoder, *, k, exact=False, **options):
        asked.append((len(queries), exact))
        return search_batch(collection, queries, encoder, k=k, exact=exact, **options)

    monkeypatch.setattr("qdrant_tools.monitor.canary.search_batch", recorded)
    monkeypatch.setattr("qdrant_tools.sources.judged.search_batch", recorded)
    graph = freeze_canaries(collection, QUERIES, WordEncoder(), k=5)
    exact = freeze_canaries(collection, QUERIES[:2], WordEncoder(), k=5, exact=True)
    mixed = [*exact, *graph]
    assert run_canaries(collection, mixed, WordEncoder(), k=5).passed
    assert asked == [(3, False), (2, True), (3, False), (2, True)]


def test_what_cannot_be_asked_is_refused(collection):
    with pytest.raises(InputError, match="no queries to freeze"):
        freeze_canaries(collection, [], WordEncoder())
    with pytest.raises(InputError, match="expects 2 passages in the first 1"):
        run_canaries(collection, [Canary("thing7", ("p7", "p8"))], WordEncoder(), k=1)
    with pytest.raises(InputError, match="0 canaries"):
        run_canaries(collection, [], WordEncoder())
    with pytest.raises(InputError, match="mean_at_least 2"):
        run_canaries(collection, [Canary("thing7", ("p7",))], WordEncoder(), mean_at_least=2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "canaries.jsonl:2: not JSON"),
        ("[]", "canaries.jsonl:2: a list, expected an object"),
        ('{"query": 1, "expected": ["a"]}', "canaries.jsonl:2: not a canary: query is 1"),
        ('{"query": "q", "expected": "a"}', "expected is 'a'"),
        ('{"query": "q", "expected": []}', "give a query and distinct passages"),
        ('{"query": "q", "expected": ["a", "a"]}', "distinct passages"),
    ],
)
def test_a_line_that_is_no_canary_is_named(tmp_path, line, message):
    file = tmp_path / "canaries.jsonl"
    file.write_text('{"query": "q", "expected": ["a"]}\n' + line + "\n")
    with pytest.raises(InputError, match=re.escape(message)):
        read_canaries(file)


def test_files_that_hold_no_canaries_or_cannot_be_written_are_errors(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no canaries"):
        read_canaries(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="cannot read .*typo.jsonl: No such file"):
        read_canaries(tmp_path / "typo.jsonl")
    with pytest.raises(UsageError, match="cannot write"):
        write_canaries(tmp_path / "no" / "folder.jsonl", [Canary("q", ("a",))])
