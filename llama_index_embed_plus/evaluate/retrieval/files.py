"""Queries, judgements, runs and values per query <-> their files: JSONL, BEIR's TSV, TREC's qrels and run files.

Guarantees: a line that cannot be used is an InputError with file and line. What is written can be read back, by
trec_eval too, and is written whole or not at all. Does not know: metrics.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llama_index_embed_plus.evaluate.retrieval.report import RetrievalReport
from qdrant_tools.errors import InputError
from qdrant_tools.files.rows import Row, read_lines, read_rows
from qdrant_tools.files.written import write_rows, written_whole
from qdrant_tools.metrics import ranked
from qdrant_tools.records import HeldOut as HeldOut  # the top of this package exports it from here
from qdrant_tools.records import Passage, Qrels, Query, Run
from qdrant_tools.unread import Unread
from qdrant_tools.validation import LARGEST_GRADE, brief, checked_text, number_in

logger = logging.getLogger(__name__)

BEIR_HEADER = ("query-id", "corpus-id", "score")
_OF_QUERIES = ("id", "_id", "text", "metadata", "synthetic", "evidence", "weights")
"""The last three are what `held_out` writes beside."""
_OF_ROWS = (".jsonl", ".ndjson", ".csv", ".tsv")


def read_queries(path: Path) -> list[Query]:
    """Read JSONL rows `{"id", "text"}`, or BEIR's `{"_id", "text"}`.

    Raises:
        InputError: no such file, no queries in it, or a row without id or text, with an empty one, or with an id that
            another row has.
    """
    _checked_file(path, "queries")
    queries: dict[str, Query] = {}
    unread = Unread()
    for row in read_rows(path):
        with row_errors(row):
            unread.check(row.values, _OF_QUERIES, way_out="put it into the text of the query, or leave it out")
        if len({str(row.values[name]) for name in ("id", "_id") if name in row.values}) > 1:
            raise InputError(
                f"{row.where}: id is {brief(row.values['id'])} and _id {brief(row.values['_id'])}: leave one out"
            )
        name = row.text("id" if "id" in row.values else "_id")
        if name in queries:
            raise InputError(f"{row.where}: the id {brief(name)} occurs twice: every id names one query")
        queries[name] = Query(name, row.text("text"))
    if not queries:
        raise InputError(f"{path} holds no queries: expected JSONL rows with 'id' (or '_id') and 'text'")
    if unread.names:
        logger.warning("%s: fields that are not read: %s", path, unread.listed())
    return list(queries.values())


def read_held_out(queries: Path, qrels: Path, *, passages: Iterable[Passage] = ()) -> HeldOut:
    """Read held-out queries and their judgements from the two files of `read_queries` and `read_qrels`.

    Raises:
        InputError: as those two, or no query has a relevant passage.
    """
    return HeldOut(tuple(read_queries(queries)), read_qrels(qrels), tuple(passages))


def read_query_texts(path: Path) -> list[str]:
    """Read queries without ids: lines of text, or the field `text` (or `query`) of `.jsonl`, `.csv` or `.tsv` rows.

    Raises:
        InputError: no such file, a row without a text or with two, or lines that are rows of another format.
    """
    try:
        if path.suffix.lower() in _OF_ROWS:
            return _texts_of_rows(path)
        return [_bare(line.strip(), f"{path}:{number}") for number, line in read_lines(path)]
    except InputError as error:
        raise InputError(f"{path} has no queries, one per line or as .jsonl rows with a text: {error}") from error


def _texts_of_rows(path: Path) -> list[str]:
    texts, unread = [], Unread()
    for row in read_rows(path):
        with row_errors(row):
            unread.check(row.values, (*_OF_QUERIES, "query"), way_out="put it into the text, or leave it out")
        if "text" in row.values and "query" in row.values:
            raise InputError(f"{row.where}: a text and a query: leave out the one that is not asked")
        texts.append(row.text("query" if "query" in row.values else "text"))
    if unread.names:
        logger.warning("%s: fields that are not read: %s", path, unread.listed())
    return texts


def _bare(line: str, where: str) -> str:
    """A line that is a query, and no row of something else."""
    if "\t" in line or re.match(r'\{\s*"|\[\s*([{"]|$)', line):
        raise InputError(
            f"{where}: {brief(line)} is a row of a table or of JSON, expected a query alone: give the file the ending "
            ".tsv or .jsonl"
        )
    return line


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: BEIR's TSV (header `query-id corpus-id score`), or TREC's `query iteration passage grade`.

    A header may name the columns otherwise (`qid`, `doc_id`, `relevance`, ...), in any order, between tabs or commas.

    Raises:
        InputError: no such file, no judgements in it, a line with other columns, a grade that is no whole number, or
            two grades for one passage.
    """
    _checked_file(path, "judgements")
    qrels: dict[str, dict[str, int]] = {}
    layout = _TREC
    # `place` and not `number`: blank lines may stand before the header
    for place, (number, line) in enumerate(read_lines(path)):
        where = f"{path}:{number}"
        if place == 0 and (header := _header(line, where)) is not None:
            layout = header
            continue
        # one column more than is right, and never millions of them
        fields = [field.strip() for field in line.split(layout.separator, layout.count)]
        if len(fields) != layout.count:
            raise InputError(f"{where}: {_columns(fields, layout.count)}, expected {layout.expected}")
        query, passage, text = (fields[column] for column in layout.columns)
        if not query or not passage:
            raise InputError(f"{where}: an empty id, expected the ids of a query and a passage")
        grade = _grade(text, where)
        # a line that is repeated is harmless, one that contradicts is not
        if qrels.setdefault(query, {}).setdefault(passage, grade) != grade:
            earlier = qrels[query][passage]
            pair = f"query {brief(query)} and passage {brief(passage)}"
            raise InputError(f"{where}: {pair} have grade {grade}, earlier {earlier}")
    if not qrels:
        raise InputError(f"{path} holds no judgements")
    return qrels


