"""Texts -> unit vectors, whatever computes them. Owns the checks, the prompts, the tokenizer, the batches, the order.

Guarantees: a text that cannot be embedded is refused before anything is computed, naming it; equal texts are computed
once; rows are in the order of the texts; safe from many threads.
Does not know: torch, onnxruntime.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import TextError
from llama_index_embed_plus.spec import EncoderSpec
from llama_index_embed_plus.tokens import TokenBatch, Tokenizer, Tokens, plan_batches
from qdrant_tools.records import Progress, Vectors

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Token batches -> vectors. `workers` threads may call it at once, with batches of at most `budget` tokens."""

    build: str
    workers: int
    budget: int

    def __call__(self, batch: TokenBatch, *, alone: bool) -> Vectors:
        """Embed (n, t) tokens into (n, dimension) rows as the spec says. alone: no other batch runs beside it."""
        ...


class TextEncoder:
    """An encoder ready for use; see `open_encoder`. Satisfies `qdrant_tools.records.Encoder`."""

    def __init__(
        self,
        spec: EncoderSpec,
        space: str,
        folder: Path,
        backend: Backend,
        *,
        adapter: Callable[[Vectors], Vectors] | None = None,
    ) -> None:
        self.spec, self.space, self.folder = spec, space, folder
        self._backend, self._adapter = backend, adapter
        self._tokenizer = Tokenizer(folder / spec.transformer_path, spec.max_tokens, lowercase=spec.lowercase)
        self._warning = threading.Lock()
        self.truncated = 0
        """How many texts were cut at `max_tokens` since this encoder was opened."""

    @property
    def dimension(self) -> int:
        return self.spec.dimension

    @property
    def build(self) -> str:
        """How vectors are computed: `torch-fp32`, `onnx-fp32`, `onnx-int8`, with `+adapter` if queries are mapped."""
        return self._backend.build + ("+adapter" if self._adapter else "")

    def encode_queries(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Embed questions, with the model's query prompt, into (n, dimension) unit rows.

        Raises TextError naming the first text that is no string, empty, or only whitespace.
        """
        vectors = self._encode(texts, self.spec.query_prompt, progress)
        return self._adapter(vectors) if self._adapter else vectors

    def encode_passages(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Embed texts to be found, with the model's passage prompt, into (n, dimension) unit rows.

        Raises TextError naming the first text that is no string, empty, or only whitespace.
        """
        return self._encode(texts, self.spec.passage_prompt, progress)

    def _encode(self, texts: Sequence[str], prompt: str, progress: Progress | None) -> Vectors:
        check_texts(texts)
        distinct: dict[str, int] = {}
        rows = np.fromiter((distinct.setdefault(text, len(distinct)) for text in texts), np.int64, len(texts))
        tokens = self._tokenizer.encode([prompt + text for text in distinct])
        self._note_truncation(tokens)
        skipped = 0 if self.spec.include_prompt else self._tokenizer.prompt_length(prompt)
        vectors = np.empty((len(distinct), self.dimension), np.float32)
        copies = np.bincount(rows, minlength=len(distinct))
        for batch, embedded in self._embed(tokens, skipped):
            vectors[batch] = embedded
            if progress is not None:
                progress(int(copies[batch].sum()))
        return vectors if len(distinct) == len(texts) else vectors[rows]

    def _embed(self, tokens: Sequence[Tokens], prompt_tokens: int) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield (rows, their vectors), batch by batch."""
        plan = plan_batches([len(text.ids) for text in tokens], self._backend.budget)

        def run(rows: NDArray[np.int64]) -> Vectors:
            batch = self._tokenizer.batch([tokens[row].ids for row in rows], prompt_tokens=prompt_tokens)
            return self._backend(batch, alone=len(plan) == 1)

        if len(plan) == 1 or self._backend.workers == 1:
            for rows in plan:
                yield rows, run(rows)
            return
        with ThreadPoolExecutor(self._backend.workers) as pool:
            yield from zip(plan, pool.map(run, plan))

    def _note_truncation(self, tokens: Sequence[Tokens]) -> None:
        cut = [text.length for text in tokens if text.length > len(text.ids)]
        if not cut:
            return
        with self._warning:
            first, self.truncated = self.truncated == 0, self.truncated + len(cut)
        if first:
            logger.warning(
                "%d of %d texts are longer than %d tokens (the longest has %d) and were cut there; "
                "further ones are only counted, in `truncated`",
                *(len(cut), len(tokens), self.spec.max_tokens, max(cut)),
            )


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what cannot be embedded: not a string, nothing but whitespace, or not Unicode text. Raises TextError."""
    if isinstance(texts, str):
        raise TextError(f"a single string was given, {shown(texts)}; expected a list of strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextError(f"text {index} is {shown(text)}, a {type(text).__name__}; expected a string")
        if not text or text.isspace():
            raise TextError(f"text {index} is {shown(text)}; expected something to embed, leave empty texts out")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextError(
                f"text {index} holds half a surrogate pair at position {error.start} in {shown(text)}; "
                "decode it properly or replace it"
            ) from error


def shown(value: object) -> str:
    """A short repr."""
    text = repr(value[:60]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
