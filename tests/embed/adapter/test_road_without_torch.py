"""Where there is no torch, as on the base installation: a log becomes an adapter that is proved, and serves."""

from __future__ import annotations

import json
import random
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from command_line import error_line
from light import run_light
from models import save_model
from tiny_words import SENTENCE

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter.unlabelled import whitening
from llama_index_embed_plus.training.proof.report import read_report
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import Feedback, LoggedHit, LoggedSearch, RetrievalLog
from qdrant_tools.records import Passage
from qdrant_tools.search.dense import search
from qdrant_tools.validation import unit_rows

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LOGGED, JUDGED = 100, 60
SHOWN = 10
ALSO_EXTRA = ("onnx", "safetensors", "mteb", "sklearn", "scipy")
RUN = """
import sys
from llama_index_embed_plus.cli import main
for words in {commands!r}:
    sys.argv = ["embed-plus", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (words, stop.code)
"""


def texts(count, length, seed):
    """Different texts of words that the model knows."""
    chance, words = random.Random(seed), SENTENCE.split()[:-6]
    found = {" ".join(chance.sample(words, length)): None for _ in range(count)}
    assert len(found) == count
    return list(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An artifact, a collection, a log of clicks and judged queries. People like what would be the first if passages
    did not lie alike in some directions."""
    folder = tmp_path_factory.mktemp("road")
    save_model(folder / "weights")
    export_onnx(folder / "weights", folder / "base")
    encoder = open_encoder(folder / "base")
    passages = [Passage(f"p{i}", text) for i, text in enumerate(texts(200, 14, seed=1))]
    queries = texts(LOGGED + JUDGED, 5, seed=2)
    with closing(connect(folder / "here")) as client:
        manager = CollectionManager(client)
        collection = manager.ensure("docs-1", encoder)
        index_passages(collection, passages, encoder)
        manager.switch_alias("docs", "docs-1")
        shown = [search(collection, query, encoder, k=SHOWN) for query in queries[:LOGGED]]
    vectors = encoder.encode_passages([passage.text for passage in passages])
    liking = unit_rows(encoder.encode_queries(queries) @ whitening(vectors, strength=1.0, floor=0.3)) @ vectors.T
    with RetrievalLog(folder / "log.sqlite") as log:
        log.extend(_clicked(number, queries[number], hits, liking[number]) for number, hits in enumerate(shown))
    rows = [json.dumps({"_id": f"q{i}", "text": queries[i]}) + "\n" for i in range(LOGGED, LOGGED + JUDGED)]
    (folder / "q.jsonl").write_text("".join(rows))
    best = [f"q{i}\tp{liking[i].argmax()}\t1\n" for i in range(LOGGED, LOGGED + JUDGED)]
    (folder / "q.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *best]))
    return folder


def _clicked(number, query, hits, liking):
    at = NOON + timedelta(minutes=number)
    liked = max(hits, key=lambda hit: liking[int(hit.id[1:])])
    listed = tuple(LoggedHit(hit.id, hit.rank, hit.score) for hit in hits)
    return LoggedSearch(f"s{number}", at, query, "docs", "", listed, (Feedback(liked.id, "click", 1.0, at),))


def served(place):
    """The adapter that serves `docs`, None for none."""
    with closing(connect(place / "here")) as client:
        return CollectionManager(client).open("docs").adapter


def test_a_log_becomes_a_proved_adapter_that_serves_where_there_is_no_torch(place):
    here, judged = ("--location", "here"), ("--queries", "q.jsonl", "--qrels", "q.tsv", "--shared-passages")
    query = json.loads((place / "q.jsonl").read_text().splitlines()[0])["text"]
    commands = (
        ("mine", "docs", "log.sqlite", "--out", "examples.jsonl", "--model", "base", *here),
        ("train", "docs", "--method", "adapter", "--examples", "examples.jsonl", "--model", "base", "--out", "adapted")
        + (*judged, "--drop-leaks", *here),
        ("prove", "docs", "--model", "adapted", *judged, "--drop-leaks", *here),
        ("promote", "run", "docs", "--model", "adapted", *here),
        ("search", "docs", query, "-k", "1", "--json", "--model", "base", *here),
    )
    done = run_light(RUN.format(commands=commands), *ALSO_EXTRA, folder=place)
    assert done.returncode == 0, done.stderr
    report, base, adapted = (
        read_report(place / "adapted"),
        open_encoder(place / "base"),
        open_encoder(place / "adapted"),
    )
    assert report.promotable and report.proof.changes[0].low > 0 and report.proof.queries == JUDGED, report.verdict
    assert served(place) == adapted.adapter.build
    *_, promoted, found = done.stdout.splitlines()
    assert promoted == f"docs serves {base.space} with {served(place)} from docs-1"
    hit = json.loads(found)
    passage = base.encode_passages([hit["text"]])[0]
    by_adapter, by_base = (float(encoder.encode_queries([query])[0] @ passage) for encoder in (adapted, base))
    assert hit["score"] == pytest.approx(by_adapter, abs=1e-4) and abs(by_adapter - by_base) > 1e-3


def test_an_adapter_of_the_passages_alone_is_not_promoted_unless_that_is_forced(run, place, tmp_path):
    """Without examples and without judged queries nothing is measured, on the day of installation."""
    here = ("--location", place / "here")
    bare = ("train", "docs", "--method", "adapter", "--model", place / "base", "--out", "unlabelled", "--no-plot")
    code, out, err = run(*bare, *here)
    assert code == 0 and "made without labels: " in out, err
    before = served(place)
    promote = ("promote", "run", "docs", "--model", "unlabelled", *here)
    code, _, err = run(*promote)
    line = error_line(err)
    assert code == 1 and "'docs' keeps its encoder: not measured on held-out queries" in line and "--force" in line
    assert served(place) == before
    code, _, err = run(*promote, "--force")
    assert code == 0, err
    unproved = open_encoder(tmp_path / "unlabelled").adapter.build
    assert served(place) == unproved and unproved != before
