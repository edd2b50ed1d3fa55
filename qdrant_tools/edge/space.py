"""Room on the disk, asked for before the engine writes.

The engine writes through memory maps into files with holes: on a full disk the system ends the process instead of
returning an error. So every write asks first, and what is left for the smallest writes lets one delete and close.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from qdrant_tools.errors import LocationError

MEGABYTE = 1 << 20
RESERVE = 16 * MEGABYTE  # log pages, id tables and the like that even a deletion touches
PAYLOAD = 2048  # bytes of payload assumed for a point
COPIES = 3  # a point is in the log, in its segment, and for a while in the segment that replaces it


def room_for_points(folder: Path, points: int, vector_bytes: int) -> None:
    """Raise `LocationError` unless the disk has room for this many more points."""
    require(folder, RESERVE + COPIES * points * (vector_bytes + PAYLOAD))


def room_for_copy(folder: Path) -> None:
    """Raise `LocationError` unless the disk has room for all of `folder` once more."""
    used = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    require(folder, RESERVE + used)


def require(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LocationError(
            f"no space left on the disk of '{folder}': {free // MEGABYTE} MB free, {needed // MEGABYTE} MB needed; "
            "free some, nothing was written"
        )
