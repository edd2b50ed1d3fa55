"""A mark on a collection that another one is about to replace: no write is lost in that moment.

Whoever switches an alias marks the old collection first, then copies the last writes over, then makes the mark one for
good, then switches. Whoever writes looks for the mark after each write and before reporting it as stored. Without a
mark, the write came first and is copied over. With one, the writer gets an error and writes again where the alias
points then. Until it is one for good the mark expires, so that a copy that was killed does not stop writers for long.
The switcher starts over when its mark has expired meanwhile.

On a cluster other nodes see metadata later. So the switcher waits, once it has set the mark, until every node has it:
what a writer read without the mark at any node was stored before the last copy began.

Guarantees: a write that was reported as stored is in the collection that serves after the switch, wherever the switch
was killed, if the clocks of the machines agree to within a minute and, on a cluster, all its nodes answer meanwhile: a
node that is dead keeps the server from waiting for the others, and one that comes back may have seen no mark. Does not
know: promotions. The mark is `{"successor", "until"}`, where `until` is None if it is one for good.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import Gateway, engine_errors, metadata_in
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.identity import RETIRED_KEY, identity_in
from qdrant_tools.collections.metadata import metadata_of
from qdrant_tools.errors import CollectionError, brief

LOCK_SECONDS = 300.0
"""How long a mark holds."""
MARGIN_SECONDS = 60.0
"""How long before its end the switcher no longer trusts its mark: clocks of machines differ."""

NODES_SECONDS = 60
"""How long the nodes of a cluster are waited for."""
MOMENT = "embed-plus-moment"
"""An alias that is made and removed in one request: nobody sees it."""


class WriteLock:
    """A mark that is renewed for as long as the work takes that relies on it."""

    def __init__(self, client: QdrantClient, name: str, *, successor: str) -> None:
        self._client, self._name, self._successor = client, name, successor
        self._until = 0.0
        self._lapsed = True

    def acquire(self) -> None:
        """Mark the collection, for every node: what relies on the mark begins now."""
        self._mark()
        _wait_for_all_nodes(self._client, self._name)
        self._lapsed = False

    def renew(self) -> None:
        """To be called often; marks the collection again once half of the time is over."""
        left = self._until - time.time()
        # Once lapsed, always lapsed: marking again does not take back a write that came in between.
        self._lapsed = self._lapsed or left < 0
        if left < (LOCK_SECONDS - MARGIN_SECONDS) / 2:
            self._mark()

    @property
    def held(self) -> bool:
        """Whether the mark has held without a gap since it was acquired."""
        return not self._lapsed and time.time() < self._until

    def _mark(self) -> None:
        until = time.time() + LOCK_SECONDS
        _write(self._client, self._name, {"successor": self._successor, "until": until})
        # less the margin: the switcher stops trusting the mark before writers stop seeing it
        self._until = until - MARGIN_SECONDS


def accept_writes(client: QdrantClient, name: str) -> None:
    """Take the mark away: the collection takes writes again."""
    _write(client, name, {})  # metadata is merged by key, and no key can be removed


def mark_retired(client: QdrantClient, name: str, *, successor: str) -> None:
    """Mark a collection for good: the alias is about to move, and nothing that is written here will be served."""
    _write(client, name, {"successor": successor, "until": None})


def successor_of(client: QdrantClient, name: str) -> str | None:
    """The collection that takes, took or began to take the place of another, if that one is marked."""
    mark = metadata_in(Gateway(client, name).info()).get(RETIRED_KEY)
    successor = mark.get("successor") if isinstance(mark, Mapping) else None
    return successor if isinstance(successor, str) else None


def refuse_retired(collection: Collection, *, identity: str | None = None) -> None:
    """Raise if another collection, or another vector of this one, takes this one's place, now or already.

    With an `identity`, also if the collection of this name is another one by now.

    Raises:
        CollectionError: with the name of the other collection and the way out.
    """
    info = collection.gateway.info()
    if identity is not None and identity_in(metadata_in(info)) != identity:
        raise CollectionError(
            f"collection {collection.name!r} was dropped and made anew meanwhile: what was reported as stored before "
            "is gone; open it again and index everything again"
        )
    metadata = metadata_of(info)
    # after a promotion in place another vector of the same collection serves
    if metadata is None or (metadata.space, metadata.layout.vector) != (collection.space, collection.layout.vector):
        serving = "nobody" if metadata is None else metadata.space
        raise CollectionError(
            f"collection {collection.name!r} was taken over by the encoder {serving!r}: the last batch was not "
            "reported as stored; open the collection again, with that encoder, and index again"
        )
    mark = metadata_in(info).get(RETIRED_KEY)
    # {} is a mark that was taken away
    if not mark:
        return
    until = mark.get("until") if isinstance(mark, Mapping) else None
    # a mark that is none of ours holds for good: what it means cannot be told
    if not isinstance(until, (int, float)) or until > time.time():
        successor = brief(mark.get("successor") if isinstance(mark, Mapping) else mark)
        raise CollectionError(
            f"collection {collection.name!r} is being replaced by {successor}: the last batch was not "
            "reported as stored; open the alias again, with the encoder that serves then, and index again; if it still "
            "points here, a switch or rollback was interrupted: call that again"
        )


def _wait_for_all_nodes(client: QdrantClient, name: str) -> None:
    """Return when every node of a cluster has applied what was changed before.

    Raises:
        UnreachableError, CollectionError: not within the time of the client, or `NODES_SECONDS`.
    """
    if engine_of(client) != "server":
        return
    # A server that makes an alias answers when all nodes have applied it, and with it all changes that came before it.
    make = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=MOMENT))
    remove = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=MOMENT))
    began = time.monotonic()
    with engine_errors(f"wait for all nodes to mark collection {name!r}"):
        client.update_collection_aliases([make, remove], timeout=NODES_SECONDS)
    # after that time it gives up waiting, and does not say so
    if time.monotonic() - began >= NODES_SECONDS:
        raise CollectionError(
            f"a node of the cluster has not taken the mark on collection {name!r} within {NODES_SECONDS} s: nothing "
            "was switched; call switch again when all nodes answer"
        )


def _write(client: QdrantClient, name: str, mark: dict[str, object]) -> None:
    Gateway(client, name).update(metadata={RETIRED_KEY: mark})
