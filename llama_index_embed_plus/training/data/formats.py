"""Rows as other tools write them -> rows of our own names, for `reading`.

A row is recognised by the names of its fields: FlagEmbedding, tevatron, DPR, MS MARCO, SQuAD, HotpotQA, MuSiQue,
sentence-transformers' collections and mined lists, SNLI and ANLI, Quora, MRPC, Ragas, DeepEval, LlamaIndex's data sets,
ms-swift, Cohere. A title is put before its text with a space between, as BEIR, tevatron and this project's collections
do; SQuAD's title is left out, as its readers do. Formats of which nobody can say what answers what (chats, prompts
with completions, what a retriever found) are recognised too, and refused with what to make of them.

Guarantees: what is recognised is read whole, or refused; the id of a passage is never trained on as its text; what the
annotators left unanswered gives no positive. Does not know: files, kinds, losses.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index_embed_plus.training.data.records import passage_of
from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import as_flag, is_missing
from qdrant_tools.same import SameTexts, id_key, unlike_spelling
from qdrant_tools.unread import carries_meaning
from qdrant_tools.validation import number_in

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the caller asks for, and what was seen of a file.

    passages: id -> text, for rows that hold ids. scores: whether a teacher's are read. told: the caller knows what the
    rows are, and a word is a text.
    """

    passages: Mapping[str, str] | None = None
    scores: bool = True
    told: bool = False
    seen: Seen = field(default_factory=lambda: Seen())


@dataclass
class Seen:
    """Whether a file has passages of several words, and one of those that are a word."""

    texts: bool = False
    word: tuple[str, Any] | None = None

    def check(self) -> None:
        """Raise `InputError` for a file of single words: they may be ids."""
        if self.word is not None and not self.texts:
            raise _ambiguous(*self.word)


@dataclass(frozen=True)
class Format:
    """One format of rows. `rows` gives ours: one, several or none (left out) for each.

    reads: the names that it understands. ignores: the names that it knows and leaves unread although they carry
    meaning elsewhere; they are named at the end. passages: those of `reads` that are passages here.

    Our rows have the names of `reading`: `query`, `positives` and `negatives` (lists of `{"id", "text"}`), `weight`;
    or `query`, `positive`, `negative_1` ... with `positive_score`, `negative_score_1` ...; or `query`, `passage` and
    `label` for judged pairs; or `sentence1`, `sentence2` and `label`.
    """

    name: str
    reads: frozenset[str]
    matches: Callable[[Fields], bool]
    rows: Callable[[Fields, Asked], Iterator[Fields]]
    ignores: frozenset[str] = frozenset()
    passages: frozenset[str] = frozenset()

    def fits(self, fields: Fields) -> bool:
        """Whether it would read all of a row that is of no other format."""
        said = {name for name, value in fields.items() if not _is_empty(value)}
        return bool(said & self.reads) and said <= self.reads | self.ignores


QUERY = ("query", "anchor", "question", "query_text")
_POSITIVES = (
    "pos", "positive", "positives", "positive_passages", "positive_documents", "positive_docs", "positive_texts",
    "positive_contexts", "positive_passage", "pos_doc", "pos_docs", "relevant_passages", "relevant_docs",
)  # fmt: skip
_NEGATIVES = (
    "neg", "negs", "negative", "negatives", "negative_passages", "negative_documents", "negative_docs",
    "negative_texts", "negative_contexts", "negative_passage", "neg_doc", "neg_docs", "hard_negative",
    "hard_negatives", "hard_neg", "hard_negs", "irrelevant_passages",
)  # fmt: skip
_POSITIVE_IDS = ("positive_document_ids", "positive_ids", "pos_ids", "pos_id", "positive_id", "positive_doc_ids")
_NEGATIVE_IDS = ("negative_document_ids", "negative_ids", "neg_ids", "neg_id", "negative_id", "negative_doc_ids")
_POSITIVE_SCORES = ("pos_scores", "positive_scores", "pos_score")
_NEGATIVE_SCORES = ("neg_scores", "negative_scores", "neg_score")
SCORES = frozenset([*_POSITIVE_SCORES, *_NEGATIVE_SCORES])
TEXT = ("text", "content", "contents", "passage", "passage_text", "paragraph_text", "page_content", "body")
ID = ("id", "_id", "docid", "doc_id", "document_id", "passage_id", "psg_id", "pid", "corpus_id", "idx")
_QUERY_IDS = ("query-id", "query_id", "qid")
_PASSAGE_IDS = ("corpus-id", "corpus_id", "docid", "doc_id", "pid", "passage_id", "document_id", "chunk_id")
_ANSWERS = ("answer", "answers", "ground_truth", "ground_truths", "reference", "reference_answer", "expected_output")
_DOCUMENTS = ("document", "doc", "text", "content", "chunk", "passage_text", "document_text")
_LABELS = ("labels", "label", "scores", "relevance", "relevances", "grades")
_JUDGED = ("label", "score", "relevance", "relevant", "is_relevant", "grade", "rating", "similarity")
_OF_EXAMPLES = ("weight", "synthetic")
# what a passage in a list may say beside its text: a place, or how the tool that wrote it ranked it
_BESIDE_TEXT = frozenset(
    {"score", "title_score", "title", "url", "rank", "has_answer", "metadata", "is_supporting", "is_selected"}
)


