"""The query adapters of a location, kept beside its collections: what was promoted is what serves, whoever asks.

`promote` keeps an adapter, and `CollectionManager.open` finds it there by the build that the collection's metadata
name: another process and another machine search as the one that promoted. They lie in a collection of their own,
without vectors: one point per adapter, `{"build", "space", "kind", "arrays": {name: {"shape", "data"}}}`, `data` being
little-endian float32 in base64.

Guarantees: an adapter is served only if its weights have the hash that the collection names and were fitted in the
collection's space; anything else is refused. Of two adapters that disagree nothing is chosen silently. Does not know:
how adapters are fitted, verified and switched.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5
from weakref import WeakKeyDictionary

import numpy as np
from qdrant_client import QdrantClient, models

from qdrant_tools.client.gateway import Gateway
from qdrant_tools.collections.metadata import CollectionMetadata, metadata_of
from qdrant_tools.errors import (
    CollectionError,
    CollectionExistsError,
    EngineError,
    InputError,
    PlusError,
    first_line,
)
from qdrant_tools.records import Encoder
from qdrant_tools.search.adapters import MAPS, Adapter, adapter_of, with_adapter
from qdrant_tools.validation import brief, checked_text

logger = logging.getLogger(__name__)

ADAPTERS = "embed-plus-adapters"
"""The collection that holds them. No collection of passages has this name, and none is listed with it."""
MOST_BYTES = 1 << 24
"""Of an adapter's weights: a full one of 2,048 dimensions. A larger one is opened by each application itself."""

_said: WeakKeyDictionary[QdrantClient, set[tuple[str, str | None, str | None]]] = WeakKeyDictionary()


def keep_adapter(client: QdrantClient, encoder: Encoder) -> None:
    """Keep the adapter of an encoder, if it has one, where every process that opens a collection finds it.

    What cannot be kept is no error, because the model can still be opened with it: a warning says so.
    """
    if adapter_of(encoder) is not None:
        _keep(client, getattr(encoder, "adapter", None))


def carry_adapter(source: QdrantClient, target: QdrantClient, metadata: CollectionMetadata | None) -> None:
    """Keep the adapter that serves a collection where the collection was copied to, if it is kept at its source."""
    if metadata is None or metadata.adapter is None:
        return
    adapter = kept_adapter(source, metadata.adapter, space=metadata.space, dimension=metadata.dimension)
    if adapter is not None:
        _keep(target, adapter)


def _keep(client: QdrantClient, adapter: Any) -> None:
    why = None
    if not isinstance(adapter, Adapter):
        why = f"it is no map of this program but {brief(adapter)}"
    elif sum(array.nbytes for array in adapter.map.arrays().values()) > MOST_BYTES:
        why = f"its weights have more than {MOST_BYTES:,} bytes"
    else:
        try:
            _store(client, adapter)
        except (EngineError, CollectionError, PermissionError) as error:
            why = first_line(error)
    if why is not None:
        logger.warning(
            "%s is not kept beside the collections (%s): every application has to open the model that carries it",
            *(adapter.build, why),
        )


def kept_adapter(client: QdrantClient, build: str, *, space: str, dimension: int) -> Adapter | None:
    """The adapter that was kept under this build; None if there is none.

    Raises:
        CollectionError: what is kept is not that adapter, or was fitted in another space.
    """
    gateway = Gateway(client, ADAPTERS)
    found = gateway.retrieve([_point_id(build)], with_payload=True) if gateway.exists() else []
    if not found:
        return None
    try:
        adapter = adapter_in(found[0].payload or {})
    except InputError as error:
        raise _foreign(build, first_line(error)) from error
    if adapter.build != build:
        raise _foreign(build, f"its weights are those of {adapter.build}")
    if (adapter.space, adapter.dimension) != (space, dimension):
        raise _foreign(build, f"it was fitted in {brief(adapter.space)}, the collection holds {space!r}")
    return adapter


def adapter_not_kept(client: QdrantClient, name: str) -> str | None:
    """The adapter that a collection was promoted with elsewhere, and that is not kept here; None if nothing is lost."""
    metadata = metadata_of(Gateway(client, name).info())
    if metadata is None or metadata.adapter is None:
        return None
    kept = kept_adapter(client, metadata.adapter, space=metadata.space, dimension=metadata.dimension)
    return metadata.adapter if kept is None else None


