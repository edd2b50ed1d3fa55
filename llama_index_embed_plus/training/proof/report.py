"""What a training run did and what came of it -> `train_report.json` in the artifact, and back.

The file carries `promotable`, `only_synthetic` and `verdict` beside the facts they follow from: `artifact.refusal`
reads these without knowing this module, and a promotion refuses an artifact that is not promotable.

Guarantees: a report without a proof is not promotable, nor is one whose base is not; reading back what was written
gives the same report; a file whose `promotable` contradicts its proof, or that holds values of another kind, is
`DamagedModelError`. It holds numbers and ids: queries' texts only where `ProofSettings.texts` asked for them, and no
paths of this machine. Does not know: how training or measuring is done.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.artifact import TRAIN_REPORT
from llama_index_embed_plus.models.files import read_json, write_json
from llama_index_embed_plus.training.proof.proof import Proof
from qdrant_tools.errors import brief

FORMAT = 2
UNPROVED = "not measured on held-out queries"

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One stage of the run. `steps` are optimiser steps; `metrics` what was measured after it, by name."""

    name: str
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Lineage:
    """Where the weights come from. `parents` are the lineages of what was trained before, oldest first."""

    base: str
    """The model as it was named: a hub name or the last part of a path."""
    base_space: str
    base_build: str
    space: str = ""
    """The space of the result; that of the base for a query adapter."""
    parents: tuple[Lineage, ...] = ()

    def as_parents(self) -> tuple[Lineage, ...]:
        """What a model that is trained from this one has as its `parents`: one row each, not nested."""
        return (*self.parents, replace(self, parents=()))


@dataclass(frozen=True)
class TrainReport:
    """Everything a run did. Figures that were not measured are absent, never guessed."""

    method: str
    settings: Mapping[str, Any]
    data: Mapping[str, int]
    """How many of what was trained on, such as examples, rows, positives, negatives, skipped."""
    losses: tuple[float, ...]
    """One per optimiser step."""
    seconds: float
    seed: int
    lineage: Lineage
    stages: tuple[Stage, ...] = ()
    proof: Proof | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a reader has to know beside the figures, such as a mini-batch that was halved because memory ran out."""
    inherited: str = ""
    """Why the base, which the proof compares with, must not be promoted itself (`artifact.refusal`); "": it may.
    A model that is better than a harmful one may still be harmful."""
    inherited_synthetic: bool = False
    """Whether that is only because the base was proved on synthetic queries."""

    @property
    def only_synthetic(self) -> bool:
        """Whether it is refused only for want of real queries, here or in the base: a person may accept that."""
        if self.proof is None or self.promotable or (self.inherited and not self.inherited_synthetic):
            return False
        return self.proof.harmless or self.proof.only_synthetic

    @property
    def promotable(self) -> bool:
        """Whether harm was measured and excluded, here and in the base that was measured against."""
        return self.proof is not None and self.proof.harmless and not self.inherited

    @property
    def verdict(self) -> str:
        """One line: what the proof says, or what stands against the base."""
        if self.inherited:
            return f"its base must not be promoted: {self.inherited}"
        return self.proof.verdict if self.proof is not None else UNPROVED

    def as_row(self) -> dict[str, Any]:
        """The report, JSON-ready."""
        says = {"promotable": self.promotable, "only_synthetic": self.only_synthetic, "verdict": self.verdict}
        return {"format": FORMAT, **says, **asdict(self)}


def write_report_file(folder: Path, report: TrainReport) -> None:
    """Write `train_report.json` alone into a folder without a manifest; `model_card.write_report` adds the card."""
    write_json(folder / TRAIN_REPORT, report.as_row())


def read_report(folder: Path) -> TrainReport | None:
    """Read the report of an artifact, None if it has none. Raises DamagedModelError."""
    row = read_json(folder, TRAIN_REPORT)
    return None if row is None else _from_row(row, where=str(folder / TRAIN_REPORT))


def _from_row(row: Any, *, where: str) -> TrainReport:
    if not isinstance(row, dict) or row.get("format") != FORMAT:
        version = row.get("format") if isinstance(row, dict) else type(row).__name__
        raise DamagedModelError(f"{where} has format {version!r}, this version reads {FORMAT}")
    try:
        report = _built(TrainReport, row)
    # ArithmeticError: an integer beyond what a float holds
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise DamagedModelError(f"{where} is damaged ({brief(str(error))}): train again") from error
    # promotions read these alone, so they must say what the proof says; reports of earlier versions have no synthetic
    says = (row.get("promotable"), row.get("verdict"), row.get("only_synthetic", False))
    if says != (report.promotable, report.verdict, report.only_synthetic):
        raise DamagedModelError(f"{where} says promotable={row.get('promotable')!r}, its proof {report.promotable}")
    return report


def _built(kind: type[T], row: Mapping[str, Any]) -> T:
    """Rebuild a frozen dataclass from what `asdict` and JSON made of it; unknown keys are left aside."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name in row]  # type: ignore[arg-type]
    values = {name: _value(hints[name], row[name]) for name in names}
    return kind(**values)


def _value(hint: Any, value: Any) -> Any:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    # `Optional[A]` and `A | None` are of different types
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(next(kind for kind in inside if kind is not type(None)), value)
    if origin is tuple:
        kinds = inside if inside[-1] is not Ellipsis else (inside[0],) * len(value)
        return tuple(_value(kind, item) for kind, item in zip(kinds, value, strict=True))
    if is_dataclass(hint) and isinstance(hint, type):
        return _built(hint, value)
    _check(hint, origin or hint, value)
    return value


def _check(hint: Any, kind: Any, value: Any) -> None:
    """Refuse a value of another kind: the report may be anybody's, and its figures are formatted and drawn."""
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(float(value)):
            raise ValueError(f"{brief(value)} is not finite")
        return
    if kind is Mapping and isinstance(value, dict):
        of_values = typing.get_args(hint)[1]
        for inner in value.values() if of_values is not Any else ():
            _check(of_values, of_values, inner)
        return
    if kind is typing.Literal:
        allowed = value in typing.get_args(hint)
    else:
        allowed = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    # an index and a count of a run fit into 64 bits
    if not allowed or (kind is int and abs(value) >= 2**63):
        raise ValueError(f"{brief(value)} is not of the kind that stands there")
