"""Every reader takes a file with a byte order mark for the same file without, and says of UTF-16 what it is."""

from __future__ import annotations

import json

import pytest
from click.exceptions import UsageError as ClickUsageError

from llama_index_embed_plus.documents.reading import read_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries, read_query_texts, read_run
from llama_index_embed_plus.integrations.qa_dataset import read_qa_dataset
from llama_index_embed_plus.models.files import read_json as read_model_file
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.recipe import read_recipe
from qdrant_tools.errors import PlusError
from qdrant_tools.files.json_files import read_json, read_text
from qdrant_tools.files.rows import read_lines, read_rows
from qdrant_tools.log import LogColumns, RetrievalLog, read_log
from qdrant_tools.log.naming import written_columns
from qdrant_tools.mining import read_examples
from qdrant_tools.mining.false_negatives import read_sheet
from qdrant_tools.monitor import read_canaries

EXAMPLE = '{"query": "Grüner Tee?", "positives": [{"id": "a", "text": "Tee"}], "negatives": []}\n'
QA = json.dumps({"queries": {"q": "tea?"}, "corpus": {"a": "Tea."}, "relevant_docs": {"q": ["a"]}, "mode": "text"})
SEARCH = '{"id": "s", "at": "2026-03-01T09:00:00+00:00", "query": "Tee", "hits": [{"id": "a", "rank": 1}]}\n'
TABLE = "search,query,id,relevant\n1,Grüner Tee,a,1\n"
LOG = LogColumns(query="query", search="search", hit="id")


def rows(path):
    return [dict(row.values) for row in read_rows(path)]


def imported(path):
    with RetrievalLog(path.with_suffix(".sqlite")) as log:
        log.import_jsonl(path)
        return list(log.searches())


READERS = {
    "rows of JSONL": (rows, "a.jsonl", '{"query": "Grüner Tee"}\n'),
    "rows of CSV": (rows, "a.csv", TABLE),
    "rows of TSV": (rows, "a.tsv", TABLE.replace(",", "\t")),
    "rows of a quoted CSV": (rows, "a.csv", '"query","id"\n"Grüner Tee","a"\n'),
    "rows of a spreadsheet": (rows, "a.csv", "sep=;\nquery;id\nGrüner Tee;a\n"),
    "lines": (lambda path: list(read_lines(path)), "a.txt", "Grüner Tee\n"),
    "text": (read_text, "a.txt", "Grüner Tee\n"),
    "JSON": (read_json, "a.json", '{"a": "ü"}'),
    "passages": (lambda path: list(read_passages(path)), "a.jsonl", '{"id": "a", "text": "Tee"}\n'),
    "queries": (read_queries, "a.jsonl", '{"id": "q", "text": "Grüner Tee"}\n'),
    "texts of queries": (read_query_texts, "a.txt", "Grüner Tee\n"),
    "judgements of BEIR": (read_qrels, "a.tsv", "query-id\tcorpus-id\tscore\nq\ta\t1\n"),
    "judgements of TREC": (read_qrels, "a.txt", "q 0 a 1\n"),
    "a run": (read_run, "a.txt", "q Q0 a 1 0.5 tea\n"),
    "a question answer data set": (read_qa_dataset, "a.json", QA),
    "training rows": (read_training_data, "a.jsonl", EXAMPLE),
    "training rows of CSV": (read_training_data, "a.csv", "query,positive\nGrüner Tee?,Tee\n"),
    "a recipe": (
        lambda path: read_recipe(path).base,
        "a.toml",
        'base = "ü"\n\n[[stage]]\nname = "s"\ndata = "a.toml"\n',
    ),
    "a file of a model": (lambda path: read_model_file(path.parent, path.name), "config.json", '{"a": "ü"}'),
    "examples": (lambda path: list(read_examples(path)), "a.jsonl", EXAMPLE),
    "an audit sheet": (read_sheet, "a.csv", TABLE),
    "canaries": (read_canaries, "a.jsonl", '{"query": "Grüner Tee?", "expected": ["a"]}\n'),
    "a log of ours": (imported, "a.jsonl", SEARCH),
    "a log of others": (lambda path: [search.query for search in read_log(path, LOG)], "a.csv", TABLE),
    "the columns of a log": (lambda path: written_columns(str(path)), "a.json", '{"query": "q", "search": "s"}'),
}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_is_read_over(name, tmp_path):
    read, file, text = READERS[name]
    found = []
    for number, encoding in enumerate(("utf-8", "utf-8-sig")):
        folder = tmp_path / str(number) / "same name"
        folder.mkdir(parents=True)
        (folder / file).write_bytes(text.replace("\n", "\r\n").encode(encoding))
        found.append(read(folder / file))
    assert found[0] == found[1] and found[0]
    assert "\ufeff" not in repr(found[1])


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_by_its_name(name, encoding, tmp_path):
    read, file, text = READERS[name]
    path = tmp_path / file
    path.write_bytes(text.encode(encoding))
    with pytest.raises((PlusError, ClickUsageError)) as refused:
        read(path)
    message = str(refused.value)
    assert "\n" not in message and len(message) < 500
    if encoding == "utf-16":
        assert "UTF-16" in message
    assert any(word in message for word in ("UTF-16", "UTF-8", "JSON", "NUL"))
