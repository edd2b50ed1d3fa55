"""What `embed-plus evaluate` measures: a system is what is searched and how; `--against` says what is different in a
second one.

Guarantees: clients and encoders that two systems share are opened once; an option that a system cannot honour is
refused. Does not know: what is done with the reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from llama_index_embed_plus.cli.console import note
from llama_index_embed_plus.cli.opened import managed, opened_with
from llama_index_embed_plus.cli.words import fusion_of
from llama_index_embed_plus.documents.reading import read_passages
from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors, embed_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_run
from llama_index_embed_plus.evaluate.retrieval.report import IdenticalIds, RetrievalReport, score_run
from llama_index_embed_plus.evaluate.retrieval.retrieval import Mode, evaluate_retrieval
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError, brief, without_keys
from qdrant_tools.files.json_files import parse_json
from qdrant_tools.records import Qrels, Query
from qdrant_tools.search.fusion import Fusion

SOURCES = ("collection", "passages", "run")


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
    exact: bool | None = None
    hnsw_ef: int | None = None
    filter: dict[str, Any] | None = None
    fusion: Fusion | None = None
    name: str = ""
    exactly: bool = False
    """Queries are embedded by just this model, and not with the adapter that serves in the collection."""

    def __post_init__(self) -> None:
        sources = [source for source in SOURCES if getattr(self, source) is not None]
        if len(sources) != 1:
            listed = " and ".join(sources) or "none"
            raise UsageError(f"expected one of a collection, passages and a run to measure, found {listed}")
        is_special = self.mode != "dense" or any(
            value is not None for value in (self.exact, self.hnsw_ef, self.filter, self.fusion)
        )
        if is_special and self.collection is None:
            raise UsageError(f"mode, exact, hnsw-ef, fusion and filter are for a collection, not for {sources[0]}")

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
            values = {"mode": "dense", "exact": None, "hnsw_ef": None, "filter": None, "fusion": None} | values
    if values.get("mode", "hybrid") != "hybrid":
        values = {"fusion": None} | values
    name = without_keys(" ".join(settings))
    other = replace(system, **values, name=name, exactly="model" in values)
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
        self._encoders: dict[tuple[str, str], TextEncoder] = {}
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
        # never None here, see `System.__post_init__`: `str` is for the type checker
        manager, name = self._manager(system.location), str(system.collection)
        words = system.mode == "lexical"
        collection, encoder = manager.open(name), None
        if not words:
            collection, encoder = opened_with(manager, name, self._encoder(system), exactly=system.exactly)
            if encoder.adapter is not None and not system.exactly:
                note(f"{system.title} serves with {encoder.adapter.build}; --against model={system.model} without it")
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
            fusion=system.fusion,
        )

    def _manager(self, location: str) -> CollectionManager:
        if location not in self._managers:
            self._managers[location] = self._stack.enter_context(managed(location))
        return self._managers[location]

    def _encoder(self, system: System) -> TextEncoder:
        key = (system.model, system.backend)
        if key not in self._encoders:
            self._encoders[key] = open_encoder(system.model, backend=system.backend)
        return self._encoders[key]

    def _passages(self, path: Path, system: System) -> PassageVectors:
        # two systems that search the same passages by one model embed them once
        key = (path, system.model, system.backend)
        if key not in self._vectors:
            self._vectors[key] = embed_passages(
                read_passages(path, self._encoder(system), whole_rows=True), self._encoder(system)
            )
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
    "fusion": fusion_of,
    "filter": filter_of,
}
"""How the value of each key is read: (text, where it stands) -> value."""
