"""Two encoders and queries that nobody judged -> a sheet to fill in, and a filled sheet -> held-out queries.

Clicks favour what was shown, and judging everything is too much work. Only a passage that the two encoders rank
differently can move their difference, and it moves it by the difference of its two discounts. So passages are drawn
with a probability in proportion to that, and to how likely passages of such a rank answer (the inverse root of the
better rank). Each drawing is independent (Poisson sampling), and an answer counts by the inverse of its probability:
the mean over all queries has no bias (Horvitz and Thompson, "A generalization of sampling without replacement from a
finite universe", JASA 1952), however few passages were judged, and queries are still independent of each other, as the
bootstrap of a proof wants them.

The sheet is a CSV file: `row, query, passage, relevant`. Nothing in it says which encoder ranks a passage higher, and
the order of the rows is a random one, so that whoever judges may stop at any row. SHEET.json beside it holds what the
rows are.

Guarantees: the same encoders, collection, queries and seed give the same sheet; a sheet of other encoders is refused.
Does not know: where the queries come from. They have to be ones that training did not see.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors
from llama_index_embed_plus.training.proof.moves import moves
from llama_index_embed_plus.training.proof.proof import ProofSettings
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, sample_vectors
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.rows import read_rows
from qdrant_tools.files.written import errors_of_writing, refuse_link, write_text, written_whole
from qdrant_tools.mining.false_negatives import inert
from qdrant_tools.records import SAMPLE, Encoder, HeldOut, Query, Run, Vectors
from qdrant_tools.search.adapters import adapter_of
from qdrant_tools.validation import checked_number, checked_text

FORMAT = 1
COLUMNS = ("row", "query", "passage", "relevant")
LEAST_JUDGED = 10
_AT_ONCE = 256


@dataclass(frozen=True)
class SheetRow:
    """A passage to judge, and how likely it was drawn."""

    query: str
    passage: str
    probability: float


@dataclass(frozen=True)
class Sheet:
    """What was drawn. `queries` are all that were ranked, drawn or not: the mean is over them.

    `differing` counts the queries whose k best differ, `candidates` the passages that were drawn from.
    """

    rows: tuple[SheetRow, ...]
    queries: tuple[Query, ...]
    before: str
    after: str
    k: int
    differing: int
    candidates: int

    def as_row(self) -> dict[str, Any]:
        """JSON-ready, without the texts of passages."""
        return {
            "format": FORMAT,
            "before": self.before,
            "after": self.after,
            "k": self.k,
            "queries": [query.as_row() for query in self.queries],
            "rows": [[row.query, row.passage, row.probability] for row in self.rows],
        }


def draw_sheet(
    before: Encoder,
    after: Encoder,
    queries: Sequence[Query],
    collection: Collection,
    *,
    rows: int = 150,
    settings: ProofSettings | None = None,
) -> Sheet:
    """Rank the queries by both encoders, exactly, and draw about so many passages to judge.

    Raises:
        TrainingError: both rank all of them alike, so that no judgement can tell the encoders apart.
    """
    settings = settings or ProofSettings()
    first, second = _runs(before, after, queries, collection, settings)
    changes = {query.id: list(moves(first[query.id], second[query.id])) for query in queries}
    sizes = {(query, name): abs(change) / math.sqrt(rank) for query in changes for name, change, rank in changes[query]}
    if not sizes:
        raise TrainingError(f"both models rank the passages of all {len(queries)} queries alike: nothing to judge")
    factor = _factor(list(sizes.values()), rows)
    drawn = [
        SheetRow(query, name, probability)
        for (query, name), size in sizes.items()
        if _draw(settings.seed, query, name) < (probability := min(1.0, factor * size))
    ]
    # an order that says nothing: neither whose passages come first nor how likely they were
    drawn.sort(key=lambda row: _draw(settings.seed + 1, row.query, row.passage))
    differing = sum(map(bool, changes.values()))
    return Sheet(tuple(drawn), tuple(queries), _named(before), _named(after), settings.k, differing, len(sizes))


def write_sheet(sheet: Sheet, path: Path, collection: Collection, *, overwrite: bool = False) -> None:
    """Write the CSV, and what its rows are beside it. Texts that a spreadsheet would compute get an apostrophe.

    Interrupted, it leaves no two files behind that do not belong together.

    Raises:
        UsageError: a file cannot be written, or is there and not to be replaced.
    """
    if overwrite:
        refuse_link(_beside(path), UsageError)
        _beside(path).unlink(missing_ok=True)
    texts = {query.id: query.text for query in sheet.queries}
    passages = dict(_texts(collection, [row.passage for row in sheet.rows]))
    with errors_of_writing(path), written_whole(path, overwrite=overwrite) as draft, draft.open("wb") as file:
        file.write(f"{','.join(COLUMNS)}\r\n".encode())
        for number, row in enumerate(sheet.rows, start=1):
            query, passage = _cell(texts[row.query]), _cell(passages.get(row.passage, ""))
            file.write(f"{number},{query},{passage},\r\n".encode("utf-8", "backslashreplace"))
    write_text(_beside(path), json.dumps(sheet.as_row()), overwrite=overwrite)


def is_sheet(path: Path) -> bool:
    """Whether a sheet lies here, with what its rows are."""
    return path.is_file() and _beside(path).is_file()


def checked_sheet(path: Path) -> Path:
    """The path, if a sheet lies there. Raises `InputError`: it does not, or not with what its rows are."""
    if not path.is_file():
        raise InputError(f"cannot read {path}: there is no such sheet")
    _read_design(path)
    return path


def read_sheet(path: Path, before: Encoder, after: Encoder) -> HeldOut:
    """What a person wrote into a sheet, as held-out queries; rows that are left empty were not drawn.

    Raises:
        InputError: no sheet of `write_sheet`, a verdict other than 0 and 1, or too few of them.
        UsageError: the sheet is about other encoders.
    """
    sheet = _read_design(path)
    for title, encoder, named in (("base", before, sheet.before), ("model", after, sheet.after)):
        if _named(encoder) != named:
            raise UsageError(f"{path} was drawn for the {title} {named}, and this is {_named(encoder)}: draw another")
    verdicts = dict(_verdicts(path, len(sheet.rows)))
    if len(verdicts) < min(LEAST_JUDGED, len(sheet.rows)):
        raise InputError(
            f"{len(verdicts)} of the {len(sheet.rows)} rows of {path} are judged, expected at least {LEAST_JUDGED}: "
            "write 1 (it answers) or 0 into the column relevant"
        )
    qrels: dict[str, dict[str, int]] = {}
    weights: dict[str, dict[str, float]] = {}
    for number, verdict in verdicts.items():
        row = sheet.rows[number - 1]
        qrels.setdefault(row.query, {})[row.passage] = int(verdict)
        # the rows stand in a random order: those that were judged are a sample of those drawn
        drawn = row.probability * len(verdicts) / len(sheet.rows)
        weights.setdefault(row.query, {})[row.passage] = 1 / drawn
    if not any(verdicts.values()):
        raise InputError(f"none of the {len(verdicts)} passages judged in {path} answers its query: judge more rows")
    return HeldOut(sheet.queries, qrels, evidence=SAMPLE, weights=weights)


def _runs(
    before: Encoder, after: Encoder, queries: Sequence[Query], collection: Collection, settings: ProofSettings
) -> tuple[Run, Run]:
    # drawn as a proof draws them, so that it ranks the same passages
    sample = sample_vectors(collection, settings.max_passages, seed=settings.seed)
    by_space: dict[str, Vectors] = {collection.space: sample.vectors}
    runs = []
    for encoder in (before, after):
        if encoder.space not in by_space:
            texts = dict(_texts(collection, sample.ids))
            by_space[encoder.space] = encoder.encode_passages([texts[name] for name in sample.ids])
        asked = encoder.encode_queries([query.text for query in queries])
        ids = [query.id for query in queries]
        runs.append(PassageVectors(sample.ids, by_space[encoder.space]).search(ids, asked, k=settings.k))
    return runs[0], runs[1]


def _factor(sizes: Sequence[float], rows: int) -> float:
    """What makes probabilities of sizes, so that about so many are drawn."""
    if rows >= len(sizes):
        return math.inf
    low, high = 0.0, rows / min(sizes)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(min(1.0, middle * size) for size in sizes) < rows else (low, middle)
    return high


def _draw(seed: int, query: str, passage: str) -> float:
    """A number from 0 up to, not including, 1 that depends on the pair alone."""
    digest = hashlib.sha256(f"{seed}\0{query}\0{passage}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _named(encoder: Encoder) -> str:
    """The space and the adapter, as they decide a ranking."""
    adapter = adapter_of(encoder)
    return encoder.space if adapter is None else f"{encoder.space} with {adapter}"


def _texts(collection: Collection, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield from ((name, passage.text) for name, passage in fetch(collection, ids[start : start + _AT_ONCE]).items())


def _cell(text: str) -> str:
    return '"' + inert(text.replace("\0", "\u2400")).replace('"', '""') + '"'


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_design(path: Path) -> Sheet:
    file = _beside(path)
    try:
        row = read_json(file)
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing: keep it beside the sheet, or draw another (--write-sheet)") from error
    try:
        if row["format"] != FORMAT:
            raise InputError(f"format is {brief(row['format'])}, this version reads {FORMAT}")
        rows = tuple(SheetRow(query, passage, probability) for query, passage, probability in row["rows"])
        queries = tuple(map(Query.from_row, row["queries"]))
        known = {query.id for query in queries}
        for drawn in rows:
            checked_text("a passage", drawn.passage)
            checked_number("a probability", drawn.probability, above=0, most=1)
            if drawn.query not in known:
                raise InputError(f"the query {brief(drawn.query)} of a row is not among the queries")
        before, after, k = checked_text("before", row["before"]), checked_text("after", row["after"]), int(row["k"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} does not belong to a sheet of passages: {error}") from error
    return Sheet(rows, queries, before, after, k, 0, len(rows))


def _verdicts(path: Path, rows: int) -> Iterator[tuple[int, bool]]:
    # spreadsheets leave out the empty cells at the end of a row
    for row in read_rows(path, pad=True):
        verdict, number = str(row.values.get("relevant", "no column")).strip(), str(row.values.get("row", "")).strip()
        if verdict not in ("", "0", "1"):
            raise InputError(f"{row.where}: relevant is {brief(row.values.get('relevant'))}, expected 0, 1 or nothing")
        if not number.isascii() or not number.isdecimal() or not 1 <= int(number[:9]) <= rows:
            raise InputError(f"{row.where}: row is {brief(row.values.get('row'))}, expected 1 to {rows}")
        if verdict:
            yield int(number), verdict == "1"
