from .client.connect import aconnect, connect
from .collections.collection import Collection
from .collections.manager import CollectionManager
from .collections.quantization import Quantization
from .collections.settings import CollectionSettings
from .errors import CollectionError, InputError, LocationError, NotSupportedError, PlusError, SpaceMismatchError
from .indexing import IndexReport
from .log.retrieval_log import RetrievalLog
from .mining.miner import mine
from .mining.rules import MiningSettings
from .promotion.promotion import Promotion
from .records import Encoder, Example, HeldOut, Hit, Label, Passage, Query
from .search.bm25 import Bm25
from .tuning import TuningGrid, tune

__version__: str

__all__ = [
    "Bm25",
    "Collection",
    "CollectionError",
    "CollectionManager",
    "CollectionSettings",
    "Encoder",
    "Example",
    "HeldOut",
    "Hit",
    "IndexReport",
    "InputError",
    "Label",
    "LocationError",
    "MiningSettings",
    "NotSupportedError",
    "Passage",
    "PlusError",
    "Promotion",
    "Quantization",
    "Query",
    "RetrievalLog",
    "SpaceMismatchError",
    "TuningGrid",
    "aconnect",
    "connect",
    "mine",
    "tune",
]
