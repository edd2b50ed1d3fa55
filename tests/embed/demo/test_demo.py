"""The whole loop on a slice of the standard library, with the real checkpoint and the real engine."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager

import ir_measures
import pytest

from llama_index_embed_plus.demo.pipeline import ALIAS, Demo, draw_report, write_report
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.training.settings import TrainSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError
from qdrant_tools.search.dense import search


class Silent:
    """Counts what is reported and shows nothing."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    @contextmanager
    def step(self, name, total):
        self.done[name] = 0

        def progress(items: int) -> None:
            self.done[name] += items

        yield progress


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    reporter = Silent()
    report = Demo(folder, reporter, limit=500).run()
    return folder, report, reporter


def test_the_report_holds_everything_it_promises(demo, tmp_path):
    _, report, reporter = demo
    write_report(report.as_row(), tmp_path / "report.json")
    draw_report(report.systems.reports, tmp_path / "chart.png")
    row = json.loads((tmp_path / "report.json").read_text())
    assert row["engine"] == "qdrant-edge"
    assert row["documents"] == row["indexed_vectors"] == 500
    assert reporter.done["embed and index"] == 500
    for side in ("before", "after"):
        assert set(row[side]) == {"ndcg@10", "mrr", "recall@10"}
    assert row["difference"]["low"] <= row["difference"]["ndcg@10"] <= row["difference"]["high"]
    assert row["hnsw_recall@10"] > 0.99
    assert all(seconds >= 0 for seconds in row["seconds"].values()) and len(row["seconds"]) >= 10
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_figures_follow_from_the_written_runs_by_an_outside_implementation(demo):
    folder, report, _ = demo
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels-heldout.tsv").read_text().splitlines()[1:]:
        query, passage, grade = line.split("\t")
        qrels.setdefault(query, {})[passage] = int(grade)
    measures = {"ndcg@10": "nDCG@10", "mrr": "RR@10", "recall@10": "R@10"}
    for name, side in (("base", "before"), ("adapter", "after")):
        run = list(ir_measures.read_trec_run(str(folder / f"run-{name}.trec")))
        outside = ir_measures.calc_aggregate([ir_measures.parse_measure(m) for m in measures.values()], qrels, run)
        for ours, theirs in measures.items():
            assert report.row[side][ours] == pytest.approx(outside[ir_measures.parse_measure(theirs)], abs=1e-9)


def test_what_was_kept_serves_from_the_same_collection(demo):
    folder, report, _ = demo
    model = folder / "model" if report.kept == "adapter" else "all-MiniLM-L6-v2"
    encoder = open_encoder(model)
    with closing(connect(folder / "qdrant", create=False)) as client:
        hits = search(CollectionManager(client).open(ALIAS, encoder), "parse command line arguments", encoder, k=3)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert (report.kept == "adapter") == (report.row["difference"]["low"] > 0)
    assert ("adapter" in encoder.build) == (report.kept == "adapter")


def test_the_full_loop_switches_the_alias_only_to_what_is_proved_better(tmp_path):
    quick = TrainSettings(max_tokens=24, negatives=1, learning_rate=2e-5)
    report = Demo(tmp_path / "run", Silent(), limit=120, training=quick).run(full=True)
    full = report.systems.comparisons["full"]
    assert (report.kept == "full") == full.proves_better
    with closing(connect(tmp_path / "run" / "qdrant", create=False)) as client:
        manager = CollectionManager(client)
        assert manager.resolve(ALIAS) == (f"{ALIAS}-full" if report.kept == "full" else f"{ALIAS}-base")
        spaces = {manager.describe(name).space for name in manager.names()}
    assert spaces == {open_encoder("all-MiniLM-L6-v2").space, open_encoder(tmp_path / "run" / "model-full").space}


def test_a_second_run_starts_afresh_and_a_foreign_folder_is_refused(demo, tmp_path):
    (tmp_path / "precious.txt").touch()
    with pytest.raises(UsageError, match="not an earlier demo's"):
        Demo(tmp_path, Silent()).run()
    assert (tmp_path / "precious.txt").exists()
