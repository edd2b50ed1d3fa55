"""Out of memory in a training step -> the same step again, with mini-batches of half the size.

Only losses that embed a batch in mini-batches (GradCache) can do that without changing what they compute: the batch,
and with it the in-batch negatives, stays whole. Guarantees: the step is taken as if nothing had happened, up to the
random draws of dropout; every halving is said once. Does not know: optimizers, data.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch

from llama_index_embed_plus.errors import TrainingError

logger = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory. On a CPU only the message tells."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


class MiniBatches:
    """The size of the mini-batches of a loss, or of several: tokens where they are counted, else texts."""

    def __init__(self, losses: Iterable[torch.nn.Module]) -> None:
        self._cached = [
            (module, "mini_batch_num_tokens" if module.mini_batch_num_tokens else "mini_batch_size")
            for loss in losses
            for module in loss.modules()
            if hasattr(module, "mini_batch_num_tokens")
        ]
        self.notes: list[str] = []

    @property
    def size(self) -> int | None:
        """The smallest in use; None if nothing is done in mini-batches."""
        return min((int(getattr(module, name)) for module, name in self._cached), default=None)

    def shrink_to(self, size: int) -> None:
        """Use mini-batches of at most `size`, as an interrupted run did."""
        for module, name in self._cached:
            setattr(module, name, min(size, int(getattr(module, name))))

    def halve(self, error: BaseException, *, step: int) -> None:
        """Halve the size and say so. Raises TrainingError if there is nothing to halve."""
        size = self.size
        if size is None:
            raise TrainingError(
                f"out of memory at step {step}, and this loss takes its batch at once: use a cached loss, or a smaller "
                f"batch_size or max_tokens ({_line(error)})"
            ) from error
        if size <= 1:  # also of tokens: a mini-batch holds at least one text
            raise TrainingError(
                f"out of memory at step {step} with one text at a time: use a smaller max_tokens, "
                f"gradient_checkpointing or a smaller model ({_line(error)})"
            ) from error
        self.shrink_to(size // 2)
        unit = "tokens" if self._cached[0][1] == "mini_batch_num_tokens" else "texts"
        note = f"out of memory at step {step}: mini-batches of {size // 2} instead of {size} {unit} from here on"
        self.notes.append(note)
        logger.warning("%s", note)


def copied(inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch that a failed attempt cannot have changed: losses take entries out, modules write into masks."""
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in inputs.items()}


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
