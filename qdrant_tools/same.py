"""Two spellings -> whether they are the same query, or the same id.

`query_key` is the one definition of "the same query" and "the same text": labels, mining, splits, batches, the search
for leaks and the removal of repetitions all compare these keys. Spelling in Unicode (NFKC), case, characters nobody
sees (soft hyphens, zero width spaces), the shape of quotation marks and dashes, white space, a hyphen between words
("beta-thalassemia"), punctuation at the edges of words, and bullets, an ellipsis or brackets around the whole make no
difference. Other punctuation inside a word, and
signs that name things ("C++", "C#", ".NET", "a/b"), do.
`id_key` does less: an id is the name of something, so only composed and decomposed characters are one (macOS writes
file names decomposed).

Guarantees: a key of a key is itself; a redacted query is no typed one; the texts themselves are never changed; time
grows with the length of a text, whatever is in it. Does not know: words, languages.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import cache
from typing import Generic, TypeVar
from urllib.parse import unquote

import regex

from qdrant_tools.errors import InputError, brief

__all__ = [
    "SameTexts",
    "ambiguous",
    "folded",
    "id_key",
    "id_spellings",
    "query_key",
    "respelled",
    "spelled",
    "unlike_spelling",
]

Qrels = Mapping[str, Mapping[str, int]]
T = TypeVar("T")

# signs of names are none of these: + # @ % / and the dot of .NET
_CLOSING = r"[\p{Sentence_Terminal}\p{Terminal_Punctuation}\p{Quotation_Mark}]"
_ASCII_CLOSING, _ASCII_OPENING = "!\"',.:;?", "\"'"
_BULLETS = "-\u2022\u2023\u25aa\u25cf\u25e6"
# in brackets, and none of these brackets inside
_WRAPPED = regex.compile(r"(?|\(([^()]*+)\)|\[([^\[\]]*+)\])")
# x-y may be a difference, x-ray is a word
_HYPHEN = regex.compile(r"(?<=[\p{L}\p{M}]{2})-(?=[\p{L}\p{M}])|(?<=[\p{L}\p{M}])-(?=[\p{L}\p{M}]{2})")
_UNSEEN = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
# UAX #15 lets a letter have 30 marks in a text that is read as a stream; to sort n of them takes n * n steps
_STACK = regex.compile(r"(\p{M}{30})\p{M}+")
# what `log.records` puts in the place of a query
_REDACTED = regex.compile(r"redacted:(?:[0-9a-f]{32})?")
_SHAPES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2039\u203a", "'")
    | {"`": "'"}
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
)


def folded(text: str) -> str:
    """The text without differences of case and of spelling in Unicode: NFKC_Casefold, and Turkish dotted I is i.

    Of more than 30 marks on one letter the first 30 count.
    """
    if text.isascii():
        return text.lower()
    # what one step takes out can let the next one compose: i with dot and acute, a soft hyphen before an accent
    before = ""
    while text != before:
        before = text
        text = _STACK.sub(r"\1", _UNSEEN.sub("", text)) if len(text) > 30 else _UNSEEN.sub("", text)
        text = unicodedata.normalize("NFKC", text).casefold()
        text = unicodedata.normalize("NFKC", text.replace("i\u0307", "i"))
    return text


def query_key(query: str) -> str:
    """Equal for two spellings of one query. A query of nothing but punctuation keeps it, so that "??" is not "!!"."""
    if query.startswith("redacted:") and _REDACTED.fullmatch(query):
        return f"\0{query.rstrip(':')}"  # the NUL keeps it apart from what was typed
    if query.isascii():
        return _without_edges(query.lower().replace("`", "'").split(), _ASCII_CLOSING, _ASCII_OPENING)
    closing, opening = _punctuation()
    return _without_edges(folded(query).translate(_SHAPES).split(), closing, opening)


def _without_edges(words: list[str], closing: str, opening: str) -> str:
    """The words without what closes or opens them; those of punctuation alone stay, but not around the others."""
    bare = [
        word if word.isalnum() else (stem.lstrip(opening) or stem)
        for word in words
        for stem in (word.rstrip(closing) or word,)
    ]
    start, end = 0, len(bare)
    while end and not bare[end - 1].strip(closing + "-"):
        end -= 1
    while start < end and not _opened(bare[start], opening).strip(opening + _BULLETS):
        start += 1
    kept = [_opened(bare[start], opening), *bare[start + 1 : end]] if start < end else words
    key = " ".join(kept)
    # several words: [a-z] and print() are something else
    if " " in key and (inside := _WRAPPED.fullmatch(key)) is not None:
        # another bracket of this kind is not inside: there are no more steps than kinds
        return _without_edges(inside[1].split(), closing, opening)
    return _HYPHEN.sub(" ", key) if "-" in key else key


def _opened(word: str, opening: str) -> str:
    """The first word of a text without an ellipsis before it."""
    return (word.lstrip(f".{opening}") or "-") if word.startswith("...") else word


@cache
def _punctuation() -> tuple[str, str]:
    """What closes and what opens a sentence or a quotation, in any script: all of it is below the third plane."""
    characters = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x20000))))
    opening = regex.findall(r"[\u00a1\u00bf\p{Quotation_Mark}]", characters)
    return "".join(regex.findall(_CLOSING, characters)), "".join(opening)


class SameTexts(Generic[T]):
    """(Query, text) -> what was said of it first, in whatever spelling: `query_key` of both, the query's given.

    The key of a long text takes time: it is made where two texts of one query begin alike.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], tuple[str, T]] = {}
        self._by_key: dict[tuple[str, str], T] = {}

    def setdefault(self, query: str, text: str, value: T) -> T:
        opening = query, _opening(text)
        first = self._first.setdefault(opening, (text, value))
        if first[0] == text:
            return first[1]
        self._by_key.setdefault((query, query_key(first[0])), first[1])
        return self._by_key.setdefault((query, query_key(text)), value)

    def get(self, query: str, text: str) -> T | None:
        first = self._first.get((query, _opening(text)))
        if first is None or first[0] == text:
            return None if first is None else first[1]
        self._by_key.setdefault((query, query_key(first[0])), first[1])
        return self._by_key.get((query, query_key(text)))


