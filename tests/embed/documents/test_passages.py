"""Documents -> passages with ids of their content, and the count of what was cut."""

from __future__ import annotations

import random
import sys

import pytest
from counting import Counter, tokenizer

from llama_index_embed_plus.documents.blocks import markdown_blocks
from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.passages import CutReport, passages_of
from llama_index_embed_plus.documents.records import Block, CutSettings, Document, Piece


def text(words, seed=0):
    chosen = random.Random(seed)
    return " ".join(chosen.choice(["bees.", "make", "honey", "in", "Wax.", "every", "day."]) for _ in range(words))


def cut(*documents, report=None, **settings):
    return list(passages_of(documents, Cutter(Counter(tokenizer()), CutSettings(**settings)), report))


def test_an_id_is_the_document_and_a_hash_of_the_text_and_a_repeat_is_numbered():
    blocks = [Block("Same words. " * 60)] * 3
    first, second, third = cut(Document("notes/a.txt", blocks, {"source": "notes"}), max_tokens=190)
    assert first.text == second.text == third.text
    name, digest = first.id.split("#")
    assert name == "notes/a.txt" and len(digest) == 12 and int(digest, 16) >= 0
    assert [second.id, third.id] == [f"{first.id}-2", f"{first.id}-3"]
    assert [p.metadata["part"] for p in (first, second, third)] == [0, 1, 2]
    assert all(p.metadata["document"] == "notes/a.txt" and p.metadata["source"] == "notes" for p in (first, second))


def test_metadata_changes_no_id():
    blocks = [Block(text(600))]
    assert [p.id for p in cut(Document("a", blocks, {"x": 1}))] == [p.id for p in cut(Document("a", blocks, {"x": 2}))]


@pytest.mark.parametrize(("words", "keeps", "own"), [(20, True, True), (20, False, False), (600, True, False)])
def test_a_row_that_fits_has_its_own_id(words, keeps, own):
    passages = cut(Document("row 7", [Block(text(words))], keeps_id=keeps))
    assert [p.id == "row 7" for p in passages] == [own] * len(passages)
    assert all(p.id.startswith("row 7#") or own for p in passages)


def test_a_passage_knows_its_page_and_the_path_of_its_headings():
    blocks = [
        Block(block.text, block.kind, block.headings, "iv") for block in markdown_blocks(["# A", "## B", text(30)])
    ]
    (passage,) = cut(Document("a.md", blocks))
    assert (passage.metadata["page_label"], passage.metadata["header_path"]) == ("iv", "A")


def test_a_document_without_text_has_no_passage():
    report = CutReport()
    assert cut(Document("a", []), Document("b", [Block("  ")]), report=report) == []
    assert (report.documents, report.passages, report.quantile(0.5), report.lost_share) == (2, 0, 0, 0.0)


def test_the_report_counts_what_no_encoder_reads():
    report = CutReport()
    cut(Document("a", [Block("one " * 508)]), Document("b", [Block("two")]), report=report, whole=True)
    assert (report.documents, report.passages, report.truncated, report.lost, report.total) == (2, 2, 1, 254, 509)
    assert report.lost_share == pytest.approx(254 / 509)
    report = CutReport()
    cut(Document("a", [Block(text(2000))]), report=report)
    assert (report.truncated, report.lost) == (0, 0) and report.longest <= 254


def test_the_report_knows_the_middle_and_does_not_grow():
    report, chosen = CutReport(), random.Random(0)
    tokens = [chosen.randrange(1, 255) for _ in range(999)]
    for count in tokens:
        report.add(Piece("", count))
    in_order = sorted(tokens)
    assert [report.quantile(share) for share in (0.5, 0.95, 1.0)] == [in_order[499], in_order[949], in_order[998]]
    assert report.longest == in_order[-1]
    for count in range(1, 10**7, 97):
        report.add(Piece("", count))
    assert len(report.lengths) < 20_000 and sys.getsizeof(report.lengths) < 2_000_000
