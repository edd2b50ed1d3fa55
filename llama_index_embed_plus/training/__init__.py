"""Training: examples in, a better encoder out. Needs the extra `train`.

`fit_adapter` fits a query adapter in seconds; `train` trains that, LoRA matrices or the whole encoder, and writes an
artifact with a report; `run_recipe` does so in stages, from a file; `prove` says whether the result may serve.
"""

from __future__ import annotations

from importlib.util import find_spec

import lazy_loader

from llama_index_embed_plus.errors import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError("training", extra="train")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
