"""Hits -> what a person reads: where each comes from, and the part of its text that answers; and the same as JSON.

Guarantees: hits of any collection look fine, whatever their metadata hold; an excerpt is whole words of the text, in
their order. Does not know: how hits were found, terminals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from qdrant_client import models

from llama_index_embed_plus.cli.console import heading, paragraph, say, width
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import InputError, brief, listed
from qdrant_tools.fields import Field, values_at
from qdrant_tools.records import Hit
from qdrant_tools.search.around import HEADINGS, PART, Stretch, texts_of
from qdrant_tools.search.options import occurs
from qdrant_tools.search.words import split
from qdrant_tools.search.written import read_condition
from qdrant_tools.sources.origin import SourcedHit

EXCERPT_LINES, CODE_LINES = 3, 6
EXCERPT_CHARACTERS = 300
"""Of an excerpt in JSON, which has no lines."""
READ = 20_000
"""Characters of a text in which an excerpt is looked for."""
DEEPEST = 10_000
"""Hits among which documents are looked for."""
SAMPLES = 20
"""Passages that say which metadata there are."""
SHORT_LINE = 40
MARGIN = " " * 12

_UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)
_BORDER = re.compile(r"(?<=[.!?\u2026])\s+|(?<=[\u3002\uff01\uff1f])\s*|\s*\n\s*")
# no item of a list, no row of a table, no code, no heading
_PROSE = re.compile(r" {0,3}(?![-*+|>#]|[0-9]+[.)] )\S")
_CODE = re.compile(r"^ {4}|^(?:from [\w.]+ )?import \w|^\t|```|[;{}]\s*$|\w\(|\w = | == |->|</")
# a line without letters and digits: under a heading, in a table
_RULE = re.compile(r"[^\w]{0,3}|[\s|:=~+*-]+")
_ENDS = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f", ":", ",", ";")
_PAGES = {".pptx": "slide", ".ppt": "slide", ".xlsx": "sheet", ".xls": "sheet", ".ods": "sheet"}


@dataclass(frozen=True)
class Shown:
    """A hit, and the other hits of its document that are shown by it alone."""

    hit: Hit
    others: tuple[Hit, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a hit comes from, as far as its metadata say so."""

    name: str
    """Its file with the source in front, its document, or its id."""
    page: str = ""
    """With its kind: `page 4`, `slide 2`, `row 17`."""
    headings: str = ""

    def __str__(self) -> str:
        place = f"{self.name}, {self.page}" if self.page else self.name
        return f"{place} \u00b7 {self.headings}" if self.headings else place


def place_of(hit: Hit) -> Place:
    """Read a hit's place: this project's metadata, LlamaIndex's or LangChain's, the file of its row, or the id."""
    hit_id, metadata = hit.id, hit.metadata

    def text(name: str) -> str:
        value = metadata.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return " ".join(value.split()) if isinstance(value, str) else ""

    name = text("file_path") or text("file_name")
    if name and text("source") and not name.startswith(("/", f"{text('source')}/")):
        name = f"{text('source')}/{name}"
    if not name:
        # what a program counts says nothing to a person
        telling = "" if _UUID.fullmatch(hit_id) or hit_id.isdecimal() else hit_id
        name = text("document") or telling or text("source") or text("url") or hit_id
    label, suffix = text("page_label"), name[name.rfind(".") :].lower() if "." in name else ""
    page = f"{_PAGES.get(suffix, 'page')} {label}" if label else ""
    path = text(HEADINGS).strip("/ ")
    # LlamaIndex writes /A/B/
    headings = path.replace("/", " > ") if text(HEADINGS).startswith("/") else path
    if isinstance(hit, SourcedHit) and hit.origin.file and not text("file_path"):
        name = f"{hit.origin.source}/{hit.origin.file}"
        page = "" if hit.origin.is_of_its_file else f"row {hit.origin.document}"
    return Place(name, page, headings or text("title"))


