"""An id that one collection has and no other ever had: what is to be dropped later is proved by it, and not by a name.

A name may be used again, and metadata travels with copies and snapshots to other servers. The id is drawn when the
collection is made, or when it is first asked for, and kept in the collection's metadata. Neither it nor what concerns
the original alone goes along with copies and what `restore_snapshot` restores.

Guarantees: collections with the same id are one collection, or were restored from a server's snapshot by another
program. Does not know: what an id is kept for.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from qdrant_client import QdrantClient

from qdrant_tools.client.gateway import Gateway, metadata_in

IDENTITY_KEY = "embed_plus_id"
"""The metadata key of the id."""
PROMOTION_KEY = "embed_plus_promotion"
"""That of the state of the promotion in which the collection is the target; see `promotion.plan`."""
RETIRED_KEY = "embed_plus_retired"
"""That of the mark that another collection takes its place; see `retirement`."""


def new_identity() -> str:
    """An id that no collection has."""
    return uuid.uuid4().hex


def identity_of(client: QdrantClient, name: str) -> str | None:
    """The collection's id, None if it has none yet."""
    return identity_in(metadata_in(Gateway(client, name).info()))


def given_identity(client: QdrantClient, name: str) -> str:
    """The collection's id, which it gets now if it has none."""
    found = identity_of(client, name)
    if found is None:
        Gateway(client, name).update(metadata={IDENTITY_KEY: new_identity()})
        # read back: where two ask at once, the last one wrote it
        found = identity_of(client, name)
    return found or ""


def metadata_for_copies(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """All metadata but the id, the mark, and the state of a promotion from another collection."""
    own = {IDENTITY_KEY, RETIRED_KEY}
    state = metadata.get(PROMOTION_KEY)
    # a promotion in place is all in one collection: its way back goes along
    if isinstance(state, Mapping) and state.get("kind") == "re-embed":
        own.add(PROMOTION_KEY)
    return {key: value for key, value in metadata.items() if key not in own}


def identity_in(metadata: Mapping[str, Any]) -> str | None:
    """The id in the metadata of a collection; None if it has none yet."""
    value = metadata.get(IDENTITY_KEY)
    return value if isinstance(value, str) and value else None
