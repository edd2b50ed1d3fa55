"""`embed-plus evaluate`: measure one or two systems on judged queries, print tables, write files.

A system is what is searched and how; `--against` says what is different in a second one.

Guarantees: clients and encoders that two systems share are opened once; an option that a system cannot honour is
refused. Does not know: metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, get_args

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, print_json, say, shortened
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    Overwrite,
    check_outputs,
    managed,
)
from llama_index_embed_plus.documents import read_passages
from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.evaluate.retrieval.comparison import Comparison, QueryChange, compare
from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors, embed_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries, read_run, write_run, write_values
from llama_index_embed_plus.evaluate.retrieval.report import IdenticalIds, RetrievalReport, score_run
from llama_index_embed_plus.evaluate.retrieval.retrieval import Mode, evaluate_retrieval
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError, brief, without_keys
from qdrant_tools.json_files import parse_json
from qdrant_tools.records import Encoder, Qrels, Query

app = typer.Typer()

SOURCES = ("collection", "passages", "run")
TEXT_WIDTH = 70
"""Characters of a query's text in a list."""


@app.command()
def evaluate(
    queries: Annotated[Path, typer.Option(help="JSONL rows with id (or _id) and text.")],
    qrels: Annotated[Path, typer.Option(help="Judgements: BEIR's TSV or TREC's qrels.")],
    collection: Annotated[str | None, typer.Argument(help="The collection or alias to search.")] = None,
    passages: Annotated[
        Path | None, typer.Option(help="Search these (folder, text or JSONL) exactly instead of a collection.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Measure this TREC run instead of searching.")] = None,
    mode: Annotated[Mode, typer.Option(help="How a collection is searched.")] = "dense",
    exact: Annotated[bool, typer.Option(help="Compare with every vector instead of HNSW.")] = False,
    hnsw_ef: Annotated[int | None, typer.Option(help="Beam width in the graph; else the collection's.")] = None,
    filter: Annotated[
        str | None, typer.Option(help='On metadata, as JSON: \'{"field": value}\', a list of values or {"gte": bound}.')
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Compare with the same system but for this; may be repeated. Keys: collection, passages, run, "
            "location, model, backend, mode, exact (yes or no), hnsw-ef, filter.",
        ),
    ] = None,
    k: Annotated[list[int] | None, typer.Option("-k", help="Cutoff; may be repeated, the first decides. [10]")] = None,
    identical_ids: Annotated[
        IdenticalIds,
        typer.Option(
            help="A passage with the id of the query: ignore it as BEIR does, keep it, or ignore it if its text is the "
            "query's (auto)."
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the paired tests.")] = 0,
    show: Annotated[int, typer.Option(min=0, help="How many improved and worsened queries to list.")] = 5,
    run_file: Annotated[
        Path | None,
        typer.Option("--write-run", help="Write what was found as a TREC run; the other system's as NAME.against."),
    ] = None,
    per_query: Annotated[Path | None, typer.Option(help="Write every metric of every query as JSONL.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a PNG: differences per query, or scores of one system.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Measure retrieval on judged queries, and whether another system is better than this one."""
    system = System(
        collection, passages, run, location, model, backend, mode, exact, hnsw_ef, filter_of(filter, "--filter")
    )
    systems = [system, changed(system, against)] if against else [system]
    run_files = _run_files(run_file, len(systems))
    read = [queries, qrels, *(file for each in systems for file in (each.run, each.passages))]
    check_outputs(*run_files, per_query, plot, overwrite=overwrite, inputs=read)
    judged_queries, judgements = read_queries(queries), read_qrels(qrels)
    reports: list[RetrievalReport] = []
    with OpenedSystems() as opened:
        for each in systems:
            with ConsoleReporter().step(f"measure {each.title}", None):
                reports.append(opened.measure(each, judged_queries, judgements, k or [10], identical_ids))
    comparison = compare(*reports, seed=seed) if len(reports) == 2 else None
    written = run_files
    for path, report in zip(run_files, reports):
        write_run(path, report.run, overwrite=overwrite)
    if per_query is not None:
        write_values(per_query, reports, overwrite=overwrite)
        written.append(per_query)
    if plot is not None:
        _draw(plot, reports[0], comparison, judgements, overwrite=overwrite)
        written.append(plot)
    if as_json:
        row: dict[str, Any] = {"systems": [report.as_row() for report in reports]}
        print_json(row if comparison is None else row | {"comparison": comparison.as_row(queries=show)})
        return
    _show_counts(reports)
    if comparison is None:
        _show_table([["", reports[0].name], *([name, f"{mean:.4f}"] for name, mean in reports[0].means().items())])
    else:
        _show_comparison(comparison, show)
    if written:
        say(f"wrote {', '.join(map(str, written))}")


def _run_files(path: Path | None, systems: int) -> list[Path]:
    """Where it is written what each system found: the second one's beside the first one's, as NAME.against."""
    if path is None:
        return []
    # of a path without a name there is none with another ending, and it is refused
    return [path, path.with_suffix(f".against{path.suffix}")][:systems] if path.name else [path]


def _draw(path: Path, report: RetrievalReport, comparison: Comparison | None, qrels: Qrels, *, overwrite: bool) -> None:
    from llama_index_embed_plus.evaluate.plots.pages import query_differences, score_histograms, scores_by_relevance
    from llama_index_embed_plus.evaluate.plots.style import finish

    if comparison is None:
        picture = score_histograms(None, *scores_by_relevance(report.run, qrels), title=report.name)
    else:
        picture = query_differences(None, comparison)
    finish(picture, path, overwrite=overwrite)


def _show_counts(reports: Sequence[RetrievalReport]) -> None:
    say(f"{reports[0].coverage.queries} queries measured")
    notes = {report.name: report.coverage.notes() for report in reports}
    for note in dict.fromkeys(note for of_system in notes.values() for note in of_system):
        names = [name for name, of_system in notes.items() if note in of_system]
        say(f"  {note}" if len(names) == len(reports) else f"  {note} ({names[0]})")


def _show_comparison(comparison: Comparison, show: int) -> None:
    first, second = comparison.names
    rows = [["", first, second, "difference", "95 % interval", "p", "better", "worse", "same"]]
    for name, test in comparison.tests.items():
        interval = f"{test.low:+.4f} to {test.high:+.4f}"
        means = [f"{test.before:.4f}", f"{test.after:.4f}", f"{test.difference:+.4f}", interval, f"{test.p_value:.4f}"]
        rows.append([name, *means, str(test.better), str(test.worse), str(test.same)])
    _show_table(rows)
    say(f"by {comparison.metric}, {second} is {_VERDICTS[comparison.verdict()]} {first}")
    for title, changes in (("better", comparison.improved(show)), ("worse", comparison.worsened(show))):
        if changes:
            say(f"{title} with {second}:")
        for change in changes:
            say(f"  {change.difference:+.3f}  {change.before:.3f} -> {change.after:.3f}  {_label(change)}")


_VERDICTS = {"better": "better than", "worse": "worse than", "not decided": "not proved different from"}


def _label(change: QueryChange) -> str:
    return f"{change.id}  {shortened(change.text, TEXT_WIDTH)}"


def _show_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        say("  ".join(cells).rstrip())


@dataclass(frozen=True)
class System:
    """One thing to measure: a collection, passages or a run, and how it is searched."""

    collection: str | None
    passages: Path | None
    run: Path | None
    location: str
    model: str
    backend: BackendName
    mode: Mode = "dense"
    exact: bool = False
    hnsw_ef: int | None = None
    filter: dict[str, Any] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        sources = [source for source in SOURCES if getattr(self, source) is not None]
        if len(sources) != 1:
            listed = " and ".join(sources) or "none"
            raise UsageError(f"expected one of a collection, passages and a run to measure, found {listed}")
        is_special = self.mode != "dense" or self.exact or self.hnsw_ef is not None or self.filter is not None
        if is_special and self.collection is None:
            raise UsageError(f"mode, exact, hnsw-ef and filter are for a collection, not for {sources[0]}")

    @property
    def title(self) -> str:
        return self.name or self.collection or str((self.passages or self.run or Path()).name)


def changed(system: System, settings: Sequence[str]) -> System:
    """The same system but for `KEY=VALUE` settings. Naming another source takes the place of the system's.

    Raises:
        UsageError: an unknown key, a key that occurs twice, or a value that its key cannot have.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key not in _PARSERS:
            keys = ", ".join(_PARSERS).replace("_", "-")
            raise UsageError(f"--against {brief(setting)}: expected KEY=VALUE with one of the keys {keys}")
        if key in values:
            raise UsageError(f"--against names {brief(key)} twice")
        values[key] = _PARSERS[key](text, f"--against {brief(setting)}")
    sources = [key for key in values if key in SOURCES]
    if sources:
        values = dict.fromkeys(SOURCES) | values
        if sources != ["collection"]:  # passages and runs have no such settings
            values = {"mode": "dense", "exact": False, "hnsw_ef": None, "filter": None} | values
    other = replace(system, **values, name=without_keys(" ".join(settings)))
    _check_effect(other, values)
    return other


def _check_effect(system: System, values: Mapping[str, Any]) -> None:
    """Refuse settings that change nothing about what is measured."""
    idle: tuple[str, ...] = ()
    if system.run is not None:
        idle = ("model", "backend", "location")
    elif system.passages is not None:
        idle = ("location",)
    elif system.mode == "lexical":
        idle = ("model", "backend")
    useless = [key for key in idle if key in values]
    if useless:
        raise UsageError(f"--against {useless[0]}=... changes nothing: {brief(system.title)} does not use it")


def filter_of(text: str | None, where: str) -> dict[Any, Any] | None:
    """A filter on metadata from its JSON: an object, or pairs whose fields may be lists of names."""
    if text is None:
        return None
    value = parse_json(text, f"{where}: the filter", error=UsageError)
    if isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        pairs = [(tuple(field) if isinstance(field, list) else field, wanted) for field, wanted in value]
        # an object or a number as a field is no key of a dict either
        if all(isinstance(field, str | tuple) and not _holds_parts(field) for field, _ in pairs):
            return dict(pairs)
    if not isinstance(value, dict):
        raise UsageError(
            f"{where}: the filter is {brief(value)}, expected a JSON object, field -> value, list of values or bounds "
            'such as {"gte": 2020}; or a list of pairs, for fields inside others: [[["author", "name"], "Ann"]]'
        )
    return value


def _holds_parts(field: str | tuple[Any, ...]) -> bool:
    return isinstance(field, tuple) and any(isinstance(step, list | dict) for step in field)


class OpenedSystems:
    """Measures systems. What several of them need is opened once, and closed in the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._managers: dict[str, CollectionManager] = {}
        self._encoders: dict[tuple[str, str], Encoder] = {}
        self._vectors: dict[tuple[Path, str, str], PassageVectors] = {}

    def __enter__(self) -> OpenedSystems:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(
        self,
        system: System,
        queries: Sequence[Query],
        qrels: Qrels,
        cutoffs: Sequence[int],
        identical_ids: IdenticalIds,
    ) -> RetrievalReport:
        """Search, or read the run, and score.

        Raises:
            PlusError: whatever keeps the system from being opened, searched or scored.
        """
        if system.run is not None:
            # a run needs neither client nor encoder, so none is opened
            return score_run(
                read_run(system.run),
                qrels,
                queries=queries,
                k=cutoffs,
                name=system.title,
                identical_ids=identical_ids,
            )
        if system.passages is not None:
            vectors = self._passages(system.passages, system)
            return evaluate_retrieval(
                vectors,
                queries,
                qrels,
                self._encoder(system),
                k=cutoffs,
                name=system.title,
                identical_ids=identical_ids,
            )
        encoder = None if system.mode == "lexical" else self._encoder(system)
        # never None here, see `System.__post_init__`: `str` is for the type checker
        collection = self._manager(system.location).open(str(system.collection), encoder)
        return evaluate_retrieval(
            collection,
            queries,
            qrels,
            encoder,
            k=cutoffs,
            name=system.title,
            identical_ids=identical_ids,
            mode=system.mode,
            exact=system.exact,
            hnsw_ef=system.hnsw_ef,
            filter=system.filter,
        )

    def _manager(self, location: str) -> CollectionManager:
        if location not in self._managers:
            self._managers[location] = self._stack.enter_context(managed(location))
        return self._managers[location]

    def _encoder(self, system: System) -> Encoder:
        key = (system.model, system.backend)
        if key not in self._encoders:
            self._encoders[key] = open_encoder(system.model, backend=system.backend)
        return self._encoders[key]

    def _passages(self, path: Path, system: System) -> PassageVectors:
        # two systems that search the same passages by one model embed them once
        key = (path, system.model, system.backend)
        if key not in self._vectors:
            self._vectors[key] = embed_passages(read_passages(path), self._encoder(system))
        return self._vectors[key]


def _text(text: str, where: str) -> str:
    if not text.strip():
        raise UsageError(f"{where}: an empty value")
    return text.strip()


def _one_of(choices: Sequence[str]) -> Any:
    def parse(text: str, where: str) -> str:
        if text not in choices:
            raise UsageError(f"{where}: expected one of {', '.join(choices)}")
        return text

    return parse


def _number(text: str, where: str) -> int:
    # not `isdigit`, which takes ² too; and `int` refuses thousands of digits
    if not text.isdecimal() or len(text) > 20:
        raise UsageError(f"{where}: expected a whole number")
    return int(text)


_PARSERS: dict[str, Any] = {
    "collection": _text,
    "passages": lambda text, where: Path(_text(text, where)),
    "run": lambda text, where: Path(_text(text, where)),
    "location": _text,
    "model": _text,
    "backend": _one_of(get_args(BackendName)),
    "mode": _one_of(get_args(Mode)),
    "exact": lambda text, where: _one_of(("yes", "no"))(text, where) == "yes",
    "hnsw_ef": _number,
    "filter": filter_of,
}
"""How the value of each key is read: (text, where it stands) -> value."""
