"""How far a promotion is and what its next step is: read from the collections, kept in their metadata.

`PromotionPlan` is what a promotion will do and what it takes. `PromotionState` is what was done, in the metadata of the
collection that is to take over, so that any machine that reaches the collections can go on with it or undo it.

Guarantees: planning only reads. Sizes are computed from counts, dimensions and files; missing figures are None.
Does not know: how the steps are done.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from qdrant_tools.client.connect import embedded_client
from qdrant_tools.client.gateway import Gateway, metadata_in
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.identity import PROMOTION_KEY
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.status import CollectionDescription
from qdrant_tools.errors import (
    CollectionError,
    CollectionExistsError,
    CollectionNotFoundError,
    InputError,
    brief,
    first_line,
)
from qdrant_tools.records import Encoder
from qdrant_tools.search.adapters import adapter_of
from qdrant_tools.validation import checked_number, checked_text

Kind = Literal["re-embed", "in-place", "adapter", "nothing"]
Phase = Literal["building", "built", "verified", "switched"]
Step = Literal["build", "verify", "switch", "done"]

NEXT_STEP: Mapping[Kind, Mapping[Phase | None, Step]] = {
    # phase:     nothing done     build was begun      build has ended    verify has passed     switched back by hand
    "re-embed": {None: "build", "building": "build", "built": "verify", "verified": "switch", "switched": "verify"},
    "in-place": {None: "build", "building": "build", "built": "verify", "verified": "switch", "switched": "verify"},
    "adapter": {None: "verify", "building": "verify", "built": "verify", "verified": "switch", "switched": "verify"},
    "nothing": {None: "done", "building": "done", "built": "done", "verified": "done", "switched": "done"},
}


@dataclass(frozen=True)
class Transition:
    """What takes over from what: `source` serves (or served) `alias`, and `target` is to.

    `kind` is "re-embed" (into the new collection `target`), "in-place" (into the new vector `vector` of the collection
    that serves), "adapter" (nothing is embedded) or "nothing". `target` is another collection than `source` for
    "re-embed" only. `adapter` is the build of the encoder's query adapter, if it has one.
    """

    alias: str
    source: str
    target: str
    kind: Kind
    adapter: str | None = None
    vector: str = ""


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that each way to re-embed adds, without the copy that an index build makes of what it builds.

    `beside` is a second collection: the files of the first, with vectors of the new size. `in_place` is the new vectors
    alone. `free` is what the disk of the embedded engine's folder has. A server tells neither files nor disk: there
    `beside` counts vectors alone, and `free` is None.
    """

    beside: int
    in_place: int
    free: int | None

    @property
    def scarce(self) -> bool:
        """Whether a second collection would not fit, so that re-embedding in place is the way."""
        return self.free is not None and self.beside > self.free


@dataclass(frozen=True, kw_only=True)
class PromotionPlan(Transition):
    """What a promotion will do. `phase` is how far an earlier run came, None if there was none.

    `refusal` is the reason why the encoder should not serve, if its training found one; `only_synthetic` says that it
    is only the want of real queries, which `accept_synthetic` overrides. `disk` is None where nothing is embedded.
    """

    from_space: str
    to_space: str
    points: int
    phase: Phase | None
    refusal: str | None = None
    only_synthetic: bool = False
    disk: DiskNeed | None = None

    @property
    def next_step(self) -> Step:
        return NEXT_STEP[self.kind][self.phase]


@dataclass(frozen=True, kw_only=True)
class PromotionState(Transition):
    """What was done. `verification` are the checks of the last `verify`.

    For the kind "adapter", `before` is the adapter that served. For the kind "in-place", after its switch, `former` is
    the metadata (a row) that the collection had while its old vector served. For the kind "re-embed", `source_id` and
    `target_id` are the ids of the two collections: those of the same names elsewhere, or later, are others.
    """

    phase: Phase
    before: str | None = None
    verification: Mapping[str, Any] = field(default_factory=dict)
    former: Mapping[str, Any] = field(default_factory=dict)
    source_id: str = ""
    target_id: str = ""

    @property
    def failed_checks(self) -> str:
        """The checks that did not pass, for a message."""
        if not self.verification:
            return "it was not called"
        return "; ".join(
            f"{check['name']} is {check['value']:.4g}"
            for check in _checks_in(self.verification)
            if not check.get("passed")
        )


