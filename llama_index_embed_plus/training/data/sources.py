"""A file or a folder of training data -> its rows of fields, each with its place.

JSONL (of objects, or of sentence-transformers' arrays); JSON (a list of rows; an object whose `data` or `examples` is
such a list; columns, as pandas and datasets write them; LlamaIndex's `EmbeddingQAFinetuneDataset`; or JSONL under this
ending); CSV and TSV with a header; Parquet; MS MARCO's triples, a TSV without one; one text per line (.txt). Judgements
name their texts: of BEIR's folder (`corpus.jsonl`, `queries.jsonl`, `qrels/train.tsv`) and MS MARCO's
(`collection.tsv`, `queries.train.tsv`, `qrels.train.tsv`) those of the split `train` are read, or those of the file
that is named.

Guarantees: rows are streamed, from a JSON list too; a row takes no more memory than `files` allows, and of a corpus
only judged passages are kept. An empty cell of a table is a field that says nothing (None). The first row of a table
is never taken for names if it looks like data. Does not know: what the fields mean, kinds, losses.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import MissingExtraError
from llama_index_embed_plus.evaluate.retrieval.files import BEIR_HEADER, read_qrels
from llama_index_embed_plus.integrations.qa_dataset import from_qa_dataset
from llama_index_embed_plus.training.data.formats import ID, TEXT, from_array, is_article, questions_of, titled
from qdrant_tools.errors import InputError, UsageError, brief, listed
from qdrant_tools.files.json_files import MOST_BYTES
from qdrant_tools.files.json_stream import JsonStream
from qdrant_tools.files.parquet import parquet_rows
from qdrant_tools.files.rows import MOST_COLUMNS, Row, read_lines, read_rows
from qdrant_tools.same import id_key, unlike_spelling

logger = logging.getLogger(__name__)

Fields = Mapping[str, Any]

_MOST_VALUES = 1_000_000
_LISTS = ("data", "examples")


def rows_of(file: Path) -> Iterator[Row]:
    """The rows of a file or a folder, in their order; of an article of SQuAD's, a row for each question.

    Raises:
        InputError: it cannot be read, or holds no rows.
        UsageError: an ending that is unknown.
    """
    if file.is_dir():
        yield from _judged(judgements_in(file))
        return
    suffix = file.suffix.lower()
    if suffix not in _READERS:
        way_out = _WAYS_OUT.get(suffix, "")
        raise UsageError(f"{file} ends in {file.suffix!r}, expected one of {', '.join(_READERS)}{way_out}")
    for row in _READERS[suffix](file):
        if is_article(row.values):
            yield from (replace(row, values=fields) for fields in row.parse(lambda values: list(questions_of(values))))
        else:
            yield row


def passages_of(path: Path, needed: Container[str] | None = None) -> dict[str, str]:
    """Id -> text of the passages (or queries) of a file: JSONL or a table with an id, a text and perhaps a title.

    A TSV without a header has an id and a text, as MS MARCO's collection. needed: keep only these. Ids are compared
    by `id_key`.

    Raises:
        InputError: it cannot be read, or one id has two texts.
    """
    texts: dict[str, str] = {}
    for where, name, text in _texts_by_id(path):
        if (needed is None or id_key(name) in needed) and texts.setdefault(id_key(name), text) != text:
            raise InputError(f"{where}: the id {brief(name)} has had another text before: every id names one")
    return texts


def _texts_by_id(path: Path) -> Iterator[tuple[str, str, str]]:
    if path.suffix.lower() == ".tsv" and not _is_header(_first_cells(path)):
        for number, line in read_lines(path):
            cells = line.split("\t", 2)
            if len(cells) != 2 or not cells[1].strip():
                raise InputError(f"{path}:{number}: {len(cells)} columns, expected an id and a text (or a header)")
            yield f"{path}:{number}", cells[0].strip(), cells[1].strip()
        return
    for row in _parquet(path) if path.suffix.lower() == ".parquet" else read_rows(path):
        name = next((str(row.values[key]) for key in ID if row.values.get(key) not in (None, "")), "")
        text = next((row.values[key] for key in TEXT if row.values.get(key) not in (None, "")), None)
        whole = titled(row.values.get("title"), text if isinstance(text, str) else "")
        if not name or not (text is None or isinstance(text, str)):
            raise InputError(f"{row.where}: has the fields {listed(row.values)}, expected an 'id' and a 'text'")
        # corpora have passages of no text, which nothing can name
        if whole.strip():
            yield row.where, name, whole


_SPLIT_FILE = re.compile(r"qrels\.(\w+)(\.tsv)?")
_CORPORA = ("corpus.jsonl", "collection.tsv", "corpus.tsv")


def judgements_in(folder: Path, split: str = "train") -> Path:
    """The judgements of a split, in a folder as BEIR or MS MARCO has it.

    Raises:
        InputError: there are none.
    """
    for file in (folder / "qrels" / f"{split}.tsv", folder / f"qrels.{split}.tsv"):
        if file.is_file():
            return file
    others = [*sorted(folder.glob("qrels/*.tsv")), *sorted(folder.glob("qrels.*.tsv"))]
    if others:
        raise InputError(
            f"{folder} has judgements in {listed(path.name for path in others)} and none of the split {brief(split)}: "
            "name the split or the file to train on, and keep one that measures"
        )
    raise InputError(f"{folder} is a folder without qrels/{split}.tsv: give a file, or a folder as BEIR has it")


def _judged(qrels: Path) -> Iterator[Row]:
    """The judgements of a query as a row: a grade above 0 answers it, 0 was looked at and does not."""
    folder = qrels.parent.parent if qrels.parent.name == "qrels" else qrels.parent
    name = _SPLIT_FILE.fullmatch(qrels.name)
    split = name[1] if name else qrels.stem
    corpus = next((folder / file for file in _CORPORA if (folder / file).is_file()), None)
    files = (folder / file for file in ("queries.jsonl", f"queries.{split}.tsv", "queries.tsv"))
    asked = next((file for file in files if file.is_file()), None)
    if corpus is None or asked is None:
        lacks = "corpus.jsonl (or collection.tsv)" if corpus is None else f"queries.jsonl (or queries.{split}.tsv)"
        raise InputError(f"{qrels} holds judgements, whose texts are looked for in {folder}: it has no {lacks}")
    grades = read_qrels(qrels)
    queries = passages_of(asked, {id_key(query) for query in grades})
    texts = passages_of(corpus, {id_key(passage) for judged in grades.values() for passage in judged})
    _check_known(qrels, asked, grades, queries)
    _check_known(qrels, corpus, {passage: 1 for judged in grades.values() for passage in judged}, texts)
    for number, (query, judged) in enumerate(grades.items(), start=1):
        if id_key(query) in queries:
            sides: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
            for passage, grade in judged.items():
                if id_key(passage) in texts:
                    sides[grade <= 0].append({"id": passage, "text": texts[id_key(passage)]})
            yield Row({"query": queries[id_key(query)], "pos": sides[0], "neg": sides[1]}, qrels, number)


def _check_known(qrels: Path, file: Path, names: Iterable[str], texts: Mapping[str, str]) -> None:
    """Say how many ids have no text, and refuse if none has one."""
    all_names = list(names)
    missing = [name for name in all_names if id_key(name) not in texts]
    if not missing:
        return
    alike = unlike_spelling(missing[:1000], passages_of(file)) if len(missing) == len(all_names) else None
    if len(missing) == len(all_names):
        hint = f"; {brief(alike[0])} may be {brief(alike[1])}" if alike else f", such as {brief(missing[0])}"
        raise InputError(f"{qrels}: none of its {len(all_names)} ids is in {file}{hint}")
    logger.warning(
        "%s: %d of %d ids are not in %s and left out, such as %s",
        qrels, len(missing), len(all_names), file, brief(missing[0]),
    )  # fmt: skip


def _table(file: Path) -> Iterator[Row]:
    for row in read_rows(file):
        if not _is_header(list(row.values)):
            raise _headless(file, list(row.values))
        yield replace(row, values={name: cell if cell != "" else None for name, cell in row.values.items()})


def _tsv(file: Path) -> Iterator[Row]:
    first = _first_cells(file)
    if tuple(first[:3]) == BEIR_HEADER or (len(first) == 4 and first[1] in ("0", "Q0") and _NUMBER.fullmatch(first[3])):
        yield from _judged(file)
    elif len(first) == 3 and not _is_header(first) and _is_running_text(first[1]) and _is_running_text(first[2]):
        yield from _triples(file)
    elif not _is_header(first):
        raise _headless(file, first)
    else:
        yield from _table(file)


def _triples(file: Path) -> Iterator[Row]:
    """MS MARCO's triples: a query, a passage that answers it, one that does not."""
    for number, line in read_lines(file):
        cells = line.split("\t", 3)
        if len(cells) != 3:
            raise InputError(f"{file}:{number}: {len(cells)} columns, the first row has 3: query, positive, negative")
        yield Row(dict(zip(("query", "positive", "negative"), cells, strict=True)), file, number)