def fitting(place: Place, width: int) -> str:
    """A place on one line: where it is too long, the outer headings are left out."""
    shown = str(place)
    headings = place.headings.split(" > ")
    while len(shown) > width and len(headings) > 1:
        del headings[0]
        shown = str(Place(place.name, place.page, " > ".join(("...", *headings))))
    return shown


def flowing(text: str) -> str:
    """A text whose lines of prose go on: what ends a line in a file need not end one on a screen."""
    return "\n\n".join(map(_flowing, re.split(r"\n\s*\n", text)))


def _flowing(block: str) -> str:
    if is_code(block):
        return block
    lines = block.splitlines()
    flowed = lines[:1]
    for before, line in pairwise(lines):
        # a short line was ended on purpose
        if len(before) > SHORT_LINE and not before.startswith("|") and _PROSE.match(line):
            flowed[-1] = f"{flowed[-1].rstrip()} {line.strip()}"
        else:
            flowed.append(line)
    return "\n".join(flowed)


def by_document(find: Callable[[int], Sequence[Hit]], k: int) -> list[Shown]:
    """The best hits of k documents; `find` searches for so many hits. What is no part of a document is one itself."""
    return _grouped(find, k, _document_of)


def by_field(find: Callable[[int], Sequence[Hit]], k: int, field: Field) -> list[Shown]:
    """The best hits of k values of a metadata field. What has no such field is left out.

    Raises:
        InputError: there are hits, and none has the field.
    """
    seen: list[Hit] = []

    def value_of(hit: Hit) -> Hashable | None:
        seen.append(hit)
        values = values_at(hit.metadata, field)
        # of a list, the first: a passage is shown once
        return next((f"{value!r}" for value in values if value is not None), None)

    found = _grouped(find, k, value_of)
    if seen and not found:
        names = listed(dict.fromkeys(name for hit in seen for name in hit.metadata)) or "none"
        raise InputError(f"no hit has the metadata field {brief(field)} to group by; they have: {names}")
    return found


def _grouped(find: Callable[[int], Sequence[Hit]], k: int, key: Callable[[Hit], Hashable | None]) -> list[Shown]:
    depth = 5 * k
    while True:
        hits = find(depth)
        groups: dict[Hashable, list[Hit]] = {}
        for hit in hits:
            if (group := key(hit)) is not None:
                groups.setdefault(group, []).append(hit)
        if len(groups) >= k or len(hits) < depth or depth >= DEEPEST:
            return [Shown(best, tuple(others)) for best, *others in list(groups.values())[:k]]
        depth = min(4 * depth, DEEPEST)


def are_repeated(hits: Sequence[Hit]) -> bool:
    """Whether two of the hits come from one document."""
    return len({_document_of(hit) for hit in hits}) < len(hits)


def _document_of(hit: Hit) -> tuple[str, str]:
    for name in ("document", "file_path"):
        if isinstance(value := hit.metadata.get(name), str) and value:
            return name, value
    return "id", hit.id


def show_hits(question: str, shown: Sequence[Shown | Hit], *, full: bool = False) -> None:
    """Print a question and its hits: the place of each, then the sentences that come nearest to the question."""
    say(question, style="bold")
    for rank, item in enumerate(shown, start=1):
        hit, others = (item.hit, item.others) if isinstance(item, Shown) else (item, ())
        place = place_of(hit)
        _head(str(rank), hit, len(others))
        text = _body(hit.id, hit.text, place)
        if full:
            paragraph(flowing(text), margin=MARGIN)
        else:
            most = CODE_LINES if is_code(text) else EXCERPT_LINES
            room = max(EXCERPT_CHARACTERS, most * width())
            paragraph(excerpt(text, question, room), margin=MARGIN, most=most, marked=split(question[:1000]).asked)