@dataclass(frozen=True)
class PromotionSnapshot:
    """The collections of a promotion as they are now: read once per step, so that a step decides on one picture."""

    plan: PromotionPlan
    source: Collection
    state: PromotionState | None
    """What is kept of a promotion into `plan.target`, of this encoder's or of another one."""

    def state_at(self, phase: Phase, *, verification: Mapping[str, Any] | None = None) -> PromotionState:
        """The state to keep when the promotion has come to a phase."""
        plan, before = self.plan, self.state
        same = before is not None and before.source == plan.source and before.target == plan.target
        return PromotionState(
            alias=plan.alias,
            source=plan.source,
            target=plan.target,
            kind=plan.kind,
            adapter=plan.adapter,
            vector=plan.vector,
            phase=phase,
            before=self.source.adapter if plan.kind == "adapter" else None,
            verification=verification or {},
            source_id=before.source_id if before is not None and same else "",
            target_id=before.target_id if before is not None and same else "",
        )


def read_promotion(
    manager: CollectionManager, alias: str, encoder: Encoder, *, target: str, in_place: bool
) -> PromotionSnapshot:
    """Read what serves the alias, how far its promotion to this encoder is, and what it takes.

    Raises:
        CollectionError: the name is a collection and no alias, the target's name is taken, or another promotion of
            this collection is not cleaned up.
        CollectionNotFoundError: there is no such alias.
    """
    # Nothing of this is kept between steps: another machine may have gone on with the promotion meanwhile.
    source = manager.open(serving_collection(manager, alias, in_place=in_place))
    state = read_state(manager, source.name)
    kind = _kind(source, encoder, state, in_place=in_place)
    vector = vector_name(encoder.space) if kind == "in-place" else ""
    _refuse_another_promotion(alias, kind, vector, state)
    if kind == "re-embed":
        names = manager.names()
        state = read_state(manager, target) if target in names else None
        taken = target in names or target in manager.aliases()
        if taken and (state is None or state.alias != alias):
            raise CollectionExistsError(
                f"{target!r} is there already and not part of this promotion: drop it, or give another target"
            )
    description = manager.describe(source.name)
    plan = PromotionPlan(
        alias=alias,
        source=source.name,
        target=target if kind == "re-embed" else source.name,
        kind=kind,
        adapter=adapter_of(encoder),
        vector=vector,
        from_space=source.space,
        to_space=encoder.space,
        points=description.points,
        phase=_phase(alias, kind, adapter_of(encoder), state),
        refusal=refusal_of(encoder),
        only_synthetic=refusal_of(encoder) is not None and getattr(encoder, "only_synthetic", False) is True,
        disk=disk_need(source, description, encoder.dimension) if kind in ("re-embed", "in-place") else None,
    )
    return PromotionSnapshot(plan, source, state)


def serving_collection(manager: CollectionManager, alias: str, *, in_place: bool = False) -> str:
    """The collection that serves an alias. In place a collection is promoted under its own name as well.

    Raises:
        CollectionError: the name is a collection's own; the message says what to do once.
        CollectionNotFoundError: there is no such alias.
    """
    aliases = manager.aliases()
    if alias in aliases:
        return aliases[alias]
    if alias in manager.names():
        state = read_state(manager, alias)
        if in_place or (state is not None and state.kind == "in-place" and state.alias == alias):
            return alias
        raise CollectionError(
            f"{alias!r} is a collection, and only an alias can be switched: make one (embed-plus collection alias "
            f"{alias}-live {alias}), let every application open {alias}-live, and promote that; or promote in place "
            "(--in-place)"
        )
    raise CollectionNotFoundError(f"no alias {alias!r}; aliases here: {', '.join(sorted(aliases)) or 'none'}")


def read_state(manager: CollectionManager, name: str) -> PromotionState | None:
    """The promotion in which a collection is the target, if there is one."""
    row = metadata_in(Gateway(manager.client, name).info()).get(PROMOTION_KEY)
    # {} is a promotion that has ended: metadata is merged by key, and no key can be removed
    return _state_of(row, name) if row else None


