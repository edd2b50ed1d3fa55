from .columns import LogColumns
from .readers import LogReader, read_log
from .records import JUDGES, KINDS, VERDICTS, Answer, Feedback, LoggedHit, LoggedSearch, Verdict, dropped, hashed
from .retrieval_log import RetrievalLog
from .stats import Added, LogStats

__all__ = [
    "Added",
    "Answer",
    "Feedback",
    "JUDGES",
    "KINDS",
    "LogColumns",
    "LogReader",
    "LogStats",
    "LoggedHit",
    "LoggedSearch",
    "RetrievalLog",
    "VERDICTS",
    "Verdict",
    "dropped",
    "hashed",
    "read_log",
]
