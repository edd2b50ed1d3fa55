"""Mining into a JSONL file, resumable.

The examples go to the file one batch at a time; beside it, `<file>.state.json` says how far the run has come and what
it has counted. Killed at any moment, the next call with the same arguments goes on where the state says, and the file
comes out as if nothing had happened.

Guarantees: no example twice, none missing; a file of other labels, settings or another collection is refused, not
mixed. Does not know: how examples are mined.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.files import json_line, read_rows, written_whole
from qdrant_tools.mining.miner import Miner, Tally, positives_by_query
from qdrant_tools.mining.rules import Judge, MiningSettings
from qdrant_tools.records import Encoder, Example, Label, Progress

STATE_FORMAT = 1


@dataclass(frozen=True)
class MiningReport:
    """What is in the file. `resumed` queries were done by an earlier call."""

    path: Path
    tally: Tally
    queries: int
    resumed: int

    def as_row(self) -> dict[str, Any]:
        return {"path": self.path.name, "queries": self.queries, "resumed": self.resumed, **self.tally.as_row()}


def mine_to_jsonl(
    collection: Collection,
    labels: Iterable[Label],
    encoder: Encoder,
    *,
    path: str | Path,
    settings: MiningSettings | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> MiningReport:
    """Mine as `mine` does, into a file. `progress` receives the queries done, those of an earlier call at once.

    Raises:
        UsageError: the file was begun with other labels, settings, judge or vectors, or by something else.
    """
    settings = settings or MiningSettings()
    target = Path(path)
    positives = positives_by_query(labels)
    miner = Miner(collection, encoder, settings, judge)
    state = _State.open(target, _fingerprint(collection, positives, settings, judge))
    miner.tally = state.tally
    resumed = state.queries
    if resumed and progress is not None:
        progress(resumed)
    with target.open("ab") as file:
        for batch, examples in miner.batches(islice(positives.items(), resumed, None)):
            for example in examples:
                file.write(json_line(example.as_row()))
            file.flush()
            os.fsync(file.fileno())
            state.queries += len(batch)
            state.bytes = file.tell()
            state.save(target)
            if progress is not None:
                progress(len(batch))
    return MiningReport(target, miner.tally, len(positives), resumed)


def read_tally(path: str | Path) -> Tally | None:
    """The account of the run that wrote a file, or None for a file without one.

    Raises:
        UsageError: what is beside the file is not the state of a mining run.
    """
    place = _state_path(Path(path))
    return _read_state(place).tally if place.exists() else None


def read_examples(path: str | Path) -> Iterator[Example]:
    """The examples of a JSONL file, one at a time.

    Raises:
        InputError: the file cannot be read, or a line is not an example.
    """
    return (row.parse(Example.from_row, "a training example") for row in read_rows(path))


@dataclass
class _State:
    """How far a run has come: queries done, bytes of the file that count, and the account."""

    fingerprint: str
    queries: int
    bytes: int
    tally: Tally

    @classmethod
    def open(cls, target: Path, fingerprint: str) -> _State:
        """Begin, or go on: what an interrupted batch had written behind the last state is cut off."""
        place = _state_path(target)
        if not place.exists():
            if target.exists() and target.stat().st_size:
                raise UsageError(f"{target} is there and was not begun by mining: choose another file or remove it")
            return cls(fingerprint, 0, 0, Tally())
        state = _read_state(place)
        if state.fingerprint != fingerprint:
            raise UsageError(
                f"{target} was begun with other labels, settings, judge or vectors: choose another file, or remove it "
                f"and {place.name}"
            )
        if not target.exists() or target.stat().st_size < state.bytes:
            raise UsageError(f"{target} is shorter than {place.name} says: remove both and mine again")
        os.truncate(target, state.bytes)
        return state

    def save(self, target: Path) -> None:
        place = _state_path(target)
        row = {
            "format": STATE_FORMAT,
            "fingerprint": self.fingerprint,
            "queries": self.queries,
            "bytes": self.bytes,
            "tally": self.tally.as_row(),
        }
        with written_whole(place) as draft:
            draft.write_text(json.dumps(row), encoding="utf-8")


def _read_state(place: Path) -> _State:
    try:
        row = json.loads(place.read_text(encoding="utf-8"))
        state = _State(row["fingerprint"], row["queries"], row["bytes"], Tally.from_row(row["tally"]))
        known = row["format"] == STATE_FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{place} is not the state of a mining run: remove it and the file of examples") from error
    if not known:
        raise UsageError(f"{place} was written by another version: remove it and the file of examples, and mine again")
    return state


def _state_path(target: Path) -> Path:
    return target.with_name(target.name + ".state.json")


def _fingerprint(
    collection: Collection,
    positives: Mapping[str, Mapping[str, float]],
    settings: MiningSettings,
    judge: Judge | None,
) -> str:
    # Batches only cut the work into pieces, so their size may change from one call to the next.
    asked: Any = {name: value for name, value in settings.as_row().items() if name != "batch_size"}
    judged = None if judge is None else [judge.name, judge.threshold, judge.promote]
    digest = hashlib.sha256(json.dumps([collection.name, collection.space, asked, judged], sort_keys=True).encode())
    for query, weights in positives.items():
        digest.update(json.dumps([query, list(weights.items())]).encode())
    return digest.hexdigest()