def _first_cells(file: Path) -> list[str]:
    return next((line.split("\t", 20) for _, line in read_lines(file)), [])


_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def _is_header(cells: Sequence[str]) -> bool:
    """Whether a first row may be the names of columns: none is a number or a sentence."""
    return not any(_NUMBER.fullmatch(cell.strip()) or _is_running_text(cell) for cell in cells)


def _is_running_text(cell: str) -> bool:
    # a script without spaces says as much in a quarter of the characters
    return len(cell.split()) >= 5 or len(cell) > 60 or (not cell.isascii() and len(cell) > 20)


def _headless(file: Path, cells: Sequence[str]) -> InputError:
    shown = listed(map(brief, cells[:4]))
    if cells and all(_NUMBER.fullmatch(cell.strip()) for cell in cells):
        return InputError(
            f"{file}:1: the first row holds {shown}: ids without texts cannot be trained on; give a folder with "
            "collection.tsv, queries.train.tsv and qrels.train.tsv (or BEIR's), or rows with the texts"
        )
    return InputError(
        f"{file}:1: the first row is {shown}, which looks like data: write the names of the columns above it, such as "
        "query, positive, negative"
    )


_JUDGEMENT = re.compile(r"\S+\s+(0|Q0)\s+\S+\s+[+-]?\d+(\s+\S+\s+\S+)?")