def serving_encoder(client: QdrantClient, name: str, metadata: CollectionMetadata, encoder: Encoder) -> Encoder:
    """The encoder whose queries a collection serves: the one given, with the adapter that was promoted here.

    One that carries another adapter than the collection serves with is taken as it is, with one warning per client.

    Raises:
        CollectionError: the adapter that is kept is not the one that was promoted.
    """
    own = adapter_of(encoder)
    if own == metadata.adapter:
        return encoder
    if own is None and metadata.adapter is not None:
        adapter = kept_adapter(client, metadata.adapter, space=metadata.space, dimension=metadata.dimension)
        if adapter is not None:
            return with_adapter(encoder, adapter)
    said = _said.setdefault(client, set())
    if (name, metadata.adapter, own) not in said:
        said.add((name, metadata.adapter, own))
        serves, asked = _shown(metadata.adapter), _shown(own)
        promoting = f"embed-plus promote run {name} --model FOLDER"
        why = f", because that adapter is not kept here (promote it again, {promoting}, or open the model with it)"
        why = "" if own else why
        logger.warning(
            "collection %r serves %s with %s, and is searched with %s%s",
            *(name, metadata.space, serves, asked, why),
        )
    return encoder


def forget_adapters(client: QdrantClient, in_use: set[str]) -> list[str]:
    """Drop the kept adapters but those in use; returns their builds."""
    gateway = Gateway(client, ADAPTERS)
    if not gateway.exists():
        return []
    # by id, since a build is only what a payload claims
    used = {_point_id(build) for build in in_use}
    unused = [record for page in gateway.pages(batch_size=16) for record in page if str(record.id) not in used]
    if unused:
        gateway.delete([record.id for record in unused])
    return sorted(str((record.payload or {}).get("build"))[:60] for record in unused)


def row_of(adapter: Adapter) -> dict[str, Any]:
    """The payload that an adapter is kept as."""
    arrays = {
        name: {"shape": list(array.shape), "data": base64.b64encode(array.astype("<f4").tobytes()).decode()}
        for name, array in adapter.map.arrays().items()
    }
    return {"build": adapter.build, "space": adapter.space, "kind": adapter.kind, "arrays": arrays}


def adapter_in(row: Mapping[str, Any]) -> Adapter:
    """Read what `row_of` wrote. Raises `InputError` for anything else."""
    kind, arrays = row.get("kind"), row.get("arrays")
    if not isinstance(kind, str) or kind not in MAPS or not isinstance(arrays, Mapping) or len(arrays) > 8:
        raise InputError(f"kind is {brief(kind)}, expected one of {', '.join(MAPS)} with its arrays")
    try:
        made = MAPS[kind].of({name: _array(value) for name, value in arrays.items()})
    except KeyError as error:
        raise InputError(f"a {kind} map has no array {error}") from error
    return Adapter(made, checked_text("space", row.get("space")))


def _array(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    shape, data = (value.get("shape"), value.get("data")) if isinstance(value, Mapping) else (None, None)
    whole = isinstance(shape, list) and all(type(side) is int and 0 < side <= MOST_BYTES for side in shape)
    if not isinstance(shape, list) or not whole or not 1 <= len(shape) <= 2 or not isinstance(data, str):
        raise InputError(f"an array is {brief(value)}, expected its shape and its numbers")
    # counted before anything is decoded: what is kept may be anybody's
    if math.prod(shape) * 4 > MOST_BYTES or len(data) > 4 * -(-math.prod(shape) * 4 // 3):
        raise InputError(f"an array of shape {brief(shape)} has {len(data):,} characters, expected its numbers")
    try:
        numbers = np.frombuffer(base64.b64decode(data, validate=True), "<f4")
        return numbers.reshape(shape).astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"an array of shape {brief(shape)} is not in base64: {first_line(error)}") from error


def _store(client: QdrantClient, adapter: Adapter) -> None:
    gateway = Gateway(client, ADAPTERS)
    if not gateway.exists():
        try:
            gateway.create(vectors_config={})
        except (EngineError, CollectionExistsError):
            if not gateway.exists():  # otherwise another process has just made it
                raise
    gateway.upsert([models.PointStruct(id=_point_id(adapter.build), vector={}, payload=row_of(adapter))])


def _point_id(build: str) -> str:
    return str(uuid5(NAMESPACE_URL, build))


def _shown(adapter: str | None) -> str:
    return adapter or "no adapter"


def _foreign(build: str, why: str) -> PlusError:
    return CollectionError(
        f"the adapter kept as {build!r} is not what was promoted ({why}): promote it again, or roll back"
    )
