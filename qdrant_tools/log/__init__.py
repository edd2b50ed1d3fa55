"""Searches and what users did with their results: the retrieval log.

`RetrievalLog` keeps them; `readers` and `qa_dataset` bring in what other systems wrote; `privacy` takes the personal
text out; `stats` counts. What the behaviour means is decided elsewhere, in `qdrant_tools.debias`.
"""

from __future__ import annotations

from qdrant_tools.log.records import KINDS, Feedback, LoggedHit, LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.log.stats import LogStats

__all__ = ["KINDS", "Feedback", "LogStats", "LoggedHit", "LoggedSearch", "RetrievalLog"]
