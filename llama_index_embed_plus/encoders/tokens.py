"""Texts -> token sequences -> batches of about equal size.

A sequence is what the model reads: opening tokens, the prompt and the text cut to fit, closing tokens. Batches are made
from all sequences of one call, sorted by length, so that little is padded. Each holds a limited number of tokens,
padding included.

Guarantees: every sequence is in exactly one batch; the tokens of a text do not depend on the other texts; safe from
many threads, and in a forked child; one text of many megabytes takes no more memory than many short ones. Does not
know: models, vectors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import normalizers

from llama_index_embed_plus.errors import TextError
from llama_index_embed_plus.models.files import Settings, settings_of
from llama_index_embed_plus.models.framing import (
    Ids,
    frame_of,
    id_of,
    ids_of,
    load_tokenizer,
    panics_silenced,
    panics_translated,
)
from qdrant_tools.errors import UsageError, brief

_CHUNK = 4096
"""Texts tokenised at a time. The library's own objects are large; only the ids are kept."""
_PIECE = 50_000
"""Characters of one text tokenised at a time, for the same reason. A longer text is split at a space."""
BETWEEN = "\n\n"
"""What lies between texts that are read together."""
_PARALLEL = "TOKENIZERS_PARALLELISM"


def _tokenise_alone() -> None:
    """In a forked child, which lacks the library's threads: it knows that only where this is not set."""
    if _PARALLEL in os.environ:
        os.environ[_PARALLEL] = "false"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tokenise_alone)


@dataclass(frozen=True)
class TokenBatch:
    """Sequences padded to one length. `prompt_tokens`: how many leading tokens pooling leaves out (0: none)."""

    ids: NDArray[np.int64]
    """(n, t)"""
    mask: NDArray[np.int64]
    """(n, t), 1 = token, 0 = padding"""
    prompt_tokens: int = 0


@dataclass(frozen=True)
class Sequences:
    """The sequences of some texts. Sequence i belongs to text `owner[i]` and holds `weight[i]` of its tokens.

    `over`: text -> how many tokens it has at least, for every text that does not fit into one sequence.
    """

    ids: list[Ids]
    owner: NDArray[np.int64]
    weight: NDArray[np.float32]
    over: dict[int, int]


