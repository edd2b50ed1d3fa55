"""Two spellings -> whether they are the same query, or the same id.

`query_key` is the one definition of "the same query": labels, mining, splits, the search for leaks and the removal of
repetitions all compare these keys. Spelling in Unicode (NFKC), case, characters nobody sees (soft hyphens, zero width
spaces), white space and punctuation at the edges make no difference. Punctuation inside, and signs that name things
("C++", "C#", ".NET"), do. `id_key` does less: an id is the name of something, so only composed and decomposed
characters are one (macOS writes file names decomposed).

Guarantees: a key of a key is itself; the texts themselves are never changed. Does not know: words, languages.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import regex

__all__ = ["folded", "id_key", "query_key", "unlike_spelling"]

# what closes or opens a sentence in any script; not the signs of names: + # @ % / .NET
_CLOSING = r"\p{Sentence_Terminal}\p{Terminal_Punctuation}\p{Quotation_Mark}\u2026\s"
_OPENING = r"\u00a1\u00bf\p{Quotation_Mark}\s"
_EDGES = regex.compile(rf"^[{_OPENING}]+|[{_CLOSING}]+$")
_UNSEEN = regex.compile(r"\p{Default_Ignorable_Code_Point}+")


def folded(text: str) -> str:
    """The text without differences of case and of spelling in Unicode: NFKC_Casefold, and Turkish dotted I is i."""
    # twice: case folding may give forms that NFKC changes again
    lower = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    seen: str = _UNSEEN.sub("", lower.replace("i\u0307", "i"))
    return seen


def query_key(query: str) -> str:
    """Equal for two spellings of one query. A query of nothing but punctuation keeps it, so that "??" is not "!!"."""
    spaced = " ".join(folded(query).split())
    return _EDGES.sub("", spaced) or spaced


def id_key(name: str) -> str:
    """Equal for two spellings of one id in Unicode, composed and decomposed (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def unlike_spelling(names: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """One of `names` that is none of `others`, and the one it most likely means; None if none looks alike.

    For the message of a mismatch: ids that differ by case, white space, a prefix of folders, an ending, or leading
    zeros are a way of writing, not another passage.
    """
    exact: dict[str, str] = {}
    loose: dict[str, str] = {}
    for other in others:
        exact[id_key(other)] = other
        loose.setdefault(_bare(other), other)
    for name in names:
        if id_key(name) not in exact and (alike := loose.get(_bare(name))) is not None:
            return name, alike
    return None


def _bare(name: str) -> str:
    """What is left of an id without folders, an ending, case, spaces and leading zeros."""
    last = folded(name).strip().rsplit("/", 1)[-1]
    stem, dot, ending = last.rpartition(".")
    if dot and stem and ending.isalpha() and len(ending) <= 5:
        last = stem
    return last.lstrip("0") or last
