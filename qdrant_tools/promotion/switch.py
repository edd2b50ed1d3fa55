"""Who serves an alias: handed over, handed back, and tidied up for good.

Guarantees: one atomic operation each (of the alias, or of the metadata where one collection keeps serving), after the
last writes were carried over; each may be killed and called again. Does not know: how what takes over was built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import CollectionMetadata
from qdrant_tools.collections.retirement import Lease, retire_for_good, unretire
from qdrant_tools.errors import CollectionError
from qdrant_tools.promotion.in_place import drop_vector, missing, serve
from qdrant_tools.promotion.plan import KEY, PromotionState, read_state, source_of, states_of, write_state
from qdrant_tools.promotion.sync import Carried, carry, differences
from qdrant_tools.records import Encoder


def rollback(manager: CollectionManager, alias: str, *, encoder: Encoder | None = None, force: bool = False) -> Carried:
    """Let the alias serve again what it served before the last switch.

    With the old `encoder`, what was written since is carried back first. Without it, the rollback is refused if
    anything was, unless `force`.

    Raises:
        CollectionError: nothing was switched, the old collection is gone, or there is something to carry back.
    """
    serving = manager.open(source_of(manager, alias))
    state = read_state(manager, serving.name)
    if state is None or state.alias != alias:
        raise CollectionError(f"alias {alias!r} was not switched by a promotion, or that was cleaned up: no way back")
    if state.kind == "in-place":
        return _roll_back_in_place(serving, state, encoder, force=force)
    if state.kind == "adapter":
        write_adapter(manager, serving.name, state.before, state={})
        return Carried()
    if state.source not in manager.names():
        raise CollectionError(f"collection {state.source!r}, which served {alias!r} before, is gone: no way back")
    old = manager.open(state.source, encoder)
    if encoder is not None:
        carried = hand_over(manager, alias, serving, old, encoder)
    else:
        left = differences(serving, old).differences
        if left and not force:
            raise CollectionError(
                f"{left} points of {serving.name!r} are not in {old.name!r}, which served before: give the encoder "
                "that filled it, to carry them back, or force to serve without them"
            )
        carried = Carried()
        unretire(manager.client, old.name)
        manager.switch_alias(alias, old.name)
    retire_for_good(manager.client, serving.name, successor=old.name)
    replace(state, phase="built", verification={}).save(manager)
    return carried


def cleanup(manager: CollectionManager, alias: str) -> list[str]:
    """Drop what the promotions of this alias have left and does not serve; the names of what was dropped.

    After a switch that is the old collection (in place: the old vector), and there is no rollback any more; before one,
    the new collection (in place: the new vector).
    """
    serving = source_of(manager, alias)
    states = states_of(manager, alias)
    in_place = next((each for each in states if each.kind == "in-place" and each.target == serving), None)
    if in_place is not None:
        return _clean_up_in_place(manager, in_place)
    left = {name for state in states for name in (state.source, state.target)} - {serving}
    served = set(manager.aliases().values())
    dropped = sorted(name for name in left if name in manager.names() and name not in served)
    for name in dropped:
        manager.drop(name)
    if any(state.target == serving for state in states):
        write_state(manager, serving, {})
    unretire(manager.client, serving)
    return dropped


def hand_over(
    manager: CollectionManager, alias: str, source: Collection, target: Collection, encoder: Encoder
) -> Carried:
    """Carry the last writes over and switch the alias from one collection to the other.

    For the time of one pass over the collection, `index_passages` into it is refused; searches go on.
    """
    carried, lease = Carried(), Lease(manager.client, source.name, successor=target.name)
    while not lease.held:
        lease.take()
        carried += carry(source, target, encoder, alive=lease.renew)
    unretire(manager.client, target.name)
    manager.switch_alias(alias, target.name)
    retire_for_good(manager.client, source.name, successor=target.name)
    return carried


def switch_in_place(target: Collection, state: PromotionState, encoder: Encoder, former: CollectionMetadata) -> Carried:
    """Let the vector that was filled serve: one update of the metadata, after embedding what was written last."""
    row = replace(state, phase="switched", former=former.as_row())
    return serve(target, encoder, {KEY: asdict(row)})


def _roll_back_in_place(serving: Collection, state: PromotionState, encoder: Encoder | None, *, force: bool) -> Carried:
    if state.phase != "switched":
        raise CollectionError(f"{state.alias!r} was not switched to vector {state.vector!r} yet: nothing to roll back")
    old = Collection(serving.client, serving.name, CollectionMetadata.from_row(state.former))
    if encoder is not None:
        old.check(encoder)
    left = missing(old)
    if left and encoder is None and not force:
        raise CollectionError(
            f"{left} points of {old.name!r} have no vector of {old.space!r}, which served before: give its encoder, "
            "to embed them, or force to serve without them"
        )
    return serve(old, encoder, {KEY: asdict(replace(state, phase="built", verification={}, former={}))})


def _clean_up_in_place(manager: CollectionManager, state: PromotionState) -> list[str]:
    serving = manager.open(state.target)
    former = CollectionMetadata.from_row(state.former) if state.phase == "switched" else None
    vector = state.vector if former is None else former.layout.vector
    unused = replace(serving.metadata, layout=replace(serving.layout, vector=vector))
    dropped = drop_vector(replace(serving, metadata=unused))
    write_state(manager, state.target, {})
    unretire(manager.client, state.target)
    return [f"{state.target} (vector {vector!r})"] if dropped else []


def write_adapter(manager: CollectionManager, name: str, adapter: str | None, *, state: Mapping[str, Any]) -> None:
    """Name the adapter that serves and keep the state of its promotion, in one step."""
    collection = manager.open(name)
    metadata = replace(collection.metadata, adapter=adapter)
    collection.gateway.update(metadata={**metadata.for_qdrant(), KEY: dict(state)})
