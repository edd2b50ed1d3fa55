"""Training: examples in, a better encoder out. Needs the extra `train`.

`fit_adapter` fits a map on query vectors in seconds and leaves the collection as it is; `finetune` trains the whole
encoder, after which every passage must be embedded again.
"""

from __future__ import annotations

from importlib.util import find_spec

from llama_index_embed_plus.errors import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError("training", extra="train")
