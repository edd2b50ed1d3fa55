"""Logged searches -> labels by every rule that finds something in them, and what was not learnt from, by reason.

Guarantees: what no rule understands is counted, and is no label; a passage that the collection does not hold is no
label either; where a person said of a passage that it is not relevant, a click does not overrule that. Does not know:
which searches train and which decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llama_index_embed_plus.training.improvement.settings import ImproveSettings
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, texts_of
from qdrant_tools.debias.answer_labels import labels_from_answers
from qdrant_tools.debias.answer_rules import RULES
from qdrant_tools.debias.click_rules import aggregate, clicked_as_positive
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.records import Label
from qdrant_tools.same import id_key, query_key

CLICK = "click"
NOT_THERE = "passages that the collection does not hold"
_NO_ANSWER = "no answer"
_NAMES = {evidence: name for name, (_, _, evidence) in RULES.items()}
_AT_ONCE = 256


@dataclass(frozen=True)
class Learnt:
    """Labels, one per query and passage; `rules` counts the positive ones by the rule that they are of, `refused` the
    searches, or passages, that gave none."""

    labels: tuple[Label, ...]
    rules: Mapping[str, int]
    refused: Mapping[str, int]

    @property
    def positives(self) -> list[Label]:
        return [label for label in self.labels if label.weight > 0]

    @property
    def queries(self) -> int:
        """Queries with an answer, each once."""
        return len({query_key(label.query) for label in self.positives})


def learn(searches: Sequence[LoggedSearch], collection: Collection, settings: ImproveSettings) -> Learnt:
    """Make labels of searches by all rules of the settings."""
    of_answers, counts = labels_from_answers(searches, texts_of(collection), settings.answers)
    of_clicks = aggregate(clicked_as_positive(searches)) if settings.clicks else []
    told = {_pair(label) for label in of_answers}
    labels = [*of_answers, *(label for label in of_clicks if _pair(label) not in told)]
    held = _held(collection, labels)
    there = [label for label in labels if label.passage_id in held]
    refused = Counter({reason: count for reason, count in counts.reasons.items() if reason != _NO_ANSWER})
    # a click log has none anywhere, and nothing is wrong with it
    if any(search.answer is not None for search in searches) or not of_clicks:
        refused[_NO_ANSWER] = counts.reasons.get(_NO_ANSWER, 0)
    refused[NOT_THERE] = len({label.passage_id for label in labels} - held)
    rules = Counter(rule_of(label) for label in there if label.weight > 0)
    left = {reason: count for reason, count in refused.most_common() if count}
    return Learnt(tuple(there), dict(rules.most_common()), left)


def rule_of(label: Label) -> str:
    """The name of the rule that made a label."""
    evidence = label.evidence.split(" x")[0]
    return _NAMES.get(evidence, evidence)


def _pair(label: Label) -> tuple[str, str]:
    return query_key(label.query), id_key(label.passage_id)


def _held(collection: Collection, labels: Sequence[Label]) -> set[str]:
    """The ids of labels that the collection holds."""
    ids, found = list(dict.fromkeys(label.passage_id for label in labels)), set[str]()
    for start in range(0, len(ids), _AT_ONCE):
        found.update(fetch(collection, ids[start : start + _AT_ONCE], with_text=False))
    return found
