"""The files of a model folder, read and written safely.

Guarantees: a missing, damaged, oversized or odd file is DamagedModelError naming it; no path in a file leads out of its
folder; a file is replaced in one step; no code of a model is imported. Does not know: what the values mean (see
`config`), where a folder comes from (`hub`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from llama_index_embed_plus.errors import DamagedModelError
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.files import json_files
from qdrant_tools.files.written import written_whole

T = TypeVar("T")

BASE_CONFIG = "base_config.json"
"""The base model's config.json, in a folder with LoRA matrices. Under its usual name transformers would take the
folder for a whole model."""

LORA_CONFIG, LORA_MATRICES = "adapter_config.json", "adapter_model.safetensors"

MANIFEST = "embed_plus.json"

MOST_BYTES = 1 << 21
"""Of one JSON file. A configuration with the names of 20,000 labels has a megabyte."""
_LARGER: Mapping[str, int] = {"tokenizer.json": 3 << 24, "train_report.json": 1 << 24}
"""The largest tokenizer known, Gemma's, has 33 MB."""
_MOST_VALUES = 500_000
_LONGEST_TEXT = 1 << 22
"""Of a vocabulary as a text file; that of a hundred languages has a megabyte."""
_LONGEST_NAME = 255

_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
"""Modules of sentence-transformers that are computed here. Dropout does nothing outside of training."""
_MOST_MODULES = 64


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """Read a JSON object, None if there is no such file."""
    path = folder / name
    # A folder with LoRA matrices keeps the config of its base under another name, see BASE_CONFIG.
    if name == "config.json" and has_lora(folder) and not path.is_file():
        path = folder / BASE_CONFIG
    try:
        most = _LARGER.get(path.name, MOST_BYTES)
        value = json_files.read_json(
            path, most=most, most_values=max(most // 16, _MOST_VALUES), error=DamagedModelError
        )
    except FileNotFoundError:
        return None
    except DamagedModelError as error:
        raise DamagedModelError(f"{error}; fetch it again") from error
    if not isinstance(value, dict):
        raise DamagedModelError(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def has_lora(inner: Path) -> bool:
    """Whether `inner` is a folder of LoRA matrices, which belong to the weights of another folder."""
    return (inner / LORA_CONFIG).is_file()


@dataclass(frozen=True)
class Settings:
    """The values of one JSON file. A value of another type than the method expects is DamagedModelError."""

    path: Path
    values: Mapping[str, Any]

    def text(self, key: str) -> str | None:
        return self._typed(key, str)

    def integer(self, key: str) -> int | None:
        return self._typed(key, int)

    def flag(self, key: str) -> bool | None:
        return self._typed(key, bool)

    def table(self, key: str) -> Settings:
        """Return an object inside; empty if there is none."""
        return Settings(self.path, self._typed(key, dict) or {})

    def _typed(self, key: str, kind: type[T]) -> T | None:
        value = self.values.get(key)
        if value is None:
            return None
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # 1e30, as tokenizers write "no limit"
        # True is an int in Python, and no number in JSON
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
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    with written_whole(path, private=False) as draft:
        draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def require_text(folder: Path, name: str) -> str:
    """Read a text file that must be there."""
    try:
        return json_files.read_text(folder / name, most=_LONGEST_TEXT, error=DamagedModelError)
    except FileNotFoundError as error:
        raise DamagedModelError(f"{folder / name} is missing; {str(folder)!r} is no complete model folder") from error


def onnx_files(folder: Path) -> Iterator[Path]:
    """Yield the ONNX files of `folder`, at the places where hubs and this project put them."""
    for name in ("onnx/model.onnx", "model.onnx"):
        if (folder / name).is_file():
            yield folder / name


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`. Refuse a name that would lie outside the folder, or that no file can have."""
    relative = PurePosixPath(name)
    # a backslash or a drive letter leads out only on Windows, but an artifact may be opened anywhere
    outside = relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name
    if outside or not name.isprintable() or any(len(part.encode()) > _LONGEST_NAME for part in relative.parts):
        raise DamagedModelError(f"a file in {str(folder)!r} names {name[:80]!r}, expected a path inside the folder")
    return folder / relative


def module_rows(folder: Path) -> list[tuple[str, str]]:
    """Return (type, path) of each module in order, as modules.json states them. A plain transformers folder has one."""
    path = folder / "modules.json"
    try:
        rows = json_files.read_json(path, most=MOST_BYTES, error=DamagedModelError)
    except FileNotFoundError:
        return [("sentence_transformers.models.Transformer", "")]
    try:
        modules = [(row["type"], row["path"]) for row in rows]
    except (KeyError, TypeError) as error:
        raise DamagedModelError(f"{path} is damaged, expected a list of modules ({error}); fetch it again") from error
    if len(modules) > _MOST_MODULES or not all(isinstance(text, str) for row in modules for text in row):
        raise DamagedModelError(f"{path} is damaged, expected up to {_MOST_MODULES} modules with a type and a path")
    for _, name in modules:
        inside(folder, name)
    return modules


def modules_of(folder: Path) -> list[tuple[str, str]]:
    """Return (kind, path) of each module in order. A module that this project does not compute is refused."""
    path = folder / "modules.json"
    modules = []
    for kind, name in module_rows(folder):
        if not kind.startswith("sentence_transformers."):
            raise NotSupportedError(f"{path} asks for {kind[:80]!r}, which is code in the model's own repository")
        kind = kind.rpartition(".")[2]
        if kind not in _MODULES:
            raise NotSupportedError(f"{path} asks for the module {kind!r}, this project computes {', '.join(_MODULES)}")
        modules.append((kind, name))
    return modules
