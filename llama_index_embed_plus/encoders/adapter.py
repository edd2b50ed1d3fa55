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
they should be, never become a map; a saved adapter remembers its space and is refused in any other. Needs numpy only.
Does not know: texts, collections, how adapters are fitted (see `training.adapter`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, BinaryIO, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.files import require_json
from llama_index_embed_plus.models.hub import resolve
from llama_index_embed_plus.models.spec import read_spec, space_of
from qdrant_tools.errors import UsageError, first_line
from qdrant_tools.files import refuse_link, written_whole
from qdrant_tools.json_files import open_regular
from qdrant_tools.records import Encoder, Vectors
from qdrant_tools.trees import files_of
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


WEIGHTS_FILE, CONFIG_FILE = "adapter.npz", "adapter.json"
_FORMER_NAMES = {"residual-linear": "full"}
"""Kinds under the names that earlier versions wrote."""


class QueryAdapter:
    """`q' = unit(map(q))` with a `map` that was fitted in `space`. A (dimension, dimension) array is a full map."""

    def __init__(self, map: QueryMap | NDArray[np.float32], space: str) -> None:
        self.map = map if isinstance(map, QueryMap) else FullMap(np.asarray(map, np.float32))
        self.space = space

    @classmethod
    def identity(cls, dimension: int, space: str, *, kind: str = "full") -> QueryAdapter:
        """Return the adapter that changes nothing."""
        return cls(unfitted(kind, dimension), space)

    def __repr__(self) -> str:
        return f"QueryAdapter({self.kind}, {self.build}, space={self.space!r})"

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

    def save(self, folder: Path) -> None:
        """Write the adapter into `folder`, which is made if needed. Interrupted, the folder is refused on load."""
        refuse_link(folder, UsageError)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"kind": self.kind, "space": self.space, "dimension": self.dimension, "build": self.build}
        # Both are complete before either takes its place, weights first: interrupted in between, the old config names
        # another build than the weights have.
        with (
            # as readable as the rest of a model's files
            written_whole(folder / CONFIG_FILE, private=False) as config_draft,
            written_whole(folder / WEIGHTS_FILE, private=False) as draft,
        ):
            config_draft.write_text(json.dumps(config, indent=2) + "\n")
            with draft.open("wb") as file:
                np.savez(file, **self.map.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> QueryAdapter:
        """Read an adapter. Raises `DamagedModelError`, naming the file, if it is not what was saved."""
        if folder.is_dir():
            files_of(folder, error=DamagedModelError)
        try:
            config = require_json(folder, CONFIG_FILE)
            kind, space, expected = (str(config[key])[:300] for key in ("kind", "space", "build"))
        except KeyError as error:
            raise DamagedModelError(f"{folder / CONFIG_FILE} cannot be read ({error!r}): fit it again") from error
        # an unknown kind may come from a newer version, so the message says more than "damaged"
        kind = _FORMER_NAMES.get(kind, kind)
        if kind not in MAPS:
            raise DamagedModelError(
                f"{folder / CONFIG_FILE} has kind {kind[:40]!r}, this version knows {', '.join(MAPS)}: "
                "fit it again, or install the version that wrote it"
            )
        try:
            with open_regular(folder / WEIGHTS_FILE, DamagedModelError) as stream:
                adapter = cls(MAPS[kind].of(_read_arrays(stream)), space)
        # A zip archive that is cut short or garbled raises any of these.
        except (*_BAD_ARCHIVE, UsageError) as error:
            said = first_line(error)
            raise DamagedModelError(f"{folder / WEIGHTS_FILE} cannot be read ({said}): fit it again") from error
        if adapter.build != expected:
            raise DamagedModelError(f"{folder / WEIGHTS_FILE} holds {adapter.build}, expected {expected}: fit it again")
        return adapter


_BAD_ARCHIVE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError),
    *(SyntaxError, RecursionError, MemoryError, RuntimeError, OverflowError, zlib.error, struct.error),
)
_END_OF_ARCHIVE, _LARGE_ARCHIVE = b"PK\x05\x06", b"PK\x06\x07"
_END_BYTES = 22
_MOST_ARRAYS, _MOST_DIRECTORY = 8, 4096


def _read_arrays(stream: BinaryIO) -> dict[str, Any]:
    """Read what `np.savez` wrote, and nothing that would take more memory than the file has bytes.

    Raises ValueError, or another of `_BAD_ARCHIVE`, for any other archive.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END_BYTES - 20))
    tail = stream.read()
    end = tail[-_END_BYTES:]
    # looked at before the library reads a directory of millions of entries
    members, directory = struct.unpack("<10xHI6x", end)
    if end[:4] != _END_OF_ARCHIVE or _LARGE_ARCHIVE in tail or members > _MOST_ARRAYS or directory > _MOST_DIRECTORY:
        raise ValueError("no archive of a few arrays")
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            # numpy stores them as they are: what is compressed may unpack to anything
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > size or member.filename in arrays:
                raise ValueError(f"{member.filename[:40]!r} is compressed, repeated or larger than the file")
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = _read_array(file, member.file_size)
    return arrays


def _read_array(file: IO[bytes], size: int) -> Any:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of another format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    # sizes come first: numpy would make room for what a header claims
    if dtype.kind != "f" or len(shape) > 2 or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"an array of {dtype} {str(shape)[:60]} in {size:,} bytes")
    array = np.frombuffer(file.read(), dtype)
    return array.reshape(shape, order="F" if by_columns else "C")


def attach_adapter(model: str | Path, adapter: QueryAdapter, out: Path) -> None:
    """Write to `out` a copy of `model` that carries `adapter`: the artifact to serve with.

    Raises `UsageError` if the adapter was fitted for another model, or `out` holds something else.
    """
    with attaching_adapter(model, adapter, out):
        pass


@contextmanager
def attaching_adapter(model: str | Path, adapter: QueryAdapter, out: Path) -> Iterator[Path]:
    """Like `attach_adapter`. More files, such as a report, may be written into the folder before the manifest."""
    base = resolve(model)
    space = space_of(base, read_spec(base))
    if adapter.space != space:
        raise UsageError(
            f"adapter was fitted in space {adapter.space}, {str(model)!r} has {space}: give the base model"
        )
    with artifact.draft_folder(out) as draft:
        # all files are verified: the new manifest would vouch for a damaged one
        if artifact.is_artifact(base):
            artifact.copy_artifact(base, draft)
        else:
            artifact.copy_model(base, draft)
        adapter.save(draft / artifact.ADAPTER)
        yield draft
        artifact.write_manifest(draft, source=artifact.origin_of(base))


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


class AdaptedEncoder:
    """An encoder whose queries pass through an adapter. It has the space of its base: collections stay as they are.

    If `base` carries an adapter already, this one replaces it.
    """

    def __init__(self, base: Encoder, adapter: QueryAdapter) -> None:
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

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.adapter(self.base.encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self.base.encode_passages(texts)
