"""Queries, judgements and runs <-> their files: JSONL, BEIR's TSV, TREC's qrels and run files; and values per query.

Guarantees: a line that cannot be used is an InputError with file and line; what is written can be read back, by
trec_eval too, and is written whole or not at all. Does not know: metrics.

A JSONL, TSV or CSV file -> its rows, each knowing the line it comes from.

TSV has a header and no quoting, as in BEIR and STS-Benchmark; CSV has a header and is quoted where it must be.

Guarantees: a row or value that cannot be used is an InputError with file and line. Does not know: tasks.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.evaluate.retrieval.report import RetrievalReport
from llama_index_embed_plus.evaluate.tasks.inputs import Label
from qdrant_tools.errors import InputError
from qdrant_tools.metrics import ranked
from qdrant_tools.records import Qrels, Query, Run

BEIR_HEADER = ("query-id", "corpus-id", "score")


def read_queries(path: Path) -> list[Query]:
    """Read JSONL rows `{"id", "text"}`, or BEIR's `{"_id", "text"}`.

    Raises:
        InputError: no such file, no queries in it, or a row without id or text, with an empty one, or with an id that
            another row has.
    """
    _checked_file(path, "queries")
    queries: dict[str, Query] = {}
    for row in read_rows(path):
        name = row.text("id" if "id" in row.values else "_id")
        if name in queries:
            raise InputError(f"{row.where}: the id {name!r} occurs twice: every id names one query")
        queries[name] = Query(name, row.text("text"))
    if not queries:
        raise InputError(f"{path} holds no queries: expected JSONL rows with 'id' (or '_id') and 'text'")
    return list(queries.values())


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: BEIR's TSV (header `query-id corpus-id score`), or TREC's `query iteration passage grade`.

    Raises:
        InputError: no such file, no judgements in it, a line with other columns, a grade that is no whole number, or
            two grades for one passage.
    """
    _checked_file(path, "judgements")
    qrels: dict[str, dict[str, int]] = {}
    beir = False
    for where, first, line in _lines(path):
        if first and tuple(line.rstrip("\r\n").split("\t")[:3]) == BEIR_HEADER:
            beir = True
            continue
        fields = line.rstrip("\r\n").split("\t") if beir else line.split()
        if len(fields) != (3 if beir else 4):
            kinds = "query-id, corpus-id, score" if beir else "query, iteration, passage, grade (or BEIR's header)"
            raise InputError(f"{where}: {len(fields)} columns, expected {kinds}")
        query, passage, text = fields[0], fields[-2], fields[-1]
        if not query or not passage:
            raise InputError(f"{where}: an empty id, expected the ids of a query and a passage")
        grade = _grade(text, where)
        if qrels.setdefault(query, {}).setdefault(passage, grade) != grade:
            known = qrels[query][passage]
            raise InputError(f"{where}: query {query!r} and passage {passage!r} have grade {grade}, earlier {known}")
    if not qrels:
        raise InputError(f"{path} holds no judgements")
    return qrels


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Read a TREC run, `query Q0 passage rank score name`. Ranks are not read: trec_eval goes by the scores too.

    Raises:
        InputError: no such file, no results in it, a line with other columns, a score that is no number, or a passage
            that occurs twice for a query.
    """
    _checked_file(path, "results")
    run: dict[str, dict[str, float]] = {}
    for where, _, line in _lines(path):
        fields = line.split()
        if len(fields) != 6:
            raise InputError(f"{where}: {len(fields)} columns, expected query, Q0, passage, rank, score, name")
        query, _, passage, _, text, _ = fields
        scores = run.setdefault(query, {})
        if passage in scores:
            raise InputError(f"{where}: passage {passage!r} occurs twice for query {query!r}")
        scores[passage] = _score(text, where)
    if not run:
        raise InputError(f"{path} holds no results")
    return run


def write_queries(path: Path, queries: Iterable[Query]) -> None:
    """Write JSONL rows `{"id", "text"}`."""
    _write(path, (json.dumps(query.as_row(), ensure_ascii=False) for query in queries))


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write BEIR's TSV.

    Raises:
        InputError: an id with a tab or a line break in it.
    """
    rows = ((query, passage, str(grade)) for query, grades in qrels.items() for passage, grade in grades.items())
    _write(path, ("\t".join(_without("\t\r\n", row)) for row in ((BEIR_HEADER), *rows)))


def write_run(path: Path, run: Run, *, name: str = "embed-plus") -> None:
    """Write a TREC run file, the passages of a query in the order in which trec_eval ranks them.

    Raises:
        InputError: an id or a name with white space in it, which separates the columns of this format.
    """

    def lines() -> Iterator[str]:
        for query, scores in run.items():
            for rank, passage in enumerate(ranked(scores), start=1):
                fields = (query, "Q0", passage, str(rank), repr(float(scores[passage])), name)
                yield " ".join(_without(None, fields))

    _write(path, lines())


