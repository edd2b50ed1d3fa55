from .columns import LogColumns
from .readers import LogReader, read_log
from .records import KINDS, Feedback, LoggedHit, LoggedSearch, dropped, hashed
from .retrieval_log import RetrievalLog
from .stats import LogStats

__all__ = [
    "Feedback",
    "KINDS",
    "LogColumns",
    "LogReader",
    "LogStats",
    "LoggedHit",
    "LoggedSearch",
    "RetrievalLog",
    "dropped",
    "hashed",
    "read_log",
]