@dataclass(frozen=True)
class _Layout:
    """Where the ids of query and passage, and the grade, are among the columns of a line."""

    separator: str | None
    count: int
    columns: tuple[int, int, int]
    expected: str


_TREC = _Layout(None, 4, (0, 2, 3), "query, iteration, passage, grade (or BEIR's header)")
_NAMES = (
    ("queryid", "qid", "query", "topic", "topicid", "questionid"),
    ("corpusid", "pid", "docid", "docno", "did", "documentid", "passageid", "doc", "document", "passage"),
    ("score", "grade", "relevance", "relevancy", "rel", "label", "rating", "judgment", "judgement"),
)
"""What files call the ids of query and passage, and the grade."""
_ITERATION = ("iteration", "iter", "q0")


def _header(line: str, where: str) -> _Layout | None:
    """The layout that a first line names; None if it is no header.

    Raises:
        InputError: it is one, with a column that is missing, named twice, or of no known name.
    """
    separator = next((mark for mark in ("\t", ",", ";") if mark in line), None)
    names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in line.split(separator, 8)]
    found = [[place for place, name in enumerate(names) if name in known] for known in _NAMES]
    others = [name for name in names if not any(name in known for known in (*_NAMES, _ITERATION))]
    # a grade is a number, and so no name: only a header has a name in the last column
    if sum(map(bool, found)) < 2 or names[-1].isdigit():
        return None
    if others or [len(places) for places in found] != [1, 1, 1]:
        raise InputError(f"{where}: the columns are {brief(line)}, expected query-id, corpus-id and score, one of each")
    columns = (found[0][0], found[1][0], found[2][0])
    return _Layout(separator, len(names), columns, ", ".join(line.split(separator)))


@contextmanager
def row_errors(row: Row) -> Iterator[None]:
    """Say where the row is that an error is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from error


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Read a TREC run, `query Q0 passage rank score name`. As in trec_eval, scores decide; other ranks are warned of.

    Raises:
        InputError: no such file, no results in it, a line with other columns, a score that is no number, a passage
            that occurs twice for a query, the results of two runs, or scores that all rise with the ranks.
    """
    _checked_file(path, "results")
    run: dict[str, dict[str, float]] = {}
    ranks = _Ranks()
    first = None
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        fields = line.split(None, 6)
        if len(fields) != 6:
            raise InputError(f"{where}: {_columns(fields, 6)}, expected query, Q0, passage, rank, score, name")
        query, _, passage, rank, text, name = fields
        first = name if first is None else first
        if name != first:
            raise InputError(f"{where}: the run {brief(name)}, earlier {brief(first)}: give each run a file of its own")
        scores = run.setdefault(query, {})
        if passage in scores:
            raise InputError(f"{where}: passage {brief(passage)} occurs twice for query {brief(query)}")
        scores[passage] = _score(text, where)
        ranks.see(query, rank, scores[passage])
    if not run:
        raise InputError(f"{path} holds no results")
    ranks.compare(path)
    return run


