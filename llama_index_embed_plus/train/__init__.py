"""Training: examples in, a better encoder out. Needs the extra `train`.

`train` trains the whole encoder, LoRA matrices or a query adapter, and writes an artifact with a report; `run_recipe`
does so in stages, from a file. Importing this package is light; the libraries that train are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llama_index_embed_plus.errors import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError("training", extra="train")

if TYPE_CHECKING:
    from llama_index_embed_plus.train.heldout import Heldout
    from llama_index_embed_plus.train.job import Evidence
    from llama_index_embed_plus.train.recipe import Recipe, StagePlan, read_recipe
    from llama_index_embed_plus.train.report import TrainReport
    from llama_index_embed_plus.train.run import planned_steps, train
    from llama_index_embed_plus.train.settings import LoraSettings, Projection, TrainSettings
    from llama_index_embed_plus.train.stages import run_recipe

__all__ = [
    "Evidence",
    "Heldout",
    "LoraSettings",
    "Projection",
    "Recipe",
    "StagePlan",
    "TrainReport",
    "TrainSettings",
    "planned_steps",
    "read_recipe",
    "run_recipe",
    "train",
]

_HOMES = {
    "Evidence": "job",
    "Heldout": "heldout",
    "LoraSettings": "settings",
    "Projection": "settings",
    "Recipe": "recipe",
    "StagePlan": "recipe",
    "TrainReport": "report",
    "TrainSettings": "settings",
    "planned_steps": "run",
    "read_recipe": "recipe",
    "run_recipe": "stages",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