def _texts(file: Path) -> Iterator[Row]:
    first = [line for (_, line), _ in zip(read_lines(file), range(2), strict=False)]
    tabs = {line.count("\t") for line in first}
    if first and (_JUDGEMENT.fullmatch(first[0].strip()) or re.match(r"\{.*\}\s*$", first[0]) or tabs - {0} == tabs):
        kind = ".jsonl" if first[0].startswith("{") else ".tsv"
        raise InputError(f"{file}:1: {brief(first[0])} is no line of text but a row: name the file {kind}")
    return (Row({"text": line.strip()}, file, number) for number, line in read_lines(file))


def _jsonl(file: Path) -> Iterator[Row]:
    return read_rows(file, array=from_array)


def _parquet(file: Path) -> Iterator[Row]:
    def warn(names: list[str]) -> None:
        logger.warning("%s: columns of bytes, which are no texts, are left out: %s", file, listed(names))

    return parquet_rows(file, without_bytes=warn, missing=MissingExtraError(f"{file} is Parquet, which", extra="files"))


def _json(file: Path) -> Iterator[Row]:
    if _is_jsonl(file):
        yield from read_rows(file, array=from_array)
        return
    with JsonStream(file) as document:
        opening = document.peek()
        if opening == "[":
            yield from _listed(file, document)
        elif opening == "{":
            yield from _of_object(file, document)
        else:
            raise _no_rows(file)
        document.end()


def _is_jsonl(file: Path) -> bool:
    """Whether there are several lines, of an object each: FlagEmbedding writes JSONL under the ending .json."""
    try:
        lines = [line.strip() for (_, line), _ in zip(read_lines(file), range(2), strict=False)]
    except InputError:
        return False  # a long line, or one that cannot be read: what is wrong is said by the reader of JSON
    return len(lines) == 2 and lines[0].endswith("}") and all(line.startswith("{") for line in lines)


