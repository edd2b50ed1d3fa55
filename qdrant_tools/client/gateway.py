"""Foreign errors -> this project's errors: the one seam around every call to a Qdrant client.

Guarantees: what leaves the seam is a `PlusError` with one line, and the original as its `__cause__`.
Does not know: what the call was for; the caller says it in a few words.

A call over the network that failed for want of a network -> the same call again, a little later.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_tools.errors import CollectionNotFoundError, EngineError, InputError, PlusError, UnreachableError

_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_NO_ACCESS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Translate what a Qdrant client raises inside the block. `doing` reads "search collection 'docs'"."""
    try:
        yield
    except PlusError:
        raise
    except ResponseHandlingException as error:
        raise UnreachableError(f"cannot {doing}: the server does not answer ({_line(error.source)})") from error
    except UnexpectedResponse as error:
        raise _from_status(doing, error) from error
    except grpc.RpcError as error:
        raise _from_grpc(doing, error) from error
    except (QdrantException, ValueError, TypeError, RuntimeError, KeyError) as error:
        # The clients without a server raise built-in errors for what a server would refuse.
        raise EngineError(f"cannot {doing}: {_line(error)}") from error


def may_pass(error: UnreachableError) -> bool:
    """Whether the same call may succeed a little later: the server was silent or busy, and did not refuse the key."""
    cause = error.__cause__
    if isinstance(cause, UnexpectedResponse):
        return cause.status_code not in (401, 403)
    return not (isinstance(cause, grpc.Call) and cause.code() in _NO_ACCESS)


def plain_id(value: Any) -> str | int:
    """The id of a point as a number or a string: some clients hand out `UUID` objects."""
    return value if isinstance(value, int) else str(value)


def _from_status(doing: str, error: UnexpectedResponse) -> PlusError:
    said = _line(error.content.decode("utf-8", "replace") if error.content else error.reason_phrase)
    if error.status_code in (401, 403):
        return UnreachableError(f"cannot {doing}: the server refuses the API key ({error.status_code}: {said})")
    if error.status_code == 404:
        return CollectionNotFoundError(f"cannot {doing}: {said}")
    if error.status_code in (429, 502, 503, 504):
        return UnreachableError(f"cannot {doing}: the server is not ready ({error.status_code}: {said})")
    return EngineError(f"cannot {doing}: the server answers {error.status_code}: {said}")


def _from_grpc(doing: str, error: grpc.RpcError) -> PlusError:
    code = error.code() if isinstance(error, grpc.Call) else None
    said = _line(error.details() if isinstance(error, grpc.Call) else error)
    if code in _NO_ANSWER:
        return UnreachableError(f"cannot {doing}: the server does not answer ({said})")
    if code in _NO_ACCESS:
        return UnreachableError(f"cannot {doing}: the server refuses the API key ({said})")
    if code == grpc.StatusCode.NOT_FOUND:
        return CollectionNotFoundError(f"cannot {doing}: {said}")
    return EngineError(f"cannot {doing}: {said}")


def _line(value: object) -> str:
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= 300 else text[:297] + "..."


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
