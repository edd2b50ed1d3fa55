"""A source and what a model reads -> what indexing it would do: its files, documents, passages, tokens and languages.

Guarantees: nothing is embedded and no model is run; the same files give the same report; its size does not grow with
the source but by what was skipped. Does not know: collections.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.languages import READ, UNKNOWN, knows_languages, language_of
from llama_index_embed_plus.documents.passages import CutReport, passages_of
from llama_index_embed_plus.documents.reading import Source
from llama_index_embed_plus.documents.records import Document, SkippedFile
from qdrant_tools.errors import InputError
from qdrant_tools.files.json_files import open_regular
from qdrant_tools.records import Passage, Progress
from qdrant_tools.search.words import split

FRAGMENT_WORDS = 25
"""A passage with fewer words says little by itself; where spaces part no words, characters are counted."""
MOST_COMPARED = 200_000
"""Passages among which those are counted that say the same."""
MOST_IDENTIFIED = 10_000
"""Documents whose language is looked for."""
MOST_KINDS = 100
"""Endings of files that are counted one by one."""

_CARD = 1 << 16
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_LANGUAGE = re.compile(r"^language:[ \t]*(\[[^\]]*\]|[\w-]+|(?:\n[ \t]*-[ \t]*[\w-]+)+)", re.MULTILINE)


@dataclass
class Inspection:
    """What is in a source, and what would become of it."""

    source: str
    """Its name, which its ids begin with."""
    room: int
    """Tokens of a passage that the model reads."""
    most: int
    """Tokens that a passage may have."""
    cut: CutReport = field(default_factory=CutReport)
    files: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """Ending -> files that were read."""
    fragments: int = 0
    """Passages of fewer than 25 words that are not their whole document."""
    short: int = 0
    """Documents of fewer than 25 words."""
    repeated: int = 0
    """Passages that say what an earlier one says: but for case, spaces and punctuation."""
    languages: Counter[str] = field(default_factory=Counter)
    """ISO 639-1 -> documents; `unknown` for those that are too short or no prose; scripts without the extra `files`."""
    encodings: dict[str, int] = field(default_factory=dict)
    """Other than UTF-8 -> files."""
    unread_pages: dict[str, int] = field(default_factory=dict)
    """Pages of PDFs that were read otherwise: `without text`, `damaged` -> how many."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What is never read, by kind: hidden files, what patterns leave out, ..."""
    skipped: list[SkippedFile] = field(default_factory=list)
    declared: tuple[str, ...] = ()
    """The languages that the model's card names."""

    def skipped_by_reason(self) -> dict[str, list[SkippedFile]]:
        """The most frequent reason first."""
        reasons = Counter(each.reason for each in self.skipped)
        return {reason: [each for each in self.skipped if each.reason == reason] for reason, _ in reasons.most_common()}

    def suggestions(self) -> list[str]:
        """What to do about it, most urgent first."""
        return list(_suggestions(self))

    def as_row(self) -> dict[str, Any]:
        cut = self.cut
        return {
            "source": self.source,
            "files": self.files,
            "kinds": dict(self.kinds.most_common()),
            "documents": cut.documents,
            "passages": cut.passages,
            "tokens": {
                "total": cut.total,
                "p50": cut.quantile(0.5),
                "p95": cut.quantile(0.95),
                "max": cut.longest,
                "room": self.room,
                "most": self.most,
            },
            "truncated": {"passages": cut.truncated, "tokens": cut.lost, "share": round(cut.lost_share, 6)},
            "fragments": self.fragments,
            "short_documents": self.short,
            "repeated": self.repeated,
            "languages": dict(self.languages.most_common()),
            "encodings": self.encodings,
            "skipped": [{"path": each.path, "reason": each.reason, "detail": each.detail} for each in self.skipped],
            "unread_pages": self.unread_pages,
            "left_out": self.left_out,
            "suggestions": self.suggestions(),
        }


def inspect_source(
    source: Source, cutter: Cutter, *, model: Path | None = None, progress: Progress | None = None
) -> Inspection:
    """Read and cut a source as indexing would, and count.

    `model`: its folder, whose card may name its languages. `progress` is called with the number of passages.

    Raises:
        InputError: a single file that cannot be read.
    """
    report = Inspection(source.name, cutter.counter.room, cutter.room, declared=declared_languages(model))
    watch = _Watch(report)
    for passage in passages_of(watch.seen(source), cutter, report.cut):
        watch.add(passage)
        if progress is not None:
            progress(1)
    watch.end_document()
    report.files, report.skipped = source.files, list(source.skipped)
    report.unread_pages = dict(source.unread_pages)
    report.encodings, report.left_out = dict(source.encodings.most_common()), dict(source.left_out.most_common())
    return report


