"""A collection -> synthetic training examples: queries of its own passages, ranked by its own search, with negatives.

The collection is read twice: once for what only the whole of it tells (`overview`), and once for the queries, which
rules make of it (`rules`) and, if there is one, a language model (`generate`). They are filtered, searched for, and
mined for as clicks would be; every example is marked as synthetic.

Guarantees: the same collection and settings give the same examples; passages are streamed; nothing is embedded but the
queries. Does not know: command lines, training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Protocol

import numpy as np

from llama_index_embed_plus.training.synthesis.answers import points_to_passage
from llama_index_embed_plus.training.synthesis.filters import (
    ANSWER_WORDS,
    Selection,
    in_blocks,
    other_language,
    other_script,
    unfit,
)
from llama_index_embed_plus.training.synthesis.generate import PROMPT, GenerationSettings, Generator, LanguageModel
from llama_index_embed_plus.training.synthesis.overview import Overview, Seen, read
from llama_index_embed_plus.training.synthesis.records import (
    GENERATED,
    Made,
    SynthesisReport,
    SynthesisResult,
    SynthesisSettings,
)
from llama_index_embed_plus.training.synthesis.rules import queries_of
from llama_index_embed_plus.training.synthesis.texts import length, overlap, without
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import StoredPassage, draw_rank, fetch, stored_passages
from qdrant_tools.errors import InputError
from qdrant_tools.files.written import write_rows, write_text
from qdrant_tools.mining.miner import Miner, positives_by_query
from qdrant_tools.mining.rules import Judge, MiningSettings
from qdrant_tools.records import Encoder, Example, Label, Progress, ScoredText, Vectors
from qdrant_tools.search.dense import encoded

AT_ONCE = 256
"""Queries that are embedded and searched for together."""


class Reporter(Protocol):
    """Shows what is going on: `with reporter.step(name, total) as progress: ... progress(1)`."""

    def step(self, name: str, total: int | None) -> AbstractContextManager[Progress]: ...


class Quiet:
    """Shows nothing."""

    def step(self, name: str, total: int | None) -> AbstractContextManager[Progress]:
        return nullcontext(lambda done: None)


class Remembered:
    """An encoder that knows the vectors of some queries, so that mining need not make them again."""

    def __init__(self, base: Encoder) -> None:
        self.base, self.dimension, self.space = base, base.dimension, base.space
        self.vectors: dict[str, Vectors] = {}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.vectors[text] for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self.base.encode_passages(texts)


def synthesize(
    collection: Collection,
    encoder: Encoder | None = None,
    *,
    settings: SynthesisSettings | None = None,
    llm: LanguageModel | None = None,
    prompt: str = PROMPT,
    generation: GenerationSettings | None = None,
    journal: str | Path | None = None,
    judge: Judge | None = None,
    reporter: Reporter | None = None,
) -> SynthesisResult:
    """Make training examples of the passages of a collection: by rules, and by a language model if there is one.

    Args:
        encoder: The one that filled the collection; None: the one it was opened with.
        llm: Any of LlamaIndex's LLMs, or a callable that takes a prompt and returns a text or a list of questions.
        prompt: What it is asked; see `PROMPT`. generation: how often, and about how many passages.
        journal: A file that keeps what it answered. A later call with the same prompt and journal goes on.
        judge: As in `mine`: a second opinion on the negatives.

    Raises:
        InputError: the collection holds no text, or no query could be made of it.
        UsageError, SpaceMismatchError: the collection was opened without an encoder, or with another; the journal is
            one of another prompt or collection.
        GenerationError: the language model failed several times in a row. What it answered is in the journal.
    """
    generator = None
    if llm is not None:
        path = None if journal is None else Path(journal)
        asking = generation or GenerationSettings()
        generator = Generator(llm, asking, prompt=prompt, journal=path, of=collection.name)
    encoder = encoder or collection.required_encoder()
    return _Run(collection, encoder, settings or SynthesisSettings(), generator, judge, reporter).result()


def write_synthesis(result: SynthesisResult, path: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write the examples into `path`, and beside it where each comes from and what was counted; returns the files."""
    files = outputs(Path(path))
    write_rows(files[1], (made.as_row() for made in result.made), overwrite=overwrite)
    write_text(files[2], _json(result.report), overwrite=overwrite)
    # last: where it is, the others are
    write_rows(files[0], (example.as_row() for example in result.examples), overwrite=overwrite)
    return files


def outputs(path: Path) -> tuple[Path, Path, Path]:
    """The file of examples, that of their origins, and that of the counts."""
    return path, path.with_suffix(".origins.jsonl"), path.with_suffix(".synthesis.json")


def journal_of(path: Path) -> Path:
    """The journal of a language model for a file of examples."""
    return path.with_suffix(".generated.jsonl")


