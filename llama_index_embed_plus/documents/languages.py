"""A text -> the language it is written in, as far as it tells.

Guarantees: a text that is too short, or is likely to be code or numbers, has no language here, rather than a wrong one.
Without the extra `files` only the script is told. The time has a bound. Does not know: files.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from functools import cache
from importlib.util import find_spec

UNKNOWN = "unknown"
READ = 1000
"""Characters of a text that are looked at."""
FEWEST_LETTERS, FEWEST_SIGNS = 20, 6
"""In alphabets; and in scripts whose characters are syllables or words."""
LEAST_SURE = 0.5

_LETTERS = re.compile(r"[^\W\d_]")
_DENSE = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL"}
_SCRIPTS = {
    "LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "TAMIL", "TELUGU", "THAI", "GEORGIAN",
    "ARMENIAN", *_DENSE,
}  # fmt: skip


def knows_languages() -> bool:
    """Whether the library that tells languages apart is installed."""
    return find_spec("py3langid") is not None


def language_of(text: str) -> str:
    """The language of a text as ISO 639-1 (`de`), or `unknown`; without the library its script (`Latin script`)."""
    letters = _LETTERS.findall(text[:READ])
    dense = sum(_script(letter) in _DENSE for letter in letters)
    if dense < FEWEST_SIGNS and len(letters) - dense < FEWEST_LETTERS:
        return UNKNOWN
    # most characters of a text are letters and spaces; of code and numbers they are not
    if len(letters) + sum(map(str.isspace, text[:READ])) < 0.6 * len(text[:READ]):
        return UNKNOWN
    if not knows_languages():
        return f"{script_of(letters)} script"
    language, sure = _identified(text[:READ])
    # zxx: no language at all
    return language if sure >= LEAST_SURE and language != "zxx" else UNKNOWN


def script_of(letters: list[str]) -> str:
    """The script of most letters, with a large initial."""
    scripts = Counter(map(_script, letters))
    # one text in three scripts: kana tell it from Chinese
    if scripts["HIRAGANA"] or scripts["KATAKANA"]:
        return "Japanese"
    return scripts.most_common(1)[0][0].capitalize().replace("Cjk", "Han")


@cache
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "OTHER").split()[0]
    return name if name in _SCRIPTS else "OTHER"


def _identified(text: str) -> tuple[str, float]:
    """The most likely language, and how likely it is among all."""
    import py3langid

    ranked = py3langid.rank(text)
    # log likelihoods of a whole text are far apart; the root of its length makes them comparable, as the library does
    heat = math.sqrt(len(text.encode("utf-8", "surrogatepass")) or 1)
    best = ranked[0][1]
    return str(ranked[0][0]), 1 / sum(math.exp(max(-700.0, (score - best) / heat)) for _, score in ranked)
