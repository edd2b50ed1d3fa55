"""`embed-plus evaluate`: one system, two systems, files that do not fit together, and what it writes."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import ir_measures
import pytest
from command_line import error_line
from models import SENTENCE, save_model

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.cli.systems import filter_of
from llama_index_embed_plus.evaluate.retrieval.exact import embed_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_run, write_qrels, write_queries
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.export.export import export_onnx
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage, Query
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.fusion import Fusion

WORDS = [word for word in SENTENCE.split() if word.isalpha()][6:]
TEXTS = list(
    dict.fromkeys(f"{a} {b} {c} {d}" for a, b, c, d in zip(WORDS * 40, WORDS[3:] * 41, WORDS[5:] * 43, WORDS[7:] * 47))
)
PASSAGES = [Passage(f"p{i}", text, {"even": i % 2 == 0}) for i, text in enumerate(TEXTS[:90])]
QUERIES = [Query(f"q{i}", PASSAGES[i].text.rpartition(" ")[0]) for i in range(0, 90, 4)]
QRELS = {f"q{i}": {f"p{i}": 2, f"p{(i + 34) % 90}": 1, f"p{(i + 5) % 90}": 0} for i in range(0, 90, 4)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two tiny models of different spaces."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two")):
        save_model(root / name, seed=seed)
    return root


@pytest.fixture(scope="module")
def location(models, tmp_path_factory):
    """A folder with the collections `one`, with BM25, and `two`, each of its model."""
    folder = tmp_path_factory.mktemp("qdrant")
    with closing(connect(folder)) as client:
        for name, settings in (("one", CollectionSettings(lexical=Bm25())), ("two", CollectionSettings())):
            encoder = open_encoder(models / name)
            collection = CollectionManager(client).ensure(name, encoder, settings=settings)
            index_passages(collection, PASSAGES, encoder)
            build_index(collection)
    return folder


@pytest.fixture
def judged(run, tmp_path):
    """The options that name queries and judgements."""
    write_queries(tmp_path / "queries.jsonl", QUERIES)
    write_qrels(tmp_path / "qrels.tsv", QRELS)
    return "--queries", "queries.jsonl", "--qrels", "qrels.tsv"


@pytest.fixture
def evaluate(run, judged, location, models):
    """Run `embed-plus evaluate one ARGS` with the files, the location and the first model."""

    def evaluate(*args, collection=("one",)):
        return run("evaluate", *collection, *judged, "--location", location, "--model", models / "one", *args)

    return evaluate


def test_the_printed_means_are_those_of_an_outside_implementation_on_the_written_run(evaluate, tmp_path):
    code, out, err = evaluate("-k", 10, "-k", 3, "--write-run", "out.trec")
    assert code == 0, err
    printed = {cells[0]: float(cells[1]) for line in out.splitlines() if "@" in (cells := line.split())[0]}
    assert len(printed) == 14 and out.startswith("23 queries measured")
    names = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "map@3": "AP@3", "precision@3": "P@3", "hit_rate@3": "Success@3"}
    found = ir_measures.calc_aggregate(
        map(ir_measures.parse_measure, names.values()), QRELS, list(ir_measures.read_trec_run("out.trec"))
    )
    for ours, theirs in names.items():
        assert printed[ours] == pytest.approx(found[ir_measures.parse_measure(theirs)], abs=5e-5)
    assert out.splitlines()[-1] == "wrote out.trec"


def comparison(evaluate, *args, **how):
    code, out, err = evaluate(*args, "--json", **how)
    assert code == 0, err
    row = json.loads(out)
    assert len(row["systems"]) == 2
    return row["comparison"]


def test_two_systems_are_compared_in_one_command(evaluate, models):
    for settings in (
        ("mode=hybrid",),
        ("mode=lexical",),
        ("exact=yes",),
        ("hnsw-ef=8",),
        ('filter={"even": true}',),
        ("collection=two", f"model={models / 'two'}"),
    ):
        found = comparison(evaluate, *(part for each in settings for part in ("--against", each)))
        test = found["tests"]["ndcg@10"]
        assert (found["before"], found["after"]) == ("one", " ".join(settings))
        assert test["low"] <= test["difference"] <= test["high"] and 0 < test["p_value"] <= 1
        assert test["better"] + test["worse"] + test["same"] == 23
        assert test["difference"] == pytest.approx(test["after"] - test["before"], abs=1e-12)
    exact = comparison(evaluate, "--against", "exact=yes")
    assert exact["tests"]["ndcg@10"]["same"] == 23 and exact["tests"]["ndcg@10"]["p_value"] == 1.0


def test_passages_are_searched_exactly_without_a_collection(evaluate, tmp_path, models):
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(p.as_row()) + "\n" for p in PASSAGES))
    plain = ("--passages", "passages.jsonl")
    alone = json.loads(evaluate(*plain, "--json", collection=())[1])["systems"][0]
    stored = json.loads(evaluate("--exact", "--json")[1])["systems"][0]
    assert alone["means"] == pytest.approx(stored["means"], abs=1e-12) and alone["name"] == "passages.jsonl"
    other = comparison(evaluate, *plain, "--against", f"model={models / 'two'}", collection=())
    assert other["tests"]["ndcg@10"]["before"] == alone["means"]["ndcg@10"]


def test_int8_is_compared_with_fp32_on_both_sides(evaluate, tmp_path, models):
    export_onnx(models / "one", tmp_path / "served", precision="int8", force=True)
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(p.as_row()) + "\n" for p in PASSAGES))
    model = ("--model", tmp_path / "served", "--backend", "onnx-fp32")
    found = comparison(
        evaluate, "--passages", "passages.jsonl", *model, "--against", "backend=onnx-int8", collection=()
    )
    fp32, int8 = (open_encoder(tmp_path / "served", backend=f"onnx-{name}") for name in ("fp32", "int8"))
    for encoder, side in ((fp32, "before"), (int8, "after")):
        alone = evaluate_retrieval(embed_passages(PASSAGES, encoder), QUERIES, QRELS, encoder)
        assert {name: test[side] for name, test in found["tests"].items()} == pytest.approx(alone.means(), abs=1e-12)


def test_a_run_of_yesterday_is_compared_with_the_collection_of_today(evaluate):
    assert evaluate("--write-run", "old.trec", "--against", "mode=lexical")[0] == 0
    assert read_run_lengths("old.trec") and read_run_lengths("old.against.trec")
    found = comparison(evaluate, "--against", "run=old.trec")
    assert found["tests"]["ndcg@10"]["same"] == 23
    backwards = comparison(evaluate, "--run", "old.trec", "--against", "run=old.against.trec", collection=())
    lexical = comparison(evaluate, "--against", "mode=lexical")
    assert backwards["tests"] == lexical["tests"]


def read_run_lengths(path):
    return {len(scores) for scores in read_run(Path(path)).values()}


def test_people_see_the_table_the_verdict_and_the_queries(evaluate):
    _, _, err = evaluate()
    assert err.splitlines()[-1].startswith("next: embed-plus evaluate one --queries ")
    assert "--against mode=hybrid" in err.splitlines()[-1]
    _, out, err = evaluate("--against", "mode=lexical", "--show", 2)
    assert err.splitlines()[-1].startswith("next: embed-plus tune one")
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["one", "mode=lexical", "difference"]
    assert lines[2].startswith("ndcg@10 ") and len(lines[2].split()) == 11
    assert any(line.startswith("by ndcg@10, mode=lexical is ") for line in lines)
    row = comparison(evaluate, "--against", "mode=lexical", "--show", 2)
    for title, key in (("better with mode=lexical:", "improved"), ("worse with mode=lexical:", "worsened")):
        assert (title in lines) == bool(row[key])
        for place, change in enumerate(row[key], start=1):
            line = lines[lines.index(title) + place]
            assert line.split()[0] == f"{change['difference']:+.3f}" and change["text"] in line
    assert row["improved"] or row["worsened"]


def test_the_values_of_every_query_are_written(evaluate, tmp_path):
    found = comparison(evaluate, "--against", "mode=lexical", "--per-query", "values.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "values.jsonl").read_text().splitlines()]
    assert {row["query"]: row["text"] for row in rows} == {query.id: query.text for query in QUERIES}
    for side, place in (("before", 0), ("after", 1)):
        for name, test in found["tests"].items():
            assert sum(row["values"][place][name] for row in rows) / 23 == pytest.approx(test[side], abs=1e-12)


def test_a_picture_is_written_of_one_system_or_of_two(evaluate, tmp_path):
    assert evaluate("--plot", "one.png")[0] == 0
    assert evaluate("--plot", "two.png", "--against", "mode=lexical")[0] == 0
    for name in ("one.png", "two.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_what_does_not_fit_together_is_counted_in_the_report(evaluate, tmp_path):
    write_queries(tmp_path / "queries.jsonl", [*QUERIES, Query("q1", "cat")])
    write_qrels(tmp_path / "qrels.tsv", QRELS | {"q4": {"gone": 1}, "q8": {"p8": 0}, "q999": {"p1": 1}})
    counts = json.loads(evaluate("--json")[1])["systems"][0]["counts"]
    assert counts == {
        "queries": 23, "without_judgement": 1, "unknown_queries": 1, "unknown_passages": 1, "without_relevant": 1,
        "without_results": 0, "own_passages_ignored": 0, "identical_ids_kept": 0, "cut_documents": 0,
    }  # fmt: skip
    _, out, _ = evaluate()
    assert "  1 queries have no judgement and were left out" in out.splitlines()
    assert "  1 judged queries were not asked and were left out" in out.splitlines()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq0\tp0\tgood\n", "qrels.tsv:2: the grade is 'good'"),
        ("qrels.tsv", "nobody 0 p0 1\n", "none of the 23 queries has a judgement"),
        ("queries.jsonl", '{"id": "q0", "text": ""}\n', "queries.jsonl:1: text is ''"),
        ("queries.jsonl", "", "queries.jsonl holds no queries"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(evaluate, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    code, out, err = evaluate()
    assert (code, out) == (1, "") and message in error_line(err)


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("hybrid", "expected KEY=VALUE with one of the keys collection, passages, run, location, model"),
        ("speed=high", "expected KEY=VALUE"),
        ("mode=sparse", "expected one of dense, hybrid, lexical"),
        ("exact=maybe", "expected one of yes, no"),
        ("hnsw-ef=many", "expected a whole number"),
        ("filter=even", "the filter is no JSON"),
        ("backend=abacus", "expected one of auto, torch"),
        ("collection=", "an empty value"),
    ],
)
def test_a_wrong_setting_of_the_other_system_is_wrong_usage(evaluate, against, message):
    code, _, err = evaluate("--against", against)
    assert code == 2 and message in error_line(err)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"doc.type": "map", "year": {"gte": 2020}}', {"doc.type": "map", "year": {"gte": 2020}}),
        ('[["doc.type", "map"]]', {"doc.type": "map"}),
        ('[[["author", "name"], "Ann"], ["year", [2019, 2020]]]', {("author", "name"): "Ann", "year": [2019, 2020]}),
        ('[[["parts", null, "page"], 2]]', {("parts", None, "page"): 2}),
        (None, None),
    ],
)
def test_a_filter_is_an_object_or_pairs_of_a_field_and_its_condition(text, expected):
    assert filter_of(text, "--filter") == expected


@pytest.mark.parametrize(
    "text", ["[1]", '[["a"]]', '[[["a", ["b"]], 1]]', '[[{"a": 1}, 1]]', "[[1, 2]]", '"a"', "[[[[]], 1]]"]
)
def test_a_filter_that_is_neither_says_both(text):
    with pytest.raises(UsageError, match=r"expected a JSON object, .* or a list of pairs, for fields inside others"):
        filter_of(text, "--filter")


def test_settings_that_cannot_be_honoured_are_wrong_usage(evaluate):
    for args, collection, message in (
        ((), (), "expected one of a collection, passages and a run to measure, found none"),
        (("--run", "x.trec"), ("one",), "found collection and run"),
        (("--run", "x.trec", "--exact"), (), "are for a collection, not for run"),
        (("--mode", "hybrid", "--exact"), ("one",), "exact and hnsw_ef are for the mode 'dense'"),
        (("--against", "mode=lexical", "--against", "mode=hybrid"), ("one",), "names 'mode' twice"),
        (("--against", "mode=lexical", "--against", "model=x"), ("one",), "--against model=... changes nothing"),
        (("--against", "run=x.trec", "--against", "backend=torch"), ("one",), "--against backend=... changes nothing"),
        (("--against", "run=x.trec", "--against", "mode=hybrid"), ("one",), "are for a collection, not for run"),
        (("--filter", "[1]"), ("one",), "expected a JSON object"),
    ):
        code, _, err = evaluate(*args, collection=collection)
        assert code == 2 and message in error_line(err)


def test_a_model_of_another_space_and_an_unknown_collection_are_one_line(evaluate, models):
    code, _, err = evaluate("--against", f"model={models / 'two'}")
    assert code == 1 and "holds vectors of" in error_line(err) and "this encoder makes" in error_line(err)
    code, _, err = evaluate(collection=("three",))
    assert code == 1 and "'three'" in error_line(err)


def test_judged_queries_choose_the_words_and_the_fusion_of_a_hybrid_search(run, judged, location, models):
    def tune(collection, *args):
        return run("tune", collection, "--location", location, "--model", models / "one", *args)

    code, out, err = tune("one", *judged)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "one: 90 passages, 23 judged queries, nDCG@10", err
    assert [line.split()[1] for line in lines[1:3]] == ["vectors", "words"]
    assert any(line.startswith("Bm25(k1=1.2, b=0.75), Fusion('dbsf') ") for line in lines[3:])
    assert any(line.startswith(("stay with Bm25(", "Bm25(")) and "out of fold" in line for line in lines)
    row = json.loads(tune("one", *judged, "--json")[1])
    assert (row["queries"], row["k"], row["now"]["k1"]) == (23, 10, 1.2) and len(row["trials"]) >= 100
    for wrong, expected in (
        (("two", *judged), "collection 'two' has no lexical vectors"),
        (("one", *judged[2:]), "--qrels chooses the words and the fusion of a hybrid search: give --queries too"),
        (("one", *judged, "--m", "8"), "leave out --m"),
        (("one", *judged, "--plot", "x.png"), "leave out --plot"),
    ):
        code, _, err = tune(*wrong)
        assert code in (1, 2) and expected in err


@pytest.fixture
def parts(run, tmp_path, models):
    """A collection with words that judged queries prove to find better by scores or by words: queries of rare words."""
    rows = [{"id": f"p{i}", "text": f"{text} code{i} " * 2} for i, text in enumerate(TEXTS[:40])]
    (tmp_path / "parts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    write_queries(tmp_path / "queries.jsonl", [Query(f"q{i}", f"{TEXTS[(i + 7) % 40]} code{i}") for i in range(40)])
    write_qrels(tmp_path / "qrels.tsv", {f"q{i}": {f"p{i}": 1} for i in range(40)})
    at = ("--location", "data", "--model", models / "one")
    assert run("index", "parts", "parts.jsonl", "--lexical", "--k1", 0.4, "--b", 1, "--fusion", "rrf", *at)[0] == 0
    return at


def test_what_tune_chose_is_kept_and_used_by_search_and_evaluate(run, parts):
    def described():
        with closing(connect(Path("data"))) as client:
            docs = CollectionManager(client).open("parts")
            return docs.lexical, docs.fusion

    judged = ("--queries", "queries.jsonl", "--qrels", "qrels.tsv")
    before, fusion = described()
    assert (before.k1, before.b, fusion) == (0.4, 1.0, Fusion("rrf"))
    code, out, err = run("tune", "parts", *judged, *parts)
    assert code == 0 and "next: embed-plus tune parts --queries queries.jsonl --qrels qrels.tsv --apply" in err, out
    code, out, err = run("tune", "parts", *judged, "--apply", "--json", *parts)
    report = json.loads(out)
    assert code == 0 and report["applied"] and report["proved"], err
    words, fusion = described()
    assert (words.k1, words.b) == (report["chosen"]["k1"], report["chosen"]["b"])
    assert fusion is not None and fusion != Fusion() and fusion.method == report["chosen"]["fusion"]["method"]
    code, out, err = run("evaluate", "parts", *judged, "--mode", "hybrid", "--fusion", "rrf", "--json", *parts)
    plain = json.loads(out)["systems"][0]
    code, out, err = run("evaluate", "parts", *judged, "--mode", "hybrid", "--json", *parts)
    kept = json.loads(out)["systems"][0]
    assert kept["means"]["ndcg@10"] > plain["means"]["ndcg@10"], err
    # as README writes it, of a collection that the command line made
    code, out, err = run("evaluate", "parts", *judged, "--against", "mode=hybrid", *parts)
    assert code == 0 and "by ndcg@10, mode=hybrid is" in out, err
    # what is kept is now what there is
    again = json.loads(run("tune", "parts", *judged, "--apply", "--json", *parts)[1])
    assert again["now"] == report["chosen"] | {"ndcg": again["now"]["ndcg"]} and not again["applied"]
    assert "nothing was changed in parts" in run("tune", "parts", *judged, "--apply", *parts)[1]


def test_a_fusion_is_compared_by_its_name_and_refused_where_it_means_nothing(run, evaluate, location, models):
    code, out, err = evaluate("--mode", "hybrid", "--fusion", "rrf", "--against", "fusion=dbsf")
    assert code == 0 and "fusion=dbsf is " in out, err
    assert evaluate("--mode", "hybrid", "--fusion", "dbsf", "--against", "mode=dense")[0] == 0
    for args, expected in (
        (("--fusion", "dbsf"), "fusion is for the mode 'hybrid', not for 'dense'"),
        (("--mode", "hybrid", "--fusion", "sum"), "--fusion is 'sum', expected 'rrf' (ranks alike), 'rrf:2'"),
        (("--mode", "hybrid", "--against", "fusion=rrf:-1"), "--against 'fusion=rrf:-1' is 'rrf:-1', expected"),
        (("--mode", "hybrid", "--against", "fusion=dbsf:2"), "expected 'rrf' (ranks alike)"),
    ):
        code, _, err = evaluate(*args)
        assert code == 2 and expected in error_line(err)
    code, _, err = run("search", "one", "x", "--fusion", "dbsf", "--location", location, "--model", models / "one")
    assert code == 2 and "--fusion is for --mode hybrid, not for 'dense'" in error_line(err)


def test_hybrid_search_of_the_command_line_is_the_library_s_with_the_fusion_that_is_given(run, location, models):
    with closing(connect(location)) as client:
        docs = CollectionManager(client).open("one", open_encoder(models / "one"))
        (expected,) = docs.search_hybrid([TEXTS[3]], k=3, fusion=Fusion("rrf", lexical_weight=5.0))
    at = ("--location", location, "--model", models / "one")
    code, out, err = run("search", "one", TEXTS[3], "--mode", "hybrid", "--fusion", "rrf:5", "-k", 3, "--json", *at)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["score"] for row in rows] == pytest.approx([hit.score for hit in expected]), err
