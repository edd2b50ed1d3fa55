"""Mining into a JSONL file, which can be killed and resumed.

The examples go to the file one batch at a time. Beside it, `<file>.state.json` says how far the run has come and what
it has counted. After a kill, the next call with the same arguments goes on where the state says, and the file comes
out as if nothing had happened.

Guarantees: no example twice, none missing; a file of other labels, settings or another collection is refused, not
mixed. Nothing is written through a link, and new files are their owner's alone. Does not know: how examples are mined.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.rows import read_rows
from qdrant_tools.files.written import (
    errors_of_writing,
    json_line,
    open_private,
    refuse_link,
    require_writable,
    written_whole,
)
from qdrant_tools.mining.miner import SCORES, Miner, MiningStats, positives_by_query, synthetic_queries
from qdrant_tools.mining.origins import Origin, origins_by_query
from qdrant_tools.mining.rules import Judge, MiningSettings
from qdrant_tools.records import Encoder, Example, Label, Progress
from qdrant_tools.validation import checked_count

STATE_FORMAT = 3
MOST_COUNTED = 1 << 53
MOST_COUNTS = 10_000
"""Kinds of counts in a state, and bins of a histogram: a run has some twenty, and a hundred."""


@dataclass(frozen=True)
class MiningReport:
    """What is in the file. `resumed` queries were done by an earlier call. `notes` are for a person: of positives that
    are not in the collection an example, and what it has in its place."""

    path: Path
    stats: MiningStats
    queries: int
    resumed: int
    notes: tuple[str, ...] = ()

    def as_row(self) -> dict[str, Any]:
        counts = {"queries": self.queries, "resumed": self.resumed, **self.stats.as_row()}
        return {"path": self.path.name, **counts, "notes": list(self.notes)}


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
        UsageError: the file was begun with other labels, settings, judge or vectors, or by something else; or it cannot
            be written, or is a link.
    """
    settings = settings or MiningSettings()
    target = Path(path)
    listed = labels if isinstance(labels, Sequence) else list(labels)
    positives, synthetic = positives_by_query(listed), synthetic_queries(listed)
    origins = origins_by_query(listed)
    miner = Miner(collection, encoder, settings, judge, synthetic, origins)
    state = _State.open(target, _fingerprint(collection, positives, settings, judge, synthetic, origins))
    miner.stats = state.stats
    miner.check_ids(positives)
    resumed = state.queries
    if resumed and progress is not None:
        progress(resumed)
    with errors_of_writing(target):
        held = open_private(target)
    with held, open(held.fileno(), "r+b", closefd=False) as file:
        file.seek(0, os.SEEK_END)
        if not resumed:
            state.save(
                target
            )  # before the first example: a kill in the first batch leaves a file that is known as ours
        for batch, examples in miner.batches(islice(positives.items(), resumed, None)):
            for example in examples:
                file.write(json_line(example.as_row()))
            # The examples are on the disk before the state counts them: a kill in between leaves lines that the next
            # call cuts off, never a gap.
            file.flush()
            os.fsync(file.fileno())
            state.queries += len(batch)
            state.bytes = file.tell()
            state.save(target)
            if progress is not None:
                progress(len(batch))
    return MiningReport(target, miner.stats, len(positives), resumed, miner.notes())


def read_stats(path: str | Path) -> MiningStats | None:
    """What the run that wrote a file has counted; None for a file without a state beside it.

    Raises:
        UsageError: what is beside the file is not the state of a mining run.
    """
    state_file = _state_file(Path(path))
    return _read_state(state_file).stats if state_file.exists() else None


def read_examples(path: str | Path) -> Iterator[Example]:
    """The examples of a JSONL file, one at a time.

    Raises:
        InputError: the file cannot be read, or a line is not an example.
    """
    return (row.parse(Example.from_row, "a training example") for row in read_rows(path))


@dataclass
class _State:
    """How far a run has come: queries done, bytes of the file that count, and what was counted."""

    fingerprint: str
    queries: int
    bytes: int
    stats: MiningStats

    @classmethod
    def open(cls, target: Path, fingerprint: str) -> _State:
        """Begin, or go on: what an interrupted batch had written behind the last state is cut off."""
        require_writable(target, overwrite=True)
        state_file = _state_file(target)
        for path in (target, state_file):
            refuse_link(path, UsageError)
        if not state_file.exists():
            if target.exists() and target.stat().st_size:
                raise UsageError(f"{target} is there and was not begun by mining: choose another file or remove it")
            return cls(fingerprint, 0, 0, MiningStats())
        state = _read_state(state_file)
        if state.fingerprint != fingerprint:
            raise UsageError(
                f"{target} was begun with other labels, settings, judge or vectors: choose another file, or remove it "
                f"and {state_file.name}"
            )
        if not target.exists() or target.stat().st_size < state.bytes:
            raise UsageError(f"{target} is shorter than {state_file.name} says: remove both and mine again")
        with errors_of_writing(target), open_private(target) as file:
            file.truncate(state.bytes)
        return state

    def save(self, target: Path) -> None:
        row = {
            "format": STATE_FORMAT,
            "fingerprint": self.fingerprint,
            "queries": self.queries,
            "bytes": self.bytes,
            "stats": self.stats.as_row(),
        }
        state_file = _state_file(target)
        # always the same name: a draft that a kill has left is written over by the next call
        with written_whole(state_file, draft=state_file.with_name(state_file.name + ".part")) as draft:
            draft.write_text(json.dumps(row), encoding="utf-8")


def _read_state(state_file: Path) -> _State:
    try:
        row = read_json(state_file, error=UsageError)
        if row["format"] != STATE_FORMAT:
            raise UsageError(
                f"{state_file} was written by another version: remove it and the file of examples, and mine again"
            )
        queries, size = (checked_count(name, row[name], least=0) for name in ("queries", "bytes"))
        if max(queries, size) >= MOST_COUNTED:
            raise InputError("more than a file holds")
        stats = row["stats"]
        histograms = [stats["histograms"][name] for name in SCORES]
        for counts in (stats["counts"], *histograms):
            if len(counts) > MOST_COUNTS or not all(
                0 <= checked_count("a count", n, least=0) < MOST_COUNTED for n in counts.values()
            ):
                raise InputError("counts of no run")
        if not all(abs(int(bin_)) < MOST_COUNTS for histogram in histograms for bin_ in histogram):
            raise InputError("scores of no run")
        return _State(str(row["fingerprint"]), queries, size, MiningStats.from_row(stats))
    except UsageError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{state_file} is not the state of a mining run: remove it and the file of examples"
        ) from error


def _state_file(target: Path) -> Path:
    return target.with_name(target.name + ".state.json")


def _fingerprint(
    collection: Collection,
    positives: Mapping[str, Mapping[str, float]],
    settings: MiningSettings,
    judge: Judge | None,
    synthetic: frozenset[str],
    origins: Mapping[str, Origin],
) -> str:
    # Batches only cut the work into pieces, so their size may change from one call to the next.
    compared: Any = {name: value for name, value in settings.as_row().items() if name != "batch_size"}
    judged = None if judge is None else [judge.name, judge.threshold, judge.promote]
    digest = hashlib.sha256(json.dumps([collection.name, collection.space, compared, judged], sort_keys=True).encode())
    for query, weights in positives.items():
        digest.update(json.dumps([query, list(weights.items())]).encode())
    if synthetic:
        digest.update(json.dumps(sorted(synthetic)).encode())
    if origins:
        digest.update(json.dumps([[key, origin.as_row()] for key, origin in sorted(origins.items())]).encode())
    return digest.hexdigest()
