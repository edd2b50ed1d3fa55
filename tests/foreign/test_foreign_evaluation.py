"""Passages, queries and judgements as other tools write them: the right reading, or one refusal that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_embed_plus.documents.reading import read_passages
from llama_index_embed_plus.evaluate.retrieval.files import (
    read_qrels,
    read_queries,
    read_query_texts,
    read_run,
    write_run,
)
from qdrant_tools.errors import InputError
from qdrant_tools.monitor.canary import Canary, read_canaries, write_canaries

FOLDER = Path(__file__).parent / "evaluation"

READ = {
    "qrels_bom.tsv": {"q1": {"p1": 1, "p2": 0}},
    "qrels_commas.csv": {"q1": {"p1": 2}, "q2": {"p3": -1}},
    "qrels_other_order.tsv": {"q1": {"p1": 1}},
    "qrels_msmarco.tsv": {"1185869": {"0": 1}, "1185868": {"16": 1}},
    "qrels_trec_header.tsv": {"7": {"FT911-3": 1}},
    "queries_url.jsonl": [("q1", "Wie lange dauert es?")],
    "run_trec.txt": {"q1": {"p1": 12.5, "p2": 11.0}, "q2": {"p1": -3.5}},
    "run_tabs.tsv": {"q1": {"p1": 0.9, "p2": 0.9, "p3": 0.01}},
    "run_ranks_other.trec": {"q1": {"p1": 0.5, "p2": 0.7, "p3": 0.1}},
    "run_equal_scores.trec": {"q1": {"p2": 1.0, "p1": 1.0}},
    "canaries_by_hand.jsonl": [Canary("wie lange?", ("p1", "p2"))],
    "canaries_plain.jsonl": [Canary("who makes honey", ("bees",))],
    "texts_lines.txt": ["who makes honey", "wo schlafen Katzen?"],
    "texts_query.jsonl": ["who makes honey"],
    "texts_table.csv": ["honey, who makes it?"],
    "texts_upper.JSONL": ["who makes honey"],
    "texts_brackets.txt": ["[urgent] reset my password", "{name} in a template"],
    "passages_fields.jsonl": [("p1", "Bees make honey.", {"url": "https://example.org/b", "category": "animals"})],
}
REFUSED = {
    "qrels_annotator.tsv": r"qrels_annotator.tsv:1: the columns are .* expected query-id, corpus-id and score",
    "qrels_nan.tsv": r"qrels_nan.tsv:2: the grade is 'NaN', expected a whole number",
    "qrels_contradiction.tsv": r"qrels_contradiction.tsv:3: query 'q1' and passage 'p1' have grade 0, earlier 1",
    "qrels_no_header.tsv": r"qrels_no_header.tsv:1: 3 columns, expected query, iteration, passage, grade",
    "queries_instruction.jsonl": r"queries_instruction.jsonl:1: the field 'instruction' says what the row means",
    "queries_two_ids.jsonl": r"queries_two_ids.jsonl:1: id is '1' and _id 'q1': leave one out",
    "passages_number_title.jsonl": r"passages_number_title.jsonl:1: title is 7, expected a text",
    "run_distances.trec": r"run_distances.trec: the scores rise with the ranks, as distances do",
    "run_two_systems.trec": r"run_two_systems.trec:2: the run 'dense', earlier 'bm25': give each run a file of its own",
    "run_header.trec": r"run_header.trec:1: the score is 'score', expected a finite number",
    "run_msmarco.tsv": r"run_msmarco.tsv:1: 3 columns, expected query, Q0, passage, rank, score, name",
    "run_nan.trec": r"run_nan.trec:1: the score is 'nan', expected a finite number",
    "run_decimal_comma.trec": r"run_decimal_comma.trec:1: the score is '12,5', expected a finite number",
    "run_document_twice.trec": r"run_document_twice.trec:2: passage 'p1' occurs twice for query 'q1'",
    "canaries_label.jsonl": r"canaries_label.jsonl:1: not a canary: the field 'label' says what the row means",
    "canaries_negative.jsonl": r"canaries_negative.jsonl:1: not a canary: the field 'negative' says what the row means",
    "canaries_one_text.jsonl": r"canaries_one_text.jsonl:1: not a canary: expected is 'bees, wasps', expected a list",
    "canaries_numbers.jsonl": r"canaries_numbers.jsonl:1: not a canary: expected is \[7\], expected a list",
    "canaries_table.csv": r"canaries_table.csv:2: not a canary: expected is .* expected a list of passage ids",
    "texts_ids.txt": r"texts_ids.txt:1: 'q1.twho makes honey' is a row of a table or of JSON",
    "texts_rows.txt": r"texts_rows.txt:1: .* is a row of a table or of JSON",
    "texts_array.json": r"texts_array.json:1: '\[' is a row of a table or of JSON",
    "texts_pairs.jsonl": r"texts_pairs.jsonl:1: a text and a query: leave out the one that is not asked",
    "texts_instruction.jsonl": r"texts_instruction.jsonl:1: the field 'instruction' says what the row means",
    "texts_msmarco.tsv": r"texts_msmarco.tsv:2: text is None, expected a non-empty text",
    "passages_contradiction.jsonl": r"passages_contradiction.jsonl:1: 'lang' is 'en', and 'de' in its metadata",
}


def read(name: str):
    kind = name.partition("_")[0]
    if kind == "qrels":
        return read_qrels(FOLDER / name)
    if kind == "run":
        return read_run(FOLDER / name)
    if kind == "canaries":
        return read_canaries(FOLDER / name)
    if kind == "texts":
        return read_query_texts(FOLDER / name)
    if kind == "queries":
        return [(query.id, query.text) for query in read_queries(FOLDER / name)]
    return [(passage.id, passage.text, passage.metadata) for passage in read_passages(FOLDER / name)]


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_its_author_meant_it(name):
    assert read(name) == READ[name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_read_rightly_is_refused_with_its_line(name):
    with pytest.raises(InputError, match=REFUSED[name]):
        read(name)


def test_a_field_of_queries_that_is_not_read_is_named(caplog):
    read("queries_url.jsonl")
    assert "fields that are not read: `url`" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("canaries_by_hand.jsonl", "fields that are not read: `owner`"),
        ("texts_query.jsonl", "fields that are not read: `lang`"),
        ("run_ranks_other.trec", "1 scores contradict the ranks"),
        ("run_equal_scores.trec", "all scores are equal"),
    ],
)
def test_what_is_left_out_is_said(name, said, caplog):
    read(name)
    assert said in caplog.text


def test_what_is_written_is_read_back_without_a_word(tmp_path, caplog):
    run = {"q1": {"p1": 0.5, "p2": 0.5, "p3": 0.75}, "q2": {"p3": -1.0, "p1": -2.0}}
    write_run(tmp_path / "run.trec", run)
    canaries = [Canary("who makes honey", ("bees",), "s@1")]
    write_canaries(tmp_path / "canaries.jsonl", canaries)
    assert read_run(tmp_path / "run.trec") == run
    assert read_canaries(tmp_path / "canaries.jsonl") == canaries
    assert not caplog.text


def test_every_file_is_in_the_table():
    assert {path.name for path in FOLDER.iterdir()} == READ.keys() | REFUSED.keys()
