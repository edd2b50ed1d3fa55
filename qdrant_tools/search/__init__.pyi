from .added_words import add_lexical
from .around import Stretch, around
from .bm25 import Bm25, average_length
from .choosing import SearchReport, choose_search
from .dense import HitGroup, search, search_batch, search_groups, search_vectors
from .fusion import Fusion
from .hybrid import search_hybrid, search_lexical
from .options import SearchOptions
from .word_tuning import WordGrid, WordTuning, tune_words
from .written import written_filter

__all__ = [
    "Bm25",
    "Fusion",
    "HitGroup",
    "SearchOptions",
    "SearchReport",
    "Stretch",
    "WordGrid",
    "WordTuning",
    "add_lexical",
    "around",
    "average_length",
    "choose_search",
    "search",
    "search_batch",
    "search_groups",
    "search_hybrid",
    "search_lexical",
    "search_vectors",
    "tune_words",
    "written_filter",
]