# --- passages and their ids


def _given(fields: Fields, names: Sequence[str]) -> list[str]:
    """Those of `names` that say something."""
    return [name for name in names if not _is_empty(fields.get(name))]


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def _only(fields: Fields, names: Sequence[str]) -> str | None:
    """The one of `names` that is there."""
    found = _given(fields, names)
    if len(found) > 1:
        raise InputError(f"has both {found[0]!r} and {found[1]!r}: which one is meant cannot be told; leave one out")
    return found[0] if found else None


def _query(fields: Fields, names: Sequence[str] = QUERY) -> str:
    name = _only(fields, names)
    if name is None:
        raise InputError(f"has no {' or '.join(map(repr, names[:3]))}: expected the text of a query")
    value = fields[name]
    if isinstance(value, list):
        raise InputError(f"{name!r} is a list (of tokens, or INSTRUCTOR's instruction and text): give the text alone")
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name!r} is {brief(value)}, expected a text")
    return value


def _listed(value: Any, name: str) -> list[Any]:
    """A list: of JSON, in a cell into which pandas wrote it, or as the columns of `datasets`; a text is one of one."""
    if value is None:
        return []
    if isinstance(value, str):
        return _list_in(value.strip(), name) if _PRINTED.fullmatch(value) else [value] if value.strip() else []
    if isinstance(value, Mapping):
        return _from_columns(value, name) if any(isinstance(part, list) for part in value.values()) else [value]
    if not isinstance(value, (list, tuple)):
        return [value]
    return list(value)


_PRINTED = re.compile(r"\s*\[\s*(['\"{].*)?\]\s*", re.DOTALL)


def _list_in(text: str, name: str) -> list[Any]:
    """The list that a cell of a table holds, as JSON or as Python prints it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
            # numpy prints arrays without commas, and Python reads 'a' 'b' as one text
            marks = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
            whole = isinstance(found, list) and marks.count(tokenize.STRING) == len(found)
        except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            whole = False
        if not whole:
            raise InputError(
                f"{name!r} is {brief(text)}, the print of a list that cannot be read back: write the rows as .jsonl"
            ) from None
    return list(found)


def _from_columns(value: Fields, name: str) -> list[Any]:
    """`{"text": [a, b], "title": [c, d]}` -> its rows."""
    columns = {key: part for key, part in value.items() if isinstance(part, list)}
    lengths = {len(part) for part in columns.values()}
    if len(lengths) != 1 or len(columns) != len(value):
        raise InputError(f"{name!r} is {brief(value)}, expected lists of one length")
    return [dict(zip(columns, parts, strict=True)) for parts in zip(*columns.values(), strict=True)]


def titled(title: Any, text: str) -> str:
    """`title text`, as every system embeds BEIR's passages."""
    return f"{title} {text}".strip() if isinstance(title, str) and title.strip() else text


def _entry(value: Any, name: str, asked: Asked) -> dict[str, Any]:
    """One passage of a list -> `{"id", "text"}`; an id alone is looked up."""
    if isinstance(value, str):
        if asked.passages is not None and id_key(value) in asked.passages:
            return {"id": value, "text": asked.passages[id_key(value)]}
        if not value.strip():
            raise InputError(f"{name!r} holds {brief(value)}, expected texts")
        return {"id": passage_of(value).id, "text": value}
    if isinstance(value, int) and not isinstance(value, bool):
        return _looked_up(str(value), name, asked)
    if not isinstance(value, Mapping):
        raise InputError(f"{name!r} holds {brief(value)}, expected texts, or objects with 'text'")
    for key in value:
        if key not in _BESIDE_TEXT and key not in TEXT and key not in ID and carries_meaning(str(key)):
            raise InputError(f"a passage of {name!r} has {brief(key)}, which says what it is, and is not read here")
    identity = next((value[key] for key in ID if not _is_empty(value.get(key))), None)
    text = next((value[key] for key in TEXT if not _is_empty(value.get(key))), None)
    if identity is not None and (not isinstance(identity, (str, int)) or isinstance(identity, bool)):
        raise InputError(f"a passage of {name!r} has the id {brief(identity)}, expected a text")
    title = value.get("title")
    if text is None and identity is not None and not title:
        return _looked_up(str(identity), name, asked)
    whole = titled(title, text if isinstance(text, str) else "")
    if not (text is None or isinstance(text, str)) or not whole.strip():
        raise InputError(f"a passage of {name!r} is {brief(value)}, expected a 'text'")
    return {"id": passage_of(whole).id if identity is None else str(identity), "text": whole}


def _looked_up(identity: str, name: str, asked: Asked) -> dict[str, Any]:
    if asked.passages is None:
        raise _only_ids(identity, name)
    text = asked.passages.get(id_key(identity))
    if text is None:
        alike = unlike_spelling([identity], asked.passages)
        hint = f"; did you mean {brief(alike[1])}?" if alike else ""
        raise InputError(f"{name!r} names the passage {brief(identity)}, which is not among the passages given{hint}")
    return {"id": identity, "text": text}


