"""Passages and a language model -> questions that the passages answer, kept as they come.

The model is anything callable with a prompt, or with LlamaIndex's `complete`. Every answer goes to the journal before
the next passage is asked about: a run that was killed goes on where it stopped, and nothing is paid for twice.

Guarantees: an answer that is no use and a model that raises are counted, not fatal, until they come several times in
a row. A journal of another prompt, number of questions or collection is refused. Does not know: what a good question is
(`answers`, `filters`).
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from llama_index_embed_plus.errors import GenerationError
from llama_index_embed_plus.training.synthesis.answers import questions_in, read_answer
from llama_index_embed_plus.training.synthesis.overview import Seen
from qdrant_tools.errors import InputError, UsageError, brief, first_line
from qdrant_tools.files.rows import Row, read_rows
from qdrant_tools.files.written import errors_of_writing, json_line, open_private, refuse_link, require_writable
from qdrant_tools.validation import checked_count, checked_text

FORMAT = 1
PROMPT = """\
Write {questions} questions that people could type into a search box and that the text below answers.

Each question is about something that the text says and makes sense to somebody who has never seen the text: it does \
not speak of "the text", "the passage" or "the author". Use other words than the text where you can. Write in the \
language of the text, one question per line, without numbers and without anything else.

Where the text stands: {place}
The text:
{passage}
"""
"""`{passage}`, `{place}` (its file and headings) and `{questions}` (how many) are filled in."""

LanguageModel = Callable[[str], object] | Any
"""A callable that takes a prompt, or an object with `complete`, such as any `LLM` of LlamaIndex."""


@dataclass(frozen=True)
class GenerationSettings:
    """How a language model is asked."""

    questions: int = 3
    """Per passage."""
    passages: int = 1000
    """Passages that it is asked about, at most, spread over the documents: they bound what a run costs."""
    workers: int = 1
    """Calls at a time; more only for models that allow it."""
    failures: int = 5
    """A run ends when so many calls in a row raise, or answer nothing that is a question."""
    longest: int = 6000
    """Characters of a passage that are shown to the model."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            checked_count(name, value)


COUNTED = ("prompt_characters", "completion_characters", "prompt_tokens", "completion_tokens")
"""Of each call."""


@dataclass(frozen=True)
class Asked:
    """One call: the passage, what came back, what it cost, and why it failed if it did."""

    passage_id: str
    text_hash: str
    questions: tuple[str, ...] = ()
    error: str = ""
    prompt_characters: int = 0
    completion_characters: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"questions": list(self.questions)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Asked:
        questions = row.get("questions")
        if not isinstance(questions, list) or not all(isinstance(question, str) for question in questions):
            raise InputError(f"questions are {brief(questions)}, expected a list of texts")
        values: dict[str, Any] = {name: checked_count(name, row.get(name), least=0) for name in COUNTED}
        values |= {name: checked_text(name, row.get(name)) for name in ("passage_id", "text_hash", "error")}
        return cls(**values, questions=tuple(questions))


