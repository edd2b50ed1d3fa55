"""Mining into a file can be killed and goes on where it was."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import tracemalloc

import pytest
from programs import output, report, spawn
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import Judge, MiningSettings, mine
from qdrant_tools.mining.file import _State, mine_to_jsonl, read_examples, read_stats
from qdrant_tools.records import Label

LABELS = [Label(f"passage about topic{i % 7} thing{i}", f"p{i}") for i in range(40)] + [Label("nowhere", "gone")]
SETTINGS = MiningSettings(batch_size=4)


def mine_labels(location: str, path: str) -> None:
    """A program that says "batch" after each batch."""
    encoder = WordEncoder(dimension=512)
    collection = CollectionManager(connect(location)).ensure("docs", encoder)
    index_passages(collection, numbered(60), encoder)
    mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS, progress=lambda _: report("batch"))


@pytest.fixture(scope="module")
def encoder():
    return WordEncoder(dimension=512)


@pytest.fixture(scope="module")
def collection(encoder, tmp_path_factory):
    client = connect(tmp_path_factory.mktemp("qdrant"))
    collection = CollectionManager(client).ensure("docs", encoder)
    index_passages(collection, numbered(60), encoder)
    build_index(collection)
    yield collection
    client.close()


@pytest.fixture(scope="module")
def expected(collection, encoder):
    return mine(collection, LABELS, encoder, settings=SETTINGS)


def test_the_file_has_the_examples_that_mining_gives(collection, encoder, expected, tmp_path):
    steps: list[int] = []
    path = tmp_path / "examples.jsonl"
    report = mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS, progress=steps.append)
    assert [e.as_row() for e in read_examples(path)] == [e.as_row() for e in expected.examples]
    assert report.stats == expected.stats and (report.queries, report.resumed) == (41, 0)
    assert steps == [4] * 10 + [1]


def test_a_finished_file_is_left_as_it_is(collection, encoder, expected, tmp_path):
    path = tmp_path / "examples.jsonl"
    mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)
    before = path.read_bytes()
    report = mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)
    assert path.read_bytes() == before
    assert report.resumed == 41 and report.stats == expected.stats


@pytest.mark.parametrize("stop_after", [1, 3, 10])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(collection, encoder, expected, tmp_path, stop_after):
    path = tmp_path / "examples.jsonl"
    steps = itertools.count(1)

    def interrupt(_: int) -> None:
        if next(steps) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS, progress=interrupt)
    with path.open("ab") as file:
        file.write(b'{"query": "half a li')  # what a kill in the middle of a batch leaves
    report = mine_to_jsonl(collection, LABELS, encoder, path=path, settings=MiningSettings(batch_size=7))
    assert report.resumed == 4 * stop_after
    assert [e.as_row() for e in read_examples(path)] == [e.as_row() for e in expected.examples]
    assert report.stats == expected.stats


def test_a_killed_run_is_finished_by_the_next_process(expected, encoder, tmp_path):
    path = tmp_path / "examples.jsonl"
    first = spawn(mine_labels, tmp_path / "qdrant", path)
    for _ in range(3):
        first.stdout.readline()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    batches = output(mine_labels, tmp_path / "qdrant", path).count("batch")
    assert batches <= 9, "the first call for all that was resumed"
    assert [e.as_row() for e in read_examples(path)] == [e.as_row() for e in expected.examples]


def test_a_run_killed_in_its_first_batch_begins_again(collection, encoder, expected, tmp_path, monkeypatch):
    path, save = tmp_path / "examples.jsonl", _State.save

    def interrupt(state, target):
        if state.queries:
            raise KeyboardInterrupt
        save(state, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(_State, "save", interrupt)
        mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)
    assert path.stat().st_size
    report = mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)
    assert report.resumed == 0 and [e.as_row() for e in read_examples(path)] == [e.as_row() for e in expected.examples]


def test_a_file_of_another_run_is_refused(collection, encoder, tmp_path):
    path = tmp_path / "examples.jsonl"
    mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)
    for other in (
        {"settings": MiningSettings(seed=1)},
        {"labels": LABELS[1:]},
        {"judge": Judge(lambda pairs: [0.0] * len(pairs), 0.5)},
    ):
        arguments = {"labels": LABELS, "settings": SETTINGS, "judge": None} | other
        with pytest.raises(UsageError, match="begun with other labels, settings, judge or vectors"):
            mine_to_jsonl(
                collection,
                arguments["labels"],
                encoder,
                path=path,
                settings=arguments["settings"],
                judge=arguments["judge"],
            )


def test_a_file_that_mining_did_not_write_is_never_overwritten(collection, encoder, tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(UsageError, match="was not begun by mining"):
        mine_to_jsonl(collection, LABELS, encoder, path=path)
    assert path.read_text() == "my notes\n"


def test_a_file_that_lost_its_end_is_refused(collection, encoder, tmp_path):
    path = tmp_path / "examples.jsonl"
    mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UsageError, match="shorter than"):
        mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)


def test_reading_names_the_line_that_is_no_example(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"query": "q"}\n{"q": "q"}\n')
    with pytest.raises(InputError, match="x.jsonl:2: not a training example"):
        list(read_examples(tmp_path / "x.jsonl"))
    with pytest.raises(InputError, match="cannot read"):
        list(read_examples(tmp_path / "none.jsonl"))


def test_memory_does_not_grow_with_the_collection(encoder, tmp_path):
    """Ten times the passages: what Python holds at its peak stays the same."""

    def peak(count: int) -> int:
        client = connect(tmp_path / str(count))
        large = CollectionManager(client).ensure("docs", encoder)
        index_passages(large, numbered(count), encoder)
        build_index(large)
        labels = [Label(f"passage about topic{i % 7} thing{i}", f"p{i}") for i in range(200)]
        path, settings = tmp_path / f"{count}.jsonl", MiningSettings(batch_size=16)
        tracemalloc.start()
        # Collecting after each batch leaves what is really held, not what Python has yet to free.
        mine_to_jsonl(large, labels, encoder, path=path, settings=settings, progress=lambda _: gc.collect() and None)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        client.close()
        return highest

    assert peak(3000) < 1.3 * peak(300)


def test_a_query_of_ten_megabytes_is_mined_like_any_other(collection, encoder, tmp_path):
    query = "passage about topic3 " + "x" * 10_000_000
    mine_to_jsonl(collection, [Label(query, "p3")], encoder, path=tmp_path / "long.jsonl", settings=SETTINGS)
    (example,) = read_examples(tmp_path / "long.jsonl")
    assert example.query == query and example.negatives


def test_the_account_can_be_read_beside_the_file(collection, encoder, expected, tmp_path):
    path = tmp_path / "examples.jsonl"
    assert read_stats(path) is None
    mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)
    assert read_stats(path) == expected.stats
    state = path.with_name("examples.jsonl.state.json")
    state.write_text(state.read_text().replace('"format": 3', '"format": 9'))
    with pytest.raises(UsageError, match="written by another version"):
        read_stats(path)
    state.write_text("[]")
    with pytest.raises(UsageError, match="not the state of a mining run"):
        mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS)


def test_another_judge_of_the_same_threshold_is_another_run(collection, encoder, tmp_path):
    path = tmp_path / "examples.jsonl"
    for name in ("one", "one", "two"):
        judge = Judge(lambda pairs: [0.0] * len(pairs), 0.5, name=name)
        if name == "two":
            with pytest.raises(UsageError, match="begun with other labels, settings, judge"):
                mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS, judge=judge)
        else:
            mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS, judge=judge)
