"""The files of a model folder, read and written safely: JSON, module lists, paths.

Guarantees: a missing or damaged file is DamagedModelError naming it; no path in a file leads out of the folder; a file
is replaced in one step. Does not know: what the values mean; see `facts`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from llama_index_embed_plus.errors import DamagedModelError
from qdrant_tools.errors import NotSupportedError

T = TypeVar("T")

BASE_CONFIG = "base_config.json"
"""The config.json of a LoRA's base, in the folder of a LoRA kept apart: with one of its own, transformers would take
that folder for a whole model."""

MANIFEST = "embed_plus.json"

_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
"""Modules of sentence-transformers that are computed here; Dropout does nothing outside of training."""


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """Read a JSON object, None if there is no such file."""
    path = folder / name
    if name == "config.json" and (folder / "adapter_config.json").is_file() and not path.is_file():
        path = folder / BASE_CONFIG
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise DamagedModelError(f"{path} is damaged, expected JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise DamagedModelError(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


@dataclass(frozen=True)
class Settings:
    """The values of one JSON file. One of another type than asked for is DamagedModelError naming file and key."""

    path: Path
    values: Mapping[str, Any]

    def text(self, key: str) -> str | None:
        return self._typed(key, str)

    def integer(self, key: str) -> int | None:
        return self._typed(key, int)

    def flag(self, key: str) -> bool | None:
        return self._typed(key, bool)

    def table(self, key: str) -> Settings:
        """An object inside; empty if there is none."""
        return Settings(self.path, self._typed(key, dict) or {})

    def _typed(self, key: str, kind: type[T]) -> T | None:
        value = self.values.get(key)
        if value is None:
            return None
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # 1e30, as tokenizers write "no limit"
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise DamagedModelError(f"{self.path}: {key} is {value!r}, expected {_KINDS[kind]}")
        return value


_KINDS: dict[type, str] = {str: "a string", int: "a whole number", bool: "true or false", dict: "an object"}


def settings_of(folder: Path, name: str) -> Settings:
    """Read a JSON object; empty if there is no such file."""
    return Settings(folder / name, read_json(folder, name) or {})


def require_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object that must be there."""
    value = read_json(folder, name)
    if value is None:
        raise DamagedModelError(f"{folder / name} is missing; {str(folder)!r} is no complete model folder")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(draft, path)


def require_text(folder: Path, name: str) -> str:
    """Read a text file that must be there."""
    try:
        return (folder / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedModelError(f"{folder / name} is missing or damaged ({type(error).__name__})") from error


def onnx_files(folder: Path) -> Iterator[Path]:
    """The ONNX files that hubs and this project write, those there are."""
    for name in ("onnx/model.onnx", "model.onnx"):
        if (folder / name).is_file():
            yield folder / name


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused if it would lie outside the folder."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name:
        raise DamagedModelError(f"a file in {str(folder)!r} names {name!r}, expected a path inside the folder")
    return folder / relative


def modules_of(folder: Path) -> list[tuple[str, str]]:
    """(kind, path) of each module in order; a plain transformers folder has one, the Transformer."""
    path = folder / "modules.json"
    if not path.is_file():
        return [("Transformer", "")]
    try:
        rows = json.loads(path.read_text("utf-8"))
        modules = [(str(row["type"]).rpartition(".")[2], str(row["path"])) for row in rows]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DamagedModelError(f"{path} is damaged, expected a list of modules ({error}); fetch it again") from error
    for row, (kind, _) in zip(rows, modules):
        if not str(row["type"]).startswith("sentence_transformers."):
            raise NotSupportedError(f"{path} asks for {row['type']!r}, which is code in the model's own repository")
        if kind not in _MODULES:
            raise NotSupportedError(f"{path} asks for the module {kind!r}, this project computes {', '.join(_MODULES)}")
    return modules
