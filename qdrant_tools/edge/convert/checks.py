"""The single values of a call, checked before the engine sees them: vectors, ids, payloads, numbers, options, names.

The engine stores a vector with NaN without an error and never finds it again. It takes `True` for the id 1. It
accepts a payload nested 124 levels deep and can never open the collection again. All are refused here.

Guarantees: what is returned has the form that the engine takes; each error names the value and the way out.
Does not know: requests, shards.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
import qdrant_edge as qe
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python
from qdrant_client.http import models

from qdrant_tools.errors import InputError, NotSupportedError, UsageError, VectorError
from qdrant_tools.validation import DEEPEST_PAYLOAD, LARGEST_NUMBER, brief, is_unicode, parts, refuse_nesting

FLOAT32_MAX = float(np.finfo(np.float32).max)
LARGEST_ID = 2**64 - 1
LARGEST_COUNT = 2**63 - 1
DEFAULT_VECTOR = ""
INVALID_NAME_CHARACTERS = '<>:"/\\|?*\0\x1f'
JSON_KEY = {str}
JSON_SCALARS = {str, int, bool, type(None)}

EngineVector = list[float] | list[list[float]] | qe.SparseVector
EngineId = int | uuid.UUID | str  # the engine's own PointId

DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
"""The answer to every write: it is applied when the call returns."""
# One copy in one process: every read is consistent, every write is ordered and applied before the call returns. A call
# that waits for nobody needs no timeout.
ALWAYS_HONOURED = {"wait", "ordering", "consistency", "timeout", "method", "parallel", "max_retries"}
SHARD_OPTIONS = {"shard_key_selector", "shard_key"}


@dataclass(frozen=True)
class VectorShape:
    """What one named vector of a collection must look like."""

    size: int
    multi: bool = False


@dataclass(frozen=True)
class VectorSchema:
    """The named vectors of a collection; the unnamed one has the name ''."""

    collection: str
    dense: Mapping[str, VectorShape]
    sparse: frozenset[str]

    @property
    def bytes_per_point(self) -> int:
        """Bytes of one point's dense vectors; sparse ones and multi-vectors have no fixed size."""
        return 4 * sum(shape.size for shape in self.dense.values())

    def where(self, name: str) -> str:
        return f"collection '{self.collection}'" + (f", vector '{name}'" if name else "")

    def require(self, name: str) -> None:
        """Raise `InputError` if there is no vector of this name."""
        if name in self.dense or name in self.sparse:
            return
        names = sorted(existing for existing in (*self.dense, *self.sparse) if existing)
        expected = f"its vectors are {names}" if names else "its vector has no name" if self.dense else "it has none"
        missing = f"vector named {text(name, 'vector name')!r}" if name else "unnamed vector"
        raise InputError(f"collection '{self.collection}' has no {missing} (Not existing vector name): {expected}")

    def check(self, name: str, vector: Any) -> EngineVector:
        """Return `vector` as the engine takes it. Raises `VectorError`, `InputError`, `NotSupportedError`."""
        self.require(name)
        if name in self.sparse:
            return sparse_vector(vector, self.where(name))
        shape = self.dense[name]
        if isinstance(vector, models.SparseVector):
            raise VectorError(f"{self.where(name)} is dense, got a sparse vector")
        if isinstance(vector, np.ndarray):
            vector = vector.tolist()
        if not isinstance(vector, Sequence) or isinstance(vector, (str, bytes)):
            raise unknown_vector(vector, self.where(name))
        is_multi = len(vector) > 0 and isinstance(vector[0], Sequence | np.ndarray)
        if (is_multi and not shape.multi) or (shape.multi and not len(vector)):
            expected = "a list of vectors" if shape.multi else "one vector"
            raise VectorError(f"{self.where(name)} expects {expected} of {shape.size} numbers, got {brief(vector)}")
        if not shape.multi:
            return dense_vector(vector, shape.size, self.where(name))
        rows = vector if is_multi else [vector]  # as on a server: one vector is a multivector of one
        return [dense_vector(row, shape.size, self.where(name)) for row in rows]

    def check_all(self, vectors: Any) -> Any:
        """Check the vector or vectors of one point: a bare vector is the unnamed one, a mapping names them."""
        if isinstance(vectors, Mapping):
            return {name: self.check(name, vector) for name, vector in vectors.items()}
        return self.check(DEFAULT_VECTOR, vectors)


