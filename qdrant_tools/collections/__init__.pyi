from .adopt import detect_layout
from .collection import Collection
from .copying import copy_collection
from .manager import CollectionManager
from .metadata import Layout
from .points import StoredPassage, fetch, point_id, stored_vectors
from .quantization import Quantization
from .settings import CollectionSettings
from .snapshots import create_snapshot, restore_snapshot
from .status import CollectionDescription, build_index

__all__ = [
    "Collection",
    "CollectionDescription",
    "CollectionManager",
    "CollectionSettings",
    "Layout",
    "Quantization",
    "StoredPassage",
    "build_index",
    "copy_collection",
    "create_snapshot",
    "detect_layout",
    "fetch",
    "point_id",
    "restore_snapshot",
    "stored_vectors",
]
