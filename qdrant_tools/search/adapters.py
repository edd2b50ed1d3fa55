"""A query adapter: query vectors -> better query vectors of the same space. Document vectors stay as they are.

The map of an adapter is one of four kinds. Each starts as the identity, so an adapter that is not fitted changes
nothing. q is a row of (n, dimension):

    full         q + q W                        W (dimension, dimension), 0 at the start
    low_rank     q + q A B                      A (dimension, rank), B (rank, dimension), B = 0 at the start
    orthogonal   q R                            R (dimension, dimension), R Rᵀ = 1 to 1e-5, R = 1 at the start
    mlp          q + tanh(q A + b) B            A (dimension, hidden), b (hidden,), B (hidden, dimension), B = 0

An orthogonal map turns the queries' space and keeps every angle between queries. A low-rank one moves queries in a few
directions only. In an mlp, tanh bounds the step of a query, however far it lies from those it was fitted on.

Guarantees: results have unit length and are float32; weights of impossible shapes, not finite, or not orthogonal where
they should be, never become a map; an adapter is refused in any other space than its own, and by any other name than
that of its weights. Needs numpy only. Does not know: texts, files, collections, how adapters are fitted.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, LimitedEncoder, Passage, Vectors, encode_compared
from qdrant_tools.sources.windows import WindowEncoder, window_encoder
from qdrant_tools.validation import unit_rows

AdapterKind = Literal["full", "low_rank", "orthogonal", "mlp"]
Array = NDArray[np.float32]
ORTHOGONAL_TO = 1e-5
"""How far R Rᵀ may be from 1, in any entry."""


# eq=False: == of arrays is an array, which is neither true nor false
@dataclass(frozen=True, eq=False)
class QueryMap:
    """A map on query vectors. Its fields are float32 arrays, which are checked when it is made."""

    kind: ClassVar[AdapterKind]

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
        """Return name -> array in the order of the fields, as a file holds them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> Self:
        """Make a map from arrays by name. KeyError if one is missing, UsageError if one does not fit."""
        return cls(*(np.asarray(arrays[field.name], np.float32) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class FullMap(QueryMap):
    """`q + q W` with `weight` W."""

    kind: ClassVar[AdapterKind] = "full"
    weight: Array

    def check(self) -> None:
        _square(self.kind, "weight", self.weight)

    def __call__(self, query_vectors: Vectors) -> Vectors:
        return np.asarray(query_vectors + query_vectors @ self.weight, np.float32)


@dataclass(frozen=True, eq=False)
class LowRankMap(QueryMap):
    """`q + q A B` with `down` A and `up` B."""

    kind: ClassVar[AdapterKind] = "low_rank"
    down: Array
    up: Array

    def check(self) -> None:
        _bottleneck(self.kind, self.down, self.up)

    def __call__(self, query_vectors: Vectors) -> Vectors:
        return np.asarray(query_vectors + (query_vectors @ self.down) @ self.up, np.float32)


@dataclass(frozen=True, eq=False)
class OrthogonalMap(QueryMap):
    """`q R` with `rotation` R."""

    kind: ClassVar[AdapterKind] = "orthogonal"
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

    kind: ClassVar[AdapterKind] = "mlp"
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
    # With one side random and the other 0 the product is 0, and still has a gradient.
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


class Adapter:
    """`q' = unit(map(q))` with a `map` that was fitted in `space`. A (dimension, dimension) array is a full map."""

    def __init__(self, map: QueryMap | NDArray[np.float32], space: str) -> None:
        self.map = map if isinstance(map, QueryMap) else FullMap(np.asarray(map, np.float32))
        self.space = space

    @classmethod
    def identity(cls, dimension: int, space: str, *, kind: str = "full") -> Self:
        """Return the adapter that changes nothing."""
        return cls(unfitted(kind, dimension), space)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind}, {self.build}, space={self.space!r})"

    @property
    def kind(self) -> str:
        """full, low_rank, orthogonal or mlp."""
        return self.map.kind

    @property
    def dimension(self) -> int:
        return self.map.dimension

    @property
    def weight(self) -> NDArray[np.float32]:
        """W of a full adapter. UsageError for the other kinds, which have other arrays: see `map.arrays()`."""
        if not isinstance(self.map, FullMap):
            raise UsageError(f"a {self.kind} adapter has {', '.join(self.map.arrays())}, no weight: see map.arrays()")
        return self.map.weight

    @property
    def build(self) -> str:
        """Name of this adapter's weights, which becomes part of the `build` of an encoder that carries it."""
        # Adapters saved before there were kinds are full ones, named by their weight alone.
        digest = hashlib.sha256(b"" if self.kind == "full" else self.kind.encode())
        for array in self.map.arrays().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return "adapter@" + digest.hexdigest()[:12]

    def __call__(self, query_vectors: Vectors) -> Vectors:
        """Map (n, dimension) query vectors to (n, dimension) unit vectors."""
        return unit_rows(self.map(query_vectors))


