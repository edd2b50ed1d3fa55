"""A passage and an overview of its collection -> queries that the passage answers, by rules of structure.

Each rule is a function of its own; `RULE` names them. A query says which words of its passage it has taken (`quotes`),
so that training need not see them twice. Guarantees: deterministic; nothing is made up: every query stands in the
collection word for word, a heading with the heading above it. Does not know: whether a query is any good (`filters`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import PurePosixPath

import regex

from llama_index_embed_plus.documents.cutting.stretches import PATH_SEPARATOR
from llama_index_embed_plus.training.synthesis.code import described
from llama_index_embed_plus.training.synthesis.generic import LABELS, NO_ANCHOR, POINTING, PRONOUNS
from llama_index_embed_plus.training.synthesis.overview import Overview, Seen, headings_in
from llama_index_embed_plus.training.synthesis.records import Made, Rule
from llama_index_embed_plus.training.synthesis.texts import (
    bare,
    is_wordy,
    length,
    one_line,
    paragraphs,
    plain,
    whole_sentences,
    words,
)
from qdrant_tools.same import query_key

_ASKED = r"(?:Q|F|P|Question|Frage|Pregunta|Domanda|Pergunta|Вопрос|问|問|質問)\s?\d*\s?[:.：]\s*"
_QUESTION = regex.compile(
    rf"^[\s#>*_\-•\d.)]*(?:\*\*|__)?(?:{_ASKED})?"
    r"(?P<question>[^\n|]{4,300}?[?？؟])(?:\*\*|__|[\s#*_])*(?:$|\s(?=(?:A|Antwort|Answer)\s?[:：]))",
    regex.MULTILINE | regex.IGNORECASE,
)
_LINK = regex.compile(
    r"(?<!!)\[(?P<anchor>[^\[\]\n]{3,200})\]\(<?(?P<target>[^()\s<>]{1,500})>?(?:\s+[\"'][^\"'\n]*[\"'])?\)"
)
_HTML_LINK = regex.compile(
    r"<a\s[^<>]{0,500}?href=[\"'](?P<target>[^\"'<>]{1,500})[\"'][^<>]{0,500}>(?P<anchor>[^<>]{3,200})</a>",
    regex.IGNORECASE,
)
_NOTE = regex.compile(r"\b(?:XXX|TODO|FIXME|HACK|noqa|type:|pragma|eslint|pylint|Copyright|Licen[cs]ed?)\b")
_CODE = regex.compile(
    r".*\.(?:pyi?|[cm]?jsx?|tsx?|java|kts?|scala|go|rs|c|h|cc|cpp|hpp|cs|swift|rb|php|lua|sql|sh|r|jl|exs?|hs|ml|dart)",
    regex.IGNORECASE,
)
_STATEMENT = regex.compile(r"[;{}]|(?<![=!<>])=(?!=)|\w\([\"'`]|^(?:return|const|let|var|await)\b")
"""Of a program: a question mark ends lines of it too."""
_COPYRIGHT = regex.compile(r"Copyright\b(?=.{0,40}(?:©|\([cC]\)|\d{4}))")
_ANSWER_WORDS = 6
SHORTEST_SENTENCE, LONGEST_SENTENCE = 5, 30
"""Words of a first sentence that still is a query."""
_MOST_PER_PASSAGE = 8
"""Of one rule."""


def faq(seen: Seen, overview: Overview) -> Iterator[Made]:
    """Questions that stand on a line of their own, as heading, or at the beginning of a paragraph, and are answered."""
    if _is_code(seen):
        return
    if seen.headings and seen.headings[-1].rstrip().endswith(("?", "？", "؟")) and overview.begins_section(seen):
        yield _made(seen, "faq", _question(seen.headings[-1]), _heading_quotes(seen))
    found = list(_QUESTION.finditer(seen.text))
    for match, following in zip(found, [*found[1:], None]):
        answer = seen.text[match.end() : following.start() if following else None]
        if length(answer) >= _ANSWER_WORDS:
            yield _made(seen, "faq", _question(match["question"]), (match["question"].strip(),))
    for paragraph in islice(paragraphs(seen.text), 3):
        first = next(whole_sentences(paragraph), "")
        if _asks(first) and length(paragraph) - length(first) >= _ANSWER_WORDS:
            yield _made(seen, "faq", _question(first), (first,))


def titles(seen: Seen, overview: Overview) -> Iterator[Made]:
    """The title of a document, for the passage that it begins with: its metadata's, or its first heading; and what its
    metadata describe it as."""
    if not overview.begins_document(seen):
        return
    if seen.description:
        yield _made(seen, "titles", plain(seen.description), (seen.description, *seen.front_matter))
    title = seen.title or (seen.headings[0] if seen.headings else "")
    if title and not overview.is_generic(title):
        yield _made(seen, "titles", one_line(title), (title, *_heading_quotes(seen), *seen.front_matter))
    elif seen.path and not _is_code(seen):
        name = regex.sub(r"[_\-.+]+", " ", regex.sub(r"(\p{Ll})(\p{Lu})", r"\1 \2", PurePosixPath(seen.path).stem))
        if not regex.search(r"\d{3}|^\d", name) and not overview.is_generic(name):
            yield _made(seen, "titles", one_line(name), (name,))


def headings(seen: Seen, overview: Overview) -> Iterator[Made]:
    """The heading of a section, with the one above it where it is short, for the passage that it begins with."""
    if seen.headings and overview.begins_section(seen) and not _asks(seen.headings[-1]):
        query = _with_context(seen.headings, overview)
        if query:
            yield _made(seen, "headings", query, _heading_quotes(seen))
    if _is_code(seen):  # where # begins a comment
        return
    inside = [heading for heading in headings_in(seen.text) if heading not in seen.headings]
    for heading in inside:
        path = (*seen.headings, heading) if seen.headings else (*((seen.title,) if seen.title else ()), heading)
        query = "" if _asks(heading) else _with_context(path, overview)
        if query:
            yield _made(seen, "headings", query, (heading,))


def docstrings(seen: Seen, overview: Overview) -> Iterator[Made]:
    """What is written about a piece of code, for the code: the first sentence of a docstring, or of a comment above a
    definition."""
    for text in described(seen.text, is_code=_is_code(seen)):
        first = one_line(regex.split(r"\n[ \t]*\n|\n[ \t]*[@:\\]\w", text, maxsplit=1)[0])
        summary = next(whole_sentences(first), first).lstrip("+-*= ")
        begins = next(iter(words(summary)), "")
        if is_wordy(summary) and begins not in POINTING and not _NOTE.search(summary):
            yield _made(seen, "docstrings", plain(summary).rstrip("."), (summary,))


def links(seen: Seen, overview: Overview) -> Iterator[Made]:
    """The text of a link to another passage of the collection, for that passage."""
    for pattern in (_LINK, _HTML_LINK):
        for match in pattern.finditer(seen.text):
            anchor = plain(match["anchor"])
            target = overview.target(seen, match["target"])
            is_name = regex.fullmatch(r"[\w./\\-]+", anchor) is not None
            if target and target != seen.id and not is_name and query_key(anchor) not in NO_ANCHOR:
                yield Made(anchor, target, target, "links", (anchor,))


def first_sentences(seen: Seen, overview: Overview) -> Iterator[Made]:
    """The first sentence of a passage that is understood by itself."""
    if _is_code(seen):
        return
    for paragraph in islice(paragraphs(_below_title(seen)), 2):
        for sentence in islice(whole_sentences(paragraph), 3):
            first = next(iter(words(sentence)), "")
            fits = SHORTEST_SENTENCE <= length(sentence) <= LONGEST_SENTENCE and not _asks(sentence)
            fits = fits and not _COPYRIGHT.match(sentence)
            # a small letter: a sentence that was cut, or the name of a variable
            if fits and first not in POINTING and (sentence[0].isalnum() and not sentence[0].islower()):
                yield _made(seen, "first-sentences", _unlabelled(plain(sentence)), (sentence,))
                return


def _is_clear(question: str) -> bool:
    """Whether a question says what it is about, and is no line of a program."""
    if _STATEMENT.search(question):
        return False
    return length(question) > 4 or PRONOUNS.isdisjoint(words(question))


RULE: Mapping[Rule, Callable[[Seen, Overview], Iterator[Made]]] = {
    "faq": faq,
    "titles": titles,
    "headings": headings,
    "docstrings": docstrings,
    "links": links,
    "first-sentences": first_sentences,
}


def queries_of(seen: Seen, overview: Overview, rule: Rule) -> list[Made]:
    """The queries that one rule makes of one passage, none twice."""
    made_of = islice(RULE[rule](seen, overview), 4 * _MOST_PER_PASSAGE)
    found = {query_key(made.query): made for made in made_of if rule != "faq" or _is_clear(made.query)}
    return list(found.values())[:_MOST_PER_PASSAGE]


def _made(seen: Seen, rule: Rule, query: str, quotes: tuple[str, ...]) -> Made:
    return Made(query, seen.id, seen.document, rule, quotes)


def _with_context(path: tuple[str, ...], overview: Overview) -> str:
    """A heading, behind the nearest one above it that says something where it says little itself; "" if none does."""
    heading = _clean(path[-1])
    above = [_clean(part) for part in path[:-1] if not overview.is_generic(part)]
    # what stands before a colon names the whole, and what follows explains it
    nearest = regex.split(r"[:(–—]|[.!?](?=\s|$)", above[-1], maxsplit=1)[0].strip() if above else ""
    if overview.is_generic(path[-1]):
        return f"{nearest}: {heading}" if nearest else ""
    return f"{nearest}: {heading}" if nearest and length(heading) < 4 else heading


def _clean(heading: str) -> str:
    return bare(plain(heading))


def _below_title(seen: Seen) -> str:
    """The text of a passage without the title or heading that some readers put on its first line."""
    for title in (seen.title, *reversed(seen.headings)):
        if title and seen.text.startswith(title) and not seen.text[len(title) :].lstrip()[:1].islower():
            return seen.text[len(title) :].lstrip(" .:")
    return seen.text


def _unlabelled(sentence: str) -> str:
    """A sentence without the label of its section ("BACKGROUND Bees ...", "Key Points - Bees ...")."""
    parts = sentence.split()
    for count in range(4, 0, -1):
        rest = " ".join(parts[count:]).lstrip("-:–— ")
        if query_key(" ".join(parts[:count])) in LABELS and rest[:1].isupper():
            return rest
    return sentence


def _heading_quotes(seen: Seen) -> tuple[str, ...]:
    return (*seen.headings, PATH_SEPARATOR.join(seen.headings)) if seen.headings else ()


def _question(text: str) -> str:
    return one_line(regex.sub(rf"^{_ASKED}", "", _clean(text), flags=regex.IGNORECASE))


def _asks(heading: str) -> bool:
    return heading.rstrip(" *_").endswith(("?", "？", "؟"))


def _is_code(seen: Seen) -> bool:
    return _CODE.fullmatch(PurePosixPath(seen.path or seen.document).name) is not None
