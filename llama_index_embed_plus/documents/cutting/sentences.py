"""A text -> its sentences, and a stretch that is too long -> smaller ones: lines, clauses, words, characters.

A sentence ends at the stop of its script (Unicode's Sentence_Terminal, with the quotes and brackets that close after
it). Latin, Greek and Cyrillic stops need a space behind them, and a point ends no sentence after an abbreviation, an
initial or a short number, nor before a small letter. In Thai and Lao, which have no stop, a space ends one.

Guarantees: what is returned, joined, is the text; the time is linear in it; where a text is parted depends on what
stands near that place only. Does not know: tokens, blocks.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from enum import IntEnum

import regex

__all__ = ["Border", "parts_of", "sentences", "spread"]


class Border(IntEnum):
    """What a place inside a block is; the higher the better a place to cut."""

    INSIDE = 0
    """Of a word, or between characters that no space divides."""
    WORD = 1
    CLAUSE = 2
    LINE = 3
    SENTENCE = 4


_CLOSING = r"""["'\p{Pe}\p{Pf}]*+"""
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc"
_END = regex.compile(
    rf"""(?V1)
    [\p{{SB=STerm}}--[!?]] [\p{{SB=STerm}}\u2026]*+ {_CLOSING} \s*+
    | \uff0e (?!\d) {_CLOSING} \s*+
    | (?<![!?]) [!?]++ {_CLOSING} (?=[{_UNSPACED}])
    | (?<![.!?\u2026\u2024]) (?P<stop> [.!?\u2026\u2024]++ ) {_CLOSING} \s++
    | [\u0f0d\u0f0e]++ \s++
    | (?<=[\p{{Thai}}\p{{Lao}}]) \s++ (?=[\p{{Thai}}\p{{Lao}}])
    """,
    regex.VERBOSE,
)
_ASCII_END = re.compile(r"(?<![.!?])(?P<stop>[.!?]++)[\"')\]}]*+\s++")
_LAST_WORD = re.compile(r"[^\s(\[{\"'\u2018\u201c\u00ab\u201e]*\Z")
_LOOK_BACK = 24
# of English, German, French, Spanish, Italian, Dutch, Polish and Russian, without their last point
_SHORT_WORDS = """
mr mrs ms dr prof st sr jr rev hon gen col capt lt sgt gov messrs mt ft vs etc cf al approx ca est dept univ inc ltd co
corp bros ave blvd rd jan feb apr jun jul aug sep sept oct nov dec viz incl excl resp max avg
bzw usw vgl evtl ggf hrsg inkl str zzgl bspw sog gem geb jh jhdt mio mrd mme mlle env sra srta ud uds ing sig dott avv
ecc blz bijv enz dhr mevr prof in\u017c tzn np tzw
\u0443\u043b \u0440\u0438\u0441 \u0442\u0430\u0431\u043b \u0441\u043c \u0438\u043c \u043f\u0440\u043e\u0444
\u0433\u043b \u043d\u0430\u043f\u0440
"""
_BEFORE_NUMBERS = (
    "no nos nr fig figs eq eqs vol vols p pp ed eds ch chap sec sect par art app ref tab abb bd pag mar tel"
)
_ABBREVIATIONS = frozenset(_SHORT_WORDS.split())
_NUMBERED = frozenset(_BEFORE_NUMBERS.split())
_CLAUSE_ENDS = frozenset(
    ",;:\u2013\u2014\u037e\u055d\u060c\u061b\u1363\u1364\u1365\u1366\u3001\uff0c\uff1b\uff1a\u2026"
)
_WORD = re.compile(r"\S+\s*|\s+")
_CHARACTER = regex.compile(r"\X")
_RUN = 16
_HELD_TOGETHER = 64
"""Characters of a word that is no longer than words are: it is parted only where it must be."""


def sentences(text: str) -> list[str]:
    """Part a text after each sentence; the space between two stays with the first."""
    parts, start = [], 0
    for found in (_ASCII_END if text.isascii() else _END).finditer(text):
        end = found.end()
        if end == len(text):
            break
        if found["stop"] and _goes_on(text, found.start(), found["stop"], text[end]):
            continue
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]]


def _goes_on(text: str, stop: int, stops: str, after: str) -> bool:
    """Whether the sentence goes on behind these stops, which a space follows and the character `after`."""
    if after.islower():
        return True
    if stops != ".":
        return False
    found = _LAST_WORD.search(text, max(0, stop - _LOOK_BACK), stop)
    word = found[0] if found else ""
    if word.isdecimal():
        return len(word) <= 2
    links = word.lower().split(".")
    # U.S., e.g., z.B., initials
    if links[-1] in _NUMBERED:
        return after.isdecimal()
    return links[-1] in _ABBREVIATIONS or all(len(link) == 1 and link.isalpha() for link in links)


def parts_of(text: str, most: int) -> Iterator[tuple[str, Border]]:
    """Part a text into stretches of about `most` characters at most, each with what stands before it.

    A stretch ends with a line or a clause if it may, and else with a word that its letters choose, so that an insertion
    shifts the next few places and not all of them.
    """
    part, border = "", Border.SENTENCE
    before = Border.SENTENCE
    for word, after in _words(text, most):
        if part and (len(part) + len(word) > most or (4 * len(part) >= most and _is_good(part, before))):
            yield part, border
            part, border = "", before
        part += word
        before = after
    if part:
        yield part, border


def _is_good(part: str, border: Border) -> bool:
    return border >= Border.CLAUSE or spread(part[-16:]) < 0.25


def _words(text: str, most: int) -> Iterator[tuple[str, Border]]:
    """Words with the space behind them, long ones as single characters, each with what the place behind it is."""
    for found in _WORD.finditer(text):
        word = found[0]
        bare = word.rstrip()
        if len(bare) > max(1, min(most, _HELD_TOGETHER)):
            *characters, last = _characters(word, most)
            for character in characters:
                yield character, Border.CLAUSE if character[-1] in _CLAUSE_ENDS else Border.INSIDE
            word = last
        if "\n" in word:
            yield word, Border.LINE
        elif bare and bare[-1] in _CLAUSE_ENDS:
            yield word, Border.CLAUSE
        else:
            yield word, Border.WORD if len(word) > len(bare) else Border.INSIDE


def _characters(word: str, most: int) -> list[str]:
    """What a reader takes for one character, unless that alone is too long; runs of some where many fit."""
    characters: list[str] = []
    for whole in _CHARACTER.findall(word):
        characters += [whole] if len(whole) <= max(1, most) else list(whole)
    if most < 4 * _RUN:
        return characters
    runs, run = list[str](), ""
    for character in characters:
        run += character
        # one of eight letters of any script ends a run, whatever stands before
        if ord(character[0]) * 2654435761 & 0xE000 == 0 or len(run) >= _RUN:
            runs.append(run)
            run = ""
    return [*runs, run] if run else runs


def spread(text: str) -> float:
    """A number from 0 to 1 that follows from the text and looks drawn at random."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) / 2**32
