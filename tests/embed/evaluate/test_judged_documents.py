"""Judgements that name rows, while the collection holds the parts that these were cut into."""

from __future__ import annotations

import json
import random

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG
from tiny import DirectionEncoder

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.documents.reading import read_passages
from llama_index_embed_plus.evaluate.retrieval.exact import embed_passages
from llama_index_embed_plus.evaluate.retrieval.files import write_qrels, write_queries
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.training.data.splits import find_leaks
from llama_index_embed_plus.training.proof.corpus import SearchCorpus
from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import InputError
from qdrant_tools.monitor.canary import Canary, run_canaries
from qdrant_tools.promotion.verify import Gates, verify_queries
from qdrant_tools.records import Example, HeldOut, Passage, Query, ScoredText
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.sources.judged import document_of

WORDS = [f"word{i}" for i in range(60)]


def texts(seed: int, documents: int = 40, words: int = 40) -> dict[str, str]:
    chosen = random.Random(seed)
    return {f"row{i}": " ".join(chosen.choices(WORDS, k=words)) for i in range(documents)}


def parts_of(passage: Passage, words: int = 8) -> list[Passage]:
    """Parts of eight words, as the cutter names them."""
    split = passage.text.split()
    if len(split) <= words:
        return [passage]
    return [
        Passage(
            f"{passage.id}#{start:012x}",
            " ".join(split[start : start + words]),
            {"document": passage.id, "part": start // words},
        )
        for start in range(0, len(split), words)
    ]


def judged(seed: int, rows: dict[str, str]) -> tuple[list[Query], dict[str, dict[str, int]]]:
    chosen = random.Random(seed)
    queries = [Query(f"q{i}", " ".join(chosen.choices(WORDS, k=3))) for i in range(25)]
    return queries, {q.id: {row: chosen.randint(0, 2) for row in chosen.sample(sorted(rows), 6)} for q in queries}


def outside(encoder, passages, queries, qrels, k=10) -> dict[str, float]:
    """By ir_measures, over the largest score of any part of each document, from all scores."""
    matrix = encoder.encode_passages([passage.text for passage in passages])
    run: dict[str, dict[str, float]] = {}
    for query, row in zip(queries, encoder.encode_queries([query.text for query in queries]), strict=True):
        best: dict[str, float] = {}
        for passage, score in zip(passages, (matrix @ row).tolist(), strict=True):
            document = passage.metadata.get("document", passage.id)
            best[document] = max(score, best.get(document, -9.0))
        run[query.id] = best
    measures = {f"ndcg@{k}": nDCG @ k, f"recall@{k}": R @ k, f"mrr@{k}": RR @ k}
    values = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
    return {name: values[measure] for name, measure in measures.items()}


@pytest.fixture
def encoder():
    return DirectionEncoder("directions", 48)


def filled(encoder, passages, **settings):
    collection = CollectionManager(connect(":memory:")).ensure("docs", encoder, settings=CollectionSettings(**settings))
    collection.index(passages)
    return collection


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("whole", [0, 15])
def test_rows_that_were_cut_are_measured_as_rows(encoder, seed, whole):
    rows = texts(seed) | {f"short{i}": f"word{i} word{i + 1}" for i in range(whole)}
    passages = [part for name, text in rows.items() for part in parts_of(Passage(name, text))]
    queries, qrels = judged(seed + 100, rows)
    expected = outside(encoder, passages, queries, qrels)
    collection, vectors = filled(encoder, passages), embed_passages(passages, encoder)
    for corpus in (collection, vectors):
        report = evaluate_retrieval(corpus, queries, qrels, encoder)
        assert {name: report.means()[name] for name in expected} == pytest.approx(expected, abs=1e-6)
        assert all(len(found) == 10 and not any("#" in name for name in found) for found in report.run.values())
        cut = {name for grades in qrels.values() for name in grades if name.startswith("row")}
        assert report.coverage.cut_documents == len(cut) and report.coverage.unknown_passages == 0
        assert (
            f"{len(cut)} judged documents were cut: the best part counts as its document" in report.coverage.notes()[0]
        )


def test_few_documents_of_many_parts_are_all_found(encoder):
    """The first hits are parts of two documents: the search goes on until there are k documents."""
    passages = [
        Passage(f"{name}#{i:012x}", f"{word} filler{i}", {"document": name, "part": i})
        for name, word in (("a", "honey"), ("b", "honey"), ("c", "wax"), ("d", "wood"))
        for i in range(40)
    ]
    queries, qrels = [Query("q", "honey")], {"q": {"d": 1}}
    for corpus in (filled(encoder, passages), embed_passages(passages, encoder)):
        report = evaluate_retrieval(corpus, queries, qrels, encoder, k=4)
        assert set(report.run["q"]) == {"a", "b", "c", "d"}
        assert report.means()["recall@4"] == 1.0


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
def test_every_way_of_searching_counts_documents(encoder, mode):
    rows = texts(1)
    passages = [part for name, text in rows.items() for part in parts_of(Passage(name, text))]
    queries, qrels = judged(5, rows)
    collection = filled(encoder, passages, lexical=Bm25())
    report = evaluate_retrieval(collection, queries, qrels, encoder, mode=mode)
    assert report.coverage.unknown_passages == 0 and report.means()["recall@10"] > 0
    assert all(name in rows for found in report.run.values() for name in found)


def test_judgements_about_passages_stay_judgements_about_passages(encoder):
    """A field `document` of the rows' own changes nothing where every judged id is a passage."""
    rows = [Passage(name, text, {"document": "manual"}) for name, text in texts(2).items()]
    queries, qrels = judged(3, {row.id: row.text for row in rows})
    plain = [Passage(row.id, row.text) for row in rows]
    found, expected = (
        evaluate_retrieval(filled(encoder, passages), queries, qrels, encoder) for passages in (rows, plain)
    )
    assert found.run == expected.run and found.coverage.cut_documents == 0


def test_documents_beside_their_parts_are_refused(encoder):
    passages = parts_of(Passage("row0", texts(0)["row0"]))
    qrels = {"q0": {"row0": 1, passages[1].id: 1}}
    for corpus in (filled(encoder, passages), embed_passages(passages, encoder)):
        with pytest.raises(InputError, match=r"name documents that were cut, such as 'row0', and parts of documents"):
            evaluate_retrieval(corpus, [Query("q0", "word1")], qrels, encoder)


def test_ids_that_are_neither_are_counted_as_before(encoder):
    passages = parts_of(Passage("row0", texts(0)["row0"]))
    report = evaluate_retrieval(
        filled(encoder, passages), [Query("q0", "word1")], {"q0": {"row0": 1, "nobody": 1}}, encoder
    )
    assert report.coverage.unknown_passages == 1 and "nobody" in report.coverage.unknown_example


def held_out(seed, rows, passages=()):
    queries, qrels = judged(seed, rows)
    return HeldOut(tuple(queries), qrels, tuple(passages))


@pytest.mark.parametrize("in_collection", [True, False])
def test_a_proof_counts_documents(encoder, in_collection):
    rows = texts(7)
    passages = [part for name, text in rows.items() for part in parts_of(Passage(name, text))]
    held = held_out(8, rows, () if in_collection else passages)
    collection = filled(encoder, passages) if in_collection else None
    corpus = SearchCorpus(held, collection, most=1000, seed=0)
    ids = [query.id for query in held.answerable]
    queries = encoder.encode_queries([query.text for query in held.answerable])
    run = corpus.run(corpus.vectors(encoder), ids, queries, k=10)
    report = evaluate_retrieval(collection or embed_passages(passages, encoder), held.queries, held.qrels, encoder)
    assert {query: list(found) for query, found in run.items()} == {q: list(report.run[q]) for q in run}
    proof = prove(encoder, encoder, held, ProofSettings(known_items=0), collection=collection)
    answerable = [report.ndcg[query] for query in ids]
    assert (
        proof.changes[0].before == pytest.approx(float(np.mean(answerable)), abs=1e-6) and proof.changes[0].before > 0
    )


def test_a_sample_of_a_collection_holds_every_part_of_an_answer(encoder):
    rows = texts(7)
    passages = [part for name, text in rows.items() for part in parts_of(Passage(name, text))]
    held = held_out(8, rows)
    corpus = SearchCorpus(held, filled(encoder, passages), most=20, seed=0)
    answers = {part.id for part in passages if part.metadata["document"] in held.relevant}
    assert answers <= set(corpus.ids)


def test_a_promotion_is_verified_on_documents(encoder):
    rows = texts(3)
    passages = [part for name, text in rows.items() for part in parts_of(Passage(name, text))]
    held = held_out(4, rows)
    collection = filled(encoder, passages)
    (check,) = verify_queries(collection, encoder, Gates(), held, encoder).checks
    report = evaluate_retrieval(collection, held.answerable, held.qrels, encoder)
    assert check.value == pytest.approx(report.means()["ndcg@10"], abs=1e-6) and check.value > 0


def test_a_canary_may_expect_a_row_that_was_cut(encoder):
    passages = parts_of(Passage("row0", texts(0)["row0"])) + [Passage("other", "wood")]
    collection = filled(encoder, passages)
    canaries = [Canary(passages[2].text, ("row0",)), Canary("wood", ("other", "gone"))]
    report = run_canaries(collection, canaries, encoder)
    assert {result.query: (result.recall, result.gone) for result in report.results} == {
        passages[2].text: (1.0, ()),
        "wood": (0.5, ("gone",)),
    }


def test_training_on_a_part_of_a_held_out_row_is_a_leak():
    held = HeldOut((Query("q", "what makes honey"),), {"q": {"row0": 1}})
    example = Example("bees in spring", (ScoredText("row0#0123456789ab", "Bees make honey."),))
    other = Example("dogs", (ScoredText("row1#0123456789ab", "Dogs bark."),))
    assert [leak.kind for leak in find_leaks([example, other], held)] == ["same passage"]


@pytest.mark.parametrize(
    ("passage", "document"),
    [
        ("row#0123456789ab", "row"),
        ("a/b.md#0123456789ab-2", "a/b.md"),
        ("a#b#0123456789ab", "a#b"),
        ("row#5", "row#5"),
        ("row", "row"),
        ("#0123456789ab", "#0123456789ab"),
    ],
)
def test_the_document_of_a_part_is_in_its_id(passage, document):
    assert document_of(passage) == document


def test_the_command_measures_long_rows_by_their_judgements(run, minilm, tmp_path):
    """Rows longer than the encoder reads, as those of MedQuAD are: cut by `index`, judged by the ids of rows."""
    topics = ["asthma", "diabetes", "malaria", "migraine", "arthritis", "anemia"]
    rows = [
        {
            "_id": topic,
            "title": topic,
            "text": " ".join(
                f"Sentence {i} is about care, and {i} more words stand here for length." for i in range(40)
            )
            + f" The treatment of {topic} begins with a test for {topic}.",
        }
        for topic in topics
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [Query(f"q-{topic}", f"how is {topic} treated") for topic in topics]
    qrels = {query.id: {topic: 1} for query, topic in zip(queries, topics, strict=True)}
    write_queries(tmp_path / "queries.jsonl", queries)
    write_qrels(tmp_path / "qrels.tsv", qrels)
    location = ("--location", tmp_path / "db", "--model", minilm, "--backend", "torch")
    code, _, said = run("index", "med", tmp_path / "corpus.jsonl", *location)
    assert code == 0, said
    judged_files = ("--queries", tmp_path / "queries.jsonl", "--qrels", tmp_path / "qrels.tsv")
    code, out, said = run("evaluate", "med", *judged_files, *location, "-k", 3, "--json")
    assert code == 0, said
    (system,) = json.loads(out)["systems"]
    encoder = open_encoder(minilm, backend="torch")
    passages = list(read_passages(tmp_path / "corpus.jsonl", encoder))
    assert len(passages) > 2 * len(rows)
    expected = outside(encoder, passages, queries, qrels, k=3)
    assert {name: system["means"][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert system["counts"]["cut_documents"] == len(topics) and system["means"]["recall@3"] > 0.5