def dense_vector(vector: Any, size: int, where: str) -> list[float]:
    """Return the numbers of one dense vector. Raises `VectorError` for a wrong length, NaN, infinity, text."""
    if len(vector) != size:
        raise VectorError(f"{where} expects vectors of {size} numbers, got {len(vector)}: is it another encoder's?")
    try:
        norm = math.hypot(*vector)  # one pass in C; not finite if any number is not
    except (TypeError, ValueError, OverflowError) as error:
        raise VectorError(f"{where} expects numbers, got {brief(vector)} ({error})") from error
    if not norm <= FLOAT32_MAX:  # not `>`, which NaN escapes; numbers that fit one by one pass the next check
        check_finite(vector, where)
    return vector if isinstance(vector, list) else list(vector)


def check_finite(vector: Any, where: str) -> None:
    """Raise `VectorError` naming the first number that does not fit a finite 32-bit float."""
    for position, value in enumerate(vector):
        if not abs(value) <= FLOAT32_MAX:  # not `>`: NaN must be caught too
            raise VectorError(
                f"{where}: number {position} is {value}, expected finite 32-bit floats: fix or drop this vector"
            )


def sparse_vector(vector: Any, where: str) -> qe.SparseVector:
    """Return the engine's sparse vector. Raises `VectorError` for duplicate or odd indices and for NaN."""
    if not isinstance(vector, models.SparseVector):
        raise VectorError(f"{where} is sparse and expects SparseVector(indices, values), got {brief(vector)}")
    try:
        indices, values = list(vector.indices), list(vector.values)
        if len(indices) != len(values):
            raise VectorError(f"{where}: {len(indices)} indices but {len(values)} values")
        if len(set(indices)) != len(indices):
            raise VectorError(f"{where}: an index occurs twice, expected unique indices")
        if any(not 0 <= index < 2**32 for index in indices):
            raise VectorError(f"{where}: indices must be from 0 to 2^32 - 1, got {min(indices)} to {max(indices)}")
        check_finite(values, where)
        return qe.SparseVector(indices, values)
    except (TypeError, OverflowError) as error:
        raise VectorError(f"{where} expects whole indices and numbers, got {brief(vector)} ({error})") from error


def unknown_vector(vector: Any, where: str) -> InputError | NotSupportedError:
    """The error for something that is no vector: texts and images need an embedding model."""
    if isinstance(vector, (models.Document, models.Image, models.InferenceObject)):
        return NotSupportedError(f"{where}: {type(vector).__name__} needs fastembed installed; embed it first instead")
    return VectorError(f"{where} expects a vector, got {brief(vector)}")


def unsupported(part: Any, kind: str) -> InputError | NotSupportedError:
    """The error for a part of a request that cannot be converted: a model of qdrant-client, or no model at all."""
    if isinstance(part, BaseModel):
        return NotSupportedError(f"the embedded engine has no {kind} {type(part).__name__}")
    return InputError(f"{brief(part)} is no {kind}, expected one of qdrant_client.models")


def whole(value: Any, name: str, *, least: int = 1, most: int = LARGEST_COUNT) -> int:
    """Return a whole number as the engine takes it. Raises `InputError` for others, `True` among them."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    up_to = f"{least} or more" if most == LARGEST_COUNT else f"{least} to {most}"
    raise InputError(f"{name} value {brief(value)} is invalid, expected a whole number, {up_to}")


def finite(value: Any, name: str) -> float:
    """Return a number as the engine takes it. Raises `InputError` for NaN, infinity and what is no number."""
    try:
        if not isinstance(value, (bool, str)) and math.isfinite(value):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{name} value {brief(value)} is invalid, expected a finite number")


def maybe_finite(value: Any, name: str) -> float | None:
    return None if value is None else finite(value, name)


def text(value: Any, name: str) -> str:
    """Return a text that can be written as UTF-8. Raises `InputError`, also for lone surrogates."""
    if isinstance(value, str) and is_unicode(value):
        return value
    expected = "Unicode text without lone surrogates" if isinstance(value, str) else "text"
    raise InputError(f"{name} {brief(value)} is invalid, expected {expected}")


def texts(values: Any, name: str) -> list[str]:
    """Return a list of texts. Raises `InputError`; a bare text is not taken for a list of letters."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InputError(f"{name} expects a list of texts, got {brief(values)}")
    return [text(value, name) for value in values]


@cache
def _members(kind: type) -> dict[str, Any]:
    """The engine's enum members under names without case and underscores; its enums cannot be iterated."""
    return {name.lower().replace("_", ""): getattr(kind, name) for name in dir(kind) if name[:1].isupper()}


def member(kind: type, value: Any) -> Any:
    """The member of the engine's enum that means the same as one of qdrant-client's (or its text), None for None."""
    if value is None:
        return None
    name = str(getattr(value, "value", value))
    engine_member = _members(kind).get(name.lower().replace("_", ""))
    if engine_member is None:
        raise NotSupportedError(f"the embedded engine has no {kind.__name__} {name!r}")
    return engine_member


