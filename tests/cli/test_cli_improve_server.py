"""From traces to an adapter that serves, all against a Qdrant server."""

from __future__ import annotations

import json

import pytest
from test_cli_improve import ASKED, QUERIES, WORDS, model, report_of, traced  # noqa: F401
from tiny import SERVER, client_of

from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import RetrievalLog
from qdrant_tools.records import Passage
from qdrant_tools.search.dense import search

pytestmark = pytest.mark.skipif(SERVER is None, reason="a server runs where QDRANT_URL says")


def test_traces_are_imported_learnt_from_and_their_adapter_serves_on_a_server(run, model, tmp_path):  # noqa: F811
    encoder = open_encoder(model, device="cpu")
    passages = [
        Passage(f"p{i}", f"{WORDS[i % len(WORDS)]} {WORDS[(i * 7) % len(WORDS)]} alpha{i} bravo{i} delta{i} gamma{i}")
        for i in range(2 * ASKED)
    ]
    at = ("--location", SERVER)
    for client in client_of("server", tmp_path):
        collection = CollectionManager(client).ensure("docs-1", encoder)
        index_passages(collection, passages, encoder)
        CollectionManager(client).switch_alias("docs", "docs-1")
        shown = {query: search(collection, query, encoder, k=4) for query in QUERIES}
        asked = (SERVER, shown, {passage.id: passage.text for passage in passages}, ())
        spans, annotations = traced(asked, tmp_path, place=lambda number: 3)
        code, out, err = run("log", "import", "log.sqlite", spans, annotations, "--collection", "docs", *at, "--yes")
        assert code == 0 and "(100%) are in the collection" in out, err
        with RetrievalLog(tmp_path / "log.sqlite") as log:
            assert len(log) == ASKED and all(one.answer.verdicts for one in log.searches())
        judged = range(ASKED // 2, ASKED)
        (tmp_path / "q.jsonl").write_text(
            "".join(json.dumps({"_id": f"q{number}", "text": QUERIES[number]}) + "\n" for number in judged)
        )
        rows = [f"q{number}\t{shown[QUERIES[number]][3].id}\t1\n" for number in judged]
        (tmp_path / "q.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *rows]))
        given = ("--traces", spans, "--annotations", annotations, "--thumb", "user_feedback")
        decide = ("--queries", "q.jsonl", "--qrels", "q.tsv")
        code, _, err = run("improve", "docs", *given, *decide, "--out", "better", *at, "--model", model)
        assert code == 0, err
        report = report_of(tmp_path / "better")
        assert report["decide_queries"] == ASKED // 2 and report["trained"] is not None
        promote = ("promote", "run", "docs", "--model", "better/model", *at)
        if not report["promotable"]:
            code, _, err = run(*promote)
            assert code == 1 and "keeps its encoder" in err
        code, out, err = run(*promote, "--force")
        assert code == 0, err
        adapter = CollectionManager(client).open("docs").adapter
        assert adapter is not None and out.splitlines()[-1] == f"docs serves {encoder.space} with {adapter} from docs-1"
