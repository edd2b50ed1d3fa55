"""Texts -> unit vectors, whatever library computes them: checks, prompts, tokens, batches, and the order of rows.

`TextEncoder` is what `open_encoder` returns; `Runtime` says how it is run, which is no part of the vector space.

Guarantees: a text that cannot be embedded is refused, with its position, before anything is computed; equal texts are
computed once; rows are in the order of the texts; safe from many threads, and in a forked child. This is the only place
that checks texts and the only one that leaves out duplicates. Does not know: torch, onnxruntime.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.encoders.tokens import Sequences, TokenBatch, Tokenizer, plan_batches
from llama_index_embed_plus.errors import DamagedModelError, TextError
from llama_index_embed_plus.models.artifact import Refusal
from llama_index_embed_plus.models.pooling import Stretch, unit
from llama_index_embed_plus.models.spec import EncoderSpec
from qdrant_tools.client.forks import renew_in_children, undivided
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Passage, Progress, Vectors
from qdrant_tools.search.adapters import Adapter

if TYPE_CHECKING:
    from llama_index_embed_plus.sharing.hub import Pushed

logger = logging.getLogger(__name__)


Dtype = Literal["float32", "bfloat16", "float16"]
OnMismatch = Literal["fallback", "error"]


@dataclass(frozen=True)
class Runtime:
    """How an encoder is run: settings of `open_encoder` that most callers leave alone."""

    trust_remote_code: bool = False
    """Run code that lies in the model's own repository. Read it first."""
    dtype: Dtype = "float32"
    """Numbers torch computes with up to the pooling; the shorter ones halve the memory of a large decoder."""
    threads: int | None = None
    """Cores an ONNX build may use; None: all that this process has. Torch has its own setting for all models."""
    batch_tokens: int | None = None
    """Padded tokens per batch; None: what suits the backend."""
    on_mismatch: OnMismatch = "fallback"
    """What to do if a build gives other vectors on this machine than where it was made. `fallback` uses the fp32 build
    and warns; `error` raises ParityError."""

    def __post_init__(self) -> None:
        for name in ("threads", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if self.dtype not in get_args(Dtype):
            raise UsageError(f"dtype is {self.dtype!r}, expected one of {', '.join(get_args(Dtype))}")
        if self.on_mismatch not in get_args(OnMismatch):
            raise UsageError(f"on_mismatch is {self.on_mismatch!r}, expected one of {', '.join(get_args(OnMismatch))}")


class Backend(Protocol):
    """Token batches -> vectors. `workers` threads may call it at once, with batches of at most `budget` tokens."""

    build: str
    workers: int
    budget: int

    def __call__(self, batch: TokenBatch, *, alone: bool) -> Vectors:
        """Embed (n, t) tokens into (n, dimension) rows as the spec says. alone: no other batch runs beside it."""
        ...

    def stretches(self, batch: TokenBatch, stretches: Sequence[Stretch], *, alone: bool) -> Vectors:
        """Embed stretches of the batch's rows, each pooled out of the whole row, into (m, dimension) rows.

        Raises NotSupportedError if this build has no states of single tokens.
        """
        ...


Compute = Callable[[NDArray[np.int64], bool], Vectors]
"""Rows of a call, and whether no other batch runs beside theirs -> their vectors."""


class CheckedTexts(tuple[str, ...]):
    """Texts that can all be embedded, as `check_texts` returns them. A selection of them needs no second check."""


def check_texts(texts: Sequence[str]) -> CheckedTexts:
    """Refuse what cannot be embedded: not a string, nothing but whitespace, or not Unicode text.

    Texts are checked where they come in. Handing the result on costs nothing: checked texts are not checked again.

    Raises:
        TextError: naming the first bad text and its position.
    """
    if isinstance(texts, CheckedTexts):
        return texts
    # a string is a sequence of strings too: every letter would be embedded
    if isinstance(texts, str):
        raise TextError(f"a single string was given, {short_repr(texts)}; expected a list of strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextError(f"text {index} is {short_repr(text)}, a {type(text).__name__}; expected a string")
        # isspace() of "" is False
        if not text or text.isspace():
            raise TextError(f"text {index} is {short_repr(text)}; expected something to embed, leave empty texts out")
        try:
            # json.loads lets half a pair through, and UTF-8 has no bytes for it
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextError(
                f"text {index} holds half a surrogate pair at position {error.start} in {short_repr(text)}; "
                "decode it properly or replace it"
            ) from error
    return CheckedTexts(texts)


class TextEncoder:
    """An encoder ready for use; see `open_encoder`. Satisfies `qdrant_tools.records.Encoder`."""

    def __init__(
        self,
        spec: EncoderSpec,
        space: str,
        folder: Path,
        backend: Backend,
        *,
        adapter: Adapter | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        self.spec, self.space, self.folder = spec, space, folder
        self.backend, self.adapter = backend, adapter
        self.refusal = refusal.reason if refusal is not None else None
        """Why this encoder must not be promoted. None: no reason is known."""
        self.only_synthetic = refusal is not None and refusal.only_synthetic
        """Whether the only reason is that it was proved on synthetic queries, which a person may accept."""
        self.tokenizer = Tokenizer(
            folder / spec.transformer_path,
            spec.max_tokens,
            lowercase=spec.lowercase,
            append_eos=spec.append_eos,
        )
        for prompt in (spec.query_prompt, spec.passage_prompt):
            self.tokenizer.require_room(prompt)
        self._make_locks()
        renew_in_children(self, TextEncoder._make_locks)
        self.quiet = False
        """True: no warning about texts that are cut; they are only counted."""
        self.announce: Callable[[list[str]], None] | None = None
        """Told of texts that are cut, instead of the warning."""
        self.truncated = 0
        """How many texts were cut at `max_tokens` since this encoder was opened."""

    def push_to_hub(self, repo: str, *, private: bool = False, force: bool = False, dry_run: bool = False) -> Pushed:
        """Send its folder to the repository `owner/name` of the model hub; see `sharing.hub.push_to_hub`."""
        from llama_index_embed_plus.sharing.hub import push_to_hub

        return push_to_hub(self.folder, repo, private=private, force=force, dry_run=dry_run)

    def _make_locks(self) -> None:
        # More batches at once than the backend has workers would only cost memory, however many threads call.
        self._slots = threading.BoundedSemaphore(self.backend.workers)
        self._warning = threading.Lock()

    def __copy__(self) -> TextEncoder:
        """The same model, not opened again."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        renew_in_children(twin, TextEncoder._make_locks)
        return twin

    @property
    def dimension(self) -> int:
        return self.spec.dimension

    @property
    def build(self) -> str:
        """How vectors are computed: `torch-fp32`, `onnx-fp32`, `onnx-int8`, with `+adapter` if queries are mapped."""
        return self.backend.build + ("+adapter" if self.adapter else "")

    def encode_queries(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Embed questions, with the model's query prompt, into (n, dimension) unit rows.

        Raises TextError naming the first text that is no string, empty, or only whitespace.
        """
        vectors = self._encode(texts, self.spec.query_prompt, progress)
        return self.adapter(vectors) if self.adapter else vectors

    def encode_passages(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Embed texts to be found, with the model's passage prompt, into (n, dimension) unit rows.

        Raises TextError naming the first text that is no string, empty, or only whitespace.
        """
        return self._encode(texts, self.spec.passage_prompt, progress)

    def encode_compared(
        self, texts: Sequence[str], task: str = "similarity", *, progress: Progress | None = None
    ) -> Vectors:
        """Embed texts that are compared with their like, with the prompt that the model has for this task.

        task: similarity, pair_classification, classification, clustering, duplicates, bitext_mining or summarisation.
        `describe` says which prompt, and where it comes from. An adapter changes queries only.
        """
        prompt = self.spec.compared_prompt(task)
        self.tokenizer.require_room(prompt)
        return self._encode(texts, prompt, progress)

    def cut(self, passage: Passage) -> Iterator[Passage]:
        """The passage itself if all of it is read, else parts of which that is true; see `documents.passage_cutter`."""
        if self.spec.long_text == "mean":
            yield passage
            return
        # imported here: it imports this module
        from llama_index_embed_plus.documents.passages import passage_cutter

        yield from passage_cutter(self)(passage)

    def count_overlong(self, texts: Sequence[str]) -> int:
        """How many of these passages are longer than what is read of them."""
        if self.spec.long_text == "mean":
            return 0
        return len(self.tokenizer.cut(list(texts), prompt=self.spec.passage_prompt).over)

    def _encode(self, texts: Sequence[str], prompt: str, progress: Progress | None) -> Vectors:
        texts = check_texts(texts)
        distinct: dict[str, int] = {}  # text -> its row among the distinct ones
        rows = np.fromiter((distinct.setdefault(text, len(distinct)) for text in texts), np.int64, len(texts))
        # `texts` goes along for error messages, which name positions in the list that the caller gave
        sequences = self._sequences(list(distinct), prompt, texts)
        skipped = 0 if self.spec.include_prompt else self.tokenizer.prompt_length(prompt)
        self._check_tokens(sequences, list(distinct), texts, skipped)
        vectors = np.empty((len(sequences.ids), self.dimension), np.float32)
        report = _ProgressCounter(progress, sequences.owner, np.bincount(rows, minlength=len(distinct)))

        def compute(batch: NDArray[np.int64], alone: bool) -> Vectors:
            ids = [sequences.ids[row] for row in batch]
            return self.backend(self.tokenizer.batch(ids, prompt_tokens=skipped), alone=alone)

        for batch, embedded in self._batches([len(ids) for ids in sequences.ids], compute):
            if embedded.shape != (len(batch), self.dimension):
                raise DamagedModelError(
                    f"{self.folder}: the {self.backend.build} build gives {embedded.shape} numbers for {len(batch)} "
                    f"texts, its files state {self.dimension} for each: export it again"
                )
            vectors[batch] = embedded
            report(batch)
        # There are more sequences than texts if long texts were split into windows.
        if len(sequences.ids) != len(distinct):
            vectors = average(vectors, sequences, len(distinct))
        return vectors if len(distinct) == len(texts) else vectors[rows]

    def _sequences(self, distinct: list[str], prompt: str, texts: CheckedTexts) -> Sequences:
        """Tokenise the texts. `long_text` of the spec decides about those that do not fit."""
        if self.spec.long_text == "mean":
            return self.tokenizer.windows(distinct, prompt=prompt)
        sequences = self.tokenizer.cut(distinct, prompt=prompt)
        if sequences.over and self.spec.long_text == "error":
            row, tokens = min(sequences.over.items())
            text = distinct[row]
            raise TextError(
                f"text {texts.index(text)} {short_repr(text)} has at least {tokens} tokens with its prompt, "
                f"{self.tokenizer.room} fit; split it, or let long_text be 'mean' or 'truncate'"
            )
        self._note_truncation(distinct, sequences.over)
        return sequences

    def _check_tokens(self, sequences: Sequences, distinct: list[str], texts: CheckedTexts, skipped: int) -> None:
        """Refuse a text of which no token is pooled. There is none if the model adds closing tokens.

        skipped: how many leading tokens the pooling leaves out.
        """
        empty = next((row for row, ids in zip(sequences.owner, sequences.ids) if len(ids) <= skipped), None)
        if empty is not None:
            text = distinct[int(empty)]
            raise TextError(f"text {texts.index(text)} is {short_repr(text)}, which has no token this model knows")

    def _batches(self, lengths: Sequence[int], compute: Compute) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield (rows, their vectors), batch by batch."""
        plan = plan_batches(lengths, self.backend.budget)

        def run(rows: NDArray[np.int64]) -> Vectors:
            with self._slots, undivided():
                return compute(rows, len(plan) == 1)

        if len(plan) == 1 or self.backend.workers == 1:
            for rows in plan:
                yield rows, run(rows)
            return
        pool = ThreadPoolExecutor(self.backend.workers)
        try:
            yield from zip(plan, pool.map(run, plan))
        finally:  # after an error or Ctrl-C too: batches that have not begun must not be waited for
            pool.shutdown(cancel_futures=True)

    def _note_truncation(self, texts: list[str], cut: dict[int, int]) -> None:
        if not cut:
            return
        with self._warning:
            # in one step with the counting: of many threads one warns
            first, self.truncated = self.truncated == 0, self.truncated + len(cut)
        if self.announce is not None:
            self.announce([texts[row] for row in cut])
        elif first and not self.quiet:
            logger.warning(
                "%d of %d texts have more than the %d tokens that fit (the longest at least %d) and were cut; "
                "further ones are only counted, in `truncated`",
                *(len(cut), len(texts), self.tokenizer.room, max(cut.values())),
            )


class _ProgressCounter:
    """Calls `progress` as texts are finished. A text is finished with its last window, and counts with its copies."""

    def __init__(self, progress: Progress | None, owner: NDArray[np.int64], copies: NDArray[np.int64]) -> None:
        self._progress, self._owner, self._copies = progress, owner, copies
        self._remaining = np.bincount(owner, minlength=len(copies))

    def __call__(self, done: NDArray[np.int64]) -> None:
        if self._progress is None:
            return
        owners, counts = np.unique(self._owner[done], return_counts=True)
        self._remaining[owners] -= counts
        finished = int(self._copies[owners[self._remaining[owners] == 0]].sum())
        if finished:
            self._progress(finished)


def average(vectors: Vectors, sequences: Sequences, texts: int) -> Vectors:
    """Return one unit vector per text: the mean of its windows' vectors, weighted by their numbers of tokens."""
    total = np.zeros((texts, vectors.shape[1]), np.float32)
    # add.at adds every window of a text; indexed += would keep only the last one.
    np.add.at(total, sequences.owner, vectors * sequences.weight[:, None])
    return np.asarray(unit(total), np.float32)


def short_repr(value: object) -> str:
    """Return a short repr for a message."""
    text = repr(value[:60]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def out_of_memory_message(batch: TokenBatch, device: str) -> str:
    """Return the message for a batch that does not fit into memory."""
    texts, tokens = batch.ids.shape
    return (
        f"no memory on {device} for a batch of {texts} texts of {tokens} tokens; "
        "use smaller batches, Runtime(batch_tokens=...), or a smaller max_tokens"
    )