class _Run:
    """One run, step by step."""

    def __init__(
        self,
        collection: Collection,
        encoder: Encoder,
        settings: SynthesisSettings,
        generator: Generator | None,
        judge: Judge | None,
        reporter: Reporter | None,
    ) -> None:
        collection.check(encoder)
        self.collection, self.settings, self.judge = collection, settings, judge
        self.reporter: Reporter = reporter or Quiet()
        self.generator = generator
        self.encoder = Remembered(encoder)
        self.overview = Overview()
        self.made: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def result(self) -> SynthesisResult:
        self._look()
        kept = self._filtered(self._candidates())
        if not kept:
            way_out = "give other rules, or a language model (llm)"
            if self.generator is not None:
                way_out = "give another prompt, or rules too"
                if self.generator.journal is not None:
                    way_out += f"; what it answered is kept in {self.generator.journal}: remove that file to ask again"
            raise InputError(
                f"no query could be made of the {self.overview.passages} passages of {self.collection.name!r}: "
                f"{_counts(self.dropped) or 'no rule found anything'}; {way_out}"
            )
        examples, mined = self._mined(kept)
        by_query = {made.query: made for made in kept}
        origins = tuple(by_query[example.query] for example in examples)
        shares = {
            rule: fmean(made.overlap for made in origins if made.rule == rule)
            for rule in sorted({made.rule for made in origins})
        }
        report = SynthesisReport(
            passages=self.overview.passages,
            documents=self.overview.documents,
            made=self.made,
            kept=Counter(made.rule for made in origins),
            dropped=self.dropped,
            overlap=shares,
            negatives=sum(len(example.negatives) for example in examples),
            mining=mined,
            cost={} if self.generator is None else self.generator.cost,
        )
        return SynthesisResult(tuple(examples), origins, report)

    def _look(self) -> None:
        with self.reporter.step(f"read {self.collection.name}", None) as progress:
            for passage in self._passages():
                self.overview.add(passage)
                progress(1)
        if not self.overview.passages:
            raise InputError(f"collection {self.collection.name!r} holds no text: index documents into it first")

    def _candidates(self) -> list[Made]:
        selection = Selection(self.settings)
        # the passages that the language model is asked about are drawn as queries are: by document
        passages = 1 if self.generator is None else self.generator.settings.passages
        to_ask = Selection(replace(self.settings, limit=passages))
        with self.reporter.step("make queries", self.overview.passages) as progress:
            for passage in self._passages():
                seen = read(passage)
                for rule in self.settings.rules:
                    for made in queries_of(seen, self.overview, rule):
                        self._add(made, selection)
                if self.generator is not None and length(seen.text) >= 2 * ANSWER_WORDS:
                    to_ask.add(Made(passage.id, passage.id, seen.document, GENERATED))
                progress(1)
        if self.generator is not None:
            self._generate(self.generator, to_ask.drawn()[:passages], selection)
        ordered, dropped = selection.ordered()
        self.dropped.update(dropped)
        return ordered

    def _add(self, made: Made, selection: Selection) -> None:
        self.made[made.rule] += 1
        reason = unfit(made.query, self.settings)
        if reason:
            self.dropped[reason] += 1
        else:
            selection.add(made)

    def _generate(self, generator: Generator, drawn: Sequence[Made], selection: Selection) -> None:
        def passages() -> Iterator[Seen]:
            for block in in_blocks(drawn, AT_ONCE):
                stored = fetch(self.collection, [made.passage_id for made in block])
                yield from (read(stored[made.passage_id]) for made in block if made.passage_id in stored)

        with self.reporter.step("ask the language model", len(drawn)) as progress:
            for seen, asked in generator.ask(passages()):
                foreign = asked.questions and other_language("\n".join(asked.questions), seen.text)
                for question in asked.questions:
                    if foreign or points_to_passage(question):
                        self.made[GENERATED] += 1
                        self.dropped["another language" if foreign else "speaks of the passage"] += 1
                    else:
                        self._add(Made(question, seen.id, seen.document, GENERATED), selection)
                progress(1)

    def _passages(self) -> Iterator[StoredPassage]:
        return (passage for passage in stored_passages(self.collection) if passage.text.strip())

    def _filtered(self, candidates: Sequence[Made]) -> list[Made]:
        """Those that have an answer, that the search brings to it, and that no other one resembles."""
        kept: list[Made] = []
        of_document: Counter[str] = Counter()
        vectors = np.empty((0, self.encoder.dimension), dtype=np.float32)
        limit = len(candidates) if self.settings.limit is None else self.settings.limit
        with self.reporter.step("find their passages", min(limit, len(candidates))) as progress:
            for block in in_blocks(candidates, AT_ONCE):
                answered = self._answered(block)
                if not answered:
                    continue
                asked = encoded(self.collection, [made.query for made, _ in answered], self.encoder.base)
                ranks = self._ranks([passage for _, passage in answered], asked)
                for (made, _), vector, rank in zip(answered, asked, ranks, strict=True):
                    reason = self._reason(made, rank, vector, vectors, of_document)
                    if reason:
                        self.dropped[reason] += 1
                        continue
                    of_document[made.document] += 1
                    vectors = _appended(vectors, vector, len(kept))
                    self.encoder.vectors[made.query] = vector
                    kept.append(replace(made, rank=rank))
                    progress(1)
                    if len(kept) == limit:
                        return kept
        return kept

    def _answered(self, block: Sequence[Made]) -> list[tuple[Made, StoredPassage]]:
        """The queries with their passages, where enough is left of these without what was quoted."""
        stored = fetch(self.collection, list(dict.fromkeys(made.passage_id for made in block)))
        found: list[tuple[Made, StoredPassage]] = []
        for made in block:
            passage = stored[made.passage_id]
            rest = without(passage.text, made.quotes)
            if length(rest) < ANSWER_WORDS:
                self.dropped["nothing left to answer"] += 1
            elif other_script(made.query, passage.text):
                self.dropped["another script"] += 1
            else:
                positive = "" if rest == passage.text.strip() or self._keeps(made) else rest
                share = overlap(made.query, positive or passage.text)
                document = read(passage).document
                found.append((replace(made, document=document, positive=positive, overlap=share), passage))
        return found

    def _keeps(self, made: Made) -> bool:
        """Whether this one keeps its quotes: drawn by the query alone."""
        drawn = int.from_bytes(draw_rank(made.query, self.settings.seed)[:4])
        return drawn < self.settings.keep_quoted * 2**32

    def _ranks(self, passages: Sequence[StoredPassage], vectors: Vectors) -> list[int | None]:
        """Where the search finds each passage, from 1; None where it does not."""
        if self.settings.within is None:
            return [None] * len(passages)
        mining = self.settings.mining or MiningSettings()
        rankings = self.collection.gateway.rankings(
            vectors,
            [self.settings.within] * len(vectors),
            using=self.collection.layout.vector or None,
            params=self.collection.search_params(
                hnsw_ef=mining.hnsw_ef, exact=mining.exact or self.collection.searches_exactly
            ),
        )
        ranks: list[int | None] = []
        for passage, (ids, _) in zip(passages, rankings, strict=True):
            ranks.append(next((place for place, point in enumerate(ids, 1) if point == passage.point_id), None))
        return ranks

    def _reason(
        self, made: Made, rank: int | None, vector: Vectors, vectors: Vectors, of_document: Counter[str]
    ) -> str:
        """Why a query is dropped; "" if it is kept. `vectors` (at least as many rows as are kept, dimension)."""
        if self.settings.within is not None and rank is None:
            return "not found by search"
        if self.settings.per_document is not None and of_document[made.document] >= self.settings.per_document:
            return "enough of its document"
        count = sum(of_document.values())
        if count and bool((vectors[:count] @ vector >= self.settings.similarity).any()):
            return "like another"
        return ""

    def _mined(self, kept: Sequence[Made]) -> tuple[list[Example], dict[str, int]]:
        if self.settings.mining is None:
            stored = fetch(self.collection, sorted({made.passage_id for made in kept}))
            examples = [
                Example(made.query, (ScoredText(made.passage_id, stored[made.passage_id].text),)) for made in kept
            ]
            return [self._finished(made, example) for made, example in zip(kept, examples, strict=True)], {}
        settings = self.settings.mining
        if settings.document_key is None:
            settings = replace(settings, document_key=self.overview.document_key)
        labels = (Label(made.query, made.passage_id, 1.0, f"synthetic:{made.rule}") for made in kept)
        miner = Miner(self.collection, self.encoder, settings, self.judge)
        by_query = {made.query: made for made in kept}
        with self.reporter.step("mine negatives", len(kept)) as progress:
            mined = miner.examples(positives_by_query(labels), progress=progress)
            finished = [self._finished(by_query[example.query], example) for example in mined]
        return finished, miner.stats.discarded()

    def _finished(self, made: Made, example: Example) -> Example:
        """Marked as synthetic, and without what the query took from its passage."""
        positives = tuple(
            replace(positive, text=made.positive) if made.positive and positive.id == made.passage_id else positive
            for positive in example.positives
        )
        return replace(example, positives=positives, synthetic=True)


def _appended(vectors: Vectors, vector: Vectors, count: int) -> Vectors:
    """The rows with one more at `count`; they grow by doubling."""
    if count == len(vectors):
        vectors = np.concatenate([vectors, np.empty((max(AT_ONCE, count), vectors.shape[1]), dtype=np.float32)])
    vectors[count] = vector
    return vectors


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _json(report: SynthesisReport) -> str:
    return json.dumps(report.as_row(), indent=2) + "\n"
