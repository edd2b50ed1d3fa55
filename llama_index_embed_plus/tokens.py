"""Texts -> token sequences -> batches of about equal size, and rows back into the order of the texts.

Batches are cut from all sequences of one call, sorted by length, so that little is padded; each holds at most so many
padded tokens. Guarantees: every sequence in exactly one batch; the tokens of a text do not depend on the others;
safe from many threads (the tokenizer is set up once and only read afterwards).
Does not know: models, prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import normalizers

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.model_files import read_json

Ids = NDArray[np.int32]
"""(t,) token ids of one sequence."""

_CHUNK = 4096
"""Texts tokenised at a time: the library's own objects are large, what is kept of them is not."""


@dataclass(frozen=True)
class TokenBatch:
    """Sequences padded to one length. `prompt_tokens`: how many leading tokens pooling leaves out (0: none)."""

    ids: NDArray[np.int64]
    """(n, t)"""
    mask: NDArray[np.int64]
    """(n, t), 1 = token, 0 = padding"""
    prompt_tokens: int = 0


@dataclass(frozen=True)
class Tokens:
    """One text's tokens, cut to the longest length. `length`: how many there were."""

    ids: Ids
    length: int


class Tokenizer:
    """The tokenizer of a model folder, cutting at `max_tokens` (special tokens included)."""

    def __init__(self, folder: Path, max_tokens: int, *, lowercase: bool = False) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise DamagedModelError(f"{path} is missing; a model without it can be saved again by transformers")
        try:
            self._tokenizer = HfTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise DamagedModelError(f"{path} cannot be read ({error}); fetch it again") from error
        settings = read_json(folder, "tokenizer_config.json") or {}
        self.max_tokens = max_tokens
        self._pad_id = _pad_id(self._tokenizer, settings, read_json(folder, "config.json") or {})
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, direction=settings.get("truncation_side", "right"))
        if lowercase:
            own = self._tokenizer.normalizer
            lower = normalizers.Lowercase()
            self._tokenizer.normalizer = normalizers.Sequence([lower, own]) if own else lower

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenise each text with its special tokens."""
        tokens: list[Tokens] = []
        for start in range(0, len(texts), _CHUNK):
            for encoding in self._tokenizer.encode_batch(list(texts[start : start + _CHUNK])):
                ids = np.asarray(encoding.ids, np.int32)
                tokens.append(Tokens(ids, len(ids) + sum(map(_new_tokens, encoding.overflowing))))
        return tokens

    def prompt_length(self, prompt: str) -> int:
        """How many leading tokens of a sequence belong to `prompt` (and what precedes it), without a closing one.

        The rule of sentence-transformers: tokenise the prompt alone, do not count a special token at its end.
        """
        if not prompt:
            return 0
        encoding = self._tokenizer.encode(prompt)
        closed = bool(encoding.ids) and bool(encoding.special_tokens_mask[-1])
        return len(encoding.ids) - closed

    def batch(self, sequences: Sequence[Ids], *, prompt_tokens: int = 0) -> TokenBatch:
        """Pad `sequences` to the longest among them.

        Always on the right, also for models that were saved with left padding: there the first token keeps position 0,
        so a text gets the vector it has alone. On the left, absolute positions would shift with the longest neighbour.
        """
        longest = max(map(len, sequences))
        ids = np.full((len(sequences), longest), self._pad_id, np.int64)
        mask = np.zeros((len(sequences), longest), np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        return TokenBatch(ids, mask, prompt_tokens)


def plan_batches(lengths: Sequence[int], budget: int) -> list[NDArray[np.int64]]:
    """Cut sequences into batches of at most `budget` padded tokens (one sequence may exceed it), longest first.

    Returns index arrays into `lengths`; together they hold every index once. Longest first, so that what is left
    for the end of a run, when some workers are already idle, is small.
    """
    order = np.argsort(np.negative(np.asarray(lengths, np.int64)), kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def _new_tokens(overflow: Any) -> int:
    """Tokens of an overflow that are the text's own: every piece repeats the special ones."""
    return len(overflow.ids) - sum(overflow.special_tokens_mask)


def _pad_id(tokenizer: HfTokenizer, settings: dict[str, Any], config: dict[str, Any]) -> int:
    """Id that fills up a batch. It is masked, so any valid id will do where no file names one."""
    named = settings.get("pad_token")
    content = named.get("content") if isinstance(named, dict) else named
    found = tokenizer.token_to_id(content) if content else None
    return int(found if found is not None else config.get("pad_token_id") or 0)