def _only_ids(identity: str, name: str) -> InputError:
    return InputError(
        f"{name!r} holds {brief(identity)}, the id of a passage, and no text: give the passages too "
        "(passages=..., --passages FILE), or write texts"
    )


_FILE_NAME = re.compile(r"[^\n]{1,120}[^\W\d_]\w*\.[A-Za-z][A-Za-z0-9]{0,4}(#\S*)?")
_NUMBERED = re.compile(r"(doc|document|passage|chunk|node|id|page|section|part)[ _#:-]*\d+", re.IGNORECASE)
_MARKED = re.compile(r"\d|[_/#:]|\w-\w")


def like_an_id(value: Any, *, marked: bool = False) -> bool:
    """Whether this may be the name of a passage rather than its text: one word, a number, the name of a file.

    marked: only a word that has a digit or a sign in it, as names have.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return True
    if not isinstance(value, str):
        return False
    name = value.strip()
    words = name.split()
    if _NUMBERED.fullmatch(name) or (len(words) < 6 and _FILE_NAME.fullmatch(name)):
        return True
    if len(words) != 1 or (marked and not _MARKED.search(name)):
        return False
    # a script without spaces writes a whole sentence as one word
    return name.isascii() or "/" in name or bool(re.fullmatch(r".{1,24}[-_#:.]\d+", name))


def _passages(
    fields: Fields, asked: Asked, positive: Sequence[str], negative: Sequence[str] = (), *, words: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The positives and the negatives of a row, under whatever names. words: single words are texts too."""

    def parts(names: Sequence[str]) -> list[tuple[str, Any]]:
        return [(name, part) for name in _given(fields, names) for part in _listed(fields[name], name)]

    found = parts(positive), parts(negative)
    bare = [[(name, part) for name, part in side if isinstance(part, (str, int))] for side in found]
    # a text may be one word; a row of nothing else is one of ids, and so is a side of words with digits and signs
    only_ids = not words and all(like_an_id(part) for side in bare for _, part in side)

    asked.seen.texts |= not only_ids or any(map(len, found)) and not any(map(len, bare))
    asked.seen.word = asked.seen.word or next((part for side in bare for part in side if only_ids), None)

    def parsed(side: int) -> list[dict[str, Any]]:
        marked = not words and all(like_an_id(part, marked=True) for _, part in bare[side])
        if marked and bare[side] and asked.passages is None and not asked.told:
            raise _ambiguous(*bare[side][0])
        ids = asked.passages is not None and (marked or only_ids)
        return [
            _looked_up(str(part), name, asked) if ids and isinstance(part, str) else _entry(part, name, asked)
            for name, part in found[side]
        ]

    return parsed(0), parsed(1)


def _ambiguous(name: str, value: Any) -> InputError:
    return InputError(
        f"{name!r} holds {brief(value)} and the like, which are ids of passages or single words: give the passages "
        'that they name (passages=..., --passages FILE), or write texts as objects, {"text": ...}, or say the kind if '
        "these are the texts (kind='examples', --examples-kind examples)"
    )


def _numbers(fields: Fields, names: Sequence[str], count: int, what: str) -> list[Any] | None:
    """The scores beside a list of `count` passages, None if there are none."""
    name = _only(fields, names)
    if name is None:
        return None
    scores = _listed(fields[name], name)
    if len(scores) != count:
        raise InputError(f"{name!r} has {len(scores)} scores for {count} {what}: expected one for each")
    return scores


# --- lists of positives and negatives: FlagEmbedding, tevatron, Cohere, NeMo, sentence-transformers' {"query", "pos"}


_FLAT = ("passage", "document", "doc", "answer", "response", "context")


def _is_list(fields: Fields) -> bool:
    named = [name for name in (*_POSITIVES, *_NEGATIVES) if fields.get(name) is not None]
    # a list of labels judges a list of passages: those are read by `reading`
    if not _given(fields, QUERY) or any(isinstance(fields.get(name), list) for name in _LABELS):
        return False
    if any(_NUMBERED_NEGATIVE.fullmatch(str(name)) for name in fields):
        return False
    # other rows of the file fill a list that is empty here
    has_list = "positives" not in named and any(isinstance(fields[name], list) for name in named)
    # the first row of a file may have nothing that answers it
    has_place = any(name in _POSITIVES for name in (fields if has_list and not _given(fields, _FLAT) else named))
    return has_place and (has_list or any(not _is_our_own(name, fields[name]) for name in named))


_NUMBERED_NEGATIVE = re.compile(r"(hard_)?neg(ative)?_?\d+")


def _is_flat(fields: Fields) -> bool:
    """Whether a list of negatives stands beside one passage."""
    lists = [name for name in _NEGATIVES if isinstance(fields.get(name), list)]
    return bool(lists) and bool(_given(fields, QUERY)) and len(_given(fields, _FLAT)) == 1


def _of_flat(fields: Fields, asked: Asked) -> Iterator[Fields]:
    yield from _example(_query(fields), *_passages(fields, asked, _FLAT, _NEGATIVES), fields, strict=True)


_OUR_KEYS = frozenset({"id", "text", "score"})


