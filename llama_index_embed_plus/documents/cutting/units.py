"""Blocks -> units: the stretches between which a document may be cut, with their lengths in tokens.

A unit is a sentence, a line of code, a row of a table, a heading. What is long is parted further (`sentences.parts_of`)
and what is short is put together with its neighbours in the block, so that there are some ten units to a passage.
Every unit says how good a place to cut is the one before it.

Guarantees: units joined are the text of the blocks, apart from runs of spaces; tokens are counted in batches; constant
memory. Does not know: passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from llama_index_embed_plus.documents.cutting.sentences import Border, parts_of, sentences, spread
from llama_index_embed_plus.documents.cutting.tokens import TokenCounter
from llama_index_embed_plus.documents.records import Block

__all__ = ["Unit", "halved", "units_of"]

_BATCH = 1 << 16
"""Characters of blocks whose units are counted in one call."""
_LETTERS_PER_TOKEN = 32
"""A text counts for one token at least per so many characters: a word that a tokenizer does not know has one token,
however long it is, and some characters have none."""
_TABLE_BORDER = re.compile(r"\s*\|?[\s:|-]*-[\s:|-]*\|?\s*")
_SPACES = re.compile(r"[^\S\n]{65,}")
_LONGEST_GLUE = 64

# how good a place is to cut; what a passage costs is in `cutting`
_HEADING, _PAGE, _BLOCK, _ITEM, _INTRODUCED = 4.0, 3.0, 1.5, 1.0, 0.0
_BORDERS = {Border.SENTENCE: -0.5, Border.LINE: -3.0, Border.CLAUSE: -6.0, Border.WORD: -8.0, Border.INSIDE: -12.0}
_HELD = 20.0
"""By how much worse it is to cut what fits as a whole: a table, a block of code."""
_BEHIND_HEADING = 60.0


@dataclass(slots=True, frozen=True)
class Unit:
    """A stretch of a block that is not cut."""

    text: str
    block: Block
    glue: str
    """What stands between it and the unit before."""
    strength: float
    """How good a place to cut is the one before it."""
    begins: bool = True
    """Whether a sentence, line or row begins with it."""
    header: str = ""
    """The rows of a table that are said again if a passage begins with it."""
    tokens: int = 0


def units_of(blocks: Iterable[Block], counter: TokenCounter, grain: int, room: int) -> Iterator[list[Unit]]:
    """Yield the units of the blocks, a batch at a time.

    `grain`: the most tokens of a unit that can be parted. `room`: the most tokens of what is kept whole.
    """
    above: Block | None = None
    for batch in _batches(blocks):
        drafts = [unit for block, before in zip(batch, [above, *batch]) for unit in _drafts(block, before)]
        above = batch[-1]
        units = _parted(_estimated(drafts, counter, grain), counter, grain)
        yield _grouped(_held(units, room), grain)


def _batches(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    batch: list[Block] = []
    size = 0
    for block in blocks:
        if not block.text.strip():
            continue
        batch.append(block)
        size += len(block.text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _counted(units: Sequence[Unit], counter: TokenCounter) -> list[Unit]:
    counts = counter.count([unit.text for unit in units]) if units else []
    return [
        replace(unit, tokens=max(count, -(-len(unit.text) // _LETTERS_PER_TOKEN)))
        for unit, count in zip(units, counts, strict=True)
    ]


def _estimated(units: list[Unit], counter: TokenCounter, grain: int) -> list[Unit]:
    """Count units, of those that are parted in any case only the beginning."""
    most = _LETTERS_PER_TOKEN * grain
    starts = [replace(unit, text=unit.text[:most]) if len(unit.text) > most else unit for unit in units]
    return [
        replace(unit, tokens=max(grain + 1, start.tokens * len(unit.text) // most)) if len(unit.text) > most else start
        for unit, start in zip(units, _counted(starts, counter), strict=True)
    ]


def _drafts(block: Block, above: Block | None) -> Iterator[Unit]:
    """The units of a block, however long they are, not counted."""
    glue = "\n" if above is not None and above.kind == block.kind == "item" else "\n\n"
    first = Unit("", block, glue if above is not None else "", _strength(block, above))
    if block.kind == "code":
        yield from _lines_of_code(first)
    elif block.kind == "table":
        yield from _rows(first)
    elif block.kind == "heading":
        yield replace(first, text=" ".join(block.text.split()))
    else:
        text = _SPACES.sub(" ", block.text)
        parts = text.splitlines(keepends=True) if _is_lines(text) else sentences(text)
        yield from _slices(first, ((part, Border.SENTENCE) for part in parts))


def _strength(block: Block, above: Block | None) -> float:
    if above is None:
        return 0.0
    if above.kind == "heading":
        return -_BEHIND_HEADING
    if block.kind == "heading":
        return _HEADING + 1 / max(1, len(block.headings))
    if block.page != above.page:
        return _PAGE
    if above.text.rstrip().endswith((":", "\uff1a")):
        return _INTRODUCED
    return _ITEM if block.kind == "item" else _BLOCK


def _is_lines(text: str) -> bool:
    """Whether the lines stand for themselves, as in a log or a poem, and are no paragraph that was wrapped."""
    starts = [line.lstrip()[:1] for line in text.split("\n", 64)[:64]]
    return len(starts) > 2 and sum(not start.isalpha() or start.isupper() for start in starts) >= 0.9 * len(starts)


def _slices(first: Unit, parts: Iterable[tuple[str, Border]]) -> Iterator[Unit]:
    """Units of text, with the space between them as their glue. The first is `first` with its text."""
    space = ""
    started = False
    for part, border in parts:
        text = part.strip()
        space += part[: len(part) - len(part.lstrip())]
        if not text:
            continue
        if started:
            lowered = _BEHIND_HEADING if first.block.kind == "heading" else 0.0
            glue = space if len(space) <= _LONGEST_GLUE else "\n" if "\n" in space else " "
            begins = border in (Border.SENTENCE, Border.LINE)
            yield Unit(text, first.block, glue, _BORDERS[border] - lowered, begins)
        else:
            yield replace(first, text=text)
        started = True
        space = part[len(part.rstrip()) :]


def _lines_of_code(first: Unit) -> Iterator[Unit]:
    blank = started = False
    for line in first.block.text.split("\n"):
        if not line.strip():
            blank = True
            continue
        if started:
            strength = (0.5 if blank else -0.5) - (1.5 if line[0].isspace() else 0.0)
            yield Unit(line.rstrip(), first.block, "\n\n" if blank else "\n", strength)
        else:
            yield replace(first, text=line.rstrip())
        blank, started = False, True


def _rows(first: Unit) -> Iterator[Unit]:
    rows = [line.strip() for line in first.block.text.split("\n") if line.strip()]
    header = ""
    if len(rows) > 2 and _TABLE_BORDER.fullmatch(rows[1]):
        header = "\n".join(rows[:2])
        rows[:2] = [header]
    yield replace(first, text=rows[0])
    for number, row in enumerate(rows[1:]):
        # a header says nothing without a row
        strength = _BORDERS[Border.SENTENCE] - (_BEHIND_HEADING if header and not number else 0.0)
        yield Unit(row, first.block, "\n", strength, header=header if number else "")


def _parted(units: list[Unit], counter: TokenCounter, grain: int) -> list[Unit]:
    """Part what is longer than `grain`, in rounds: how many tokens a part has is known when it is counted."""
    while long := [unit for unit in units if _is_long(unit, grain)]:
        drafts = [_smaller(unit, len(unit.text) * grain // unit.tokens) for unit in long]
        counted = iter(_counted([part for parts in drafts for part in parts], counter))
        parted = iter([[next(counted) for _ in parts] for parts in drafts])
        units = [part for unit in units for part in (next(parted) if _is_long(unit, grain) else [unit])]
    return units


def halved(unit: Unit, counter: TokenCounter) -> list[Unit]:
    """Part a unit further; of a single character nothing is left to part."""
    return _counted(_smaller(unit, len(unit.text) // 2), counter) if len(unit.text) > 1 else []


def _smaller(unit: Unit, most: int) -> list[Unit]:
    return list(_slices(unit, parts_of(unit.text, max(1, min(most, len(unit.text) // 2)))))


def _is_long(unit: Unit, grain: int) -> bool:
    return unit.tokens > grain and len(unit.text) > 1


def _held(units: list[Unit], room: int) -> list[Unit]:
    """Make it worse to cut inside what fits as a whole."""
    found: list[Unit] = []
    for _, group in groupby(units, key=lambda unit: id(unit.block)):
        first, *others = group
        fits = first.tokens + sum(unit.tokens for unit in others) <= room
        if fits and first.block.kind in ("table", "code"):
            others = [replace(unit, strength=unit.strength - _HELD) for unit in others]
        found += [first, *others]
    return found


def _grouped(units: list[Unit], grain: int) -> list[Unit]:
    """Put short units of a block together, up to one whose letters choose to be the last."""
    small, found = grain // 3, list[Unit]()
    for unit in units:
        last = found[-1] if found else None
        if (
            last is not None
            and last.block is unit.block
            and (last.tokens < small and unit.tokens < small)
            and unit.header == last.header
            and spread(last.text[-16:]) >= 0.25
        ):
            tokens = last.tokens + unit.tokens
            found[-1] = replace(last, text=last.text + unit.glue + unit.text, tokens=tokens)
        else:
            found.append(unit)
    return found
