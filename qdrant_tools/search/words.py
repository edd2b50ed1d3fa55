"""A text in any script -> the words by which it is found, and those by which it asks.

Words are Unicode's (UAX #29): a letter or digit, and all letters, digits and marks that follow. Search needs four of
its rules tailored, where it keeps together what people look for apart, or has no rule:

- Punctuation ends a word, and so does an underscore: `eau` finds "l'eau", `node` finds "node.js".
- Numbers with points or commas inside are found by their parts: 3.11 finds "3.11.7", and not "3 of 11".
- What is written without spaces (Han, kana, Hangul, Thai, Lao, Khmer, Burmese, ...) is found by any part of it: a text
  has each character and each two neighbours, and a query asks for two neighbours where it has them. 京 finds "東京",
  北京 does not.
- C++, C# and F# are names. Emoji are words.

Two spellings of one word are one word: case, composed or not, full width, ligatures, soft hyphens (`same.folded`),
digits and apostrophes of any script, and what writers leave out or choose as they like: points in Arabic and Hebrew,
accents in Greek, stress and the dots of ё in Cyrillic, the nukta in Devanagari, the dot of Turkish i. Accents of Latin
letters stay.

Guarantees: the time is linear in the text. Does not know: languages; stems and stop words are `bm25`'s.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import groupby, pairwise

import regex

from qdrant_tools.same import folded

__all__ = ["Words", "letters", "spaceless", "split"]

_SCRIPTS = r"""\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Tangut}\p{Nushu}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}
\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Javanese}\p{Balinese}\u3006\u303c\u30fc""".replace("\n", "")
# 〆, 〼 and ー above belong to no script of their own; Hangul has spaces, but its particles are no words
_SPACELESS = rf"[[{_SCRIPTS}\p{{Hangul}}]&&[\p{{L}}\p{{N}}]]"
_TIBETAN = r"[\p{Tibetan}&&\p{L}][\p{Tibetan}&&[\p{L}\p{M}]]*+"
_LETTER = rf"[[\p{{L}}\p{{N}}]--{_SPACELESS}]"
_MORE = rf"[[\p{{L}}\p{{N}}\p{{M}}]--{_SPACELESS}]*+"
_PICTURE = r"[\p{Emoji_Presentation}[\p{Extended_Pictographic}&&[\u2600-\U0001faff]]]"
_NAME = r"[a-z](?:\+\+|\#)(?![a-z])"
# the v of a version is no part of the number
_NUMBER = r"v?[0-9]+(?:[.,][0-9]+)+"
# of alphabets: Latin, Greek and Cyrillic without marks of their own, and what Unicode shares among all
_BEYOND_ALPHABETS = re.compile(
    "[^\0-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u200a\u2010-\u2027\u202f-\u205f\u20a0-\u20cf\u2190-\u22ff]"
)
_IN_ASCII = re.compile(rf"{_NUMBER}|{_NAME}|[a-z0-9]+")
_IN_ALPHABETS = re.compile(rf"{_NUMBER}|{_NAME}|[^\W_]+(?:(?<=[\u0400-\u052f])'(?=[\u0400-\u052f])[^\W_]+)*")
_IN_ANY = regex.compile(
    rf"""(?V1){_NUMBER}|{_NAME}|(?:{_SPACELESS}\p{{M}}*+)++|{_TIBETAN}(?:\u0f0b{_TIBETAN})*+
    |{_LETTER}{_MORE}(?:(?:(?<=\p{{Hebrew}})["'](?=\p{{Hebrew}})|(?<=\p{{Cyrillic}})'(?=\p{{Cyrillic}})){_MORE})*+
    |[{_PICTURE}--[\p{{Regional_Indicator}}\p{{Emoji_Modifier}}]]|\p{{Regional_Indicator}}{{2}}""",
    regex.VERBOSE,
)
# 1,234.56, 12,34,567 of India, 1.234,56
_THOUSANDS = re.compile(
    r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+"
)
_IS_SPACELESS = regex.compile(rf"(?V1){_SPACELESS}")
_NEVER_SPACED = regex.compile(rf"(?V1)[[{_SCRIPTS}]&&[\p{{L}}\p{{N}}]]")
_CHARACTER = regex.compile(r"\P{M}\p{M}*+")
# lines that end inside a word: at a soft hyphen, or where there are no spaces
_HYPHENATED = re.compile(r"\xad[^\S\n]*\n[^\S\n]*")
_WRAPPED = regex.compile(rf"(?V1)(?<=[{_SCRIPTS}])[^\S\n]*+\n[^\S\n]*+(?=[{_SCRIPTS}])")

# marks that writers leave out as they like, wherever they are or after letters of one script
_LEFT_OUT = (
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4"
    "\u06e7\u06e8\u06ea-\u06ed\u0730-\u074a\u08d3-\u08e1\u08e3-\u08ff\u093c\u20e3"
)
_SOME_LEFT_OUT = re.compile(f"[{_LEFT_OUT}\u0300-\u036f]")
_ALL_LEFT_OUT = re.compile(f"[{_LEFT_OUT}]+|(?<=[\u0370-\u03ff])[\u0300-\u036f]+|(?<=[\u0400-\u052f])[\u0300\u0301]+")
# the order in which Thai and Lao are typed is not always that in which they are written, and two letters look like one
_TONES = re.compile("([\u0e48-\u0e4b\u0ec8-\u0ecb])([\u0e31\u0e34-\u0e37\u0e4d\u0eb1\u0eb4-\u0eb7\u0ebb\u0ecd])")
_TWO_E, _AE = "\u0e40\u0e40", "\u0e41"
_CHOSEN = {
    **dict.fromkeys("\u02bb\u02bc\u055a\u05f3\u2018\u2019\u201b\ua78b\ua78c", "'"),
    **dict.fromkeys("\u05f4\u201c\u201d\u201e\u201f", '"'),
    "\u0131": "i",
    "\u0451": "\u0435",
    # Arabic and Persian forms of one letter, and those whose dots or hamza are left out
    **dict.fromkeys("\u0649\u06cc", "\u064a"),
    **dict.fromkeys("\u0629\u06c0\u06c1\u06c2\u06c3", "\u0647"),
    "\u06a9": "\u0643",
    "\u0671": "\u0627",
    "\u066b": ".",
    "\u066c": ",",
    # two letters or one: Yiddish
    "\u05f0": "\u05d5\u05d5",
    "\u05f1": "\u05d5\u05d9",
    "\u05f2": "\u05d9\u05d9",
    # letters that have had two spellings in Unicode: Romanian comma and cedilla, Bengali khanda ta, the sha of Tamil
    # shri, Malayalam chillu
    "\u0219": "\u015f",
    "\u021b": "\u0163",
    "\u0bb6": "\u0bb8",
    "\u09ce": "\u09a4\u09cd",
    "\u0d7a": "\u0d23\u0d4d",
    "\u0d7b": "\u0d28\u0d4d",
    "\u0d7c": "\u0d30\u0d4d",
    "\u0d7d": "\u0d32\u0d4d",
    "\u0d7e": "\u0d33\u0d4d",
    "\u0d7f": "\u0d15\u0d4d",
}

# as it was before: a mark ends a word, and every Han character is one
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_LETTERS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def letters(text: str) -> list[str]:
    """The words of collections that say nothing of their words: runs of letters and digits, without marks."""
    return _LETTERS.findall(text.casefold())


@dataclass(frozen=True)
class Words:
    """The words of a text. Treat the lists as fixed."""

    asked: list[str] = field(default_factory=list)
    """Those by which it asks, if it is a query; a passage is found by them."""
    parts: list[str] = field(default_factory=list)
    """What a passage is found by besides: parts of numbers, and of what is written without spaces."""
    length: int = 0
    """How many words, each part of a number and each character of what is written without spaces as one."""


def spaceless(text: str) -> int:
    """How many of its characters are of scripts that have no spaces between words."""
    return 0 if text.isascii() else len(_NEVER_SPACED.findall(text))


def split(text: str) -> Words:
    """The words of a text."""
    asked: list[str] = []
    parts: list[str] = []
    if text.isascii():
        return Words(asked, parts, _add_found(_IN_ASCII, text.lower(), asked, parts))
    if "\xad" in text:
        text = _HYPHENATED.sub("", text)
    if _BEYOND_ALPHABETS.search(text) is None:
        return Words(asked, parts, _add_found(_IN_ALPHABETS, _one_spelling(text), asked, parts))
    if "\n" in text and _NEVER_SPACED.search(text):
        text = _WRAPPED.sub("", text)
    length = 0
    # much of such a text is often ASCII, and words come again
    for ascii_only, pieces in groupby(text.split(), str.isascii):
        if ascii_only:
            length += _add_found(_IN_ASCII, " ".join(pieces).lower(), asked, parts)
            continue
        for piece in pieces:
            words = _remembered(piece) if len(piece) <= _SHORT else _split_piece(piece)
            asked += words.asked
            parts += words.parts
            length += words.length
    return Words(asked, parts, length)


def _add_found(pattern: re.Pattern[str], text: str, asked: list[str], parts: list[str]) -> int:
    """Add the words that a pattern finds, and return how many they are."""
    found = pattern.findall(text)
    if all(map(str.isalnum, found)):
        asked += found
        return len(found)
    length = 0
    for word in found:
        if word.isalnum():
            asked.append(word)
            length += 1
        else:
            length += _add(word, asked, parts)
    return length


def _split_piece(piece: str) -> Words:
    """The words of a text without spaces."""
    asked: list[str] = []
    parts: list[str] = []
    found = _IN_ANY.findall(_one_spelling(piece))
    return Words(asked, parts, sum(_add(word, asked, parts) for word in found))


_SHORT = 24
_remembered = lru_cache(maxsize=20_000)(_split_piece)


def _add(word: str, asked: list[str], parts: list[str]) -> int:
    """Add a word, or what it is asked and found by, and return its length."""
    if word.isascii():
        if word.isalnum() or word[-1] in "+#":
            asked.append(word)
            return 1
        links = re.split("[.,]", word)
        links[0] = links[0].removeprefix("v")
        pairs = _pairs(links, ".")
        if _THOUSANDS.fullmatch(word):
            parts += pairs
            *whole, last = links
            # 1,000 is 1000, and 1,234.56 is 1234.56
            pairs = ["".join(links)] if word.count(",") == len(whole) else ["".join(whole) + "." + last]
    elif _IS_SPACELESS.match(word):
        links = _CHARACTER.findall(word)
        pairs = _pairs(links, "")
    elif "'" in word or '"' in word:
        # one word with and without the sign, and found by what the sign sets off
        links = re.split("['\"]", word)
        pairs = ["".join(links)]
    else:
        links = word.split("\u0f0b")
        pairs = _pairs(links, "\u0f0b")
    if len(links) == 1:
        asked += links
        return 1
    asked += pairs
    parts += links
    return len(links)


def _pairs(links: list[str], between: str) -> list[str]:
    return [first + between + second for first, second in pairwise(links)]


def _one_spelling(text: str) -> str:
    chosen, table = _choices()
    text = chosen.sub(lambda found: table.get(found[0], found[0]), folded(text))
    if _SOME_LEFT_OUT.search(text):
        text = _ALL_LEFT_OUT.sub("", text)
    return _TONES.sub(r"\2\1", text.replace(_TWO_E, _AE))


@cache
def _choices() -> tuple[re.Pattern[str], dict[str, str]]:
    """What is written in several ways -> one of them, and a pattern that finds it."""
    table: dict[str, str] = {}
    # Greek, Cyrillic, Arabic and Devanagari letters that hold a mark which may be left out
    for start, end in ((0x370, 0x400), (0x1F00, 0x2000), (0x620, 0x700), (0x929, 0x935)):
        for letter in map(chr, range(start, end)):
            base = unicodedata.normalize("NFD", letter)[0]
            if base != letter and letter.isalpha():
                table[letter] = base
    table |= {"\u0450": "\u0435", "\u045d": "\u0438"} | _CHOSEN
    for digit in map(chr, range(0x80, 0x20000)):
        if (value := unicodedata.decimal(digit, None)) is not None:
            table[digit] = str(value)
    # digits beyond the first plane as one range: a class of many of those is slow
    return re.compile("[" + "".join(key for key in table if key < "\U00010000") + "\U00010000-\U0001ffff]"), table
