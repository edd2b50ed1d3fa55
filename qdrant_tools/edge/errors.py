"""Errors of the engine and of qdrant-client -> this project's errors. The one place where they are caught.

The engine raises bare `Exception`s that only their texts tell apart; its binding raises `TypeError` and `ValueError`. A
bug or a damaged file is a `PanicException`, which is not even an `Exception`. qdrant-client reads arguments before this
project does, and raises whatever Python raises when it meets a value of the wrong type.

Guarantees: the original is the `__cause__`. Does not know: what the call was for.
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

DISK_FULL = ("No space left", "File too large", "quota exceeded")
"""The system's messages for a write without room: on the disk, in a file, in a quota."""


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
        # by exact type: the engine raises the bare class, a subclass comes from somewhere else
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
        # another process or a full disk: no damage
        if "WouldBlock" in str(error) or any(message in str(error) for message in DISK_FULL):
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
        return InputError(f"collection '{collection}': {_not_unicode(error)}")
    if match := re.search(r"invalid JSON path (.*)", str(error)):
        return InputError(
            f"collection '{collection}': {match[1]!r} is no payload path: expected names joined by dots, [] or [0] "
            "after a list, and names with spaces or other signs in double quotes, as in '\"two words\".name'"
        )
    if "surrogates not allowed" in str(error):
        return InputError(f"collection '{collection}': a text holds a lone surrogate, expected Unicode: replace it")
    if type(error) is not Exception:
        return InputError(f"collection '{collection}': the engine cannot take this value: {text}")
    if match := re.search(r"Vector dimension error: expected dim: (\d+), got (\d+)", text):
        return VectorError(f"collection '{collection}' expects vectors of {match[1]} numbers, got {match[2]}")
    if match := re.search(r"Not existing vector name error: (.*)", text):
        return InputError(f"collection '{collection}' has no vector named {match[1]!r}: Not existing vector name")
    if match := re.search(r"No point with id (\S+)", text):
        return InputError(f"collection '{collection}' has no point with id {match[1]}: upsert it first")
    if match := re.search(
        r"(No range index|No appropriate index|requires a text index).*?(?:`([^`]+)`| ([\w.\[\]]+),)", text
    ):
        field = match[2] or match[3]
        return InputError(
            f"collection '{collection}' has no index on '{field}' that can do this ({match[1]}): "
            f"call create_payload_index(collection_name, '{field}', ...) first"
        )
    if "not initialized" in text:
        return LocationError(f"collection '{collection}' was closed while it was in use: connect again")
    if "WouldBlock" in text:
        return LocationBusyError(f"collection '{collection}' is open in another process: close it there")
    if any(message in text for message in DISK_FULL):
        return LocationError(
            f"collection '{collection}' cannot be written: no space left on the disk ({text}); free some and connect "
            "again, what was acknowledged is kept"
        )
    if "cancelled by service" in text:  # the engine's only message for a formula without a value for some point
        return InputError(
            f"collection '{collection}': the formula has no finite value for some point: either one of its payload "
            "keys is no number there and has no default, or an operation leaves the numbers (a logarithm or a root of "
            "a negative number, a division by zero, a power too large); leave such points out with a filter"
        )
    if "not supported" in text.lower():
        return NotSupportedError(f"collection '{collection}': {text}")
    return EngineError(f"collection '{collection}': the engine refused: {text}")


def _not_unicode(error: UnicodeEncodeError) -> str:
    return f"{brief(error.object)} holds a lone surrogate, expected Unicode text: replace it before you store it"


NO_INDEX = ("No range index", "No appropriate index", "requires a text index")
"""What the engine says where a request needs a payload index."""

# -- arguments

ARGUMENT_ERRORS = (
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    AssertionError,
    ImportError,
)
"""What Python and qdrant-client raise when they meet a value that they did not expect."""
FROM_CALLER = "_raised_by_the_caller"


def passing_errors(values: Any) -> Any:
    """`values`; an error that a caller's own iterator raises is marked, so that it is not translated."""
    return _marking_errors(values) if isinstance(values, Iterator) else values


def _marking_errors(values: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from values
    except Exception as error:
        vars(error)[FROM_CALLER] = True
        raise


def translate_argument_errors(cls: type, methods: Iterable[str]) -> None:
    """Let these methods of a class raise `InputError` where an argument has a wrong type or form.

    A wrong call (an unknown or a missing argument) stays Python's own `TypeError`.
    """
    for name in methods:
        method = inspect.getattr_static(cls, name)
        if inspect.isfunction(method):
            wrap = _translating_async if inspect.iscoroutinefunction(method) else _translating
            setattr(cls, name, wrap(method))


def _translating(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def translating(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except ARGUMENT_ERRORS as error:
            if _is_final(error):
                raise
            raise argument_error(method.__name__, error) from error

    return translating


def _translating_async(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def translating(*args: Any, **kwargs: Any) -> Any:
        try:
            return await method(*args, **kwargs)
        except ARGUMENT_ERRORS as error:
            if _is_final(error):
                raise
            raise argument_error(method.__name__, error) from error

    return translating


def _is_final(error: BaseException) -> bool:
    """Whether to leave an error alone: translated already, from the caller's iterator, or Python's for a wrong call."""
    if isinstance(error, PlusError) or FROM_CALLER in vars(error):
        return True
    # a call that does not fit the signature fails in the wrapper's own frame, before any other
    frame = error.__traceback__
    return isinstance(error, TypeError) and frame is not None and frame.tb_next is None


def argument_error(method: str, error: BaseException) -> InputError | NotSupportedError:
    """The error for an argument on which `method` failed."""
    if isinstance(error, ImportError):  # texts and images are embedded by fastembed, if it is there
        return NotSupportedError(f"{method}: {first_line(error)}")
    if isinstance(error, UnicodeEncodeError):
        return InputError(f"{method}: {_not_unicode(error)}")
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(map(str, first["loc"]))
        return InputError(f"{method}: {brief(first['input'])} is invalid at {path}: {first['msg']}")
    if isinstance(error, RecursionError):
        return InputError(f"{method}: an argument is nested too deep or contains itself: make it flatter")
    if isinstance(error, AssertionError):  # qdrant-client asserts that no unknown argument is left
        return UsageError(f"{method}: {first_line(error)}")
    return InputError(f"{method}: an argument has the wrong type or form ({type(error).__name__}: {first_line(error)})")
