"""What serves an alias: switched, switched back, and tidied up for good.

Three things can change hands: the collection behind an alias, the vector that serves in a collection, and the query
adapter. Guarantees: one atomic operation each (of the alias, or of the metadata), after the last writes were copied.
Each function may be killed and called again. Does not know: how what takes over was built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from qdrant_tools.client.gateway import Gateway
from qdrant_tools.collections.adapters import forget_adapters
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.identity import PROMOTION_KEY, RETIRED_KEY, identity_of
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import CollectionMetadata, metadata_of
from qdrant_tools.collections.retirement import (
    WriteLock,
    accept_writes,
    mark_retired,
    successor_of,
)
from qdrant_tools.errors import CollectionError
from qdrant_tools.promotion.in_place import count_missing, drop_vector, fill
from qdrant_tools.promotion.plan import (
    PromotionState,
    read_state,
    remove_state,
    save_state,
    serving_collection,
)
from qdrant_tools.promotion.sync import SyncReport, differences, sync
from qdrant_tools.records import Encoder

logger = logging.getLogger(__name__)


Carry = Callable[[Callable[[], None]], SyncReport]
"""Copies the last writes; what it is given is to be called often."""


def switch_collection(
    manager: CollectionManager, alias: str, source: Collection, target: Collection, encoder: Encoder
) -> SyncReport:
    """Copy the last writes and switch the alias from one collection to the other.

    For the time of one pass over the collection, `index_passages` into it is refused; searches go on.

    Raises:
        CollectionError: the alias was pointed elsewhere meanwhile, and stays there.
    """
    return _hand_over(
        manager, alias, source.name, target.name, lambda beat: sync(source, target, encoder, heartbeat=beat)
    )


def _hand_over(manager: CollectionManager, alias: str, source: str, target: str, carry: Carry) -> SyncReport:
    report, lock = SyncReport(), WriteLock(manager.client, source, successor=target)
    # A pass counts only if the lock has held from its beginning until the mark for good: a write came in otherwise.
    while not lock.held:
        lock.acquire()
        report += carry(lock.renew)
        # Killed from here on, the old collection takes no writes until the next call: what it took would be lost if
        # the alias moves, and nobody can tell whether it still will.
        mark_retired(manager.client, source, successor=target)
    accept_writes(manager.client, target)
    serving = manager.aliases().get(alias)
    if serving != source:
        accept_writes(manager.client, source)
        raise _moved(alias, f"not to {source!r} any more, but to {serving!r}: nothing was switched")
    manager.switch_alias(alias, target)
    serving = manager.aliases().get(alias)
    if serving != target:
        raise _moved(alias, f"to {serving!r} right after it was switched to {target!r}, and stays there")
    return report


def _moved(alias: str, where: str) -> CollectionError:
    return CollectionError(
        f"alias {alias!r} was changed by somebody else meanwhile, it points {where}; agree who promotes it, look at "
        "what it serves (embed-plus collection list), and plan again"
    )


def finish_switch(manager: CollectionManager, serving: str) -> None:
    """Do what is left after the alias points to a collection: retire the old one, and keep that it was switched."""
    state = read_state(manager, serving)
    if state is not None and state.kind == "re-embed" and state.phase != "switched":
        if state.source in manager.names():
            mark_retired(manager.client, state.source, successor=serving)
        save_state(manager, replace(state, phase="switched"))


def switch_vector(target: Collection, state: PromotionState, carry: Carry) -> SyncReport:
    """Let the vector that `target` names serve in its collection, and keep `state`: one update of the metadata.

    `carry` gives points that lack the vector theirs, while `index_passages` into the collection is refused.
    """
    report, lock = SyncReport(), WriteLock(target.client, target.name, successor=f"{target.name} ({target.space})")
    # as above: a pass counts only if the lock has held all the time
    while not lock.held:
        lock.acquire()
        report += carry(lock.renew)
    # One update for all three: which vector serves, how far the promotion is, and that writes are taken again.
    target.gateway.update(metadata={**target.metadata.for_qdrant(), PROMOTION_KEY: asdict(state), RETIRED_KEY: {}})
    return report


def switch_adapter(serving: Collection, adapter: str | None, state: PromotionState | None) -> None:
    """Let a query adapter serve and keep the state of its promotion, if there is one: one update of the metadata."""
    metadata = replace(serving.metadata, adapter=adapter)
    serving.gateway.update(metadata={**metadata.for_qdrant(), PROMOTION_KEY: {} if state is None else asdict(state)})


def rollback(
    manager: CollectionManager, alias: str, *, encoder: Encoder | None = None, force: bool = False
) -> SyncReport:
    """Let the alias serve again what it served before the last switch.

    With the old `encoder`, what was written since is copied back first. Without it, the rollback is refused if anything
    was written, unless `force`.

    Raises:
        CollectionError: nothing was switched, the old collection is gone, or there is something to copy back.
    """
    serving = manager.open(serving_collection(manager, alias))
    state = read_state(manager, serving.name)
    if state is None or state.alias != alias:
        raise CollectionError(f"alias {alias!r} was not switched by a promotion, or that was cleaned up: no way back")
    if state.kind == "in-place":
        return _roll_back_vector(serving, state, encoder, force=force)
    if state.kind == "adapter":
        switch_adapter(serving, state.before, None)
        return SyncReport()
    return _roll_back_collection(manager, serving, state, encoder, force=force)


def cleanup(manager: CollectionManager, alias: str) -> list[str]:
    """Drop what the promotions of this alias have left and does not serve; returns the names of what was dropped.

    After a switch that is the old collection (in place: the old vector), and there is no rollback any more. Before one
    it is the new collection (in place: the new vector). Only a collection with the id that the promotion has kept is
    dropped: another one of that name, here after a restored snapshot or made since, is left with a warning.
    """
    serving = serving_collection(manager, alias)
    # A state is kept in its target. Elsewhere, as in the snapshot of a stranger, it says nothing about others.
    states = [
        state
        for name in manager.names()
        if (state := read_state(manager, name)) and state.alias == alias and state.target == name
    ]
    in_place = next((state for state in states if state.kind == "in-place" and state.target == serving), None)
    if in_place is not None:
        return _drop_unused_vector(manager, in_place)
    dropped = _dropped_collections(manager, states, serving)
    # The state goes last: a cleanup that was killed finds by it what is still to be dropped.
    if any(state.target == serving for state in states):
        remove_state(manager, serving)
    # a killed switch may have left its mark on the collection that serves
    accept_writes(manager.client, serving)
    return [*dropped, *forget_adapters(manager.client, _adapters_in_use(manager))]


def _dropped_collections(manager: CollectionManager, states: Sequence[PromotionState], serving: str) -> list[str]:
    names = manager.names()
    ids = {name: identity_of(manager.client, name) for name in {serving, *_named_by(states)} & set(names)}

    def is_one(name: str, identity: str) -> bool:
        return bool(identity) and ids.get(name) == identity

    replaced = {
        state.source: state
        for state in states
        if is_one(state.target, state.target_id)
        and is_one(state.source, state.source_id)
        and successor_of(manager.client, state.source) == state.target
    }
    known = {ids[name] for name in (serving, *replaced)}
    unused = {
        state.target for state in states if is_one(state.target, state.target_id) and state.source_id in known
    } - {serving, *replaced}
    # another alias may still serve one of them
    served = set(manager.aliases().values())
    # A cleanup that was killed finds what is left by what is left: what was built first, and then from the oldest on.
    dropped = [name for name in [*sorted(unused), *_oldest_first(replaced)] if name not in served]
    for name in dropped:
        manager.drop(name)
    for name in sorted(_named_by(states) & set(names) - served - {serving, *dropped}):
        logger.warning(
            "collection %r is left: nothing proves that it is the one of that name that a promotion of %r made or "
            "replaced; drop it (embed-plus collection drop) if nobody needs it",
            name,
            states[0].alias,
        )
    return sorted(dropped)


def _named_by(states: Sequence[PromotionState]) -> set[str]:
    return {name for state in states for name in (state.source, state.target)}


def _oldest_first(replaced: Mapping[str, PromotionState]) -> list[str]:
    """Collections in the order in which they served; each maps to the state of what took its place."""
    order: list[str] = []
    for name in sorted(replaced):
        chain = []
        while name in replaced and name not in order and name not in chain:
            chain.append(name)
            name = replaced[name].target
        at = order.index(name) if name in order else len(order)
        order[at:at] = chain
    return order


def _adapters_in_use(manager: CollectionManager) -> set[str]:
    """The builds of all adapters that serve in a collection, are about to, or that a rollback goes back to."""
    used: list[str | None] = []
    for name in manager.names():
        info = Gateway(manager.client, name).info()
        metadata, state = metadata_of(info), read_state(manager, name)
        used.append(None if metadata is None else metadata.adapter)
        if state is not None:
            former = CollectionMetadata.from_row(state.former).adapter if state.former else None
            used += (state.adapter, state.before, former)
    return {build for build in used if build is not None}


def _roll_back_collection(
    manager: CollectionManager, serving: Collection, state: PromotionState, encoder: Encoder | None, *, force: bool
) -> SyncReport:
    if state.source not in manager.names():
        raise CollectionError(f"collection {state.source!r}, which served {state.alias!r} before, is gone: no way back")
    old = manager.open(state.source, encoder)

    def carry(heartbeat: Callable[[], None]) -> SyncReport:
        if encoder is not None:
            return sync(serving, old, encoder, heartbeat=heartbeat)
        missing = 0 if force else differences(serving, old, heartbeat=heartbeat).differences
        if missing:
            accept_writes(manager.client, serving.name)
            raise CollectionError(
                f"{missing} points of {serving.name!r} were written or deleted since {old.name!r} served: give the "
                f"encoder of {old.name!r}, to carry this back, or force to serve without it"
            )
        return SyncReport()

    report = _hand_over(manager, state.alias, serving.name, old.name, carry)
    save_state(manager, replace(state, phase="built", verification={}))
    return report


def _roll_back_vector(
    serving: Collection, state: PromotionState, encoder: Encoder | None, *, force: bool
) -> SyncReport:
    if state.phase != "switched":
        raise CollectionError(f"{state.alias!r} was not switched to vector {state.vector!r} yet: nothing to roll back")
    old = Collection(serving.client, serving.name, CollectionMetadata.from_row(state.former))
    if encoder is not None:
        old.check(encoder)

    def carry(heartbeat: Callable[[], None]) -> SyncReport:
        if encoder is not None:
            return fill(old, encoder, heartbeat=heartbeat)
        missing = 0 if force else count_missing(old)
        if missing:
            accept_writes(old.client, old.name)
            raise CollectionError(
                f"{missing} points of {old.name!r} have no vector of {old.space!r}, which served before: give its "
                "encoder, to embed them, or force to serve without them"
            )
        return SyncReport()

    return switch_vector(old, replace(state, phase="built", verification={}, former={}), carry)


def _drop_unused_vector(manager: CollectionManager, state: PromotionState) -> list[str]:
    serving = manager.open(state.target)
    switched = state.phase == "switched"
    vector = CollectionMetadata.from_row(state.former).layout.vector if switched else state.vector
    unused = replace(serving.metadata, layout=replace(serving.layout, vector=vector))
    dropped = drop_vector(replace(serving, metadata=unused))
    remove_state(manager, state.target)
    accept_writes(manager.client, state.target)
    return [f"{state.target} (vector {vector!r})"] if dropped else []
