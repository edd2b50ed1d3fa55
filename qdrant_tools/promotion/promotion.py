"""An alias, and a new encoder -> the alias serves the new encoder's vectors, without a moment in which it serves none.

`plan` -> `build` (embed the stored texts into a new collection beside the old one) -> `verify` -> `switch` (one atomic
alias operation) -> `rollback` or `cleanup`. What is written meanwhile goes on into the old collection and is carried
over; see `carry` and `retirement`. Where the disk has no room for a second collection, the new vectors are kept beside
the old ones in the collection that serves; see `in_place`. An encoder that differs only by its query adapter needs
neither: switching writes the adapter's build into the metadata of the collection that serves.

Guarantees: until `switch`, the old vectors serve untouched; each step may be killed at any moment and called again,
from any machine, and goes on from what is stored. Does not know: how encoders are made. A writer that does not use
`index_passages` must be stopped for `switch`, or its last writes may stay behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.copying import copy_indexes, create_like
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.retirement import retire_for_good
from qdrant_tools.collections.settings import dense_params
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import CollectionError, CollectionExistsError, UsageError
from qdrant_tools.promotion.in_place import add_vector, as_seen_by, fill, has_vector, missing, vector_name
from qdrant_tools.promotion.plan import (
    KEY,
    DiskNeed,
    Kind,
    Phase,
    PromotionPlan,
    PromotionState,
    adapter_of,
    disk_need,
    read_state,
    refusal_of,
    source_of,
)
from qdrant_tools.promotion.switch import cleanup, hand_over, rollback, switch_in_place, write_adapter
from qdrant_tools.promotion.sync import Carried, carry
from qdrant_tools.promotion.verify import Gates, Verification, verify_copy, verify_in_place, verify_queries
from qdrant_tools.records import Encoder, HeldOut, Progress

__all__ = [
    "BuildReport",
    "DiskNeed",
    "Promotion",
    "PromotionPlan",
    "adapter_of",
    "cleanup",
    "hand_over",
    "rollback",
]

PASSES = 10
"""Passes after which `build` stops although writes go on: `switch` carries over the rest."""


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

    def __init__(
        self,
        manager: CollectionManager,
        alias: str,
        encoder: Encoder,
        *,
        target: str | None = None,
        in_place: bool = False,
    ) -> None:
        """With `in_place` the collection that serves gets a second vector, and `alias` may be its own name; what was
        begun so goes on so. Otherwise `target` names the new collection."""
        if in_place and target is not None:
            raise UsageError(
                f"target is {target!r}, but a promotion in place makes no collection: leave one of them out"
            )
        self.manager = manager
        self.alias = alias
        self.encoder = encoder
        self.in_place = in_place
        self.adapter = adapter_of(encoder)
        self.refusal = refusal_of(encoder)
        self.target = target or f"{alias}-{encoder.space.rpartition('@')[2]}"

    def plan(self) -> PromotionPlan:
        """Say what is to be done; changes nothing.

        Raises:
            CollectionError: the name is a collection and no alias, the target's name is taken, or another promotion of
                this collection is not cleaned up.
        """
        source = self.manager.open(source_of(self.manager, self.alias, in_place=self.in_place))
        own = read_state(self.manager, source.name)
        kind = self._kind(source, own)
        target = source.name if kind != "re-embed" else self.target
        _refuse_pending(self.alias, kind, vector_name(self.encoder.space), own)
        state = own
        if kind == "re-embed":
            state = read_state(self.manager, target) if target in self.manager.names() else None
            self._refuse_taken(state)
        re_embeds = kind in ("re-embed", "in-place")
        return PromotionPlan(
            alias=self.alias,
            source=source.name,
            target=target,
            kind=kind,
            from_space=source.space,
            to_space=self.encoder.space,
            adapter=self.adapter,
            points=self.manager.describe(source.name).points,
            phase=self._phase(kind, state),
            vector=vector_name(self.encoder.space) if kind == "in-place" else "",
            refusal=self.refusal,
            disk=disk_need(self.manager, source.name, self.encoder.dimension) if re_embeds else None,
        )

    def build(self, *, batch_size: int = 256, progress: Progress | None = None, force: bool = False) -> BuildReport:
        """Embed what is not yet embedded, until a pass finds nothing left, and build the index.

        `progress` receives the points of each page; beside the old collection, those that were there already included.

        Raises:
            CollectionError: the encoder says that it should not serve; `force` builds nevertheless.
            NotSupportedError: in place, on a server older than 1.18.
        """
        plan = self.plan()
        self._refuse_unfit(plan, force=force)
        if plan.kind == "in-place":
            return self._build_in_place(plan, batch_size=batch_size, progress=progress)
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

    def verify(
        self, gates: Gates | None = None, *, held_out: HeldOut | None = None, before: Encoder | None = None
    ) -> Verification:
        """Check what was built; `switch` requires it.

        `held_out` queries are measured with the new encoder and with `before`, the one that serves now.

        Raises:
            CollectionError: nothing was built yet.
        """
        plan, gates = self.plan(), gates or Gates()
        source = self.manager.open(plan.source)
        if plan.kind == "nothing":
            raise CollectionError(f"alias {self.alias!r} serves {self.encoder.space!r} already: nothing to verify")
        if plan.kind == "adapter":
            found = verify_queries(source, self.encoder, gates, held_out, before)
        else:
            _refuse_unbuilt(plan)
            if plan.kind == "in-place":
                target = as_seen_by(source, self.encoder)
                found = verify_in_place(source, target, self.encoder, gates, held_out, before)
            else:
                target = self.manager.open(plan.target)
                found = verify_copy(source, target, self.encoder, gates, held_out, before)
        phase: Phase = "verified" if found.passed else "built"
        replace(self._state(plan, phase), verification=found.as_row()).save(self.manager)
        return found

    def switch(self, *, force: bool = False) -> Carried:
        """Let the alias serve the new encoder: one atomic operation, after carrying over the last writes.

        Switching again is no error. `force` switches what did not pass `verify`, or what its training says should not
        serve, but never what was not built.

        Raises:
            CollectionError: not built, not verified, or refused by the encoder itself.
        """
        plan = self.plan()
        if plan.kind == "nothing":
            self._finish_switch(plan.source)
            return Carried()
        if plan.kind != "adapter":
            _refuse_unbuilt(plan)
        self._refuse_unfit(plan, force=force)
        if plan.phase != "verified" and not force:
            failed = self._failed_checks(plan.target)
            raise CollectionError(f"collection {plan.target!r} has not passed verify() ({failed}): fix that, or force")
        if plan.kind == "adapter":
            write_adapter(self.manager, plan.source, self.adapter, state=vars(self._state(plan, "switched")))
            return Carried()
        source = self.manager.open(plan.source)
        if plan.kind == "in-place":
            target = as_seen_by(source, self.encoder)
            return switch_in_place(target, self._state(plan, "verified"), self.encoder, source.metadata)
        target = self.manager.open(plan.target, self.encoder)
        carried = hand_over(self.manager, self.alias, source, target, self.encoder)
        self._finish_switch(plan.target)
        return carried

    def _kind(self, source: Collection, state: PromotionState | None) -> Kind:
        if source.space == self.encoder.space:
            return "nothing" if source.adapter == self.adapter else "adapter"
        begun = state is not None and state.kind == "in-place" and state.phase != "switched"
        return "in-place" if self.in_place or begun else "re-embed"

    def _phase(self, kind: Kind, state: PromotionState | None) -> Phase | None:
        """How far this promotion is; what was verified with another adapter is not."""
        if state is None or state.alias != self.alias:
            return None
        if state.adapter != self.adapter:
            return None if kind == "adapter" else "built" if state.phase == "verified" else state.phase
        return state.phase

    def _build_in_place(self, plan: PromotionPlan, *, batch_size: int, progress: Progress | None) -> BuildReport:
        source = self.manager.open(plan.source)
        target = as_seen_by(source, self.encoder)
        if plan.phase is None:
            if has_vector(target):
                raise CollectionExistsError(
                    f"collection {source.name!r} has a vector {plan.vector!r} that is not part of this promotion"
                )
            self._state(plan, "building").save(self.manager)
        add_vector(source, target)
        done = fill(target, self.encoder, batch_size=batch_size, progress=progress)
        build_index(target)
        if plan.phase != "verified" or done.differences:
            self._state(plan, "built").save(self.manager)
        return BuildReport(target.name, done.written, 0, 1, not missing(target))

    def _refuse_unfit(self, plan: PromotionPlan, *, force: bool) -> None:
        if plan.refusal is not None and plan.kind != "nothing" and not force:
            raise CollectionError(
                f"{self.alias!r} keeps its encoder: {plan.refusal}; promote something better, or force"
            )

    def _refuse_taken(self, state: PromotionState | None) -> None:
        taken = self.target in self.manager.names() or self.target in self.manager.aliases()
        if taken and (state is None or state.alias != self.alias):
            raise CollectionExistsError(
                f"{self.target!r} is there already and not part of this promotion: drop it, or give another target"
            )

    def _begun(self, plan: PromotionPlan) -> Collection:
        """The target, made if it is not there. A target that is not built yet says so from its first moment."""
        source = self.manager.open(plan.source)
        info = source.gateway.info()
        if plan.phase is None:
            params = dense_params(info, source.layout.vector)
            if params is None:
                raise CollectionError(f"collection {plan.source!r} has no vector {source.layout.vector!r}")
            resized = params.model_copy(update={"size": self.encoder.dimension})
            described = replace(
                source.metadata, space=self.encoder.space, dimension=self.encoder.dimension, adapter=self.adapter
            )
            row = self._state(plan, "building")
            metadata = {**described.for_qdrant(), KEY: vars(row)}
            create_like(
                self.manager.client, plan.target, info, metadata=metadata, dense={source.layout.vector: resized}
            )
        else:
            copy_indexes(self.manager.client, plan.target, info)
        return self.manager.open(plan.target, self.encoder)

    def _state(self, plan: PromotionPlan, phase: Phase) -> PromotionState:
        before = self.manager.open(plan.source).adapter if plan.kind == "adapter" else None
        return PromotionState(
            self.alias, plan.source, plan.target, plan.kind, phase, self.adapter, before, vector=plan.vector
        )

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


def _refuse_unbuilt(plan: PromotionPlan) -> None:
    if plan.phase in (None, "building"):
        what = f"vector {plan.vector!r} of collection" if plan.kind == "in-place" else "collection"
        raise CollectionError(f"{what} {plan.target!r} is not built yet: call build() first")


def _refuse_pending(alias: str, kind: Kind, vector: str, state: PromotionState | None) -> None:
    """One promotion at a time: the state of another one must not be written over."""
    if state is None or kind == "nothing" or state.kind == kind == "adapter":
        return
    same = state.kind == kind == "in-place" and state.vector == vector and state.phase != "switched"
    left_behind = state.kind == "re-embed" and kind == "adapter"
    if left_behind or ("in-place" in (state.kind, kind) and not same):
        raise CollectionError(
            f"collection {state.target!r} is in another promotion of {state.alias!r} ({state.kind}, {state.phase}): "
            f"end that one with cleanup, or undo it with rollback, before {alias!r} gets another encoder"
        )