def show_stretches(question: str, stretches: Sequence[Stretch], shown: Sequence[Shown]) -> None:
    """Print hits with the passages around them, whole; lines of a hit have a bar in front."""
    say(question, style="bold")
    ranks = {item.hit.id: rank for rank, item in enumerate(shown, start=1)}
    more = {item.hit.id: len(item.others) for item in shown}
    for stretch in stretches:
        best = stretch.hits[0]
        own = ", ".join(str(ranks[hit.id]) for hit in stretch.hits)
        _head(own, best, more[best.id])
        for passage, text in texts_of(stretch.passages):
            hit = passage is not None and stretch.is_hit(passage)
            paragraph(flowing(text), margin=f"{MARGIN[:-2]}| " if hit else MARGIN, faint=not hit)


def _head(ranks: str, hit: Hit, others: int) -> None:
    before, behind = f"{ranks:>3}  {hit.score:.3f}  ", f"  (+{others} more)" if others else ""
    heading(before, fitting(place_of(hit), width() - len(before) - len(behind)), behind)


def row_of(rank: int, item: Shown, question: str, around: Stretch | None, n: int) -> dict[str, Any]:
    """A hit as JSON: all that is known of it."""
    hit = item.hit
    place = place_of(hit)
    row: dict[str, Any] = {
        "rank": rank,
        "score": hit.score,
        "id": hit.id,
        "place": str(place),
        "excerpt": excerpt(_body(hit.id, hit.text, place), question, EXCERPT_CHARACTERS),
        "text": hit.text,
        "metadata": dict(hit.metadata),
    }
    if item.others:
        row["others"] = [{"id": other.id, "score": other.score} for other in item.others]
    if around is not None:
        row["around"] = [
            {"id": passage.id, "hit": passage.id == hit.id, "text": passage.text, "metadata": dict(passage.metadata)}
            for passage in around.passages
            if passage.id == hit.id or abs(passage.metadata.get(PART, 0) - hit.metadata.get(PART, 0)) <= n
        ]
    return row


def why_nothing(collection: Collection, conditions: Sequence[str], wanted: models.Filter | None) -> str:
    """Why a search has found nothing, as far as the collection tells."""
    if not collection.gateway.count():
        return f"no hits: collection {collection.name!r} is empty; `embed-plus index` fills it"
    if wanted is None or collection.gateway.count(wanted):
        which = f"no passage with {' and '.join(conditions)}" if conditions else "no passage"
        return f"no hits: {which} has a word of the question"
    fields = [read_condition(condition).field for condition in conditions]
    unknown = [field for field in fields if not occurs(collection, collection.layout.metadata_field(field))]
    if not unknown:
        return f"no hits: no passage has {' and '.join(conditions)}"
    samples = collection.gateway.sample(SAMPLES)
    names = {name for point in samples for name in collection.layout.passage(point.payload, point_id="").metadata}
    known = ", ".join(sorted(names)[:SAMPLES])
    return f"no hits: no passage has a metadata field {brief(unknown[0])}" + (f"; there are {known}" if known else "")


def excerpt(text: str, question: str, room: int) -> str:
    """The sentences of a text that have most of a question's words, or its beginning: at most `room` characters.

    Lines that end nothing are parted by strokes; code keeps its lines.
    """
    text, asked = text[:READ], split(question[:1000]).asked
    if is_code(text):
        return _excerpt_of_code([line for line in text.expandtabs(4).splitlines() if line.strip()], asked, room)
    sentences = _sentences(text)
    lines = [line for line, _ in sentences]
    start = _best_start(lines, _weights(lines, asked), room)
    whole = "".join(part for sentence in sentences[start:] for part in sentence).rstrip(" /")
    before = "... " if start else ""
    if lines and len(whole) > room and len(lines[start]) > room:
        skipped = _words_before_the_match(lines[start], asked, room)
        whole, before = whole[skipped:], "... " if skipped else before
    return before + _cut(whole, room - len(before))


def is_code(text: str) -> bool:
    """Whether half of the lines look like code."""
    lines = [line for line in text[:READ].splitlines() if line.strip()]
    return len(lines) > 1 and 2 * sum(_CODE.search(line) is not None for line in lines) >= len(lines)


