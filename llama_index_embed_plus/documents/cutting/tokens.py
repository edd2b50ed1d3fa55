"""An encoder -> how many tokens a text has, and how many of a passage it reads.

Guarantees: counts are those of the encoder's own tokenizer. Does not know: how texts are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llama_index_embed_plus.encoders.late import usual_tokens
from llama_index_embed_plus.encoders.open import ModelTokens
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder


class TokenCounter(Protocol):
    """How long texts are for an encoder."""

    @property
    def room(self) -> int:
        """How many tokens of a passage are read, its prompt and special tokens not counted."""
        ...

    @property
    def usual(self) -> int:
        """How many a passage has at most if nobody says."""
        ...

    @property
    def late(self) -> bool:
        """Whether a passage is read together with those around it."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, however long."""
        ...


@dataclass(frozen=True)
class PassageTokens:
    """The tokens of an encoder's passages."""

    encoder: TextEncoder | ModelTokens

    @property
    def room(self) -> int:
        tokenizer, prompt = self.encoder.tokenizer, self.encoder.spec.passage_prompt
        return tokenizer.room - (tokenizer.counts([prompt])[0] if prompt else 0)

    @property
    def usual(self) -> int:
        # several have to fit into a window, or they would be read alone after all
        return usual_tokens(self.room) if self.late else self.room

    @property
    def late(self) -> bool:
        return self.encoder.spec.late

    def count(self, texts: Sequence[str]) -> list[int]:
        prompt = self.encoder.spec.passage_prompt
        # with its prompt: the border of the two may be one token
        lead = self.encoder.tokenizer.counts([prompt])[0] if prompt else 0
        return [count - lead for count in self.encoder.tokenizer.counts([prompt + text for text in texts])]


def token_counter(encoder: Encoder | ModelTokens) -> PassageTokens:
    """The token counter of an encoder of this package, with a query adapter or without, or of its tokenizer alone.

    Raises:
        UsageError: an encoder of another kind, whose tokens nobody knows here.
    """
    inner: Any = getattr(encoder, "base", encoder)
    if not isinstance(inner, TextEncoder | ModelTokens):
        raise UsageError(f"encoder is {type(encoder).__name__}, expected one of open_encoder(): its tokens are counted")
    return PassageTokens(inner)
