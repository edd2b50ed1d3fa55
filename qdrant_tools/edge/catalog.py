"""The client's methods on collections, aliases, indexes and named vectors, over an `Engine`.

Guarantees: names and settings are checked as on a server before anything changes; alias operations are applied all or
none. Does not know: points, files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import qdrant_edge as qe
from pydantic import ValidationError
from qdrant_client.client_base import QdrantBase
from qdrant_client.conversions import common_types as types
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import (
    DONE,
    check_name,
    check_options,
    check_vector_name,
    json_payload,
    member,
)
from qdrant_tools.edge.convert.config import LARGEST_VECTOR, NO_VECTORS, collection_info, merged_settings, with_vectors
from qdrant_tools.edge.convert.payload_index import engine_index
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import CollectionExistsError, CollectionNotFoundError, InputError
from qdrant_tools.validation import brief


class CatalogMethods(QdrantBase):
    """The methods of `QdrantBase` on a collection as a whole."""

    engine: Engine

    def create_collection(
        self,
        collection_name: str,
        vectors_config: types.VectorParams | Mapping[str, types.VectorParams] | None = None,
        sparse_vectors_config: Mapping[str, types.SparseVectorParams] | None = None,
        metadata: types.Payload | None = None,
        **settings: Any,
    ) -> bool:
        check_name(collection_name)
        for name in (*(vectors_config if isinstance(vectors_config, Mapping) else ()), *(sparse_vectors_config or ())):
            check_vector_name(name)
        if "" in (sparse_vectors_config or ()):
            raise InputError("a sparse vector needs a name: '' is the unnamed dense vector")
        settings.pop("timeout", None)  # nothing to wait for
        try:
            config = models.CreateCollection(
                vectors=vectors_config,  # type: ignore[arg-type]
                sparse_vectors=dict(sparse_vectors_config) if sparse_vectors_config else None,
                metadata=json_payload(metadata) if metadata is not None else None,
                **settings,
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"collection settings: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        self.engine.create(collection_name, config)
        return True

    def recreate_collection(self, collection_name: str, *args: Any, **settings: Any) -> bool:
        self.engine.drop(collection_name)  # False if there is none: nothing to do
        return self.create_collection(collection_name, *args, **settings)

    def update_collection(self, collection_name: str, **changes: Any) -> bool:
        changes.pop("timeout", None)
        changes = {name: value for name, value in changes.items() if value is not None}
        collection = self.engine.collection(collection_name)

        # a function, not the settings: another thread may change the metadata before it is applied
        def change(settings: models.CreateCollection) -> models.CreateCollection:
            return merged_settings(settings, changes, collection.name)

        if changes.keys() - {"metadata"}:  # the engine does not know the metadata: only other settings need a reload
            with collection.building:
                collection.reload(change(collection.settings))
                self.engine.save_settings(collection, change)
        else:
            self.engine.save_settings(collection, change)
        return True

    def delete_collection(self, collection_name: str, **options: Any) -> bool:
        check_options(options)
        return self.engine.drop(collection_name)

    def collection_exists(self, collection_name: str, **options: Any) -> bool:
        check_options(options)
        try:
            self.engine.resolve(collection_name)
        except CollectionNotFoundError:
            return False
        return True

    def get_collections(self, **options: Any) -> types.CollectionsResponse:
        check_options(options)
        names = [models.CollectionDescription(name=name) for name in self.engine.names()]
        return models.CollectionsResponse(collections=names)

    def get_collection(self, collection_name: str, **options: Any) -> types.CollectionInfo:
        check_options(options)
        collection = self.engine.collection(collection_name)
        building = self.engine.builds.running(collection)
        return collection_info(collection.settings, collection.info(), building=building)

    # -- aliases

    def update_collection_aliases(
        self, change_aliases_operations: Sequence[types.AliasOperations], **options: Any
    ) -> bool:
        """Apply all operations or none, in one replacement of the manifest."""
        check_options(options)

        def change(aliases: dict[str, str]) -> dict[str, str]:
            for operation in change_aliases_operations:
                self._change_alias(aliases, operation)
            return aliases

        self.engine.change_aliases(change)
        return True

    def _change_alias(self, aliases: dict[str, str], operation: Any) -> None:
        names = self.engine.names()
        if isinstance(operation, models.CreateAliasOperation):
            alias, target = operation.create_alias.alias_name, operation.create_alias.collection_name
            if target not in names:
                raise CollectionNotFoundError(f"Collection {target} not found: an alias must point to one")
            _refuse_taken(alias, names)
            aliases[alias] = target
        elif isinstance(operation, models.DeleteAliasOperation):
            aliases.pop(operation.delete_alias.alias_name, None)
        elif isinstance(operation, models.RenameAliasOperation):
            old, new = operation.rename_alias.old_alias_name, operation.rename_alias.new_alias_name
            if old not in aliases:
                raise CollectionNotFoundError(f"Alias {old} does not exist; aliases here: {sorted(aliases)}")
            _refuse_taken(new, names)
            aliases[new] = aliases.pop(old)
        else:
            raise InputError(f"expected an alias operation, got {brief(operation)}")

    def get_aliases(self, **options: Any) -> types.CollectionsAliasesResponse:
        check_options(options)
        aliases = self.engine.aliases().items()
        rows = [models.AliasDescription(alias_name=alias, collection_name=target) for alias, target in aliases]
        return models.CollectionsAliasesResponse(aliases=rows)

    def get_collection_aliases(self, collection_name: str, **options: Any) -> types.CollectionsAliasesResponse:
        name = self.engine.resolve(collection_name)
        rows = [row for row in self.get_aliases(**options).aliases if row.collection_name == name]
        return models.CollectionsAliasesResponse(aliases=rows)

    # -- indexes

    def create_payload_index(
        self,
        collection_name: str,
        field_name: str,
        field_schema: types.PayloadSchemaType | None = None,
        field_type: types.PayloadSchemaType | None = None,
        **options: Any,
    ) -> types.UpdateResult:
        check_options(options)
        schema = field_schema if field_schema is not None else field_type
        if schema is None:
            raise InputError(f"field_schema is needed to index '{field_name}', for example 'keyword'")
        collection = self.engine.collection(collection_name)
        with collection.call:
            operation = qe.UpdateOperation.create_field_index(field_name, engine_index(schema))
        collection.restructure(operation, indexes=1)
        return DONE

    def delete_payload_index(self, collection_name: str, field_name: str, **options: Any) -> types.UpdateResult:
        check_options(options)
        collection = self.engine.collection(collection_name)
        with collection.call:
            operation = qe.UpdateOperation.delete_field_index(field_name)
        collection.restructure(operation)
        return DONE

    def create_vector_name(
        self, collection_name: str, vector_name: str, vector_name_config: types.VectorNameConfig, **options: Any
    ) -> types.UpdateResult:
        check_options(options)
        check_vector_name(vector_name)
        collection = self.engine.collection(collection_name)
        if vector_name in collection.schema.dense or vector_name in collection.schema.sparse:
            raise InputError(f"{collection.schema.where(vector_name)} already exists")
        if isinstance(vector_name_config, models.DenseVectorNameConfig):
            dense = models.VectorParams(**vector_name_config.dense.model_dump(mode="json", exclude_none=True))
            operation = _dense_operation(vector_name, vector_name_config.dense)
            self._change_vectors(collection, operation, {vector_name: dense})
        else:
            sparse = sparse_params(vector_name_config.sparse)
            operation = _sparse_operation(vector_name, vector_name_config.sparse)
            self._change_vectors(collection, operation, {vector_name: sparse})
        return DONE

    def delete_vector_name(self, collection_name: str, vector_name: str, **options: Any) -> types.UpdateResult:
        check_options(options)
        collection = self.engine.collection(collection_name)
        collection.schema.require(vector_name)
        with collection.call:
            operation = qe.UpdateOperation.delete_vector_name(vector_name)
        self._change_vectors(collection, operation, {vector_name: None})
        return DONE

    def _change_vectors(
        self, collection: OpenCollection, operation: qe.UpdateOperation, changes: Mapping[str, Any]
    ) -> None:
        """Add vectors to, or remove them from (None), the shard and the settings."""
        with collection.building:  # no copy under the old settings may be on its way
            schema = collection.schema
            before = {*schema.dense, *schema.sparse}
            # the engine needs a vector: one that no point has stands in where there is no other
            if before == changes.keys():
                collection.restructure(qe.UpdateOperation.create_sparse_vector(NO_VECTORS))
            sizes = [params.size for params in changes.values() if isinstance(params, models.VectorParams)]
            collection.restructure(operation, numbers=sum(sizes))
            if not before:
                collection.restructure(qe.UpdateOperation.delete_vector_name(NO_VECTORS))
            self.engine.save_settings(collection, lambda settings: with_vectors(settings, changes))


def _dense_operation(name: str, config: models.DenseVectorConfig) -> qe.UpdateOperation:
    if not 1 <= config.size <= LARGEST_VECTOR:
        raise InputError(f"vector size {config.size} is invalid, expected 1 to {LARGEST_VECTOR}")
    multi = qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim) if config.multivector_config else None
    datatype = member(qe.VectorStorageDatatype, config.datatype)
    return qe.UpdateOperation.create_dense_vector(
        name, config.size, member(qe.Distance, config.distance), multi, datatype
    )


def _sparse_operation(name: str, config: models.SparseVectorConfig) -> qe.UpdateOperation:
    modifier = member(qe.Modifier, config.modifier) if config.modifier == models.Modifier.IDF else None
    return qe.UpdateOperation.create_sparse_vector(name, modifier, member(qe.VectorStorageDatatype, config.datatype))


def sparse_params(config: models.SparseVectorConfig) -> models.SparseVectorParams:
    """The setting of a sparse vector that is added later, in the form of those that a collection begins with."""
    index = models.SparseIndexParams(datatype=config.datatype) if config.datatype is not None else None  # type: ignore[arg-type]
    return models.SparseVectorParams(modifier=config.modifier, index=index)


def _refuse_taken(alias: str, names: Sequence[str]) -> None:
    check_name(alias)
    if alias in names:
        raise CollectionExistsError(f"Collection {alias} already exists: an alias needs another name")