def _state_of(row: Any, name: str) -> PromotionState:
    """The state in a row that `save_state` wrote. Raises `CollectionError` for one that somebody else did."""
    try:
        known = {item.name for item in fields(PromotionState)}
        needed = known - {"adapter", "vector", "before", "verification", "former", "source_id", "target_id"}
        if not isinstance(row, Mapping) or not needed <= row.keys() <= known:
            raise InputError(f"it is {brief(row)}, expected an object with {', '.join(sorted(known))}")
        for key in needed | {"vector", "source_id", "target_id"}:
            checked_text(key, row.get(key, ""))
        for key in ("adapter", "before"):
            checked_text(key, "" if row.get(key) is None else row[key])
        if row["kind"] not in NEXT_STEP or row["phase"] not in get_args(Phase):
            raise InputError(f"it is {brief(row['kind'])} and {brief(row['phase'])}, expected a kind and a phase")
        verification, former = row.get("verification", {}), row.get("former", {})
        if not isinstance(verification, Mapping) or not isinstance(former, Mapping):
            raise InputError(f"it has the checks {brief(verification)} and was {brief(former)}, expected objects")
        for check in _checks_in(verification):
            checked_text("check", check.get("name"))
            checked_number("its value", check.get("value"))
    except InputError as error:
        raise CollectionError(
            f"metadata {PROMOTION_KEY!r} of collection {name!r} was not written by this program: {first_line(error)}; "
            "correct it there"
        ) from error
    return PromotionState(**row)


def _checks_in(verification: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    checks = verification.get("checks", [])
    if not isinstance(checks, list) or not all(isinstance(check, Mapping) for check in checks):
        raise InputError(f"its checks are {brief(checks)}, expected a list of objects")
    return checks


def save_state(manager: CollectionManager, state: PromotionState) -> None:
    """Keep the state in the metadata of its target."""
    Gateway(manager.client, state.target).update(metadata={PROMOTION_KEY: asdict(state)})


def remove_state(manager: CollectionManager, name: str) -> None:
    """End the promotion in which a collection is the target: there is no way back any more."""
    Gateway(manager.client, name).update(metadata={PROMOTION_KEY: {}})


def disk_need(source: Collection, description: CollectionDescription, dimension: int) -> DiskNeed:
    """What re-embedding a collection into so many dimensions takes."""
    vectors = 0
    if description.dimension:
        # the bytes of one component, which the datatype decides, stay what they are
        vectors = (description.vector_bytes or 0) // description.dimension * dimension
    rest = max(0, (description.disk_bytes or 0) - (description.vector_bytes or 0))
    client = embedded_client(source.client)
    return DiskNeed(rest + vectors, vectors, None if client is None else shutil.disk_usage(client.folder).free)


def vector_name(space: str) -> str:
    """The name of the vector that an encoder of this space fills in place."""
    return f"v-{space.rpartition('@')[2]}"


def refusal_of(encoder: Encoder) -> str | None:
    """Why an encoder should not serve: its attribute `refusal`, if it has one."""
    refusal = getattr(encoder, "refusal", None)
    return refusal if isinstance(refusal, str) and refusal else None


def _kind(source: Collection, encoder: Encoder, state: PromotionState | None, *, in_place: bool) -> Kind:
    if source.space == encoder.space:
        return "nothing" if source.adapter == adapter_of(encoder) else "adapter"
    # what was begun in place goes on in place, whatever the caller says now
    begun = state is not None and state.kind == "in-place" and state.phase != "switched"
    return "in-place" if in_place or begun else "re-embed"


def _phase(alias: str, kind: Kind, adapter: str | None, state: PromotionState | None) -> Phase | None:
    if state is None or state.alias != alias:
        return None
    if state.adapter == adapter:
        return state.phase
    # The same model with another query adapter: the vectors that were built serve it as well, but it is not verified.
    if kind == "adapter":
        return None
    return "built" if state.phase == "verified" else state.phase


def _refuse_another_promotion(alias: str, kind: Kind, vector: str, state: PromotionState | None) -> None:
    """One promotion at a time: the state of another one must not be written over."""
    if state is None or kind == "nothing" or state.kind == kind == "adapter":
        return
    same = state.kind == kind == "in-place" and state.vector == vector and state.phase != "switched"
    # After a switch to a new collection its state says which one to roll back to. An adapter would write it over.
    loses_way_back = state.kind == "re-embed" and kind == "adapter"
    if loses_way_back or ("in-place" in (state.kind, kind) and not same):
        raise CollectionError(
            f"collection {state.target!r} is in another promotion of {state.alias!r} ({state.kind}, {state.phase}): "
            f"end that one with cleanup, or undo it with rollback, before {alias!r} gets another encoder"
        )
