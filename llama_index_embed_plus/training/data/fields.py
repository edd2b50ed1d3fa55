"""The fields of a row, as anybody names them -> the parts that they play: query, positive, negatives, label, ...

Spelling makes no difference ("Query ", "sentenceA", "hard-negative 1"): names are compared in lower case, with `_`
between words. Numbers may begin at 0 or 1 and have gaps. A field beside its better-named fellow gives way where that is
certain: the passage of `question, context, answer` is the context.

Guarantees: two fields for one part are refused, never is one of them dropped in silence. Does not know: kinds, files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llama_index_embed_plus.training.limits import is_number
from qdrant_tools.errors import InputError, brief
from qdrant_tools.errors import listed as shortlist
from qdrant_tools.foreign import as_amount, as_flag, is_missing
from qdrant_tools.unread import words_in_name
from qdrant_tools.validation import checked_text, number_in

Fields = Mapping[str, Any]

LONGEST_TEXT = 1_000_000
"""Characters of one text: a tokenizer takes some hundred bytes for each of its tokens, before it cuts."""

ALIASES = {
    "query": "query anchor question query_text question_text search_query search_term user_query q",
    "positive": "positive pos passage document doc context positive_passage positive_document positive_text"
    " passage_text document_text doc_text answer answers response short_answer content chunk paragraph documents docs"
    " passages candidates",
    "positive_id": "positive_id passage_id pid corpus_id chunk_id node_id positive_passage_id",
    "positives": "positives",
    "negatives": "negatives negs hard_negatives",
    "weight": "weight weights sample_weight example_weight row_weight",
    "synthetic": "synthetic is_synthetic",
    "first": "sentence1 sentence_1 text1 text_1 sentence_a text_a question1 question_1 query1 query_1 sent1 premise",
    "second": "sentence2 sentence_2 text2 text_2 sentence_b text_b question2 question_2 query2 query_2 sent2"
    " hypothesis",
    "text": "text sentence",
    "label": "label labels gold_label gold target y lable lbl",
    "score": "score scores similarity similarity_score cosine_similarity relatedness relatedness_score relevance"
    " relevance_score relevance_label relevance_grade relevant is_relevant isrelevant rel grade grades rating ratings"
    " stars judgement judgment is_positive is_answer is_correct correct is_match match is_duplicate duplicate"
    " is_selected selected is_paraphrase qrel accepted is_accepted clicked is_clicked click teacher_score"
    " reranker_score cross_encoder_score ce_score human_score",
    "class": "class category intent topic",
    "split": "split dataset_split data_split fold partition subset",
    "positive_score": "positive_score pos_score",
}
_PART_OF = {name: part for part, names in ALIASES.items() for name in names.split()}
_NUMBERED = (
    ("negative", re.compile(r"(?:hard_)?neg(?:ative)?(?:_passage|_document|_doc|_text)?_?(\d{1,9})?")),
    ("negative", re.compile(r"(?:hard_)?(?:negatives|negs)_?(\d{1,9})")),
    ("negative_score", re.compile(r"(?:hard_)?neg(?:ative)?_scores?_?(\d{1,9})?")),
    ("negative_score", re.compile(r"(?:hard_)?neg(?:ative)?_?(\d{1,9})_score")),
    ("margin", re.compile(r"margins?_?(\d{1,9})?")),
)
GIVES_WAY = frozenset(["answer", "answers", "response", "short_answer"])
"""An answer in a few words is no passage where the passage stands beside it."""
# says where a text stands or comes from, not what it is
_ABOUT = re.compile(
    r"(?P<of>[a-z_]+?)_?(?:\d+_)?(?:id|idx|index|start|end|offset|title|url|uri|source|lang|language|length)(?:_\d+)?"
)
_OF_NO_PART = frozenset(["prompt", "instruction", "pair", "caption", "answer", "answers", "context", "annotation"])


def spelled(name: str) -> str:
    """The name in lower case, with `_` between its words."""
    # a stranger's names may be long, and are not kept
    return _spelled(name) if len(name) <= 100 else _spelled.__wrapped__(name)


@lru_cache(maxsize=1024)
def _spelled(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name).strip().strip("\ufeff").strip())
    return re.sub(r"[\s.\-]+", "_", words).lower()


@dataclass(frozen=True)
class Parts:
    """A row by parts. `named`: (part, number) -> the names of the fields that may play it; `others`: the rest."""

    fields: Fields
    named: Mapping[tuple[str, int], tuple[str, ...]]
    others: tuple[str, ...] = ()

    def name(self, part: str, number: int = -1) -> str | None:
        """The field that plays a part and says something. Raises `InputError` if there are two."""
        names = [name for name in self.named.get((part, number), ()) if not _says_nothing(self.fields[name])]
        if len(names) > 1:
            names = [name for name in names if spelled(name) not in GIVES_WAY] or names
        if len(names) > 1:
            raise InputError(
                f"has {shortlist(f'`{name}`' for name in names)}, and either may be the {_TITLES.get(part, part)}: "
                "keep one, or name the others in ignore (--ignore)"
            )
        return names[0] if names else None

    def has(self, *parts: str) -> bool:
        """Whether a field of one of the parts is there, empty or not."""
        return any(part in parts for part, _ in self.named)

    def says(self, *parts: str) -> bool:
        """Whether a field of one of the parts says something."""
        return any(
            part in parts and not all(_says_nothing(self.fields[name]) for name in names)
            for (part, _), names in self.named.items()
        )

    def given_way(self) -> Iterator[str]:
        """The short answers beside their passage."""
        passage = self.name("positive")
        for name in self.named.get(("positive", -1), ()):
            if name != passage and spelled(name) in GIVES_WAY and not _says_nothing(self.fields[name]):
                yield name

    def get(self, part: str, number: int = -1) -> Any:
        """The value of a part, None if there is none."""
        name = self.name(part, number)
        return None if name is None else self.fields[name]

    def text(self, part: str) -> str:
        """The text of a part. Raises `InputError` if there is none."""
        name = self.name(part)
        if name is None:
            # an empty field is shown as it is: the name of the part is one of those that it may have
            empty = next(iter(self.named.get((part, -1), ())), None)
            if empty is not None:
                raise InputError(f"the field {brief(empty)} is {brief(self.fields[empty])}, expected a text")
            raise InputError(f"has no field {_TITLES.get(part, part)!r}, only {listed(self.fields)}")
        return as_text(self.fields[name], name)

    def numbered(self, part: str, check: Callable[[Any, str], Any]) -> Iterator[tuple[int, Any]]:
        """Yield (number, value) of a part that may be numbered, in order, each through `check`."""
        for number in sorted(number for found, number in self.named if found == part):
            name = self.name(part, number)
            if name is not None:
                yield number, check(self.fields[name], name)

    def about(self, name: str) -> bool:
        """Whether a field only says something about another one that is read: `answer_start`, `negative_url`."""
        match = _ABOUT.fullmatch(spelled(name))
        if match is None:
            return False
        of = match["of"].strip("_")
        part = _part(of)
        return of in _OF_NO_PART or (part is not None and part[0] != "label" and self.says(part[0]))


_TITLES = {"first": "sentence1", "second": "sentence2", "label": "label", "score": "score"}
_seen: dict[tuple[str, ...], tuple[dict[tuple[str, int], tuple[str, ...]], tuple[str, ...]]] = {}


def parts_of(fields: Fields, also: Mapping[str, tuple[str, int]] | None = None) -> Parts:
    """Return the fields of a row by the parts that they play; `also`: what the caller says of some of them."""
    if not isinstance(fields, Mapping):
        raise InputError(f"is {brief(fields)}, expected an object with fields")
    names = tuple(map(str, fields))
    if also:
        return Parts(fields, *_by_part(names, also))
    # the rows of a file have a few sets of names at most
    if names not in _seen:
        if len(_seen) >= 256:
            _seen.clear()
        _seen[names] = _by_part(names, {})
    return Parts(fields, *_seen[names])


def _by_part(
    names: tuple[str, ...], also: Mapping[str, tuple[str, int]]
) -> tuple[dict[tuple[str, int], tuple[str, ...]], tuple[str, ...]]:
    found = {name: also.get(name) or _part(spelled(name)) for name in names}
    if any(part == ("query", -1) for part in found.values()):
        # beside a query, a text is what answers it
        found = {name: ("positive", -1) if _is_text(name, part) else part for name, part in found.items()}
    by_part: dict[tuple[str, int], tuple[str, ...]] = {}
    for name, part in found.items():
        if part is not None:
            by_part[part] = (*by_part.get(part, ()), name)
    return by_part, tuple(name for name, part in found.items() if part is None)


def _is_text(name: str, part: tuple[str, int] | None) -> bool:
    # not `sentence`: in question answering, it is one of many that are judged by another rule
    return part == ("text", -1) and spelled(name) == "text"


def _part(name: str) -> tuple[str, int] | None:
    if name in _PART_OF:
        return _PART_OF[name], -1
    for part, pattern in _NUMBERED:
        if match := pattern.fullmatch(name):
            return part, -1 if match[1] is None else int(match[1])
    return None


def _says_nothing(value: Any) -> bool:
    # other spellings of nothing may be words of a text
    return value is None or value == "" or value == [] or value == {}


def listed(fields: Fields) -> str:
    """Return the names of the fields, for a message."""
    return shortlist(map(str, fields)) if isinstance(fields, Mapping) else brief(fields)


_NOTHING = frozenset(["nan", "NaN", "NULL", "<NA>", "#N/A", r"\N"])


def as_text(value: Any, name: str) -> str:
    """Return `value` if it is a text that says something, and that a tokenizer can read in moderate memory."""
    if isinstance(value, (list, Mapping)):
        raise InputError(
            f"the field {brief(name)} is {brief(value)}, expected a text: several passages that answer are "
            "`positives`, others `negatives`, judged ones stand beside a list of `labels`"
        )
    if not isinstance(value, str) or not value.strip() or value.strip() in _NOTHING:
        raise InputError(f"the field {brief(name)} is {brief(value)}, expected a text")
    if len(value) > LONGEST_TEXT:
        raise InputError(f"the field {brief(name)} has {len(value):,} characters, expected at most {LONGEST_TEXT:,}")
    return value if value.isascii() else checked_text(f"the field {brief(name)}", value)


def as_optional_text(value: Any, name: str) -> str | None:
    """The same, and None for a cell that another program left empty (`NULL`, `NaN`, ...)."""
    is_empty = is_missing(value) and (not isinstance(value, str) or value.strip() in _NOTHING)
    return None if is_empty else as_text(value, name)


def as_number(value: Any, name: str) -> float:
    """Return `value`, a number or the text of one, as a finite number."""
    number = _number(value, name)
    if not is_number(number):
        raise InputError(f"the field {brief(name)} is {brief(value)}, expected a number")
    return float(number)


def _number(value: Any, name: str) -> Any:
    # European programs write a decimal comma
    if isinstance(value, str) and "," in value and value.strip().strip("+-").replace(",", "").isdigit():
        return as_amount(f"the field {brief(name)}", value)
    return number_in(value) if isinstance(value, str) else value


def as_numbers(value: Any, name: str) -> list[float] | None:
    """The numbers of a list, also as a table writes one (`[0.7 0.1]`); None for what is no list."""
    if isinstance(value, str) and re.fullmatch(r"\s*\[[^\[\]]*\]\s*", value):
        value = value.strip().strip("[]").replace(",", " ").split()
    if not isinstance(value, (list, tuple)):
        return None
    return [as_number(each, name) for each in value]


_WORDS = {
    **dict.fromkeys(("relevant", "positive", "pos", "correct", "duplicate", "accept", "accepted"), 1.0),
    **dict.fromkeys(
        ("irrelevant", "not relevant", "non relevant", "nonrelevant", "incorrect", "wrong", "reject", "rejected"), 0.0
    ),
    **dict.fromkeys(("negative", "neg", "hard negative", "easy negative", "random negative", "not duplicate"), 0.0),
}


def as_judgement(value: Any, name: str) -> float | None:
    """A number, yes or no as 1 and 0, or None where nothing is judged."""
    number = _number(value, name)
    if is_number(number):
        return float(number)
    if isinstance(value, str) and (word := re.sub(r"[\s_-]+", " ", value.strip().lower())) in _WORDS:
        return _WORDS[word]
    if is_missing(value):
        return None
    try:
        flag = as_flag(name, value) if isinstance(value, (str, bool)) else value
    except InputError:
        flag = value
    if not isinstance(flag, bool):
        raise InputError(
            f"the field {brief(name)} is {brief(value)}, expected a number: a grade, a score, or yes or no (1/0)"
        )
    return float(flag)


def is_word(value: Any) -> bool:
    """Whether a judgement is a yes or a no in words."""
    return isinstance(value, bool) or (
        isinstance(value, str) and not is_missing(value) and not any(map(str.isdigit, value))
    )


def by_order(names: Iterable[str], *, least: int, labelled: bool) -> dict[str, tuple[str, int]] | None:
    """Fields -> parts by their order: sentence-transformers' rule for data sets. None if their number does not fit.

    The first is the query, the second its positive, others negatives; the label is the last, or is called so.
    """
    texts = list(names)
    label = [name for name in texts if spelled(name) in ("label", "labels", "score", "scores")]
    if labelled and not label:
        label = texts[-1:]
    texts = [name for name in texts if name not in label]
    odd = [name for name in (*texts, *label) if len(name) > 60 or name.count(" ") > 3 or is_number(number_in(name))]
    if odd:
        raise InputError(f"has a field called {brief(odd[0])}: the first line is no header, and is needed as one")
    if len(label) != int(labelled) or len(texts) < least or (least == 2 and len(texts) > 2):
        return None
    places = [("query", -1), ("positive", -1), *(("negative", number) for number in range(1, len(texts) - 1))]
    return {**dict(zip(texts, places, strict=True)), **dict.fromkeys(label, ("label", -1))}


def names_ids(name: str) -> bool:
    """Whether a field holds ids by its name: `doc_id`, `chunkIds`, `pid`."""
    words = words_in_name(name)
    return bool(words) and words[-1] in ("id", "ids", "docid", "docids", "pid", "pids", "qid", "uuid", "uuids")
