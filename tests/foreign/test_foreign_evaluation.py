"""Passages, queries and judgements as other tools write them: the right reading, or one refusal that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_embed_plus.documents import read_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from qdrant_tools.errors import InputError

FOLDER = Path(__file__).parent / "evaluation"

READ = {
    "qrels_bom.tsv": {"q1": {"p1": 1, "p2": 0}},
    "qrels_commas.csv": {"q1": {"p1": 2}, "q2": {"p3": -1}},
    "qrels_other_order.tsv": {"q1": {"p1": 1}},
    "qrels_msmarco.tsv": {"1185869": {"0": 1}, "1185868": {"16": 1}},
    "qrels_trec_header.tsv": {"7": {"FT911-3": 1}},
    "queries_url.jsonl": [("q1", "Wie lange dauert es?")],
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
    "passages_contradiction.jsonl": r"passages_contradiction.jsonl:1: 'lang' is 'en', and 'de' in its metadata",
}


def read(name: str):
    kind = name.partition("_")[0]
    if kind == "qrels":
        return read_qrels(FOLDER / name)
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


def test_every_file_is_in_the_table():
    assert {path.name for path in FOLDER.iterdir()} == READ.keys() | REFUSED.keys()
