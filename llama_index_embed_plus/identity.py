"""The arguments of an embedding -> the same with everything filled in that the model's own files say.

Guarantees: nothing heavy is imported and no model is opened; what was passed is kept; passing the result again gives
the same result. Does not know: LlamaIndex.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from llama_index_embed_plus.encoders import identify
from llama_index_embed_plus.encoders.runtime import Runtime
from llama_index_embed_plus.errors import UsageError
from llama_index_embed_plus.spec import Overrides

DEFAULT_MODEL = "all-MiniLM-L6-v2"
OVERRIDES = tuple(field.name for field in dataclasses.fields(Overrides))
RUNTIME = tuple(field.name for field in dataclasses.fields(Runtime))
_FOUND_OUT = ("space", "build", "dimension")


def settle(model: str | Path | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fill in name, spec, space, build and dimension.

    When `space`, `build` and `dimension` are given, as by `from_dict`, the files are not read: whoever opens the model
    compares. Raises what `identify` raises, and `UsageError` for two different names.
    """
    name = _one_name(model, arguments.get("model_name"))
    settled: dict[str, Any] = {
        key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()
    }
    settled |= {"model": name, "model_name": name}
    runtime_of(settled)
    if all(arguments.get(key) for key in _FOUND_OUT):
        return settled
    asked: dict[str, Any] = {
        key: settled[key] for key in ("backend", "revision", "cache_folder", "trust_remote_code") if settled.get(key)
    }
    found = identify(name, **asked, overrides=overrides_of(settled))
    spec = {key: getattr(found.spec, key) for key in OVERRIDES}
    pooling = found.spec.pooling[0] if len(found.spec.pooling) == 1 else found.spec.pooling
    identity = {"space": found.space, "build": base_build(found.build), "dimension": found.spec.dimension}
    for key, value in identity.items():
        if arguments.get(key, value) != value:
            raise UsageError(f"{key} is {arguments[key]!r}, but model {name!r} has {value!r}: leave {key} out")
    return settled | spec | {"pooling": pooling} | identity


def overrides_of(arguments: dict[str, Any]) -> Overrides | None:
    """Return what is asked for otherwise than the model's files say, or None."""
    wanted = {key: arguments[key] for key in OVERRIDES if arguments.get(key) is not None}
    return Overrides(**wanted) if wanted else None


def runtime_of(arguments: dict[str, Any]) -> Runtime:
    """Return how the encoder is to be run. Raises `UsageError` for a setting that cannot be honoured."""
    return Runtime(**{key: arguments[key] for key in RUNTIME if key in arguments})


def base_build(build: str) -> str:
    """Return the build of passages: an adapter maps queries only, and a new one must not make passages look stale."""
    return build.partition("+")[0]


def _one_name(model: str | Path | None, model_name: str | None) -> str:
    """Accept LlamaIndex's name for the argument too; both at once must agree."""
    names = {str(name) for name in (model, model_name) if name is not None}
    if len(names) > 1:
        raise UsageError(f"model is {str(model)!r} and model_name {model_name!r}: give one of them")
    return names.pop() if names else DEFAULT_MODEL
