"""A query adapter: query vectors -> better query vectors of the same space, document vectors untouched.

The map is residual and linear, `q' = unit(q + q W)`, with `W = 0` before training: an unfitted adapter changes
nothing. Serving needs numpy only.

Guarantees: output is unit length and float32; a saved adapter remembers the space it was fitted in and is refused
in any other. Does not know: texts, torch, collections. Fitting is `llama_index_embed_plus.train.fit_adapter`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus import artifact, checkpoints
from llama_index_embed_plus.errors import DamagedModelError, UsageError
from llama_index_embed_plus.spec import read_spec, space_of
from qdrant_tools.records import Encoder, Vectors

WEIGHTS_FILE, CONFIG_FILE = "adapter.npz", "adapter.json"


@dataclass(frozen=True, eq=False)
class QueryAdapter:
    """`q' = unit(q + q W)` with `weight` W of shape (dimension, dimension), float32, fitted in `space`."""

    weight: NDArray[np.float32]
    space: str

    @classmethod
    def identity(cls, dimension: int, space: str) -> QueryAdapter:
        """Return the adapter that changes nothing."""
        return cls(np.zeros((dimension, dimension), np.float32), space)

    @property
    def dimension(self) -> int:
        return int(self.weight.shape[0])

    @property
    def build(self) -> str:
        """Name this adapter's weights, for the `build` of the encoder that carries it."""
        return "adapter@" + hashlib.sha256(np.ascontiguousarray(self.weight).tobytes()).hexdigest()[:12]

    def __call__(self, query_vectors: Vectors) -> Vectors:
        """Map (n, dimension) query vectors to (n, dimension) unit vectors."""
        mapped = query_vectors + query_vectors @ self.weight
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        return np.asarray(mapped / np.maximum(lengths, 1e-12), np.float32)

    def save(self, folder: Path) -> None:
        """Write the adapter into `folder`, which is made if needed."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / WEIGHTS_FILE, weight=self.weight)
        config = {
            "kind": "residual-linear",
            "space": self.space,
            "dimension": self.dimension,
            "build": self.build,
        }
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> QueryAdapter:
        """Read an adapter. Raises `DamagedModelError`, naming the file, if it is not what was saved."""
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            with np.load(folder / WEIGHTS_FILE, allow_pickle=False) as arrays:
                adapter = cls(np.asarray(arrays["weight"], np.float32), config["space"])
            expected = config["build"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedModelError(f"query adapter in {folder} cannot be read ({error}): fit it again") from error
        if adapter.build != expected:
            raise DamagedModelError(f"{folder / WEIGHTS_FILE} holds {adapter.build}, expected {expected}: fit it again")
        return adapter


def attach(model: str | Path, adapter: QueryAdapter, out: Path) -> None:
    """Write to `out` a copy of `model` that carries `adapter`: the artifact to serve with.

    Raises `UsageError` if the adapter was fitted for another model, or `out` holds something else.
    """
    base = checkpoints.resolve(model)
    space = space_of(base, read_spec(base))
    if adapter.space != space:
        raise UsageError(
            f"adapter was fitted in space {adapter.space}, {str(model)!r} has {space}: give the base model"
        )
    with artifact.written_whole(out) as draft:
        if artifact.is_artifact(base):
            artifact.verify(base)
            shutil.copytree(base, draft, dirs_exist_ok=True)
        else:
            artifact.copy_model(base, draft)
        adapter.save(draft / artifact.ADAPTER)
        artifact.write_manifest(draft)


class AdaptedEncoder:
    """An encoder whose queries pass through an adapter. Its space is its base's: the collection stays as it is."""

    def __init__(self, base: Encoder, adapter: QueryAdapter) -> None:
        if adapter.space != base.space:
            raise UsageError(
                f"adapter was fitted in space {adapter.space}, the encoder's is {base.space}: "
                "fit an adapter for this encoder"
            )
        if adapter.weight.shape != (base.dimension, base.dimension):
            raise UsageError(f"adapter has shape {adapter.weight.shape}, the encoder {base.dimension} dimensions")
        self.base = base
        self.adapter = adapter

    @property
    def dimension(self) -> int:
        return self.base.dimension

    @property
    def space(self) -> str:
        return self.base.space

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.adapter(self.base.encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self.base.encode_passages(texts)
