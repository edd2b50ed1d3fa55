"""A client -> its collections: made, opened, adopted, changed, described and dropped; and their aliases.

A collection keeps its space (the identity of its vectors) in Qdrant's collection metadata. Every encoder that comes to
it is checked against that: another model with the same dimension is an error here, not a silent loss of quality.

Guarantees: `ensure` is idempotent, also when two processes call it at once. An alias is resolved when a collection is
opened, and the handle stays with that collection. Does not know: how texts become vectors.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import Gateway, aliases_of, engine_errors, metadata_in
from qdrant_tools.client.replicas import raise_replicas
from qdrant_tools.collections.adapters import ADAPTERS, keep_adapter, serving_encoder
from qdrant_tools.collections.adopt import check_samples, choose_vector, detect_layout
from qdrant_tools.collections.collection import Collection, check_encoder
from qdrant_tools.collections.copying import INCOMPLETE
from qdrant_tools.collections.identity import IDENTITY_KEY, new_identity
from qdrant_tools.collections.metadata import (
    LARGEST_DIMENSION,
    UNKNOWN_SPACE,
    CollectionMetadata,
    Layout,
    SearchChoice,
    metadata_of,
)
from qdrant_tools.collections.settings import (
    CHOSEN,
    FIXED,
    CollectionSettings,
    PayloadKind,
    seen_otherwise,
    update_options,
)
from qdrant_tools.collections.status import CollectionDescription, describe
from qdrant_tools.errors import (
    CollectionError,
    CollectionExistsError,
    CollectionNotFoundError,
    EngineError,
    InputError,
    NotSupportedError,
    VectorError,
    listed,
)
from qdrant_tools.fields import Field, values_at
from qdrant_tools.records import Encoder
from qdrant_tools.search.adapters import adapter_of
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.hybrid import say_caution
from qdrant_tools.search.options import refuse_paths
from qdrant_tools.validation import brief, checked_text

logger = logging.getLogger(__name__)


class CollectionManager:
    """Creates, opens, describes and drops the collections behind one client."""

    def __init__(self, client: QdrantClient) -> None:
        self.client = client

    def ensure(self, name: str, encoder: Encoder | int, *, settings: CollectionSettings | None = None) -> Collection:
        """Open the collection, or create it, for an encoder or for vectors of a dimension. It keeps the encoder.

        A collection that was made for a dimension belongs to no encoder: vectors go in and out, texts do not. While it
        is empty, the first encoder that comes with `ensure` makes it its own; once it holds points, `adopt` does.
        If the collection is there, `settings` that differ from its own are changed in place. One that has the words of
        an earlier version keeps them, with a warning, unless `lexical` names others.

        Raises:
            SpaceMismatchError: it is there, and another encoder filled it.
            VectorError: it is there, and has another dimension.
            InputError: neither an encoder nor a whole number from 1 to 65536.
            CollectionError: a setting differs that cannot be changed in place (the distance, lexical vectors, the
                datatype, the number of shards).
            NotSupportedError: this engine has no such setting.
        """
        # a whole number of numpy is no `int`, and would be taken for an encoder
        if isinstance(encoder, np.integer):
            encoder = int(encoder)
        if not isinstance(encoder, int):
            check_encoder(encoder, "an encoder or a dimension")
        if not isinstance(settings, CollectionSettings | None):
            raise InputError(f"settings is {brief(settings)}, expected CollectionSettings")
        if not self._exists(name):
            try:
                self._create(name, encoder, settings or CollectionSettings())
            except (EngineError, CollectionExistsError):
                if not self._exists(name):  # otherwise another process has just made it
                    raise
        collection = self.open(name) if isinstance(encoder, int) else self._claimed(name, encoder)
        if isinstance(encoder, int) and collection.dimension != encoder:
            raise VectorError(
                f"collection {name!r} holds {collection.dimension}-dimensional vectors, not {encoder}-dimensional ones"
            )
        if settings is None:
            return collection
        return self._apply(collection, _with_chosen(settings, self.describe(collection.name)))

    def open(self, name: str, encoder: Encoder | None = None) -> Collection:
        """Open by name or alias. The collection keeps the encoder, if it comes with one of its space.

        Where a query adapter was promoted, it keeps that encoder with this adapter: searches are what was promoted. An
        encoder that brings an adapter of its own is kept as it is, and a warning names both if they differ. For
        exactly one encoder, take `with_encoder`. An open collection does not change: open it again after a switch.

        Raises:
            CollectionNotFoundError: no such collection; the message lists those there are.
            CollectionError: the collection was not made by this package, or the adapter that is kept here is not the
                one that was promoted.
            SpaceMismatchError: another encoder filled it.
        """
        if encoder is not None:
            check_encoder(encoder)
        # by its own name from here on: an open handle does not move when the alias is switched
        real_name = self.resolve(name)
        info = Gateway(self.client, real_name).info()
        metadata = metadata_of(info)
        if metadata is None:
            raise CollectionError(
                f"collection {name!r} does not say which encoder filled it (written by another program?)"
            ).with_way_out(
                python="adopt it by CollectionManager(client).adopt(name, encoder), with the encoder that did (or, if "
                "it is empty, that will), or index its texts into a new collection",
                command=f"collection adopt {shlex.quote(name)} --model MODEL, with the model that did (or, if it is "
                "empty, that will); or index its texts into a new collection",
            )
        collection = Collection(self.client, real_name, metadata)
        if encoder is None:
            return collection
        collection.check(encoder)
        return replace(collection, encoder=serving_encoder(self.client, real_name, metadata, encoder))

    def adopt(
        self,
        name: str,
        encoder: Encoder,
        *,
        layout: Layout | None = None,
        samples: int = 32,
        similarity: float = 0.99,
    ) -> Collection:
        """Make a collection that another program filled one of ours, if this encoder made its vectors.

        `samples` stored texts are embedded again; 9 of 10 must have a cosine of at least `similarity` to their stored
        vectors. `layout` says where the vector and the text are, if that is not to be detected. The collection can
        then be searched and mined; the program that filled it goes on filling it. One of few vectors is searched
        exactly from then on, see `choose_search`. An empty one gets our own layout, and is filled by `index_passages`.

        Raises:
            InputError: `encoder` is not an encoder.
            CollectionError: it has an encoder already, is a copy that is not whole, or no text can be found in it.
            VectorError: none of its vectors has the encoder's dimension.
            SpaceMismatchError: the stored vectors are not this encoder's.
        """
        from qdrant_tools.search.choosing import keep_search

        check_encoder(encoder)
        real_name = self.resolve(name)
        info = Gateway(self.client, real_name).info()
        before = metadata_of(info)
        if before is not None and before.space != UNKNOWN_SPACE:
            raise CollectionError(
                f"collection {name!r} already says which encoder filled it, {before.space!r}"
            ).with_way_out(
                python="open it with that encoder",
                command=f"search {shlex.quote(name)} 'a question' --model MODEL searches it, with that model",
            )
        if metadata_in(info).get(INCOMPLETE):
            raise CollectionError(f"collection {name!r} is a copy that was interrupted: copy it again, or drop it")
        vector = choose_vector(name, info, encoder.dimension, None if layout is None else layout.vector)
        layout = layout or detect_layout(self.client, real_name, vector)
        layout = check_samples(self.client, real_name, encoder, layout, samples=samples, similarity=similarity)
        # settings of a collection that was made for a dimension are kept
        unclaimed = before or CollectionMetadata(UNKNOWN_SPACE, 0)
        metadata = replace(unclaimed, space=encoder.space, dimension=encoder.dimension, layout=layout)
        Gateway(self.client, real_name).update(metadata=metadata.for_qdrant())
        adopted = self.open(real_name, encoder)
        keep_search(adopted)
        return adopted

    def change(self, name: str, settings: CollectionSettings) -> Collection:
        """Change the settings of a collection in place. Errors as in `ensure`."""
        return self._apply(self.open(name), settings)

    def difference(self, name: str, settings: CollectionSettings) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, the value in `settings`), for those that `ensure` would change.

        `:memory:` has no settings but the distance, `hnsw_ef` and `lexical`; the others differ from nothing there.
        """
        described = self.describe(name)
        return self._difference(described.settings, _with_chosen(settings, described))

    def _difference(
        self, current: CollectionSettings | None, settings: CollectionSettings
    ) -> dict[str, tuple[Any, Any]]:
        changes = {} if current is None else current.difference(_or_earlier_words(settings, current.lexical))
        if settings.shards == CollectionSettings.shards:
            changes.pop("shards", None)  # not said: what a cluster makes
        if engine_of(self.client) == "memory":
            changes = {
                field: change for field, change in changes.items() if field in ("distance", "hnsw_ef", "lexical")
            }
        return changes

    def describe(self, name: str) -> CollectionDescription:
        """What the engine and the metadata say about a collection, also one that another program made."""
        return describe(self.client, self.resolve(name), aliases=self.aliases())

    def drop(self, name: str) -> None:
        """Delete a collection and its points. One that an alias points to is refused: switch or drop the alias."""
        if checked_text("collection name", name) in self.aliases():
            raise CollectionError(f"{name!r} is an alias of {self.resolve(name)!r}: drop the alias or that collection")
        real_name = self.resolve(name)
        serving = [alias for alias, target in self.aliases().items() if target == real_name]
        if serving:
            raise CollectionError(f"collection {name!r} serves alias {serving[0]!r}").with_way_out(
                python="switch or drop the alias first",
                command=f"collection alias {serving[0]} OTHER points the alias at another collection first",
            )
        Gateway(self.client, real_name).drop()

    def names(self) -> list[str]:
        """The collections; not the one in which the adapters are kept that serve here."""
        with engine_errors("list collections"):
            names = (collection.name for collection in self.client.get_collections().collections)
            return sorted(name for name in names if name != ADAPTERS)

    def aliases(self) -> dict[str, str]:
        """Alias -> collection."""
        return aliases_of(self.client)

    def switch_alias(self, alias: str, target: str) -> None:
        """Point an alias at a collection in one atomic step; the alias is made if it is new."""
        _refuse_reserved(checked_text("alias", alias))
        if alias in self.names():
            raise CollectionExistsError(f"{alias!r} is the name of a collection, so it cannot be an alias")
        real_target = self.resolve(target)
        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=real_target, alias_name=alias)
        )
        # This moves an alias that is there. A server applies the operations of one request one by one: with a removal
        # before it, the alias would be gone where the target is.
        with engine_errors(f"switch alias {alias!r} to {real_target!r}"):
            self.client.update_collection_aliases([create])

    def drop_alias(self, alias: str) -> None:
        removal = self._alias_removal(alias)
        if not removal:
            raise CollectionNotFoundError(f"no alias {brief(alias)}; aliases here: {_listed(self.aliases())}")
        with engine_errors(f"drop alias {alias!r}"):
            self.client.update_collection_aliases(removal)

    def resolve(self, name: str) -> str:
        """The collection's own name, for a name or an alias."""
        checked_text("collection name", name)
        names = self.names()
        if name in names:
            return name
        aliases = self.aliases()
        if name in aliases:
            return aliases[name]
        raise CollectionNotFoundError(f"no collection {brief(name)}; collections here: {_listed([*names, *aliases])}")

    def _exists(self, name: str) -> bool:
        checked_text("collection name", name)
        return name in self.names() or name in self.aliases()

    def _alias_removal(self, alias: str) -> list[models.DeleteAliasOperation]:
        if alias not in self.aliases():
            return []
        return [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))]

    def _claimed(self, name: str, encoder: Encoder) -> Collection:
        """Open for this encoder; one that has none yet and is empty becomes this encoder's."""
        collection = self.open(name)
        unclaimed = collection.space == UNKNOWN_SPACE and collection.dimension == encoder.dimension
        # with points in it somebody has to compare their vectors first: `adopt` does
        if unclaimed and not collection.gateway.count():
            collection.gateway.update(metadata=replace(collection.metadata, space=encoder.space).for_qdrant())
        return self.open(name, encoder)

    def _create(self, name: str, encoder: Encoder | int, settings: CollectionSettings) -> None:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"collection name is {brief(name)}, expected a non-empty string")
        _refuse_reserved(name)
        space, dimension = (UNKNOWN_SPACE, encoder) if isinstance(encoder, int) else (encoder.space, encoder.dimension)
        if isinstance(dimension, bool) or not 1 <= dimension <= LARGEST_DIMENSION:
            raise InputError(f"dimension is {dimension!r}, expected a whole number from 1 to {LARGEST_DIMENSION}")
        metadata = settings.metadata(space, dimension)
        if not isinstance(encoder, int):
            # made for an encoder with an adapter, it serves with that
            metadata = replace(metadata, adapter=adapter_of(encoder))
            keep_adapter(self.client, encoder)
        self._refuse_unusable(settings)
        options = settings.create_options(dimension)
        Gateway(self.client, name).create(**options, metadata={**metadata.for_qdrant(), IDENTITY_KEY: new_identity()})

    def _refuse_unusable(self, settings: CollectionSettings) -> None:
        if engine_of(self.client) == "memory" and settings.beyond_memory:
            raise NotSupportedError(
                f"':memory:' has no {', '.join(settings.beyond_memory)}: leave the default, or use a folder or a server"
            )

    def _apply(self, collection: Collection, settings: CollectionSettings) -> Collection:
        self._refuse_unusable(settings)
        changes = self._difference(self.describe(collection.name).settings, settings)
        if collection.lexical is not None and settings.lexical != collection.lexical and "lexical" not in changes:
            say_caution(collection.name, collection.lexical)
        if "lexical" in changes and collection.lexical is None:
            raise CollectionError(f"collection {collection.name!r} was made without words").with_way_out(
                python="add them with Collection.add_lexical(bm25), then give these settings",
                command=f"collection add-lexical {shlex.quote(collection.name)}",
            )
        for fixed in FIXED:
            if fixed in changes:
                raise CollectionError(
                    f"collection {collection.name!r} was made with {fixed} {changes[fixed][0]!r}, which cannot be "
                    f"changed to {changes[fixed][1]!r}: give the former, or index into a new collection"
                )
        if "replicas" in changes and changes["replicas"][1] < changes["replicas"][0]:
            raise NotSupportedError(
                f"collection {collection.name!r} has {changes['replicas'][0]} replicas: none is dropped here, because "
                "which node gives up its copy is for who runs the cluster to say"
            )
        # no part of the request below: payload indexes are made and dropped one by one
        indexes = changes.pop("payload_indexes", None)
        if indexes is not None:
            refuse_paths(collection, indexes[1].keys() - indexes[0].keys())
            for field, kind in indexes[1].items():
                if indexes[0].get(field) != kind:
                    _warn_of_hidden(collection, field, kind, indexed=field in indexes[0])
        if "replicas" in changes and engine_of(self.client) == "server":
            # before the setting says so: where it fails, it is begun again
            raise_replicas(self.client, collection.name, settings.replicas)
        if changes:
            metadata = replace(
                collection.metadata,
                hnsw_ef=settings.hnsw_ef,
                quantization=settings.quantization,
                search=_told(collection.metadata.search, changes),
            )
            options = update_options(settings, changes, vector=collection.layout.vector)
            collection.gateway.update(**options, metadata=metadata.for_qdrant())
        if indexes is not None:
            self._change_indexes(collection, *indexes)
        return self.open(collection.name, collection.encoder)

    def _change_indexes(
        self, collection: Collection, present: Mapping[Field, str], settings: Mapping[Field, Any]
    ) -> None:
        for name in present.keys() - settings.keys():
            collection.gateway.drop_payload_index(collection.layout.metadata_field(name))
        for name, kind in settings.items():
            if present.get(name) != kind:
                field = collection.layout.metadata_field(name)
                collection.gateway.index_payload(field, models.PayloadSchemaType(kind))