def without_adapter(encoder: Encoder) -> Encoder:
    """Return the encoder with query vectors as the model makes them, as fitting an adapter needs it."""
    if isinstance(encoder, AdaptedEncoder):
        return encoder.base
    if getattr(encoder, "adapter", None) is None:
        return encoder
    # a shallow copy: the model itself is shared, not opened again
    bare: Any = copy.copy(encoder)
    bare.adapter = None
    return cast(Encoder, bare)


def adapter_of(encoder: Encoder) -> str | None:
    """The build of an encoder's query adapter (its attribute `adapter`), if it has one."""
    # by attribute and not by class: an encoder may bring a map of its own
    build = getattr(getattr(encoder, "adapter", None), "build", None)
    return build if isinstance(build, str) else None


def with_adapter(encoder: Encoder, adapter: Adapter) -> Encoder:
    """Return the encoder with this adapter instead of its own, if it has one.

    Raises:
        UsageError: the adapter was fitted for another space.
    """
    adapted = AdaptedEncoder(encoder, adapter)
    if not hasattr(adapted.base, "adapter"):
        return adapted
    # an encoder that knows adapters stays what it is, with all that its class offers
    twin: Any = copy.copy(adapted.base)
    twin.adapter = adapter
    return cast(Encoder, twin)


class AdaptedEncoder:
    """An encoder whose queries pass through an adapter. It has the space of its base: collections stay as they are.

    If `base` carries an adapter already, this one replaces it.
    """

    def __init__(self, base: Encoder, adapter: Adapter) -> None:
        if adapter.space != base.space:
            raise UsageError(
                f"adapter was fitted in space {adapter.space}, the encoder's is {base.space}: "
                "fit an adapter for this encoder"
            )
        if adapter.dimension != base.dimension:
            shape = (adapter.dimension, adapter.dimension)
            raise UsageError(f"adapter has shape {shape}, the encoder {base.dimension} dimensions")
        self.base = without_adapter(base)
        self.adapter = adapter

    @property
    def dimension(self) -> int:
        return self.base.dimension

    @property
    def space(self) -> str:
        return self.base.space

    @property
    def refusal(self) -> str | None:
        """Why the base must not be promoted, if there is a reason; see `models.artifact`."""
        return getattr(self.base, "refusal", None)

    @property
    def only_synthetic(self) -> bool:
        """Whether that is only for want of real queries."""
        return getattr(self.base, "only_synthetic", False) is True

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.adapter(self.base.encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self.base.encode_passages(texts)

    def encode_compared(self, texts: Sequence[str], task: str = "similarity") -> Vectors:
        """As the base embeds them: an adapter is for queries."""
        return encode_compared(self.base, texts, task)

    def cut(self, passage: Passage) -> Iterator[Passage]:
        """As the base cuts it, if it can."""
        yield from self.base.cut(passage) if isinstance(self.base, LimitedEncoder) else (passage,)

    def count_overlong(self, texts: Sequence[str]) -> int:
        return self.base.count_overlong(texts) if isinstance(self.base, LimitedEncoder) else 0

    @property
    def late(self) -> bool:
        """Whether passages are read with those around them, see `encoders.late`."""
        return window_encoder(self.base) is not None

    def windows(self, texts: Iterable[str]) -> Iterator[Sequence[str]]:
        return cast(WindowEncoder, self.base).windows(texts)

    def encode_windows(self, windows: Sequence[Sequence[str]]) -> Vectors:
        return cast(WindowEncoder, self.base).encode_windows(windows)
