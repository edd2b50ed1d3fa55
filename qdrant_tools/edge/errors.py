"""Foreign errors -> this project's errors. The one place where they are caught.

The engine raises bare `Exception` with a text (no class, no code), its binding `TypeError` and `ValueError`, and a
bug or a damaged file shows as a `PanicException` that is not even an `Exception`. qdrant-client looks into arguments
before this project sees them, and stumbles over odd ones in its own way.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from qdrant_tools.errors import (
    DamagedCollectionError,
    EngineError,
    InputError,
    LocationBusyError,
    LocationError,
    NotSupportedError,
    PlusError,
    UsageError,
    VectorError,
    first_line,
)
from qdrant_tools.validation import brief

FULL = ("No space left", "File too large", "quota exceeded")
"""What the system says to a write that finds no room: on the disk, in a file, in a quota."""


class EngineCall:
    """Context of one call into the engine on behalf of a collection: what it raises leaves as a `PlusError`."""

    __slots__ = ("_collection",)

    def __init__(self, collection: str) -> None:
        self._collection = collection

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, PlusError):
            return
        if is_panic(error):
            raise DamagedCollectionError(
                f"the engine stopped inside collection '{self._collection}' ({first_line(error)}): "
                "usually a damaged file; restore its folder or index it again"
            ) from error
        if type(error) in (Exception, TypeError, ValueError, OverflowError, UnicodeEncodeError):
            raise translate(error, self._collection) from error


@contextmanager
def damaged_on_open(collection: str, folder: Path) -> Iterator[None]:
    """Whatever the engine raises while it opens a collection's files means that they are damaged."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, PlusError) or not (is_panic(error) or type(error) is Exception):
            raise
        if "WouldBlock" in str(error) or any(each in str(error) for each in FULL):
            raise translate(error, collection) from error
        raise DamagedCollectionError(
            f"collection '{collection}' cannot be opened ({first_line(error)}): "
            f"restore its files in '{folder}' or index it again"
        ) from error


def is_panic(error: BaseException) -> bool:
    """Whether the engine's Rust code panicked; the class cannot be imported."""
    return type(error).__name__ == "PanicException"


def translate(error: BaseException, collection: str) -> PlusError:
    """The project's error for an exception of the engine or of its binding."""
    text = first_line(error)
    if isinstance(error, UnicodeEncodeError):
        return InputError(f"collection '{collection}': {_no_unicode(error)}")
    if found := re.search(r"invalid JSON path (.*)", str(error)):
        return InputError(
            f"collection '{collection}': {found[1]!r} is no payload path: expected names joined by dots, [] or [0] "
            "after a list, and names with spaces or other signs in double quotes, as in '\"two words\".name'"
        )
    if "surrogates not allowed" in str(error):
        return InputError(f"collection '{collection}': a text holds a lone surrogate, expected Unicode: replace it")
    if type(error) is not Exception:
        return InputError(f"collection '{collection}': the engine cannot take this value: {text}")
    if found := re.search(r"Vector dimension error: expected dim: (\d+), got (\d+)", text):
        return VectorError(f"collection '{collection}' expects vectors of {found[1]} numbers, got {found[2]}")
    if found := re.search(r"Not existing vector name error: (.*)", text):
        return InputError(f"collection '{collection}' has no vector named {found[1]!r}: Not existing vector name")
    if found := re.search(r"No point with id (\S+)", text):
        return InputError(f"collection '{collection}' has no point with id {found[1]}: upsert it first")
    if found := re.search(r"(No range index|No appropriate index|requires a text index).*?[` ]([\w.\[\]]+)[`,]", text):
        return InputError(
            f"collection '{collection}' has no index on '{found[2]}' that can do this ({found[1]}): "
            f"call create_payload_index(collection_name, '{found[2]}', ...) first"
        )
    if "not initialized" in text:
        return LocationError(f"collection '{collection}' was closed while it was in use: connect again")
    if "WouldBlock" in text:
        return LocationBusyError(f"collection '{collection}' is open in another process: close it there")
    if any(each in text for each in FULL):
        return LocationError(
            f"collection '{collection}' cannot be written: no space left on the disk ({text}); free some and connect "
            "again, what was acknowledged is kept"
        )
    if "cancelled by service" in text:  # all that the engine says of a formula that has no value for a point
        return InputError(
            f"collection '{collection}': the formula has no finite value for some point: either one of its payload "
            "keys is no number there and has no default, or an operation leaves the numbers (a logarithm or a root of "
            "a negative number, a division by zero, a power too large); leave such points out with a filter"
        )
    if "not supported" in text.lower():
        return NotSupportedError(f"collection '{collection}': {text}")
    return EngineError(f"collection '{collection}': the engine refused: {text}")


def _no_unicode(error: UnicodeEncodeError) -> str:
    return f"{brief(error.object)} holds a lone surrogate, expected Unicode text: replace it before you store it"


# -- arguments

ODD = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError, AssertionError, ImportError)
"""What Python and qdrant-client raise when they meet a value that they did not expect."""
CALLERS = "_raised_by_the_caller"


def callers(values: Any) -> Any:
    """`values`, such that what an iterator raises by itself reaches the caller as it is."""
    return _iterated(values) if isinstance(values, Iterator) else values


def _iterated(values: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from values
    except Exception as error:
        vars(error)[CALLERS] = True
        raise


def refuse_odd_arguments(kind: type, methods: Iterable[str]) -> None:
    """Let these methods of a class raise `InputError` wherever an odd argument makes them stumble.

    A wrong call (an unknown or a missing argument) stays Python's own `TypeError`.
    """
    for name in methods:
        method = inspect.getattr_static(kind, name)
        if inspect.isfunction(method):
            setattr(kind, name, _refusing_later(method) if inspect.iscoroutinefunction(method) else _refusing(method))


def _refusing(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def refusing(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except ODD as error:
            if _is_ours(error):
                raise
            raise odd_argument(method.__name__, error) from error

    return refusing


def _refusing_later(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def refusing(*args: Any, **kwargs: Any) -> Any:
        try:
            return await method(*args, **kwargs)
        except ODD as error:
            if _is_ours(error):
                raise
            raise odd_argument(method.__name__, error) from error

    return refusing


def _is_ours(error: BaseException) -> bool:
    """Whether to leave an error alone: translated already, the caller's own, or Python's answer to a wrong call."""
    if isinstance(error, PlusError) or CALLERS in vars(error):
        return True
    here = error.__traceback__
    return isinstance(error, TypeError) and here is not None and here.tb_next is None


def odd_argument(method: str, error: BaseException) -> InputError | NotSupportedError:
    """The error for an argument that made `method` stumble."""
    if isinstance(error, ImportError):  # texts and images are embedded by fastembed, if it is there
        return NotSupportedError(f"{method}: {first_line(error)}")
    if isinstance(error, UnicodeEncodeError):
        return InputError(f"{method}: {_no_unicode(error)}")
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        return InputError(f"{method}: {brief(first['input'])} is invalid at {place}: {first['msg']}")
    if isinstance(error, RecursionError):
        return InputError(f"{method}: an argument is nested too deep or contains itself: make it flatter")
    if isinstance(error, AssertionError):
        return UsageError(f"{method}: {first_line(error)}")
    return InputError(f"{method}: an argument has the wrong type or form ({type(error).__name__}: {first_line(error)})")
