"""Votes of the rules for answers + what somebody knows of the passages -> how often each rule is right.

Guarantees: the sample of a rule is random and the same for a seed, whatever the order of the searches; a person sees
each pair once and not which rule voted for it; every precision has a 95 % Wilson interval; without judgements nothing
is measured, and the weights are called guesses. Does not know: who judges well.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qdrant_tools.debias.answer_rules import RULES, AnswerVote
from qdrant_tools.errors import InputError
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.rows import read_rows
from qdrant_tools.files.written import errors_of_writing, written_whole
from qdrant_tools.foreign import as_flag
from qdrant_tools.mining.false_negatives import cell
from qdrant_tools.records import Label
from qdrant_tools.same import id_key, query_key
from qdrant_tools.statistics import wilson
from qdrant_tools.validation import brief

__all__ = ["RuleAudit", "RulePrecision", "audit_rules", "read_rule_sheet", "read_weights", "write_rule_sheet"]

Texts = Callable[[Sequence[str]], Mapping[str, str]]

COLUMNS = ("query", "passage_id", "passage", "relevant", "rules")
LEAST = 30
"""Judged votes of a rule from which on its precision is taken for a weight."""


@dataclass(frozen=True)
class RulePrecision:
    """How many of the passages that a rule voted for are relevant. `pairs` is how many different ones it has.

    With `at_least` the judgements name relevant passages only: `precision` and `low` are lower bounds.
    """

    rule: str
    pairs: int
    looked_at: int
    relevant: int
    precision: float
    low: float
    high: float
    at_least: bool = False

    @property
    def sentence(self) -> str:
        """The finding in words."""
        if not self.looked_at:
            return f"{self.rule}: none of its {self.pairs:,} passages was looked at"
        if self.at_least:
            return (
                f"{self.rule}: at least {self.relevant:,} of {self.looked_at:,} are relevant ({self.precision:.1%}, as "
                "the judgements name relevant passages only)"
            )
        return (
            f"{self.rule}: {self.relevant:,} of {self.looked_at:,} are relevant ({self.precision:.1%}, 95 % interval "
            f"{self.low:.1%} to {self.high:.1%})"
        )

    @property
    def weight(self) -> float:
        """The middle of the interval, which is nearer to one half than the share, the fewer were looked at."""
        return self.precision if self.at_least else (self.low + self.high) / 2


@dataclass(frozen=True)
class RuleAudit:
    """What was found for every rule that has voted. `source` says who judged: "sheet", "judgements", or nobody ("")."""

    rules: tuple[RulePrecision, ...] = field(default_factory=tuple)
    source: str = ""

    @property
    def weights(self) -> dict[str, float]:
        """Measured weights for `AnswerSettings`, of the rules of which enough was looked at."""
        return {found.rule: round(found.weight, 4) for found in self.rules if found.looked_at >= LEAST}

    def as_row(self) -> dict[str, Any]:
        return {"source": self.source, "weights": self.weights, "rules": [asdict(found) for found in self.rules]}


def audit_rules(
    votes: Iterable[AnswerVote | str],
    *,
    judgements: Iterable[Label] | None = None,
    sheet: str | Path | None = None,
) -> RuleAudit:
    """Measure the precision of every rule by judgements from elsewhere, or by a sheet that a person filled in.

    Without either, it says how many passages each rule voted for, and no weight is measured. Of judgements, pairs that
    nobody judged are not counted, unless the judgements name relevant passages only: then they are taken for not
    relevant, and the precision is a lower bound.

    Raises:
        InputError: the sheet is none, or its pairs are those of another log.
    """
    pairs = pairs_of_rules(votes)
    if sheet is not None:
        return RuleAudit(tuple(_by_sheet(pairs, sheet)), "sheet")
    if judgements is None:
        found = (RulePrecision(rule, len(ids), 0, 0, 0.0, 0.0, 1.0) for rule, ids in pairs.items())
        return RuleAudit(tuple(found))
    judged: dict[tuple[str, str], bool] = {}
    for label in judgements:
        pair = query_key(label.query), id_key(label.passage_id)
        judged[pair] = judged.get(pair, False) or label.weight > 0
    asked = {query for query, _ in judged}
    only_positives = all(judged.values())
    rows = []
    for rule, ids in pairs.items():
        known = [pair for pair in ids if (pair[0] in asked if only_positives else pair in judged)]
        rows.append(_precision(rule, len(ids), [judged.get(pair, False) for pair in known], at_least=only_positives))
    return RuleAudit(tuple(rows), "judgements")


def write_rule_sheet(
    votes: Iterable[AnswerVote | str],
    texts: Texts,
    path: str | Path,
    *,
    size: int = 100,
    seed: int = 0,
    overwrite: bool = True,
) -> int:
    """Write up to `size` passages of each rule as CSV, for a person to fill in `relevant` (1 or 0); returns the rows.

    A pair that several rules voted for stands once, and the order says nothing of the rules.

    Raises:
        UsageError: it cannot be written, or is there and not to be replaced.
    """
    pairs = pairs_of_rules(votes)
    drawn: dict[tuple[str, str], list[str]] = {}
    for rule, ids in pairs.items():
        for pair in sorted(ids, key=lambda pair: _draw(seed, pair))[:size]:
            drawn.setdefault(pair, []).append(rule)
    spelled = {pair: vote for ids in pairs.values() for pair, vote in ids.items()}
    known = texts(list(dict.fromkeys(spelled[pair].passage_id for pair in drawn)))
    with errors_of_writing(path), written_whole(path, overwrite=overwrite) as draft, draft.open("wb") as file:
        file.write(f"{','.join(COLUMNS)}\r\n".encode())
        for pair in sorted(drawn, key=lambda pair: _draw(seed, pair)):
            vote = spelled[pair]
            query, name, text = map(cell, (vote.query, vote.passage_id, known.get(vote.passage_id, "")))
            line = f"{query},{name},{text},,{'|'.join(drawn[pair])}\r\n"
            file.write(line.encode("utf-8", "backslashreplace"))
    return len(drawn)


def read_rule_sheet(path: str | Path) -> list[tuple[tuple[str, ...], bool]]:
    """(rules, relevant) of every row that a person filled in.

    Raises:
        InputError: not such a sheet, or an answer that is neither yes nor no.
    """
    found = []
    for row in read_rows(path, pad=True):
        missing = [name for name in ("relevant", "rules") if name not in row.values]
        if missing:
            raise InputError(f"{row.where}: no column {missing[0]!r}, expected a sheet that --write-sheet has written")
        rules = tuple(str(row.values["rules"]).split("|"))
        if not all(rule in RULES for rule in rules):
            raise InputError(f"{row.where}: rules is {brief(row.values['rules'])}, expected some of {', '.join(RULES)}")
        try:
            relevant = as_flag("relevant", row.values["relevant"])
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from error
        if relevant is not None:
            found.append((rules, relevant))
    return found


def read_weights(path: str | Path) -> dict[str, float]:
    """The measured weights of a file that an audit has written.

    Raises:
        InputError: it cannot be read, or has none.
    """
    found = read_json(Path(path))
    weights = found.get("weights") if isinstance(found, dict) else None
    if not isinstance(weights, dict):
        raise InputError(f"{path} has no weights, expected what `embed-plus log audit --out` has written")
    for rule, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if rule not in RULES or not is_number or not 0 <= weight <= 1:
            raise InputError(
                f"{path}: the weight of {brief(rule)} is {brief(weight)}, expected a number from 0 to 1 for one of "
                f"{', '.join(RULES)}"
            )
    if not weights:
        raise InputError(
            f"{path} has no weights: fewer than {LEAST} passages of each rule were judged; fill in more of the sheet"
        )
    return {str(rule): float(weight) for rule, weight in weights.items()}


def pairs_of_rules(votes: Iterable[AnswerVote | str]) -> dict[str, dict[tuple[str, str], AnswerVote]]:
    """The different (query, passage) pairs that each rule calls relevant, with a vote for each."""
    pairs: dict[str, dict[tuple[str, str], AnswerVote]] = {}
    for vote in votes:
        if isinstance(vote, AnswerVote) and vote.value > 0:
            pairs.setdefault(vote.rule, {}).setdefault((query_key(vote.query), id_key(vote.passage_id)), vote)
    return {rule: pairs[rule] for rule in RULES if rule in pairs}


def _by_sheet(pairs: Mapping[str, Mapping[tuple[str, str], AnswerVote]], sheet: str | Path) -> Iterable[RulePrecision]:
    verdicts: dict[str, list[bool]] = {rule: [] for rule in pairs}
    strange = Counter[str]()
    for rules, relevant in read_rule_sheet(sheet):
        for rule in rules:
            if rule in verdicts:
                verdicts[rule].append(relevant)
            else:
                strange[rule] += 1
    if strange and not any(verdicts.values()):
        raise InputError(f"{sheet} is about the rules {', '.join(strange)}, which find nothing in this log")
    return [_precision(rule, len(pairs[rule]), found) for rule, found in verdicts.items()]


def _precision(rule: str, pairs: int, verdicts: Sequence[bool], *, at_least: bool = False) -> RulePrecision:
    looked_at, relevant = len(verdicts), sum(verdicts)
    low, high = wilson(relevant, looked_at)
    share = relevant / looked_at if looked_at else 0.0
    if at_least and looked_at:
        low, high = share, 1.0
    return RulePrecision(rule, pairs, looked_at, relevant, share, low, high, at_least and looked_at > 0)


def _draw(seed: int, pair: tuple[str, str]) -> bytes:
    text = json.dumps([seed, *pair])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