class Tokenizer:
    """The tokenizer of a model folder, for sequences of at most `max_tokens` tokens."""

    def __init__(self, folder: Path, max_tokens: int, *, lowercase: bool = False, append_eos: bool = False) -> None:
        settings = settings_of(folder, "tokenizer_config.json")
        config = settings_of(folder, "config.json")
        self.folder = folder
        self._tokenizer = load_tokenizer(folder, config, settings)
        if lowercase:  # before the tokenizer's own normalizer, as sentence-transformers lower-cases the text itself
            normalizer, lower = self._tokenizer.normalizer, normalizers.Lowercase()
            self._tokenizer.normalizer = normalizers.Sequence([lower, normalizer]) if normalizer else lower
        with panics_silenced(folder):
            self.opening, self.closing = frame_of(self._tokenizer, settings, append_eos)
        self.max_tokens = max_tokens
        self.room = max_tokens - len(self.opening) - len(self.closing)
        """How many tokens of prompt and text fit."""
        if self.room < 1:
            raise UsageError(
                f"max_tokens is {max_tokens}, which leaves no room: "
                f"this model adds {max_tokens - self.room} to every text"
            )
        self._pad_id = _pad_id(self._tokenizer, settings, config)
        self._keep_end = settings.text("truncation_side") == "left"

    def cut(self, texts: Sequence[str], *, prompt: str = "") -> Sequences:
        """Make one sequence per text, cut off at the end, unless the model's files say that it is cut at the start."""
        bodies = self._bodies([prompt + text for text in texts], None if self._keep_end else self.room)
        kept = [body[-self.room :] if self._keep_end else body[: self.room] for body in bodies]
        over = {row: len(body) for row, body in enumerate(bodies) if len(body) > self.room}
        weights = np.fromiter(map(len, kept), np.float32, len(kept))
        return Sequences([self._framed(body) for body in kept], np.arange(len(kept)), weights, over)

    def windows(self, texts: Sequence[str], *, prompt: str = "") -> Sequences:
        """Make as many sequences per text as it needs, each with the prompt. Neighbours overlap by an eighth."""
        lead = self._body(prompt) if prompt else _EMPTY
        ids: list[Ids] = []
        owner: list[int] = []
        weight: list[int] = []
        over: dict[int, int] = {}
        for row, body in enumerate(self._bodies([prompt + text for text in texts], None)):
            if len(body) <= self.room:
                pieces = [body]
            else:
                over[row] = len(body)
                # the body begins with the prompt: it is taken off once and put before every window
                pieces = [np.concatenate([lead, piece]) for piece in self._slide(body[len(lead) :], len(lead))]
            ids += [self._framed(piece) for piece in pieces]
            owner += [row] * len(pieces)
            weight += [len(piece) for piece in pieces]
        return Sequences(ids, np.asarray(owner, np.int64), np.asarray(weight, np.float32), over)

    def together(self, texts: Sequence[str], *, prompt: str = "") -> tuple[Ids, list[int]]:
        """Make one sequence of texts that follow each other, a blank line between them, and find their borders in it.

        Text i has the tokens `borders[i]` to `borders[i + 1]`: those that end in it, and those of nothing but the blank
        line behind it. What comes before the first text and after the last belongs to these two.
        """
        with panics_translated(self.folder):
            encoding = self._tokenizer.encode(prompt + BETWEEN.join(texts), add_special_tokens=False)
        begin = np.cumsum([len(prompt), *(len(text) + len(BETWEEN) for text in texts[:-1])])
        # a token without a place of its own is where the token before it is
        last = np.maximum.accumulate(np.asarray([max(stop - 1, 0) for _, stop in encoding.offsets], np.int64))
        inner = len(self.opening) + np.searchsorted(last, begin[1:])
        sequence = self._framed(ids_of(encoding.ids))
        return sequence, [0, *inner.tolist(), len(sequence)]

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, however long it is, without those put around every text."""
        return [len(body) for body in self._bodies(texts, None)]

    def prompt_length(self, prompt: str) -> int:
        """Return how many leading tokens of a sequence belong to the prompt or come before it.

        As in sentence-transformers, the prompt is tokenised alone and its closing token is not counted.
        """
        return len(self.opening) + len(self._body(prompt)) if prompt else 0

    def require_room(self, prompt: str) -> None:
        """Refuse a prompt that leaves no token of any text: all texts would get one vector."""
        tokens = len(self._body(prompt)) if prompt else 0
        if tokens >= self.room:
            raise UsageError(
                f"the prompt {brief(prompt)} has {tokens} tokens, which leaves none of the {self.room} that fit for a "
                f"text (max_tokens is {self.max_tokens}): raise max_tokens, or give a shorter prompt"
            )

    def batch(self, sequences: Sequence[Ids], *, prompt_tokens: int = 0) -> TokenBatch:
        """Pad `sequences` to the longest among them.

        Padding is on the right, also for models that were saved with left padding: the first token keeps position 0,
        and a text gets the vector it has alone. Left padding would shift positions with the longest neighbour.
        """
        longest = max(map(len, sequences))
        ids = np.full((len(sequences), longest), self._pad_id, np.int64)
        mask = np.zeros((len(sequences), longest), np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        return TokenBatch(ids, mask, prompt_tokens)

    def _bodies(self, texts: Sequence[str], limit: int | None) -> list[Ids]:
        """Return the tokens of each text, without opening and closing ones; a very long text up to about `limit`."""
        if len(texts) == 1 and len(texts[0]) <= _PIECE:  # a single query needs no threads, which cost more than it
            return [self._body(texts[0])]
        bodies: list[Ids] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            # an empty text stands for a long one, so that encodings and texts stay side by side
            short = [text if len(text) <= _PIECE else "" for text in chunk]
            # "fast" leaves out offsets, which nobody reads here
            with panics_translated(self.folder):
                encoded = self._tokenizer.encode_batch_fast(short, add_special_tokens=False)
            for text, encoding in zip(chunk, encoded, strict=True):
                long = len(text) > _PIECE
                bodies.append(self._long_body(text, limit) if long else ids_of(encoding.ids))
        return bodies

    def _body(self, text: str) -> Ids:
        with panics_translated(self.folder):
            return ids_of(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _long_body(self, text: str, limit: int | None) -> Ids:
        parts: list[Ids] = []
        for piece in _pieces(text):
            parts.append(self._body(piece))
            # only beyond the limit, so that `cut` still sees that the text does not fit
            if limit is not None and sum(map(len, parts)) > limit:
                break
        return np.concatenate(parts)

    def _slide(self, body: Ids, prompt_tokens: int) -> Iterator[Ids]:
        """Yield windows over `body` that leave room for the prompt. The last one ends where the body ends."""
        width = self.room - prompt_tokens
        if width < 1:
            raise TextError(f"the prompt has {prompt_tokens} tokens, which leaves none of {self.max_tokens} for a text")
        step = max(1, width - width // 8)
        last = max(0, len(body) - width)
        for start in range(0, last, step):
            yield body[start : start + width]
        yield body[last:]

    def _framed(self, body: Ids) -> Ids:
        return np.concatenate([self.opening, body, self.closing])


def plan_batches(lengths: Sequence[int], budget: int) -> list[NDArray[np.int64]]:
    """Cut sequences into batches of at most `budget` padded tokens (one sequence may exceed it), longest first.

    Returns index arrays into `lengths`, which together hold every index once. The longest come first: at the end of a
    run, when some workers are idle, only small batches are left.
    """
    # negated instead of reversed: texts of equal length keep their order
    order = np.argsort(np.negative(np.asarray(lengths, np.int64)), kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


_EMPTY = np.zeros(0, np.int32)


def _pieces(text: str) -> Iterator[str]:
    """Yield parts of a long text, cut before a space if there is one. Their tokens are those of the whole text."""
    start = 0
    while start < len(text):
        stop = start + _PIECE
        # from start + 1: every piece but the first begins with the space before which it was cut
        space = text.rfind(" ", start + 1, stop) if stop < len(text) else -1
        stop = space if space > 0 else stop
        yield text[start:stop]
        start = stop


def _pad_id(tokenizer: HfTokenizer, settings: Settings, config: Settings) -> int:
    """Return the id that fills up a batch. It is masked, so any valid id will do if no file names one."""
    pad = id_of(tokenizer, settings.values.get("pad_token"))
    return pad if pad is not None else config.integer("pad_token_id") or 0
