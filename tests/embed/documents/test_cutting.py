"""Blocks -> pieces that fit the encoder: nothing is too long, lost, or a fragment, and an edit stays where it is."""

from __future__ import annotations

import random

import pytest
from counting import Counter, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.readers.plain import code_blocks
from llama_index_embed_plus.documents.records import Block, CutSettings
from qdrant_tools.errors import UsageError

WORDS = ["the", "cell", "Donaudampfschifffahrtsgesellschaft", "北京", "e\u0301té", "👩\u200d👩\u200d👧", "ไทย", "ab.cd"]
WORDS += ["x=1", "٣٫٥", "Зима", "한국어", "\u200b"]
UNKNOWN = 100
ENDS = [". ", "! ", "? ", "。", ", ", "\n", " ", " ", " ", "", "।"]


@st.composite
def texts(draw):
    """Sentences of many scripts, and now and then a word that never ends."""
    kind = draw(st.sampled_from(["soup", "soup", "soup", "any", "giant", "chinese"]))
    if kind == "any":
        return draw(st.text(max_size=200))
    if kind == "giant":
        return draw(st.sampled_from(["A", "Qx", "é", "中", "\u0301", "/"])) * draw(st.integers(1, 900))
    seed, length = draw(st.integers(0, 10**6)), draw(st.integers(0, 250))
    chosen = random.Random(seed)
    if kind == "chinese":
        return "".join(chosen.choice("的一是了我不人在他有这个上们来到时大") for _ in range(length))
    return "".join(chosen.choice(WORDS) + chosen.choice(ENDS) for _ in range(length))


@st.composite
def documents(draw):
    """Blocks of every kind, under headings that nest."""
    blocks, path = [], []
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["text", "text", "text", "heading", "item", "table", "code"]))
        text = draw(texts())
        page = draw(st.sampled_from([None, None, "1", "2"]))
        if kind == "heading":
            text = draw(st.sampled_from(["Bees", "How honey is made", "Über 北京", text]))
            path = [*path[: draw(st.integers(0, 3))], " ".join(text.split())]
        elif kind == "table":
            rows = draw(st.integers(0, 30))
            text = "\n".join(["| a | b |", "|---|---|"] + [f"| {row} | {text[:20].strip()} |" for row in range(rows)])
        elif kind == "code":
            text = "\n".join(f"    x{row} = {row}" if row % 3 else f"def f{row}():\n" for row in range(len(text) % 70))
        blocks.append(Block(text, kind, tuple(path), page))
    return blocks


