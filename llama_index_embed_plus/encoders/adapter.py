"""A query adapter in files: saved, loaded, and attached to a copy of a model.

Guarantees: what is loaded is what was saved, whoever made the files; a saved adapter remembers its space and is refused
in any other. Does not know: what an adapter does (`qdrant_tools.search.adapters`), how it is fitted
(`training.adapter`).
"""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.files import require_json
from llama_index_embed_plus.models.hub import resolve
from llama_index_embed_plus.models.spec import late_space, read_spec, space_of
from qdrant_tools.errors import UsageError, first_line
from qdrant_tools.files.json_files import open_regular
from qdrant_tools.files.trees import files_of
from qdrant_tools.files.written import refuse_link, written_whole
from qdrant_tools.search.adapters import MAPS, AdaptedEncoder, Adapter

__all__ = ["AdaptedEncoder", "QueryAdapter", "attach_adapter", "attaching_adapter"]

WEIGHTS_FILE, CONFIG_FILE = "adapter.npz", "adapter.json"
_FORMER_NAMES = {"residual-linear": "full"}
"""Kinds under the names that earlier versions wrote."""


class QueryAdapter(Adapter):
    """An `Adapter` that is kept in files: `q' = unit(map(q))` with a `map` that was fitted in `space`."""

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
    spec = read_spec(base)
    space = space_of(base, spec)
    # fitted for a collection with late chunking: so the artifact will be opened
    late = not spec.late and adapter.space == late_space(space)
    if adapter.space != space and not late:
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
        artifact.write_manifest(draft, spec=replace(spec, late=True) if late else None, source=artifact.origin_of(base))
