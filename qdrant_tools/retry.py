"""A call over the network that failed for want of a network -> the same call again, a little later.

Exponential back-off with full jitter: before attempt n the wait is drawn from 0 to min(longest, first * 2^n) seconds,
so that many clients of a server that comes back do not come back at once (Brooker, "Exponential backoff and jitter",
AWS Architecture Blog, 2015).

Guarantees: only `UnreachableError`s that may pass are retried, never a refused key or a refused request; the last one
leaves as it is. Wrap calls to the engine and nothing else: what is computed here is never computed twice.
Does not know: what the call does; it must be one that may be done twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from qdrant_tools.errors import InputError, UnreachableError
from qdrant_tools.translate import may_pass

Result = TypeVar("Result")


@dataclass(frozen=True)
class Retry:
    """`attempts` in all; waits in seconds."""

    attempts: int = 6
    first: float = 0.5
    longest: float = 15.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.longest < self.first:
            raise InputError(f"{self}: expected at least 1 attempt, and waits of 0 <= first <= longest seconds")

    def __call__(self, call: Callable[[], Result]) -> Result:
        """The result of `call()`, tried again where that may help."""
        for attempt in range(self.attempts - 1):
            try:
                return call()
            except UnreachableError as error:
                if not may_pass(error):
                    raise
            time.sleep(random.uniform(0, min(self.longest, self.first * 2**attempt)))
        return call()


DEFAULT_RETRY = Retry()
"""Gives a server about half a minute to come back."""