def _is_our_own(name: str, value: Any) -> bool:
    """Whether `reading` itself reads such a field: one text, or passages as objects with exactly an id and a text."""
    if name in ("positive", "negative"):
        return not isinstance(value, (list, tuple, Mapping)) and not (
            isinstance(value, str) and _PRINTED.fullmatch(value)
        )
    return name in ("positives", "negatives") and (
        not isinstance(value, list)
        or all(
            isinstance(entry, Mapping) and {"id", "text"} <= entry.keys() <= {"id", "text", "score"} for entry in value
        )
    )


def _of_list(fields: Fields, asked: Asked) -> Iterator[Fields]:
    query = _query(fields)
    # FlagEmbedding's classes, which may be single words
    classes = str(fields.get("type", "")).startswith("symmetric")
    positives, negatives = _passages(fields, asked, _POSITIVES, _NEGATIVES, words=classes)
    _identify(fields, _POSITIVE_IDS, positives)
    _identify(fields, _NEGATIVE_IDS, negatives)
    good = _numbers(fields, _POSITIVE_SCORES, len(positives), "positives")
    bad = _numbers(fields, _NEGATIVE_SCORES, len(negatives), "negatives")
    if (good is None) != (bad is None) and negatives:
        raise InputError("has scores of one side only, expected pos_scores and neg_scores, or neither")
    if good is None or bad is None or not asked.scores:
        yield from _example(query, positives, negatives, fields, strict=True)
        return
    for passage, score in zip(positives, good, strict=True):
        if negatives:
            yield {
                "query": query, "positive": passage["text"], "positive_score": score,
                **{f"negative_{place}": other["text"] for place, other in enumerate(negatives, start=1)},
                **{f"negative_score_{place}": other for place, other in enumerate(bad, start=1)},
            }  # fmt: skip


def _identify(fields: Fields, names: Sequence[str], passages: list[dict[str, Any]]) -> None:
    """Ids that stand in a list of their own beside the texts."""
    name = _only(fields, names)
    if name is None:
        return
    ids = _listed(fields[name], name)
    if len(ids) != len(passages) or not all(isinstance(identity, (str, int)) for identity in ids):
        raise InputError(f"{name!r} has {len(ids)} ids for {len(passages)} texts: expected one for each")
    for passage, identity in zip(passages, ids, strict=True):
        passage["id"] = str(identity)


def _example(
    query: str,
    positives: list[dict[str, Any]],
    negatives: list[dict[str, Any]],
    fields: Fields | None = None,
    *,
    strict: bool = False,
) -> Iterator[Fields]:
    """One of our rows; none where nothing answers the query. What says the same as a positive is no negative.

    strict: one passage in both lists is an error; of two with the same text, as MS MARCO has them, the negative goes.
    """
    texts: SameTexts[bool] = SameTexts()
    for passage in positives:
        texts.setdefault("", passage["text"], True)
    ids = {passage["id"] for passage in positives}
    both = next((passage for passage in negatives if passage["id"] in ids), None)
    if both is not None and strict:
        raise InputError(f"the passage {brief(both['text'])} is a positive and a negative of one query: leave one out")
    if positives:
        others = [passage for passage in negatives if not texts.get("", passage["text"])]
        row: dict[str, Any] = {"query": query, "positives": positives, "negatives": others}
        weight = None if fields is None else fields.get("weight")
        # a table has its numbers as texts
        row |= {} if weight is None else {"weight": number_in(weight) if isinstance(weight, str) else weight}
        row |= {} if fields is None or "synthetic" not in fields else {"synthetic": fields["synthetic"]}
        yield row


def _is_ids(fields: Fields) -> bool:
    return _all_of(QUERY, _POSITIVE_IDS)(fields) and not _given(fields, _POSITIVES)


def _of_ids(fields: Fields, asked: Asked) -> Iterator[Fields]:
    query = _query(fields)
    found = [
        [_looked_up(str(part), name, asked) for name in _given(fields, names) for part in _listed(fields[name], name)]
        for names in (_POSITIVE_IDS, _NEGATIVE_IDS)
    ]
    yield from _example(query, found[0], found[1], fields)


# --- judged passages


_CANDIDATES = ("documents", "docs", "passages", "texts", "candidates", "candidate_passages", "contexts")


def _is_judged_list(fields: Fields) -> bool:
    lists = [any(isinstance(fields.get(name), list) for name in names) for names in (_CANDIDATES, _LABELS)]
    return bool(_given(fields, QUERY)) and (all(lists) or _judged_entries(fields) is not None)


_OF_ENTRIES = ("label", "relevance", "relevant", "is_relevant", "grade", "rating")


def _judged_entries(fields: Fields) -> tuple[str, str] | None:
    """The field of passages that each say how they are judged, and where they say it."""
    for name in _given(fields, _CANDIDATES):
        parts = fields[name]
        if isinstance(parts, list) and all(isinstance(part, Mapping) for part in parts):
            return next(((name, key) for key in _OF_ENTRIES if any(key in part for part in parts)), None)
    return None