def write_values(path: Path, reports: Sequence[RetrievalReport]) -> None:
    """Write one JSONL row per query, `{"query", "text", "values"}`: a mapping of metric -> value for each report.

    Raises:
        InputError: the reports cover other queries.
    """
    first = reports[0]
    if any(report.ndcg.keys() != first.ndcg.keys() for report in reports):
        raise InputError("the reports cover other queries: write them to a file each")
    rows = (
        {"query": query, "text": first.texts.get(query, ""), "values": [report.of_query(query) for report in reports]}
        for query in first.ndcg
    )
    _write(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def _checked_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} is not a file: expected {what}")


def _lines(path: Path) -> Iterator[tuple[str, bool, str]]:
    """(file:line, whether it is the first, text) of every line that is not blank."""
    first = True
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", first, line
                    first = False
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): convert it") from error


def _grade(text: str, where: str) -> int:
    try:
        grade = float(text)
    except ValueError:
        grade = math.nan
    if not math.isfinite(grade) or grade != int(grade):
        raise InputError(f"{where}: the grade is {text!r}, expected a whole number")
    return int(grade)


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"{where}: the score is {text!r}, expected a finite number")
    return score


def _without(separators: str | None, fields: Iterable[str]) -> list[str]:
    """The fields, none of which holds a separator (None: white space) or nothing."""
    kept = list(fields)
    for each in kept:
        bad = each.split() != [each] if separators is None else any(mark in each for mark in separators) or not each
        if bad:
            raise InputError(f"{each!r} cannot be written as a column: it is empty or holds what separates columns")
    return kept


def _write(path: Path, lines: Iterable[str]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(f"{line}\n" for line in lines)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


SUFFIXES = (".jsonl", ".tsv", ".csv")

csv.field_size_limit(2**31 - 1)  # a passage may be longer than 128 KiB


@dataclass(frozen=True)
class Row:
    """One row; `where` is `file:line`."""

    values: Mapping[str, Any]
    where: str

    def text(self, column: str) -> str:
        """A non-empty string."""
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{self.where}: {column} is {value!r}, expected a non-empty text")
        return value

    def texts(self, column: str) -> tuple[str, ...]:
        """A list of non-empty strings; one string is a list of one."""
        value = self.values.get(column)
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
            raise InputError(f"{self.where}: {column} is {value!r}, expected a list of non-empty texts")
        return tuple(found)

    def number(self, column: str) -> float:
        """A finite number; in TSV and CSV spelled out, in JSONL not as text."""
        return _number(self.values.get(column), column, self.where, spelled=not self.where_is_json)

    def numbers(self, column: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self.values.get(column)
        if not isinstance(value, list):
            raise InputError(f"{self.where}: {column} is {value!r}, expected a list of numbers")
        return tuple(_number(each, column, self.where, spelled=False) for each in value)

    def label(self, column: str) -> Label:
        """A string or a whole number; what TSV and CSV hold are strings."""
        value = self.values.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise InputError(f"{self.where}: {column} is {value!r}, expected a label: a text or a whole number")

    @property
    def where_is_json(self) -> bool:
        return Path(self.where.rpartition(":")[0]).suffix.lower() == ".jsonl"


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, by its suffix.

    Raises:
        InputError: no UTF-8, no JSON, no object, or a row with other columns than the header.
    """
    try:
        yield from _jsonl(path) if path.suffix.lower() == ".jsonl" else _table(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): convert it") from error


def columns_of(path: Path) -> frozenset[str]:
    """The columns of the first row; none if the file is empty."""
    return frozenset(next((row.values for row in read_rows(path)), {}))


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise InputError(f"{where}: not JSON ({error}); expected one object per line") from error
            if not isinstance(values, dict):
                raise InputError(f"{where}: a {type(values).__name__}, expected an object")
            yield Row(values, where)


def _table(path: Path) -> Iterator[Row]:
    dialect: dict[str, Any] = {"strict": True}
    if path.suffix.lower() == ".tsv":
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, **dialect)
        try:
            header = next(reader, [])
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    found = f"{len(cells)} columns, the header has {len(header)}: {', '.join(header)}"
                    raise InputError(f"{path}:{reader.line_num}: {found}")
                yield Row(dict(zip(header, cells)), f"{path}:{reader.line_num}")
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: {error}") from error


def _number(value: object, column: str, where: str, *, spelled: bool) -> float:
    found = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value)
    elif spelled and isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{where}: {column} is {value!r}, expected a finite number")
    return found
