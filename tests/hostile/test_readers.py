"""Any rows, headers, bytes: every reader gives a result or one short error of ours, in memory that the file bounds."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import KINDS, refusal_of

ROOM = 16_000_000
"""Bytes that reading takes above 200 times the file: each byte of JSON may be a value, and a table keeps its rows."""

NAMES = sorted(
    {
        *("id", "_id", "text", "title", "metadata", "query", "positives", "negatives", "weight", "score", "label"),
        *("sentence1", "sentence2", "premise", "hypothesis", "positive", "negative", "group", "hits", "rank", "at"),
        *("human_summaries", "machine_summaries", "relevance", "expected", "space", "relevant", "search", "clicked"),
        *("queries", "corpus", "relevant_docs", "format", "dimension", "layout", "lexical", "quantization", "stats"),
        *("passage_id", "_node_content", "metadata_template", "text_template", "query-id", "corpus-id", "feedback"),
    }
)
NUMBERS = st.sampled_from(
    [0, 1, -1, True, 2**31, 2**63, 2**64, 2**70, -(2**70), 10**400, 1e308, -1e308, 5e-324, float("nan"), float("inf")]
)
ODD_TEXTS = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "\ud800",
        "\U0001f600",
        "x" * 5000,
        "9" * 5000,
        "1e400",
        "nan",
        "infinity",
        "1_000",
        "\u0661",
        "0x1",
    ]
    + ["{key:>800000000}", "=1+1", "\x1b[2J", "../..", '"', "\t", "\r", "\u2028", "entailment", "2026-01-01T00:00:00Z"]
)
DEEP = st.integers(1, 400).map(lambda depth: nested(depth))
ATOMS = st.one_of(st.none(), NUMBERS, ODD_TEXTS, st.text(max_size=5), st.floats(), st.integers())
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)),
    max_leaves=12,
)
FILES = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def written(value):
    """JSON as Python writes it, NaN and infinities included."""
    try:
        return json.dumps(value)
    except ValueError:  # an integer of more digits than Python writes
        return '{"id": ' + "9" * 5000 + "}"


@st.composite
def row_files(draw, good):
    """Some rows that keep a part of the good ones, and some lines that are none."""
    lines = good.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        try:
            row = json.loads(draw(st.sampled_from(lines or ["{}"])))
        except ValueError:
            row = {}
        if not isinstance(row, dict):
            row = {}
        for name in draw(st.lists(st.sampled_from([*row, *NAMES]), max_size=3)):
            row[name] = draw(st.one_of(VALUES, DEEP))
        lines.append(draw(st.sampled_from([written(row), written(draw(VALUES)), '{"id": 1, "id": 2}', "\ufeff{}"])))
    return "\n".join(draw(st.permutations(lines)))


@st.composite
def tables(draw, good):
    """The good header or another one, and cells of all kinds."""
    separator = "," if "," in good.splitlines()[0] else "\t"
    header = draw(st.one_of(st.just(good.splitlines()[0]), st.lists(st.sampled_from(NAMES)).map(separator.join)))
    cells = st.one_of(ODD_TEXTS, st.text(max_size=4), NUMBERS.map(lambda number: str(float(number < 1e308))))
    lines = draw(st.lists(st.lists(cells, max_size=7).map(separator.join), max_size=4))
    return "\n".join([header, *good.splitlines()[1:], *lines])


@pytest.mark.parametrize("name", KINDS)
def test_any_file_is_read_or_refused_shortly_within_its_memory(name):
    kind = KINDS[name]
    json_like = kind.name.endswith(("jsonl", "json"))
    texts = row_files(kind.good) if json_like else tables(kind.good)
    if kind.name.endswith(".json"):
        texts = st.one_of(texts.map(lambda text: text.splitlines()[-1]), VALUES.map(written))
    contents = st.one_of(
        texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=60).map(lambda extra: kind.good.encode() + extra),
    )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows" / kind.name
        path.parent.mkdir()
        path.write_text(kind.good)
        assert refusal_of(kind, path) is None

        @FILES
        @given(contents)
        def check(content):
            path.write_bytes(content)
            tracemalloc.start()
            try:
                refusal_of(kind, path)
                assert tracemalloc.get_traced_memory()[1] < ROOM + 200 * len(content)
            finally:
                tracemalloc.stop()

        check()