def _listed(file: Path, document: JsonStream) -> Iterator[Row]:
    # in a JSON list the number of the row stands for the line
    for number, fields in enumerate(document.elements(), start=1):
        row = Row(fields, file, number)
        yield replace(row, values=row.parse(from_array)) if isinstance(fields, list) else row  # type: ignore[arg-type]


def _of_object(file: Path, document: JsonStream) -> Iterator[Row]:
    """The rows of an object: those of a list in it, or of the data set that it is."""
    content: dict[str, Any] = {}
    room = MOST_BYTES
    for key in document.items():
        if key in _LISTS and document.peek() == "[" and "columns" not in content:
            yield from _listed(file, document)
            content[key] = None
        elif len(content) > MOST_COLUMNS:
            raise InputError(f"{file}: an object of more than {MOST_COLUMNS:,} keys, expected rows or columns")
        elif key == "columns" and set(_LISTS) & content.keys():
            raise InputError(f"{file}: 'columns' stand behind their rows, expected them before")
        elif key in content:
            raise InputError(f"{file}: the key {brief(key)} stands in it twice: which one is meant cannot be told")
        else:
            content[key] = document.value(room, _MOST_VALUES)
            room -= document.size
    if {"queries", "corpus", "relevant_docs"} <= content.keys():
        yield from _qa(file, content)
    elif not any(key in _LISTS and content[key] is None for key in content):
        yield from _of_columns(file, content)


def _of_columns(file: Path, content: Fields) -> Iterator[Row]:
    """The rows of columns, as pandas (`{"query": {"0": ...}}`) or datasets (`{"query": [...]}`) has them; or a row."""
    if {"columns", "data"} <= content.keys():
        names, cells = content["columns"], content["data"]
        if not (isinstance(names, list) and isinstance(cells, list)) or any(
            not isinstance(row, list) or len(row) != len(names) for row in cells
        ):
            raise InputError(f"{file}: 'columns' and 'data' do not fit together, expected as many cells as names")
        columns = {name: [row[place] for row in cells] for place, name in enumerate(names)}
    elif content and all(isinstance(part, Mapping) for part in content.values()):
        columns = {name: list(part.values()) for name, part in content.items()}
        if len({tuple(part) for part in content.values()}) > 1:
            raise _no_rows(file)
    elif content and all(isinstance(part, list) for part in content.values()):
        columns = dict(content)
    elif content:
        yield Row(content, file, 1)
        return
    else:
        raise _no_rows(file)
    if all(isinstance(cell, Mapping) for column in columns.values() for cell in column):
        raise InputError(f"{file} holds lists of rows, {listed(columns)}: write the one to read to a file of its own")
    if len({len(column) for column in columns.values()}) > 1:
        raise InputError(f"{file} holds columns of different lengths: {listed(columns)}")
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=1):
        yield Row(dict(zip(columns, cells, strict=True)), file, number)


def _qa(file: Path, content: Fields) -> Iterator[Row]:
    others = [key for key in content if key not in ("queries", "corpus", "relevant_docs", "mode")]
    if others or content.get("mode", "text") != "text":
        odd = f"has {listed(map(repr, others))}" if others else f"has the mode {brief(content['mode'])}"
        raise InputError(f"{file} {odd}, expected queries, corpus and relevant_docs alone, and the mode 'text'")
    try:
        examples = list(from_qa_dataset(content).examples())
    except InputError as error:
        raise InputError(f"{file} is not an EmbeddingQAFinetuneDataset: {error}") from error
    return (Row(example.as_row(), file, number) for number, example in enumerate(examples, start=1))


def _no_rows(file: Path) -> InputError:
    return InputError(f"{file} holds no list of rows and no EmbeddingQAFinetuneDataset")


_AS_JSONL = ": write it as .jsonl (pandas: to_json(path, orient='records', lines=True))"
_WAYS_OUT = {
    **dict.fromkeys((".arrow", ".feather", ".xlsx", ".xls", ".pkl"), _AS_JSONL),
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst", ".tgz"), ": unpack it"),
}
_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _table,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".txt": _texts,
}
