"""The benchmark of training: what it trains on, tunes on and tests on are apart, and limits are the same every time."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from paths import ROOT

FILE = ROOT / "benchmarks" / "finetune.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = spec_from_file_location("finetune_benchmark", FILE)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def folder(tmp_path):
    """40 train and 10 test queries over 60 passages; one train query has the words of a test query."""
    (tmp_path / "qrels").mkdir()
    passages = [{"_id": f"p{i}", "title": f"title {i}", "text": f"text {i}"} for i in range(60)]
    queries = [{"_id": f"q{i}", "text": f"question {i}"} for i in range(50)]
    queries[3]["text"] = queries[45]["text"]
    for name, rows in (("corpus", passages), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, ids in (("train", range(40)), ("test", range(40, 50))):
        rows = "".join(f"q{i}\tp{i}\t1\n" for i in ids)
        (tmp_path / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return tmp_path


def asked(folder: Path, **given: int) -> argparse.Namespace:
    limits = {"train_limit": None, "test_limit": None, "passages": None, "keep_leaks": False}
    return argparse.Namespace(**{"data": folder, **limits, **given})


def test_no_query_is_in_two_splits_and_none_of_the_test_is_trained_on(benchmark, folder):
    data = benchmark.read_data(asked(folder))
    texts = {name: {text for text, _ in rows.values()} for name, rows in data.splits.items()}
    assert {name: len(rows) for name, rows in texts.items()} == {"train": 35, "dev": 4, "test": 10}
    assert not texts["train"] & texts["dev"] and not (texts["train"] | texts["dev"]) & texts["test"]
    assert data.passages["p7"] == "title 7 text 7" and len(data.passages) == 60


def test_train_queries_that_give_a_test_query_away_are_left_out_and_counted(benchmark, folder):
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q7\tp45\t1\n")  # also asks for what answers a test query
    data, all_of_it = benchmark.read_data(asked(folder)), benchmark.read_data(asked(folder, keep_leaks=True))
    trained, leaky = ({*its.splits["train"], *its.splits["dev"]} for its in (data, all_of_it))
    assert leaky - trained == {"q3", "q7"} and (data.leaks, all_of_it.leaks) == (2, 0)


def test_limits_keep_the_answers_and_are_the_same_every_time(benchmark, folder):
    few = asked(folder, train_limit=20, test_limit=5, passages=3)
    data = benchmark.read_data(few)
    assert data == benchmark.read_data(few)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 18, "dev": 2, "test": 5}
    answers = {answer for rows in data.splits.values() for _, ids in rows.values() for answer in ids}
    assert answers <= data.passages.keys() and len(data.passages) == len(answers) + 3


def test_the_last_line_compares_every_system_with_the_base(benchmark, folder):
    def row(*values: float) -> dict:
        per_query = {f"q{i}": value for i, value in enumerate(values)}
        seconds = {"mining": 1.0, "training": 2.0, "embedding": 0.5}
        return {"ndcg@10": sum(values) / len(values), "dev_ndcg@10": 0.5, "seconds": seconds, "peak_memory_mb": 9.0,
                "per_query": per_query}  # fmt: skip

    data = benchmark.read_data(asked(folder))
    line = benchmark.summary({"base": row(0.2, 0.4), "adapter": row(0.3, 0.5)}, data, {"seed": 0})
    assert line["ndcg@10"] == {"base": 0.3, "adapter": 0.4} and line["seconds"] == {"base": 3.5, "adapter": 3.5}
    assert line["interval"] == {"adapter": [0.1, 0.1, 0.1]}
    assert line["data"]["leaks"] == 1
    assert set(benchmark.SYSTEM) == set(benchmark.SYSTEMS) and json.dumps(line)
