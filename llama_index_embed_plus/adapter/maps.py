"""Query vectors -> query vectors: the kinds of maps that a query adapter may be, in numpy.

Each is residual in the sense that it starts at the identity; q is a row, (n, dimension). The length of what comes out
is the adapter's business.

    full         q + q W                        W (dimension, dimension), 0 at the start
    low_rank     q + q A B                      A (dimension, rank), B (rank, dimension), B = 0 at the start
    orthogonal   q R                            R (dimension, dimension), R Rᵀ = 1 to 1e-5, R = 1 at the start
    mlp          q + tanh(q A + b) B            A (dimension, hidden), b (hidden,), B (hidden, dimension), B = 0

An orthogonal map turns the queries' space and keeps every angle between queries; a low-rank one moves queries in few
directions only; tanh keeps the step of an mlp bounded however far a query lies from those it was fitted on.

Guarantees: weights of impossible shapes, not finite, or not orthogonal where they should be, never become a map.
Does not know: spaces, files, torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import UsageError
from qdrant_tools.records import Vectors

Kind = Literal["full", "low_rank", "orthogonal", "mlp"]
Array = NDArray[np.float32]
ORTHOGONAL_TO = 1e-5
"""How far R Rᵀ may be from 1, in any entry."""


@dataclass(frozen=True, eq=False)
class QueryMap:
    """What the kinds have in common: float32 arrays as fields, checked when made."""

    kind: ClassVar[Kind]

    def __post_init__(self) -> None:
        for name, array in self.arrays().items():
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise UsageError(f"{name} of a {self.kind} map is not all finite float32 numbers ({array.dtype})")
        self.check()

    def check(self) -> None:
        """Raise UsageError unless the arrays fit each other."""
        raise NotImplementedError

    def __call__(self, query_vectors: Vectors) -> Vectors:
        """Map (n, dimension) to (n, dimension), not normalised."""
        raise NotImplementedError

    @property
    def dimension(self) -> int:
        return int(next(iter(self.arrays().values())).shape[0])

    def arrays(self) -> dict[str, Array]:
        """Name -> array, in the order of the fields: what a file holds."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> Self:
        """Make the map of arrays by name. KeyError if one is missing, UsageError if one does not fit."""
        return cls(*(np.asarray(arrays[field.name], np.float32) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class FullMap(QueryMap):
    """`q + q W` with `weight` W."""

    kind: ClassVar[Kind] = "full"
    weight: Array

    def check(self) -> None:
        _square(self.kind, "weight", self.weight)

    def __call__(self, query_vectors: Vectors) -> Vectors:
        return np.asarray(query_vectors + query_vectors @ self.weight, np.float32)


@dataclass(frozen=True, eq=False)
class LowRankMap(QueryMap):
    """`q + q A B` with `down` A and `up` B."""

    kind: ClassVar[Kind] = "low_rank"
    down: Array
    up: Array

    def check(self) -> None:
        _bottleneck(self.kind, self.down, self.up)

    def __call__(self, query_vectors: Vectors) -> Vectors:
        return np.asarray(query_vectors + (query_vectors @ self.down) @ self.up, np.float32)


@dataclass(frozen=True, eq=False)
class OrthogonalMap(QueryMap):
    """`q R` with `rotation` R."""

    kind: ClassVar[Kind] = "orthogonal"
    rotation: Array

    def check(self) -> None:
        _square(self.kind, "rotation", self.rotation)
        off = float(np.abs(self.rotation @ self.rotation.T - np.eye(self.dimension, dtype=np.float32)).max())
        if off > ORTHOGONAL_TO:
            raise UsageError(f"rotation times its transpose is {off:.1e} away from 1, expected at most {ORTHOGONAL_TO}")

    def __call__(self, query_vectors: Vectors) -> Vectors:
        return np.asarray(query_vectors @ self.rotation, np.float32)


@dataclass(frozen=True, eq=False)
class MlpMap(QueryMap):
    """`q + tanh(q A + b) B` with `down` A, `up` B and `bias` b."""

    kind: ClassVar[Kind] = "mlp"
    down: Array
    up: Array
    bias: Array

    def check(self) -> None:
        _bottleneck(self.kind, self.down, self.up)
        if self.bias.shape != self.down.shape[1:]:
            raise UsageError(f"bias of a mlp map has shape {self.bias.shape}, expected {self.down.shape[1:]}")

    def __call__(self, query_vectors: Vectors) -> Vectors:
        hidden = np.tanh(query_vectors @ self.down + self.bias)
        return np.asarray(query_vectors + hidden @ self.up, np.float32)


MAPS: Mapping[str, type[QueryMap]] = {cls.kind: cls for cls in (FullMap, LowRankMap, OrthogonalMap, MlpMap)}


def unfitted(kind: str, dimension: int, *, width: int = 32, seed: int = 0) -> QueryMap:
    """Return the map of a kind that changes nothing. `width` is the rank of low_rank, the hidden units of mlp.

    Raises UsageError for an unknown kind or a width below 1.
    """
    if kind not in MAPS:
        raise UsageError(f"adapter kind is {kind!r}, expected one of {', '.join(MAPS)}")
    if width < 1:
        raise UsageError(f"width is {width}, expected at least 1")
    if kind == "full":
        return FullMap(np.zeros((dimension, dimension), np.float32))
    if kind == "orthogonal":
        return OrthogonalMap(np.eye(dimension, dtype=np.float32))
    # One side random, the other 0: the product is 0, and yet has a gradient.
    random = np.random.default_rng(seed).standard_normal((dimension, width)) / np.sqrt(dimension)
    down, up = random.astype(np.float32), np.zeros((width, dimension), np.float32)
    return LowRankMap(down, up) if kind == "low_rank" else MlpMap(down, up, np.zeros(width, np.float32))


def _square(kind: str, name: str, array: Array) -> None:
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise UsageError(f"{name} of a {kind} map has shape {array.shape}, expected a square")


def _bottleneck(kind: str, down: Array, up: Array) -> None:
    if down.ndim != 2 or up.shape != down.shape[::-1] or not down.size:
        raise UsageError(
            f"down and up of a {kind} map have shapes {down.shape} and {up.shape}, expected (d, r) and (r, d)"
        )
