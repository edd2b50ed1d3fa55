"""An alias, and a new encoder -> the alias serves the new encoder's vectors, without a moment in which it serves none.

`plan` -> `build` (embed the stored texts into a new collection beside the old one) -> `verify` -> `switch` (one atomic
alias operation) -> `rollback` or `cleanup`. What is written meanwhile goes on into the old collection and is carried
over; see `carry` and `retirement`. An encoder that differs only by its query adapter needs no new collection: switching
writes the adapter's build into the stamp of the one that serves.

Guarantees: until `switch`, the old collection serves untouched; each step may be killed at any moment and called again,
from any machine, and goes on from what is stored. Does not know: how encoders are made. A writer that does not use
`index_passages` must be stopped for `switch`, or its last writes may stay behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qdrant_tools.carry import Carried, carry, differences
from qdrant_tools.collection import CollectionManager, build_index
from qdrant_tools.copying import copy_indexes, create_like
from qdrant_tools.errors import CollectionError, CollectionExistsError
from qdrant_tools.handle import Collection
from qdrant_tools.promotion_state import (
    KEY,
    Kind,
    Phase,
    PromotionState,
    read_state,
    source_of,
    states_of,
    write_state,
)
from qdrant_tools.records import Encoder, Progress
from qdrant_tools.retirement import Lease, retire_for_good, unretire
from qdrant_tools.settings import dense_params
from qdrant_tools.stamp import Stamp
from qdrant_tools.translate import engine_errors
from qdrant_tools.verify import Gates, HeldOut, Verification, verify_copy, verify_queries

PASSES = 10
"""Passes after which `build` stops although writes go on: `switch` carries over the rest."""


@dataclass(frozen=True)
class PromotionPlan:
    """What a promotion will do. `phase` is how far an earlier run came, None if there was none."""

    alias: str
    source: str
    target: str
    kind: Kind
    from_space: str
    to_space: str
    adapter: str | None
    points: int
    phase: Phase | None


@dataclass(frozen=True)
class BuildReport:
    """What `build` did. `settled` says that its last pass found nothing left to do."""

    target: str
    written: int
    deleted: int
    passes: int
    settled: bool


class Promotion:
    """One alias on its way to one encoder. Make it again to go on: nothing is kept in this object."""

    def __init__(self, manager: CollectionManager, alias: str, encoder: Encoder, *, target: str | None = None) -> None:
        self.manager = manager
        self.alias = alias
        self.encoder = encoder
        self.adapter = adapter_of(encoder)
        self.target = target or f"{alias}-{encoder.space.rpartition('@')[2]}"

    def plan(self) -> PromotionPlan:
        """Say what is to be done; changes nothing.

        Raises:
            CollectionError: the name is a collection and no alias, or the target's name is taken.
        """
        source = self.manager.open(source_of(self.manager, self.alias))
        kind = self._kind(source)
        target = source.name if kind != "re-embed" else self.target
        state = read_state(self.manager, target) if target in self.manager.names() else None
        if kind == "re-embed":
            self._refuse_taken(state)
        points = self.manager.describe(source.name).points
        phase = state.phase if state is not None and state.alias == self.alias else None
        return PromotionPlan(
            self.alias, source.name, target, kind, source.space, self.encoder.space, self.adapter, points, phase
        )

    def build(self, *, batch_size: int = 256, progress: Progress | None = None) -> BuildReport:
        """Embed what is not yet embedded, until a pass finds nothing left, and build the index.

        `progress` receives the points of each page, those that were there already included.
        """
        plan = self.plan()
        if plan.kind != "re-embed":
            return BuildReport(plan.target, 0, 0, 0, True)
        source, target = self.manager.open(plan.source), self._begun(plan)
        done, passes, last = Carried(), 0, Carried(written=1)
        while last.differences and passes < PASSES:
            last = carry(source, target, self.encoder, batch_size=batch_size, progress=progress)
            done, passes = done + last, passes + 1
        build_index(target)
        if plan.phase != "verified" or done.differences:
            self._state(plan, "built").save(self.manager)
        return BuildReport(target.name, done.written, done.deleted, passes, not last.differences)

    def verify(self, gates: Gates | None = None, *, held_out: HeldOut | None = None) -> Verification:
        """Check what was built; what `switch` asks for.

        Raises:
            CollectionError: nothing was built yet.
        """
        plan, gates = self.plan(), gates or Gates()
        source = self.manager.open(plan.source)
        if plan.kind == "nothing":
            raise CollectionError(f"alias {self.alias!r} serves {self.encoder.space!r} already: nothing to verify")
        if plan.kind == "adapter":
            found = verify_queries(source, self.encoder, gates, held_out)
        else:
            if plan.phase in (None, "building"):
                raise CollectionError(f"collection {plan.target!r} is not built yet: call build() first")
            found = verify_copy(source, self.manager.open(plan.target), self.encoder, gates, held_out)
        phase: Phase = "verified" if found.passed else "built"
        replace(self._state(plan, phase), verification=found.as_row()).save(self.manager)
        return found

    def switch(self, *, force: bool = False) -> Carried:
        """Let the alias serve the new encoder: one atomic operation, after carrying over the last writes.

        Switching again is no error. `force` switches what did not pass `verify`, but never what was not built.

        Raises:
            CollectionError: not built, or not verified.
        """
        plan = self.plan()
        if plan.kind == "nothing":
            self._finish_switch(plan.source)
            return Carried()
        if plan.kind == "re-embed" and plan.phase in (None, "building"):
            raise CollectionError(f"collection {plan.target!r} is not built yet: call build() first")
        if plan.phase != "verified" and not force:
            failed = self._failed_checks(plan.target)
            raise CollectionError(f"collection {plan.target!r} has not passed verify() ({failed}): fix that, or force")
        if plan.kind == "adapter":
            _write_adapter(self.manager, plan.source, self.adapter, state=vars(self._state(plan, "switched")))
            return Carried()
        source, target = self.manager.open(plan.source), self.manager.open(plan.target, self.encoder)
        carried = hand_over(self.manager, self.alias, source, target, self.encoder)
        self._finish_switch(plan.target)
        return carried

    def _kind(self, source: Collection) -> Kind:
        if source.space != self.encoder.space:
            return "re-embed"
        return "nothing" if source.adapter == self.adapter else "adapter"

    def _refuse_taken(self, state: PromotionState | None) -> None:
        taken = self.target in self.manager.names() or self.target in self.manager.aliases()
        if taken and (state is None or state.alias != self.alias):
            raise CollectionExistsError(
                f"{self.target!r} is there already and not part of this promotion: drop it, or give another target"
            )

    def _begun(self, plan: PromotionPlan) -> Collection:
        """The target, made if it is not there. A target that is not built yet says so from its first moment."""
        source = self.manager.open(plan.source)
        with engine_errors(f"open collection {plan.source!r}"):
            info = self.manager.client.get_collection(plan.source)
        if plan.phase is None:
            params = dense_params(info, source.layout.vector)
            if params is None:
                raise CollectionError(f"collection {plan.source!r} has no vector {source.layout.vector!r}")
            resized = params.model_copy(update={"size": self.encoder.dimension})
            stamp = replace(
                source.stamp, space=self.encoder.space, dimension=self.encoder.dimension, adapter=self.adapter
            )
            row = self._state(plan, "building")
            metadata = {**stamp.as_metadata(), KEY: vars(row)}
            create_like(
                self.manager.client, plan.target, info, metadata=metadata, dense={source.layout.vector: resized}
            )
        else:
            copy_indexes(self.manager.client, plan.target, info)
        return self.manager.open(plan.target, self.encoder)

    def _state(self, plan: PromotionPlan, phase: Phase) -> PromotionState:
        before = self.manager.open(plan.source).adapter if plan.kind == "adapter" else None
        return PromotionState(self.alias, plan.source, plan.target, plan.kind, phase, self.adapter, before)

    def _failed_checks(self, target: str) -> str:
        state = read_state(self.manager, target)
        if state is None or not state.verification:
            return "it was not called"
        return "; ".join(
            f"{each['name']} is {each['found']:.4g}" for each in state.verification["checks"] if not each["passed"]
        )

    def _finish_switch(self, serving: str) -> None:
        """What a run that was killed right after the alias was switched has left undone."""
        state = read_state(self.manager, serving)
        if state is not None and state.kind == "re-embed" and state.phase != "switched":
            if state.source in self.manager.names():
                retire_for_good(self.manager.client, state.source, successor=serving)
            replace(state, phase="switched").save(self.manager)


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
    if state.kind == "adapter":
        _write_adapter(manager, serving.name, state.before, state={})
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

    After a switch that is the old collection, and there is no rollback any more; before one, the new collection.
    """
    serving = source_of(manager, alias)
    states = states_of(manager, alias)
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


def adapter_of(encoder: Encoder) -> str | None:
    """The build of the query adapter that an encoder carries as its `adapter`, if it has one."""
    build = getattr(getattr(encoder, "adapter", None), "build", None)
    return build if isinstance(build, str) else None


def _write_adapter(manager: CollectionManager, name: str, adapter: str | None, *, state: dict[str, object]) -> None:
    """Name the adapter that serves and keep the state of its promotion, in one step."""
    stamp: Stamp = replace(manager.open(name).stamp, adapter=adapter)
    with engine_errors(f"change the adapter of collection {name!r}"):
        manager.client.update_collection(name, metadata={**stamp.as_metadata(), KEY: state})
