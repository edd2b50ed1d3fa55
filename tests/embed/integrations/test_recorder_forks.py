"""A server that is forked after its recorder was started records in every worker, and loses nothing at their end."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from programs import PATIENCE, awaited, forked, output, report

from llama_index_embed_plus.integrations.recorder import RetrievalRecorder
from qdrant_tools.log.retrieval_log import RetrievalLog

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


class Fixed(BaseRetriever):
    """Finds one node for every query."""

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(text="x", id_="x"), score=1.0)]


def queries(path) -> list[str]:
    log = RetrievalLog(path, read_only=True)
    found = sorted(search.query for search in log.searches())
    log.close()
    return found


def test_a_child_records_by_a_writer_of_its_own_and_counts_from_nothing(tmp_path):
    path, retriever = tmp_path / "log.sqlite", Fixed()
    with RetrievalRecorder(path) as recorder:
        shown = retriever.retrieve("before")
        recorder.flush()

        def child():
            assert (recorder.recorded, recorder.failed) == (0, 0)
            retriever.retrieve("child")
            recorder.feedback(recorder.search_id(shown[0]), "x", "click")  # on what the parent had shown
            recorder.flush()
            assert (recorder.recorded, recorder.failed) == (2, 0)
            forked(lambda: (retriever.retrieve("grandchild"), recorder.stop()), "a grandchild")

        forked(child)
        retriever.retrieve("after")
    assert recorder.recorded == 2
    assert queries(path) == ["after", "before", "child", "grandchild"]


def test_what_waits_in_the_parent_is_written_by_it_alone(tmp_path):
    path, retriever = tmp_path / "log.sqlite", Fixed()
    with RetrievalRecorder(path) as recorder:
        for number in range(5):
            retriever.retrieve(f"waiting {number}")
        forked(recorder.stop)
    assert queries(path) == [f"waiting {number}" for number in range(5)]


def serve_in_workers(folder):
    """Workers that end as those of `multiprocessing` do, and as those of gunicorn do."""
    path, retriever = Path(folder) / "log.sqlite", Fixed()
    RetrievalRecorder(path).start()
    retriever.retrieve("before")
    worker = multiprocessing.get_context("fork").Process(target=retriever.retrieve, args=("of multiprocessing",))
    worker.start()
    worker.join(PATIENCE)
    assert worker.exitcode == 0, worker.exitcode
    child = os.fork()
    if child == 0:
        retriever.retrieve("of gunicorn")
        sys.exit(0)
    awaited(child, "a worker that ends as Python ends")
    report("done")


def test_a_worker_that_ends_in_order_loses_nothing(tmp_path):
    assert output(serve_in_workers, tmp_path, timeout=4 * PATIENCE) == "done\n"
    assert queries(tmp_path / "log.sqlite") == ["before", "of gunicorn", "of multiprocessing"]