@st.composite
def cuts(draw):
    room = draw(st.sampled_from([None, 12, 40, 90, 200]))
    most = room or 254
    context = draw(st.sampled_from(["none", "headings"]))
    overlap = draw(st.sampled_from([0, 0, most // 8, most // 3]))
    return CutSettings(max_tokens=room, overlap=overlap, context=context)


def letters(text):
    return "".join(text.split())


@settings(max_examples=25, deadline=None)
@given(documents(), cuts(), st.sampled_from(["", "passage: "]))
def test_no_piece_has_more_tokens_than_fit_and_every_count_is_exact(blocks, cut, prompt):
    counter = Counter(tokenizer(), prompt)
    cutter = Cutter(counter, cut)
    for piece in cutter.cut(blocks):
        assert piece.text.strip()
        assert piece.tokens == counter.count([piece.text])[0]
        assert piece.tokens <= cutter.room or len(piece.text) == 1
        assert piece.truncated == 0
        # what the encoder does with it
        assert not tokenizer().cut([piece.text], prompt=prompt).over


@settings(max_examples=25, deadline=None)
@given(documents(), st.sampled_from([None, 12, 40, 90, 200]))
def test_no_letter_is_lost_or_said_twice(blocks, room):
    # the header of a parted table is said again: left out here
    blocks = [block for block in blocks if block.kind != "table"]
    pieces = Cutter(Counter(tokenizer()), CutSettings(max_tokens=room)).cut(blocks)
    assert letters("".join(piece.text for piece in pieces)) == letters("".join(block.text for block in blocks))


@settings(max_examples=25, deadline=None)
@given(documents(), cuts())
def test_with_context_and_overlap_every_letter_is_there_in_its_order(blocks, cut):
    pieces = list(Cutter(Counter(tokenizer()), cut).cut(blocks))
    whole = letters("".join(block.text for block in blocks))
    ends = {0}  # where the pieces so far may end: in a text that repeats itself at several places
    for piece in pieces:
        text = letters(piece.text)
        # what stands in front is no more than a part of the piece
        own = [text[start:] for start in range(len(text))]
        ends = {end + len(part) for end in ends for part in own if whole.startswith(part, end)}
        assert ends
    assert len(whole) in ends


@settings(max_examples=25, deadline=None)
@given(documents(), st.sampled_from([None, 40, 90, 200]))
def test_no_piece_is_a_fragment_unless_the_document_is(blocks, room):
    cutter = Cutter(Counter(tokenizer()), CutSettings(max_tokens=room))
    pieces = list(cutter.cut(blocks))
    for piece in pieces:
        # parts of a long word may have more tokens than the word, and one that nobody knows has a single one
        parted = "schafts" in piece.text or UNKNOWN in tokenizer().cut([piece.text]).ids[0]
        assert piece.tokens >= cutter.min_tokens or len(pieces) == 1 or parted


def sentences(count, seed=0, length=(6, 18)):
    chosen = random.Random(seed)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ne", "ru", "so") for b in ("ta", "ri", "mo", "na", "pel", "dor")]
    for _ in range(count):
        yield " ".join(chosen.choice(words) for _ in range(chosen.randint(*length))).capitalize() + "."


def paragraphs(count, seed=0):
    chosen = random.Random(seed + 1)
    found = list(sentences(6 * count, seed))
    for _ in range(count):
        size = chosen.randint(1, 6)
        yield Block(" ".join(found[:size]))
        del found[:size]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.sampled_from(["insert", "delete", "edit"]), st.integers(0, 10**6), st.integers(0, 50))
def test_an_edit_changes_only_the_pieces_near_it(place, how, seed, overlap):
    blocks = list(paragraphs(61, seed))
    (new,) = paragraphs(1, seed + 7)
    edited = [*blocks[:place], *([] if how == "delete" else [new]), *blocks[place + (how != "insert") :]]
    cutter = Cutter(Counter(tokenizer()), CutSettings(overlap=overlap))
    before = [piece.text for piece in cutter.cut(blocks)]
    after = [piece.text for piece in cutter.cut(edited)]
    assert len(after) > 10
    assert len(set(after) - set(before)) <= 10


def test_pieces_end_where_sentences_end():
    pieces = list(Cutter(Counter(tokenizer())).cut([Block(" ".join(sentences(200)))]))
    assert len(pieces) > 10
    assert all(piece.text.endswith(".") for piece in pieces)


def test_a_title_is_no_piece_of_its_own_and_no_heading_is_the_last_of_a_piece():
    blocks = []
    for number, text in enumerate(sentences(120, length=(20, 60))):
        if number % 3 == 0:
            blocks.append(Block(f"Section {number}", "heading", (f"Section {number}",)))
        blocks.append(Block(text, headings=(f"Section {number - number % 3}",)))
    pieces = list(Cutter(Counter(tokenizer())).cut(blocks))
    assert sum(piece.text.count("Section") for piece in pieces) == 40
    assert not any(piece.text.splitlines()[-1].startswith("Section") for piece in pieces)


def test_a_table_and_code_that_fit_are_kept_whole():
    table = "\n".join(["| name | value |", "|---|---|", *(f"| row{row} | {row} |" for row in range(18))])
    code = "\n".join(["def f(x):", *(f"    y{row} = x" for row in range(25)), "", "    return x"])
    blocks = [
        block
        for number in range(6)
        for block in (*paragraphs(4, number), Block(table, "table"), *paragraphs(3, number + 50), Block(code, "code"))
    ]
    texts = [piece.text for piece in Cutter(Counter(tokenizer())).cut(blocks)]
    assert sum(table in text for text in texts) == 6
    assert sum(code in text for text in texts) == 6


def test_a_parted_table_says_its_header_again():
    rows = [f"| person {row} | lives in town number {row} |" for row in range(100)]
    table = "\n".join(["| name | town |", "|---|---|", *rows])
    pieces = list(Cutter(Counter(tokenizer())).cut([Block(table, "table")]))
    assert len(pieces) > 3
    assert all(piece.text.startswith("| name | town |\n|---|---|\n| person") for piece in pieces)
    assert [row for piece in pieces for row in piece.text.splitlines()[2:]] == rows


def test_a_piece_says_its_headings_once_and_has_page_and_path():
    path = ("Handbook", "Bees")
    blocks = [Block("Bees", "heading", path, "3"), *(Block(text, "text", path, "4") for text in sentences(60))]
    first, *others = Cutter(Counter(tokenizer()), CutSettings(context="headings")).cut(blocks)
    assert first.text.startswith("Handbook\n\nBees\n\n")
    assert (first.headings, first.page) == (path, "3")
    assert others and all(piece.text.startswith("Handbook > Bees\n\n") for piece in others)
    assert all((piece.headings, piece.page) == (path, "4") for piece in others)


def test_code_says_what_it_belongs_to_where_its_first_line_does_not():
    lines = ["class Hive(Home):", "    def open(self):", *(f"        self.comb{row} = {row}" for row in range(90))]
    blocks = list(code_blocks(["import bees", "", *lines, "", "export function wax(x) {", "  return x", "}"]))
    assert [block.headings for block in blocks] == [(), ("class Hive(Home)",), ("export function wax(x)",)]
    first, *others, _ = Cutter(Counter(tokenizer()), CutSettings(context="headings")).cut(blocks[1:])
    assert first.text.startswith("class Hive(Home):\n    def open")
    assert others and all(piece.text.startswith("class Hive(Home)\n\n        self.comb") for piece in others)


def test_a_long_path_of_headings_loses_its_outermost():
    path = (" ".join(["chapter"] * 120), "Section", "Part")
    blocks = [Block(text, "text", path) for text in sentences(40)]
    pieces = list(Cutter(Counter(tokenizer()), CutSettings(context="headings")).cut(blocks))
    assert all(piece.text.startswith("Section > Part\n\n") for piece in pieces)


def test_overlap_is_whole_sentences_of_the_piece_before():
    counter = Counter(tokenizer())
    pieces = list(Cutter(counter, CutSettings(overlap=60)).cut([Block(" ".join(sentences(150)))]))
    shared = []
    for one, other in zip(pieces, pieces[1:]):
        said = [s for s in other.text.split(". ") if s.rstrip(".") in one.text]
        assert one.text.endswith(". ".join(said).rstrip(".") + ".")
        shared.append(counter.count([". ".join(said)])[0])
    assert max(shared) <= 60 and sum(shared) / len(shared) > 30


def test_a_document_of_any_length_takes_the_same_memory():
    import tracemalloc

    def peak(count):
        tracemalloc.start()
        lines = (Block(text) for text in sentences(count))
        assert sum(1 for _ in Cutter(Counter(tokenizer())).cut(lines)) > count // 20
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(6_000) < 2 * peak(2_000) + 2_000_000


def test_one_line_for_all_units_is_cut_in_the_same_memory():
    # no place differs from another: every way stays open
    pieces = list(
        Cutter(Counter(tokenizer())).cut(Block("Same again and again and no more of it.") for _ in range(9000))
    )
    assert {piece.tokens >= 63 for piece in pieces} == {True}


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ({"overlap": 100}, "overlap is 100, expected at most 84, a third of the 254 tokens"),
        ({"max_tokens": 30, "overlap": 11}, "overlap is 11, expected at most 10"),
        ({"min_tokens": 200}, "min_tokens is 200, expected at most 63"),
        ({"min_tokens": 60, "overlap": 84, "context": "headings"}, "min_tokens is 60, expected at most 32"),
    ],
)
def test_settings_that_leave_no_place_to_cut_are_refused(cut, message):
    with pytest.raises(UsageError, match=message):
        Cutter(Counter(tokenizer()), CutSettings(**cut))


def test_whole_documents_say_how_much_is_not_read():
    (piece,) = Cutter(Counter(tokenizer()), CutSettings(whole=True)).cut([Block("one two. " * 200), Block("three")])
    assert (piece.tokens, piece.truncated) == (601, 601 - 254)


def test_nothing_but_space_is_no_piece():
    for whole in (False, True):
        assert not list(Cutter(Counter(tokenizer()), CutSettings(whole=whole)).cut([Block(" \n "), Block("")]))


@pytest.mark.parametrize("other", [{"max_tokens": 9}, {"min_tokens": 3}, {"overlap": 5}, {"context": "headings"}])
def test_settings_of_cutting_and_none_at_all_are_refused_together(other):
    with pytest.raises(UsageError, match="whole says that nothing is cut"):
        CutSettings(whole=True, **other)