class Generator:
    """Asks a language model, and remembers what it was asked before."""

    def __init__(
        self,
        llm: LanguageModel,
        settings: GenerationSettings,
        *,
        prompt: str = PROMPT,
        journal: Path | None = None,
        of: str = "",
    ) -> None:
        """`of` names what the passages are of.

        Raises:
            UsageError: no model, a prompt without `{passage}`, or a journal of another run.
        """
        self._complete = _callable(llm)
        if not isinstance(prompt, str) or "{passage}" not in prompt:
            raise UsageError(f"prompt is {brief(prompt)}, expected a text with {{passage}} where the passage comes")
        self.settings, self.prompt, self.journal = settings, prompt, journal
        fingerprint = hashlib.sha256(f"{of}\0{settings.questions}\0{prompt}".encode("utf-8", "surrogatepass"))
        self._begun = {"format": FORMAT, "of": of, "asked_with": fingerprint.hexdigest()}
        self.cost: Counter[str] = Counter()
        """Over all runs of the journal."""
        self._known: dict[tuple[str, str], Asked] = {}
        self._in_a_row = 0
        if journal is not None:
            self._open(journal)

    def filled(self, seen: Seen) -> str:
        """The prompt for one passage."""
        place = " > ".join(part for part in (seen.path or seen.title, *seen.headings) if part) or "unknown"
        passage = seen.text[: self.settings.longest]
        # the passage last: what it says is not filled in
        filled = self.prompt.replace("{questions}", str(self.settings.questions)).replace("{place}", place)
        before, _, after = filled.partition("{passage}")
        return f"{before}{passage}{after}"

    def ask(self, passages: Iterable[Seen]) -> Iterator[tuple[Seen, Asked]]:
        """Yield the questions of each passage, from the journal where they are there.

        Raises:
            GenerationError: too many calls in a row failed; what was answered is kept.
        """
        remaining = iter(passages)
        with ThreadPoolExecutor(self.settings.workers, "llm") as threads:
            # as many as are asked at a time: what was paid for is on the disk before more is
            while batch := list(islice(remaining, self.settings.workers)):
                new = [seen for seen in batch if (seen.id, _hash(seen.text)) not in self._known]
                answers = dict(zip((seen.id for seen in new), threads.map(self._asked, new)))
                self._keep(list(answers.values()))
                for seen in batch:
                    yield seen, answers.get(seen.id) or self._known[seen.id, _hash(seen.text)]
                self._check(list(answers.values()))

    def _asked(self, seen: Seen) -> Asked:
        prompt = self.filled(seen)
        asked = Asked(seen.id, _hash(seen.text), prompt_characters=len(prompt))
        try:
            answer = read_answer(self._complete(prompt))
        except Exception as error:  # a stranger's model may raise anything
            return replace(asked, error=f"{type(error).__name__}: {first_line(error)}")
        if answer is None:
            return replace(asked, error="the answer has no text")
        questions = tuple(questions_in(answer.text))
        return replace(
            asked,
            questions=questions,
            error="" if questions else f"no question in {brief(answer.text)}",
            completion_characters=len(answer.text),
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )

    def _check(self, answers: Sequence[Asked]) -> None:
        for asked in answers:
            self._in_a_row = self._in_a_row + 1 if asked.error else 0
            if self._in_a_row >= self.settings.failures:
                kept = f"{self.cost['answered']} answers are kept" + (f" in {self.journal}" if self.journal else "")
                raise GenerationError(
                    f"the language model failed {self._in_a_row} times in a row (the last time: {asked.error}); "
                    f"{kept}, and the same call goes on from there"
                )

    def _keep(self, answers: Sequence[Asked]) -> None:
        for asked in answers:
            self._count(asked)
        if self.journal is None or not answers:
            return
        with errors_of_writing(self.journal), _opened(self.journal) as file:
            file.seek(0, os.SEEK_END)
            file.write(b"".join(json_line(asked.as_row()) for asked in answers))
            file.flush()
            os.fsync(file.fileno())

    def _count(self, asked: Asked) -> None:
        self.cost["calls"] += 1
        self.cost["failed"] += bool(asked.error)
        self.cost["answered"] += not asked.error
        self.cost["questions"] += len(asked.questions)
        for name in COUNTED:
            self.cost[name] += getattr(asked, name)
        if not asked.error:
            self._known[asked.passage_id, asked.text_hash] = asked

    def _open(self, journal: Path) -> None:
        """Begin a journal, or read one: what a kill has left of its last line is cut off."""
        require_writable(journal, overwrite=True)
        refuse_link(journal, UsageError)
        with errors_of_writing(journal), _opened(journal) as file:
            size = _whole_lines(file)
            file.truncate(size)
            if not size:
                file.write(json_line(self._begun))
                return
        rows = read_rows(journal)
        first = next(rows, None)
        if first is None or first.values.get("format") != FORMAT or "asked_with" not in first.values:
            raise UsageError(f"{journal} is no journal of questions: give another --out, or move it away")
        if first.values != self._begun:
            raise UsageError(
                f"{journal} was begun with another prompt, number of questions or collection: remove it to ask again, "
                "or give another --out"
            )
        for row in rows:
            self._count(_parsed(row))


def _parsed(row: Row) -> Asked:
    return row.parse(Asked.from_row, "an answer of a language model")


@contextmanager
def _opened(journal: Path) -> Iterator[IO[bytes]]:
    """A journal to read and write, never through a link."""
    with open_private(journal) as held, open(held.fileno(), "r+b", closefd=False) as file:
        yield file


def _whole_lines(file: IO[bytes]) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        end = start
    return 0


def _callable(llm: LanguageModel) -> Callable[[str], object]:
    complete = getattr(llm, "complete", llm)
    if not callable(complete) or inspect.isclass(llm):
        raise UsageError(f"llm is {brief(llm)}, expected one of LlamaIndex's LLMs or a function that takes a prompt")
    if inspect.iscoroutinefunction(complete) or inspect.iscoroutinefunction(getattr(complete, "__call__", None)):  # noqa: B004
        raise UsageError(f"llm is {brief(llm)}, which has to be awaited: expected a function that returns its answer")
    return complete


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
