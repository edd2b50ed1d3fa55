"""A safetensors file -> named numpy arrays, and one hash of what they hold.

Written out here because serving only reads a few small tensors and hashes the rest, which needs no other library.
Format: https://github.com/huggingface/safetensors#format

Guarantees: nothing but numbers is read (no pickle); a header that does not fit its file, or a tensor outside it, is
DamagedModelError naming the file. Does not know: what the tensors mean.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import DamagedModelError
from qdrant_tools.files import json_files

_WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# numpy has no bfloat16: its bytes are read as integers and widened in `read`
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MAX_HEADER = 1 << 22
"""Room for 40,000 tensors in one file. The library allows 25 times as much, which takes a gigabyte to parse."""
_MOST_VALUES = 12 * 40_000
_MAX_AXES = 16
_MOST_SHARDS = 256
_SHARD = re.compile(r"[\w-][\w.-]{0,200}\.safetensors")


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies. `start` and `stop` are byte offsets in `file`."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def read(self) -> NDArray[np.float32]:
        """The values as float32. Raises DamagedModelError for integers: they are no weights."""
        if self.dtype not in _FLOATS:
            raise DamagedModelError(f"{self.file}: tensor {self.name!r} holds {self.dtype}, expected floating point")
        raw = np.fromfile(self.file, dtype=_FLOATS[self.dtype], count=math.prod(self.shape), offset=self.start)
        if self.dtype == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32).reshape(self.shape)


def tensors_of(file: Path) -> dict[str, Tensor]:
    """Return every tensor of one safetensors file by name, from its header."""
    try:
        with json_files.open_regular(file, DamagedModelError) as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            # checked before it is read: the number may be garbage, and memory would be reserved for it
            if not 2 <= length <= min(_MAX_HEADER, size - 8):
                raise DamagedModelError(
                    f"{file} is damaged: its header claims {length:,} of {size:,} bytes; fetch it again"
                )
            text = stream.read(length)
    except OSError as error:
        raise DamagedModelError(f"{file} cannot be read ({error.strerror}); fetch it again") from error
    header = json_files.parse_json(
        text, f"{file}: its header", most_values=_MOST_VALUES, unique=True, error=DamagedModelError
    )
    if not isinstance(header, dict):
        raise DamagedModelError(f"{file} is damaged: its header is no JSON object; fetch it again")
    # free text about the file; not a tensor
    header.pop("__metadata__", None)
    tensors = {name: _tensor(file, name, entry, 8 + length, size) for name, entry in header.items()}
    end = 8 + length
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != end:
            raise DamagedModelError(f"{file} is damaged: tensor {tensor.name!r} overlaps another; fetch it again")
        end = tensor.stop
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder: `model.safetensors`, or the shards that its index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    try:
        shards = sorted(set(json_files.read_json(index, error=DamagedModelError)["weight_map"].values()), key=str)
    except (KeyError, AttributeError, TypeError) as error:
        raise DamagedModelError(f"{index} is damaged: no weight_map in it; fetch it again") from error
    if len(shards) > _MOST_SHARDS:
        raise DamagedModelError(f"{index} names {len(shards):,} files, expected at most {_MOST_SHARDS}")
    # A damaged or hostile index must not name a file elsewhere.
    for shard in shards:
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise DamagedModelError(f"{index} names {str(shard)[:80]!r}, expected a safetensors file beside it")
        if not (folder / shard).is_file():
            raise DamagedModelError(f"{folder / shard} is missing, {index.name} names it; fetch it again")
    return [folder / shard for shard in shards]


def hash_weights(files: list[Path]) -> str:
    """Return the sha256 over all floating-point tensors in order of name: name, type, shape, bytes.

    It does not depend on the file, order or shard they lie in. Integer tensors are left out: they are position
    counters, which some versions of transformers store and others do not.
    """
    return _hash(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=64)
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Hash (file, size, time of change). The last two only key the cache: a file that changed is read again."""
    digest = hashlib.sha256()
    tensors = {name: tensor for file, _, _ in files for name, tensor in tensors_of(file).items()}
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.dtype not in _FLOATS:
            continue
        digest.update(f"{name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
        with tensor.file.open("rb") as stream:
            stream.seek(tensor.start)
            remaining = tensor.stop - tensor.start
            while remaining:
                chunk = stream.read(min(remaining, 1 << 22))
                # The file may have shrunk since its header was read.
                if not chunk:
                    raise DamagedModelError(f"{tensor.file} ends inside tensor {name!r}; fetch it again")
                digest.update(chunk)
                remaining -= len(chunk)
    return digest.hexdigest()


def _tensor(file: Path, name: str, entry: Any, base: int, size: int) -> Tensor:
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        first, last = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedModelError(f"{file} is damaged: the entry of tensor {name[:80]!r} is malformed") from error
    numbers = (*shape, first, last)
    # True is an int in Python; more than 63 bits are no size of anything
    if (
        not isinstance(dtype, str)
        or len(shape) > _MAX_AXES
        or any(type(n) is not int or n < 0 or n >> 63 for n in numbers)
    ):
        raise DamagedModelError(f"{file} is damaged: the entry of tensor {name[:80]!r} is malformed")
    start, stop = base + first, base + last
    expected = math.prod(shape) * _WIDTH.get(dtype, 0)
    # Unknown types (8-bit floats) have no width to compare with. Their bytes are hashed all the same.
    if not base <= start <= stop <= size or (dtype in _WIDTH and stop - start != expected):
        raise DamagedModelError(f"{file} is cut short or damaged at tensor {name[:80]!r}; fetch it again")
    return Tensor(file, name, dtype, shape, start, stop)
