from .readers import LogColumns, read_log
from .records import KINDS, Feedback, LoggedHit, LoggedSearch, dropped, hashed
from .retrieval_log import RetrievalLog
from .stats import LogStats

__all__ = [
    "Feedback",
    "KINDS",
    "LogColumns",
    "LogStats",
    "LoggedHit",
    "LoggedSearch",
    "RetrievalLog",
    "dropped",
    "hashed",
    "read_log",
]