def _of_judged_list(fields: Fields, asked: Asked) -> Iterator[Fields]:
    """Cross-encoders' rows of a query, its documents and a label for each, beside them or inside."""
    if (found := _judged_entries(fields)) is not None:
        for part in fields[found[0]]:
            rest = {key: value for key, value in part.items() if key != found[1]}
            passage = _entry(rest, found[0], asked)
            yield {
                "query": _query(fields), "passage": passage["text"], "passage_id": passage["id"],
                "label": part.get(found[1]),
            }  # fmt: skip
        return
    name, labels = (next(n for n in names if isinstance(fields.get(n), list)) for names in (_CANDIDATES, _LABELS))
    passages, judged = _texts(fields[name], name, asked), fields[labels]
    if len(judged) != len(passages):
        raise InputError(f"{labels!r} has {len(judged)} entries for {len(passages)} texts: expected one for each")
    for passage, label in zip(passages, judged, strict=True):
        yield {"query": _query(fields), "passage": passage["text"], "passage_id": passage["id"], "label": label}


def _is_judged_id(fields: Fields) -> bool:
    texts = (*TEXT, *_DOCUMENTS, *_CONTEXT, *_FLAT, *_POSITIVES, "answers", "sentence", "sentences")
    return _all_of(QUERY, _PASSAGE_IDS, _JUDGED)(fields) and not _given(fields, texts)


def _of_judged_id(fields: Fields, asked: Asked) -> Iterator[Fields]:
    """A query with the id of a passage and what somebody said of it."""
    name = _only(fields, _PASSAGE_IDS)
    passage = _looked_up(str(fields[name or ""]), str(name), asked)
    rest = {key: fields[key] for key in _JUDGED if not _is_empty(fields.get(key))}
    yield {"query": _query(fields), "passage": passage["text"], "passage_id": passage["id"], **rest}


# --- question answering: the passage is what the answer stands in


_CONTEXT = ("context", "passage")
_NO_ANSWER = frozenset({"[]", "{}", "cannotanswer", "no answer", "no answer present", "unanswerable", "not answerable"})
_EMPTY_TEXTS = re.compile(r"['\"]text['\"]\s*:\s*(array\()?\[\s*\]")
_FLAGS = {"is_impossible": False, "answerable": True, "is_answerable": True, "unanswerable": False}


def _is_answered(fields: Fields) -> bool:
    """Whether the annotators found an answer; a row that says nothing about it has one."""
    for name, good in _FLAGS.items():
        flag = as_flag(name, fields.get(name))
        if flag is not None and flag != good:
            return False
    named = [name for name in _ANSWERS if name in fields]
    return not named or any(_says_something(fields[name]) for name in named)


def _says_something(answer: Any) -> bool:
    if isinstance(answer, Mapping):
        return _says_something(answer.get("text", list(answer.values())))
    if isinstance(answer, (list, tuple)):
        return any(map(_says_something, answer))
    if isinstance(answer, str):
        # a CSV of SQuAD's rows: {'text': array([], dtype=object), ...
        if answer.lstrip().startswith("{") and _EMPTY_TEXTS.search(answer):
            return False
        return not is_missing(answer) and answer.strip().strip(".").lower() not in _NO_ANSWER
    return answer is not None


def _is_question_with_context(fields: Fields) -> bool:
    """Whether an answer, or that there is none, stands beside the passage."""
    if not _all_of(QUERY, _CONTEXT)(fields) or any(name.startswith(("neg", "hard")) for name in map(str, fields)):
        return False
    return any(name in fields for name in (*_ANSWERS, *_FLAGS)) and not any(name in fields for name in _JUDGED)


def _of_question_with_context(fields: Fields, asked: Asked) -> Iterator[Fields]:
    query, name = _query(fields), _only(fields, _CONTEXT)
    value = None if name is None else fields[name]
    if not isinstance(value, str):
        raise InputError(f"{name!r} is {brief(value)}, expected the text of a passage")
    if _is_answered(fields):
        yield from _example(query, [_entry(value, str(name), Asked())], [], fields)


def _texts(value: Any, name: str, asked: Asked) -> list[dict[str, Any]]:
    return _passages({name: value}, asked, (name,), ())[0]


def questions_of(article: Fields) -> Iterator[Fields]:
    """An article of SQuAD's nested JSON -> a row for each question, with its paragraph as `context`."""
    for paragraph in _listed(article["paragraphs"], "paragraphs"):
        if not isinstance(paragraph, Mapping) or not isinstance(paragraph.get("qas"), list):
            raise InputError(f"a paragraph is {brief(paragraph)}, expected an object with 'context' and 'qas'")
        for asked_for in paragraph["qas"]:
            if not isinstance(asked_for, Mapping):
                raise InputError(f"a question is {brief(asked_for)}, expected an object with 'question' and 'answers'")
            # one without the field has no answer that was written down
            yield {"answers": None, **asked_for, "context": paragraph.get("context")}


def is_article(fields: Any) -> bool:
    """Whether a row is an article of SQuAD's nested JSON."""
    return isinstance(fields, Mapping) and "paragraphs" in fields and not _given(fields, QUERY)


def _is_musique(fields: Fields) -> bool:
    return "paragraphs" in fields and bool(_given(fields, QUERY))