def engine_id(point_id: Any) -> EngineId:
    """Return a point id as the engine takes it: an unsigned 64-bit integer or a UUID. Raises `InputError`."""
    if isinstance(point_id, str):
        try:
            return str(uuid.UUID(point_id))  # one spelling: with or without hyphens it is the same point
        except ValueError:
            pass
    elif isinstance(point_id, uuid.UUID):
        return str(point_id)
    elif isinstance(point_id, (int, np.integer)) and not isinstance(point_id, bool) and 0 <= point_id <= LARGEST_ID:
        return int(point_id)
    raise InputError(
        f"point id {brief(point_id)} is neither an unsigned 64-bit integer nor a UUID: "
        "derive a UUID from your own id, for example uuid.uuid5(uuid.NAMESPACE_URL, id)"
    )


def engine_ids(point_ids: Any) -> list[EngineId]:
    """Return a list of point ids as the engine takes them. Raises `InputError`."""
    if isinstance(point_ids, (str, bytes, Mapping)) or not isinstance(point_ids, Iterable):
        raise InputError(f"expected a list of point ids, got {brief(point_ids)}")
    return [engine_id(point_id) for point_id in point_ids]


def client_id(point_id: Any) -> int | str:
    """Return a point id of the engine in qdrant-client's form: an integer or a UUID's text."""
    return point_id if isinstance(point_id, int) else str(point_id)


def json_payload(payload: Any, *, levels: int = DEEPEST_PAYLOAD) -> dict[str, Any]:
    """Return a payload as JSON values, as a server would store it: datetimes and UUIDs as text, NaN refused.

    Raises `InputError` for something that JSON cannot hold. For more than `levels` objects and lists inside one another
    it names the path.
    """
    if payload is None:
        return {}
    if not isinstance(payload, Mapping):
        raise InputError(f"payload must be a mapping of names to JSON values, got {brief(payload)}")
    if type(payload) is dict and _is_json(payload, levels):  # the usual case, without a copy
        return payload
    refuse_nesting(payload, parts, levels, "payload")
    try:
        plain = to_jsonable_python(payload, fallback=_numpy_to_python, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise InputError(f"payload {brief(payload)} holds a value that JSON cannot: {error}") from error
    refuse_nesting(plain, parts, levels, "payload")
    if not _is_json(plain, levels):
        raise InputError(
            f"payload {brief(payload)} holds NaN, infinity or a number beyond 1.8e308, which JSON cannot: drop it or "
            "use null"
        )
    return dict(plain)


def _is_json(value: Any, levels: int) -> bool:
    # by exact type: subclasses, as of enums, are converted and then checked again
    kind = type(value)
    if kind in JSON_SCALARS:
        return kind is not int or -LARGEST_NUMBER <= value <= LARGEST_NUMBER
    if kind is float:
        return math.isfinite(value)
    if levels == 0:
        return False
    if kind is list:
        return all(map(_is_json, value, repeat(levels - 1)))
    return kind is dict and set(map(type, value)) <= JSON_KEY and all(map(_is_json, value.values(), repeat(levels - 1)))


def _numpy_to_python(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise ValueError(f"{type(value).__name__} is not JSON")


def check_options(options: dict[str, Any]) -> None:
    """Raise `NotSupportedError` for options that cannot be honoured, `UsageError` for unknown ones."""
    for name, value in options.items():
        if name in ALWAYS_HONOURED or (name in SHARD_OPTIONS and value is None):
            continue
        if name in SHARD_OPTIONS:
            raise NotSupportedError(f"{name}={value!r}: the embedded engine has one shard; drop it or use a server")
        raise UsageError(f"unknown argument {name}={value!r}")


# -- names


def check_name(name: Any) -> None:
    """Raise `InputError` for a name that a server refuses."""
    if not _is_text(name) or _is_invalid(name) or name == "" or len(name) > 255:
        raise InputError(
            f"collection name {brief(name)} is invalid: expected 1 to 255 characters, none of "
            f"{INVALID_NAME_CHARACTERS!r}"
        )


def check_vector_name(name: Any) -> None:
    """Raise `InputError` for a vector name that a server refuses."""
    if not _is_text(name) or _is_invalid(name) or len(name.encode()) > 200:
        raise InputError(
            f"vector name {brief(name)} is invalid: expected at most 200 bytes, none of {INVALID_NAME_CHARACTERS!r}"
        )


def _is_text(value: Any) -> bool:
    """Whether a value is a string that a file can hold: half of a surrogate pair cannot be written as UTF-8."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_invalid(name: str) -> bool:
    return name in (".", "..") or any(character in name for character in INVALID_NAME_CHARACTERS)
