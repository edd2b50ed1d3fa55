"""The spans of a trace -> whether it is no user's: an evaluation, an experiment, or what the caller names.

Guarantees: only names that say it themselves count, and each is counted in the report. Does not know: searches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from qdrant_tools.same import folded
from qdrant_tools.traces.records import Span, TraceSettings

# the whole of a name, or its beginning before what numbers or names the run
_RUN = re.compile(
    r"(?:(?:phoenix|langfuse|langsmith|sdk|mlflow|offline)[\s_-]*)?"
    r"(?:evals?|evaluations?|evaluators?|experiments?|dataset[\s_-]?runs?|llm[\s_-]as[\s_-]a[\s_-]judge)"
    r"(?:[\s_-](?:runs?|item[\s_-]run|[0-9a-f-]{4,}|\d+))?"
)


def is_left_out(spans: Iterable[Span], settings: TraceSettings) -> str | None:
    """Why a trace is left out, as in `report.DROPPED`; None if it is not.

    What `settings.left_out` names is left out; if it names nothing, what calls itself an evaluation.
    """
    named = {_name(name) for name in settings.left_out}
    for span in spans:
        names = {_name(name) for name in (span.service, *span.tags) if name}
        if named:
            if names & named:
                return "left out"
        elif any(_RUN.fullmatch(name) for name in names) or (span.parent is None and _RUN.fullmatch(_name(span.name))):
            return "evaluation"
    return None


def _name(name: str) -> str:
    return folded(name.strip())
