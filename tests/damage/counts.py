"""The counts of one part of the harness, and its failures."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

Failure = Literal["lost", "silent", "hung", "died", "foreign"]
FAILURES: tuple[Failure, ...] = ("lost", "silent", "hung", "died", "foreign")


@dataclass
class Counts:
    """Counts of one part.

    lost: acknowledged writes, or whole collections, that are gone. silent: answers that differ from what was
    acknowledged, without an error. hung: no answer in time. died: a signal ended the process that nobody sent.
    foreign: errors that are not the project's own.
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
        for name in self._numbers():
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures

    def line(self) -> str:
        return "  ".join(f"{name} {getattr(self, name):,}" for name in self._numbers())

    def _numbers(self) -> list[str]:
        return [field.name for field in fields(self) if field.name != "failures"]