def _of_hotpot(fields: Fields, asked: Asked) -> Iterator[Fields]:
    """Paragraphs with a supporting sentence answer, the others were chosen to distract."""
    facts = fields["supporting_facts"]
    if isinstance(facts, Mapping):
        titles = facts.get("title") or []
    else:
        titles = [fact[0] for fact in _listed(facts, "supporting_facts") if isinstance(fact, list) and fact]
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for part in _listed(fields["context"], "context"):
        pair = [part.get("title"), part.get("sentences")] if isinstance(part, Mapping) else part
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], list):
            raise InputError(f"'context' holds {brief(part)}, expected titles with their lists of sentences")
        title, sentences = pair
        if not isinstance(title, str) or not all(isinstance(sentence, str) for sentence in sentences):
            raise InputError(f"'context' holds {brief(part)}, expected titles with their lists of sentences")
        text = "".join(s if s[:1].isspace() or not place else f" {s}" for place, s in enumerate(sentences))
        found[title not in titles].append(_entry({"title": title, "text": text.strip()}, "context", asked))
    yield from _example(_query(fields), *found)


def _of_musique(fields: Fields, asked: Asked) -> Iterator[Fields]:
    # their idx counts the paragraphs of one question
    found = _by_flag(_listed(fields["paragraphs"], "paragraphs"), "is_supporting", "paragraph_text", asked, leave="idx")
    if _is_answered(fields):
        yield from _example(_query(fields), *found)


