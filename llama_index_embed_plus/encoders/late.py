"""Passages of a document -> one vector each, pooled out of one pass over the passages around it.

Late chunking (Günther et al. 2024, arXiv 2409.04701): the passages of a document are read together, as many as fit
into `max_tokens`, and each passage is the mean of the states of its own tokens, which have seen the whole window.

- A window is whole passages of one document, in their order, a blank line between them. A longer document is several
  windows, which share no context. A window ends where a hash of its last passage is smallest, among the ends that leave
  it at least half full: so that windows after an edit are soon those from before it.
- Every token belongs to one passage: to the one in which it ends. As in the authors' code (jina-ai/late-chunking), what
  the model puts around a text belongs to the first and to the last passage of the window. The passage prompt is read
  once, at the start, and pooled with the first passage unless the model leaves prompts out of the pooling.
- A window of one passage is that passage embedded as without late chunking. So is what does not fit into a window with
  others: a passage that is longer than the encoder reads, or has no token.

Guarantees: the vectors of a window depend on its texts alone, not on other windows, and with an int8 build not by a
single bit. Queries are embedded as before. Does not know: documents, collections.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.encoders.text_encoder import TextEncoder, check_texts
from llama_index_embed_plus.encoders.tokens import BETWEEN
from llama_index_embed_plus.models.framing import Ids
from llama_index_embed_plus.models.pooling import MEAN, Stretch
from llama_index_embed_plus.models.spec import late_space
from qdrant_tools.errors import NotSupportedError, UsageError
from qdrant_tools.records import Progress, Vectors

LONGEST = 50_000
"""Characters of a window of several passages."""
USUAL = 256
"""Tokens of a passage, at most, if nobody says how many: a quarter of what the encoder reads, but no more than this."""


def usual_tokens(room: int) -> int:
    """How many tokens a passage has at most if nobody says: a window of `room` tokens should hold several."""
    return max(1, min(USUAL, room // 4))


class LateEncoder(TextEncoder):
    """A `TextEncoder` with late chunking; see `open_encoder`. Its space is another than without."""

    late = True

    @property
    def room(self) -> int:
        """How many tokens of passages a window has, the prompt and special tokens not counted."""
        prompt = self.spec.passage_prompt
        return self.tokenizer.room - (self.tokenizer.counts([prompt])[0] if prompt else 0)

    def encode_passages(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Refused: a passage alone would get another vector than in its document.

        Raises:
            NotSupportedError: always.
        """
        raise NotSupportedError(
            f"{self.space} embeds passages with the document around them (late chunking), and here they come alone: "
            "index the documents again, or open the model without late chunking"
        )

    def windows(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """Cut the passages of one document into windows, in their order; reads no more of them than it needs."""
        pending: list[str] = []
        tokens: list[int] = []
        gap = self._gap()
        for text in texts:
            count = self.tokenizer.counts([text])[0]
            size = count + gap
            if not count or count > self.room or len(text) > LONGEST:
                if pending:
                    yield from self._fitting(pending)
                    pending, tokens = [], []
                yield [text]
                continue
            while pending and (sum(tokens) + size > self.room or sum(map(len, pending)) + len(text) > LONGEST):
                end = _end(pending, tokens, self.room)
                yield from self._fitting(pending[:end])
                pending, tokens = pending[end:], tokens[end:]
            pending.append(text)
            tokens.append(size)
        if pending:
            yield from self._fitting(pending)

    def encode_windows(self, windows: Sequence[Sequence[str]], *, progress: Progress | None = None) -> Vectors:
        """Embed windows, as `windows` cuts them, into one unit vector per passage, in order.

        Raises:
            TextError: naming the first text that is no string, empty, or only whitespace.
        """
        rows = np.cumsum([0, *map(len, windows)])
        texts = check_texts([text for window in windows for text in window])
        vectors = np.empty((len(texts), self.dimension), np.float32)
        single = [int(row) for row, window in zip(rows[:-1], windows, strict=True) if len(window) == 1]
        if single:
            alone = check_texts([texts[row] for row in single])
            vectors[single] = self._encode(alone, self.spec.passage_prompt, progress)
        several = [number for number, window in enumerate(windows) if len(window) > 1]
        read = [self.tokenizer.together(windows[number], prompt=self.spec.passage_prompt) for number in several]
        lengths = [len(ids) for ids, _ in read]
        if max(lengths, default=0) > self.spec.max_tokens:
            raise UsageError(f"a window has {max(lengths)} tokens, {self.spec.max_tokens} fit: let `windows` cut it")
        for batch, embedded in self._batches(lengths, partial(self._pool, read)):
            owned = [row for number in batch for row in range(rows[several[number]], rows[several[number] + 1])]
            vectors[owned] = embedded
            if progress is not None:
                progress(len(owned))
        return vectors

    def _pool(self, read: Sequence[tuple[Ids, list[int]]], rows: NDArray[np.int64], alone: bool) -> Vectors:
        batch = self.tokenizer.batch([read[row][0] for row in rows])
        stretches = [stretch for place, row in enumerate(rows) for stretch in self._stretches(place, read[row][1])]
        return self.backend.stretches(batch, stretches, alone=alone)

    def _stretches(self, row: int, borders: Sequence[int]) -> Iterator[Stretch]:
        left_out = 0 if self.spec.include_prompt else self.tokenizer.prompt_length(self.spec.passage_prompt)
        for start, stop in zip(borders, borders[1:]):
            yield row, max(start, left_out), stop

    def _fitting(self, texts: list[str]) -> Iterator[list[str]]:
        """Yield windows of these texts that fit: together they may have more tokens than one by one, or a text none."""
        if len(texts) > 1:
            prompt = self.spec.passage_prompt
            ids, borders = self.tokenizer.together(texts, prompt=prompt)
            own = np.diff(borders)
            own[0] -= self.tokenizer.prompt_length(prompt) if prompt else len(self.tokenizer.opening)
            own[-1] -= len(self.tokenizer.closing)
            if len(ids) > self.tokenizer.max_tokens or own.min() < 1:
                middle = len(texts) // 2
                yield from self._fitting(texts[:middle])
                yield from self._fitting(texts[middle:])
                return
        yield texts

    def _gap(self) -> int:
        """How many tokens lie between two texts."""
        one, two = self.tokenizer.counts(["a", f"a{BETWEEN}a"])
        return max(0, two - 2 * one)


def _end(texts: Sequence[str], tokens: Sequence[int], room: int) -> int:
    """How many of the texts are a window: those up to the smallest hash, if they fill half of the room."""
    ends = [end for end, total in enumerate(accumulate(tokens), 1) if 2 * total >= room]
    return min(ends or [len(texts)], key=lambda end: hashlib.sha256(texts[end - 1].encode("utf-8", "replace")).digest())


def with_late_chunking(encoder: TextEncoder) -> LateEncoder:
    """The same model with late chunking, not opened again.

    Raises:
        NotSupportedError: its pooling is not the mean, a token does not see those behind it (a decoder), or this build
            gives no states of single tokens.
    """
    if encoder.spec.pooling != (MEAN,):
        raise NotSupportedError(
            f"{encoder.folder}: late chunking pools the states of a passage's own tokens, and this model's pooling is "
            f"{' and '.join(encoder.spec.pooling)}, not the mean: index without late chunking"
        )
    late = object.__new__(LateEncoder)
    late.__dict__.update(copy.copy(encoder).__dict__)
    if not encoder.spec.late:
        late.spec, late.space = replace(encoder.spec, late=True), late_space(encoder.space)
    if not _sees_ahead(late):
        raise NotSupportedError(
            f"{encoder.folder}: late chunking needs tokens that see the text on both sides of them, and in this model "
            "they see only what comes before (a decoder): index without late chunking"
        )
    return late


def suited(encoder: TextEncoder, space: str) -> TextEncoder:
    """The encoder, with late chunking if that is what fills `space`, the space of a collection.

    Raises:
        NotSupportedError: as `with_late_chunking` says.
    """
    return with_late_chunking(encoder) if not encoder.spec.late and space == late_space(encoder.space) else encoder


def _sees_ahead(encoder: TextEncoder) -> bool:
    """Whether the state of a token depends on later ones: measured, not guessed from the model's name."""
    tokenizer = encoder.tokenizer
    body = [0, 1, 0, 1][: tokenizer.room]  # words that every vocabulary has
    if len(body) < 2:
        return True  # no window will hold two passages
    other = [*body[:-1], 1 - body[-1]]
    ids = [np.concatenate([tokenizer.opening, words, tokenizer.closing]).astype(np.int32) for words in (body, other)]
    last = len(tokenizer.opening) + len(body) - 1
    vectors = encoder.backend.stretches(tokenizer.batch(ids), [(0, 0, last), (1, 0, last)], alone=True)
    return bool(np.abs(vectors[0] - vectors[1]).max() > 1e-6)
