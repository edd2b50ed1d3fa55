"""Two encoders, and a promotion in a process of its own that kills itself in the middle of it."""

from __future__ import annotations

import signal
from pathlib import Path

from moments import dying
from programs import run
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.promotion.switch import cleanup
from qdrant_tools.promotion.verify import Gates

OLD, NEW = WordEncoder("old", dimension=256), WordEncoder("new", dimension=384)
THING17 = numbered(18)[17].text


def promote(location: str, method: str, moment: str, nth: str, in_place: str) -> None:
    """A program: promote the alias `docs`, and die "before" or "after" the nth call of a client's method."""
    client = connect(location)
    dying(client, [method], int(nth), moment)
    manager = CollectionManager(client)
    promotion = Promotion(manager, "docs", NEW, in_place=bool(int(in_place)))
    promotion.build(batch_size=50)
    if promotion.plan().kind != "nothing":
        promotion.verify(Gates(samples=10))
    promotion.switch()
    cleanup(manager, "docs")


def promote_and_die(location: Path, method: str, moment: str, nth: int, *, in_place: bool) -> None:
    """Promote `docs` to `NEW` in a process of its own, which is killed on the way."""
    ended = run(promote, location, method, moment, nth, int(in_place))
    assert ended.returncode == -signal.SIGKILL, f"{method} was not reached {nth} times: {ended.stderr}"
