"""An alias and a new encoder -> the alias serves the new encoder's vectors, without a moment in which it serves none.

`plan` -> `build` (embed the stored texts into a new collection beside the old one) -> `verify` -> `switch` (one atomic
alias operation) -> `rollback` or `cleanup`. What is written meanwhile goes into the old collection, and `sync` copies
it. Where the disk has no room for a second collection, the new vectors are kept beside the old ones in the collection
that serves; see `in_place`. An encoder that differs only by its query adapter needs neither: switching writes the
adapter's build into the metadata of the collection that serves.

Guarantees: until `switch`, the old vectors serve untouched. Each step may be killed at any moment and called again,
from any machine, and goes on from what is stored. Does not know: how encoders are made. A writer that does not use
`index_passages` must be stopped for `switch`, or its last writes may stay behind.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace

from qdrant_tools.collections.adapters import keep_adapter
from qdrant_tools.collections.collection import Collection, check_encoder
from qdrant_tools.collections.copying import copy_indexes, create_like
from qdrant_tools.collections.identity import IDENTITY_KEY, PROMOTION_KEY, given_identity, new_identity
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import dense_params
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import CollectionError, CollectionExistsError, NotSupportedError, UsageError
from qdrant_tools.promotion.in_place import add_vector, count_missing, fill, fill_changed, has_vector, with_vector_of
from qdrant_tools.promotion.plan import (
    Phase,
    PromotionPlan,
    PromotionSnapshot,
    PromotionState,
    read_promotion,
    save_state,
)
from qdrant_tools.promotion.switch import (
    cleanup,
    finish_switch,
    rollback,
    switch_adapter,
    switch_collection,
    switch_vector,
)
from qdrant_tools.promotion.sync import SyncReport, sync
from qdrant_tools.promotion.verify import (
    Gates,
    Verification,
    accepted_proof,
    only_if_accepted,
    verify_copy,
    verify_in_place,
    verify_queries,
)
from qdrant_tools.records import Encoder, HeldOut, Progress
from qdrant_tools.search.adapters import adapter_of
from qdrant_tools.sources.windows import window_encoder
from qdrant_tools.validation import checked_text

PASSES = 10
"""Passes after which `build` stops although writes go on: `switch` copies the rest."""


@dataclass(frozen=True)
class BuildReport:
    """What `build` did. `complete` says that its last pass found nothing left to do."""

    target: str
    written: int
    deleted: int
    passes: int
    complete: bool


def check_promotable(encoder: Encoder) -> None:
    """Raise `NotSupportedError` for an encoder that reads passages with those around them, and what is no encoder."""
    check_encoder(encoder)
    if window_encoder(encoder) is not None:
        raise NotSupportedError(
            f"{encoder.space!r} embeds passages with the document around them (late chunking), and a promotion "
            "embeds what is stored one by one: index the documents into a new collection and switch the alias to it"
        )


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
        """`target` names the new collection; by default its name is made of the alias and the encoder's space.

        With `in_place` the collection that serves gets a second vector instead, and `alias` may be its own name. What
        was begun in place goes on in place, also without `in_place`.

        Raises:
            NotSupportedError: an encoder that reads passages with those around them (late chunking). A promotion
                embeds what is stored one by one.
        """
        if in_place and target is not None:
            raise UsageError(
                f"target is {target!r}, but a promotion in place makes no collection: leave one of them out"
            )
        check_promotable(encoder)
        self.manager = manager
        self.alias = checked_text("alias", alias)
        self.encoder = encoder
        self.in_place = in_place
        # the hash of the space: the same encoder finds its collection again, another one gets its own
        self.target = target or f"{alias}-{encoder.space.rpartition('@')[2]}"

    def plan(self) -> PromotionPlan:
        """Say what is to be done; changes nothing.

        Raises:
            CollectionError: the name is a collection and no alias, the target's name is taken, or another promotion of
                this collection is not cleaned up.
        """
        return self._read().plan

    def build(
        self,
        *,
        batch_size: int = 256,
        progress: Progress | None = None,
        force: bool = False,
        accept_synthetic: bool = False,
    ) -> BuildReport:
        """Embed what is not yet embedded, until a pass finds nothing left, and build the index.

        `progress` receives the points of each page; beside the old collection, those that were there already included.

        Raises:
            CollectionError: the encoder says that it should not serve; `force` builds nevertheless, and
                `accept_synthetic` what was proved on synthetic queries only.
            NotSupportedError: in place, on a server older than 1.18.
        """
        snapshot = self._read()
        self._refuse_unfit(snapshot.plan, force=force, accept_synthetic=accept_synthetic)
        if snapshot.plan.kind == "re-embed":
            target = self._begin_copy(snapshot)
            report = self._sync_copy(snapshot.source, target, batch_size=batch_size, progress=progress)
        elif snapshot.plan.kind == "in-place":
            target = self._begin_vector(snapshot)
            filled = fill(target, self.encoder, batch_size=batch_size, progress=progress)
            filled += fill_changed(target, self.encoder, batch_size=batch_size)
            report = BuildReport(target.name, filled.written, 0, 1, not count_missing(target))
        else:
            return BuildReport(snapshot.plan.target, 0, 0, 0, True)
        build_index(target)
        # Only now "built": a kill before this line leaves "building", and the next call finds little to do.
        # What was verified stays so if nothing has changed since.
        if snapshot.plan.phase != "verified" or report.written or report.deleted:
            save_state(self.manager, self._with_ids(snapshot.state_at("built")))
        return report

    def verify(
        self,
        gates: Gates | None = None,
        *,
        held_out: HeldOut | None = None,
        before: Encoder | None = None,
        accept_synthetic: bool = False,
    ) -> Verification:
        """Check what was built; `switch` requires it.

        `held_out` queries are measured with the new encoder and with `before`, the one that serves now. With
        `accept_synthetic` they may be synthetic, and a query adapter that its training proved on such queries needs
        none.

        Raises:
            CollectionError: nothing was built yet.
        """
        snapshot, gates = self._read(), gates or Gates()
        plan, source = snapshot.plan, snapshot.source
        if plan.kind == "nothing":
            raise CollectionError(f"alias {self.alias!r} serves {self.encoder.space!r} already: nothing to verify")
        _refuse_unbuilt(plan)
        if plan.kind == "adapter" and plan.only_synthetic and accept_synthetic and held_out is None and before is None:
            verification = accepted_proof(source)
        elif plan.kind == "adapter":
            verification = verify_queries(source, self.encoder, gates, held_out, before)
        elif plan.kind == "in-place":
            target = with_vector_of(source, self.encoder)
            verification = verify_in_place(source, target, self.encoder, gates, held_out, before)
        else:
            target = self.manager.open(plan.target)
            verification = verify_copy(source, target, self.encoder, gates, held_out, before)
        verification = only_if_accepted(verification, held_out, accept_synthetic=accept_synthetic)
        # a check that fails also takes an earlier "verified" back
        phase: Phase = "verified" if verification.passed else "built"
        save_state(self.manager, snapshot.state_at(phase, verification=verification.as_row()))
        return verification

    def switch(self, *, force: bool = False, accept_synthetic: bool = False) -> SyncReport:
        """Let the alias serve the new encoder: copy the last writes, then one atomic operation.

        Switching again is no error. `force` switches what did not pass `verify`, or what its training says should not
        serve, but never what was not built. `accept_synthetic` switches what its training proved on synthetic queries
        only.

        Raises:
            CollectionError: not built, not verified, or refused by the encoder itself.
        """
        snapshot = self._read()
        plan, source = snapshot.plan, snapshot.source
        if plan.kind == "nothing":
            # restored from a snapshot, or promoted by an earlier version, the adapter may not be kept here yet
            keep_adapter(self.manager.client, self.encoder)
            # a switch that was killed right after the alias operation is completed here
            finish_switch(self.manager, plan.source)
            return SyncReport()
        _refuse_unbuilt(plan)
        self._refuse_unfit(plan, force=force, accept_synthetic=accept_synthetic)
        if plan.next_step != "switch" and not force:
            failed = "it was not called" if snapshot.state is None else snapshot.state.failed_checks
            raise CollectionError(f"collection {plan.target!r} has not passed verify ({failed})").with_way_out(
                python="call verify() and mend what it names, or force",
                command=f"promote verify {shlex.quote(self.alias)} --model MODEL (or --force)",
            )
        # before the alias serves it: whoever opens the alias then has to find it
        keep_adapter(self.manager.client, self.encoder)
        if plan.kind == "adapter":
            switch_adapter(source, plan.adapter, snapshot.state_at("switched"))
            return SyncReport()
        if plan.kind == "in-place":
            former = source.metadata.as_row()
            target = with_vector_of(source, self.encoder)
            return switch_vector(
                target,
                replace(snapshot.state_at("switched"), former=former),
                lambda beat: fill(target, self.encoder, heartbeat=beat),
            )
        target = self.manager.open(plan.target, self.encoder)
        report = switch_collection(self.manager, self.alias, source, target, self.encoder)
        finish_switch(self.manager, plan.target)
        return report

    def rollback(self, *, encoder: Encoder | None = None, force: bool = False) -> SyncReport:
        """Let the alias serve again what it served before the switch; see `rollback`."""
        return rollback(self.manager, self.alias, encoder=encoder, force=force)

    def cleanup(self) -> list[str]:
        """Drop what does not serve; returns the names of what was dropped. See `cleanup`."""
        return cleanup(self.manager, self.alias)

    def _read(self) -> PromotionSnapshot:
        return read_promotion(self.manager, self.alias, self.encoder, target=self.target, in_place=self.in_place)

    def _begin_copy(self, snapshot: PromotionSnapshot) -> Collection:
        """The new collection, made if it is not there."""
        plan, source = snapshot.plan, snapshot.source
        info = source.gateway.info()
        if plan.phase is not None:
            # an earlier call may have been killed after it made the collection and before its indexes
            copy_indexes(self.manager.client, plan.target, info)
            if plan.phase == "building":
                save_state(self.manager, self._with_ids(snapshot.state_at("building")))
            return self.manager.open(plan.target, self.encoder)
        params = dense_params(info, source.layout.vector)
        if params is None:
            raise CollectionError(f"collection {plan.source!r} has no vector {source.layout.vector!r}")
        resized = params.model_copy(update={"size": self.encoder.dimension})
        metadata = replace(
            source.metadata,
            space=self.encoder.space,
            dimension=self.encoder.dimension,
            adapter=adapter_of(self.encoder),
            # the same words, whose stems are made here and now
            lexical=None if source.lexical is None else replace(source.lexical, stemmed_by=None),
        )
        # "building" is in the metadata from the first moment: a half-filled collection is never taken for a whole one
        source_id, target_id = given_identity(self.manager.client, plan.source), new_identity()
        building = replace(snapshot.state_at("building"), source_id=source_id, target_id=target_id)
        state = {PROMOTION_KEY: asdict(building), IDENTITY_KEY: target_id}
        create_like(
            self.manager.client,
            plan.target,
            info,
            metadata={**metadata.for_qdrant(), **state},
            dense={source.layout.vector: resized},
        )
        return self.manager.open(plan.target, self.encoder)

    def _with_ids(self, state: PromotionState) -> PromotionState:
        """With the ids of the two collections: `cleanup` drops nothing that only has their names."""
        if state.kind != "re-embed":
            return state
        source, target = (given_identity(self.manager.client, name) for name in (state.source, state.target))
        return replace(state, source_id=source, target_id=target)

    def _sync_copy(
        self, source: Collection, target: Collection, *, batch_size: int, progress: Progress | None
    ) -> BuildReport:
        # the 1 is a made-up difference, so that the first pass is always made
        total, passes, last = SyncReport(), 0, SyncReport(written=1)
        while last.differences and passes < PASSES:
            last = sync(source, target, self.encoder, batch_size=batch_size, progress=progress)
            total, passes = total + last, passes + 1
        return BuildReport(target.name, total.written, total.deleted, passes, not last.differences)

    def _begin_vector(self, snapshot: PromotionSnapshot) -> Collection:
        """The collection that serves with the new vector as its own, which is added if it is not there."""
        plan, source = snapshot.plan, snapshot.source
        target = with_vector_of(source, self.encoder)
        if plan.phase is None:
            if has_vector(target):
                raise CollectionExistsError(
                    f"collection {source.name!r} has a vector {plan.vector!r} that is not part of this promotion"
                )
            # before the vector is there: after a kill in between, the next call knows that the vector is ours
            save_state(self.manager, snapshot.state_at("building"))
        add_vector(source, target)
        return target

    def _refuse_unfit(self, plan: PromotionPlan, *, force: bool, accept_synthetic: bool) -> None:
        if plan.refusal is None or plan.kind == "nothing" or force or (plan.only_synthetic and accept_synthetic):
            return
        way_out = "prove it on other queries (embed-plus prove), promote something better, or force"
        if plan.only_synthetic:
            way_out = "prove it on real queries, or accept that (accept_synthetic, --accept-synthetic)"
        raise CollectionError(f"{self.alias!r} keeps its encoder: {plan.refusal}; {way_out}")


def _refuse_unbuilt(plan: PromotionPlan) -> None:
    if plan.next_step == "build":
        subject = f"vector {plan.vector!r} of collection" if plan.kind == "in-place" else "collection"
        raise CollectionError(f"{subject} {plan.target!r} is not built yet").with_way_out(
            python="call build() first", command=f"promote build {shlex.quote(plan.alias)} --model MODEL"
        )
