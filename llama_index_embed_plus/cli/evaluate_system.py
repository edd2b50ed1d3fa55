"""Options of `embed-plus evaluate`, and what `--against` changes in them -> systems that can be measured.

Guarantees: clients and encoders that two systems share are opened once; an option that a system cannot honour is
refused. Does not know: metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from qdrant_client import QdrantClient

from llama_index_embed_plus.documents import read_passages
from llama_index_embed_plus.encoders import BackendName, open_encoder
from llama_index_embed_plus.errors import UsageError
from llama_index_embed_plus.evaluate.files import read_run
from llama_index_embed_plus.evaluate.report import RetrievalReport, report_of
from llama_index_embed_plus.evaluate.retrieval import Mode, embed_passages, evaluate_retrieval
from llama_index_embed_plus.evaluate.vectors import PassageVectors
from qdrant_tools.collection import CollectionManager
from qdrant_tools.connect import connect
from qdrant_tools.records import Encoder, Qrels, Query

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
    exact: bool = False
    hnsw_ef: int | None = None
    filter: dict[str, Any] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        given = [source for source in SOURCES if getattr(self, source) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise UsageError(f"expected one of a collection, passages and a run to measure, found {found}")
        how = self.mode != "dense" or self.exact or self.hnsw_ef is not None or self.filter is not None
        if how and self.collection is None:
            raise UsageError(f"mode, exact, hnsw-ef and filter are for a collection, not for {given[0]}")

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
            known = ", ".join(_PARSERS).replace("_", "-")
            raise UsageError(f"--against {setting!r}: expected KEY=VALUE with one of the keys {known}")
        if key in values:
            raise UsageError(f"--against names {key!r} twice")
        values[key] = _PARSERS[key](text, f"--against {setting!r}")
    sources = [key for key in values if key in SOURCES]
    if sources:
        values = dict.fromkeys(SOURCES) | values
        if sources != ["collection"]:  # what else has no such settings
            values = {"mode": "dense", "exact": False, "hnsw_ef": None, "filter": None} | values
    other = replace(system, **values, name=" ".join(settings))
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
        raise UsageError(f"--against {useless[0]}=... changes nothing: {system.title!r} does not use it")


def filter_of(text: str | None, where: str) -> dict[str, Any] | None:
    """A filter on metadata from its JSON."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where}: the filter is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where}: the filter is {value!r}, expected a JSON object: field -> value or list of values")
    return value


class Opened:
    """Opens what systems need, once, and closes it in the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._clients: dict[str, QdrantClient] = {}
        self._encoders: dict[tuple[str, str], Encoder] = {}
        self._vectors: dict[tuple[Path, str, str], PassageVectors] = {}

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(
        self, system: System, queries: Sequence[Query], qrels: Qrels, cutoffs: Sequence[int]
    ) -> RetrievalReport:
        """Search, or read the run, and score.

        Raises:
            PlusError: whatever keeps the system from being opened, searched or scored.
        """
        if system.run is not None:
            return report_of(read_run(system.run), qrels, queries=queries, k=cutoffs, name=system.title)
        if system.passages is not None:
            vectors = self._passages(system.passages, system)
            return evaluate_retrieval(vectors, queries, qrels, self._encoder(system), k=cutoffs, name=system.title)
        encoder = None if system.mode == "lexical" else self._encoder(system)
        collection = CollectionManager(self._client(system.location)).open(str(system.collection), encoder)
        how = {"mode": system.mode, "exact": system.exact, "hnsw_ef": system.hnsw_ef, "filter": system.filter}
        return evaluate_retrieval(collection, queries, qrels, encoder, k=cutoffs, name=system.title, **how)  # type: ignore[arg-type]

    def _client(self, location: str) -> QdrantClient:
        if location not in self._clients:
            self._clients[location] = self._stack.enter_context(closing(connect(location, create=False)))
        return self._clients[location]

    def _encoder(self, system: System) -> Encoder:
        key = (system.model, system.backend)
        if key not in self._encoders:
            self._encoders[key] = open_encoder(system.model, backend=system.backend)
        return self._encoders[key]

    def _passages(self, path: Path, system: System) -> PassageVectors:
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
    if not text.isdecimal():
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
