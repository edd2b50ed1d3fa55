from .bm25 import Bm25, average_length
from .dense import HitGroup, search, search_batch, search_groups, search_vectors
from .hybrid import Fusion, search_hybrid, search_lexical
from .options import SearchOptions

__all__ = [
    "Bm25",
    "Fusion",
    "HitGroup",
    "SearchOptions",
    "average_length",
    "search",
    "search_batch",
    "search_groups",
    "search_hybrid",
    "search_lexical",
    "search_vectors",
]
