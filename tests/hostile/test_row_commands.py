"""The documented commands that read rows of strangers: one line, little memory, nothing outside changed or read."""

from __future__ import annotations

import json
import os

import pytest
from rows import JSONL, TSV, sparse, text

from llama_index_embed_plus.evaluate.tasks.layouts import find_tasks
from qdrant_tools.errors import InputError

GOOD_QUERIES = '{"id": "q", "text": "tea"}\n'
GOOD_QRELS = "q 0 p 1\n"
GOOD_RUN = "q Q0 p 1 0.5 name\n"


@pytest.fixture
def judged(tmp_path):
    """Three good files, and the arguments that measure them."""
    for name, content in (("queries.jsonl", GOOD_QUERIES), ("qrels.txt", GOOD_QRELS), ("run.txt", GOOD_RUN)):
        (tmp_path / name).write_text(content)
    return ("evaluate", "--queries", "queries.jsonl", "--qrels", "qrels.txt", "--run", "run.txt")


QUERIES = {
    "four gigabytes without a line end": JSONL["four gigabytes without a line end"],
    "one wide character among 10 million": JSONL["one wide character among 10 million"],
    "a pipe": JSONL["a pipe"],
    "an escape behind 10 million letters": text('{"id": 7, "text": "' + "x" * 10_000_000 + '\\ud83d\\ude00"}'),
}
RUNS = {
    "a million cells": TSV["a row of a million cells"],
    "a score of 5,000 digits": text("q 0 p 1 " + "9" * 5000 + " name"),
    "half a text": lambda path: path.write_bytes(b"q Q0 \xff 1 1 name"),
}


# one test for all of a kind: what is measured is compared with one good command
def test_queries_and_runs_of_a_stranger(refused, judged, tmp_path, outside):
    (tmp_path / "good.jsonl").write_text(GOOD_QUERIES)
    like = tuple("good.jsonl" if part == "queries.jsonl" else part for part in judged)
    for name, write in QUERIES.items():
        path = tmp_path / f"{name}.jsonl"
        write(path)
        assert path.name in refused(*(path.name if part == "queries.jsonl" else part for part in judged), like=like)
        path.unlink()
    for name, write in RUNS.items():
        path = tmp_path / f"{name}.txt"
        write(path)
        assert path.name in refused(*(path.name if part == "run.txt" else part for part in judged), like=like)


def links_between(folder):
    for one in "abcdefghi":
        (folder / one).mkdir()
        for other in "abcdefghi":
            (folder / one / other).symlink_to(folder / other)


def beir(folder, outside):
    (folder / "corpus.jsonl").write_text('{"_id": "p", "text": "tea"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "tea"}\n')
    (folder / "qrels").symlink_to(outside.folder)


def chain(folder, outside):
    (folder / "test.jsonl").symlink_to(folder / "b.jsonl")
    (folder / "b.jsonl").symlink_to(outside.folder / "notes.jsonl")


FOLDERS = {
    "a link to a file": lambda folder, outside: (folder / "test.jsonl").symlink_to(outside.folder / "notes.jsonl"),
    "a link to a folder": lambda folder, outside: (folder / "more").symlink_to(outside.folder),
    "a chain of links": chain,
    "judgements outside": beir,
    "a pipe": lambda folder, outside: os.mkfifo(folder / "test.jsonl"),
    "a folder that holds itself": lambda folder, outside: (folder / "again").symlink_to(folder),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_what_leaves_a_benchmark_folder_is_no_task_of_it(tmp_path, outside, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "readme.tsv").write_text("a\tb\n1\t2\n")
    FOLDERS[name](tmp_path / "data", outside)
    tasks, skipped = find_tasks(tmp_path / "data")
    assert not tasks and skipped
    assert any("link out of" in each.reason for each in skipped) == (outside_of(name))


def outside_of(name):
    return name not in ("a pipe", "a folder that holds itself")


def test_links_of_a_benchmark_folder_are_followed_on_request(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "test.jsonl").write_text('{"sentence1": "a", "sentence2": "b"}\n')
    (tmp_path / "data" / "pairs").symlink_to(tmp_path / "pairs")
    (tmp_path / "data" / "readme.tsv").write_text("a\tb\n1\t2\n")
    assert not find_tasks(tmp_path / "data")[0]
    (task,) = find_tasks(tmp_path / "data", follow_links=True)[0]
    assert task.name == "pairs/bitext_mining"


def test_folders_that_hold_each_other_are_refused(tmp_path):
    links_between(tmp_path)
    with pytest.raises(InputError, match="this is no folder of benchmarks"):
        find_tasks(tmp_path)


def test_a_benchmark_folder_of_a_stranger(refused, tmp_path, outside):
    for name in ("good", "linked", "long", "wide"):
        (tmp_path / name).mkdir()
    FOLDERS["a link to a file"](tmp_path / "linked", outside)
    sparse(1 << 32, b'{"text": "')(tmp_path / "long" / "test.jsonl")
    text(json.dumps({f"{n}" + "x" * 100_000: 1 for n in range(50)}))(tmp_path / "wide" / "test.jsonl")
    for name in ("linked", "long", "wide"):
        line = refused("benchmark", name, like=("benchmark", "good"))
        assert "private note" not in line and name in line
