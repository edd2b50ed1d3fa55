"""Logs, judgements and examples whose ids are spelled as strangers spell them: matched if that is certain, else shown.

File names of macOS are decomposed, those of everybody else composed: one id. Another case, folders, an ending, a URL or
what a spreadsheet made of a number is a way of writing that a person has to settle: the message has one of each.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models
from tiny import DirectionEncoder

from llama_index_embed_plus.errors import LeakError
from llama_index_embed_plus.evaluate.retrieval.exact import embed_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_held_out, read_qrels, read_queries, read_run
from llama_index_embed_plus.evaluate.retrieval.report import score_run
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.training.adapter.read import read_data
from llama_index_embed_plus.training.data.splits import check_leak
from llama_index_embed_plus.training.proof.corpus import SearchCorpus
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import Layout
from qdrant_tools.collections.points import fetch
from qdrant_tools.debias import aggregate, clicked_as_positive, clicks, fit_click_model, inverse_propensity
from qdrant_tools.errors import InputError, PlusError
from qdrant_tools.files.rows import read_rows
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import LogColumns, LoggedHit, LoggedSearch, read_log
from qdrant_tools.log.records import Feedback
from qdrant_tools.mining import MiningSettings, mine, mine_to_jsonl, read_examples
from qdrant_tools.monitor.canary import read_canaries, run_canaries
from qdrant_tools.records import HeldOut, Passage, Query
from qdrant_tools.same import id_key, respelled, spelled, unlike_spelling

FILES = Path(__file__).with_name("ids")
COLUMNS = LogColumns(search="search", hit="doc", feedback={"click": "clicked"})
OPEN = MiningSettings(max_share=None, duplicate_similarity=None)
PASSAGES = [Passage(row.text("id"), row.text("text")) for row in read_rows(FILES / "passages.jsonl")]
CAFE, ABOUT, NAIVE, KOREAN, PLAIN, _, UUID, NUMBER = (passage.id for passage in PASSAGES)


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


MINED = {
    "log_decomposed.csv": [("order coffee", [CAFE]), ("who we are", [ABOUT]), ("korean reset", [KOREAN])],
    "log_composed.csv": [("naive bayes", [NAIVE])],
    "log_two_spellings.jsonl": [("Order coffee?", [CAFE])],
    "log_query_spellings.jsonl": [("How do I reset my password?", [PLAIN, KOREAN, CAFE])],
    "log_mostly_known.csv": [("order coffee", [CAFE]), ("install the app", ["docs/a.md#0"])],
}
REFUSED = {
    "log_other_case.csv": "none of the 2 positives of the labels is in the collection: 'Docs/Plain.md' is not in "
    "'docs', which has 'docs/plain.md'",
    "log_file_names.csv": "'a.md' is not in 'docs', which has 'docs/a.md#0'",
    "log_windows_paths.csv": r"'docs\\plain.md' is not in 'docs', which has 'docs/plain.md'",
    "log_urls.csv": "'https://help.example.org/docs/plain.md/' is not in 'docs', which has 'docs/plain.md'",
    "log_escaped.csv": f"'docs/caf%C3%A9.md' is not in 'docs', which has '{CAFE}'",
    "log_uuid_without_dashes.csv": f"'{{550E8400E29B41D4A716446655440000}}' is not in 'docs', which has '{UUID}'",
    "log_pandas_floats.csv": "'17.0' is not in 'docs', which has '17'",
    "log_leading_zeros.csv": "'0017' is not in 'docs', which has '17'",
    "log_of_another_collection.csv": "'zendesk-4711' is not in 'docs', which has ids such as",
}
JUDGED = {
    "qrels_decomposed.tsv": None,
    "qrels_one_unknown.tsv": f"1 judged passages .* count as not found: 'naïve' is not in 'docs', which has '{NAIVE}'",
    "qrels_other_case.tsv": "none of the 2 judged passages is among those that are searched: 'DOCS/CAFÉ.MD' is not "
    f"in 'docs', which has '{CAFE}'",
    "qrels_two_grades.tsv": f"query 'q-é' and passage '{CAFE}' have the grades 1 and 2",
    "qrels_of_other_queries.tsv": "none of the 2 queries has a judgement in the 2 qrels: the qrels say 'Q-É', the "
    "queries 'q-é'",
}
OTHERS = {
    "passages.jsonl",
    "queries.jsonl",
    "run_decomposed.trec",
    "canaries_decomposed.jsonl",
    "examples_decomposed.jsonl",
    "examples_other_case.jsonl",
}


@pytest.fixture(scope="module")
def encoder():
    return DirectionEncoder(dimension=256)


@pytest.fixture(scope="module", params=["memory", "folder"])
def docs(request, encoder, tmp_path_factory):
    place = ":memory:" if request.param == "memory" else tmp_path_factory.mktemp("ids") / "qdrant"
    with closing(connect(place)) as client:
        collection = CollectionManager(client).ensure("docs", encoder)
        index_passages(collection, PASSAGES, encoder)
        yield collection


def test_every_file_is_in_a_table():
    assert {file.name for file in FILES.iterdir()} == MINED.keys() | REFUSED.keys() | JUDGED.keys() | OTHERS


def labels_of(name):
    return aggregate(clicked_as_positive(read_log(FILES / name, COLUMNS)))


@pytest.mark.parametrize("name", MINED)
def test_a_log_is_matched_with_the_collection(docs, encoder, name, tmp_path):
    result = mine(docs, labels_of(name), encoder, settings=OPEN)
    assert [(e.query, [p.id for p in e.positives]) for e in result.examples] == MINED[name]
    for example in result.examples:
        assert not {p.id for p in example.positives} & {n.id for n in example.negatives} and example.negatives
    report = mine_to_jsonl(docs, labels_of(name), encoder, path=tmp_path / "mined.jsonl", settings=OPEN)
    written = [example.as_row() for example in read_examples(tmp_path / "mined.jsonl")]
    assert written == [example.as_row() for example in result.examples]
    assert report.notes == result.notes
    unknown = "1 positives are not in the collection, or have no text: 'docs/PLAIN.md' is not in 'docs', which has"
    assert [note.startswith(unknown) for note in result.notes] == [True] * (name == "log_mostly_known.csv")


@pytest.mark.parametrize("name", REFUSED)
def test_a_log_of_other_ids_is_refused_with_an_example(docs, encoder, name, tmp_path):
    with pytest.raises(InputError) as caught:
        mine(docs, labels_of(name), encoder)
    assert REFUSED[name] in str(caught.value) and "\n" not in str(caught.value)
    assert "write the ids as the collection does" in str(caught.value)
    with pytest.raises(InputError, match="none of the"):
        mine_to_jsonl(docs, labels_of(name), encoder, path=tmp_path / "mined.jsonl")
    assert not (tmp_path / "mined.jsonl").exists()


def test_if_most_ids_miss_it_is_said_at_once(docs, encoder, caplog):
    labels = [
        label for name in ("log_other_case.csv", "log_urls.csv", "log_decomposed.csv") for label in labels_of(name)
    ]
    labels += labels_of("log_file_names.csv")
    result = mine(docs, labels, encoder, settings=OPEN)
    assert len(result.examples) == 3 and "4 positives are not in the collection" in result.notes[0]
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "4 of the first 7 positives of the labels are not in the collection" in record.getMessage()
    assert "which has 'docs/plain.md'" in record.getMessage()


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.parametrize("searched", ["collection", "vectors"])
def test_judgements_are_matched_with_what_is_searched(docs, encoder, name, searched):
    corpus = docs if searched == "collection" else embed_passages(PASSAGES, encoder)
    queries, qrels, words = read_queries(FILES / "queries.jsonl"), read_qrels(FILES / name), JUDGED[name]
    if searched == "vectors" and words:
        words = words.replace("not in 'docs', which has", "not among the passages, which have")
    if words and not words.startswith("1 judged"):
        with pytest.raises(InputError, match=words):
            evaluate_retrieval(corpus, queries, qrels, encoder, k=2)
        return
    report = evaluate_retrieval(corpus, queries, qrels, encoder, k=2)
    assert list(report.ndcg) == ["q-é", "q2"] and report.ndcg["q-é"] == 1.0
    if words is None:
        assert report.ndcg["q2"] == 1.0 and report.coverage.notes() == []
    else:
        (note,) = report.coverage.notes()
        assert report.ndcg["q2"] == 0.0 and report.coverage.unknown_passages == 1
        assert re.fullmatch(words, note)


def test_a_run_is_matched_with_its_judgements():
    run, queries = read_run(FILES / "run_decomposed.trec"), read_queries(FILES / "queries.jsonl")
    for qrels in (read_qrels(FILES / "qrels_decomposed.tsv"), {"q-é": {CAFE: 1}, "q2": {composed(NAIVE): 1}}):
        for asked in (queries, None):
            report = score_run(run, qrels, queries=asked, k=2)
            assert sorted(report.ndcg.values()) == [1.0, 1.0] and report.coverage.notes() == []
    # one system that spells passages in two ways
    mixed = {"a": {CAFE: 1.0}, "b": {decomposed(CAFE): 1.0}}
    assert set(score_run(mixed, {"a": {CAFE: 1}, "b": {CAFE: 1}}, k=1).ndcg.values()) == {1.0}


def test_canaries_are_found_by_either_spelling(docs, encoder):
    report = run_canaries(docs, read_canaries(FILES / "canaries_decomposed.jsonl"), encoder, k=2)
    assert report.passed and report.mean == 1.0


def test_an_adapter_is_fitted_to_the_passages_that_are_meant(docs, encoder):
    examples = list(read_examples(FILES / "examples_decomposed.jsonl"))
    data = read_data(docs, examples, encoder, AdapterSettings()).data
    assert all(len(rows) == 1 for rows in data.answers)
    stored = data.stored[[rows[0] for rows in data.answers]]
    expected = encoder.encode_passages(["order coffee in the café", "naive bayes in one page"])
    assert abs(stored - expected).max() < 1e-6, "a positive under two spellings is one row"
    assert len(data.hard) == 2
    with pytest.raises(PlusError, match="'DOCS/CAFÉ.MD' is not in 'docs', which has"):
        read_data(docs, list(read_examples(FILES / "examples_other_case.jsonl")), encoder, AdapterSettings())


def test_held_out_queries_are_measured_and_kept_apart_by_either_spelling(docs, encoder):
    with pytest.raises(InputError, match="none of the 2 queries"):
        evaluate_retrieval(docs, read_queries(FILES / "queries.jsonl"), {"other": {CAFE: 1}}, encoder)
    held_out = HeldOut((Query("h", "hot drinks"),), {"h": {decomposed(CAFE): 1, composed(NAIVE): 0}})
    for corpus in (SearchCorpus(held_out, docs, most=2, seed=0), SearchCorpus(_with(held_out), None, most=2, seed=0)):
        assert CAFE in corpus.ids and corpus.qrels["h"][CAFE] == 1
    with pytest.raises(InputError, match="'docs/CAFÉ.md' is not in 'docs', which has"):
        SearchCorpus(HeldOut((Query("h", "x"),), {"h": {"docs/CAFÉ.md": 1}}), docs, most=2, seed=0)
    with pytest.raises(LeakError, match="1 by same passage"):
        check_leak(
            list(read_examples(FILES / "examples_decomposed.jsonl")), HeldOut((Query("h", "x"),), {"h": {CAFE: 1}})
        )
    assert read_held_out(FILES / "queries.jsonl", FILES / "qrels_one_unknown.tsv").answerable


def _with(held_out):
    return HeldOut(held_out.queries, held_out.qrels, tuple(PASSAGES))


def test_clicks_are_those_on_what_was_shown_by_either_spelling(docs):
    at = next(iter(read_log(FILES / "log_decomposed.csv", COLUMNS))).at
    search = LoggedSearch(
        "s", at, "Order coffee?", hits=(LoggedHit(CAFE, 1), LoggedHit(NAIVE, 2)),
        feedback=(Feedback(decomposed(CAFE), "click", 1.0, at),),
    )  # fmt: skip
    again = LoggedSearch(
        "t", at, "order coffee", hits=(LoggedHit(decomposed(CAFE), 2), LoggedHit(NAIVE, 1)),
        feedback=(Feedback(CAFE, "click", 1.0, at),),
    )  # fmt: skip
    assert clicks(search) == [CAFE] and clicks(again) == [decomposed(CAFE)]
    (label,) = aggregate(clicked_as_positive([search, again]))
    assert (label.query, label.passage_id, label.evidence) == ("Order coffee?", CAFE, "click x2")
    model = fit_click_model([search, again])
    assert len(model.attraction) == 2 and model.repeated == 2
    assert {(each.query, each.passage_id) for each in inverse_propensity([search, again], model)} >= {
        ("Order coffee?", CAFE)
    }


def test_two_passages_whose_ids_are_one_are_found_exactly_or_not_at_all(encoder):
    both = [composed("å-ö"), decomposed("å-ö")]
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("both", encoder)
        index_passages(collection, [Passage(name, f"text {n}") for n, name in enumerate(both)], encoder)
        assert [fetch(collection, [name])[name].text for name in both] == ["text 0", "text 1"]
        mixed = composed("å") + decomposed("-ö")
        with pytest.raises(InputError, match=r"the id .* may be .*xe5-.* and .*u030a.*, which differ by composed"):
            fetch(collection, [mixed])
    assert spelled(both, both) == {name: name for name in both}
    with pytest.raises(InputError, match="write one of them as it is"):
        spelled([mixed], both)


def test_a_foreign_collection_is_asked_for_its_own_spelling(encoder, tmp_path):
    names = [CAFE, NAIVE, 17, "18"]
    with closing(connect(tmp_path / "qdrant")) as client:
        client.create_collection("theirs", models.VectorParams(size=256, distance=models.Distance.COSINE))
        vectors = encoder.encode_passages([f"text {n}" for n in range(4)]).tolist()
        points = [
            models.PointStruct(id=n, vector=vector, payload={"doc": name, "body": f"text {n}"})
            for n, (name, vector) in enumerate(zip(names, vectors, strict=True))
        ]
        client.upsert("theirs", points)
        collection = CollectionManager(client).adopt(
            "theirs", encoder, layout=Layout("theirs", id="doc", text="body", metadata="")
        )
        found = fetch(collection, [decomposed(CAFE), composed(NAIVE), "17", "18", "017"])
        assert {name: passage.text for name, passage in found.items()} == {
            decomposed(CAFE): "text 0", composed(NAIVE): "text 1", "17": "text 2", "18": "text 3"
        }  # fmt: skip


NAMES = st.text(st.sampled_from("aéü/ñ.-가ạ̊1K"), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.lists(NAMES, unique_by=id_key, max_size=6), st.lists(NAMES, max_size=4), st.data())
def test_every_id_is_found_in_every_form_and_no_other(stored, others, data):
    form = st.sampled_from([composed, decomposed, str])
    stored = [data.draw(form)(name) for name in stored]
    asked = [data.draw(form)(name) for name in stored]
    assert [spelled([name], stored) for name in asked] == [{name: own} for name, own in zip(asked, stored)]
    keys = set(map(id_key, stored))
    assert spelled(others, stored).keys() == {name for name in others if id_key(name) in keys}
    assert respelled({"q": dict.fromkeys(asked, 1)}, spelled(asked, stored)) == {"q": dict.fromkeys(stored, 1)}
    example = unlike_spelling(asked, stored)
    assert example is None


@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"[a-z]{2,6}(-[a-z]{2,5})?", fullmatch=True), st.data())
def test_a_way_of_writing_is_recognised(stem, data):
    way = data.draw(
        st.sampled_from(
            ["{}.md", "docs/{}", "docs\\{}.html", "https://a.example/b/{}/", "{}#3", "./{}", " {} ", "/{}", "{}?v=2"]
        )
    ).format(data.draw(st.sampled_from([str.upper, str.title, str.lower]))(stem))
    assert unlike_spelling([way], ["another one", f"kb/{stem}.txt"]) == (way, f"kb/{stem}.txt")
    assert unlike_spelling([f"kb/{stem}.txt"], [way, "another one"]) == (f"kb/{stem}.txt", way)
    assert unlike_spelling(["nothing"], ["another one", "thing"]) is None