def _opening(text: str) -> str:
    """The first letters and digits, which are those of every spelling."""
    return "".join(filter(str.isalnum, folded(text[:200])))[:24]


def id_key(name: str) -> str:
    """Equal for two spellings of one id in Unicode, composed and decomposed (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def id_spellings(name: str) -> tuple[str, ...]:
    """An id as it is given, and then composed and decomposed: what it may be called elsewhere."""
    if name.isascii():
        return (name,)
    return tuple(dict.fromkeys((name, id_key(name), unicodedata.normalize("NFD", name))))


def spelled(names: Iterable[str], stored: Collection[str]) -> dict[str, str]:
    """Name -> the same id as it is spelled in `stored`: itself if it is there. Names that are not there are left out.

    Raises:
        InputError: two of `stored` differ from a name by their composition alone.
    """
    exact = stored if isinstance(stored, Set | Mapping) else frozenset(stored)
    found: dict[str, str] = {}
    others: dict[str, list[str]] | None = None
    for name in names:
        if name in exact:
            found[name] = name
            continue
        if others is None:
            others = {}
            for other in exact:
                if not other.isascii():  # those of plain letters are their own keys
                    others.setdefault(id_key(other), []).append(other)
        key = id_key(name)
        alike = [*others.get(key, ()), *((key,) if key.isascii() and key in exact else ())]
        if len(alike) > 1:
            raise ambiguous(name, alike)
        if alike:
            found[name] = alike[0]
    return found


def respelled(qrels: Qrels, passages: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Judgements with the passages under other ids, as `spelled` finds them; what is not in `passages` stays.

    Raises:
        InputError: two ids of one passage have two grades.
    """
    renamed: dict[str, dict[str, int]] = {}
    for query, grades in qrels.items():
        row = renamed.setdefault(query, {})
        for name, grade in grades.items():
            passage = passages.get(name, name)
            if row.setdefault(passage, grade) != grade:
                raise InputError(
                    f"query {brief(query)} and passage {brief(passage)} have the grades {row[passage]} and {grade}, "
                    "under two spellings of the passage's id: keep one"
                )
    return renamed


def ambiguous(name: str, alike: Sequence[str]) -> InputError:
    """The error for an id that may be either of two others."""
    codes = " and ".join(sorted(ascii(other) for other in alike[:2]))
    return InputError(
        f"the id {brief(name)} may be {codes}, which differ by composed and decomposed characters alone: write one of "
        "them as it is"
    )


def unlike_spelling(names: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """One of `names` that is none of `others`, and the one it most likely means; None if none looks alike.

    For the message of a mismatch: ids that differ by case, white space, a prefix of folders or a host, a part behind
    `#`, an ending, escapes, slashes, dashes, or the zeros of a number are a way of writing, not another passage.
    """
    exact: set[str] = set()
    loose: dict[str, tuple[int, str]] = {}
    for other in others:
        exact.add(id_key(other))
        for level, form in enumerate(_looser(other)):
            if form not in loose or loose[form][0] > level:
                loose[form] = level, other
    for name in names:
        if id_key(name) in exact:
            continue
        for form in _looser(name):
            if form in loose:
                return name, loose[form][1]
    return None


def _looser(name: str) -> Iterator[str]:
    """What is left of an id, step by step, if less and less of its spelling counts; never nothing."""
    form = unquote(folded(name[:_LONGEST_ID])).strip().replace("\\", "/").strip("/{}<>\"'")
    for part in ("", *_PARTS):
        form = (regex.sub(part, "", form) if part else form) or form
        yield form
    yield regex.sub(r"[\s_.-]+", "", form) or form


_LONGEST_ID = 4096
# a scheme and a host, what stands behind an id, folders, an ending, leading zeros and the rest of a float
_PARTS = (
    r"\A(?:[a-z][a-z0-9+.]*://(?:www\.)?|urn:uuid:|\./)",
    r"/?[#?].*\Z|::.*\Z",
    r"/(?:index\.html?)?\Z",
    r"\A.*/",
    r"(?<=.)\.[a-z]{1,5}\Z",
    r"\A0+(?=.)|(?<=\A\d+)\.0+\Z",
)
