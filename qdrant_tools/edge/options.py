"""Call options that mean something only to a cluster: accepted where they hold anyway, refused where they do not."""

from __future__ import annotations

from typing import Any

from qdrant_client.http import models

from qdrant_tools.errors import NotSupportedError, UsageError

# one copy in one process: every read is consistent, every write is ordered and applied before the call returns,
# and a call that waits for nobody needs no timeout
HOLD_ANYWAY = {"wait", "ordering", "consistency", "timeout", "method", "parallel", "max_retries"}
REFUSED = {"shard_key_selector", "shard_key"}

DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


def check_options(options: dict[str, Any]) -> None:
    """Raise `NotSupportedError` for options that cannot be honoured, `UsageError` for unknown ones."""
    for name, value in options.items():
        if name in HOLD_ANYWAY or (name in REFUSED and value is None):
            continue
        if name in REFUSED:
            raise NotSupportedError(f"{name}={value!r}: the embedded engine has one shard; drop it or use a server")
        raise UsageError(f"unknown argument {name}={value!r}")