def declared_languages(folder: Path | None) -> tuple[str, ...]:
    """The languages that a model's card names at its head (`language: en`); none if it says nothing."""
    if folder is None:
        return ()
    try:
        with open_regular(folder / "README.md") as card:
            front = _FRONT.match(card.read(_CARD).decode("utf-8", "replace"))
    except (OSError, InputError):
        return ()
    found = _LANGUAGE.search(front[1]) if front else None
    return tuple(re.findall(r"[A-Za-z][\w-]*", found[1])) if found else ()


class _Watch:
    """What has been seen of the document that is being cut, and what of all before it."""

    def __init__(self, report: Inspection) -> None:
        self.report = report
        self.file = ""
        self.sample, self.passages, self.few = "", 0, 0
        self.texts: set[int] = set()

    def seen(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            self.end_document()
            if document.file and document.file != self.file:
                self.file = document.file
                self._count_kind(PurePosixPath(document.file))
            yield document

    def add(self, passage: Passage) -> None:
        words = split(passage.text)
        self.passages += 1
        self.few += words.length < FRAGMENT_WORDS
        if len(self.sample) < READ:
            self.sample += f"\n{passage.text[:READ]}"
        if len(self.texts) < MOST_COMPARED:
            key = hash(tuple(words.asked))
            self.report.repeated += key in self.texts
            self.texts.add(key)

    def end_document(self) -> None:
        if not self.passages:
            return
        if self.passages > 1:
            self.report.fragments += self.few
        else:
            self.report.short += self.few
        if self.report.languages.total() < MOST_IDENTIFIED:
            self.report.languages[language_of(self.sample)] += 1
        self.sample, self.passages, self.few = "", 0, 0

    def _count_kind(self, file: PurePosixPath) -> None:
        kind = file.suffix.lower() or "no ending"
        kinds = self.report.kinds
        kinds[kind if kind in kinds or len(kinds) < MOST_KINDS else "others"] += 1


def _suggestions(report: Inspection) -> Iterator[str]:
    reasons = report.skipped_by_reason()

    def files(reason: str, one: str, several: str) -> str:
        count = len(reasons[reason])
        return f"1 file {one}" if count == 1 else f"{count:,} files {several}"

    if "needs an extra" in reasons:
        yield f"{files('needs an extra', 'needs', 'need')} an extra: pip install 'llama-index-embed-plus[files]'"
    if "no text" in reasons:
        yield f"{files('no text', 'holds', 'hold')} pictures of text: recognise it (OCR) first"
    if "encrypted" in reasons:
        yield f"{files('encrypted', 'needs', 'need')} a password: save without one"
    if "encoding" in reasons:
        yield f"{files('encoding', 'is', 'are')} in an unknown encoding: name it with --encoding, or save as UTF-8"
    if "changed" in reasons:
        yield f"{files('changed', 'was', 'were')} written while being read: index when nobody writes"
    if report.cut.truncated:
        yield (
            f"{report.cut.lost_share:.1%} of the text is in no vector, because passages are longer than the "
            f"{report.room} tokens that the model reads: leave --whole out"
        )
    if report.most > report.room:
        yield f"passages may have {report.most} tokens and the model reads {report.room}: give fewer --chunk-tokens"
    foreign = _foreign(report)
    if foreign:
        named = ", ".join(f"{language} {count:,}" for language, count in foreign.most_common(5))
        yield (
            f"{foreign.total():,} documents are in other languages ({named}) than the model's card names "
            f"({', '.join(report.declared)}): choose a multilingual model, or search them with --mode lexical"
        )
    if 5 * report.repeated > report.cut.passages and report.cut.passages > 1:
        yield f"{report.repeated:,} passages say what another one says: leave copies out with --exclude"
    if not knows_languages():
        yield "languages are told apart with: pip install 'llama-index-embed-plus[files]'"


def _foreign(report: Inspection) -> Counter[str]:
    """Documents in languages that the model's card does not name, if they are more than a few."""
    if not report.declared or not knows_languages() or {"multilingual", "multi"} & set(report.declared):
        return Counter()
    known = {language.partition("-")[0].lower() for language in report.declared} | {UNKNOWN}
    foreign = Counter({name: count for name, count in report.languages.items() if name not in known})
    return foreign if 20 * foreign.total() >= report.languages.total() else Counter()