class _Ranks:
    """Whether the scores of a run fall with its ranks, from each line and the one before."""

    def __init__(self) -> None:
        self._last = ("", math.nan, math.nan)
        self._fall = self._rise = self._equal = 0

    def see(self, query: str, text: str, score: float) -> None:
        rank = number_in(text)
        before, last_rank, last_score = self._last
        self._last = (query, rank, score)
        # false too where one is no number
        if query == before and abs(rank - last_rank) > 0:
            step = (score > last_score) - (score < last_score)
            worse = step if rank > last_rank else -step
            self._fall, self._rise, self._equal = (
                self._fall + (worse < 0),
                self._rise + (worse > 0),
                self._equal + (worse == 0),
            )

    def compare(self, path: Path) -> None:
        if self._rise and not self._fall:
            raise InputError(
                f"{path}: the scores rise with the ranks, as distances do, and the highest score would be taken for "
                "the best: write their negatives"
            )
        if self._rise:
            logger.warning("%s: %d scores contradict the ranks: scores decide, as in trec_eval", path, self._rise)
        elif self._equal and not self._fall:
            logger.warning("%s: all scores are equal: hits are ordered by id, as in trec_eval, not by rank", path)


def write_queries(path: Path, queries: Iterable[Query]) -> None:
    """Write JSONL rows `{"id", "text"}`."""
    write_rows(path, (query.as_row() for query in queries))


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write BEIR's TSV.

    Raises:
        InputError: an id with a tab or a line break in it.
    """
    rows = ((query, passage, str(grade)) for query, grades in qrels.items() for passage, grade in grades.items())
    _write_lines(path, ("\t".join(_without("\t\r\n", row)) for row in ((BEIR_HEADER), *rows)))


def write_run(path: Path, run: Run, *, name: str = "embed-plus", overwrite: bool = True) -> None:
    """Write a TREC run file, the passages of a query in the order in which trec_eval ranks them.

    Raises:
        InputError: an id or a name with white space in it, which separates the columns of this format.
        UsageError: a file is there, and is not to be replaced.
    """

    def lines() -> Iterator[str]:
        for query, scores in run.items():
            for rank, passage in enumerate(ranked(scores), start=1):
                # repr gives the shortest digits that are read back as the same number
                fields = (query, "Q0", passage, str(rank), repr(float(scores[passage])), name)
                yield " ".join(_without(None, fields))

    _write_lines(path, lines(), overwrite=overwrite)


def write_values(path: Path, reports: Sequence[RetrievalReport], *, overwrite: bool = True) -> None:
    """Write one JSONL row per query, `{"query", "text", "values"}`: a mapping of metric -> value for each report.

    Raises:
        InputError: the reports cover other queries.
        UsageError: a file is there, and is not to be replaced.
    """
    first = reports[0]
    if any(report.ndcg.keys() != first.ndcg.keys() for report in reports):
        raise InputError("the reports cover other queries: write them to a file each")
    rows = (
        {"query": query, "text": first.texts.get(query, ""), "values": [report.of_query(query) for report in reports]}
        for query in first.ndcg
    )
    write_rows(path, rows, overwrite=overwrite)


def _checked_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} is not a file: expected {what}")


def _grade(text: str, where: str) -> int:
    grade = number_in(text)  # some files write 1 as 1.0
    if not abs(grade) <= LARGEST_GRADE or grade != int(grade):
        raise InputError(f"{where}: the grade is {brief(text)}, expected a whole number of at most {LARGEST_GRADE:,}")
    return int(grade)


def _score(text: str, where: str) -> float:
    score = number_in(text)
    if math.isnan(score):
        raise InputError(f"{where}: the score is {brief(text)}, expected a finite number")
    return score


def _columns(fields: Sequence[str], expected: int) -> str:
    return f"more than {expected} columns" if len(fields) > expected else f"{len(fields)} columns"


def _without(separators: str | None, fields: Iterable[str]) -> list[str]:
    """The fields as a list; one that is empty or holds a separator (None: white space) is refused."""
    columns = list(fields)
    for text in columns:
        # split as the reader of a run splits, so that one field cannot become two
        holds_separator = text.split() != [text] if separators is None else any(mark in text for mark in separators)
        if holds_separator or not text:
            raise InputError(
                f"{brief(text)} cannot be written as a column: it is empty or holds what separates columns"
            )
        checked_text("the column", text)
    return columns


def _write_lines(path: Path, lines: Iterable[str], *, overwrite: bool = True) -> None:
    with (
        written_whole(path, overwrite=overwrite) as draft,
        draft.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.writelines(f"{line}\n" for line in lines)
