"""Logged behaviour -> labels.

Each rule is a pure function over searches, named after what it believes. Guarantees: one label per (query, passage)
pair, in the order in which the pairs first occur. Does not know: texts, collections.
"""

from __future__ import annotations

from collections.abc import Iterable

from qdrant_tools.log_records import LoggedSearch
from qdrant_tools.records import Label


def clicked_as_positive(searches: Iterable[LoggedSearch]) -> list[Label]:
    """The naive rule: whatever was clicked answers the query. What was shown and not clicked gets no label.

    Clicks follow the position as much as the relevance (Joachims et al., "Accurately interpreting clickthrough
    data as implicit feedback", SIGIR 2005), so these labels are noisy, above all at the first ranks.
    """
    pairs = {
        (search.query, event.id): None for search in searches for event in search.feedback if event.kind == "click"
    }
    return [Label(query, passage_id, 1.0, "click") for query, passage_id in pairs]
