"""Which of several training processes this is, as `torchrun` and `accelerate launch` say in the environment.

Guarantees: without a launcher there is one process, and nothing waits. Does not know: devices, models.
"""

from __future__ import annotations

import os


def world_size() -> int:
    """Return how many processes train together."""
    # from the environment: torch.distributed is initialised later than this is asked
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this process is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_all() -> None:
    """Return when every process has come here."""
    if world_size() > 1:
        import torch  # a fit of an adapter, in one process, does without

        if torch.distributed.is_initialized():
            torch.distributed.barrier()
