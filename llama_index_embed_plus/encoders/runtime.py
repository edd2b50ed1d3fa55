"""How an encoder is run, apart from what it computes. Nothing here is part of the vector space.

Does not know: models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llama_index_embed_plus.errors import UsageError
from llama_index_embed_plus.tokens import TokenBatch

Dtype = Literal["float32", "bfloat16", "float16"]
OnMismatch = Literal["fallback", "error"]


@dataclass(frozen=True)
class Runtime:
    """Settings of `open_encoder` that most callers leave alone."""

    trust_remote_code: bool = False
    """Run code that lies in the model's own repository. Read it first."""
    dtype: Dtype = "float32"
    """Numbers torch computes with up to the pooling; the shorter ones halve the memory of a large decoder."""
    threads: int | None = None
    """Cores an ONNX build may use; None: all that this process has. Torch has its own setting for all models."""
    batch_tokens: int | None = None
    """Padded tokens per batch; None: what suits the backend."""
    on_mismatch: OnMismatch = "fallback"
    """When a build does not give the vectors on this machine that it gave where it was made: use the fp32 build and
    say so once, or raise ParityError."""

    def __post_init__(self) -> None:
        for name in ("threads", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if self.dtype not in get_args(Dtype):
            raise UsageError(f"dtype is {self.dtype!r}, expected one of {', '.join(get_args(Dtype))}")
        if self.on_mismatch not in get_args(OnMismatch):
            raise UsageError(f"on_mismatch is {self.on_mismatch!r}, expected one of {', '.join(get_args(OnMismatch))}")


def no_memory(batch: TokenBatch, device: str) -> str:
    """The message for a batch that does not fit into memory."""
    texts, tokens = batch.ids.shape
    return (
        f"no memory on {device} for a batch of {texts} texts of {tokens} tokens; "
        "use smaller batches, Runtime(batch_tokens=...), or a smaller max_tokens"
    )
