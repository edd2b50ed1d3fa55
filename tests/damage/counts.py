"""What a part of the harness counted, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

Failure = Literal["lost", "silent", "hung", "died", "foreign"]
FAILURES: tuple[Failure, ...] = ("lost", "silent", "hung", "died", "foreign")


@dataclass
class Counts:
    """Counts of one part.

    lost: acknowledged writes, or whole collections, that are gone. silent: answers that differ from what was
    acknowledged, without an error. hung: no answer in time. died: the process was ended by a signal that nobody
    sent. foreign: errors that are not of the project's own tree.
    """

    cases: int = 0
    operations: int = 0
    acknowledged: int = 0
    refused: int = 0
    lost: int = 0
    silent: int = 0
    hung: int = 0
    died: int = 0
    foreign: int = 0
    failures: list[str] = field(default_factory=list)

    def failed(self, kind: Failure, message: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.failures.append(f"{kind}: {message}")

    def add(self, other: Counts) -> None:
        for each in fields(self):
            if each.name != "failures":
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        self.failures += other.failures

    def line(self) -> str:
        return "  ".join(
            f"{each.name} {getattr(self, each.name):,}" for each in fields(self) if each.name != "failures"
        )
