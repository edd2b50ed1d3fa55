"""Training: examples in, a better encoder out.

`fit_adapter` fits a query adapter in seconds; `train` trains that, LoRA matrices or the whole encoder, and writes an
artifact with a report; `run_recipe` does so in stages, from a file; `prove` says whether the result may serve.

Query adapters, their proof, mining and synthesis by rules need no torch. What does (LoRA, the whole encoder, merging
weights, losses and their data sets) asks for the extra `train` when its name is first used.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

from llama_index_embed_plus.errors import MissingExtraError

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"training.{name}", extra="train") from error