def _excerpt_of_code(lines: Sequence[str], asked: Sequence[str], room: int) -> str:
    """The lines with what is asked for, below the line that they belong to: the name of their function, say."""
    start = _best_start(lines, _weights(lines, asked), room)
    indent = _indent(lines[start])
    owner = next((i for i in range(start - 1, -1, -1) if _indent(lines[i]) < indent), None)
    above = [] if owner is None else [lines[owner], *(["    ..."] if owner + 1 < start else [])]
    if not above and start:
        above = ["..."]
    chosen = list(above)
    for line in lines[start:]:
        if sum(map(len, chosen)) + len(chosen) + len(line) > room:
            break
        chosen.append(line)
    return "\n".join(chosen) if len(chosen) > len(above) else _cut(lines[start], room)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _sentences(text: str) -> list[tuple[str, str]]:
    """The sentences and lines of a text, each with what parts it from the next. Rows of tables lose their edges."""
    borders = [(0, 0), *(match.span() for match in _BORDER.finditer(text)), (len(text), len(text))]
    sentences: list[tuple[str, str]] = []
    for (_, start), (end, after) in pairwise(borders):
        sentence = " ".join(text[start:end].split())
        if sentence.startswith("|") and sentence.endswith("|"):
            sentence = sentence.strip("| ")
        if not _RULE.fullmatch(sentence):
            sentences.append((sentence, _gap(sentence, text[end:after], text[after : after + 1])))
    return sentences


def _gap(sentence: str, border: str, following: str) -> str:
    if "\n" not in border:
        return border and " "
    goes_on = following.islower() or len(sentence) > SHORT_LINE and following.isalpha()
    return " " if sentence.endswith(_ENDS) or goes_on else " / "


def _weights(sentences: Sequence[str], asked: Sequence[str]) -> list[dict[str, float]]:
    """For each sentence the words of the question in it: rare and long ones weigh most."""
    wanted = set(asked)
    found = []
    for sentence in sentences:
        words = split(sentence)
        found.append(wanted & {*words.asked, *words.parts})
    often = {word: sum(word in words for words in found) for word in wanted}
    # in languages with spaces short words say little; 漢字 are short and say much
    return [{w: (min(len(w), 8) if w.isascii() else 8) / often[w] for w in words} for words in found]


def _best_start(sentences: Sequence[str], weights: Sequence[Mapping[str, float]], room: int) -> int:
    """The sentence with which to begin; the first if nothing is won by another one."""
    best, chosen = 0.0, 0
    for start in range(len(sentences)):
        if not weights[start] and start:
            continue
        words: dict[str, float] = {}
        length = 0
        for end in range(start, len(sentences)):
            length += len(sentences[end]) + 1
            if length > room and end > start:
                break
            words |= weights[end]
        if sum(words.values()) > best + 1e-9:
            best, chosen = sum(words.values()), start
    return chosen


def _words_before_the_match(sentence: str, asked: Sequence[str], room: int) -> int:
    """How many characters of a sentence that is too long stand before what the question asks for."""
    lowered = sentence.casefold()
    places = [place for word in asked if len(word) > 3 or not word.isascii() for place in [lowered.find(word)]]
    first = min((place for place in places if place >= 0), default=0)
    if first < room * 2 // 3:
        return 0
    border = sentence.find(" ", first - room // 3)
    return border + 1 if 0 <= border < first else first


def _cut(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    head = text[: room - 4]
    border = head.rfind(" ")
    return f"{head[:border] if border > room // 2 else head} ..."


def _body(hit_id: str, text: str, place: Place) -> str:
    """The text without what its place says already: the id (as in the demo), the headings, or the last of them."""
    body = text.removeprefix(hit_id).lstrip()
    known = {place.headings, *place.headings.split(" > ")}
    while (line := body.partition("\n"))[1] and line[0].strip() in known:
        body = line[2].lstrip()
    return body or text
