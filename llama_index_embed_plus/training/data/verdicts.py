"""The fields of training rows that nothing reads: does one of them say which rows are right?

By its name (`helpful`, `confidence`), by what it says (`"type": "hard_negative"`, `"meta": {"label": 0}`), or by the
whole column: yes in some rows and no in others, in any language; `approved` and `rejected`; fractions; `train` and
`test`; small numbers that differ between the passages of one query.

Guarantees: such a field is refused with its name, and what to do. Does not know: kinds, formats.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from llama_index_embed_plus.training.data.fields import ALIASES, spelled
from qdrant_tools.errors import InputError, brief, listed
from qdrant_tools.foreign import as_flag, is_missing
from qdrant_tools.same import query_key
from qdrant_tools.validation import number_in

WAY_OUT = "give it the name of what it is (docs/training.md), or say that it means nothing here: ignore (--ignore)"
HELD_OUT = frozenset(["test", "tst", "dev", "val", "valid", "validation", "eval", "evaluation", "heldout", "held_out"])
_SPLITS = HELD_OUT | {"train", "training", "trn"}
_MOST_FIELDS, _MOST_COMPARED = 1000, 8


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# of fields that judge in the words of users; elsewhere (in logs) they are counted
_VOTES = _words(
    "helpful unhelpful useful useless vote votes upvote upvotes downvote downvotes thumb thumbs feedback polarity good"
    " bad answerable unanswerable impossible outcome decision click clicked clicks selected accepted rejected match"
    " matched noisy sim entails entailed supports refutes gt truth verdict judge judged confidence probability prob"
    " logit logits quality faithfulness groundedness"
    # label, relevance, grade and useful in other languages
    " etiquette etiqueta etichetta etikett bewertung punkte hilfreich richtig korrekt passend puntuacion puntaje"
    " calificacion pontuacao correcto correto corretto util utile utili nuttig ocena trafnosc beoordeling"
    " 标签 标注 相关性 相关 是否相关 评分 得分 分数 相似度"
    " ラベル 関連度 関連性 評価 スコア 正解 레이블 라벨 관련성 점수 유사도"
    " метка оценка релевантность релевантно балл полезно"
)
# the beginnings of a word for relevance in the languages of Europe
_STEMS = ("relevan", "irrelevan", "pertinen", "rilevan", "релевант", "judg")
_NESTED = frozenset(ALIASES["score"].split()) - _words("score scores similarity rating ratings stars")
_VERDICTS = _words(
    "positive negative pos neg hard_negative easy_negative random_negative relevant irrelevant not_relevant"
    " non_relevant correct incorrect wrong gold accept reject"
)
_GOOD = _words(
    "approved accepted pass passed good great excellent perfect match matched helpful useful supported entailed high"
    " highly_relevant keep richtig gut correcto bueno bon buono"
)
_BAD = _words(
    "rejected denied fail failed bad poor terrible mismatch no_match not_matched unhelpful useless unsupported"
    " not_supported contradicted distractor noise spam low drop discard schlecht incorrecto malo mauvais"
)
_OF_SPLITS = re.compile(r"(is|in|for|use_for)_(train|training|test|dev|val|validation|eval|holdout|heldout)(_set)?")
_COUNTS = re.compile(
    r"|.*(id|idx|index|number|num|no|nr|row|line|page|chunk|unnamed:? ?_?0|turn|count|rank|version|len|length|tokens"
    r"|words|chars|start|end|offset|position|order|hop|hops|part|section|chapter|paragraph|sentence|level|depth|step"
    r"|round|run|batch|epoch|seed|group|cluster|year|month|day|hour|time|date|size|cost|price|temperature|top_p)"
)


def judges(name: str, value: Any) -> bool:
    """Whether an unknown field judges its row, by its name or by what it says.

    `helpful`, `"type": "hard_negative"`, `"meta": {"label": 0}`.
    """
    if isinstance(value, Mapping):
        labels = ALIASES["label"].split()
        return any(spelled(inner) in labels or spelled(inner) in _NESTED for inner in value)
    if value is None or value == "" or value == [] or value == {}:
        return False
    return is_verdict(value) or _is_named_so(name)


def is_verdict(value: Any) -> bool:
    """Whether a cell is the word of somebody who judged: `relevant`, `hard_negative`, `accept`."""
    return isinstance(value, str) and len(value) < 40 and spelled(value) in _VERDICTS


@lru_cache(maxsize=1024)
def _is_named_so(name: str) -> bool:
    plain = "".join(c for c in unicodedata.normalize("NFD", spelled(name)) if not unicodedata.combining(c))
    words = {*plain.split("_"), *spelled(name).split("_")}
    if _OF_SPLITS.fullmatch(spelled(name)):
        return True
    return not _VOTES.isdisjoint(words) or any(word.startswith(_STEMS) for word in words)


@lru_cache(maxsize=4096)
def _said(text: str) -> bool | float | str | None:
    """What a short cell says: yes or no, a number, the name of a split; None for any other."""
    word = spelled(text)
    if word in _SPLITS:
        return word
    if word in _GOOD or word in _BAD:
        return word in _GOOD
    number = number_in(text)
    if not math.isnan(number):
        return number
    try:
        return as_flag("a cell", text)
    except InputError:
        return None


@dataclass
class _Column:
    """What the cells of one field say, counted. compared: whether those of one query are."""

    compared: bool = False
    yes: int = 0
    no: int = 0
    numbers: int = 0
    least: float = math.inf
    most: float = -math.inf
    ones: int = 0
    zeros: int = 0
    broken: bool = False
    splits: dict[str, None] = field(default_factory=dict)
    by_query: dict[int, float] = field(default_factory=dict)
    differs: bool = False

    def add(self, value: Any, query: str | None) -> None:
        said = _said(value) if isinstance(value, str) and len(value) <= 24 else value
        if isinstance(said, bool):
            self.yes, self.no = self.yes + said, self.no + (not said)
        elif isinstance(said, str) and said in _SPLITS:
            self.splits[said] = None
        elif isinstance(said, (int, float)) and abs(said) < 1e9:
            self.numbers += 1
            self.least, self.most = min(self.least, said), max(self.most, said)
            self.ones, self.zeros = self.ones + (said == 1), self.zeros + (said == 0)
            self.broken |= said != int(said)
            if self.compared and query is not None and abs(said) <= 10:
                self.differs |= self.by_query.setdefault(hash(query), said) != said

    def judgement(self, rows: int) -> str | None:
        """How the column judges its rows, in words; None if it does not."""
        if self.yes and self.no:
            return f"says yes in {self.yes} rows and no in {self.no}"
        if self.numbers != rows or self.least == self.most:
            return None
        if self.ones + self.zeros == rows:
            # few small numbers may count something
            return f"says yes in {self.ones} rows and no in {self.zeros}" if rows > 3 or self.differs else None
        if self.broken and self.least >= -1 and self.most <= 1:
            return f"goes from {self.least:g} to {self.most:g}"
        if self.differs and self.least >= -10 and self.most <= 10:
            return "has several numbers for the passages of one query"
        return None


class Verdicts:
    """The unread fields of one file."""

    def __init__(self, file: Path) -> None:
        self.file, self.rows = file, 0
        self.columns: dict[str, _Column] = {}
        self.answers: dict[str, list[int]] = {}

    def note(self, unread: Mapping[str, Any], query: str) -> None:
        """Take the unread fields of a row. Raises `InputError` for one that judges it."""
        self.rows += 1
        key: str | None = None
        for name, value in unread.items():
            if judges(name, value):
                raise InputError(f"the field {brief(name)} is {brief(value)}, and nothing here reads it: {WAY_OUT}")
            if not isinstance(value, (bool, int, float, str)) or is_missing(value):
                continue
            column = self.columns.get(name)
            if column is None and len(self.columns) < _MOST_FIELDS:
                column = self.columns[name] = _Column(compared=len(self.columns) < _MOST_COMPARED)
            if column is not None:
                key = query_key(query) if key is None and column.compared else key
                column.add(value, key)

    def note_answers(self, answers: Mapping[str, Any]) -> None:
        """Take the answers beside a passage: an annotator's program calls its verdict so too."""
        for name, value in answers.items():
            said = self.answers.setdefault(name, [0, 0])
            said[0] += 1
            said[1] += is_verdict(value) or value == "ignore"

    def check(self) -> None:
        """Raise `InputError` for a field that, over the whole file, says which rows are right."""
        for name, (rows, verdicts) in self.answers.items():
            if rows == verdicts:
                raise InputError(
                    f"{self.file}: the field {brief(name)} is a verdict in every row: call it `label` if it says "
                    "whether the passage answers, else name it in ignore (--ignore)"
                )
        for name, column in self.columns.items():
            if len(column.splits) > 1 or not HELD_OUT.isdisjoint(column.splits):
                raise InputError(
                    f"{self.file}: the field {brief(name)} names {listed(column.splits)}: call it `split` if rows "
                    "belong to those, and say which to train on (--split), else name it in ignore (--ignore)"
                )
            said = None if _COUNTS.fullmatch(spelled(name)) else column.judgement(self.rows)
            if said is not None:
                raise InputError(
                    f"{self.file}: the field {brief(name)} {said}: call it `label` if it says "
                    "whether the passage answers (`score`: how well), else name it in ignore (--ignore)"
                )
