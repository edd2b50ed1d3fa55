"""The child process: opens one shard folder, optimizes it if that is its task, flushes and closes it.

Run as a file with a task (open, optimize), the folder, and the bytes of memory it may take. Prints 1 if an index was
built, else 0. It imports nothing but the engine, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import signal
import sys

import qdrant_edge as qe

PR_SET_PDEATHSIG = 1  # from Linux' sys/prctl.h: Python has no name for it


def end_with_parent() -> None:
    """Let the kernel end this process with its parent, which alone needs the result. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_memory(limit: int) -> None:
    """Let allocations fail beyond `limit` bytes; files mapped into memory do not count. Linux only."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        # not RLIMIT_AS, which counts mapped files too; beyond the hard limit it cannot be set, and need not
        if hard == resource.RLIM_INFINITY or limit <= hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main(task: str, shard_folder: str, memory_limit: str) -> None:
    end_with_parent()
    limit_memory(int(memory_limit))
    shard = qe.EdgeShard.load(shard_folder)
    built = task == "optimize" and shard.optimize()
    shard.flush()
    shard.close()
    sys.stdout.write(str(int(built)))


if __name__ == "__main__":
    main(*sys.argv[1:])