def _warn_of_hidden(collection: Collection, field: Field, kind: PayloadKind, *, indexed: bool) -> None:
    """Log a value that is there and that an index of this kind will keep filters from finding, if there is one.

    `indexed`: there is an index of another kind, and conditions see only what that has.
    """
    layout = collection.layout
    path = layout.metadata_field(field)
    there = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=path))])
    numbers = models.FieldCondition(key=path, range=models.Range(gte=-sys.float_info.max))
    times = models.FieldCondition(key=path, range=models.DatetimeRange(gte=datetime.min.replace(tzinfo=UTC)))
    among: dict[PayloadKind, list[models.Condition]] = {
        "integer": [numbers, times],
        "float": [times],
        "datetime": [numbers],
        "uuid": [there],
    }
    if kind not in among:
        return
    looked_at = there if indexed else models.Filter(should=among[kind])
    # engines return no single place of a list, so the whole field is read
    name = layout.metadata_field(field if isinstance(field, str) else field[:1])
    try:
        for records in collection.gateway.pages(batch_size=512, with_payload=[name], scroll_filter=looked_at):
            for record in records:
                payload = record.payload or {}
                for value in values_at(payload.get(layout.metadata) or {} if layout.metadata else payload, field):
                    if (why := seen_otherwise(kind, value)) is not None:
                        logger.warning(
                            "a passage of %r has %s in metadata field %s, and %s",
                            *(collection.name, brief(value), brief(field), why),
                        )
                        return
    except EngineError as error:  # a server's strict mode may refuse to look where no index is
        logger.debug("the values of %s are not looked at: %s", brief(field), error)


def _refuse_reserved(name: str) -> None:
    if name == ADAPTERS:
        raise InputError(f"{name!r} is where the query adapters that serve are kept: give another name")


def _told(search: SearchChoice | None, changes: Mapping[str, tuple[Any, Any]]) -> SearchChoice | None:
    """Who sets `hnsw_ef` has said how to search."""
    return SearchChoice(told=True) if "hnsw_ef" in changes else search


def _with_chosen(settings: CollectionSettings, described: CollectionDescription) -> CollectionSettings:
    """The settings with what was chosen for the collection, in place of defaults that nobody has asked for."""
    if described.search is None or described.search.told or described.settings is None:
        return settings
    usual = CollectionSettings()
    unsaid = [name for name in CHOSEN if getattr(settings, name) == getattr(usual, name)]
    return replace(settings, **{name: getattr(described.settings, name) for name in unsaid})


def _or_earlier_words(settings: CollectionSettings, present: Bm25 | None) -> CollectionSettings:
    if settings.lexical is None or present is None:
        return settings
    return replace(settings, lexical=settings.lexical.or_earlier(present))


def _listed(names: Iterable[str]) -> str:
    return listed(sorted(names)) or "none"
