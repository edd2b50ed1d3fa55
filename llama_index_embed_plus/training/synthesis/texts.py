"""What a text is made of, in any language: words, scripts, sentences, prose; and a text without what was quoted of it.

Guarantees: time grows with the length of a text. Does not know: passages, rules.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import regex

from llama_index_embed_plus.documents.cutting.sentences import sentences
from qdrant_tools.same import query_key

LONGEST_TEXT = 20_000
"""Characters of a passage that are looked at: more than an encoder reads."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}][\w'’-]*", regex.VERSION1)
_UNSPACED_ONE = regex.compile(rf"[{_UNSPACED}]")
_ENDED = regex.compile(r"[\p{Sentence_Terminal}\u2026][\"'\p{Pe}\p{Pf}]*\s*\Z")
_SCRIPTS = ("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Han", "Kana")
_SCRIPT = {
    name: regex.compile(r"[\p{Hiragana}\p{Katakana}]" if name == "Kana" else rf"\p{{{name}}}") for name in _SCRIPTS
}
_FENCE = regex.compile(r"^(```|~~~).*?(?:^\1|\Z)", regex.MULTILINE | regex.DOTALL)
_NO_PROSE = regex.compile(
    r"\s*(?:[|+>#=~^`@$%{}<\[]|[-*_•·‣]{1,3}\s|\d{1,3}[.)]\s|\.\. |:[\w-]+:|//|/\*"
    r"|(?:def|class|import|from|return)\b.*[:()])"
)
_MARKUP = regex.compile(r"^[\s#>*_`=~\-•·]*(?:\d+(?:\.\d+)*[.)]?\s+)?|[\s#*_`=~:¶]*$")
_VISIBLE, _WORDS, _LETTER = regex.compile(r"\S"), regex.compile(r"\S+"), regex.compile(r"[\p{L}\p{M}]")
_BLANK_LINES = regex.compile(r"\n{3,}")
_UNDERLINE = regex.compile(r"\s*([=\-~^\"'`#*+.:_])\1{2,}\s*")


def words(text: str) -> list[str]:
    """The words of a text without case; each character of a script without spaces is one."""
    found: list[str] = _WORD.findall(text[:LONGEST_TEXT].casefold())
    return found


def length(text: str) -> int:
    """How many words a text has; two characters of a script without spaces count as one."""
    found = words(text)
    unspaced = sum(_UNSPACED_ONE.fullmatch(word) is not None for word in found)
    return len(found) - unspaced + (unspaced + 1) // 2


def overlap(query: str, text: str) -> float:
    """The share of the query's distinct words that stand in the text."""
    asked = set(words(query))
    return len(asked & set(words(text))) / len(asked) if asked else 0.0


def script(text: str) -> str:
    """The script most letters are of; "" for a text without letters of a known one. Japanese is `Kana`."""
    if text.isascii():
        return "Latin" if regex.search(r"[a-zA-Z]", text) else ""
    counts = Counter({name: len(pattern.findall(text[:2000])) for name, pattern in _SCRIPT.items()})
    if counts["Kana"] * 4 > counts["Han"] > 0 or counts["Kana"]:
        counts["Kana"] += counts["Han"]
    name, count = counts.most_common(1)[0]
    return name if count else ""


def is_wordy(text: str) -> bool:
    """Whether a text is mostly letters: no code, formula or table."""
    visible = len(_VISIBLE.findall(text[:2000]))
    return visible > 0 and len(_LETTER.findall(text[:2000])) >= 0.75 * visible


def one_line(text: str) -> str:
    """A text on one line, with single spaces."""
    return " ".join(text.split())


def without_code(text: str) -> str:
    """A text without its blocks of code, those among fences."""
    return str(_FENCE.sub("\n\n", text[:LONGEST_TEXT]))


def plain(text: str) -> str:
    """A text on one line without the marks of links, code and emphasis."""
    text = regex.sub(r"!?\[([^\[\]]*)\]\([^()]*\)", r"\1", text)
    text = regex.sub(r":[a-zA-Z][\w:+.-]*:`~?", "`", text)  # reStructuredText's :class:`~a.B`
    return one_line(regex.sub(r"`+|\*\*|(?<!\w)__|__(?!\w)", "", text))


def bare(line: str) -> str:
    """A line without the markup of headings, lists, emphasis and numbering around it."""
    return str(_MARKUP.sub("", line)).strip()


def whole_sentences(text: str) -> Iterator[str]:
    """The sentences of a paragraph that have an end."""
    return (sentence.strip() for sentence in sentences(text) if _ENDED.search(sentence))


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of prose in a text, each on one line: no headings, lists, tables or code."""
    for paragraph in regex.split(r"\n[ \t]*\n", without_code(text)):
        lines = paragraph.splitlines()
        while len(lines) > 1 and (_is_title(lines[0], lines[1]) or _UNDERLINE.fullmatch(lines[0])):
            lines = lines[1:]
        if lines and not any(_NO_PROSE.match(line) for line in lines[:1]) and not lines[0].startswith(("    ", "\t")):
            line = one_line(" ".join(lines))
            if is_wordy(line):
                yield line


def without(text: str, quotes: Sequence[str]) -> str:
    """A text without the quotes: lines that say no more than one of them go whole, else the words alone go."""
    keys = {query_key(bare(quote)) for quote in quotes}
    kept: list[str] = []
    removed = False
    for line in text.splitlines():
        if removed and _UNDERLINE.fullmatch(line):
            continue
        removed = bool(line.strip()) and query_key(bare(line)) in keys
        if not removed:
            kept.append(line)
    rest = "\n".join(kept)
    for quote in sorted(quotes, key=len, reverse=True):
        line = one_line(quote)
        if " " in line or _UNSPACED_ONE.search(line):
            rest = _cut_out(rest, line)
    return str(_BLANK_LINES.sub("\n\n", rest)).strip()


def _cut_out(text: str, quote: str) -> str:
    """A text without each occurrence of a quote, whatever white space there is between its words."""
    if quote.partition(" ")[0] not in text:
        return text
    spans: list[tuple[int, int]] = [match.span() for match in _WORDS.finditer(text)]
    flat = " ".join([text[start:end] for start, end in spans])
    starts: list[int] = []
    length = 0
    for start, end in spans:
        starts.append(length)
        length += end - start + 1

    def place(position: int) -> int:
        word = bisect_right(starts, position) - 1
        return spans[word][0] + position - starts[word]

    parts: list[str] = []
    kept_from, found = 0, flat.find(quote)
    while found >= 0:
        parts.append(text[kept_from : place(found)])
        kept_from = place(found + len(quote) - 1) + 1
        found = flat.find(quote, found + len(quote))
    return "".join([*parts, text[kept_from:]])


def _is_title(line: str, following: str) -> bool:
    """Whether a first line is a title or a name rather than the beginning of a wrapped paragraph."""
    ends = regex.search(r"[.!?。！？:,;]\s*$", line) is not None
    goes_on = following.lstrip()[:1].islower()
    return not ends and not goes_on and (len(line) < 0.6 * len(following) or " " not in line.strip())
