from .in_step import SourceReport, remembered, sync
from .origin import Origin, SourceDocument
from .stored import count_passages, delete_ids, delete_passages, stored_passages

__all__ = [
    "Origin",
    "SourceDocument",
    "SourceReport",
    "count_passages",
    "delete_ids",
    "delete_passages",
    "remembered",
    "stored_passages",
    "sync",
]