def _by_flag(
    parts: Sequence[Any], flag: str, text: str, asked: Asked, *, leave: str = ""
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Passages with a yes in a field of theirs, and those with a no."""
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for part in parts:
        says = as_flag(flag, part.get(flag)) if isinstance(part, Mapping) else None
        if says is None:
            raise InputError(f"a passage is {brief(part)}, expected {text!r} and {flag!r} (1 or 0)")
        found[not says].append(_entry({**part, leave: None}, text, asked))
    return found


# --- DPR and MS MARCO


_DPR_POSITIVES, _DPR_NEGATIVES = ("positive_ctxs",), ("hard_negative_ctxs", "negative_ctxs")


def _of_dpr(fields: Fields, asked: Asked) -> Iterator[Fields]:
    yield from _example(_query(fields), *_passages(fields, asked, _DPR_POSITIVES, _DPR_NEGATIVES))


def _is_marco(fields: Fields) -> bool:
    passages = fields.get("passages")
    first = passages[:1] if isinstance(passages, list) else [passages]
    return bool(_given(fields, QUERY)) and any(isinstance(part, Mapping) and "is_selected" in part for part in first)


def _of_marco(fields: Fields, asked: Asked) -> Iterator[Fields]:
    parts = _listed(fields["passages"], "passages")
    yield from _example(_query(fields), *_by_flag(parts, "is_selected", "passage_text", asked))


# --- pairs under other names


_ANLI = {"e": "entailment", "n": "neutral", "c": "contradiction"}


def _of_anli(fields: Fields, asked: Asked) -> Iterator[Fields]:
    label = fields["label"]
    yield {
        "premise": fields["context"], "hypothesis": fields["hypothesis"],
        "label": _ANLI.get(label, label) if isinstance(label, str) else label,
    }  # fmt: skip


def _is_titled(fields: Fields) -> bool:
    others = ("passage", "answer", *_POSITIVES, *_POSITIVE_IDS)
    return "title" in fields and _all_of(QUERY, _DOCUMENTS)(fields) and not _given(fields, others)


def _of_titled(fields: Fields, asked: Asked) -> Iterator[Fields]:
    """BEIR's generated queries, and passages with labels."""
    name = _only(fields, _DOCUMENTS)
    assert name is not None  # it matched
    if not isinstance(fields[name], str):
        raise InputError(f"{name!r} is {brief(fields[name])}, expected a text")
    rest = {key: fields[key] for key in (*_JUDGED, *_OF_EXAMPLES) if not _is_empty(fields.get(key))}
    yield {"query": _query(fields), "passage": titled(fields.get("title"), fields[name]), **rest}


def _of_simcse(fields: Fields, asked: Asked) -> Iterator[Fields]:
    rest = {"negative": fields["hard_neg"]} if "hard_neg" in fields else {}
    yield {"query": fields["sent0"], "positive": fields["sent1"], **rest}


_LARGEST_SET = 1000
_ANSWERS_IN_A_SET = 50


def _is_set(fields: Fields) -> bool:
    return isinstance(fields.get("set"), list)


def _of_set(fields: Fields, asked: Asked) -> Iterator[Fields]:
    """Texts that all mean the same: each is a query, and those that follow it, around the end, answer it."""
    parts = _listed(fields["set"], "set")
    if len(parts) > _LARGEST_SET:
        raise InputError(f"the set has {len(parts):,} texts, expected at most {_LARGEST_SET:,} that mean the same")
    texts = [_entry(part, "set", Asked()) for part in parts]
    for place, passage in enumerate(texts):
        others = (texts[place + 1 :] + texts[:place])[:_ANSWERS_IN_A_SET]
        yield from _example(passage["text"], [other for other in others if other["text"] != passage["text"]], [])


def from_array(values: Sequence[Any]) -> Fields:
    """A line of sentence-transformers' collections: `[query, positive]` or `[query, positive, negative]`."""
    if values and all(isinstance(value, Mapping) for value in values):
        raise InputError("a JSON list of rows, where each line should be a row: name the file .json")
    if len(values) not in (2, 3) or not all(isinstance(value, str) for value in values):
        shape = f"an array of {len(values)} values, the first {brief(values[0])}" if values else "an empty array"
        raise InputError(
            f"{shape}, expected an object with fields, or the texts of a query, a positive and at most one negative "
            "(ids have to be replaced by texts)"
        )
    if all(like_an_id(value) and re.search(r"\d", value) for value in values):
        raise InputError(f"an array of {brief(values[0])} and the like, which are ids: write texts in their place")
    return dict(zip(("query", "positive", "negative"), values, strict=False))


# --- data sets for evaluation, and messages


_REFERENCE = ("reference_contexts", "reference_context")
_HOP = re.compile(r"^<\d+-hop>\s*")
_GISKARD = re.compile(r"(?:^|\n\n)Document [\w-]+: ")


def _of_reference(fields: Fields, asked: Asked) -> Iterator[Fields]:
    """Ragas' test sets, LlamaIndex's LabelledRagDataset: the contexts that the question was made from."""
    name = _only(fields, _REFERENCE)
    assert name is not None  # it matched
    parts = _listed(fields[name], name)
    if name == "reference_context" and len(parts) == 1 and isinstance(parts[0], str) and _GISKARD.match(parts[0]):
        parts = [part for part in _GISKARD.split(parts[0]) if part.strip()]
    parts = [_HOP.sub("", part) if isinstance(part, str) else part for part in parts]
    yield from _example(_query(fields, ("user_input", "query", "question")), _texts(parts, name, asked), [])


def _of_golden(fields: Fields, asked: Asked) -> Iterator[Fields]:
    """DeepEval's goldens: `context` is the ideal retrieval."""
    if not isinstance(fields["context"], list):
        raise InputError("'context' is a text, into which DeepEval's CSV joins several: save the data set as JSON")
    yield from _example(_query(fields, ("input",)), _texts(fields["context"], "context", asked), [])


def _of_old_ragas(fields: Fields, asked: Asked) -> Iterator[Fields]:
    if is_missing(fields.get("evolution_type")):
        raise InputError(
            "'contexts' holds what a retriever found, and which of it answers is not said: give the passages that "
            "answer as 'positives', or 'reference_contexts' of a test set"
        )
    yield from _example(_query(fields), _texts(_listed(fields["contexts"], "contexts"), "contexts", asked), [])


def _of_messages(fields: Fields, asked: Asked) -> Iterator[Fields]:
    """ms-swift's rows for embeddings."""
    positives, negatives = (
        [_entry({"text": _message(part, name)}, name, asked) for part in _listed(fields.get(name), name)]
        for name in ("positive_messages", "negative_messages")
    )
    yield from _example(_message(fields["messages"], "messages"), positives, negatives)


def _message(value: Any, name: str) -> str:
    turns = _listed(value, name)
    if len(turns) != 1 or not isinstance(turns[0], Mapping) or not isinstance(turns[0].get("content"), str):
        raise InputError(f"{name!r} holds {brief(value)}, expected one message with a text as its 'content'")
    return str(turns[0]["content"])


def _has(*names: str) -> Callable[[Fields], bool]:
    """Whether a row has all of these fields."""
    return lambda fields: all(name in fields for name in names)


def _all_of(*groups: Sequence[str]) -> Callable[[Fields], bool]:
    """Whether a row has something in one field of each group."""
    return lambda fields: all(_given(fields, names) for names in groups)


_AS_PAIRS = "write what is asked as 'query' and a passage that answers it as 'positive'"


def _form(
    name: str,
    matches: Callable[[Fields], bool],
    rows: Callable[[Fields, Asked], Iterator[Fields]],
    reads: Sequence[str] = (),
    ignores: Sequence[str] = (),
) -> Format:
    return Format(name, frozenset(reads), matches, rows, frozenset(ignores))


FORMATS: tuple[Format, ...] = (
    _form("MS-SWIFT", _has("messages", "positive_messages"), _of_messages,
          ("messages", "positive_messages", "negative_messages")),
    _form("DPR", _has("positive_ctxs"), _of_dpr, (*QUERY, *_DPR_POSITIVES, *_DPR_NEGATIVES), _ANSWERS),
    _form("MS MARCO's questions", _is_marco, _of_marco, (*QUERY, "passages"), (*_ANSWERS, "wellFormedAnswers")),
    _form("HotpotQA", _has("supporting_facts", "context"), _of_hotpot,
          (*QUERY, "context", "supporting_facts"), _ANSWERS),
    _form("MuSiQue", _is_musique, _of_musique, (*QUERY, "paragraphs", *_FLAGS), (*_ANSWERS, "answer_aliases")),
    _form("reference contexts", _all_of(("user_input", "query", "question"), _REFERENCE), _of_reference,
          ("user_input", "query", "question", *_REFERENCE),
          (*_ANSWERS, "reference_answer_by", "reference_context_ids", "retrieved_contexts", "retrieved_context_ids")),
    _form("DeepEval's goldens", _all_of(("input",), ("context",)), _of_golden, ("input", "context"),
          (*_ANSWERS, "actual_output", "retrieval_context")),
    _form("Ragas", lambda fields: "contexts" in fields and not _is_judged_list(fields), _of_old_ragas,
          (*QUERY, "contexts", "evolution_type"), _ANSWERS),
    _form("questions with their context", _is_question_with_context, _of_question_with_context,
          (*QUERY, *_CONTEXT, *_FLAGS, *_ANSWERS, *_OF_EXAMPLES),
          ("plausible_answers", "answer_start", "answer_end", "answer_type", "answer_category", "long_answer")),
    _form("ANLI", _has("context", "hypothesis", "label"), _of_anli, ("context", "hypothesis", "label"), ("reason",)),
    _form("ids of passages", _is_ids, _of_ids, (*QUERY, *_POSITIVE_IDS, *_NEGATIVE_IDS, *_OF_EXAMPLES), _ANSWERS),
    _form("lists of positives and negatives", _is_list, _of_list,
          (*QUERY, *_POSITIVES, *_NEGATIVES, *_POSITIVE_IDS, *_NEGATIVE_IDS, *_POSITIVE_SCORES, *_NEGATIVE_SCORES,
           *_OF_EXAMPLES),
          (*_ANSWERS, "prompt", "query_prompt", "passage_prompt", "instruction", "query_instruction")),
    Format("a passage with a list of negatives", frozenset([*QUERY, *_FLAT, *_NEGATIVES, *_OF_EXAMPLES]), _is_flat,
           _of_flat, passages=frozenset(_FLAT)),
    _form("judged lists", _is_judged_list, _of_judged_list, (*QUERY, *_CANDIDATES, *_LABELS), _ANSWERS),
    _form("judged ids of passages", _is_judged_id, _of_judged_id, (*QUERY, *_PASSAGE_IDS, *_JUDGED)),
    _form("SimCSE's triplets", _has("sent0", "sent1"), _of_simcse, ("sent0", "sent1", "hard_neg")),
    _form("sets of texts", _is_set, _of_set, ("set",)),
    _form("titled passages", _is_titled, _of_titled, (*QUERY, *_DOCUMENTS, "title", *_JUDGED, *_OF_EXAMPLES)),
)  # fmt: skip
"""The formats, in the order in which they are tried."""


_UNREADABLE: tuple[tuple[str, Callable[[Fields], bool], str], ...] = (
    ("MS MARCO's hard negatives", lambda fields: _has("qid", "pos", "neg")(fields) and not _given(fields, QUERY),
     "they are ids: write the texts of query, positives and negatives in their place"),
    ("a chat", lambda fields: bool(_given(fields, ("messages", "conversations"))),
     f"what answers is part of a talk, and no passage: {_AS_PAIRS}"),
    ("a set of preferences", _has("chosen", "rejected"),
     "they compare what a model wrote: name them 'query', 'positive' and 'negative' if they are passages"),
    ("prompts with completions", _has("prompt", "completion"), _AS_PAIRS),
    ("instructions with outputs", _has("instruction", "output"), _AS_PAIRS),
    ("a LangSmith data set", _has("inputs", "outputs"),
     f"which of its fields are passages only its owner knows: {_AS_PAIRS}"),
    ("a Label Studio export", _has("data", "annotations"),
     "write what was annotated as rows of 'query', 'passage' and 'label'"),
    ("what a retriever found", lambda fields: bool(_given(fields, ("ctxs", "retrieved_contexts"))),
     "which of it answers nobody has judged: give the passages that do as 'positives'"),
    ("KILT", lambda fields: isinstance(fields.get("output"), list) and "input" in fields,
     f"its provenance is places in Wikipedia, no texts: {_AS_PAIRS}"),
    ("judgements", lambda fields: _all_of(_QUERY_IDS, _PASSAGE_IDS)(fields)
     and not _given(fields, (*QUERY, *TEXT, *_DOCUMENTS, *_CONTEXT)),
     "they name queries and passages, and hold no texts: give the folder with corpus.jsonl, queries.jsonl and qrels/ "
     "(or the file in qrels/)"),
)  # fmt: skip


def format_of(fields: Fields) -> Format | None:
    """Return the format of a row, None for rows of our own names.

    Raises:
        InputError: a format of which nobody can say what answers what; with what to make of it.
    """
    shape = _shape(fields)
    if shape is not None and shape in _seen:
        return _seen[shape]
    form = next((form for form in FORMATS if form.matches(fields)), None)
    for name, matches, way_out in _UNREADABLE if form is None else ():
        if matches(fields):
            raise InputError(f"is a row of {name}: {way_out}")
    if shape is not None and len(_seen) < 256:
        _seen[shape] = form
    return form


_seen: dict[tuple[tuple[str, bool], ...], Format | None] = {}


def _shape(fields: Fields) -> tuple[tuple[str, bool], ...] | None:
    """The names of a flat row, and which of them say nothing: its format depends on no more. None for other rows."""
    shape = []
    for name, value in fields.items():
        if isinstance(value, (list, tuple, Mapping)) or (isinstance(value, str) and value.lstrip()[:1] == "["):
            return None
        shape.append((name, value is None or value == ""))
    return tuple(shape)
